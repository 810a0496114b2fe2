"""How a strategy looks wherever it is drawn: a colour, a shape and a dash that stay the same in every picture.

Colours keep a contrast of at least 3:1 to their ground and differ in lightness or hue under the common colour
vision deficiencies; nothing is told by colour alone, since shape and dash say the same.
"""

from __future__ import annotations

COLOURS = 8

LIGHT = ("#0b62a6", "#c2470a", "#0a7a5c", "#a8327a", "#6a57cf", "#886a00", "#1385a5", "#56595f")
DARK = ("#69b1f5", "#ff9a5c", "#4dd0a2", "#f289bf", "#b5a8ff", "#e2c350", "#62d3ea", "#c6c9ce")

#: closed outlines of radius about 1 around (0, 0)
SHAPES = (
    "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
    "M-.88-.88H.88V.88H-.88Z",
    "M0-1.15L1.1.85H-1.1Z",
    "M0-1.25L1.1 0L0 1.25L-1.1 0Z",
    "M0 1.15L1.1-.85H-1.1Z",
    "M-.38-1.15H.38V-.38H1.15V.38H.38V1.15H-.38V.38H-1.15V-.38H-.38Z",
    "M0-.54L.71-1.25L1.25-.71L.54 0L1.25.71L.71 1.25L0 .54L-.71 1.25L-1.25.71L-.54 0L-1.25-.71L-.71-1.25Z",
    "M-1.15 0L-.58-1H.58L1.15 0L.58 1H-.58Z",
)
DASHES = ("", "8 3", "3 2.5", "10 3 2 3", "14 4", "5 2 1.5 2", "1.5 2.5", "12 3 2 2 2 3")
BASELINE_DASHES = ("6 5", "2 4", "10 4 2 4", "1 5", "14 6")


def shape(index: int) -> str:
    """The outline of the strategy at a place in the report."""
    return SHAPES[(index + index // COLOURS) % len(SHAPES)]


def dash(index: int) -> str:
    """The dash pattern of the strategy at a place in the report; empty for a solid line."""
    return DASHES[(index + index // COLOURS) % len(DASHES)]


def baseline_dash(index: int) -> str:
    """The dash pattern of a no-skill line."""
    return BASELINE_DASHES[index % len(BASELINE_DASHES)]
