"""A stateless model inside of what is updated: it keeps a window of rows, and is made anew from them now and then."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Self, final

import numpy as np
import pyarrow as pa

from perennial.core.errors import ConfigError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Learner, Trust
from perennial.core.records import Examples
from perennial.learners.around import CODECS, AroundOne, joined, loaded
from perennial.learners.saved import codec_of, join, pack, part, unpack

_ARRAYS = ("rows", "time", "codes", "values", "weights")


@final
class WindowedLearner(AroundOne):
    """A learner that is fitted anew on its newest rows; see :func:`perennial.learners.Rebuilt`.

    Parameters
    ----------
    learner : Learner
        What is fitted.
    rows : int
        Examples that are kept, and fitted on, at most: the newest.
    every : int
        How many updates lie between two fits.
    """

    def __init__(self, learner: Learner, *, rows: int, every: int = 1) -> None:
        for field, number in (("rows", rows), ("every", every)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(field, number, "give a positive whole number")
        super().__init__(learner)
        self._rows, self._every = rows, every
        self._window: tuple[Examples, ...] = ()
        self._since = 0  # updates since the last fit
        self._built = 0.0  # trees per row of the last training

    @property
    def name(self) -> str:
        """``Rebuilt(...)`` of what is inside."""
        return f"Rebuilt({self._learner.name})"

    def memorises(self, *, untrained: bool) -> str | None:  # noqa: ARG002
        """Its window."""
        return f"{self.name} holds its newest {self._rows:,} rows"

    def identity(self) -> str:
        """The learner inside, the window and the interval."""
        settings = {"rows": self._rows, "every": self._every}
        return canonical({"learner": "Rebuilt", "of": self._learner.identity(), **settings})

    def fit(self, examples: Examples, seed: int) -> Self:
        """A model of the newest rows of the window."""
        new = type(self)(self._learner, rows=self._rows, every=self._every)
        new._keep(examples)
        new._rebuild(seed)
        return new

    def begin(self) -> Self:
        """Nothing: there is no row to fit on.

        Raises
        ------
        LearnerError
            Always.
        """
        raise LearnerError(f"{self.name} is fitted on a window: start it with an initial one")

    def update(self, examples: Examples, seed: int) -> None:
        """Keep the examples in the place of the oldest; at every ``every``-th update, fit anew."""
        self._trained()
        if not len(examples):
            return
        self._keep(examples)
        self._since += 1
        self._built = 0.0
        if self._since >= self._every:
            self._rebuild(seed)
            self._built *= len(joined(self._window)) / len(examples)

    def save(self, trust: Trust = LOCAL) -> bytes:
        """The model as it saves itself, and the window's rows in an Arrow stream."""
        inner, window = self._trained().save(trust), joined(self._window)
        state = {"since": self._since, "built": self._built, "classes": window.classes, **_described(window)}
        return pack(self.name, join(state, [inner, _written(window)]), {}, codec_of(inner) or "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; the model inside is loaded by the same trust."""
        state, (inner, rows) = part(unpack(self.name, blob, {}, trust, CODECS)[1])
        new = type(self)(self._learner, rows=self._rows, every=self._every)
        new._model = loaded(self._learner, inner, trust)
        new._window = (_read(state, rows),)
        new._since, new._built = state["since"], state["built"]
        return new

    def digest(self) -> str:
        """Digest of the model, the window's rows and the place between two fits."""
        window = joined(self._window)
        plain = canonical([self._since, self._built, list(window.classes)])
        return digest(plain, self._trained().digest(), window.identity)

    def size(self) -> int:
        """Bytes of the model and of the rows."""
        window = joined(self._window)
        return super().size() + sum(len(index_of(part)) for part in window.features.parts) * _row_bytes(window)

    def row_trees(self, rows: int) -> int:
        """What the last training cost: nothing between two fits."""
        return round(rows * self._built)

    def _keep(self, examples: Examples) -> None:
        schema = examples.features.schema
        window = [*(_under(schema, one) for one in self._window), examples]
        over = sum(map(len, window)) - self._rows
        while over > 0:
            oldest = window.pop(0)
            if len(oldest) > over:
                window.insert(0, oldest.slice(over, len(oldest)))
            over -= len(oldest)
        self._window = tuple(window)

    def _rebuild(self, seed: int) -> None:
        window = joined(self._window)
        self._window = (window,)  # what lies in one piece is not pieced together again
        self._model = self._learner.fit(window, seed)
        self._since, self._built = 0, self._model.row_trees(len(window)) / len(window)


def index_of(piece: tuple[Chunk, Any]) -> Any:
    """Which rows of a chunk a selection holds."""
    chunk, index = piece
    return range(*index.indices(chunk.rows)) if isinstance(index, slice) else index


def _row_bytes(window: Examples) -> int:
    return 8 * (len(window.features.schema) + 4) + 16


def _under(schema: Schema, examples: Examples) -> Examples:
    """The same examples under the stream's schema, whose vocabularies have grown since they were saved."""
    if examples.features.schema is schema:
        return examples
    parts = [(Chunk(chunk.table, schema), index) for chunk, index in examples.features.parts]
    return replace(examples, features=Features(schema, parts, len(examples)))


def _described(window: Examples) -> dict[str, Any]:
    """What the Arrow stream does not tell: columns, words, and what is not in plain arrays."""
    schema = window.features.schema
    return {
        "columns": [[c.name, str(c.kind), c.dtype] for c in schema.columns],
        "words": {name: vocabulary.words for name, vocabulary in schema.vocabularies.items()},
        "groups": None if window.groups is None else window.groups.tolist(),
    }


def _written(window: Examples) -> bytes:
    """Rows and labels as one Arrow stream; digests of rows as binary."""
    table = pa.concat_tables([chunk.table.take(pa.array(index_of((chunk, i)))) for chunk, i in window.features.parts])
    table = table.rename_columns([f"f{j}" for j in range(table.num_columns)])
    for name in _ARRAYS:
        array = getattr(window, name)
        if array is None:
            continue
        if name == "rows":
            array = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), len(window), [None, pa.py_buffer(np.ascontiguousarray(array).tobytes())]
            )
        table = table.append_column(name, pa.array(array) if isinstance(array, np.ndarray) else array)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return out.getvalue()


def _read(state: dict[str, Any], content: bytes) -> Examples:
    try:
        table = pa.ipc.open_stream(content).read_all()
        columns = [Column(name=name, kind=Kind(kind), dtype=dtype) for name, kind, dtype in state["columns"]]
        schema = Schema(columns, {name: Vocabulary(words) for name, words in state["words"].items()})
        features = table.select([f"f{j}" for j in range(len(columns))]).rename_columns(list(schema.names))
        arrays: dict[str, Any] = {
            name: table.column(name).to_numpy() for name in _ARRAYS[1:] if name in table.column_names
        }
        rows = np.frombuffer(b"".join(table.column("rows").to_pylist()), dtype=np.uint8).reshape(-1, 16)
        groups = state["groups"]
        return Examples(
            features=Features.of(Chunk(features, schema)),
            rows=rows,
            classes=tuple(state["classes"]),
            groups=None if groups is None else np.array(groups),
            **arrays,
        )
    except (pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"the saved window does not hold what it should ({error}): train anew") from error
