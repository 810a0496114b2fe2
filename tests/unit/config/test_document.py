"""Reading YAML: words, lines and traps."""

from __future__ import annotations

import pytest

from perennial.config.document import read
from perennial.core.errors import ConfigError


def problems(text: str) -> list[tuple[int | None, str, str]]:
    """The problems of a text: line, path and rule."""
    with pytest.raises(ConfigError) as caught:
        read(text, "perennial.yaml")
    return [(p.line, p.path, p.need) for p in caught.value.got.all]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("20_000", 20_000),
        ("010", 10),
        ("0x1f", 31),
        (".inf", float("inf")),
        ("~", None),
        ("", None),
        ("1d", "1d"),
        ('"5"', "5"),
        ("'true'", "true"),
    ],
)
def test_words_are_those_of_yaml_1_2(text, value):
    """Only true and false are booleans, quotes make text, and times and dates stay as written."""
    found = read(f"a: {text}\n", "f").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_setting_has_its_line():
    """Keys and list items are found at the line where they were written, aliases included."""
    document = read("a:\n  b: 1\n  c: [x,\n      {d: 2}]\ne: &same\n  f: 3\ng: *same\n", "f")
    assert document.data == {"a": {"b": 1, "c": ["x", {"d": 2}]}, "e": {"f": 3}, "g": {"f": 3}}
    assert document.lines[("a", "b")] == 2
    assert document.lines[("a", "c", 1)] == 4
    assert document.lines[("a", "c", 1, "d")] == 4
    assert document.lines[("g",)] == 7


def test_a_key_that_is_there_twice_is_refused_at_any_depth():
    """Both places are named, and both levels are told at once."""
    found = problems("a: {x: 1, y: 2, x: 3}\nb: 1\nb: 2\n")
    assert found == [
        (1, "a.x", "it is here twice, first on line 1: keep one"),
        (3, "b", "it is here twice, first on line 2: keep one"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "tab"),
        ("a:\n  b: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a: !!python/object:os.system x\n", 1, "tags"),
        ("a: !!str 5\n", 1, "tags"),
        ("a: &loop [*loop]\n", 1, "never ends"),
        ("", 1, "write settings"),
        ("- a\n", 1, "write settings"),
        ("just words", 1, "write settings"),
        ("a: 1\n---\nb: 2\n", 2, "not YAML"),
        ("a: \x01\n", 1, "not allowed"),
        ("a: *nowhere\n", 1, "not YAML"),
        ("? [a, b]\n: 1\n", 1, "quotes"),
        ("true: 1\n", 1, "quotes"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(text, line, words):
    """Tabs, tags, cycles, several documents, odd keys and broken syntax are each told for what they are."""
    [(at, _, need)] = problems(text)
    assert at == line
    assert words in need
