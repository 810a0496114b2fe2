"""What a challenger gets of the requests: set by the gate, by an operator, and gone with the trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial import cli
from perennial.config import load
from perennial.config.deploying import place
from perennial.core.errors import ConfigError, LedgerError
from perennial.ledger.records import Alias
from perennial.ledger.sql import SqlLedger
from perennial.production import Run, operate
from perennial.production.deployment import Deployment
from perennial.production.service import leased

TEXT = """\
name: shares
stream: {{source: rows.parquet, time: at, label: {{column: y}}, batch: 1d}}
model: perennial.learners.plain.Logistic
strategies: {{it: {{stateful: {{every: 1d}}}}}}
initial: 2d
deploy: it
ledger: sqlite:///ledger.db
gate: {gate}
"""
LONG = "{mode: before, margin: 0.001, least_blocks: 1000, canary: 0.05, shadow: 1.0}"


class Running:
    """A run that a test takes step by step."""

    def __init__(self, deployment: Deployment, ledger: SqlLedger, run: Run) -> None:
        self.deployment, self.ledger, self.run = deployment, ledger, run

    @property
    def challenger(self) -> Alias:
        """Where it points, with its shares."""
        return self.ledger.alias("challenger")

    def until_on_trial(self) -> Alias:
        """Take turns until a challenger is on trial."""
        while self.challenger.version is None:
            assert self.run.step()
        return self.challenger


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twenty days of rows an hour apart."""
    draw = np.random.default_rng(2)
    x = draw.normal(size=(480, 2))
    at = np.datetime64("2026-01-01", "us") + np.arange(480) * np.timedelta64(1, "h")
    rows = pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "y": np.where(x[:, 0] > 0, "yes", "no")})
    pq.write_table(rows, tmp_path / "rows.parquet")
    return tmp_path


@pytest.fixture
def running(folder, request) -> Iterator[Running]:
    """A run with the gate of the test's parameter."""
    file = folder / "perennial.yaml"
    file.write_text(TEXT.format(gate=getattr(request, "param", LONG)))
    loaded = load(file)
    name, url, blobs = place(loaded)
    with (
        SqlLedger.open(url, name, blobs=blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        deployment = loaded.deployment()
        yield Running(deployment, ledger, Run(deployment, ledger, lease))


def test_the_gate_says_what_a_new_challenger_gets(running) -> None:
    """From the turn that puts it on trial on, and for every later version of its line."""
    first = running.until_on_trial()
    assert (first.canary, first.shadow) == (0.05, 1.0)
    assert running.run.step()
    later = running.challenger
    assert later.version != first.version
    assert (later.canary, later.shadow) == (0.05, 1.0)
    assert running.ledger.alias("champion").canary == 0.0


def test_an_operator_gives_it_another_share(running) -> None:
    """The line keeps it, also across a restart; a turn that goes on meanwhile is taken once and no trial ends by it."""
    first = running.until_on_trial()
    shared = operate.share(running.ledger, running.deployment, canary=0.5, actor="ada", reason="it looks good")
    assert (shared.version, shared.canary, shared.shadow) == (first.version, 0.5, 1.0)
    moved = running.challenger
    assert (moved.generation, moved.actor, moved.reason) == (first.generation + 1, "ada", "it looks good")
    turn = running.run.turn
    assert running.run.step()
    assert running.run.turn == turn + 1
    assert (running.challenger.canary, running.challenger.shadow) == (0.5, 1.0)
    assert running.challenger.actor == "run"
    running.run._recover()
    assert running.run.step()
    assert running.challenger.canary == 0.5
    assert running.challenger.version.partition(".")[0] == first.version.partition(".")[0]


def test_a_word_that_comes_while_a_turn_is_taken(running, monkeypatch) -> None:
    """The turn would move the pointer too: it is taken again behind the word, once, and keeps the operator's share."""
    running.until_on_trial()
    commits = []
    commit = SqlLedger.commit

    def interrupted(self: SqlLedger, lease, entry) -> None:
        commits.append(entry.turn)
        if len(commits) == 1:
            operate.share(self, running.deployment, canary=0.25, actor="ada")
        commit(self, lease, entry)

    monkeypatch.setattr(SqlLedger, "commit", interrupted)
    turn = running.run.turn
    assert running.run.step()
    assert running.run.step()
    assert commits == [turn, turn]
    assert running.challenger.canary == 0.25


def test_a_promotion_takes_the_shares_away(running) -> None:
    """The challenger is champion, and whoever comes after it begins with what the gate says."""
    first = running.until_on_trial()
    operate.share(running.ledger, running.deployment, canary=0.9, shadow=0.1, actor="ada")
    operate.promote(running.ledger, running.deployment, first.version, actor="ada")
    assert running.run.step()
    assert running.challenger.version is None
    assert (running.challenger.canary, running.challenger.shadow) == (0.0, 0.0)
    after = running.until_on_trial()
    assert (after.canary, after.shadow) == (0.05, 1.0)


@pytest.mark.parametrize(
    "running", ["{mode: before, margin: 0.5, least_blocks: 2, canary: 0.05}"], indirect=True
)  # fmt: skip
def test_a_verdict_takes_them_away_as_well(running) -> None:
    """Whatever the gate said: nobody is on trial after it, or a line with shares of its own is."""
    seen = set()
    while running.run.step():
        now = running.challenger
        seen.add((now.version is None, now.canary))
    assert seen <= {(True, 0.0), (False, 0.05)}
    assert (True, 0.0) in seen
    assert any(verdict.outcome == "promote" for verdict in running.ledger.verdicts())


@pytest.mark.parametrize("running", ["{mode: after, margin: 0.5}"], indirect=True)
def test_where_challengers_serve_at_once_there_is_nothing_to_share(running) -> None:
    """In mode `after` the challenger answers everything already."""
    while running.run.step():
        pass
    with pytest.raises(ConfigError, match="gate mode 'after' holds no challenger back"):
        operate.share(running.ledger, running.deployment, canary=0.5, actor="ada")
    assert running.challenger.canary == 0.0


def test_there_must_be_somebody_on_trial(running) -> None:
    """Before the first training nobody is."""
    assert running.run.step()
    with pytest.raises(LedgerError, match=r"no challenger on trial now: gate\.shadow"):
        operate.share(running.ledger, running.deployment, shadow=0.5, actor="ada")


def test_the_commands_take_percentages(running, folder, capsys) -> None:
    """`perennial canary 5%` and `perennial shadow 1`; what is no share is refused, and nothing moves."""
    running.until_on_trial()
    config = ["-c", str(folder / "perennial.yaml"), "--json"]
    assert cli.main(["canary", "12.5%", *config, "--reason", "a little more"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["canary"], told["shadow"], told["reason"]) == (0.125, 1.0, "a little more")
    assert cli.main(["shadow", "0", *config]) == 0
    assert json.loads(capsys.readouterr().out)["shadow"] == 0.0
    before = running.challenger
    for wrong in ("105%", "-0.1", "half", "nan"):
        assert cli.main(["canary", *config, "--", wrong]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["field"] == "canary"
    assert running.challenger == before
