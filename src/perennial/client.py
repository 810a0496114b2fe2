"""A client of ``perennial serve``: asks for predictions, and brings back what became of them.

Every request can be sent again without harm: one for predictions has an id, one that brings something a key, and an
operator's word says which champion it leaves. So all of them are, where the server is away, busy, or lost the answer.

ServerError          the server did not do what was asked: ``status``, ``message``, ``next_step``
├── Unreachable      nobody answers there
├── AccessDenied     the token is missing, unknown, or of another scope
├── InvalidRequest   what was sent breaks a rule
├── NotFound         no such version, model or route
├── Conflict         it was used, or moved, meanwhile
└── Unavailable      not now: too many requests, or something behind the server is away
"""

from __future__ import annotations

import json
import math
import random
import time as clock
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Self, final
from urllib.parse import quote

from perennial.core.errors import DataError, MissingExtra, PerennialError

if TYPE_CHECKING:
    import httpx

Label = bool | int | float | str
Rows = Any  #: a list of dicts, or a table of pandas, Polars or Arrow

ITEMS = 5000  #: labels or examples that are sent in one request
LONGEST_WAIT = 30.0  #: seconds before another try, whatever the server asks for

_ALL = ("predict", "probabilities", "classes", "id")
_AGAIN = frozenset([408, 429, 502, 503, 504])


class ServerError(PerennialError, RuntimeError):
    """The server did not do what was asked.

    Attributes
    ----------
    status : int
        The status code; 0 if there was no answer.
    message : str
        What the server said: what is wrong, and the rule.
    next_step : str
        What can be done about it.
    """

    next_step = "look at the server's log: it has the request id that the message names"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        code = f" ({self.status})" if self.status else ""
        return f"{self.message}{code}. Next: {self.next_step}"


class Unreachable(ServerError):
    """Nobody answers there, or not in time; what was asked may have been done, and can be asked again."""

    next_step = "check the URL and that  perennial serve  runs; give a longer timeout if it is only slow"


class AccessDenied(ServerError):
    """The token is missing, unknown, expired, or of another scope."""

    next_step = "give Client(token=...) one that allows this; it is made by  perennial token NAME --scope SCOPE"


class InvalidRequest(ServerError):
    """What was sent breaks a rule; the message names the column, the row or the field."""

    next_step = "mend what the message names, and send it anew"


class NotFound(ServerError):
    """No such version, model or route."""

    next_step = "see Client.versions() for what there is"


class Conflict(ServerError):
    """Somebody was there first: an id was used before, or the champion moved."""

    next_step = "look again, and decide anew"


class Unavailable(ServerError):
    """Not now. It was tried as often as the client may."""

    next_step = "send it again later; Client(retries=...) does so more often"


_ERRORS: Mapping[int, type[ServerError]] = {
    400: InvalidRequest, 401: AccessDenied, 403: AccessDenied, 404: NotFound, 405: NotFound, 409: Conflict,
    413: InvalidRequest, 415: InvalidRequest, 422: InvalidRequest, 431: InvalidRequest,
    408: Unavailable, 429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What was said of n rows.

    Parameters
    ----------
    labels : tuple of n labels
        Predicted classes, or numbers of a regression; None where the version does not know.
    ids : tuple of n str
        What labels and feedback refer to.
    version : str
        Who said it.
    request_id : str
        The request's id.
    classes : tuple of str
        Of a classification, in the order of the columns of ``probabilities``.
    probabilities : tuple of n tuples of float, optional
        Where the version gives some.
    """

    labels: tuple[Label | None, ...]
    ids: tuple[str, ...]
    version: str
    request_id: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a label, a thumb or an example: ``accepted``, ``repeated``, ``revised``, ...; docs have the table.

    ``label`` is what became of the label in it, of feedback that has one.
    """

    id: str
    outcome: str
    label: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The champion of a deployment; ``version`` is None before the first, ``answers`` is what the server has by now."""

    deployment: str
    version: str | None
    previous: str | None
    since: str | None
    actor: str
    reason: str
    answers: str | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What an operator's word did: ``champion`` is champion now, ``previous`` was before."""

    champion: str
    previous: str | None
    actor: str
    reason: str
    closed: bool


@final
class Client:
    """Talks to a server; a context manager, and safe to share between threads.

    Parameters
    ----------
    url : str
        Where it is: ``http://127.0.0.1:8000``.
    token : str, optional
        An access token; not needed on the server's own machine where it has no file of them.
    timeout : float
        Seconds to wait for an answer.
    retries : int
        How often a request is sent again that found the server away or busy.
    model : str, optional
        Name of the deployment; asked of the server unless given.
    sleep : callable
        Waits so many seconds before another try.

    Raises
    ------
    MissingExtra
        If httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 3,
        model: str | None = None,
        sleep: Callable[[float], None] = clock.sleep,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("client", "perennial.client") from error
        headers = {"User-Agent": "perennial-client"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._retries, self._sleep, self._jitter = retries, sleep, random.Random()
        self._model = model
        self._probable = True

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- predictions --------------------------------------------------------------------------------------------------

    def predict(self, rows: Rows, *, request_id: str | None = None, version: str | None = None) -> Predictions:
        """What the champion, or a version of a number, says of rows.

        Parameters
        ----------
        rows : list of dict, or table of pandas, Polars or Arrow
            The stream's columns by name. NaN and None are nulls. A column of ids names the predictions.
        request_id : str, optional
            Names the predictions of rows without an id, as ``<request_id>/<row>``; a random one unless given.
        version : str, optional
            Its number.

        Raises
        ------
        DataError
            If a value cannot be sent, or rows have other columns than the first.
        ServerError
            If the server does not answer, or refuses the rows.
        """
        columns = _columns(rows)
        n = len(next(iter(columns.values()), ()))
        body = {
            "id": request_id or uuid.uuid4().hex,
            "inputs": [
                {"name": name, "shape": [n], "datatype": _datatype(values), "data": values}
                for name, values in columns.items()
            ],
        }
        which = f"/versions/{quote(version, safe='')}" if version is not None else ""
        said = self._infer(f"/v2/models/{quote(self._name(), safe='')}{which}/infer", body)
        out = {output["name"]: output["data"] for output in said["outputs"]}
        flat, classes = out.get("probabilities"), tuple(out.get("classes", ()))
        return Predictions(
            labels=tuple(out["predict"]),
            ids=tuple(out["id"]),
            version=said["model_version"],
            request_id=said["id"],
            classes=classes,
            probabilities=None if flat is None else _split(flat, len(classes)),
        )

    def _infer(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer, with probabilities and their classes where the version gives some."""
        if self._probable:
            try:
                return self._post(path, {**body, "outputs": [{"name": name} for name in _ALL]})
            except InvalidRequest as refused:  # because of the rows, or because it knows no probabilities?
                if refused.status != 422:
                    raise
                try:
                    said = self._post(path, body)
                except InvalidRequest:
                    raise refused from None
                self._probable = False
                return said
        return self._post(path, body)

    def _name(self) -> str:
        """The model's name, asked once."""
        if self._model is None:
            self._model = str(self._get("/v2")["models"][0])
        return self._model

    # -- what became of them ------------------------------------------------------------------------------------------

    def label(self, id: str, label: Label, time: datetime | str | None = None) -> Outcome:
        """Bring the label of a prediction; ``time`` is when it was observed."""
        return self.labels([(id, label, time)])[0]

    def labels(self, labels: Iterable[Sequence[Any]]) -> list[Outcome]:
        """Bring labels, each ``(id, label)`` or ``(id, label, time)``: durable when this returns."""
        items = []
        for given in labels:
            one, label, time = (*given, None)[:3]
            item = {"id": one, "label": _plain(label)}
            items.append(item if time is None else {**item, "time": _plain(time)})
        return self._bring("labels", items)

    def feedback(
        self, id: str, *, up: bool | None = None, text: str | None = None, correction: Label | None = None
    ) -> Outcome:
        """Bring what a person thinks of a prediction: a thumb, words, what would have been right."""
        told = {"up": up, "text": text, "correction": _plain(correction)}
        return self._bring("feedback", [{"id": id} | {k: v for k, v in told.items() if v is not None}])[0]

    def examples(self, rows: Rows, *, key: str | None = None) -> list[Outcome]:
        """Bring labelled rows, in the stream's columns, its label among them.

        ``key`` says that rows are the same if they are brought again; a random one, for the tries of this call, unless
        given.
        """
        columns = _columns(rows)
        items = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return self._bring("examples", items, key)

    def _bring(self, which: str, items: list[dict[str, Any]], key: str | None = None) -> list[Outcome]:
        out: list[Outcome] = []
        key = key or uuid.uuid4().hex
        for part, start in enumerate(range(0, len(items), ITEMS)):
            own = key if part == 0 else f"{key}/{part}"
            said = self._post(f"/{which}", {which: items[start : start + ITEMS]}, {"Idempotency-Key": own})
            out += [Outcome(**one) for one in said[which]]
        return out

    # -- an operator's questions and words ----------------------------------------------------------------------------

    def champion(self) -> Champion:
        """Which version is champion, since when, and who had it so."""
        return Champion(**self._get("/champion"))

    def versions(self) -> list[dict[str, Any]]:
        """Every version in order of creation, as ``perennial versions --json`` has them."""
        told: list[dict[str, Any]] = self._get("/versions")
        return told

    def explain(self, version: str) -> dict[str, Any]:
        """Everything there is to say of a version: its number, or champion, previous, challenger."""
        told: dict[str, Any] = self._get(f"/versions/{quote(version, safe='')}")
        return told

    def served_at(self, time: datetime | str) -> dict[str, Any]:
        """Which version answered rows of an instant, since when, and why."""
        told: dict[str, Any] = self._get("/served-at", {"time": str(_plain(time))})
        return told

    def promote(self, version: str, reason: str = "") -> Moved:
        """Make a version champion, whatever the gate says; one that is champion stays so."""
        return Moved(**self._post(f"/versions/{quote(version, safe='')}/promote", {"reason": reason}))

    def rollback(self, reason: str = "", *, left: str | None = None) -> Moved:
        """Make the version before the champion champion again.

        Parameters
        ----------
        reason : str
            Why, for the ledger.
        left : str, optional
            The champion that is to go; if another one is champion by now, nothing is done. Asked for unless given,
            which takes the scope ``read`` besides ``operate``.
        """
        left = left if left is not None else self.champion().version
        return Moved(**self._post("/rollback", {"reason": reason, **({"from": left} if left is not None else {})}))

    # -- is it there --------------------------------------------------------------------------------------------------

    def health(self) -> bool:
        """Whether the server is there. Asks once."""
        return self._is("/v2/health/live")

    def ready(self) -> bool:
        """Whether it answers predictions. Asks once."""
        return self._is("/v2/health/ready")

    def _is(self, path: str) -> bool:
        import httpx

        try:
            return self._http.get(path).status_code == 200
        except httpx.TransportError:
            return False

    # -- requests -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._sent("GET", path, params=dict(query or {}))

    def _post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        try:
            content = json.dumps(body, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a value cannot be sent ({error}): give numbers that are finite, text, times or None"
            ) from error
        return self._sent(
            "POST", path, content=content, headers={"Content-Type": "application/json", **(headers or {})}
        )

    def _sent(self, method: str, path: str, **request: Any) -> Any:
        """The answer to a request, which is sent again as often as it may be."""
        waits = self._waits()
        while True:
            answer, error = self._try(method, path, request)
            if answer is not None and answer.is_success:
                return answer.json()
            wait = next(waits, None) if answer is None or answer.status_code in _AGAIN else None
            if wait is None:
                if answer is None:
                    raise Unreachable(f"{self._http.base_url} does not answer: {error}", 0) from error
                raise _refusal(answer)
            self._sleep(max(wait, _asked_for(answer)))

    def _try(
        self, method: str, path: str, request: Mapping[str, Any]
    ) -> tuple[httpx.Response | None, Exception | None]:
        import httpx

        try:
            return self._http.request(method, path, **request), None
        except httpx.TransportError as error:
            return None, error

    def _waits(self) -> Iterator[float]:
        """Seconds before each further try: twice as long each time, at random so that clients do not come together."""
        for i in range(self._retries):
            yield min(0.1 * 2**i, LONGEST_WAIT) * (0.5 + self._jitter.random() / 2)


def _asked_for(answer: httpx.Response | None) -> float:
    """The seconds that a server asks to wait."""
    asked = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0


def _refusal(answer: httpx.Response) -> ServerError:
    try:
        message = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server said: {answer.text[:200] or answer.reason_phrase}"
    return _ERRORS.get(answer.status_code, ServerError)(message, answer.status_code)


def _split(flat: Sequence[float], width: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(flat[i : i + width]) for i in range(0, len(flat), width))


# -- rows -------------------------------------------------------------------------------------------------------------


def _columns(rows: Rows) -> dict[str, list[Any]]:
    """Columns of plain values, by name."""
    if isinstance(rows, Mapping):
        rows = [rows]
    if not isinstance(rows, list | tuple):
        table = _table(rows)
        return {name: [_plain(value) for value in table.column(name).to_pylist()] for name in table.column_names}
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError("give rows as a list of dicts with at least one, or a table of pandas, Polars or Arrow")
    names = rows[0].keys()
    for i, row in enumerate(rows):
        if row.keys() != names:
            odd = sorted(map(str, row.keys() ^ names))[0]
            raise DataError(
                f"row {i} and row 0 have other columns, {odd!r} is in one of them: give None where a value is missing"
            )
    return {str(name): [_plain(row[name]) for row in rows] for name in names}


def _table(rows: Any) -> Any:
    import pyarrow as pa

    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns"):
        return pa.Table.from_pandas(rows, preserve_index=False)  # NaN is a null of pandas
    if not hasattr(rows, "__arrow_c_stream__"):
        raise DataError(
            f"rows are a {type(rows).__name__}: give a list of dicts, or a table of pandas, Polars or Arrow"
        )
    return pa.table(rows)


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN is a null, times are text."""
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a scalar of numpy
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, date):  # a datetime too
        return value.isoformat()
    return value


def _datatype(values: Sequence[Any]) -> str:
    """The datatype of a column: that of its values, nulls aside."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds and kinds <= {int, float} else "BYTES"
