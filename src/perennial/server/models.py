"""What answers: the versions that a worker holds ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import pyarrow as pa

from perennial.core.errors import LedgerError
from perennial.core.features import Chunk, Features, Kind, Schema
from perennial.core.protocols import Learner
from perennial.core.records import Label, Prediction, align
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint
from perennial.production.deployment import Deployment
from perennial.server.rows import Rows
from perennial.server.signature import Signature

POLL = 0.2  #: seconds between looks at the alias


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One version, ready to answer."""

    version: str
    classes: tuple[Label, ...]
    task: str
    form: str
    signature: Signature
    schema: Schema
    model: Learner

    def predict(self, rows: Rows) -> Prediction:
        """What it says of rows; changes nothing."""
        return align(self.model.predict(self._features(rows)), self.classes)

    def _features(self, rows: Rows) -> Features:
        arrays = []
        for j, column in enumerate(self.schema.columns):
            if column.kind is Kind.NUMBER:
                values = rows.numbers[:, j]
                gone = np.isnan(values)
                array = pa.array(np.where(gone, 0, values), mask=gone)
                arrays.append(array.cast(self.signature.types[column.name], safe=False))
            elif column.kind is Kind.CATEGORY:
                words = self.schema.vocabularies[column.name]
                arrays.append(pa.array(words.find(rows.others[column.name])))
            else:
                arrays.append(pa.array(rows.others[column.name], type=self.signature.types[column.name]))
        return Features.of(Chunk(pa.table(arrays, names=list(self.schema.names)), self.schema))


@final
class Models:
    """The versions of a deployment that one worker process holds."""

    def __init__(self, deployment: Deployment, ledger: SqlLedger) -> None:
        self._deployment, self._ledger = deployment, ledger
        self._generation = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perennial-watch", daemon=True)
        self._held: dict[str, Slot] = {}
        self.champion: Slot | None = None

    @classmethod
    def open(cls, deployment: Deployment, *, budget_bytes: int, clock: Callable[[], int]) -> Self:  # noqa: ARG003
        """The versions of a deployment's ledger, with its champion ready if there is one."""
        ledger = SqlLedger.open(deployment.ledger, deployment.name, blobs=deployment.blobs, create=False)
        models = cls(deployment, ledger)
        models.poll()
        return models

    def choose(self, key: object | None, request_id: str) -> tuple[Slot, Slot | None]:  # noqa: ARG002
        """Who answers, and who is asked beside it."""
        assert self.champion is not None
        return self.champion, None

    def version(self, number: str) -> Slot:
        """A version, loaded if it is not held."""
        if number not in self._held:
            self._held[number] = self._load(number)
        return self._held[number]

    def resident(self) -> dict[str, str]:
        """Versions that are held, and the role of each."""
        champion = self.champion
        return {n: "champion" if champion and n == champion.version else "resident" for n in self._held}

    def poll(self) -> None:
        """Look at the champion's alias once."""
        alias = self._ledger.alias("champion")
        if alias.version is not None and (alias.generation != self._generation or self.champion is None):
            self.champion = self.version(alias.version)
            self._generation = alias.generation

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._ledger.close()

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            try:
                self.poll()
            except LedgerError:
                continue

    def _load(self, number: str) -> Slot:
        saved = self._ledger.version(number)
        state = checkpoint.last(self._ledger)
        intake = checkpoint.restored(self._deployment, state)
        model: Any = self._deployment.load(self._ledger.get(saved.blob))
        return Slot(
            version=number,
            classes=tuple(state.part("engine").part("book").plain["classes"]),
            task=model.task,
            form="learner",
            signature=Signature.of(self._deployment, intake),
            schema=intake.encoder.schema,
            model=model,
        )
