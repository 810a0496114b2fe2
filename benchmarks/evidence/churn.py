"""Clicks in a catalogue that changes: items are replaced, popularity and taste drift. A function of the seed, no files.

Each event shows a user, drawn at random, one of the items of that day. The log odds of a click are::

    base + popularity of the item + taste of the user for the item's category

Popularity and taste are stationary: each day they keep ``persistence`` of what they were and draw the rest anew, so
that their spread stays what it was. Each day a share of the items, drawn at random, is taken away, and as many come
that were never seen, with a category and a popularity of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DAY = 86_400_000_000  # microseconds
_START = np.datetime64("2026-01-01", "us")


@dataclass(frozen=True, kw_only=True)
class Churn:
    """What the simulator is set to; spreads are standard deviations of log odds.

    ``replaced`` is the share of items replaced per day, ``persistence`` what a popularity or a taste keeps from one day
    to the next.
    """

    users: int
    items: int
    categories: int
    events_per_day: int
    replaced: float
    base: float
    popularity: float
    taste: float
    persistence: float

    def stream(self, days: int, seed: int) -> pa.Table:
        """Events of ``days`` days in order of time: ``at``, ``user``, ``item``, ``category`` and ``clicked``."""
        draw = np.random.default_rng(seed)
        category = draw.integers(0, self.categories, self.items)
        number = np.arange(self.items)  # of the item in each place of the catalogue
        made = self.items
        popularity = draw.normal(0, self.popularity, self.items)
        taste = draw.normal(0, self.taste, (self.users, self.categories))
        columns: dict[str, list[NDArray[np.int64]]] = {"at": [], "user": [], "item": [], "category": []}
        clicked = []
        for day in range(days):
            if day:
                popularity = self._drifted(popularity, self.popularity, draw)
                taste = self._drifted(taste, self.taste, draw)
                gone = np.flatnonzero(draw.random(self.items) < self.replaced)
                category[gone] = draw.integers(0, self.categories, len(gone))
                popularity[gone] = draw.normal(0, self.popularity, len(gone))
                number[gone] = made + np.arange(len(gone))
                made += len(gone)
            user = draw.integers(0, self.users, self.events_per_day)
            place = draw.integers(0, self.items, self.events_per_day)
            odds = self.base + popularity[place] + taste[user, category[place]]
            clicked.append(draw.random(self.events_per_day) < 1 / (1 + np.exp(-odds)))
            columns["at"].append(day * _DAY + np.sort(draw.integers(0, _DAY, self.events_per_day)))
            columns["user"].append(user)
            columns["item"].append(number[place])
            columns["category"].append(category[place])
        whole = {name: np.concatenate(parts) for name, parts in columns.items()}
        words = {name: pa.array([f"{name}{i}" for i in whole[name].tolist()]) for name in ("user", "item", "category")}
        times = pa.array(_START + whole["at"].astype("timedelta64[us]"), pa.timestamp("us", "UTC"))
        return pa.table({"at": times, **words, "clicked": pa.array(np.concatenate(clicked))})

    def _drifted(self, now: NDArray[np.float64], spread: float, draw: np.random.Generator) -> NDArray[np.float64]:
        fresh = draw.normal(0, spread, now.shape)
        return np.asarray(self.persistence * now + np.sqrt(1 - self.persistence**2) * fresh)
