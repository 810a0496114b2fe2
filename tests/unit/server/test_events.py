"""What libraries and we log, as events of the server."""

from __future__ import annotations

import json
import logging

from perennial.server import main


def test_an_event_has_what_the_record_says_besides(capsys):
    """Reasons are logged as facts of their own: none is lost."""
    record = logging.getLogger("perennial.server.writer").makeRecord(
        "perennial.server.writer", logging.ERROR, "writer.py", 1, "predictions lost", (), None,
        extra={"rows": 5, "why": "the disk is full"},
    )  # fmt: skip
    main._Events().emit(record)
    told = json.loads(capsys.readouterr().err)
    assert told == {
        "event": "log", "from": "perennial.server.writer", "level": "error", "message": "predictions lost",
        "rows": 5, "why": "the disk is full",
    }  # fmt: skip
