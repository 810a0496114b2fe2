"""Who may do what: tokens for programs, sessions for people, and what keeps other sites out.

A program sends ``Authorization: Bearer TOKEN``. A person gives a token once, to ``POST /ui/login``, and gets a cookie
that stands for it, for some hours. Without a file of tokens the server listens on this machine alone, and everybody
who is on it may do everything; browsers are then the way in for others, so that requests of other sites are refused.

A cookie is sent along by a browser whoever asks it to. Requests that change something are therefore held to where they
come from, and with a cookie to a second secret that only our own pages know.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as mac
from pathlib import Path
from typing import Any, NoReturn, Self, final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from perennial.core.errors import ConfigError, PerennialError
from perennial.server import tokens
from perennial.server.failures import Refused
from perennial.server.tokens import SCOPES, Scope, Token

log = logging.getLogger("perennial.access")

COOKIE = "perennial_session"
CSRF_HEADER = b"x-csrf-token"
CSRF_FIELD = "csrf"
LOGIN, LOGOUT = "/ui/login", "/ui/logout"

SESSION_SECONDS = 8 * 3600  #: a working day
LOOK_SECONDS = 1.0  #: how often a worker looks whether the file of tokens changed
REMEMBERED = 1024  #: verified tokens that a worker remembers
TOKEN_BYTES = 256  #: no token is longer: what is, is not even hashed
FAILURES, FAILURES_SECONDS = 20, 60.0  #: wrong tokens that an address may send, and in which time
ADDRESSES = 4096  #: addresses whose failures are counted
FORM_BYTES = 16 * 1024  #: the largest form of a page

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NEXT_STEP = "make one with  perennial token NAME --scope predict  and name its file: serve: {tokens: tokens.yaml}"

Seconds = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks, and what they may do. ``by``: how that is known."""

    name: str
    scopes: frozenset[str]
    by: str = "token"


ANYBODY = Identity(name="anonymous", scopes=frozenset(SCOPES), by="loopback")


def check_listening(host: str, tokens: Path | None) -> None:
    """Refuse to listen where others can connect without tokens.

    Raises
    ------
    ConfigError
        If ``host`` is no loopback address and there is no file of tokens.
    """
    if tokens is None and not is_loopback(host):
        raise ConfigError("host", host, f"others can reach this address, so that tokens are needed: {_NEXT_STEP}")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address stands for this machine alone.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.com", "")]
    [True, True, True, False, False, False]
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@final
class Access:
    """Tells who sent a request, and refuses what they may not do.

    Parameters
    ----------
    file : Path, optional
        The file of tokens; anybody may do everything unless given.
    secret : bytes
        What sessions are signed with.
    clock : callable
        Seconds since 1970, by which tokens and sessions expire.
    steady : callable
        Seconds that never go back, by which the file is looked at.
    """

    def __init__(
        self, file: Path | None, *, secret: bytes, clock: Seconds = time.time, steady: Seconds = time.monotonic
    ) -> None:
        self._file, self._secret, self._clock, self._steady = file, secret, clock, steady
        self._by_hash: dict[str, Token] = {}
        self._verified: dict[bytes, tuple[Identity, float]] = {}
        self._failures = _Failures(steady)
        self._next_look = 0.0
        self._stamp: tuple[int, ...] | None = None
        if file is not None:
            self._stamp = _stamp(file)
            self._take(tokens.read(file))
            self._next_look = steady() + LOOK_SECONDS

    @classmethod
    def of(cls, *, host: str, tokens: Path | None, folder: Path) -> Self:
        """The access of a server that listens at ``host``; workers share what they sign with in ``folder``.

        Raises
        ------
        ConfigError
            If it would be open to others, or the file of tokens cannot be read.
        """
        check_listening(host, tokens)
        return cls(tokens, secret=_shared_secret(folder / "sessions.key"))

    @property
    def open(self) -> bool:
        """Whether no token is asked for, since only this machine can connect."""
        return self._file is None

    # -- who asks -----------------------------------------------------------------------------------------------------

    def permit(self, scope: Mapping[str, Any], need: Scope) -> Identity:
        """Who sent a request, if they may do what they ask for.

        A cookie counts for requests that change nothing. One that does needs the second secret besides, in the header
        ``X-CSRF-Token``; :func:`require` also takes it from a form.

        Parameters
        ----------
        scope : mapping
            The request as ASGI tells it.
        need : {"predict", "feedback", "operate", "read"}
            What it asks for.

        Raises
        ------
        Refused
            401 without a valid token or session, 403 if it does not allow this or another site asks, 429 after many
            wrong tokens.
        """
        identity = self.identify(scope)
        if identity.by == "session":
            self._held_to_session(scope, _header(scope, CSRF_HEADER))
        return _allowed(identity, need)

    async def permit_page(self, request: Request, need: Scope) -> Identity:
        """As :meth:`permit`, for routes of pages: the second secret may also be a field of the form."""
        identity = self.identify(request.scope)
        if identity.by == "session" and request.method not in _SAFE:
            self._held_to_session(request.scope, await _second(request))
        return _allowed(identity, need)

    def name(self, scope: Mapping[str, Any]) -> str | None:
        """Whose token a request has, if it is valid: what its share of the server is counted by."""
        sent = _header(scope, b"authorization")
        found = self._verified.get(sent) if sent else None
        if found is None and sent and self._file is not None:
            identity = self._verify(sent)
            return identity.name if identity is not None else None
        return found[0].name if found is not None else None

    def identify(self, scope: Mapping[str, Any]) -> Identity:
        """Who sent a request, whatever they may do; refused if nobody knows."""
        if self._file is None:
            _from_here(scope)
            return ANYBODY
        sent = cookies = None
        for name, value in scope["headers"]:  # the hot path: no mapping is made of the headers
            if name == b"authorization":
                if sent is not None:
                    raise Refused("send one Authorization header", 400)
                sent = value
            elif name == b"cookie":
                cookies = value
        if sent is not None:
            if self._steady() >= self._next_look:
                self._look()
            found = self._verified.get(sent)
            if found is not None and self._clock() < found[1]:
                return found[0]
            identity = self._verify(sent)
            if identity is None:
                self._failed(scope, "this token is unknown, expired or revoked: ask the operator for a new one")
            return identity
        if cookies is not None and (identity := self._of_session(cookies)) is not None:
            return identity
        if b"token=" in scope["query_string"]:
            raise _unauthorized(False, "a token in a URL ends up in logs: revoke it, and send the next one as a header")
        raise _unauthorized(_asks_for_page(scope), "send a token:  Authorization: Bearer ...")

    def _verify(self, sent: bytes) -> Identity | None:
        """The owner of a token that is not remembered, or None."""
        self._look()
        kind, _, text = sent.partition(b" ")
        token = self._find(text.strip()) if kind.lower() == b"bearer" else None
        if token is None:
            return None
        identity = Identity(name=token.name, scopes=frozenset(token.scopes))
        if len(self._verified) >= REMEMBERED:
            self._verified.clear()  # they are told again in microseconds
        self._verified[sent] = identity, token.expires.timestamp() if token.expires else float("inf")
        return identity

    def _find(self, text: bytes) -> Token | None:
        if not 0 < len(text) <= TOKEN_BYTES:
            return None
        hashed = sha256(text).hexdigest()
        token = self._by_hash.get(hashed[:16])
        if token is None or not compare_digest(token.hash, hashed) or not token.valid(self._now()):
            return None
        return token

    def _failed(self, scope: Mapping[str, Any], message: str) -> NoReturn:
        """Refuse a wrong token; many from one address are no longer told apart."""
        client = scope.get("client")
        address = str(client[0]) if client else ""
        wait = self._failures.count(address)
        if wait > 0:
            need = f"wrong tokens came from this address, more than {FAILURES} in {FAILURES_SECONDS:.0f} seconds: wait"
            raise Refused(need, 429, {"retry-after": str(int(wait) + 1)})
        raise _unauthorized(False, message)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    # -- the file -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the file again if it changed. What cannot be read changes nothing; a file that is gone allows nobody."""
        now = self._steady()
        if self._file is None or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(tokens.read(self._file) if stamp is not None else ())
        except PerennialError as error:
            log.error("tokens", extra={"file": str(self._file), "error": str(error)})
            return
        log.info("tokens", extra={"file": str(self._file), "count": len(self._by_hash)})

    def _take(self, held: Iterable[Token]) -> None:
        self._by_hash = {token.hash[:16]: token for token in held}
        self._verified.clear()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def log_in(self, scope: Mapping[str, Any], text: str) -> str:
        """The cookie of a new session for a token; refused as in :meth:`identify`."""
        self._look()
        token = self._find(text.strip().encode())
        if token is None:
            self._failed(scope, "this token is unknown, expired or revoked")
        told = {"t": token.hash[:16], "n": secrets.token_urlsafe(16), "e": int(self._clock()) + SESSION_SECONDS}
        body = urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=")
        return f"{body.decode()}.{self._signed(b'session', body)}"

    def _of_session(self, cookies: bytes) -> Identity | None:
        """Who has a session: it counts as long as the token that began it."""
        told = self._opened(cookies)
        if told is None:
            return None
        self._look()
        token = self._by_hash.get(told["t"])
        if token is None or not token.valid(self._now()):
            return None
        return Identity(name=token.name, scopes=frozenset(token.scopes), by="session")

    def _opened(self, cookies: bytes) -> dict[str, Any] | None:
        """What a session's cookie says, if we signed it and it has not run out."""
        body, _, signature = _cookie(cookies, COOKIE).partition(".")
        wanted = self._signed(b"session", body.encode())
        if not signature or not compare_digest(signature.encode(), wanted.encode()):  # text may hold ASCII alone
            return None
        told: dict[str, Any] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return told if self._clock() < told["e"] else None

    def _signed(self, what: bytes, body: bytes) -> str:
        return mac(self._secret, what + b"\0" + body, "sha256").hex()

    def csrf_token(self, request: Request) -> str:
        """The second secret of a request's session, for our own pages; empty without a session."""
        told = None if self.open else self._opened(_header(request.scope, b"cookie") or b"")
        return self._signed(b"csrf", told["n"].encode()) if told is not None else ""

    def _held_to_session(self, scope: Mapping[str, Any], second: bytes | None) -> None:
        """Refuse a request that changes something by a cookie, unless our own page sent it."""
        if scope["method"] in _SAFE:
            return
        check_origin(scope)
        told = self._opened(_header(scope, b"cookie") or b"")
        wanted = self._signed(b"csrf", told["n"].encode()) if told is not None else secrets.token_hex(32)
        if second is None or not compare_digest(second, wanted.encode()):
            raise Refused("this form is of another session, or no form of ours: load the page again", 403)

    async def check_csrf(self, request: Request) -> None:
        """Refuse what a page of another site, or of another session, sent.

        Looks at where the request comes from, and with a session at the second secret, in the header or the form. It
        has no say where a token was sent: no browser does that by itself.
        """
        if request.method in _SAFE or _header(request.scope, b"authorization") is not None:
            return
        check_origin(request.scope)
        if not self.open:
            self._held_to_session(request.scope, await _second(request))


def require(need: Scope) -> Callable[[Request], Awaitable[Identity]]:
    """What a route asks first: ``Depends(require("operate"))``, or ``await require("read")(request)``."""

    async def required(request: Request) -> Identity:
        access: Access = request.app.state.access
        return await access.permit_page(request, need)

    return required


def _allowed(identity: Identity, need: Scope) -> Identity:
    if need not in identity.scopes:
        has = ", ".join(sorted(identity.scopes))
        raise Refused(f"this needs the scope {need!r}, and the token of {identity.name!r} has: {has}", 403)
    return identity


def _unauthorized(page: bool, message: str) -> Refused:
    if page:  # a person: the answer leads them to where they can give a token
        return Refused(message, 303, {"location": LOGIN})
    return Refused(message, 401, {"www-authenticate": 'Bearer realm="perennial"'})


# -- where a request comes from ---------------------------------------------------------------------------------------


def check_origin(scope: Mapping[str, Any]) -> None:
    """Refuse a request that changes something, if a page of another site has the browser send it."""
    if scope["method"] in _SAFE:
        return
    host = origin = site = None
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"sec-fetch-site":
            site = value
    foreign = site is not None and site not in (b"same-origin", b"none")
    if origin is not None and origin.partition(b"://")[2] != host:
        foreign = True  # `null` too: a sandbox, or a redirect from elsewhere
    if foreign:
        raise Refused("a page of another site sent this: use the pages of this server, or a program", 403)


def _from_here(scope: Mapping[str, Any]) -> None:
    """Refuse what reaches this machine under a name that is not its own: a site whose name was pointed here."""
    if not _is_own(_header(scope, b"host") or b""):
        need = "without tokens this server answers as localhost alone: use http://127.0.0.1, or  perennial token"
        raise Refused(need, 403)
    check_origin(scope)


@lru_cache(maxsize=256)  # on the way of every prediction, and clients spell it in few ways
def _is_own(host: bytes) -> bool:
    name = host.decode("latin-1")
    name = name[1:].rpartition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return is_loopback(name.lower())


def _header(scope: Mapping[str, Any], wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def _cookie(cookies: bytes, wanted: str) -> str:
    for part in cookies.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted:
            return value
    return ""


def _asks_for_page(scope: Mapping[str, Any]) -> bool:
    """Whether a person's browser asks for a whole page."""
    return scope["method"] == "GET" and b"text/html" in (_header(scope, b"accept") or b"")


async def _second(request: Request) -> bytes | None:
    """The second secret: of the header, which scripts set, or the form's field."""
    sent = _header(request.scope, CSRF_HEADER)
    if sent is not None:
        return sent
    field = (await _form(request)).get(CSRF_FIELD)
    return field.encode() if isinstance(field, str) else None


async def _form(request: Request) -> Mapping[str, Any]:
    kind = (_header(request.scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        return {}  # no page of ours sends another
    length = _header(request.scope, b"content-length") or b""
    if not length.isdigit() or int(length) > FORM_BYTES:
        raise Refused(f"a form has at most {FORM_BYTES:,} bytes, and says how many", 413)
    return await request.form(max_fields=50)


# -- logging in -------------------------------------------------------------------------------------------------------


def routes() -> list[BaseRoute]:
    """``POST /ui/login`` and ``POST /ui/logout``; their page is the dashboard's."""
    return [Route(LOGIN, _log_in, methods=["POST"]), Route(LOGOUT, _log_out, methods=["POST"])]


async def _log_in(request: Request) -> Response:
    access: Access = request.app.state.access
    check_origin(request.scope)
    form = await _form(request)
    follow = local(str(form.get("next", "")))
    if access.open:
        return RedirectResponse(follow, 303)
    try:
        cookie = access.log_in(request.scope, str(form.get("token", "")))
    except Refused as refused:
        if b"text/html" not in (_header(request.scope, b"accept") or b""):
            raise
        why = "wait" if refused.status == 429 else "token"
        return RedirectResponse(f"{LOGIN}?wrong={why}&next={quote(follow, safe='/')}", 303)
    response = RedirectResponse(follow, 303)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=_by_https(request.scope),
    )
    return response


def _by_https(scope: Mapping[str, Any]) -> bool:
    """Whether a person's browser is connected by https, to us or to a proxy before us."""
    return scope["scheme"] == "https" or (_header(scope, b"origin") or b"").startswith(b"https://")


async def _log_out(request: Request) -> Response:
    access: Access = request.app.state.access
    await access.check_csrf(request)
    response = RedirectResponse(LOGIN, 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def local(path: str) -> str:
    """A path of our own pages to go to after logging in; the first page for anything else.

    Examples
    --------
    >>> local("/ui/versions"), local("//evil.example"), local("https://evil.example"), local("/ui\\\\evil")
    ('/ui/versions', '/ui/', '/ui/', '/ui/')
    """
    fine = path.startswith("/ui/") and "//" not in path and "\\" not in path and path.isprintable()
    return path if fine else "/ui/"


# -- small parts ------------------------------------------------------------------------------------------------------


@final
class _Failures:
    """Wrong tokens by address: a table of bounded size, the longest quiet go first."""

    def __init__(self, steady: Seconds) -> None:
        self._steady = steady
        self._table: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str) -> float:
        """Count one more; seconds to wait if they are too many, else 0."""
        now = self._steady()
        since, number = self._table.pop(address, (now, 0))
        if now - since >= FAILURES_SECONDS:
            since, number = now, 0
        self._table[address] = since, number + 1
        if len(self._table) > ADDRESSES:
            self._table.popitem(last=False)
        return since + FAILURES_SECONDS - now if number >= FAILURES else 0.0


def _stamp(file: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None if it is gone."""
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _shared_secret(file: Path) -> bytes:
    """What all workers of a deployment sign with: made by the first, readable by its owner alone."""
    try:
        held = file.read_bytes()
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tokens.changing(file):  # two that start together agree
            if not file.exists():
                tokens.place_private(file, secrets.token_bytes(32))
        held = file.read_bytes()
    if len(held) < 32:
        raise ConfigError("sessions.key", str(file), "is no key of ours: remove it, and start again")
    return held
