"""The report of a backtest: a table for the terminal, one offline page, a picture, and the schema of the data.

All of them read one plain dict, the content of ``report.json``; docs/report.md says what each part means.
"""

from __future__ import annotations

from typing import Any

from perennial.replay.report.html import html
from perennial.replay.report.picture import picture
from perennial.replay.report.table import show, table

__all__ = ["html", "picture", "schema", "show", "table"]


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``report.json``, format 1; a fresh dict at each call.

    Examples
    --------
    >>> schema()["properties"]["format"]
    {'const': 1}
    """
    import json
    from importlib.resources import files

    text = files(__name__).joinpath("report.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
