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
    with Seen(tmp_path / "seen") as again:
        assert again.claim("a", b"1") == "same"


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
        told.put([seen.claim(f"r{i}", b"x") for i in range(start, start + 300)])


def test_of_two_processes_that_claim_at_once_one_is_told_new(tmp_path: Path) -> None:
    """So that a prediction is logged once, whoever answers the second request."""
    spawn = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[list[str]] = spawn.Queue()
    workers = [spawn.Process(target=_claim, args=(tmp_path / "seen", 0, told)) for _ in range(2)]
    for worker in workers:
        worker.start()
    one, other = told.get(timeout=120), told.get(timeout=120)
    for worker in workers:
        worker.join()
    assert sorted(zip(one, other, strict=True)) == sorted(
        [("new", "same") if first == "new" else ("same", "new") for first in one]
    )


def test_a_request_that_came_to_nothing_may_come_again(tmp_path: Path) -> None:
    """What was claimed and then refused is new once more, with the same content or another, and is known from then."""
    with Seen(tmp_path / "seen") as seen:
        assert seen.claim("a", b"1") == "new"
        seen.release("a")
        assert seen.claim("a", b"2") == "new"
        assert (seen.claim("a", b"2"), seen.claim("a", b"1")) == ("same", "other")
        seen.release("never claimed")
        assert seen.claim("never claimed", b"3") == "new"
