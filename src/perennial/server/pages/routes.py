"""The addresses of the dashboard, what each reads, and what an operator may do there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from perennial.core.errors import ConfigError, LedgerError, PerennialError
from perennial.ledger.errors import AliasMoved, UnknownVersion
from perennial.ledger.records import ALIASES, Alias
from perennial.ledger.sql import SqlLedger
from perennial.production import operate
from perennial.server import failures
from perennial.server.access import LOGIN, LOGOUT, Identity, local, require
from perennial.server.failures import Refused
from perennial.server.pages import backtests, data, deployment, evidence, feedback, lineage, served, versions
from perennial.server.pages.chronicle import SPANS, Chronicle
from perennial.server.pages.rendering import HEADERS, REPORT_POLICY, Said, digest, rendered
from perennial.server.pages.words import Times
from perennial.server.tokens import Scope
from perennial.stream import ingest
from perennial.stream.inbox import Inbox, Which

_LOGS: tuple[Which, ...] = ("rows", "labels", "feedback")
_TITLES = {404: "There is no such thing", 409: "It changed meanwhile", 503: "Not now"}
_NO_LEDGER = (
    "There is no ledger of this deployment yet. Start  perennial run  with the same configuration: it makes one."
)
_STATIC = Path(__file__).with_name("static")
_SPAN_NAMES = {"all": "All", "30d": "30 days", "7d": "7 days", "1d": "1 day"}
_SPAN, _LOOKS = 60.0, 120  # seconds over which traffic is counted, and looks at it that are kept


def routes(state: Any, *, folder: Path | None = None, inbox: Inbox | None = None) -> list[BaseRoute]:
    """The routes of the dashboard.

    Parameters
    ----------
    state
        The app's state: ``deployment`` and ``access``; and ``counters``, if predictions are served.
    folder : Path, optional
        Where the configuration lies, and reports of backtests beside it.
    inbox : Inbox, optional
        The logs that the server writes to.
    """
    desk = Desk(state, folder, inbox)
    read = desk.reading
    return [
        Route("/", _home),
        Route("/ui", _home),
        Route("/ui/", read(desk.show_deployment)),
        Route("/ui/part/cards", read(desk.show_cards)),
        Route("/ui/part/tiles", read(desk.show_tiles)),
        Route("/ui/part/happened", read(desk.show_happened)),
        Route("/ui/part/trial", read(desk.show_trial)),
        Route("/ui/part/flows", read(desk.show_flows)),
        Route("/ui/json/score", read(desk.score_json)),
        Route("/ui/json/evidence", read(desk.evidence_json)),
        Route("/ui/served-at", read(desk.served_at)),
        Route("/ui/versions", read(desk.show_versions)),
        Route("/ui/versions/{number}", read(desk.show_version)),
        Route("/ui/evidence", read(desk.show_evidence)),
        Route("/ui/data", read(desk.show_data)),
        Route("/ui/feedback", read(desk.show_feedback)),
        Route("/ui/backtests", read(desk.show_backtests)),
        Route("/ui/backtests/{name}", read(desk.show_report)),
        Route("/ui/backtests/{name}/report.html", read(desk.report_file)),
        Route("/ui/promote", read(desk.ask_promote, "operate")),
        Route("/ui/rollback", read(desk.ask_rollback, "operate")),
        Route("/ui/shares", read(desk.ask_shares, "operate")),
        Route("/ui/promote", desk.acting(desk.promote), methods=["POST"]),
        Route("/ui/rollback", desk.acting(desk.rollback), methods=["POST"]),
        Route("/ui/shares", desk.acting(desk.set_shares), methods=["POST"]),
        Route(LOGIN, desk.log_in),
        Mount("/ui/static", _Static(directory=_STATIC)),
    ]


async def _home(_request: Request) -> Response:
    return RedirectResponse("/ui/")


@final
class _Static(StaticFiles):
    """Our own files. A browser asks again whether they are what it has: a release may change them."""

    def file_response(self, *about: Any, **more: Any) -> Response:
        response = super().file_response(*about, **more)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a page, and who makes it."""

    request: Request
    who: Identity

    @property
    def operates(self) -> bool:
        """Whether they may move pointers."""
        return "operate" in self.who.scopes

    @property
    def actor(self) -> str:
        """As the ledger keeps who gave a word; without tokens nobody knows more than that it came from here."""
        return "dashboard" if self.who.by == "loopback" else self.who.name

    def query(self, name: str, otherwise: str = "") -> str:
        """What stands in the address."""
        return self.request.query_params.get(name, otherwise)

    def whole(self, name: str, otherwise: int = 0) -> int:
        """A whole number in the address; what is none counts as if it were not there."""
        text = self.query(name)
        return int(text) if text.isdecimal() and len(text) < 10 else otherwise

    @property
    def partial(self) -> bool:
        """Whether a part of a page is asked for, by its script."""
        return "hx-request" in self.request.headers


@final
class Desk:
    """What answers the requests of one app. Every ``reading`` runs in a thread: it asks the ledger."""

    def __init__(self, state: Any, folder: Path | None, inbox: Inbox | None) -> None:
        self._state = state
        self._folder, self._inbox = folder, inbox
        self._told: Chronicle | None = None
        self._opening = threading.Lock()
        self._traffic: deque[tuple[float, int]] = deque(maxlen=_LOOKS)
        self._times = Times(state.deployment.stream.time_zone)

    # -- who may

    def reading(self, answer: Callable[[Asked], Response], scope: Scope = "read") -> Callable[[Request], Any]:
        """An endpoint for who has a scope."""

        async def endpoint(request: Request) -> Response:
            asked = await self._permitted(request, scope)
            return asked if isinstance(asked, Response) else await run_in_threadpool(self._told_of, asked, answer)

        return endpoint

    def acting(self, act: Callable[[Asked, Mapping[str, str]], Response]) -> Callable[[Request], Any]:
        """An endpoint that changes something: for operators, from our own pages."""

        async def endpoint(request: Request) -> Response:
            asked = await self._permitted(request, "operate")
            if isinstance(asked, Response):
                return asked
            form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
            return await run_in_threadpool(self._told_of, asked, lambda asked: act(asked, form))

        return endpoint

    async def log_in(self, request: Request) -> Response:
        """Where a person gives a token; what becomes of it is :mod:`perennial.server.access`'s."""
        follow = local(request.query_params.get("next", ""))
        if self._state.access.open:
            return RedirectResponse(follow)
        wrong = {
            "token": "This token is unknown, expired or revoked: ask the operator for a new one.",
            "wait": "Wrong tokens came from this address, too many of them: wait a minute.",
        }
        text = rendered(
            "login.html", self._times, deployment=self._state.deployment.name, here="", pages=(), zone="", who="",
            live="", said=None, error=wrong.get(request.query_params.get("wrong", "")), next=follow, action=LOGIN,
        )  # fmt: skip
        return HTMLResponse(text, headers=HEADERS)

    def _told_of(self, asked: Asked, answer: Callable[[Asked], Response]) -> Response:
        """What is answered; an error as a page in words."""
        try:
            return answer(asked)
        except PerennialError as error:
            if self._told is None and isinstance(error, LedgerError):
                return self._problem(asked, 503, "Nothing to show yet", _NO_LEDGER)
            found = failures.answer(error)
            if not found.foreseen:
                raise
            return self._problem(asked, found.status, _TITLES.get(found.status, "That did not work"), found.message)

    async def _permitted(self, request: Request, scope: Scope) -> Asked | Response:
        """Who asks; or, for a person who may not, a page that says so."""
        try:
            return Asked(request, await require(scope)(request))
        except Refused as refused:
            if refused.status != 403:
                raise  # to where a token can be given
            return self._problem(Asked(request, self._whoever(request)), 403, "Not allowed", str(refused))

    def _whoever(self, request: Request) -> Identity:
        """Who asks, whatever they may; nobody where that is not known, or not believed."""
        try:
            found: Identity = self._state.access.identify(request.scope)
        except Refused:
            return Identity(name="", scopes=frozenset(), by="loopback")
        return found

    # -- what is read

    def told(self) -> Chronicle:
        """What the ledger holds by now; raises ``LedgerError`` as long as there is none."""
        with self._opening:
            if self._told is None:
                about = self._state.deployment
                ledger = SqlLedger.open(about.ledger, about.name, blobs=about.blobs, create=False)
                self._told = Chronicle(ledger)
        self._told.catch_up()
        return self._told

    @property
    def ledger(self) -> SqlLedger:
        """The ledger, once it was opened."""
        if self._told is None:
            self.told()
        assert self._told is not None
        return self._told.ledger

    def pointers(self) -> dict[str, Alias]:
        """Where champion, challenger and previous point."""
        return {name: self.ledger.alias(name) for name in ALIASES}

    def _served(self) -> deployment.Served | None:
        """What was answered, and how much of it a second: since about a minute ago, over all that looked meanwhile."""
        counters = getattr(self._state, "counters", None)
        if counters is None:
            return None
        now, total = time.monotonic(), counters.total("predictions")
        with self._opening:
            looks = self._traffic
            if not looks or now - looks[-1][0] >= 1.0:
                looks.append((now, total))
            while len(looks) > 1 and looks[0][0] < now - _SPAN:
                looks.popleft()
            began, before = looks[0]
        rate = max(total - before, 0) / (now - began) if now - began >= 1.0 else None
        return deployment.Served(predictions=total, per_second=rate)

    def _overview(self, told: Chronicle) -> deployment.Overview:
        return deployment.overview(
            told,
            self.pointers(),
            times=self._times,
            delay=told.label_delay(),
            fresh=told.label_to_live(),
            served=self._served(),
        )

    # -- how it is shown

    def _page(
        self, asked: Asked, template: str, *, status: int = 200, live: str = "", said: Said | None = None, **about: Any
    ) -> Response:
        done = asked.query("done")
        if said is None and done:
            said = Said(text=done[:300])
        text = rendered(
            template,
            self._times,
            deployment=self._state.deployment.name,
            here=self._section(asked),
            zone=self._times.name,
            who="" if asked.who.by == "loopback" else asked.who.name,
            csrf=self._state.access.csrf_token(asked.request),
            logout=LOGOUT,
            operates=asked.operates,
            live=live,
            said=said,
            **about,
        )
        return HTMLResponse(text, status_code=status, headers=HEADERS)

    def _part(self, asked: Asked, template: str, view: Any, **about: Any) -> Response:
        """A part of a page, or word that it is what the browser has."""
        seen = digest(view)
        if asked.query("seen") == seen:
            return Response(status_code=204, headers=HEADERS)
        text = rendered(template, self._times, seen=seen, operates=asked.operates, **about)
        return HTMLResponse(text, headers=HEADERS)

    def _section(self, asked: Asked) -> str:
        path = asked.request.url.path
        for section in ("versions", "evidence", "data", "feedback", "backtests"):
            if path.startswith(f"/ui/{section}"):
                return f"/ui/{section}"
        return "/ui/" if path == "/ui/" else ""

    def _problem(self, asked: Asked, status: int, title: str, text: str) -> Response:
        return self._page(asked, "error.html", status=status, title=title, text=text)

    # -- the first page

    def show_deployment(self, asked: Asked) -> Response:
        """The first page."""
        told = self.told()
        with told.lock:
            page = self._overview(told)
            happened = deployment.happened(told, told.events.maxlen or 0 if asked.query("all") else deployment.EVENTS)
            about = self._about_cards(told)
            return self._page(
                asked,
                "deployment.html",
                live="yes",
                page=page,
                happened=happened,
                all=asked.query("all"),
                total=sum(told.counts.values()),
                seen={
                    "cards": digest((page.champion, page.challenger, page.wait, about)),
                    "tiles": digest(page.tiles),
                    "happened": digest(happened),
                },
                spans=list(_SPAN_NAMES.items()),
                **about,
                **self._about_served(told),
            )

    def _about_cards(self, told: Chronicle) -> dict[str, Any]:
        return {
            "loss": deployment.loss_name(told),
            "shares": getattr(self._state.deployment.gate, "mode", "none") == "before",
            "next": "; ".join(told.deciding),
        }

    def show_cards(self, asked: Asked) -> Response:
        """Champion and challenger."""
        told = self.told()
        with told.lock:
            page, about = self._overview(told), self._about_cards(told)
            view = (page.champion, page.challenger, page.wait, about)
            return self._part(asked, "cards.html", view, page=page, **about)

    def show_tiles(self, asked: Asked) -> Response:
        """The numbers."""
        told = self.told()
        with told.lock:
            page = self._overview(told)
            return self._part(asked, "tiles.html", page.tiles, page=page)

    def show_happened(self, asked: Asked) -> Response:
        """What happened last."""
        told = self.told()
        with told.lock:
            every = asked.query("all")
            events = deployment.happened(told, told.events.maxlen or 0 if every else deployment.EVENTS)
            total = sum(told.counts.values())
            return self._part(asked, "happened.html", events, happened=events, all=every, total=total)

    def score_json(self, asked: Asked) -> Response:
        """What the chart draws."""
        told = self.told()
        span = asked.query("span", "all")
        with told.lock:
            return JSONResponse(deployment.picture(told, span if span in SPANS else "all"), headers=HEADERS)

    # -- what served when

    def _about_served(self, told: Chronicle) -> dict[str, Any]:
        return {
            "days": served.days(told, self._times),
            "now": told.now if told.now is not None else 0,
            "answer": None,
            "hours": (),
            "day_name": "",
        }

    def served_at(self, asked: Asked) -> Response:
        """Who answered at an instant, or at the hours of a day."""
        told = self.told()
        day, at = asked.query("day"), asked.query("at")
        about = self._about_served(told)
        with told.lock:
            try:
                if at:
                    about["answer"] = self._answer(told, served.parsed(at, self._times))
                elif day:
                    about["hours"] = served.hours(told, self._times, day)
                    about["day_name"] = next((one.name for one in about["days"] if one.date == day), day)
            except (ValueError, OverflowError):
                text = f"{(at or day)[:40]!r} is no time: write it as 2026-01-31T15:00"
                return self._problem(asked, 400, "No such time", text)
        if asked.partial and (at or day):
            template = "answer.html" if at else "hours.html"
            return HTMLResponse(rendered(template, self._times, **about), headers=HEADERS)
        return self._page(asked, "served_page.html", **about)

    def _answer(self, told: Chronicle, at: int) -> served.Answer:
        stretch = told.stretches.at(at)
        if stretch is None:
            return served.nobody(told, at, self._times)
        ledger = self.ledger
        entry = next(iter(ledger.entries(stretch.turn, stretch.turn + 1)))
        return served.answer(told, at, stretch, entry, ledger.alias_history("champion"))

    # -- versions

    def show_versions(self, asked: Asked) -> Response:
        """The list, and the graph."""
        if number := asked.query("number").strip():
            self.ledger.version(number)
            return RedirectResponse(f"/ui/versions/{number}", status_code=303)
        told, pointers = self.told(), self.pointers()
        with told.lock:
            drawn = {name: alias.version for name, alias in pointers.items()}
            return self._page(
                asked,
                "versions.html",
                listing=versions.listing(told, pointers, asked.whole("page")),
                at=asked.whole("page"),
                graph=lineage.graph(told, drawn, min(max(asked.whole("lines", lineage.ROWS), 1), 500)),
                loss=deployment.loss_name(told),
                wait=deployment.waits(told),
                **self._about_served(told),
            )

    def show_version(self, asked: Asked) -> Response:
        """One version."""
        number = asked.request.path_params["number"]
        ledger = self.ledger
        saved = ledger.version(number)
        told, pointers = self.told(), self.pointers()
        verdicts, moves = ledger.verdicts(number), ledger.alias_history("champion")
        with told.lock:
            page = versions.page(told, pointers, saved, verdicts=verdicts, moves=moves, times=self._times)
        previous = pointers["previous"].version
        return self._page(asked, "version.html", page=page, previous=previous if previous != number else None)

    # -- evidence

    def show_evidence(self, asked: Asked) -> Response:
        """A trial."""
        told = self.told()
        with told.lock:
            page = self._trial(told, asked)
            gate = self._state.deployment.gate
            wait = "Once a second version is trained, it is compared with the champion here, label by label."
            if gate is None:
                wait = (
                    "Versions are promoted untested. Give the configuration a  gate  to compare each with the champion."
                )
            return self._page(
                asked,
                "evidence.html",
                live="yes" if page is not None and page.going_on else "",
                page=page,
                seen=digest(page),
                loss=deployment.loss_name(told),
                wait=wait,
            )

    def _trial(self, told: Chronicle, asked: Asked) -> evidence.Page | None:
        page = evidence.page(told, asked.whole("trial", -1) if asked.query("trial") else None)
        if page is None and asked.query("trial"):
            raise Refused("There is no such trial, or it is long past.", 404)
        return page

    def show_trial(self, asked: Asked) -> Response:
        """What a trial has found so far."""
        told = self.told()
        with told.lock:
            page = self._trial(told, asked)
            return self._part(asked, "trial.html", page, page=page)

    def evidence_json(self, asked: Asked) -> Response:
        """What the chart draws."""
        told = self.told()
        with told.lock:
            trial = told.trials.get(asked.whole("trial", -1))
            if trial is None:
                raise Refused("There is no such trial, or it is long past.", 404)
            return JSONResponse(evidence.picture(trial), headers=HEADERS)

    # -- data and feedback

    def show_data(self, asked: Asked) -> Response:
        """What is kept."""
        told, about = self.told(), self._state.deployment
        segments = self.ledger.segments()
        with told.lock:
            page = data.page(
                told,
                segments,
                about.retention,
                source=_place(about.stream),
                delay=about.stream.label_rule,
                times=self._times,
            )
        return self._page(asked, "data.html", page=page, turns=told.turn + 1, key=about.stream.key)

    def _flows(self, told: Chronicle) -> feedback.Page:
        came, newest = {}, []
        for which, url in self._logs().items():
            found = ingest.newest(url, feedback.NEWEST if which == "feedback" else 0)
            if found is not None:
                came[which] = found[0]
                if which == "feedback":
                    newest = found[1].to_pylist()[::-1]
        return feedback.page(told, came, newest, delay=told.label_delay(), fresh=told.label_to_live())

    def _logs(self) -> dict[str, str]:
        """The URLs of the logs that the server writes to."""
        if self._inbox is None:
            return {}
        return {which: self._inbox.url(which) for which in _LOGS}

    def show_feedback(self, asked: Asked) -> Response:
        """What came back."""
        told = self.told()
        page = self._flows(told)
        address = str(asked.request.base_url).rstrip("/")
        return self._page(asked, "feedback.html", live="yes", page=page, seen=digest(page), address=address)

    def show_flows(self, asked: Asked) -> Response:
        """The numbers of it."""
        page = self._flows(self.told())
        address = str(asked.request.base_url).rstrip("/")
        return self._part(asked, "flows.html", page, page=page, address=address)

    # -- backtests

    def _reports(self) -> dict[str, Path]:
        found = [] if self._folder is None else backtests.found(self._folder)
        return {place.name: place for place in found}

    def show_backtests(self, asked: Asked) -> Response:
        """The reports."""
        reports = [backtests.read(place, name) for name, place in self._reports().items()]
        return self._page(asked, "backtests.html", reports=[report for report in reports if report is not None])

    def _report(self, asked: Asked) -> Path:
        place = self._reports().get(asked.request.path_params["name"])  # a name that was found, never a path
        if place is None or not (place / backtests.PAGE).is_file():
            raise Refused("There is no such report beside the configuration.", 404)
        return place

    def show_report(self, asked: Asked) -> Response:
        """A report in a frame."""
        return self._page(asked, "report.html", name=self._report(asked).name)

    def report_file(self, asked: Asked) -> Response:
        """The report itself."""
        headers = {**HEADERS, "content-security-policy": REPORT_POLICY, "x-frame-options": "SAMEORIGIN"}
        return FileResponse(self._report(asked) / backtests.PAGE, media_type="text/html", headers=headers)

    # -- actions

    def _ask(self, asked: Asked, **about: Any) -> Response:
        whole = {"version": None, "shares": None, "back": "/ui/", **about}
        if asked.partial:
            csrf = self._state.access.csrf_token(asked.request)
            return HTMLResponse(rendered("ask.html", self._times, csrf=csrf, **whole), headers=HEADERS)
        return self._page(asked, "ask_page.html", **whole)

    def ask_promote(self, asked: Asked) -> Response:
        """Shall a version be promoted?"""
        number = asked.query("version")
        saved = self.ledger.version(number)
        champion = self.ledger.alias("champion").version
        instead = (
            f"It takes the place of {champion}, whatever the gate says of it."
            if champion
            else "There is no champion yet."
        )
        return self._ask(
            asked,
            action="/ui/promote",
            version=number,
            question=f"Promote {number}?",
            lines=[instead, f"It was trained on {self._times.short(saved.version.at)}: {saved.version.reason}."],
            confirm=f"Promote {number}",
            back=f"/ui/versions/{number}",
        )

    def ask_rollback(self, asked: Asked) -> Response:
        """Shall the version before be champion again?"""
        pointers = self.pointers()
        before, now = pointers["previous"].version, pointers["champion"].version
        if before is None or before == now:
            return self._problem(asked, 409, "Nothing to go back to", "There was no champion before this one.")
        return self._ask(
            asked,
            action="/ui/rollback",
            version=before,
            question=f"Roll back to {before}?",
            lines=[f"{now} is champion now. Rolling back once more brings it again."],
            confirm=f"Roll back to {before}",
        )

    def ask_shares(self, asked: Asked) -> Response:
        """How much of the traffic shall the challenger get?"""
        challenger = self.pointers()["challenger"]
        if challenger.version is None:
            return self._problem(asked, 409, "No challenger", "Nothing is on trial, so nothing can have a share.")
        return self._ask(
            asked,
            action="/ui/shares",
            question=f"Shares of traffic for {challenger.version}",
            lines=["What comes back about its answers counts in the gate's evidence."],
            shares={"canary": f"{100 * challenger.canary:g}", "shadow": f"{100 * challenger.shadow:g}"},
            confirm="Set shares",
        )

    def promote(self, asked: Asked, form: Mapping[str, str]) -> Response:
        """Make a version champion."""
        ledger, number = self.ledger, form.get("version", "")
        return self._done(
            asked,
            lambda: operate.promote(
                ledger, self._state.deployment, number, actor=asked.actor, reason=form.get("reason", "")
            ),
            f"{number} is champion.",
        )

    def rollback(self, asked: Asked, form: Mapping[str, str]) -> Response:
        """Make the version before champion again, if it is still the one that was asked about."""
        ledger = self.ledger
        before = ledger.alias("previous").version
        if form.get("version") not in ("", None, before):
            text = (
                f"It would be {before} now, and no longer {form['version']}: somebody moved the champion. Look again."
            )
            return self._problem(asked, 409, "Not rolled back", text)
        return self._done(
            asked,
            lambda: operate.rollback(ledger, self._state.deployment, actor=asked.actor, reason=form.get("reason", "")),
            f"Rolled back: {before} is champion.",
        )

    def set_shares(self, asked: Asked, form: Mapping[str, str]) -> Response:
        """Set the challenger's shares of traffic."""
        try:
            canary, shadow = (float(form.get(name, "")) / 100 for name in ("canary", "shadow"))
        except ValueError:
            return self._problem(asked, 422, "No such share", "Write shares in percent, from 0 to 100.")
        return self._done(
            asked,
            lambda: operate.share(
                self.ledger,
                self._state.deployment,
                canary=canary,
                shadow=shadow,
                actor=asked.actor,
                reason=form.get("reason", ""),
            ),
            "Shares of traffic are set.",
        )

    def _done(self, asked: Asked, act: Callable[[], Any], text: str) -> Response:
        """Do it, and go to the first page, which says so; or say why it was not done."""
        try:
            act()
        except (ConfigError, UnknownVersion, AliasMoved) as error:
            found = failures.answer(error)
            return self._problem(asked, found.status, "Not done", found.message)
        except LedgerError as error:  # no champion to go back to, or a model that does not load: for operators' eyes
            return self._problem(asked, 409, "Not done", str(error))
        return RedirectResponse(f"/ui/?{urlencode({'done': text})}", status_code=303)


def _place(stream: Any) -> str:
    """Where rows come from, in words; of a URL no more than the name of what is in it."""
    source = stream.source
    if not isinstance(source, str | Path):
        return "memory"
    text = str(source)
    return "this server" if getattr(stream, "served", False) else text.rpartition("/")[2] or text
