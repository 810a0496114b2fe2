"""Swap under load: promotions and rollbacks while requests come at a constant rate, with one worker and with two.

Every answer names a version, and must be what that version says offline, loaded from the ledger, of the same rows; none
may fail, and none may name a version that was not champion before. The times to an answer, from the moment at which its
request was due, are held against those of a stretch without a swap in the same round, as is the time until every worker
answers by the new version.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, Size, require
from benchmarks.servers import load
from benchmarks.servers.deployed import INFER, Deployed, asked, deployed
from benchmarks.servers.peers import probabilities, tensor
from benchmarks.servers.process import Server
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, operate

NAME = "swaps"
COLUMNS, ROWS, BODIES = 30, 4, 50
RATE, CONNECTIONS = 200, 16
EVERY = 1.0  #: seconds from one move of the champion to the next

_MOVES = {"full": 60, "quick": 20, "tiny": 4}  #: over all rounds
_VERSIONS = {"full": 8, "quick": 5, "tiny": 3}
_WARM = {"full": 3.0, "quick": 1.0, "tiny": 0.2}  #: seconds of load until everything is warm
_ROWS = {"full": 8_000, "quick": 4_000, "tiny": 400}


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and its answer: moments of ``time.monotonic``, and which worker, question and version."""

    due: float
    sent: float
    done: float
    status: int
    worker: int
    question: int
    text: str


@dataclass(frozen=True, slots=True)
class Move:
    """The champion is ``version`` since a moment between ``began`` and ``done``."""

    began: float
    done: float
    version: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What answers were worth.

    Parameters
    ----------
    requests, failed, wrong, premature : int
        How many; without a prediction; not what the named version says; by a version that had not been champion yet.
    lag : float
        The longest, in seconds, that a version which was champion no more was asked and answered.
    versions : Counter
        Answers by version.
    """

    requests: int
    failed: int
    wrong: int
    premature: int
    lag: float
    versions: Counter[str]


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """Failed and wrong answers, times to an answer with swaps and without, and how soon every worker has swapped."""
    made = deployed(
        folder / "ours", versions=_VERSIONS[size], rows=_ROWS[size], columns=COLUMNS,
        estimator="lightgbm.LGBMClassifier", params={},
    )  # fmt: skip
    moves = max(2, _MOVES[size] // rounds)
    out: list[Figure] = []
    for workers in (1, 2):
        tails, delays, lags, p99s = [], [], [], []
        requests = 0
        with made.start(workers=workers) as server:
            under(made, server, folder, seconds=_WARM[size], moves=0)
            for number in range(rounds):
                found = {}
                for swapping in (False, True) if number % 2 == 0 else (True, False):
                    told, moved = under(made, server, folder, seconds=moves * EVERY, moves=moves if swapping else 0)
                    judged = judge(made, told, moved)
                    require(judged.failed == 0, f"{judged.failed} of {judged.requests} requests failed, {workers=}")
                    require(judged.wrong == 0, f"{judged.wrong} answers are not what their version says, {workers=}")
                    require(judged.premature == 0, f"{judged.premature} answers by no champion, {workers=}")
                    lags.append(judged.lag)
                    require(not swapping or len(judged.versions) > 1, "no version but the first ever answered")
                    found[swapping] = float(np.quantile([one.done - one.due for one in told], 0.99))
                    requests += judged.requests
                    delays += arrivals(told, moved) if swapping else []
                    require(len({one.worker for one in told}) == workers, f"not all of {workers} workers were asked")
                tails.append(found[True] / found[False])
                p99s.append(1e3 * found[True])
        of = f"{workers} worker{'s' if workers > 1 else ''}"
        checked = (
            f"{requests:,} answers, {moves * rounds} moves of the champion: none failed, every one is what the named "
            "version says offline"
        )
        figure = partial(Figure, benchmark=NAME, peer="the same load, no swap", checked=checked)
        out += [
            figure(what=f"{of}: p99 with a swap a second over p99 without", rounds=tails, at_most=2.0),
            figure(what=f"{of}: p99 with a swap a second", rounds=p99s, unit="ms"),
            figure(
                what=f"{of}: from a move until every worker has answered by the new version, median of moves",
                rounds=[statistics.median(delays)], unit="s",
            ),
            figure(
                what=f"{of}: the longest that a version answered after another was made champion",
                rounds=[max(lags)], unit="s", at_most=1.0,
            ),
        ]  # fmt: skip
    return out


def under(
    made: Deployed,
    server: Server,
    folder: Path,
    *,
    seconds: float,
    moves: int,
    every: float = EVERY,
    rate: float = RATE,
) -> tuple[list[Answer], list[Move]]:
    """Answers under a constant load, and the moves of the champion meanwhile; the first stands for the champion."""
    questions = asked(BODIES, ROWS, COLUMNS)
    bodies, out = folder / "bodies.json", folder / "answers.json"
    bodies.write_text(json.dumps([json.dumps(tensor(one)) for one in questions]))
    command = [sys.executable, load.__file__, str(server.port), INFER, str(bodies), str(rate), str(seconds),
               str(CONNECTIONS), str(out)]  # fmt: skip
    with made.ledger() as (ledger, deployment):
        champion = ledger.version(str(ledger.alias("champion").version))
        operate.broken(ledger, deployment, champion)  # what moving needs is imported before the load
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            try:
                assert client.stdout is not None
                require(client.stdout.readline() == "started\n", "the load did not start")
                workers = _held(server)
                moved = [Move(-math.inf, -math.inf, champion.version.number)]
                moved += _move(ledger, deployment, champion.version.number, moves, every)
                client.wait(seconds + load.PATIENCE + 10)
            finally:
                client.kill()
    entries = json.loads(out.read_text())
    require(len(entries) == round(rate * seconds), f"{len(entries)} of {round(rate * seconds)} requests came to an end")
    told = [
        Answer(due, sent, done, status, workers.get(port, 0), question, text)
        for due, sent, done, status, port, question, text in entries
    ]
    return told, moved


def _held(server: Server) -> dict[int, int]:
    """Which worker holds which connection, once each was accepted by one."""
    until = time.monotonic() + load.PATIENCE
    while len(held := server.connections()) < CONNECTIONS and time.monotonic() < until:
        time.sleep(0.05)
    return held


def _move(ledger: SqlLedger, deployment: Deployment, champion: str, moves: int, every: float) -> list[Move]:
    """Promote some version or roll back, in turn, once every so many seconds."""
    rng = random.Random(0)
    numbers = [saved.version.number for saved in ledger.versions()]
    out: list[Move] = []
    begun = time.monotonic()
    for number in range(moves):
        time.sleep(max(0.0, begun + (number + 0.25) * every - time.monotonic()))
        before = time.monotonic()
        if number % 2:
            moved = operate.rollback(ledger, deployment, actor="benchmark")
        else:
            others = [one for one in numbers if one != champion]
            moved = operate.promote(ledger, deployment, rng.choice(others), actor="benchmark")
        champion = moved.version
        out.append(Move(before, time.monotonic(), champion))
    return out


def judge(made: Deployed, told: list[Answer], moved: list[Move]) -> Judged:
    """Hold every answer against the version that it names, and the version against who was champion."""
    questions = asked(BODIES, ROWS, COLUMNS)
    offline = made.positive(questions.reshape(-1, COLUMNS))
    expected = {number: said.reshape(BODIES, ROWS) for number, said in offline.items()}
    ends = [*(move.done for move in moved[1:]), math.inf]
    failed = wrong = premature = 0
    lag = 0.0
    versions: Counter[str] = Counter()
    for one in told:
        if one.status != 200:
            failed += 1
            continue
        document = json.loads(one.text)
        number = document["model_version"]
        versions[number] += 1
        if number not in expected or not np.array_equal(probabilities(document), expected[number][one.question]):
            wrong += 1
        reigns = [
            end for move, end in zip(moved, ends, strict=True) if move.version == number and move.began <= one.done
        ]
        if reigns:
            lag = max(lag, one.sent - max(reigns))
        else:
            premature += 1
    return Judged(requests=len(told), failed=failed, wrong=wrong, premature=premature, lag=lag, versions=versions)


def arrivals(told: list[Answer], moved: list[Move]) -> list[float]:
    """Seconds from each move until every worker has answered by the new version, or to the next move, if that is first.

    A worker that is further behind shows in ``Judged.lag``.
    """
    answers = [(one.done, one.worker, json.loads(one.text)["model_version"]) for one in told if one.status == 200]
    workers = {worker for _, worker, _ in answers}
    ends = [*(move.began for move in moved[2:]), max(done for done, *_ in answers)]
    out = []
    for move, end in zip(moved[1:], ends, strict=True):
        first = dict.fromkeys(workers, end)
        for done, worker, number in answers:
            if move.began <= done < first[worker] and number == move.version:
                first[worker] = done
        out.append(max(0.0, max(first.values()) - move.done))
    return out
