"""What the next turn depends on besides the settings, as plain data: what a checkpoint holds.

A state is three things: plain values that JSON keeps exactly, numeric arrays, and models. Raw rows are not among them:
they lie in the store, and a state names the chunks that it still needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import FormatError
from perennial.core.features import Chunk
from perennial.core.protocols import Learner

FORMAT = 1
_MAGIC = b"PRNS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A chunk of rows as the store gives it back, and what the engine knows of each row beside its features.

    ``time`` int64 (n,), ``rows`` uint8 (n, 16); ``weight`` float64 (n,) and ``group`` (n,) where the stream has them.
    """

    chunk: Chunk
    time: NDArray[np.int64]
    rows: NDArray[np.uint8]
    weight: NDArray[np.float64] | None = None
    group: NDArray[Any] | None = None


Fetch = Callable[[str], Stored]  #: a chunk by name


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of something that can go on as if it had never stopped.

    Parameters
    ----------
    plain : dict
        Values that JSON keeps exactly: numbers, strings, booleans, None, lists, and dicts with string keys.
    arrays : dict of str to array
        Numbers and booleans, of any shape.
    models : dict of str to Learner
        By version number. A checkpoint does not hold them: each is saved once, where it was made.
    """

    plain: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    models: dict[str, Learner] = field(default_factory=dict)

    def under(self, name: str) -> State:
        """The state with every name prefixed, to be put beside others."""
        return State(
            plain={name: self.plain}, arrays={f"{name}/{key}": array for key, array in self.arrays.items()},
            models=self.models,
        )  # fmt: skip

    def part(self, name: str) -> State:
        """What :meth:`under` of that name had put there."""
        start = f"{name}/"
        return State(
            plain=self.plain[name],
            arrays={key[len(start) :]: array for key, array in self.arrays.items() if key.startswith(start)},
            models=self.models,
        )

    @classmethod
    def join(cls, *states: State) -> State:
        """Several states as one."""
        out = State()
        for state in states:
            out.plain.update(state.plain)
            out.arrays.update(state.arrays)
            out.models.update(state.models)
        return out

    def to_bytes(self) -> bytes:
        """Plain values and arrays in a form that is equal for equal states; models are not in it."""
        arrays = {name: np.ascontiguousarray(array) for name, array in sorted(self.arrays.items())}
        head = json.dumps(
            {
                "format": FORMAT,
                "plain": self.plain,
                "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        return b"".join([_MAGIC, len(head).to_bytes(8, "little"), head, *(a.tobytes() for a in arrays.values())])

    @classmethod
    def from_bytes(cls, data: bytes, models: Mapping[str, Learner]) -> Self:
        """The state that :meth:`to_bytes` wrote.

        Raises
        ------
        FormatError
            If it is no state, is cut short, or was written by a newer release.
        """
        start = len(_MAGIC) + 8
        size = int.from_bytes(data[len(_MAGIC) : start], "little")
        if data[: len(_MAGIC)] != _MAGIC or len(data) < start + size:
            raise FormatError("this is no checkpoint, or only the start of one: see `perennial doctor`")
        head = json.loads(data[start : start + size])
        if not 1 <= head["format"] <= FORMAT:
            raise FormatError(
                f"a checkpoint of format {head['format']}; this release reads 1..{FORMAT}: upgrade perennial"
            )
        arrays, at = {}, start + size
        for name, dtype, shape in head["arrays"]:
            count = int(np.prod(shape, dtype=np.int64))
            width = np.dtype(dtype).itemsize * count
            if at + width > len(data):
                raise FormatError("the checkpoint is cut short: see `perennial doctor`")
            arrays[name] = np.frombuffer(data, dtype=dtype, count=count, offset=at).reshape(shape).copy()
            at += width
        return cls(plain=head["plain"], arrays=arrays, models=dict(models))
