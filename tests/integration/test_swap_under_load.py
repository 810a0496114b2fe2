"""Promotions and rollbacks under a constant load: no request fails, and each is answered by the version it names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

swaps = pytest.importorskip("benchmarks.swaps", reason="the benchmarks are beside the package in its repository")
pytest.importorskip("uvicorn", reason="needs perennial[serve]")

MOVES, EVERY, RATE = 9, 0.4, 80


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four versions of a LightGBM model."""
    return swaps.deployed(
        tmp_path_factory.mktemp("deployed"), versions=4, rows=2_000, columns=swaps.COLUMNS,
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 30},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails_and_each_is_answered_by_the_version_it_names(made, tmp_path, workers):
    """Through nine moves of the champion, each answer is what its version says offline, and never an older one's."""
    with made.start(workers=workers) as server:
        told, moved = swaps.under(
            made, server, tmp_path, seconds=(MOVES + 1) * EVERY, moves=MOVES, every=EVERY, rate=RATE
        )
    assert len(moved) == MOVES + 1
    judged = swaps.judge(made, told, moved)
    assert judged.requests == round(RATE * (MOVES + 1) * EVERY)
    assert (judged.failed, judged.wrong, judged.premature) == (0, 0, 0)
    assert len(judged.versions) > 2
    assert len({one.worker for one in told}) == workers


def test_what_is_wrong_is_found(made):
    """A failure, another version's numbers, and a version that was not champion then are told apart from the right."""
    question = swaps.asked(swaps.BODIES, swaps.ROWS, swaps.COLUMNS)[0]
    said = {number: values.tolist() for number, values in made.positive(question).items()}

    def answer(version, of, status=200, at=5.0):
        data = [value for positive in said[of] for value in (1 - positive, positive)]
        text = swaps.json.dumps({"model_version": version, "outputs": [{"name": "probabilities", "data": data}]})
        return swaps.Answer(at, at, at + 0.01, status, 1, 0, text)

    moved = [swaps.Move(0.0, 0.0, "1.0"), swaps.Move(4.0, 4.1, "2.0")]

    def judged(*told):
        found = swaps.judge(made, list(told), moved)
        return found.failed, found.wrong, found.premature, round(found.lag, 6)

    assert judged(answer("2.0", "2.0"), answer("1.0", "1.0", at=3.0), answer("1.0", "1.0", at=4.1)) == (0, 0, 0, 0.0)
    assert judged(answer("2.0", "2.0", status=503)) == (1, 0, 0, 0.0)
    assert judged(answer("2.0", "1.0")) == (0, 1, 0, 0.0)
    assert judged(answer("3.0", "3.0")) == (0, 0, 1, 0.0)
    assert judged(answer("2.0", "2.0", at=3.0)) == (0, 0, 1, 0.0)
    assert judged(answer("1.0", "1.0", at=5.5)) == (0, 0, 0, 1.4)
