"""A run that is stopped after any turn, and goes on from its state in another engine, gives the same turns."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from lightgbm import LGBMClassifier
from river import linear_model, preprocessing
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.core.features import Chunk, Features
from perennial.core.protocols import Trained
from perennial.core.records import Close, Tick, Verdict
from perennial.core.state import State, Stored
from perennial.engine import Engine
from perennial.gate import Gate, Golden, Slice
from perennial.learners import as_learner
from perennial.stream.labelled import read_labelled
from perennial.stream.quality import Quality

START = np.datetime64("2026-01-01", "us")
N = 600


class Plain:
    """A trainer that does every training."""

    def cpu_seconds(self):
        return 0.0

    def obtain(self, key, template, make):
        return Trained(model=make(), cpu_seconds=0.0, shared=False)


def table(*, regression=False, seed=0):
    """Rows an hour apart, some late, with numbers, words, weights, groups and labels that come late or never."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 2))
    z = x[:, 0] * np.cos(np.arange(N) / 100) + x[:, 1] + 0.4 * rng.normal(size=N)
    at = START + np.arange(N) * np.timedelta64(1, "h")
    at[200:220] -= np.timedelta64(5, "h")
    groups = pa.array(np.arange(N) % 5, mask=np.arange(N) % 97 == 90)  # whole numbers, some missing
    known = at + rng.integers(0, 60, N) * np.timedelta64(1, "h")
    y = np.where(z > 0.8, "high", np.where(z > 0, "up", "down"))
    y[: N // 2][y[: N // 2] == "high"] = "up"  # a class that first appears later
    cols = {
        "at": at, "a": x[:, 0], "b": x[:, 1], "word": np.array(["red", "blue", "green"])[rng.integers(0, 3, N)],
        "w": rng.uniform(0.5, 2, N), "g": groups, "k": pa.array(known, mask=rng.random(N) < 0.05),
        "y": z if regression else y,
    }  # fmt: skip
    return pa.table(cols)


@dataclass(frozen=True)
class Sums:
    """Evidence as a count and a sum."""

    n: int = 0
    total: float = 0.0

    def add(self, block, difference):
        return Sums(self.n + len(block), self.total + float(difference.sum()))

    def to_plain(self):
        return {"n": self.n, "total": self.total}


@dataclass
class AfterRows:
    """A gate that promotes or rejects by the mean difference of so many rows."""

    mode: str
    on_reject: str = "back"

    def begin(self):
        return Sums()

    def resume(self, plain):
        return Sums(**plain)

    def blocks(self, time, position):
        return position

    def judge(self, evidence, *, now, begun, challenger, champion):
        outcome = "keep" if evidence.n < 50 else "promote" if evidence.total < 0 else "reject"
        return Verdict(outcome=outcome, version=challenger.number, reason=f"{evidence}", champion=champion.number)


class Store:
    """The rows of each batch as a chunk of its own, by name."""

    def __init__(self):
        self.kept = {}

    def take(self, batch):
        """The batch, its rows in a chunk of the store."""
        tables = [chunk.table.take(pa.array(np.arange(chunk.rows)[index])) for chunk, index in batch.features.parts]
        name = str(batch.first)
        chunk = Chunk(pa.concat_tables(tables).combine_chunks(), batch.features.schema, name)
        self.kept[name] = Stored(
            chunk=chunk, time=batch.time, rows=batch.rows, weight=batch.weights, group=batch.groups
        )
        return replace(batch, features=Features.of(chunk))


def same(one, other, where="turn"):
    """Assert that two records are equal to the last bit."""
    if is_dataclass(one) and not isinstance(one, type):
        assert type(one) is type(other), where
        for f in fields(one):
            if not f.name.endswith("cpu_seconds"):
                same(getattr(one, f.name), getattr(other, f.name), f"{where}.{f.name}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        np.testing.assert_array_equal(one, other, where)
    elif isinstance(one, tuple | list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}[{i}]")
    else:
        assert one == other or (one != one and other != other), f"{where}: {one!r} is not {other!r}"


LGB = LGBMClassifier(n_estimators=5, num_leaves=4, min_child_samples=5, verbose=-1, deterministic=True,
                     force_row_wise=True, n_jobs=1)  # fmt: skip
WAITING = {"label_delay": None, "known_at": "k"}
RIVER = preprocessing.StandardScaler() | linear_model.LogisticRegression()
EVERY = triggers.every("1d")

SLICED = Gate(
    margin=0.02, least_blocks=2, planned_labels=100, block=timedelta(hours=6),
    slices={"red": Slice(where={"word": ["red", None]}, margin=0.05), "high": Slice(where={"a": {"least": 0.5}})},
)  # fmt: skip

HELD = replace(SLICED, margin=None, golden=Golden(file="golden.csv", limit=0.02))

CASES = {
    "frozen": (strategies.Frozen(GaussianNB(), initial="5d"), {}, {}),
    "sliding": (strategies.Stateless(LGB, initial="5d", trigger=EVERY, window=windows.Sliding("4d")), {}, {}),
    "sliding rows, never labelled": (
        strategies.Stateless(GaussianNB(), initial="5d", trigger=EVERY, window=windows.Sliding(rows=70)), WAITING, {},
    ),
    "mix and a loss trigger": (
        strategies.Stateless(GaussianNB(), initial=100, trigger=triggers.loss_above(0.4, rows=30),
                             window=windows.Mix(initial=0.3, recent=0.7, rows=100)), WAITING, {},
    ),
    "expanding, regret, late": (
        strategies.Stateless(GaussianNB(), initial="5d", trigger=triggers.regret(3.0)), {}, {"train_latency": "20h"},
    ),
    "block sums": (
        strategies.Stateless(Ridge(), initial="5d", trigger=EVERY, window=windows.Sliding("4d")),
        {"regression": True}, {},
    ),
    "SGD": (
        strategies.Stateful(SGDClassifier(loss="log_loss", random_state=0), initial="5d", trigger=EVERY), WAITING, {},
    ),
    "linear, untrained": (
        strategies.Stateful(learners.plain.Linear(forgetting=0.999), initial=None, trigger=EVERY),
        {"regression": True}, {},
    ),
    "River": (strategies.Stateful(RIVER, initial=None, trigger=triggers.every(rows=30)), {"two": True}, {}),
    "hybrid of boosters": (
        strategies.Hybrid(learners.Decayed(LGB, trees=3), initial="5d", trigger=EVERY, reset=triggers.every("6d"),
                          window=windows.Sliding("5d")), {}, {},
    ),
    "quarantine": (
        strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY), {},
        {"quality": Quality(ranges={"a": (-3, 3)}, labelled=0.99, label_rates={"up": (0.3, 0.7)}, least_rows=5)},
    ),
    "gate before, stateful": (
        strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY), {}, {"gate": AfterRows("before")},
    ),
    "gate after, stateful": (
        strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY), WAITING, {"gate": AfterRows("after")},
    ),
    "gate before, hybrid": (
        strategies.Hybrid(GaussianNB(), initial="5d", trigger=EVERY, reset=triggers.every("4d")), {},
        {"gate": AfterRows("before")},
    ),
    "gate with slices": (
        strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY), WAITING, {"gate": SLICED},
    ),
    "gate with slices, after, hybrid": (
        strategies.Hybrid(GaussianNB(), initial="5d", trigger=EVERY, reset=triggers.every("4d")), {},
        {"gate": replace(SLICED, mode="after")},
    ),
    "gate with a golden set": (
        strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY), WAITING,
        {"gate": HELD, "golden": True},
    ),
    "gate with a golden set, after, stateless": (
        strategies.Stateless(LGB, initial="5d", trigger=triggers.every("3d")), WAITING,
        {"gate": replace(HELD, mode="after"), "golden": True},
    ),
    "gate with held-out rows": (
        strategies.Stateless(LGB, initial="5d", trigger=triggers.every("3d"), window=windows.Sliding("4d")), WAITING,
        {"gate": replace(HELD, held_out=timedelta(days=2)), "golden": True},
    ),
    "gate with held-out rows, after": (
        strategies.Stateless(GaussianNB(), initial="5d", trigger=EVERY, window=windows.Sliding(rows=60)), {},
        {"gate": replace(SLICED, held_out=timedelta(days=2), mode="after"), "train_latency": "20h"},
    ),
    "gate before, stateless": (
        strategies.Stateless(GaussianNB(), initial="5d", trigger=EVERY, window=windows.Decayed("3d")), WAITING,
        {"gate": AfterRows("before"), "train_latency": "20h"},
    ),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request, tmp_path):
    """Engines of one case, and its events."""
    strategy, about, settings = CASES[request.param]
    about, settings = dict(about), dict(settings)
    rows = table(regression=about.pop("regression", False))
    if about.pop("two", False):
        rows = rows.set_column(
            rows.column_names.index("y"), "y", pa.array([v == "down" for v in rows["y"].to_pylist()])
        )
    roles = {"label_delay": "10h", "weight": "w", "group": "g", "lateness": "12h", "batch": "1d", **about}
    if roles.get("known_at") is None:
        roles["drop"] = ["k"]
    stream = pn.Stream(rows, time="at", target="y", time_zone="UTC", **roles)
    prepared = stream.prepare(tmp_path / "stream")
    if "train_latency" in settings:
        settings["train_latency"] = timedelta(hours=int(settings["train_latency"][:-1]))
    learner = as_learner(strategy.model)
    if settings.pop("golden", False):
        csv.write_csv(rows.slice(100, 80), tmp_path / "golden.csv")
        settings["golden"] = read_labelled(tmp_path / "golden.csv", stream, prepared.schema, "string", learner.task)
    known = (False, True) if prepared.label_type == "bool" else ()

    def engine():
        return Engine(
            strategy, learner, schema=prepared.schema, trainer=Plain(), label_delay=prepared.label_delay,
            classes=known, **settings,
        )  # fmt: skip

    batches = list(prepared.batches(learner.task))
    store = Store()
    events = []
    for i, batch in enumerate(batches):
        events.append(store.take(batch))
        if i == 9:
            events.append(Tick(now=batches[10].start - 3_600_000_000))
    events.append(Close(now=int(batches[-1].time.max()) + 10**12))
    return engine, learner, events, store


def test_going_on_from_a_state_is_going_on(case):
    """After every single turn the engine is taken apart into bytes and put together again."""
    make, learner, events, store = case
    straight = make()
    expected = [straight.advance(event) for event in events]
    assert any(turn.trained for turn in expected)
    assert any(turn.predicted for turn in expected)
    engine, labels = make(), ()
    for event, turn in zip(events, expected, strict=True):
        same(turn, engine.advance(event))
        labels = getattr(event, "label_values", labels)
        state = engine.state()
        saved = {number: model.save() for number, model in state.models.items()}
        data, needed = state.to_bytes(), engine.chunks
        fresh = {number: learner.load(blob) for number, blob in saved.items()}

        def fetch(name, needed=needed):
            assert name in needed
            return store.kept[name]

        engine = make()
        engine.restore(State.from_bytes(data, fresh), labels, fetch)
        again = engine.state()
        assert again.to_bytes() == data
        assert {n: m.digest() for n, m in again.models.items()} == {n: m.digest() for n, m in state.models.items()}


def test_a_gate_with_other_settings_begins_anew(tmp_path):
    """Evidence gathered under a former mode is none under this one: the trial is over, and the champion stays."""
    stream = pn.Stream(
        table(), time="at", target="y", time_zone="UTC", drop=["k", "word", "g"], lateness="12h", batch="1d"
    )
    prepared, store = stream.prepare(tmp_path / "stream"), Store()
    strategy = strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY)
    learner = as_learner(strategy.model)

    def engine(mode):
        return Engine(strategy, learner, schema=prepared.schema, trainer=Plain(), gate=AfterRows(mode))

    first = engine("before")
    for batch in list(prepared.batches(learner.task))[:8]:
        turn = first.advance(store.take(batch))
    assert turn.challenger is not None
    state = first.state()
    for mode, trial in (("before", turn.challenger), ("after", None)):
        again = engine(mode)
        again.restore(state, batch.label_values, store.kept.__getitem__)
        assert again.serving == turn.serving
        assert (again.advance(Tick(now=turn.now + 1)).challenger is not None) == (trial is not None)


def test_another_golden_set_begins_anew(tmp_path):
    """Its rows are settings of the gate, and where they lie is not: the trial is over when they changed."""
    rows = table().drop_columns(["k", "g"])
    stream = pn.Stream(rows, time="at", target="y", time_zone="UTC", lateness="12h", batch="1d")
    prepared, store = stream.prepare(tmp_path / "stream"), Store()
    strategy = strategies.Stateful(GaussianNB(), initial="5d", trigger=EVERY)
    learner = as_learner(strategy.model)

    def engine(first, name):
        csv.write_csv(rows.slice(first, 50), tmp_path / name)
        golden = read_labelled(tmp_path / name, stream, prepared.schema, "string", learner.task)
        gate = replace(SLICED, golden=Golden(file=str(tmp_path / name), limit=1.0))
        return Engine(strategy, learner, schema=prepared.schema, trainer=Plain(), gate=gate, golden=golden)

    before = engine(0, "golden.csv")
    for batch in list(prepared.batches(learner.task))[:8]:
        turn = before.advance(store.take(batch))
    assert turn.challenger is not None
    for again, on in ((engine(0, "moved.csv"), True), (engine(1, "golden.csv"), False)):
        again.restore(before.state(), batch.label_values, store.kept.__getitem__)
        assert (again.advance(Tick(now=turn.now + 1)).challenger is not None) == on


def test_a_state_is_checked_when_it_is_read():
    """What is no state, cut short, or of another release is refused by name."""
    whole = State(plain={"a": [1, 2.5, None]}, arrays={"x": np.arange(5), "y": np.eye(2, dtype=bool)}).to_bytes()
    back = State.from_bytes(whole, {})
    assert back.plain == {"a": [1, 2.5, None]}
    np.testing.assert_array_equal(back.arrays["y"], np.eye(2, dtype=bool))
    for data, said in [
        (b"nonsense", "no checkpoint"),
        (whole[:30], "no checkpoint"),
        (whole[:-1], "cut short"),
        (whole.replace(b'"format":1', b'"format":9'), "format 9; this release reads"),
    ]:
        with pytest.raises(pn.FormatError, match=said):
            State.from_bytes(data, {})
