"""Some of the initial or past data, and the most recent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, nearest
from perennial.core.identity import seed_from
from perennial.core.protocols import Cut, Keep, Selection
from perennial.core.times import Duration, duration, micros
from perennial.windows.bounds import check_rows, eligible, tail


@dataclass(frozen=True, slots=True)
class Mix:
    """A share drawn from old data and a share of the most recent.

    "30 percent of the initial data and 70 percent of the most recent data" can be read as shares of the training set
    (``share_of="set"``: of ``rows`` examples 30 % are initial and 70 % recent) or as shares of each source
    (``share_of="source"``: 30 % of the initial examples, and the newest 70 % of those that came after). The third
    reading, a step that leaves 30 % of the former window, is :class:`~perennial.windows.Sliding`.

    The recent share is taken first, whole and by position. Old examples are then drawn from those not already in
    it, so none is there twice, without replacement and by a seeded priority that is a hash of the example's own
    content: the draw does not depend on where a row is stored. From the same old data the same examples are drawn each
    time; where old data grow (``past``), one that was drawn may give way to one of lower priority.

    Parameters
    ----------
    initial : float, optional
        Share drawn from the initial data: the rows before the first training.
    recent : float
        Share of the most recent data.
    past : float, optional
        Instead of ``initial``: share drawn from any data older than the recent share.
    rows : int, optional
        Size of the training set, for ``share_of="set"``. A share whose source holds fewer examples takes all of them.
    share_of : {"set", "source"}
        What the shares are shares of.
    purge, embargo : str or timedelta
        As in :class:`~perennial.windows.Sliding`.

    Raises
    ------
    ConfigError
        If shares of a set do not sum to 1, a share is outside [0, 1], ``rows`` is missing or superfluous, or not
        exactly one of ``initial`` and ``past`` is given.

    Examples
    --------
    >>> str(Mix(initial=0.3, recent=0.7, rows=20_000))
    '20,000 rows: 30% initial, 70% recent'
    """

    initial: float | None = None
    recent: float = 0.0
    past: float | None = None
    rows: int | None = None
    share_of: Literal["set", "source"] = "set"
    purge: timedelta = timedelta(0)
    embargo: timedelta = timedelta(0)

    def __init__(
        self,
        *,
        initial: float | None = None,
        recent: float,
        past: float | None = None,
        rows: int | None = None,
        share_of: Literal["set", "source"] = "set",
        purge: Duration = timedelta(0),
        embargo: Duration = timedelta(0),
    ) -> None:
        if (initial is None) == (past is None):
            raise ConfigError("initial", initial, "give a mix either initial= or past= beside recent=, and not both")
        for field, share in (("initial", initial), ("past", past), ("recent", recent)):
            if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
                raise ConfigError(field, share, "give a share between 0 and 1")
        old = initial if initial is not None else past
        assert old is not None
        if share_of == "set":
            if abs(old + recent - 1) > 1e-9:
                raise ConfigError(
                    "mix", f"{old:g} + {recent:g}", "shares of a training set must sum to 1, e.g. 0.3 + 0.7"
                )
            if rows is None:
                raise ConfigError("rows", rows, "say how many examples the training set has, e.g. rows=20_000")
            check_rows(rows)
        elif share_of == "source":
            if rows is not None:
                raise ConfigError("rows", rows, 'leave rows out: share_of="source" takes shares of what is there')
            if initial is None:
                raise ConfigError("past", past, 'share_of="source" is about the initial data: give initial=')
        else:
            raise ConfigError("share_of", share_of, nearest(str(share_of), ["set", "source"]))
        for name, value in (("initial", initial), ("recent", recent), ("past", past), ("rows", rows)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "share_of", share_of)
        object.__setattr__(self, "purge", duration(purge, "purge"))
        object.__setattr__(self, "embargo", duration(embargo, "embargo"))

    def select(self, cut: Cut) -> Selection:
        """The mix at ``cut``: ascending indices, none twice."""
        usable = eligible(cut, self.purge, self.embargo)
        is_initial = cut.position[usable] < cut.initial
        if self.share_of == "source":
            after = usable[~is_initial]
            recent = after[len(after) - round(self.recent * len(after)) :]
            assert self.initial is not None
            pool, count = usable[is_initial], round(self.initial * int(is_initial.sum()))
        else:
            assert self.rows is not None
            newest = round(self.recent * self.rows)
            recent = usable[max(len(usable) - newest, 0) :]
            older = usable[: len(usable) - len(recent)]
            pool = older if self.past is not None else older[cut.position[older] < cut.initial]
            count = self.rows - newest
        return Selection(index=np.sort(np.concatenate([draw(cut, pool, count), recent])))

    def keep(self, now: int, label_delay: int) -> Keep:  # noqa: ARG002 - the protocol's arguments
        """Initial rows and the recent share; everything where any past row may be drawn."""
        if self.past is not None or self.share_of == "source":
            return Keep(everything=True)
        assert self.rows is not None
        until = now - micros(self.purge) - micros(self.embargo)
        return Keep(rows=round(self.recent * self.rows), until=until, initial=True)

    def __str__(self) -> str:
        old = f"{self.initial:.0%} initial" if self.initial is not None else f"{self.past:.0%} past"
        size = "each source" if self.rows is None else f"{self.rows:,} rows"
        return f"{size}: {old}, {self.recent:.0%} recent" + tail(self.purge, self.embargo)


def draw(cut: Cut, pool: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The ``count`` examples of ``pool`` with the lowest priority, or all of them if they are fewer.

    The priority is a 64-bit mix (the finaliser of Stafford's variant 13, as in SplitMix64) of the row's digest and
    the seed; rows with the same content are told apart by position.
    """
    if count >= len(pool):
        return pool
    word = np.ascontiguousarray(cut.rows[pool, :8]).view(np.uint64).ravel()
    order = np.argsort(word, kind="stable")
    first = np.r_[True, word[order][1:] != word[order][:-1]]
    run = np.arange(len(word))
    copy = np.empty(len(word), np.uint64)
    copy[order] = run - np.maximum.accumulate(np.where(first, run, 0))
    with np.errstate(over="ignore"):
        z = (word + copy * np.uint64(0xD1342543DE82EF95)) ^ np.uint64(
            seed_from("mix", str(cut.seed)) * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return pool[np.lexsort((pool, z))[:count]]
