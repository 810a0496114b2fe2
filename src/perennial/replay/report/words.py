"""Numbers, times and names as a reader wants them: grouped, rounded to what matters, with their unit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

NONE = "-"  #: shown where there is no number; ASCII, so that any terminal can print it

_METRICS = {
    "roc_auc": "ROC AUC",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
    "wape": "WAPE",
    "f1": "F1",
    "brier": "Brier score",
}
_BASELINES = {
    "no_change": "No change (last label)",
    "no_change_by_batch": "No change, by batch",
    "majority": "Majority class",
    "mean": "Mean so far",
    "frozen": "Frozen model",
}


def metric(name: str) -> str:
    """A metric's name in words.

    Examples
    --------
    >>> metric("log_loss"), metric("roc_auc")
    ('log loss', 'ROC AUC')
    """
    return _METRICS.get(name, name.replace("_", " "))


def baseline(name: str) -> str:
    """A no-skill line's name in words."""
    return _BASELINES.get(name, name.replace("_", " "))


def finite(value: Any) -> float | None:
    """A finite float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def score(value: Any) -> str:
    """A score with as many digits as can matter.

    Examples
    --------
    >>> score(0.81234567), score(1234567.8), score(0.00001234), score(None)
    ('0.8123', '1,234,568', '1.23e-05', '-')
    """
    number = finite(value)
    if number is None:
        return NONE
    size = abs(number)
    if 0 < size < 0.001:
        return f"{number:.3g}"
    digits = 4 if size < 10 else 3 if size < 100 else 2 if size < 10_000 else 0
    return f"{number:,.{digits}f}"


def count(value: Any) -> str:
    """A whole number with thousands separated by commas.

    Examples
    --------
    >>> count(1234567)
    '1,234,567'
    """
    number = finite(value)
    return NONE if number is None else f"{number:,.0f}"


def large(value: Any) -> str:
    """A whole number, in millions from ten million on.

    Examples
    --------
    >>> large(371_520), large(37_152_000)
    ('371,520', '37.2 M')
    """
    number = finite(value)
    return count(number) if number is None or abs(number) < 1e7 else f"{number / 1e6:,.1f} M"


def money(value: Any) -> str:
    """An amount of the user's money, with cents below 1,000.

    Examples
    --------
    >>> money(12345.678), money(9.5)
    ('12,346', '9.50')
    """
    number = finite(value)
    return NONE if number is None else f"{number:,.{2 if abs(number) < 1000 else 0}f}"


def seconds(value: Any) -> str:
    """A length of time in the unit that keeps it short.

    Examples
    --------
    >>> seconds(0.0421), seconds(75.04), seconds(5400), seconds(1_000_000), seconds(0)
    ('0.042 s', '75.0 s', '90.0 min', '11.6 d', '0 s')
    """
    number = finite(value)
    if number is None:
        return NONE
    if number == 0:
        return "0 s"
    if number < 1:
        return f"{number:.2g} s" if number >= 0.0001 else "< 0.1 ms"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if number < limit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 86_400:,.1f} d"


def size(value: Any) -> str:
    """Bytes in decimal units.

    Examples
    --------
    >>> size(0), size(12_345_678)
    ('0 B', '12.3 MB')
    """
    number = finite(value)
    if number is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def instant(iso: str) -> datetime:
    """The aware UTC datetime of an ISO text; one without a zone is UTC."""
    at = datetime.fromisoformat(iso)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def when(iso: str | None) -> str:
    """An instant to the minute, in UTC.

    Examples
    --------
    >>> when("2026-01-05T13:30:00+00:00")
    '2026-01-05 13:30 UTC'
    """
    return NONE if iso is None else f"{instant(iso):%Y-%m-%d %H:%M} UTC"


def day(iso: str | None) -> str:
    """The UTC day of an instant."""
    return NONE if iso is None else f"{instant(iso):%Y-%m-%d}"


def plain(value: Any) -> str:
    """A setting as text: words as they are, yes and no, lists with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
