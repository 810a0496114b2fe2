"""Who may do what."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from perennial.core.errors import ConfigError, FormatError
from perennial.server import access as accesses
from perennial.server import tokens
from perennial.server.access import ANYBODY, Access, check_listening
from perennial.server.failures import Refused

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def asking(method="GET", path="/v2/health/live", query=b"", client=("10.0.0.1", 5), scheme="http", **headers):
    """A request as ASGI tells it; headers by name, `_` for `-`."""
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if not any(name == b"host" for name, _ in told):
        told.append((b"host", b"127.0.0.1:8080"))
    return {
        "type": "http", "method": method, "path": path, "headers": told, "client": client, "scheme": scheme,
        "query_string": query,
    }  # fmt: skip


def bearer(token):
    """The header that has a token."""
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def wall():
    """The clock by which tokens expire."""
    return Clock(NOW.timestamp())


@pytest.fixture
def steady():
    """The clock by which the file is looked at."""
    return Clock(1000.0)


@pytest.fixture
def file(tmp_path):
    """Where tokens are."""
    return tmp_path / "tokens.yaml"


@pytest.fixture
def made(file):
    """Tokens by name."""
    scopes = {"shop": ["predict", "feedback"], "ops": ["operate", "read"], "brief": ["predict"]}
    out = {}
    for name, own in scopes.items():
        until = NOW + timedelta(hours=1) if name == "brief" else None
        out[name], _ = tokens.add(file, name, own, now=NOW, expires=until)
    return out


@pytest.fixture
def guard(file, made, wall, steady):
    """Access by that file."""
    return Access(file, secret=b"s" * 32, clock=wall, steady=steady)


def refused(guard, scope, need="predict"):
    """How a request is refused."""
    with pytest.raises(Refused) as caught:
        guard.permit(scope, need)
    return caught.value


# -- the file ---------------------------------------------------------------------------------------------------------


def test_only_a_hash_of_a_token_is_kept_in_a_file_of_the_owners(file, made):
    """The file holds no token and nobody else may read it."""
    text = file.read_text()
    assert not any(token in text for token in made.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in tokens.read(file)] == ["shop", "ops", "brief"]
    assert all(len(token) >= 32 for token in made.values())
    assert len(set(made.values())) == 3


def test_a_name_is_given_once_and_again_when_its_token_is_over(file, made):
    """A valid token is not replaced unawares; one that expired is."""
    with pytest.raises(ConfigError, match="there is one of this name"):
        tokens.add(file, "shop", ["read"], now=NOW)
    tokens.add(file, "brief", ["read"], now=NOW + timedelta(hours=2))
    assert [(one.name, one.scopes) for one in tokens.read(file)][-1] == ("brief", ("read",))


def test_revoking_takes_one_away_and_suggests_the_nearest(file, made):
    """A typo revokes nothing."""
    with pytest.raises(ConfigError, match="did you mean `shop`"):
        tokens.revoke(file, "shpo")
    tokens.revoke(file, "shop")
    assert [one.name for one in tokens.read(file)] == ["ops", "brief"]


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("tokens: [", ConfigError, "is no YAML"),
        ("just words", ConfigError, "no list of `tokens`"),
        ("format: 1\ntokens: [{name: a, scopes: [predict], created: 2026-01-01T00:00:00Z, sha256: me}]", ConfigError,
         "token 1: sha256"),
        ("format: 1\ntokens: [{name: a, scopes: [predcit], created: 2026-01-01T00:00:00Z}]", ConfigError,
         "did you mean `predict`"),
        ("format: 1\ntokens: [{name: a, scopes: 3}]", ConfigError, "token 1"),
        ("format: 1\ntokens: [7]", ConfigError, "token 1"),
        ("format: 2\ntokens: []", FormatError, "format 2; this release reads 1"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_tokens_is_refused_by_its_place(file, text, error, match):
    """What is wrong is named, and no hash is quoted."""
    file.write_text(text)
    with pytest.raises(error, match=match) as caught:
        tokens.read(file)
    assert "me}" not in str(caught.value)


def test_a_missing_file_says_what_to_run(file):
    """The error of a file that is not there has the command."""
    with pytest.raises(ConfigError, match="perennial token NAME"):
        Access(file, secret=b"s" * 32)


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_allows_what_its_scopes_say(guard, made):
    """Each scope is its own; a missing one is named."""
    assert guard.permit(asking(**bearer(made["shop"])), "predict").name == "shop"
    assert guard.permit(asking(**bearer(made["ops"])), "operate").name == "ops"
    answer = refused(guard, asking(**bearer(made["shop"])), "operate")
    assert answer.status == 403
    assert "'operate'" in str(answer)


def test_without_a_token_the_answer_says_how(guard):
    """401 names the scheme, in words and in the header; a URL is no place for a token."""
    answer = refused(guard, asking())
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="perennial"')
    answer = refused(guard, asking(query=b"token=pn_abc"))
    assert answer.status == 401
    assert "URL" in str(answer)
    assert refused(guard, asking(authorization="Basic c2hvcDp4")).status == 401


def test_a_person_without_a_session_is_led_to_the_page_that_asks(guard):
    """A browser that wants a page is sent to log in; a program is not."""
    answer = refused(guard, asking(path="/ui/", accept="text/html,*/*"), "read")
    assert (answer.status, answer.headers["location"]) == (303, "/ui/login")


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "A", lambda t: t.swapcase(), lambda t: "x" * 5000])
def test_a_forged_token_is_refused(guard, made, change):
    """A token that differs in anything is none."""
    assert refused(guard, asking(**bearer(change(made["shop"])))).status == 401


def test_a_token_is_refused_once_it_expired_also_if_it_was_remembered(guard, made, wall):
    """What a worker remembers of a token ends with it."""
    assert guard.permit(asking(**bearer(made["brief"])), "predict").name == "brief"
    wall.at += 3599
    guard.permit(asking(**bearer(made["brief"])), "predict")
    wall.at += 1
    assert refused(guard, asking(**bearer(made["brief"]))).status == 401


def test_a_revoked_token_is_refused_within_seconds(guard, made, file, steady):
    """A worker looks at the file once a second, and forgets what it had verified."""
    ask = asking(**bearer(made["shop"]))
    guard.permit(ask, "predict")
    tokens.revoke(file, "shop")
    steady.at += accesses.LOOK_SECONDS
    assert refused(guard, ask).status == 401
    assert guard.permit(asking(**bearer(made["ops"])), "read").name == "ops"


def test_a_new_token_is_taken_within_seconds(guard, file, steady):
    """No restart is needed."""
    text, _ = tokens.add(file, "late", ["read"], now=NOW)
    assert refused(guard, asking(**bearer(text)), "read").status == 401
    steady.at += accesses.LOOK_SECONDS
    assert guard.permit(asking(**bearer(text)), "read").name == "late"


def test_a_file_that_is_gone_allows_nobody_and_a_broken_one_changes_nothing(guard, made, file, steady, caplog):
    """Taking the file away shuts the door; a slip of an editor does not, and is logged."""
    ask = asking(**bearer(made["shop"]))
    held = file.read_text()
    file.write_text("tokens: [")
    steady.at += accesses.LOOK_SECONDS
    assert guard.permit(ask, "predict").name == "shop"
    assert [record.message for record in caplog.records] == ["tokens"]
    file.unlink()
    steady.at += accesses.LOOK_SECONDS
    assert refused(guard, ask).status == 401
    file.write_text(held)
    steady.at += accesses.LOOK_SECONDS
    assert guard.permit(ask, "predict").name == "shop"


def test_wrong_tokens_of_an_address_are_throttled_and_right_ones_are_not(guard, made, steady):
    """After many wrong ones an address is told to wait; whoever has a token there goes on, and so do others."""
    for _ in range(accesses.FAILURES):
        assert refused(guard, asking(**bearer("pn_wrong"))).status == 401
    answer = refused(guard, asking(**bearer("pn_wrong")))
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= accesses.FAILURES_SECONDS + 1
    assert guard.permit(asking(**bearer(made["shop"])), "predict").name == "shop"
    assert refused(guard, asking(client=("10.0.0.2", 9), **bearer("pn_wrong"))).status == 401
    steady.at += accesses.FAILURES_SECONDS
    assert refused(guard, asking(**bearer("pn_wrong"))).status == 401


def test_what_is_remembered_is_bounded(guard, made, monkeypatch):
    """Neither spellings of a token nor addresses fill the memory."""
    monkeypatch.setattr(accesses, "REMEMBERED", 8)
    monkeypatch.setattr(accesses, "ADDRESSES", 8)
    for i in range(50):
        guard.permit(asking(authorization=f"bearer{' ' * (i + 1)}{made['shop']}"), "predict")
        refused(guard, asking(client=(f"10.0.1.{i}", 1), **bearer("pn_wrong")))
    assert len(guard._verified) <= 8
    assert len(guard._failures._table) <= 8


# -- where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "models.example", ""])
def test_a_server_that_others_can_reach_needs_tokens(host, file):
    """Listening beyond this machine without tokens is refused, with the next step."""
    with pytest.raises(ConfigError, match="perennial token NAME"):
        check_listening(host, None)
    check_listening(host, file)
    check_listening("127.0.0.1", None)


@pytest.fixture
def open_one():
    """Access on loopback without tokens."""
    return Access(None, secret=b"s" * 32)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080", "a.localhost:1"])
def test_on_this_machine_anybody_may_do_everything(open_one, host):
    """Without tokens, who is on the machine is the operator."""
    assert open_one.permit(asking(host=host), "operate") is ANYBODY


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1"])
def test_a_name_that_is_not_this_machines_is_refused(open_one, host):
    """A site whose name was pointed at this machine reads nothing."""
    assert refused(open_one, asking(host=host), "read").status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_other_sites_change_nothing_without_tokens(open_one, headers):
    """A page elsewhere that has a browser post to this machine is refused; our own pages and programs are not."""
    assert refused(open_one, asking("POST", **headers)).status == 403
    own = {"origin": "http://127.0.0.1:8080", "sec_fetch_site": "same-origin"}
    assert open_one.permit(asking("POST", **own), "operate") is ANYBODY
    assert open_one.permit(asking("POST"), "operate") is ANYBODY


# -- sessions ---------------------------------------------------------------------------------------------------------


class Asked:
    """What routes see of a request without a form."""

    def __init__(self, scope):
        self.scope, self.method = scope, scope["method"]


def session(guard, made, name="ops"):
    """The header of a session, and its second secret."""
    cookie = guard.log_in(asking("POST", accesses.LOGIN), made[name])
    header = {"cookie": f"theme=dark; {accesses.COOKIE}={cookie}"}
    return header, guard.csrf_token(Asked(asking(**header)))


def test_a_session_stands_for_its_token(guard, made):
    """It reads; to change something it needs the second secret, and our own page as the origin."""
    header, second = session(guard, made)
    assert guard.permit(asking(**header), "read").name == "ops"
    assert refused(guard, asking("POST", **header), "operate").status == 403
    assert refused(guard, asking("POST", x_csrf_token="0" * 64, **header), "operate").status == 403
    assert guard.permit(asking("POST", x_csrf_token=second, **header), "operate").by == "session"
    foreign = asking("POST", x_csrf_token=second, origin="https://evil.example", **header)
    assert refused(guard, foreign, "operate").status == 403


def test_the_second_secret_belongs_to_one_session(guard, made):
    """That of another session, of the same person even, does not do."""
    header, _ = session(guard, made)
    _, other = session(guard, made)
    assert refused(guard, asking("POST", x_csrf_token=other, **header), "operate").status == 403


def test_a_session_ends_with_its_time_or_its_token(guard, made, wall, file, steady):
    """Revoking a token ends the sessions that began with it."""
    header, _ = session(guard, made)
    wall.at += accesses.SESSION_SECONDS
    assert refused(guard, asking(**header), "read").status == 401
    header, _ = session(guard, made)
    tokens.revoke(file, "ops")
    steady.at += accesses.LOOK_SECONDS
    assert refused(guard, asking(**header), "read").status == 401


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-1], lambda c: "A" + c, lambda c: c.replace(".", ""), lambda c: ".", lambda c: f"{c}\u00ff"],
)
def test_a_forged_session_is_none(guard, made, change):
    """A cookie that we did not sign says nothing."""
    cookie = guard.log_in(asking("POST", accesses.LOGIN), made["ops"])
    assert refused(guard, asking(cookie=f"{accesses.COOKIE}={change(cookie)}"), "read").status == 401


def test_another_deployments_session_is_none(guard, made, file, wall, steady):
    """Who signs with another secret is another server."""
    cookie = guard.log_in(asking("POST", accesses.LOGIN), made["ops"])
    other = Access(file, secret=b"t" * 32, clock=wall, steady=steady)
    assert refused(other, asking(cookie=f"{accesses.COOKIE}={cookie}"), "read").status == 401


def test_a_wrong_token_begins_no_session(guard):
    """Logging in is throttled as all wrong tokens are."""
    for _ in range(accesses.FAILURES):
        with pytest.raises(Refused) as caught:
            guard.log_in(asking("POST", accesses.LOGIN), "pn_wrong")
        assert caught.value.status == 401
    with pytest.raises(Refused) as caught:
        guard.log_in(asking("POST", accesses.LOGIN), "pn_wrong")
    assert caught.value.status == 429


def test_workers_sign_with_one_secret_that_nobody_else_may_read(tmp_path):
    """The first worker makes it, the others find it."""
    file = tmp_path / "state" / "sessions.key"
    made = accesses._shared_secret(file)
    assert len(made) == 32
    assert accesses._shared_secret(file) == made
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
