"""An operator's routes: what happened and why, and a word in it, as ``perennial versions`` and its kin have them.

Each request opens the ledger: they are few, and the ledger may come and go. A word may be sent again after its answer
was lost: one that is done already is answered as if it were done now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from perennial.core.errors import LedgerError
from perennial.core.times import iso, read_instant
from perennial.ledger.errors import AliasMoved
from perennial.ledger.rows import to_json
from perennial.ledger.sql import SqlLedger
from perennial.production import explain, operate
from perennial.server.access import Identity, require
from perennial.server.failures import Refused

if TYPE_CHECKING:
    from perennial.server.answering import Parts

REASON = 1000  #: characters of a reason
Status = Literal["champion", "challenger", "previous", "rejected", "retired"]


class Word(BaseModel):
    """What an operator says with a promotion or a roll back."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    reason: str = Field(default="", max_length=REASON, description="Why, for the ledger.")
    left: str | None = Field(
        default=None,
        alias="from",
        max_length=40,
        description="The champion that the operator sees; if it is another by now, nothing is done.",
    )


#: the body of a word, for the description: it is read by hand, once it is known who sent it
_WORD = {"requestBody": {"content": {"application/json": {"schema": Word.model_json_schema(by_alias=True)}}}}


async def _word(request: Request) -> Word:
    body = await request.body()
    try:
        return Word.model_validate_json(body) if body else Word()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(f"{where}: {first['msg']}: send an object with `reason` and `from`, or nothing") from None


def routes(state: Parts) -> APIRouter:
    """The routes of an application with this state."""
    router = APIRouter(tags=["operating"])
    reads = [Depends(require("read"))]

    @router.get("/versions", dependencies=reads)
    def versions(
        last: Annotated[int | None, Query(ge=1, description="Only so many, the newest.")] = None,
        status: Annotated[Status | None, Query(description="Only those with this status.")] = None,
    ) -> Response:
        """Every version, in order of creation."""
        with _reading(state) as ledger:
            told = explain.versions(explain.History.read(ledger))
        return _document([one for one in told if status in (None, one["status"])][-(last or 0) :])

    @router.get("/versions/{version}", dependencies=reads)
    def version(version: str) -> Response:
        """Everything there is to say of a version: its number, or champion, previous, challenger."""
        with _reading(state) as ledger:
            number = operate.numbered(ledger, version)
            return _document(explain.explain(explain.History.read(ledger), number))

    @router.get("/champion", dependencies=reads)
    def champion() -> Response:
        """Which version is champion, since when, and who had it so; and which one this process answers with."""
        with _reading(state) as ledger:
            return _document(_champion(state, ledger))

    @router.get("/served-at", dependencies=reads)
    def served_at(
        time: Annotated[
            str, Query(max_length=64, description="ISO 8601; of the stream's time zone without an offset.")
        ],
    ) -> Response:
        """Which version answered rows of an instant, since when, and why."""
        instant = read_instant(time, state.deployment.stream.time_zone)
        with _reading(state) as ledger:
            return _document(explain.served_at(explain.History.read(ledger), instant))

    @router.post("/versions/{version}/promote", openapi_extra=_WORD)
    async def promote(
        version: str, request: Request, who: Annotated[Identity, Depends(require("operate"))]
    ) -> Response:
        """Make a version champion, whatever the gate says."""
        return await run_in_threadpool(promoted, version, who, await _word(request))

    def promoted(version: str, who: Identity, word: Word) -> Response:
        with _reading(state) as ledger, _answering():
            number = operate.numbered(ledger, version)
            now = ledger.alias("champion")
            if now.version == number:
                return _document(_standing(ledger))
            _expect(word, now.version)
            moved = operate.promote(ledger, state.deployment, number, actor=_actor(who), reason=word.reason)
        return _document(_moved(moved))

    @router.post("/rollback", openapi_extra=_WORD)
    async def rollback(request: Request, who: Annotated[Identity, Depends(require("operate"))]) -> Response:
        """Make the version before the champion champion again: one step."""
        return await run_in_threadpool(rolled_back, who, await _word(request))

    def rolled_back(who: Identity, word: Word) -> Response:
        with _reading(state) as ledger, _answering():
            now = ledger.alias("champion")
            heeded = now.actor == _actor(who) and now.reason == (word.reason or f"roll back from {word.left}")
            if heeded and word.left is not None and ledger.alias("previous").version == word.left:
                return _document(_standing(ledger))  # it is sent again: the answer was lost
            _expect(word, now.version)
            moved = operate.rollback(ledger, state.deployment, actor=_actor(who), reason=word.reason)
        return _document(_moved(moved))

    return router


@contextmanager
def _reading(state: Parts) -> Iterator[SqlLedger]:
    """The ledger of the deployment; until a run made it, the answer is to ask again."""
    deployment = state.deployment
    try:
        opened = SqlLedger.open(deployment.ledger, deployment.name, blobs=deployment.blobs, create=False)
    except LedgerError as error:
        need = "the ledger cannot be read now, or no run has made it yet: send it again later"
        raise Refused(need, 503, {"retry-after": "1"}) from error
    with opened as ledger:
        yield ledger


@contextmanager
def _answering() -> Iterator[None]:
    """A word that cannot be heeded is no failure of the server: say why."""
    try:
        yield
    except LedgerError as error:
        if type(error) is LedgerError:  # of operate: there is nothing to go back to, or the model is broken
            raise Refused(str(error), 409) from error
        raise


def _expect(word: Word, champion: str | None) -> None:
    """Refuse a word about another champion than the one there is."""
    if word.left not in (None, champion):
        raise AliasMoved(f"the champion is {champion} by now: look again", alias="champion")


def _actor(who: Identity) -> str:
    return f"{who.name} (serve)"


def _moved(moved: operate.Moved) -> dict[str, Any]:
    return {
        "champion": moved.version, "previous": moved.left, "actor": moved.actor, "reason": moved.reason,
        "closed": moved.closed,
    }  # fmt: skip


def _standing(ledger: SqlLedger) -> dict[str, Any]:
    """What a word would say that was heeded before."""
    now, previous = ledger.alias("champion"), ledger.alias("previous")
    closed = any(entry.kind == "close" for entry in ledger.entries())
    return {
        "champion": now.version, "previous": previous.version, "actor": now.actor, "reason": now.reason,
        "closed": closed,
    }  # fmt: skip


def _champion(state: Parts, ledger: SqlLedger) -> dict[str, Any]:
    now, previous = ledger.alias("champion"), ledger.alias("previous")
    slot = state.models.champion if state.models is not None else None
    return {
        "deployment": ledger.deployment,
        "version": now.version,
        "previous": previous.version,
        "since": iso(now.at) if now.version is not None else None,
        "actor": now.actor,
        "reason": now.reason,
        "answers": slot.version if slot is not None else None,
    }


def _document(told: Any) -> Response:
    return Response(to_json(told), media_type="application/json")
