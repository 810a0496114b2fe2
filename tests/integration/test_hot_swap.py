"""What answers follows the ledger: versions of real runs, brought up, compared and swapped under load."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial import cli
from perennial.config import load
from perennial.config.deploying import place
from perennial.core.errors import ConfigError, LedgerError
from perennial.core.records import align
from perennial.learners.golden import said
from perennial.ledger.errors import StorageError, UnknownVersion
from perennial.ledger.records import AliasChange
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint, operate
from perennial.server.models import Models, NoChampion, Slot
from perennial.server.rows import Rows
from tests.postgres import schema

ROWS = 240
STREAM = """\
name: {name}
stream:
  source: rows
  time: at
  id: id
  key: who
  label: {{column: y, delay: 7h}}
  batch: 1d
  drop: {drop}
ledger: {ledger}
blobs: blobs
initial: 2d
deploy: it
"""
KINDS = {
    "trees": (
        """model: {estimator: lightgbm.LGBMClassifier,
  params: {n_estimators: 5, num_leaves: 4, min_child_samples: 5, verbose: -1, n_jobs: 1}}
strategies: {it: {stateless: {every: 1d, window: {sliding: 4d}}}}""",
        "[]",
    ),
    "line": (
        """model: {estimator: perennial.learners.plain.Logistic}
strategies: {it: {stateful: {every: 1d}}}""",
        "[word, half]",
    ),
    "pipeline": (
        """model: {estimator: 'own_models_of_swaps:encoded'}
strategies: {it: {stateless: {every: 2d, window: {sliding: 4d}}}}""",
        "[]",
    ),
}


def table() -> pa.Table:
    """Ten days of rows an hour apart: numbers of every width, gaps, words, and a flag."""
    draw = np.random.default_rng(11)
    x = draw.normal(size=(ROWS, 2))
    y = x[:, 0] + np.sin(np.arange(ROWS) / 40) * x[:, 1] + draw.normal(size=ROWS) / 2 > 0
    gaps = draw.random(ROWS) < 0.1
    hours = np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    return pa.table({
        "at": pa.array(hours).cast(pa.timestamp("us", "UTC")),
        "flag": pa.array(x[:, 1] > 0), "a": x[:, 0], "half": pa.array(x[:, 1].astype(np.float32), mask=gaps),
        "count": pa.array((x[:, 0] * 5).astype(np.int64)),
        "word": np.array(["red", "blue", "green"])[draw.integers(0, 3, ROWS)],
        "id": [f"r{i}" for i in range(ROWS)], "who": [f"w{i % 7}" for i in range(ROWS)], "y": np.where(y, "yes", "no"),
    })  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request, tmp_path_factory) -> Iterator[Callable[[str], Served]]:
    """Gives a deployment of a kind that was run over all rows, and its ledger."""
    folder = tmp_path_factory.mktemp(f"swaps-{request.param}")
    (folder / "rows").mkdir()
    for i, (low, high) in enumerate(pairwise([0, 120, ROWS])):
        pq.write_table(table().slice(low, high - low), folder / "rows" / f"{i}.parquet")
    (folder / "own_models_of_swaps.py").write_text(
        "def encoded():\n"
        "    from sklearn.compose import make_column_transformer\n"
        "    from sklearn.impute import SimpleImputer\n"
        "    from sklearn.linear_model import LogisticRegression\n"
        "    from sklearn.pipeline import make_pipeline\n"
        "    from sklearn.preprocessing import OneHotEncoder\n"
        "    words = OneHotEncoder(handle_unknown='ignore'), ['word']\n"
        "    words = make_column_transformer(words, remainder='passthrough')\n"
        "    return make_pipeline(words, SimpleImputer(), LogisticRegression(max_iter=500))\n"
    )
    made: dict[str, Served] = {}
    with schema() if request.param == "postgresql" else sqlite(folder) as url:

        def of(kind: str) -> Served:
            if kind not in made:
                text, drop = KINDS[kind]
                file = folder / f"{kind}.yaml"
                file.write_text(STREAM.format(name=kind, drop=drop, ledger=url) + text + "\n")
                assert cli.main(["run", "--once", "-c", str(file)]) == 0
                made[kind] = Served(file)
            return made[kind]

        yield of
        for one in made.values():
            one.ledger.close()


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """The URL of a ledger in a folder."""
    yield f"sqlite:///{folder}/ledger.db"


class Served:
    """A deployment with its ledger, and what its versions say offline."""

    def __init__(self, file: Path) -> None:
        loaded = load(file)
        self.deployment = loaded.deployment()
        name, url, blobs = place(loaded)
        self.ledger = SqlLedger.open(url, name, blobs=blobs, create=False)
        self.numbers = [saved.version.number for saved in self.ledger.versions()]

    def models(self, **options: Any) -> Models:
        """Models of this deployment, which tell into a list."""
        self.told: list[tuple[str, dict[str, Any]]] = []
        settings: dict[str, Any] = {"budget_bytes": 2**30, "clock": lambda: 7} | options
        return Models.open(
            self.deployment, tell=lambda event, facts: self.told.append((event, facts)), signature=signature, **settings
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What was told of a kind."""
        return [facts for event, facts in self.told if event == kind]

    def move(self, alias: str, number: str | None, **shares: float) -> None:
        """Point somewhere."""
        before = self.ledger.alias(alias)
        self.ledger.set_alias(
            AliasChange(alias=alias, version=number, generation=before.generation, reason="", actor="ada", **shares)
        )

    def offline(self, number: str, rows: pa.Table) -> str:
        """What a version says of rows by the way of `perennial predict`, as a digest."""
        state = checkpoint.last(self.ledger)
        encoder = checkpoint.restored(self.deployment, state).encoder
        model = self.deployment.load(self.ledger.get(self.ledger.version(number).blob))
        columns = [rows.column(name).combine_chunks() for name in encoder.schema.names]
        features = encoder.features(columns, 0)
        return said(align(model.predict(features), tuple(state.part("engine").part("book").plain["classes"])))


@dataclass(frozen=True)
class Names:
    """A signature as far as slots need it."""

    names: tuple[str, ...]


def signature(deployment: Any, intake: Any) -> Any:
    """The raw columns in the order of the file."""
    return Names(tuple(n for n in table().column_names if n in intake.encoder.schema.names))


def rows_of(given: pa.Table, names: tuple[str, ...]) -> Rows:
    """Rows as a request has them."""
    numbers = np.full((given.num_rows, len(names)), np.nan)
    others = {}
    for j, name in enumerate(names):
        column = given.column(name)
        if pa.types.is_string(column.type):
            others[name] = column.to_pylist()
        else:
            numbers[:, j] = [np.nan if value is None else float(value) for value in column.to_pylist()]
    return Rows(n=given.num_rows, numbers=numbers, others=others)


@dataclass
class Counted:
    """Counters of a worker, in memory."""

    counts: Counter[str] = field(default_factory=Counter)
    now: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, n: int = 1) -> None:
        self.counts[name] += n

    def put(self, name: str, value: int) -> None:
        self.now[name] = value


@pytest.mark.parametrize(("kind", "form"), [("trees", "native"), ("line", "native"), ("pipeline", "learner")])
def test_a_slot_says_what_its_version_says_offline(served, kind, form) -> None:
    """Bit for bit, of many rows and of single ones, with gaps, narrow numbers, flags and words that nobody knows."""
    one = served(kind)
    given = table()
    words = given.column("word").to_pylist()
    words[::5], words[1::7] = ["never met"] * len(words[::5]), [None] * len(words[1::7])
    given = given.set_column(given.column_names.index("word"), "word", pa.array(words))
    models = one.models()
    try:
        assert models.champion is not None
        for slot in (models.champion, models.version(one.numbers[0])):
            assert (slot.form, slot.unlike) == (form, "")
            names = slot.signature.names
            assert said(slot.predict(rows_of(given, names))) == one.offline(slot.version, given)
            for i in range(0, 40, 3):
                some = given.slice(i, 1)
                assert said(slot.predict(rows_of(some, names))) == one.offline(slot.version, some)
    finally:
        models.close()


def test_a_moved_pointer_is_followed_and_a_rollback_loads_nothing(served, monkeypatch) -> None:
    """Promotion and rollback are there at the next look; what was champion a moment ago is held ready."""
    one = served("trees")
    counted = Counted()
    models = one.models(counters=counted)
    try:
        first = models.champion
        assert first is not None
        operate.promote(one.ledger, one.deployment, one.numbers[1], actor="ada", reason="a test")
        models.poll()
        assert models.champion is not None
        assert models.champion.version == one.numbers[1]
        assert models.resident() == {one.numbers[1]: "champion", first.version: "previous"}
        monkeypatch.setattr(Models, "_brought", lambda *_: pytest.fail("nothing is to be loaded"))
        operate.rollback(one.ledger, one.deployment, actor="ada")
        models.poll()
        assert models.champion is first
        assert models.generation == one.ledger.alias("champion").generation == counted.now["generation"]
        assert counted.counts["swaps"] == 3
        assert [facts["version"] for facts in one.events("swapped")] == [first.version, one.numbers[1], first.version]
    finally:
        models.close()


def test_no_answer_is_of_another_version_than_it_names(served) -> None:
    """Threads ask without a pause while champion, canary and shadow move; each answer is of the version it names."""
    one = served("trees")
    given = table().slice(0, 7)
    expected = {number: one.offline(number, given) for number in one.numbers}
    assert len(set(expected.values())) > 3
    models = one.models()
    wrong: list[str] = []
    asked: Counter[str] = Counter()
    ends = threading.Event()

    def ask(who: int) -> None:
        while not ends.is_set():
            slots = [slot for slot in models.choose(f"w{who}", "r") if slot is not None]
            for slot in slots:
                told = said(slot.predict(rows_of(given, slot.signature.names)))
                asked[slot.version] += 1
                if told != expected[slot.version]:
                    wrong.append(slot.version)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    models.start()
    for thread in threads:
        thread.start()
    try:
        for number, other in zip(one.numbers * 3, cycle(one.numbers[::-1]), strict=False):
            one.move("champion", number)
            one.move("challenger", other, canary=0.5, shadow=1.0)
            enough = asked.total() + 20
            assert eventually(lambda n=number, m=enough: models.champion.version == n and asked.total() > m)
    finally:
        ends.set()
        for thread in threads:
            thread.join()
        models.close()
        one.move("challenger", None)
    assert not wrong
    assert set(asked) == set(one.numbers)


def eventually(true: Callable[[], bool]) -> bool:
    """Whether something comes true within a minute."""
    until = time.monotonic() + 60
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_a_version_that_cannot_be_used_never_answers(served, monkeypatch) -> None:
    """The one before goes on; it is tried again when a pointer moves, and not before."""
    one = served("trees")
    operate.promote(one.ledger, one.deployment, one.numbers[0], actor="ada")
    models = one.models()
    try:
        tried: list[str] = []
        whole = Models._brought

        def broken(self: Models, saved: Any) -> Slot:
            tried.append(saved.version.number)
            if saved.version.number == one.numbers[2]:
                raise ValueError("its bytes are gone")
            return whole(self, saved)

        monkeypatch.setattr(Models, "_brought", broken)
        one.move("champion", one.numbers[2])
        for _ in range(3):
            models.poll()
        assert models.champion is not None
        assert models.champion.version == one.numbers[0]
        assert tried.count(one.numbers[2]) == 1
        (facts,) = one.events("refused")
        assert (facts["version"], facts["answers"]) == (one.numbers[2], one.numbers[0])
        assert facts["reason"] == "its bytes are gone"
        monkeypatch.setattr(Models, "_brought", whole)
        one.move("challenger", one.numbers[1])
        models.poll()
        assert models.champion.version == one.numbers[2]
    finally:
        models.close()
        one.move("challenger", None)


def test_a_model_that_predicts_otherwise_than_when_it_was_saved_is_refused(served, monkeypatch) -> None:
    """Its golden predictions are asked for before it answers."""
    one = served("line")
    monkeypatch.setattr("perennial.server.models.reproduces_set", lambda *_: False)
    models = one.models()
    try:
        assert models.champion is None
        assert "predicts otherwise" in one.events("refused")[0]["reason"]
        with pytest.raises(NoChampion, match="no version that can serve"):
            models.choose(None, "r")
    finally:
        models.close()


def test_a_form_that_says_otherwise_is_not_used(served, monkeypatch) -> None:
    """The learner answers in its place, and it is told."""
    one = served("line")
    from perennial.learners import plain

    right = plain.Logistic._said

    def shifted(self: Any, matrix: Any) -> Any:
        return right(self, matrix + 1e-9)

    monkeypatch.setattr(plain.Logistic, "serving", lambda self: lambda matrix: shifted(self, matrix))
    models = one.models()
    try:
        assert models.champion is not None
        assert models.champion.form == "learner"
        assert "golden rows" in one.events("unlike")[0]["reason"]
        given = table().slice(0, 9)
        assert said(models.champion.predict(rows_of(given, models.champion.signature.names))) == one.offline(
            models.champion.version, given
        )
    finally:
        models.close()


def test_a_ledger_that_is_away_leaves_the_champion_where_it_is(served, monkeypatch) -> None:
    """It is told once, and once that it is back; nothing was dropped."""
    one = served("trees")
    models = one.models()
    try:
        before = models.champion
        with monkeypatch.context() as patched:
            patched.setattr(SqlLedger, "moves", _away)
            for _ in range(3):
                models.poll()
        assert models.champion is before
        assert len(one.events("ledger_away")) == 1
        models.poll()
        models.poll()
        assert len(one.events("ledger_back")) == 1
    finally:
        models.close()


def _away(self: SqlLedger) -> int:
    raise StorageError("the server closed the connection", retryable=True)


def test_shares_are_heeded_at_the_next_look(served) -> None:
    """A canary answers its part, keys stay where they are, and without a challenger there is neither."""
    one = served("trees")
    champion = one.ledger.alias("champion").version
    other = next(number for number in one.numbers if number != champion)
    models = one.models()
    try:
        keys = [f"w{i}" for i in range(300)]
        assert all(models.choose(key, "r")[0].version == champion for key in keys)
        one.move("challenger", other, canary=0.2, shadow=1.0)
        models.poll()
        few = {key for key in keys if models.choose(key, "r")[0].version == other}
        assert 30 < len(few) < 90
        assert all({slot.version for slot in models.choose(key, "r")} == {champion, other} for key in keys)
        one.move("challenger", other, canary=0.4)
        models.poll()
        assert few < {key for key in keys if models.choose(key, "r")[0].version == other}
        assert models.choose("w1", "r")[1] is None
        one.move("challenger", None)
        models.poll()
        assert all(models.choose(key, "r") == (models.champion, None) for key in keys)
    finally:
        models.close()


def test_versions_by_number_are_held_as_long_as_there_is_room(served) -> None:
    """The one that was not asked for longest goes; unknown ones and too large ones are refused by name."""
    one = served("trees")
    sizes = {saved.version.number: saved.size for saved in one.ledger.versions()}
    champion = one.ledger.alias("champion").version
    one.move("previous", champion)
    asked = [number for number in one.numbers if number != champion][:3]
    models = one.models(budget_bytes=sum(sizes[number] for number in asked[:2]) + 200)
    try:
        slots = [models.version(number) for number in asked[:2]]
        assert models.version(asked[0]) is slots[0]
        models.version(asked[2])
        assert set(models.resident()) == {champion, asked[0], asked[2]}
        assert models.version(champion) is models.champion
        with pytest.raises(UnknownVersion, match="did you mean"):
            models.version("99.0")
    finally:
        models.close()
    tight = one.models(budget_bytes=10)
    try:
        with pytest.raises(ConfigError, match=r"serve\.models_bytes=10"):
            tight.version(asked[0])
        assert tight.champion is not None
    finally:
        tight.close()


def test_there_is_nothing_to_follow_before_the_ledger_is_there(served, tmp_path) -> None:
    """A server may be started first: it waits, and answers as soon as there is a champion."""
    from dataclasses import replace

    one = served("trees")
    nowhere = replace(one.deployment, ledger=f"sqlite:///{tmp_path}/none.db", blobs=None)
    told: list[str] = []
    models = Models.open(
        nowhere, budget_bytes=1, clock=lambda: 0, tell=lambda event, _: told.append(event), signature=signature
    )
    assert models.champion is None
    SqlLedger.open(nowhere.ledger, nowhere.name).close()
    models.poll()
    assert models.champion is None
    assert told == ["ledger_away", "ledger_back"]
    models.close()


def test_the_watch_outlives_whatever_it_meets(caplog) -> None:
    """A look that fails is logged with its trace, once as long as it stays the same, and the next one comes."""
    from perennial.server.watch import Watch

    looks = []

    def look() -> None:
        looks.append(len(looks))
        if len(looks) < 4:
            raise LedgerError("no")

    watch = Watch(look, "looking", every=0.001)
    with caplog.at_level(logging.ERROR):
        watch.start()
        assert eventually(lambda: len(looks) > 6)
        watch.close()
    assert [record.message for record in caplog.records] == ["a look of looking failed"]
    assert caplog.records[0].exc_info is not None
