"""The writer of a worker: what was answered, and what came back, goes to the inbox in one transaction after the other.

One thread per process. To log an answer is to put it on a list: the thread makes one record batch of all that wait and
appends it as one entry. Labels and feedback are durable before they are acknowledged: their requests wait for the
transaction that is next, which all that came meanwhile share. Predictions that wait go first in it, so that no label
is read before the prediction that this worker gave.

While the database is away predictions wait in memory, as many as ``queue_rows``, and requests are told to come again.
What is wrong with one request fails that request alone.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import PerennialError
from perennial.core.records import Label, Prediction
from perennial.core.times import micros
from perennial.ledger.errors import StorageError
from perennial.server import received
from perennial.server.received import Logs, Outcome, Received
from perennial.server.rows import Answered
from perennial.stream import inbox_index
from perennial.stream.answered import SAID, SHADOW, SHADOW_SAID, VERSION
from perennial.stream.feed import OffsetGone, SourceAway
from perennial.stream.inbox import FEEDBACK, INSTANT, Inbox, Which, labels_schema, pack, rows_schema
from perennial.stream.ingest import IngestLog, KeyTaken, together
from perennial.stream.label_log import id_digest
from perennial.stream.settings import Stream

log = logging.getLogger("perennial.server")

#: requests that wait for the transactions that are next, items in them, and items of one transaction, at most; a
#: request that has more by itself is taken where no other waits
ASKED, ITEMS, ONCE = 1_000, 200_000, 50_000
#: seconds until a database that was away is tried again: at first, and at most
SOON, LATE = 0.25, 5.0
#: seconds between looks for lines of the index that nobody asks for any more
PRUNE_EVERY = 3600.0

_Asked = tuple[Received, "Future[list[Outcome]]"]

#: the database's own trouble, which another request would meet too
_AWAY = (SourceAway, OffsetGone, StorageError)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Predictions that are not durable yet: their rows, what thumbs about them would confirm, and whom they answer."""

    key: str
    rows: Any
    said: dict[bytes, inbox_index.Line]
    requests: list[str]


class Counters(Protocol):
    """What counts: :mod:`perennial.server.counters`."""

    def add(self, name: str, n: int = 1) -> object:
        """Count ``n`` more."""


class Seen(Protocol):
    """Who is told which requests are in the log: :mod:`perennial.server.seen`."""

    def confirm(self, requests: Sequence[str]) -> object:
        """What was answered to these is durable."""

    def unlogged(self, requests: Sequence[str]) -> object:
        """What was answered to these will never be."""


@final
class Writer:
    """Writes predictions, labels and feedback of one worker process to the inbox.

    Parameters
    ----------
    inbox, stream
        Where to, and what the columns are.
    flush : timedelta
        How long a prediction waits in memory, while the database answers.
    queue_rows : int
        Predictions that wait in memory at most.
    overflow : {"drop", "refuse"}
        What becomes of one more: it is counted as dropped; or its request is refused, which is the caller's to do.
    counters
        Gets ``logged`` and ``dropped``, in rows.
    types : callable
        Gives the columns of ``Rows.numbers``, in their order, each with its Arrow type, and behind them the stream's
        other columns, its key for one. Asked for when the first prediction is logged.
    label_type : callable, optional
        Gives the Arrow type of labels, None if nothing says it. Asked for when the first label comes and the log of
        labels is not there.
    may_make : callable, optional
        Whether a log that is not there may be made: not where it was there, and only its disk is away.
    thumbs : bool
        Thumbs are labels too: the index remembers what was said, of each id.
    clock : callable
        Microseconds since 1970-01-01 UTC.
    seen : optional
        Is told what became of predictions whose requests have ids.
    """

    def __init__(
        self,
        inbox: Inbox,
        stream: Stream,
        *,
        flush: timedelta,
        queue_rows: int,
        overflow: str,
        counters: Counters,
        types: Callable[[], Mapping[str, Any]],
        label_type: Callable[[], Any] = lambda: None,
        may_make: Callable[[], bool] = lambda: True,
        thumbs: bool = False,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
        seen: Seen | None = None,
    ) -> None:
        self._inbox, self._stream, self._counters = inbox, stream, counters
        self._flush, self._most, self._drops = flush.total_seconds(), queue_rows, overflow == "drop"
        self._types, self._says_type, self._thumbs, self.clock = types, label_type, thumbs, clock
        self._seen, self._may_make = seen, may_make
        self._lock = threading.Lock()  # guards the seven below
        self._waiting: list[Answered] = []
        self._asked: list[_Asked] = []
        self._rows = 0  # predictions in memory, those that are being written too
        self._writing = 0  # those of them that a transaction is about to commit
        self._items = 0  # of the requests that wait
        self._closed = self._ended = False  # nothing more is taken; and nothing more is written
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perennial-writer", daemon=True)
        # what follows is the thread's alone
        self._logs: dict[Which, IngestLog] = {}
        self._opening = threading.Lock()  # but these logs: a request may ask for the type of labels
        self._held: list[_Batch] = []
        self._name, self._batches = secrets.token_hex(8), 0
        self._away: Exception | None = None
        self._retry_at, self._pause = 0.0, SOON
        self._pruned: dict[str, float] = {}  # when each log is next looked through
        self._fits: bool | None = None  # whether the log of predictions has our columns, once that was asked

    # ------------------------------------------------------------------ the server's threads

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def log(self, answered: Answered, first: Callable[[], object] | None = None) -> bool:
        """Take predictions to be logged; whether they were taken. Never waits.

        The arrays become the writer's: nobody may change them. ``first`` is called where there is room, before anybody
        can read the predictions in the log.
        """
        n = answered.rows.n
        with self._lock:
            rows = self._rows + n
            taken = rows <= self._most and not self._closed
            if taken:
                self._rows = rows
                if first is None:
                    self._waiting.append(answered)
        if not taken:
            if self._drops:
                self._counters.add("dropped", n)
            return False
        if first is not None:
            try:
                first()
            except BaseException:
                with self._lock:
                    self._rows -= n
                raise
            with self._lock:
                self._waiting.append(answered)
        return True

    def take(self, request: Received) -> Future[list[Outcome]]:
        """Take what came back; the outcomes of its items, once they are durable.

        The future raises ``KeyTaken`` if the key of the request was used for another, ``SourceAway`` if the database
        does not answer: whether anything was written is not known then, and the same request may be sent again.

        Raises
        ------
        SourceAway
            If too many requests wait, or the server ends.
        """
        outcomes: Future[list[Outcome]] = Future()
        items = _items(request)
        with self._lock:
            if self._closed or len(self._asked) >= ASKED or (self._asked and self._items + items > ITEMS):
                why = f"{len(self._asked):,} requests wait to be written, with {self._items:,} items"
                why = "the server is ending" if self._closed else why
                raise SourceAway(f"{why}: send it again a little later; nothing was written")
            self._asked.append((request, outcomes))
            self._items += items
        self._wake.set()
        return outcomes

    @property
    def label_type(self) -> Any:
        """The Arrow type of labels; None as long as :meth:`labels_are` was not asked."""
        return None if (log := self._logs.get("labels")) is None else log.schema.field(1).type

    def labels_are(self) -> Any:
        """The Arrow type of labels, as their log or the champion says; None if nothing does. Asks the database.

        Raises
        ------
        SourceAway
            If the database does not answer.
        ConfigError
            If the log of labels has other columns than this stream's.
        """
        self._labels(None)
        return self.label_type

    def rows_are(self) -> Any:
        """The schema of the log of predictions. Asks the database the first time.

        Raises
        ------
        SourceAway
            If the database does not answer.
        ConfigError
            If the log is not there, and nothing says yet what rows hold.
        """
        return self._open_rows().schema

    @property
    def waits(self) -> int:
        """Predictions in memory."""
        return self._rows

    def close(self, patience: float = 5.0) -> None:
        """Write all that waits, and end; what cannot be written within ``patience`` seconds is counted as dropped.

        A transaction that is under way just then is left to end by itself: its predictions are counted as what they
        become, or as lost if the process ends before.
        """
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(patience)
        with self._lock:
            self._ended = True
            left, self._rows, asked, self._asked = self._rows - self._writing, self._writing, self._asked, []
        _fail(asked, SourceAway("the server is ending: send it again; nothing was written"))
        if left:
            self._counters.add("dropped", left)
            log.error("predictions lost", extra={"rows": left, "why": str(self._away or "the server ended")})
        if not self._thread.is_alive():
            self._forget_logs()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(self._flush)
            self._wake.clear()
            asked = self._next()
            asked = [one for one in asked if one[1].set_running_or_notify_cancel()]  # the others went away
            try:
                self._turn(asked)
            except Exception as error:
                known = isinstance(error, PerennialError)
                if not known:  # whatever it is: the next turn may do, and answers go on
                    log.exception("the writer failed")
                _fail(asked, error if known else SourceAway("it was not written, as the server's log says why"))
            with self._lock:
                ended, done = self._ended, self._closed and not self._rows and not self._asked
                if self._closed:  # no time to wait for the database to come back
                    self._retry_at = time.monotonic() + min(self._pause, SOON)
            if ended:  # nobody waited for it
                self._forget_logs()
            if ended or done:
                return

    def _next(self) -> list[_Asked]:
        """The requests of the next transaction, in the order in which they came; the others have the one after."""
        with self._lock:
            items = upto = 0
            for request, _ in self._asked:
                items += _items(request)
                if upto and items > ONCE:
                    items -= _items(request)
                    break
                upto += 1
            asked, self._asked = self._asked[:upto], self._asked[upto:]
            self._items -= items
            if self._asked:
                self._wake.set()
        return asked

    def _turn(self, asked: Sequence[_Asked]) -> None:
        """Write what waits, in one transaction; where a request may be at fault, each in one of its own."""
        if time.monotonic() < self._retry_at:
            if asked:
                raise SourceAway(str(self._away))
            return
        try:
            try:
                self._hold()
                self._write(asked)
            except _AWAY:
                raise
            except Exception:
                self._hold()
                self._write(())  # what fails without a request is the database's, or the log's
                self._write_each(asked)
        except Exception as error:
            self._be_away(error)
            raise
        if self._away is not None:
            log.warning("inbox is back")
            self._away, self._pause = None, SOON

    def _write_each(self, asked: Sequence[_Asked]) -> None:
        """Write requests one by one, so that one that cannot be written fails alone."""
        for one in asked:
            try:
                self._write([one])
            except _AWAY:
                raise
            except Exception as error:
                _fail([one], error)

    def _be_away(self, error: Exception) -> None:
        """Write nothing for a while, each time a longer one."""
        if self._away is None:
            log.warning("inbox is away", extra={"error": str(error)})
        if isinstance(error, OffsetGone):  # made anew: what waits goes to the new one
            self._forget_logs()
        self._away, self._retry_at = error, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LATE)

    def _hold(self) -> None:
        """Make a batch of the predictions that wait."""
        with self._lock:
            if not self._waiting:
                return
        kept = self._kept()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if kept is None:
            self._lose(waiting)
            return
        waiting.sort(key=lambda one: one.time)  # they were put down as they were answered
        names = list(self._types())
        try:
            self._hold_these(waiting, kept.schema, names)
        except Exception:  # one of them is not what it should be: the others are written
            for one in waiting:
                try:
                    self._hold_these([one], kept.schema, names)
                except Exception:
                    log.exception("a prediction cannot be logged", extra={"version": one.version})
                    self._lose([one])

    def _hold_these(self, answers: Sequence[Answered], schema: Any, names: Sequence[str]) -> None:
        rows = batch_of(answers, self._stream, schema, names)
        self._batches += 1
        said = confirmable(answers) if self._thumbs else {}
        self._held.append(_Batch(f"{self._name}/{self._batches}", rows, said, _requests(answers)))

    def _lose(self, answers: Sequence[Answered]) -> None:
        rows = sum(one.rows.n for one in answers)
        with self._lock:
            if self._ended:  # counted already
                return
            self._rows -= rows
        self._counters.add("dropped", rows)
        if self._seen is not None:
            self._seen.unlogged(_requests(answers))

    def _write(self, asked: Sequence[_Asked]) -> None:
        requests = [request for request, _ in asked]
        logs = self._needed(requests)
        wanted = [one for one in (logs.rows, logs.labels, logs.feedback) if one is not None]
        if not self._held and not requests:
            return
        held = self._held
        rows = sum([batch.rows.num_rows for batch in held])
        with self._lock:
            if self._ended:
                raise SourceAway("the server is ending: send it again; nothing was written")
            self._writing = rows
        try:
            outcomes = self._commit(wanted, held, requests, logs)
        except BaseException:
            with self._lock:
                self._writing = 0
                lost = rows if self._ended else 0
                self._rows -= lost
            if lost:
                self._counters.add("dropped", lost)
            raise
        self._held = []
        with self._lock:
            self._rows, self._writing = self._rows - rows, 0
        if rows:
            self._counters.add("logged", rows)
        if self._seen is not None and (confirmed := [one for batch in held for one in batch.requests]):
            self._seen.confirm(confirmed)
        for (_, future), outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, KeyTaken):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _commit(
        self, wanted: Sequence[IngestLog], held: Sequence[_Batch], requests: Sequence[Received], logs: Logs
    ) -> list[list[Outcome] | KeyTaken]:
        now = self.clock()
        with together(wanted) as writing:
            for batch in held:
                assert logs.rows is not None
                if not writing.remember(logs.rows, batch.key, ""):  # the commit before got through, and nobody said so
                    continue
                writing.append(logs.rows, batch.rows)
                inbox_index.keep(writing, logs.rows, batch.said)
                inbox_index.count(writing, logs.rows, now, batch.rows.num_rows)
            for one in wanted:
                if time.monotonic() >= self._pruned.get(one.name, 0.0):
                    self._pruned[one.name] = time.monotonic() + PRUNE_EVERY
                    inbox_index.prune(writing, one, before=now - micros(self._stream.waits), now=now)
            return received.write(writing, requests, logs, self._stream, self.clock) if requests else []

    # ------------------------------------------------------------------ the logs

    def _needed(self, requests: Sequence[Received]) -> Logs:
        """The logs that a transaction writes to."""
        thumbs, first = any(request.thumbs for request in requests), received.first_label(requests)
        confirms = thumbs and self._thumbs
        examples = any(request.examples is not None for request in requests)
        return Logs(
            rows=self._open_rows() if self._held or confirms or examples else None,
            labels=self._labels(first) if first is not None or confirms else None,
            feedback=self._open("feedback", FEEDBACK) if thumbs else None,
            confirms=confirms,
        )

    def _kept(self) -> IngestLog | None:
        """The log of predictions, made if it is not there; None if it has other columns, which is told once."""
        if self._fits is None:
            opened, wanted = self._open_rows(), rows_schema(self._stream, self._types())
            self._fits = _fits(opened.schema, wanted)
            if not self._fits:
                there, ours = (", ".join(f"{one.name}: {one.type}" for one in each) for each in (opened.schema, wanted))
                error = f"{opened!r} holds {there}, and a server logs {ours}: begin a deployment of a new name"
                log.error("predictions are not logged", extra={"error": error})
        return self._open_rows() if self._fits else None

    def _open_rows(self) -> IngestLog:
        """The log of predictions as it is; made if it is not there."""
        if (found := self._logs.get("rows")) is not None:
            return found
        self._expect()
        with IngestLog.open(self._inbox.url("rows")) as there:
            schema = there.schema
        return self._open("rows", rows_schema(self._stream, self._types()) if schema is None else schema)

    def _labels(self, first: Label | None) -> IngestLog | None:
        """The log of labels; None if it is not there, and nothing says of which type they are."""
        if (found := self._logs.get("labels")) is not None:
            return found
        self._expect()
        with IngestLog.open(self._inbox.url("labels")) as there:
            dtype = self._says_type() if there.schema is None else there.schema.field(1).type
        if dtype is None and first is not None:
            dtype = received.type_of(first)
        return None if dtype is None else self._open("labels", labels_schema(self._stream, dtype))

    def _expect(self) -> None:
        """Refuse to make anew what will come back."""
        if not self._may_make():
            raise SourceAway(f"{self._inbox.database} and the ledger beside it are gone: nothing was written")

    def _open(self, which: Which, schema: Any) -> IngestLog:
        with self._opening:
            if which not in self._logs:
                opened = IngestLog.open(self._inbox.url(which), schema)
                inbox_index.make(opened)
                self._logs[which] = opened
            return self._logs[which]

    def _forget_logs(self) -> None:
        with self._opening:
            for one in self._logs.values():
                one.close()
            self._logs, self._fits = {}, None


def _fits(there: Any, wanted: Any) -> bool:
    """Whether rows may go into a log that is there: whoever made it chose the order, and may give more than we do."""
    names = set(wanted.names)
    return set(wanted) <= set(there) and all(one.nullable for one in there if one.name not in names)


def _items(request: Received) -> int:
    examples = 0 if request.examples is None else len(request.examples.ids)
    return len(request.labels) + len(request.thumbs) + examples


def _requests(answers: Sequence[Answered]) -> list[str]:
    """The ids of requests that clients gave."""
    return [one.request for one in answers if one.request is not None]


def _fail(asked: Sequence[_Asked], error: Exception) -> None:
    for _, outcomes in asked:
        if not outcomes.done():
            outcomes.set_exception(error)


# ---------------------------------------------------------------------- answers as rows


def batch_of(answers: Sequence[Answered], stream: Stream, schema: Any, names: Sequence[str]) -> Any:
    """Answers as a record batch of the log of predictions, in their order.

    ``names`` are those of the columns of ``Rows.numbers``.
    """
    counts = [one.rows.n for one in answers]
    numbers = np.ascontiguousarray(np.concatenate([one.rows.numbers for one in answers]).T)
    at = {name: i for i, name in enumerate(names)}
    apart = {
        str(stream.id): pa.array([i for one in answers for i in one.ids], pa.string()),
        stream.time: pa.array(np.repeat(np.array([one.time for one in answers], dtype=np.int64), counts), INSTANT),
    }
    apart |= _said([(one.rows.n, one.version, one.prediction) for one in answers], VERSION, SAID)
    if any(one.shadow is not None for one in answers):
        beside = [(one.rows.n, *(one.shadow or (None, None))) for one in answers]
        apart |= _said(beside, SHADOW, SHADOW_SAID)
    others = {name for one in answers for name in one.rows.others}
    columns = []
    for field in schema:
        name = field.name
        if name in apart:
            columns.append(apart[name])
        elif name in others or name == stream.key:
            values = [v for one in answers for v in one.rows.others.get(name) or one.rows.keys or [None] * one.rows.n]
            columns.append(pa.array(values, field.type))
        elif name in at:
            columns.append(_numbers(numbers[at[name]], field.type))
        else:
            columns.append(pa.nulls(sum(counts), field.type))
    return pa.record_batch(columns, schema=schema)


def _numbers(values: NDArray[np.float64], dtype: Any) -> Any:
    """Numbers as a column of some type; NaN is null."""
    if pa.types.is_float64(dtype):
        return pa.array(values, dtype, from_pandas=True)
    missing = np.isnan(values)
    if pa.types.is_boolean(dtype):
        return pa.array(values == 1.0, dtype, mask=missing)
    return pa.array(values, pa.float64(), mask=missing).cast(dtype)  # raises where a value would change


def _said(parts: Sequence[tuple[int, str | None, Prediction | None]], version: str, said: str) -> dict[str, Any]:
    """Who said what, of parts of n rows each: neighbours of one version and shape are packed at once."""
    who, what = [], []
    for (number, _), group in groupby(parts, _alike):
        some = list(group)
        n = sum([part[0] for part in some])
        if number is None:
            who.append(pa.nulls(n, pa.string()))
            what.append(pa.nulls(n, pa.binary()))
            continue
        who.append(pa.repeat(pa.scalar(number, pa.string()), n))
        what.append(pack(_joined([part[2] for part in some if part[2] is not None])))
    return {version: pa.concat_arrays(who), said: pa.concat_arrays(what)}


def _alike(part: tuple[int, str | None, Prediction | None]) -> tuple[str | None, int]:
    """The version of a part, and how many numbers it says of a row."""
    _, number, prediction = part
    if prediction is None or prediction.proba is None:
        return number, 1
    return number, 1 + prediction.proba.shape[1]


def _joined(predictions: Sequence[Prediction]) -> Prediction:
    """Predictions of one shape as one."""
    if len(predictions) == 1:
        return predictions[0]

    def joined(name: str) -> Any:
        arrays = [getattr(one, name) for one in predictions]
        return None if arrays[0] is None else np.concatenate(arrays)

    return Prediction(codes=joined("codes"), proba=joined("proba"), values=joined("values"))


def confirmable(answers: Sequence[Answered]) -> dict[bytes, inbox_index.Line]:
    """What thumbs about these answers would confirm, by digest of the id; nothing of a row without a class."""
    out = {}
    for one in answers:
        classes, codes = one.prediction.classes, one.prediction.codes
        for row_id, code in zip(one.ids, [] if codes is None else codes.tolist(), strict=codes is not None):
            if code >= 0:
                out[id_digest(row_id)] = inbox_index.Line(received.spelled(classes[code], classes), None, one.time)
    return out
