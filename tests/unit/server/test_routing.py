"""Who is asked: sticky, even, and monotone in the share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perennial.server.routing import NOBODY, Choice, Shares, choose, share_of

KEYS = st.one_of(st.text(), st.integers(), st.none())
SHARES = st.floats(0, 1)


@given(KEYS, st.text(), st.text(), SHARES, SHARES, st.text())
def test_a_share_that_grows_keeps_those_that_it_had(key, request, trial, one, other, another) -> None:
    """Who is in a share is in every larger one, whatever the request is called where there is a key."""
    small, large = sorted((one, other))
    few = choose(Shares(canary=small, shadow=small), key, request, trial)
    many = choose(Shares(canary=large, shadow=large), key, request if key is None else another, trial)
    assert many.challenger >= few.challenger
    assert many.beside >= few.beside


@given(KEYS, st.text(), st.text())
def test_the_ends_are_all_and_none(key, request, trial) -> None:
    """A share of 1 is everybody, one of 0 nobody."""
    assert choose(Shares(canary=1.0, shadow=1.0), key, request, trial) == Choice(True, True)
    assert choose(Shares(), key, request, trial) == NOBODY
    assert choose(Shares(shadow=1.0), key, request, trial) == Choice(False, True)


@given(KEYS, st.text())
def test_a_place_is_in_the_half_open_interval(key, salt) -> None:
    """0 may be a place and 1 may not: a share of 1 is then everybody."""
    assert 0.0 <= share_of(key, salt) < 1.0


def test_places_are_even_and_their_draws_are_apart() -> None:
    """Of many keys a share gets its part, and canary, shadow and trials are drawn apart from each other."""
    shares, n = Shares(canary=0.2, shadow=0.5), 20_000
    one = [choose(shares, key, "", "churn 3") for key in range(n)]
    other = [choose(shares, key, "", "churn 4") for key in range(n)]
    assert abs(sum(c.challenger for c in one) / n - 0.2) < 0.02
    assert abs(sum(c.beside for c in one) / n - 0.5) < 0.02
    assert abs(sum(c.challenger and c.beside for c in one) / n - 0.1) < 0.02
    assert abs(sum(a.challenger and b.challenger for a, b in zip(one, other, strict=True)) / n - 0.04) < 0.01


def test_a_request_named_like_a_key_is_drawn_apart() -> None:
    """The id of a request stands in for a key, and is none."""
    chosen = [
        (choose(Shares(canary=0.5), f"{i}", "", "t"), choose(Shares(canary=0.5), None, f"{i}", "t")) for i in range(64)
    ]
    assert any(key != request for key, request in chosen)


def test_the_draw_stays_what_it_is() -> None:
    """Workers of two releases agree during a rolling restart: the draw is pinned."""
    assert share_of("ada", "churn") == share_of("ada", "churn")
    assert round(share_of("ada", "churn"), 6) == 0.665755
    assert share_of(7, "churn") == share_of("7", "churn")
