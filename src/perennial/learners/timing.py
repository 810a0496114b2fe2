"""How long a model takes for one row: the one measurement that a gate may decide by."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from perennial.core.errors import DataError
from perennial.core.features import Chunk, Features
from perennial.core.protocols import Learner

_TIMES = 7


def latency(model: Learner, features: Features, clock: Callable[[], float] = time.perf_counter) -> timedelta:
    """The shortest of seven predictions of the first row, which is put into the model's own form anew each time.

    Parameters
    ----------
    model : Learner
        What predicts.
    features : Features
        One row at least.
    clock : callable
        Seconds, from any start.

    Raises
    ------
    DataError
        If there is no row.
    """
    for chunk, index in features.slice(0, 1).parts:
        first = index.start if isinstance(index, slice) else int(index[0])
        row = chunk.table.slice(first, 1)
        spans = []
        for _ in range(_TIMES):
            fresh = Features.of(Chunk(row, features.schema))  # views are kept with their chunk
            before = clock()
            model.predict(fresh)
            spans.append(clock() - before)
        return timedelta(seconds=min(spans))
    raise DataError("there is no row to time a prediction of")
