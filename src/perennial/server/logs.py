"""What the server's log says, and what it never does: no query, header, cookie, token or body."""

from __future__ import annotations

import logging
import re

#: what a token looks like, wherever it may have got to
_TOKEN = re.compile(r"pn_[A-Za-z0-9_-]{16,}|(?i:bearer)\s+[^\s'\",]+")


class Discreet(logging.Filter):
    """Takes the query off the URLs of uvicorn's access log, and tokens out of whatever is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record in place; all of them pass."""
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            record.args = client, method, str(path).partition("?")[0], version, status
        elif isinstance(record.args, tuple):
            record.args = tuple(redacted(one) if isinstance(one, str) else one for one in record.args)
        if isinstance(record.msg, str):
            record.msg = redacted(record.msg)
        return True


def redacted(text: str) -> str:
    """A text without tokens.

    Examples
    --------
    >>> redacted("Authorization: Bearer pn_abcdefghijklmnopqrstuvwx, sent twice")
    'Authorization: ..., sent twice'
    """
    return _TOKEN.sub("...", text)
