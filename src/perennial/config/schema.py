"""The JSON Schema of the configuration, for editors. ``python -m perennial.config`` writes the shipped file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perennial.config.records import Config

#: the file that is shipped, as editors are pointed to it
FILE = Path(__file__).with_name("perennial.schema.json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``perennial.yaml``, from the records that check it.

    Examples
    --------
    >>> json_schema()["required"]
    ['stream', 'strategies']
    """
    found = Config.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "Configuration of Perennial",
    }


def text() -> str:
    """The schema as the shipped file holds it."""
    return json.dumps(json_schema(), indent=2, sort_keys=False) + "\n"
