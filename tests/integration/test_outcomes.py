"""Files that are predicted apart from the stream: logged by id, joined with labels to come, erased with a subject."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import cli, strategies
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, outcomes
from perennial.production.predict import predict
from perennial.production.service import leased
from perennial.stream.label_log import id_digest
from tests import postgres

N = 240


def rows(n=N):
    """Rows an hour apart, of ten subjects."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 2))
    y = x[:, 0] + rng.normal(size=n) / 2
    return pa.table({
        "at": np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h"), "a": x[:, 0], "b": x[:, 1],
        "id": [f"r{i}" for i in range(n)], "who": [f"customer-{i % 10}" for i in range(n)], "y": y,
        "c": np.where(y > 0, "up", "down"),
    })  # fmt: skip


def deployment(path, upto=168, target="c", url="", **about):
    """A deployment of the first week; the rest is what files hold."""
    (path / "rows").mkdir(exist_ok=True)
    pq.write_table(rows().slice(0, upto), path / "rows" / "0.parquet")
    model = GaussianNB() if target == "c" else LinearRegression()
    facts = {"time": "at", "target": target, "id": "id", "key": "who", "time_zone": "UTC", "label_delay": "6h"}
    drop = {"drop": ["y" if target == "c" else "c"]}
    return Deployment(
        name="shop", stream=pn.Stream(path / "rows", batch="1d", **{**facts, **drop, **about}),
        strategy=strategies.Frozen(model, initial="3d"), ledger=url or f"sqlite:///{path}/ledger.db",
        blobs=path / "blobs",
    )  # fmt: skip


def run(made):
    """Take what there is."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        going = Run(made, ledger, lease)
        while going.step():
            pass


def asked(made, path, table, **options):
    """Predict a table as a file; gives what was scored."""
    pq.write_table(table, path / "new.parquet")
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, inline_bytes=1000) as ledger:
        return predict(made, ledger, path / "new.parquet", path / "said.parquet", **options)


def turned_out(made, version=None):
    """What became of the files."""
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger:
        assert ledger.check() == []
        return outcomes.outcomes(made, ledger, version)


@pytest.mark.parametrize("target", ["c", "y"])
def test_labels_to_come_find_what_was_said(tmp_path, target):
    """Nothing is known first; then rows with these ids come, and what was said is scored as by hand."""
    made = deployment(tmp_path, target=target)
    run(made)
    later = rows().slice(180, 50)
    scored = asked(made, tmp_path, later.drop_columns(["y", "c", "at"]))
    [before] = turned_out(made)
    assert (scored.number, before.rows, before.labelled, before.loss, before.right) == (1, 50, 0, None, None)
    made = deployment(tmp_path, upto=N, target=target)
    run(made)
    [found] = turned_out(made, "1.0")
    said = pq.read_table(tmp_path / "said.parquet")
    n = 216 - 180  # the last day is not whole
    truth = later.column(target).slice(0, n)
    assert found.labelled == n
    if target == "y":
        errors = np.abs(truth.to_numpy() - said.column("prediction").to_numpy()[:n])
        assert (found.loss_name, found.right) == ("absolute_error", None)
        assert found.loss == pytest.approx(errors.mean())
    else:
        right = np.array(truth.to_pylist()) == np.array(said.column("prediction").to_pylist()[:n])
        given = np.where(np.array(truth.to_pylist()) == "up", said["proba_up"][:n], said["proba_down"][:n])
        assert found.right == pytest.approx(right.mean())
        assert (found.loss_name, found.loss) == ("log_loss", pytest.approx(-np.log(given).mean()))
    assert turned_out(made, "2.0") == ()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_labels_of_a_log_too(tmp_path, kind):
    """The latest line about an id counts; ids that the log names and no row has are scored all the same."""
    table = rows()
    lines = pa.table({"id": table["id"], "c": table["c"], "known_at": pa.array(table["at"].to_numpy() + 3_600_000_000)})
    (tmp_path / "log").mkdir()
    pq.write_table(lines.slice(0, 168), tmp_path / "log" / "0.parquet")
    with postgres.schema() if kind == "postgres" else _sqlite(tmp_path) as url:
        made = deployment(tmp_path, url=url, labels=tmp_path / "log", label_delay=None, drop=["y"], known_at=None)
        run(made)
        asked(made, tmp_path, table.slice(200, 10).drop_columns(["y", "c", "at"]))
        flipped = pa.array(["up" if c == "down" else "down" for c in table["c"].slice(200, 4).to_pylist()])
        wrong = lines.slice(200, 4).set_column(1, "c", flipped)
        pq.write_table(pa.concat_tables([wrong, _later(lines.slice(200, 2))]), tmp_path / "log" / "1.parquet")
        [found] = turned_out(made)
        said = pq.read_table(tmp_path / "said.parquet")["prediction"].to_pylist()
        truth = [*table["c"].slice(200, 2).to_pylist(), *flipped.to_pylist()[2:]]
        assert found.labelled == 4
        assert found.right == sum(a == b for a, b in zip(said, truth, strict=False)) / 4


def _sqlite(path):
    from contextlib import nullcontext

    return nullcontext(f"sqlite:///{path}/ledger.db")


def _later(lines):
    at = lines["known_at"].to_numpy() + np.timedelta64(1, "h")
    return lines.set_column(2, "known_at", pa.array(at))


def test_what_was_said_outlasts_the_next_run(tmp_path):
    """It is named in the ledger: nothing is collected, and files count on; a file without ids is not logged."""
    made = deployment(tmp_path)
    run(made)
    some = rows().slice(170, 70).drop_columns(["y", "c", "at"])
    assert asked(made, tmp_path, some).number == 1
    assert asked(made, tmp_path, some, version="1.0").number == 2
    assert asked(made, tmp_path, some.drop_columns(["id"])).number is None
    run(made)
    assert [found.number for found in turned_out(made)] == [1, 2]


def test_a_subject_is_taken_out(tmp_path):
    """With their rows goes what was said of their ids, in files too."""
    made = deployment(tmp_path)
    run(made)
    for _ in range(2):  # the same bytes twice
        asked(made, tmp_path, rows().slice(100, 30).drop_columns(["y", "c", "at"]))
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        Run(made, ledger, lease).erase("customer-3")
        for part in ledger.files():
            held = outcomes._read(ledger.get(part.predictions))[0]
            assert len(held) == 27
            assert not {id_digest(f"r{i}") for i in (103, 113, 123)} & set(held)
        assert len(ledger.files()) == 2
        assert ledger.check() == []


def test_explain_tells_how_files_turned_out(tmp_path, capsys, monkeypatch):
    """From the command line: predict says that it logged, explain what became of it."""
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    pq.write_table(rows().slice(0, 168), "rows/0.parquet")
    pq.write_table(rows().slice(180, 20).drop_columns(["y", "c"]), "new.parquet")
    config = {
        "name": "shop", "initial": "3d", "deploy": "it", "model": "sklearn.naive_bayes.GaussianNB",
        "strategies": {"it": {"frozen": {}}},
        "stream": {"source": "rows", "time": "at", "label": {"column": "c", "delay": "6h"}, "time_zone": "UTC",
                   "id": "id", "drop": ["y", "who"], "batch": "1d"},
    }  # fmt: skip
    Path("perennial.yaml").write_text(yaml.safe_dump(config))

    def said(*arguments):
        capsys.readouterr()
        assert cli.main([*arguments]) == 0
        return capsys.readouterr().out

    said("run", "--once")
    assert json.loads(said("explain", "1.0", "--json"))["files"] == []
    assert "logged as file 1" in said("predict", "new.parquet")
    pq.write_table(rows().slice(168), "rows/1.parquet")
    said("run", "--once")
    [file] = json.loads(said("explain", "champion", "--json"))["files"]
    assert (file["rows"], file["labelled"], file["file"]) == (20, 20, "new.parquet")
    assert "predicted" in said("explain", "1.0")
    assert f"{file['right']:.1%} right" in said("explain", "1.0")
