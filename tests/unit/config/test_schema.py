"""The JSON Schema agrees with what is accepted, and the documentation with both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from perennial.config import json_schema, parse
from perennial.config.document import read
from perennial.config.records import Config, Label, Stream
from perennial.config.schema import FILE

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_shipped_schema_is_not_stale():
    """Run `python -m perennial.config` after the records changed."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("text", EXAMPLES)
def test_documented_examples_are_valid(text):
    """Every YAML block of the page parses, satisfies the schema, and reads back after writing."""
    from perennial.config import to_yaml

    config = parse(text).config
    jsonschema.validate(read(text, "f").data, json_schema())
    assert parse(to_yaml(config)).config == config
    jsonschema.validate(read(to_yaml(config), "f").data, json_schema())


def test_there_are_examples_and_every_setting_is_documented():
    """A setting that the page does not name fails here."""
    page = PAGE.read_text(encoding="utf-8")
    assert len(EXAMPLES) >= 4
    for record in (Config, Stream, Label):
        for setting in record.model_fields:
            assert re.search(rf"\b{setting}\b", page), f"{record.__name__}.{setting} is not in docs/configuration.md"


@pytest.mark.parametrize(
    ("old", "new"),
    [("batch: 1d", "bach: 1d"), ("sliding: 180d", "slidng: 180d"), ("mode: before", "mode: befor"), ("30d", "30")],
)
def test_the_schema_refuses_what_the_records_refuse(old, new):
    """An editor underlines unknown settings, words and shapes; a bare number of rows is fine."""
    data = read(EXAMPLES[0].replace(old, new), "f").data
    if old == "30d":
        jsonschema.validate(data, json_schema())
        return
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())
