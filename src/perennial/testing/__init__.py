"""What tests of learners need, yours too: small made-up examples and the contract that every learner keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.records import Examples, Label, TaskKind

if TYPE_CHECKING:
    from perennial.core.protocols import Learner

__all__ = ["check_learner", "make_examples"]

_HOUR = 3_600_000_000  # microseconds


def make_examples(
    n: int = 200,
    d: int = 4,
    *,
    task: TaskKind = "classification",
    classes: Sequence[Label] = ("no", "yes"),
    seed: int = 0,
    categories: int = 0,
    missing: bool = False,
) -> Examples:
    """Made-up examples that can be learned, an hour apart, the same for the same arguments.

    Slices of one result share its schema and chunks, as batches of a stream do.

    Parameters
    ----------
    n, d : int
        Rows, and number columns ``x0``, ``x1``, ... (standard normal, float64).
    task : {"classification", "regression"}
        Classification draws the class of the highest noisy linear score; regression is linear with noise.
    classes : sequence
        The class table. With n of at least a few per class, every class appears.
    seed : int
        Another seed, another set.
    categories : int
        Word columns ``c0``, ``c1``, ... after the numbers, with three words each, which bear on the label.
    missing : bool
        Whether about one number in ten is null, and one word in ten.

    Examples
    --------
    >>> examples = make_examples(5, 2, classes=(0, 1))
    >>> examples.features.names, examples.features.matrix().shape, sorted(set(examples.y.tolist()))
    (('x0', 'x1'), (5, 2), [0, 1])
    """
    import pyarrow as pa

    draw = np.random.default_rng(seed)
    numbers = draw.normal(size=(n, d))
    words = draw.integers(0, 3, size=(n, categories)).astype(np.int32)
    shown = np.hstack([numbers, words])
    outputs = len(classes) if task == "classification" else 1
    score = shown @ np.random.default_rng(7).normal(size=(d + categories, outputs))
    score += 0.5 * draw.normal(size=score.shape)
    score -= score.mean(axis=0) if n else 0
    if missing:
        numbers[draw.random(numbers.shape) < 0.1] = np.nan
        words[draw.random(words.shape) < 0.1] = -1

    columns = [Column(f"x{j}", Kind.NUMBER, "double") for j in range(d)]
    columns += [Column(f"c{j}", Kind.CATEGORY, "string") for j in range(categories)]
    vocabularies = {f"c{j}": Vocabulary(["blue", "green", "red"]) for j in range(categories)}
    schema = Schema(columns, vocabularies)
    arrays = [pa.array(numbers[:, j], mask=np.isnan(numbers[:, j])) for j in range(d)]
    arrays += [pa.array(words[:, j]) for j in range(categories)]
    table = pa.table(arrays, names=list(schema.names))

    filled = np.hstack([np.nan_to_num(numbers), words])
    digests = np.zeros((n, 16), dtype=np.uint8)
    if d + categories:
        spread = (filled.view(np.uint64) * np.arange(1, d + categories + 1, dtype=np.uint64)).sum(axis=1)
        digests[:, :8] = np.ascontiguousarray(spread).view(np.uint8).reshape(n, 8)
    return Examples(
        features=Features.of(Chunk(table, schema)),
        rows=digests,
        time=np.arange(n, dtype=np.int64) * _HOUR,
        codes=score.argmax(axis=1).astype(np.int32) if task == "classification" else None,
        classes=tuple(classes) if task == "classification" else (),
        values=score[:, 0].astype(np.float64) if task == "regression" else None,
    )


def check_learner(make: Callable[[], Learner], task: TaskKind) -> None:
    """Prove that a learner keeps the contract; see :mod:`perennial.testing.learner_contract`."""
    from perennial.testing.learner_contract import check

    check(make, task)
