"""How the pages write numbers, times and reasons: rounded to what matters, in words where words say more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from perennial.core.records import Verdict
from perennial.core.times import moment
from perennial.replay.report.words import count, metric, score, size

NONE = "–"
MINUS = "−"

#: what happened, as the pages say it
WHAT = {
    "trained": "trained",
    "trigger": "trigger fired",
    "promoted": "promoted",
    "rejected": "rejected",
    "rolled back": "rolled back",
    "quarantined": "quarantined",
}
#: how a version came to be
KINDS = {
    "fit": "Trained from scratch",
    "update": "Updated",
    "start": "Began untrained",
    "adopt": "Trained elsewhere and brought along",
}


def number(value: Any) -> str:
    """A loss or another score, with a true minus.

    Examples
    --------
    >>> number(-0.0123456), number(None)
    ('−0.0123', '–')
    """
    text = score(value)
    return NONE if text == "-" else text.replace("-", MINUS, 1) if text.startswith("-") else text


def signed(value: float | None) -> str:
    """A difference, with its sign.

    Examples
    --------
    >>> signed(0.0123456), signed(-0.5), signed(None)
    ('+0.0123', '−0.5', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:+.3g}".replace("-", MINUS)


def whole(value: Any) -> str:
    """A count, grouped; a dash for none."""
    text = count(value)
    return NONE if text == "-" else text


def byte_size(value: Any) -> str:
    """Bytes, in the unit that fits."""
    text: str = size(value)
    return NONE if text == "-" else text


def span(seconds: float | None) -> str:
    """A duration in its largest unit, two of them where the first is small.

    Examples
    --------
    >>> span(0.0421), span(1.52), span(95), span(7_800), span(200_000), span(None)
    ('42 ms', '1.5 s', '1 min 35 s', '2 h 10 min', '2 d 7 h', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    sign, seconds = (MINUS, -seconds) if seconds < 0 else ("", seconds)
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{sign}{seconds:.1f} s"
    for unit, name, part, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            first, rest = divmod(int(seconds), unit)
            second = rest // part if first < 30 else 0
            return f"{sign}{first} {name} {second} {smaller}" if second else f"{sign}{first} {name}"
    return f"{sign}{seconds:.0f} s"


def micros_span(value: int | None) -> str:
    """A duration in microseconds, in words."""
    return span(None if value is None else value / 1e6)


def rate(per_second: float | None) -> str:
    """How many there were a second.

    Examples
    --------
    >>> rate(0.0), rate(0.25), rate(1234.5), rate(None)
    ('0 / s', '0.25 / s', '1,234 / s', '–')
    """
    if per_second is None:
        return NONE
    return f"{per_second:,.0f} / s" if per_second >= 10 or not per_second else f"{per_second:.2g} / s"


def percent(share: float | None) -> str:
    """A share, in percent.

    Examples
    --------
    >>> percent(0.05), percent(0.123), percent(None)
    ('5 %', '12.3 %', '–')
    """
    return NONE if share is None else f"{100 * share:.3g} %"


class Times:
    """Writes instants in one time zone.

    Examples
    --------
    >>> times = Times("Europe/Lisbon")
    >>> times.short(0), times.day(0), times.field(0)
    ('1 Jan 1970, 01:00', 'Thu 1 Jan', '1970-01-01T01:00')
    """

    def __init__(self, zone: str | None) -> None:
        self.name = zone or "UTC"
        self.zone = ZoneInfo(self.name)

    def local(self, at: int) -> datetime:
        """The instant in this zone."""
        return moment(at).astimezone(self.zone)

    def short(self, at: int | None) -> str:
        """Day and time, to the minute."""
        if at is None:
            return NONE
        local = self.local(at)
        return f"{local.day} {local:%b %Y, %H:%M}"

    def day(self, at: int) -> str:
        """Weekday and day."""
        local = self.local(at)
        return f"{local:%a} {local.day} {local:%b}"

    def hour(self, at: int) -> str:
        """Hour and minute."""
        return f"{self.local(at):%H:%M}"

    def field(self, at: int) -> str:
        """As a field of a form holds it."""
        return f"{self.local(at):%Y-%m-%dT%H:%M}"


def judged(verdict: Verdict | None, loss: str) -> str | None:
    """What the gate found, in a sentence for whoever does not know the gate; None where it found no numbers."""
    facts: Mapping[str, Any] = {} if verdict is None else verdict.evidence
    if verdict is None or not facts.get("rows"):
        return None
    against, what = verdict.champion or "the champion", metric(loss) if loss else "loss"
    labels = f"{whole(facts['rows'])} labels in {whole(facts['blocks'])} blocks"
    mean = facts["mean"]
    differed = "the same as" if not mean else f"{abs(mean):.3g} {'lower' if mean < 0 else 'higher'} than"
    told = f"On {labels}, the mean {what} of {verdict.version} was {differed} that of {against}"
    if facts.get("upper") is None:
        return f"{told}; that is too little to bound it."
    bounds = f"{signed(facts['lower'])} and {signed(facts['upper'])}"
    return (
        f"{told}. The true difference lies between {bounds}; each of the two is wrong for at most "
        f"{percent(facts['alpha'])} of challengers, however often one looks. A challenger is promoted once the "
        f"difference is shown to be below {signed(facts['margin'])}, the margin."
    )
