"""Draws the pictures of docs/windows.md: what each window really selects from a toy stream.

Run ``python docs/pictures/draw.py`` after a window has changed; a test says when a picture is stale.

The toy stream has one row a day, at midnight UTC, and labels that are known two days after their event. Trainings
fall on days 14, 21, 28 and 35; the 14 rows that arrived before the first one are the initial data.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from perennial.core.protocols import Cut, Selection, Window
from perennial.core.times import instant
from perennial.windows import Decayed, Expanding, Mix, Sliding, Tumbling

DAYS = 36
DAY = 86_400_000_000  # microseconds
START = datetime(2026, 1, 1, tzinfo=UTC)
DELAY = 2
TRAININGS = (14, 21, 28, 35)
INITIAL = 14

WINDOWS: dict[str, Window] = {
    "sliding": Sliding("8d"),
    "sliding-rows": Sliding(rows=8),
    "sliding-step": Sliding("10d"),
    "sliding-purge": Sliding("8d", purge="5d", embargo="1d"),
    "tumbling": Tumbling("7d", origin=START),
    "expanding": Expanding(),
    "decayed": Decayed("4d", floor=0.05),
    "mix-set": Mix(initial=0.3, recent=0.7, rows=10),
    "mix-source": Mix(initial=0.3, recent=0.7, share_of="source"),
    "mix-past": Mix(past=0.3, recent=0.7, rows=10),
    "mix-short": Mix(initial=0.3, recent=0.7, rows=20),
}

_LEFT, _STEP, _TOP, _LINE = 74, 17, 58, 30
_WIDTH = _LEFT + DAYS * _STEP + 96
_CHOSEN, _KNOWN, _LATE, _INK, _BAND = "#1f6feb", "#8b949e", "#bc4c00", "#24292f", "#f3efe2"


def toy_cut(day: int) -> Cut:
    """What a window may look at on a day: rows whose label is known by then."""
    known = np.arange(min(day - DELAY + 1, DAYS))
    content = b"".join(hashlib.blake2b(b"row %d" % i, digest_size=16).digest() for i in known.tolist())
    return Cut(
        now=instant(START) + day * DAY,
        position=known,
        time=instant(START) + known * DAY,
        rows=np.frombuffer(content, np.uint8).reshape(-1, 16),
        initial=INITIAL,
        label_delay=DELAY * DAY,
        seed=0,
    )


def picture(window: Window) -> str:
    """A window's selections at the toy stream's trainings, as SVG."""
    height = _TOP + _LINE * len(TRAININGS) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(str(window))}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="14" font-weight="bold">{escape(str(window))}</text>',
        f'<rect x="{_LEFT - _STEP / 2:g}" y="{_TOP - 14}" width="{INITIAL * _STEP}" '
        f'height="{_LINE * len(TRAININGS) + 4}" fill="{_BAND}"/>',
        f'<text x="{_LEFT - _STEP / 2 + 4:g}" y="{_TOP - 18}" font-size="11">initial data</text>',
    ]
    for line, day in enumerate(TRAININGS):
        parts += _training(window, day, _TOP + _LINE * line)
    parts += _axis(_TOP + _LINE * len(TRAININGS))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _training(window: Window, day: int, y: int) -> list[str]:
    cut = toy_cut(day)
    chosen = window.select(cut)
    weight = _weights(chosen)
    known = set(cut.position.tolist())
    parts = [f'<text x="12" y="{y + 4}">day {day}</text>']
    for row in range(min(day, DAYS)):
        x = _LEFT + row * _STEP
        if row in weight:
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="6" fill="{_CHOSEN}" fill-opacity="{weight[row]:.2f}" '
                f'stroke="{_CHOSEN}" stroke-width="1"/>'
            )
        else:
            colour = _KNOWN if row in known else _LATE
            dash = "" if row in known else ' stroke-dasharray="2 2"'
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="none" stroke="{colour}"{dash}/>')
    x = _LEFT + day * _STEP
    parts.append(f'<path d="M{x} {y - 11}v22" stroke="{_INK}" stroke-width="2"/>')
    parts.append(f'<text x="{x + 7}" y="{y + 4}" font-size="11">{len(weight)} rows</text>')
    return parts


def _weights(chosen: Selection) -> dict[int, float]:
    """The weight of each selected row of the toy stream, where position and index are the same."""
    weights = np.ones(len(chosen.index)) if chosen.weights is None else chosen.weights
    return dict(zip(chosen.index.tolist(), weights.tolist(), strict=True))


def _axis(y: int) -> list[str]:
    legend = [
        (_CHOSEN, "6", f'fill="{_CHOSEN}"', "learned"),
        (_KNOWN, "4", 'fill="none"', "label known, left out"),
        (_LATE, "4", 'fill="none" stroke-dasharray="2 2"', "label not known yet"),
    ]
    parts, x = [], _LEFT
    for colour, radius, style, words in legend:
        parts.append(f'<circle cx="{x}" cy="{y + 16}" r="{radius}" stroke="{colour}" {style}/>')
        parts.append(f'<text x="{x + 11}" y="{y + 20}" font-size="11">{words}</text>')
        x += 150
    parts.append(f'<path d="M{x} {y + 8}v16" stroke="{_INK}" stroke-width="2"/>')
    parts.append(f'<text x="{x + 8}" y="{y + 20}" font-size="11">training</text>')
    return parts


def pictures() -> dict[str, str]:
    """Every picture by file name."""
    return {f"windows-{name}.svg": picture(window) for name, window in WINDOWS.items()}


if __name__ == "__main__":
    for name, content in pictures().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")
