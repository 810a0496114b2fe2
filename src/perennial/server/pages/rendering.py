"""From a view to the page: templates, and what every page says around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

import perennial
from perennial.core.times import iso
from perennial.server.pages import words
from perennial.server.pages.words import Times

#: the pages, as the navigation has them
PAGES = (
    ("/ui/", "Deployment"),
    ("/ui/versions", "Versions"),
    ("/ui/evidence", "Evidence"),
    ("/ui/data", "Data"),
    ("/ui/feedback", "Feedback"),
    ("/ui/backtests", "Backtests"),
)

#: nothing but our own files runs, and nothing is fetched from elsewhere
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
#: a report brings its own style and script, and may do nothing besides: it has no origin, so no cookie either
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A line on top of a page: what was done, or why not."""

    text: str
    tone: Literal["good", "bad"] = "good"


@cache
def _environment(zone: str) -> Environment:
    times = Times(zone)
    environment = Environment(
        loader=PackageLoader("perennial.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        iso=iso, short=times.short, hour=times.hour, field=times.field, number=words.number, signed=words.signed,
        whole=words.whole, what=words.WHAT.__getitem__, span=words.span, percent=words.percent,
    )  # fmt: skip
    environment.globals.update(pages=PAGES, release=perennial.__version__)
    return environment


def rendered(template: str, times: Times, **about: Any) -> str:
    """A template with what it is about."""
    return _environment(times.name).get_template(template).render(**about)


def digest(view: Any) -> str:
    """What a part of a page was made from, in short: as long as it stays, nothing is sent again.

    Examples
    --------
    >>> digest(("a", 1)) == digest(("a", 1)), digest(("a", 1)) == digest(("a", 2))
    (True, False)
    """
    return blake2b(repr(view).encode(), digest_size=8).hexdigest()
