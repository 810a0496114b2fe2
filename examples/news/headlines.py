"""Headlines with their sections: a file of your own, or a stream that is made up."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NAME = "news_headlines.parquet"


def find(given: Path | None = None) -> Path | None:
    """The file to read: the one that was named, or that of the folder in PERENNIAL_DATA if it is there."""
    if given is not None:
        return given
    folder = os.environ.get("PERENNIAL_DATA")
    path = Path(folder) / NAME if folder else None
    return path if path is not None and path.is_file() else None


def read(path: Path) -> pa.Table:
    """Time, headline and section, without the columns that give the section away."""
    return pq.read_table(path, columns=["timestamp", "title", "target"])


def made_up(*, days: int = 150, a_day: int = 24, seed: int = 0) -> pa.Table:
    """A stream of made-up headlines: words come and go, and three of eight sections begin at two thirds.

    A headline has words of its section, words that are the section's talk of the fortnight, and words of none.
    """
    draw = np.random.default_rng(seed)
    sections = np.array(["world", "politics", "technology", "television", "science", "sports", "florida", "ukraine"])
    late = 5
    own = [[_word(draw) for _ in range(25)] for _ in sections]
    common = [_word(draw) for _ in range(120)]
    times, titles, targets = [], [], []
    for day in range(days):
        if day % 14 == 0:
            talk = [[_word(draw) for _ in range(6)] for _ in sections]
        known = len(sections) if day >= days * 2 // 3 else late
        for at in np.sort(draw.integers(0, 86_400, a_day)).tolist():
            section = int(draw.integers(0, known))
            words = [*draw.choice(own[section], 2), *draw.choice(talk[section], 2), *draw.choice(common, 6)]
            times.append(np.datetime64("2022-01-01", "us") + np.timedelta64(86_400 * day + at, "s"))
            titles.append(" ".join(draw.permutation(words).tolist()))
            targets.append(str(sections[section]))
    return pa.table({"timestamp": np.array(times), "title": titles, "target": targets})


def _word(draw: np.random.Generator) -> str:
    return "".join(draw.choice(list("bcdfgklmnprst")) + draw.choice(list("aeiou")) for _ in range(3))
