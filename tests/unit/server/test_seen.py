"""A request id that was used for something else is found, by all workers and after a restart."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.server.seen import Seen


def test_the_three_outcomes(tmp_path: Path) -> None:
    """New, the same again, and something else under the same id; the first content stays the one that counts."""
    with Seen(tmp_path / "seen") as seen:
        assert seen.claim("a", b"1") == "new"
        assert seen.claim("a", b"1") == "same"
        assert seen.claim("a", b"2") == "other"
        assert seen.claim("a", b"1") == "same"
        assert seen.claim("b", b"1") == "new"


def test_another_worker_and_a_restart_know_it_too(tmp_path: Path) -> None:
    """The table is in the file, and not in the process."""
    with Seen(tmp_path / "seen") as one, Seen(tmp_path / "seen") as other:
        assert one.claim("a", b"1") == "new"
        assert other.claim("a", b"2") == "other"
        one.confirm(["a"])
        assert other.claim("a", b"1") == "same"
    with Seen(tmp_path / "seen") as again:
        assert again.claim("a", b"1") == "same"
        assert again.claim("a", b"2") == "other"


def test_what_was_never_confirmed_is_new_again(tmp_path: Path) -> None:
    """Its worker is gone, or gave it up: the same is logged after all, and something else stays refused."""
    with Seen(tmp_path / "seen") as killed:
        assert killed.claim("a", b"1") == "new"
    with Seen(tmp_path / "seen") as seen:
        assert (seen.claim("a", b"2"), seen.claim("a", b"1")) == ("other", "new")
        assert seen.claim("a", b"1") == "same"  # it waits in this process
        seen.unlogged(["a"])
        assert (seen.claim("a", b"2"), seen.claim("a", b"1")) == ("other", "new")
        seen.confirm(["a", "never claimed"])
        seen.unlogged(["a"])
        assert (seen.claim("a", b"2"), seen.claim("a", b"1")) == ("other", "same")
        assert not seen._waits


def test_what_was_released_cannot_be_confirmed(tmp_path: Path) -> None:
    """Nothing is known of it, and whoever comes next is new."""
    with Seen(tmp_path / "seen") as seen:
        seen.claim("a", b"1")
        seen.release("a")
        seen.confirm(["a"])
        assert seen.claim("a", b"2") == "new"
    seen.confirm(["a"])  # a writer that outlived its patience


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_the_latest_ids_are_known(kept: int, claims: list[int]) -> None:
    """At least ``kept`` of them, and never more than twice as many; what is known is told right."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Seen(Path(folder) / "seen", kept=kept) as seen:
        latest: dict[int, None] = {}  # ids in the order in which they were new last
        for claim in claims:
            told = seen.claim(f"r{claim}", b"x")
            recent = list(latest)
            if claim in recent[-kept:]:
                assert told == "same"
            if claim not in recent[-2 * kept :]:
                assert told == "new"
            if told == "new":
                latest.pop(claim, None)
                latest[claim] = None


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    """A table of another size has its entries at other places."""
    with Seen(tmp_path / "seen", kept=8) as seen:
        seen.claim("a", b"1")
    with Seen(tmp_path / "seen", kept=16) as seen:
        assert seen.claim("a", b"2") == "new"


def _claim(file: Path, start: int, told: multiprocessing.Queue[list[str]]) -> None:
    with Seen(file) as seen:
        told.put([_confirmed(seen, f"r{i}") for i in range(start, start + 300)])


def _confirmed(seen: Seen, request: str) -> str:
    outcome = seen.claim(request, b"x")
    seen.confirm([request])
    return outcome


def test_of_two_processes_that_claim_at_once_each_id_is_new_to_one_of_them(tmp_path: Path) -> None:
    """To both at most where neither had confirmed it: never to none, and neither takes the other's for its own."""
    spawn = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[list[str]] = spawn.Queue()
    workers = [spawn.Process(target=_claim, args=(tmp_path / "seen", 0, told)) for _ in range(2)]
    for worker in workers:
        worker.start()
    one, other = told.get(timeout=120), told.get(timeout=120)
    for worker in workers:
        worker.join()
    assert {*zip(one, other, strict=True)} <= {("new", "same"), ("same", "new"), ("new", "new")}
    with Seen(tmp_path / "seen") as seen:
        assert {seen.claim(f"r{i}", b"x") for i in range(300)} == {"same"}


def test_a_request_that_came_to_nothing_may_come_again(tmp_path: Path) -> None:
    """What was claimed and then refused is new once more, with the same content or another, and is known from then."""
    with Seen(tmp_path / "seen") as seen:
        assert seen.claim("a", b"1") == "new"
        seen.release("a")
        assert seen.claim("a", b"2") == "new"
        assert (seen.claim("a", b"2"), seen.claim("a", b"1")) == ("same", "other")
        seen.release("never claimed")
        assert seen.claim("never claimed", b"3") == "new"
