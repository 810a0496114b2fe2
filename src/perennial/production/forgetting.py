"""``retention: none``: rows leave no trace of themselves once nothing can learn from them any more.

A row is kept while it waits: for its label, or with its label for the training that learns it. What waits lies in
segments, as rows that are kept do, but never in the database. With each turn, rows that wait no longer are blanked
where others of their segment still do, and segments without any are gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.features import Features, Schema
from perennial.core.protocols import Memorises
from perennial.gate import Gate
from perennial.learners.golden import synthetic
from perennial.ledger.records import Segment
from perennial.ledger.sql import SqlLedger
from perennial.production import erasing, tables
from perennial.stream.quality import Quality
from perennial.stream.settings import COMMON
from perennial.stream.sources import is_url
from perennial.stream.sql import Address

if TYPE_CHECKING:
    from perennial.production.deployment import Deployment


def check(deployment: Deployment) -> None:
    """Refuse what cannot work without rows, or would keep them.

    Raises
    ------
    ConfigError
        If the strategy trains on windows, the model memorises, features look back, the gate holds rows out, an ingest
        log keeps what was taken, or it shall only observe.
    """
    strategy, learner = deployment.strategy, deployment.learner
    if strategy.refits:
        raise ConfigError(
            "retention", "none", f"{strategy.kind} trains on a window of rows that were learned before, and none are "
            "kept: deploy a stateful strategy, or give a duration",
        )  # fmt: skip
    if isinstance(learner, Memorises) and (why := learner.memorises(untrained=strategy.initial is None)):
        raise ConfigError("retention", "none", f"the model would keep rows: {why}")
    if deployment.stream.features is not None:
        raise ConfigError(
            "retention", "none", "features that look back are built from past rows, and none are kept: leave out "
            "`features`, or give a duration",
        )  # fmt: skip
    if isinstance(deployment.gate, Gate) and deployment.gate.needs_rows:
        raise ConfigError(
            "gate.held_out", str(deployment.gate.held_out), "rows are held out of a fit to judge it by, and with "
            "retention none none are kept: leave it out, a challenger is then watched on the rows to come",
        )  # fmt: skip
    for setting in ("source", "labels"):
        address = getattr(deployment.stream, setting)
        if is_url(address) and Address.of(address, there=False).keep:
            raise ConfigError(
                f"stream.{setting}", str(address), "an ingest log is the deployment's own, and with retention none it "
                "keeps nothing that was taken: leave out `keep`",
            )  # fmt: skip
    if deployment.observe:
        raise ConfigError(
            "observe", True, "what is not learned would have to wait for the turn that acts again, and with retention "
            "none no row waits longer than its label: observe a deployment that keeps rows",
        )  # fmt: skip


def check_words(schema: Schema, word_rows: int) -> None:
    """Refuse to keep words of category columns that a single row may have had.

    Raises
    ------
    ConfigError
        If there are category columns and a word is kept from its first row on.
    """
    if schema.categories and word_rows < 2:
        names = ", ".join(repr(schema.names[j]) for j in schema.categories)
        raise ConfigError(
            "word_rows", word_rows, f"models keep the words of {names}: let each count from a number of rows on, e.g. "
            f"word_rows={COMMON}, or drop these columns",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Range:
    low: float | None
    high: float | None


def golden_rows(schema: Schema, quality: Quality) -> Features:
    """Made-up rows to hold saved models against: evenly from the ranges that quality demands.

    Raises
    ------
    DataError
        If a column is of a type that cannot be made up.
    """
    return synthetic(schema, {name: _Range(low, high) for name, (low, high) in quality.ranges.items()})


@final
class Thinning:
    """The segments of a deployment that forgets, and how many rows of each still hold something, as far as is known.

    A row that waits no longer never waits again, so that a count says which rows these are.

    Parameters
    ----------
    ledger : SqlLedger
        Where they lie.
    """

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self._held: dict[str, int] = {}  # by digest

    def take(self, segment: Segment, wanted: NDArray[np.int64], data: bytes) -> Segment:
        """Put the rows of a turn into the store, blank but for the wanted, under the digest that they then have."""
        return self._put(segment, wanted, tables.from_bytes(data).combine_chunks())

    def thin(self, segment: Segment, wanted: NDArray[np.int64]) -> Segment | None:
        """What takes a segment's place: the same rows, blank but for the wanted; None if it holds no others.

        Parameters
        ----------
        segment : Segment
            Rows of the store.
        wanted : array of int64
            Ascending positions of the rows that wait, of all segments.
        """
        waiting = len(self._of(segment, wanted))
        if segment.digest not in self._held or self._held[segment.digest] != waiting:
            batch = tables.from_bytes(self._ledger.get(segment.digest)).combine_chunks()
            self._held[segment.digest] = int(erasing.filled(batch).sum())
            if self._held[segment.digest] != waiting:
                return self._put(segment, wanted, batch)
        return None

    def _put(self, segment: Segment, wanted: NDArray[np.int64], batch: Any) -> Segment:
        here = self._of(segment, wanted)
        spent = np.ones(segment.rows, dtype=bool)
        spent[here - segment.first] = False
        # told apart by where they lie: of two with the same rows, one may be thinned and the other not
        digest = self._ledger.put(erasing.blanked(batch, spent, first=segment.first), raw=True)
        self._held[digest] = len(here)
        return replace(segment, digest=digest)

    def _of(self, segment: Segment, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = np.searchsorted(wanted, [segment.first, segment.first + segment.rows]).tolist()
        return wanted[low:high]

    def keep(self, segments: Iterable[Segment]) -> None:
        """Think of these segments alone from now on."""
        alive = {segment.digest for segment in segments}
        self._held = {digest: rows for digest, rows in self._held.items() if digest in alive}
