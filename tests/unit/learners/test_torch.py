"""PyTorch networks: what a fit, an update and a loaded model are, and what they leave alone."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial import learners
from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError, MissingExtra
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.protocols import LearnsUnlabelled, Memorises, Trust
from perennial.core.records import Examples, Prediction
from perennial.learners import factory
from perennial.learners.export import export
from perennial.learners.golden import golden_set, reproduces_set
from perennial.learners.saved import codec_of
from perennial.testing import check_learner, make_examples

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from torch import nn  # noqa: E402

THREE = ("b", "c", "a")
DATA = make_examples(240, classes=THREE)
LINEAR: dict[str, Any] = {"params": {"in_features": 4, "out_features": 8}, "rate": 0.03, "rows": 16}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Normed(nn.Module):
    """A network with buffers and dropout: running means are state too, and draws come from the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


class Denoising(nn.Module):
    """A network with a loss of its own: it gives back what noise was added to."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.encoder(x))

    def self_supervised_loss(self, x: Any) -> Any:
        return (self.decoder(self(x + 0.3 * torch.randn_like(x))) - x).square().mean()


class Words(nn.Module):
    """An encoder as Hugging Face shapes them: token ids and a mask in, an output object out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 6)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return SimpleNamespace(last_hidden_state=self.table(input_ids) * 1.0)


def tokens(frame: Any) -> dict[str, Any]:
    """Ids of the letters of each text, padded to eight with a letter that the mask hides."""
    texts = [str(text)[:8] for text in frame["text"]]
    ids = [[ord(c) % 31 for c in text] + [31] * (8 - len(text)) for text in texts]
    mask = [[1] * len(text) + [0] * (8 - len(text)) for text in texts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def normed() -> Any:
    """The network with the same weights each time."""
    torch.manual_seed(3)
    return Normed()


def without(data: Examples, code: int) -> Examples:
    """The examples of the other classes."""
    assert data.codes is not None
    return data.take(np.flatnonzero(data.codes != code).astype(np.int64))


def unlabelled(data: Examples, every: int = 4) -> Examples:
    """Only each ``every``-th row keeps its label."""
    assert data.codes is not None
    return replace(data, codes=np.where(np.arange(len(data)) % every == 0, data.codes, -1).astype(np.int32))


def texts(n: int) -> Examples:
    """Short texts: those with an `a` in front are of one class."""
    base = make_examples(n)
    assert base.codes is not None
    said = [("a" if code else "z") + "bcdefg"[: i % 6] for i, code in enumerate(base.codes)]
    schema = Schema([Column("text", Kind.TEXT, "string")])
    return replace(base, features=Features.of(Chunk(pa.table({"text": said}), schema)))


def weights(model: Any) -> dict[str, Any]:
    """The tensors that predict."""
    return {name: t for name, t in model._state().items() if name.startswith(("module.", "head."))}


def proba(said: Prediction) -> Any:
    """The probabilities, which there are."""
    assert said.proba is not None
    return said.proba


def moved(model: Any, before: dict[str, Any]) -> float:
    """How far a model's weights are from former ones."""
    after = weights(model)
    return math.sqrt(sum(float((after[name].float() - t.float()).square().sum()) for name, t in before.items()))


@pytest.mark.parametrize("kind", [Normed, Denoising])
def test_the_contract_holds_for_networks_of_all_kinds(kind: Any) -> None:
    """With buffers and dropout, and with a loss of its own; all ways to update at once."""

    def make() -> Any:
        torch.manual_seed(3)
        network = kind()
        ways: dict[str, Any] = {"replay": 40, "anchor": 0.01, "shrink": 0.99, "perturb": 0.01}
        return learners.FineTuned(network, epochs=6, update_epochs=4, rows=16, rate=0.03, **ways)

    check_learner(make, "classification")


# -- classes ----------------------------------------------------------------------------------------------------------


def test_the_head_grows_and_leaves_the_old_classes_as_they_were() -> None:
    """A class that comes later gets about its share, and the others keep their odds and their order."""
    model: Any = learners.FineTuned("torch.nn.Linear", **LINEAR)
    model = model.fit(without(DATA, 1), 1)
    before = proba(model.predict(DATA.features))
    assert model._classes == ["b", "a"]
    rows = model._rows(DATA)
    model._prepare_head(rows)
    said = model.predict(DATA.features)
    assert said.classes == ("b", "a", "c")
    after = proba(said)
    np.testing.assert_allclose(after[:, :2] / after[:, :2].sum(axis=1, keepdims=True), before, atol=1e-6)
    assert DATA.codes is not None
    assert after[:, 2].mean() == pytest.approx(np.mean(DATA.codes == 1), abs=0.05)
    assert not model._head.weight[2].any()


def test_an_update_learns_a_new_class() -> None:
    """It is then told from the others, and they from each other."""
    model: Any = learners.FineTuned("torch.nn.Linear", update_epochs=8, **LINEAR).fit(without(DATA, 1), 1)
    model.update(DATA, 2)
    said = model.predict(DATA.features)
    right = np.mean(np.array(said.classes)[said.codes] == DATA.y)
    assert right > 0.7


def test_a_module_with_outputs_of_its_own_has_a_fixed_list_of_classes() -> None:
    """Named outputs mean what they are called, from the start; one class too many is told in words."""
    learner: Any = learners.FineTuned(nn.Linear(4, 2), head=False, classes=["c", "b"], rate=0.03, rows=16)
    begun = learner.begin()
    assert begun.predict(DATA.features).classes == ("c", "b")
    model = learner.fit(without(DATA, 2), 1)
    said = model.predict(without(DATA, 2).features)
    assert np.mean(np.array(said.classes)[said.codes] == without(DATA, 2).y) > 0.7
    with pytest.raises(LearnerError, match=r"tells 2 classes apart \('c', 'b'\), and 'a' is another"):
        model.update(DATA, 2)
    unnamed: Any = learners.FineTuned(nn.Linear(4, 2), head=False)
    with pytest.raises(LearnerError, match="gives 2 outputs, and 3 are needed"):
        unnamed.fit(DATA, 1)


def test_a_regression_is_standardised_by_its_first_fit() -> None:
    """Values far from zero are learned at the same rate."""
    data = make_examples(200, task="regression")
    assert data.values is not None
    far = replace(data, values=5000.0 + 300.0 * data.values)
    model: Any = learners.FineTuned("torch.nn.Identity", task="regression", rate=0.05, rows=16).fit(far, 1)
    said = model.predict(far.features).values
    assert np.mean((said - far.values) ** 2) < 0.3 * np.var(far.values)
    model.update(far.slice(0, 40), 2)
    assert model._centre == far.values.mean()


# -- updates ----------------------------------------------------------------------------------------------------------


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    """A line to 1 over the share that was asked for, then half a cosine; with no share it starts at 1."""
    from perennial.learners.torch import pace

    told = [pace(step, 100, 0.1) for step in range(100)]
    assert told[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in pairwise(told[10:]))
    assert told[55] == pytest.approx(0.5)
    assert 0 < told[-1] < 0.001
    assert pace(0, 100, 0.0) == 1.0
    assert pace(0, 1, 0.1) == 1.0
    assert pace(9, 10, 1.0) == 1.0


def test_an_anchor_pulls_to_the_first_version() -> None:
    """The stronger it is, the nearer updates stay to the weights of the fit, also after save and load."""
    far = []
    for anchor in (0.0, 0.3, 30.0):
        model: Any = learners.FineTuned("torch.nn.Linear", anchor=anchor, update_epochs=10, weight_decay=0.0, **LINEAR)
        model = model.fit(DATA.slice(0, 120), 1)
        first = weights(model)
        flipped = replace(DATA, classes=("c", "a", "b")).slice(120, 240)
        for turn in range(3):
            model.update(flipped, turn)
            model = model.load(model.save())
        far.append(moved(model, first))
    assert far[0] > 1.5 * far[1] > 3 * far[2] > 0


def test_shrink_and_perturb_comes_before_an_update() -> None:
    """Weights are multiplied and noise is added, with the standard deviation asked for."""
    learner: Any = learners.FineTuned("torch.nn.Linear", shrink=0.5, perturb=0.01, **LINEAR)
    model = learner.fit(DATA, 1)
    before = weights(model)
    with torch.random.fork_rng():
        model._shrink_and_perturb()
    noise = torch.cat([(weights(model)[name] - 0.5 * t).ravel() for name, t in before.items()])
    assert float(noise.std()) == pytest.approx(0.01, rel=0.3)
    plain: Any = learners.FineTuned("torch.nn.Linear", **LINEAR).fit(DATA, 1)
    shrunk = learner.fit(DATA, 1)
    assert weights(plain).keys() == weights(shrunk).keys()
    start = weights(plain)
    for updated in (plain, shrunk):
        updated.update(DATA.slice(0, 16), 2)
    assert moved(shrunk, start) > 2 * moved(plain, start)


def test_replay_keeps_rows_and_says_so() -> None:
    """A reservoir of the size asked for holds rows of all times, goes with the model, and is told."""
    learner: Any = learners.FineTuned("torch.nn.Linear", replay=50, replay_share=0.5, **LINEAR)
    assert isinstance(learner, Memorises)
    assert "keeps up to 50 rows" in str(learner.memorises(untrained=False))
    assert learners.FineTuned("torch.nn.Linear", **LINEAR).memorises(untrained=False) is None  # type: ignore[attr-defined]
    model = learner.fit(DATA.slice(0, 40), 1)
    assert len(model._kept) == 40
    for start in range(40, 240, 40):
        model.update(DATA.slice(start, start + 40), start)
    assert len(model._kept) == 50
    assert model._seen == 240
    matrix = DATA.features.matrix().astype(np.float32)
    place = [int(np.flatnonzero((matrix == row).all(axis=1))[0]) for row in model._kept.inputs.numpy()]
    assert len(set(place)) == 50
    assert min(place) < 60
    assert max(place) > 180
    assert DATA.codes is not None
    assert [model._classes[c] for c in model._kept.labels] == [DATA.classes[DATA.codes[i]] for i in place]


def test_replay_remembers_a_class_that_no_longer_comes() -> None:
    """Where only two of three classes go on, the third is forgotten less."""
    kept = []
    for replay in (0, 100):
        model: Any = learners.FineTuned("torch.nn.Linear", replay=replay, update_epochs=10, **LINEAR).fit(DATA, 1)
        for turn in range(3):
            model.update(without(DATA, 1), turn)
        said = model.predict(DATA.features)
        truth = DATA.y == "c"
        kept.append(proba(said)[truth, said.classes.index("c")].mean())
    assert kept[1] > 1.5 * kept[0]


def test_a_reservoir_needs_rows_of_one_shape() -> None:
    """Rows that come wider than the kept ones cannot be mixed with them, which is told in words."""
    width = {"now": 4}

    def encode(frame: Any) -> Any:
        return torch.tensor(frame.to_numpy()[:, : width["now"]], dtype=torch.float32)

    class Mean(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mean(dim=1, keepdim=True)

    model: Any = learners.FineTuned(Mean(), encode=encode, replay=10).fit(DATA, 1)
    width["now"] = 3
    with pytest.raises(LearnerError, match="pad every row to one fixed length"):
        model.update(DATA, 2)


def test_a_frozen_module_trains_the_head_alone() -> None:
    """No weight and no running mean of the module changes; the head learns."""
    model: Any = learners.FineTuned(normed(), freeze="module", rate=0.1, rows=16).fit(DATA, 1)
    given = normed().state_dict()
    assert all(torch.equal(t, given[name]) for name, t in model._module.state_dict().items())
    said = model.predict(DATA.features)
    assert np.mean(np.array(said.classes)[said.codes] == DATA.y) > 0.5


@pytest.mark.parametrize("settings", [{}, {"anchor": 0.1}, {"replay": 30}, {"shrink": 0.9, "perturb": 0.01}])
def test_going_on_from_a_saved_model_is_going_on(settings: dict[str, Any]) -> None:
    """Bit for bit, with buffers, dropout and a class that comes on the way; other draws in between change nothing."""
    learner: Any = learners.FineTuned(normed(), rows=16, **settings)
    straight, resumed = (learner.fit(without(DATA.slice(0, 80), 2), 1) for _ in range(2))
    for turn, start in enumerate(range(80, 240, 40)):
        straight.update(DATA.slice(start, start + 40), turn)
        torch.manual_seed(turn)
        resumed = learners.FineTuned(normed(), rows=16, **settings).load(resumed.save())  # type: ignore[assignment]
        resumed.update(DATA.slice(start, start + 40), turn)
        assert straight.digest() == resumed.digest()
    np.testing.assert_array_equal(proba(straight.predict(DATA.features)), proba(resumed.predict(DATA.features)))


def test_a_row_alone_can_be_learned_where_layers_normalise() -> None:
    """One row has no variance; the layers then go by what they have seen."""
    model: Any = learners.FineTuned(normed()).fit(DATA, 1)
    before = model.digest()
    model.update(DATA.slice(0, 1), 2)
    assert model.digest() != before


# -- rows without labels ----------------------------------------------------------------------------------------------


def test_a_module_with_a_loss_of_its_own_learns_from_rows_without_a_label() -> None:
    """It is a type; such rows change the weights, also alone and before any label, and the head only where it may."""
    torch.manual_seed(0)
    learner: Any = learners.FineTuned(Denoising(), rows=16)
    assert isinstance(learner, LearnsUnlabelled)
    assert not isinstance(learners.FineTuned(Denoising(), self_supervised=0), LearnsUnlabelled)
    assert not isinstance(learners.FineTuned(normed()), LearnsUnlabelled)
    few = unlabelled(DATA)
    assert few.codes is not None
    model, only = learner.fit(few, 1), learner.fit(few.take(np.flatnonzero(few.codes >= 0).astype(np.int64)), 1)
    assert model.digest() != only.digest()

    none = replace(DATA, codes=np.full(240, -1, dtype=np.int32))
    begun = learner.begin()
    start = weights(begun)
    begun.update(none, 1)
    assert moved(begun, start) > 0
    assert (begun.predict(DATA.features).codes == -1).all()
    begun.update(DATA, 2)
    assert set(begun.predict(DATA.features).classes) == set(THREE)


def test_rows_without_a_label_help_where_labels_are_few() -> None:
    """The module's own loss falls by training on them."""
    torch.manual_seed(0)
    learner: Any = learners.FineTuned(Denoising(), rows=16, rate=0.01)
    none = replace(DATA, codes=np.full(240, -1, dtype=np.int32))
    model = learner.begin()
    x = torch.from_numpy(DATA.features.matrix().astype(np.float32))

    def own() -> float:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(5)
            return float(model._module.self_supervised_loss(x))

    before = own()
    for turn in range(6):
        model.update(none, turn)
    assert own() < 0.8 * before


# -- rows -------------------------------------------------------------------------------------------------------------


def with_column(name: str, values: Any, kind: Kind = Kind.NUMBER) -> Features:
    """Three rows of which one column is odd."""
    columns = [Column("x0", Kind.NUMBER, "double"), Column(name, kind, str(pa.array(values).type))]
    table = pa.table({"x0": np.arange(len(values), dtype=float), name: values})
    return Features.of(Chunk(table, Schema(columns)))


@pytest.mark.parametrize(
    ("values", "kind", "what"),
    [
        ([1.0, None, 3.0], Kind.NUMBER, "column 'odd' holds nulls"),
        ([1.0, float("inf"), 3.0], Kind.NUMBER, "column 'odd' holds infinite values"),
        ([1.0, 1e200, 3.0], Kind.NUMBER, "or too large ones for float32"),
        (["a", "b", "c"], Kind.TEXT, "column 'odd' holds words"),
    ],
)
def test_what_a_matrix_cannot_hold_is_refused_by_name(values: Any, kind: Kind, what: str) -> None:
    """Before training, by `check`, and in a fit."""
    learner: Any = learners.FineTuned(nn.Identity())
    rows = with_column("odd", values, kind)
    with pytest.raises(DataError, match=what):
        learner.check(rows)
    with pytest.raises(DataError, match=what):
        learner.fit(replace(make_examples(3), features=rows), 1)


def test_an_encoder_of_words_is_pooled_over_its_mask() -> None:
    """Tokens go in by name, and what is padded counts for nothing."""
    torch.manual_seed(0)
    learner: Any = learners.FineTuned(Words(), encode=tokens, rate=0.05, replay=20)
    data = texts(160)
    learner.check(data.features)
    model = learner.fit(data.slice(0, 120), 1)
    model.update(data.slice(120, 160), 2)
    said = model.predict(data.features)
    assert np.mean(np.array(said.classes)[said.codes] == data.y) > 0.95
    assert model.serving() is None
    with torch.no_grad():
        model._module.table.weight[31] = 100.0  # the padding
    np.testing.assert_array_equal(proba(said), proba(model.predict(data.features)))


def test_rows_have_the_precision_of_the_module() -> None:
    """Whatever numpy made: halves and doubles train, are saved and come back."""
    for kind in (torch.bfloat16, torch.float64):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.Tanh()).to(kind)
        learner: Any = learners.FineTuned(network, encode=lambda frame: frame.to_numpy(), rate=0.05, rows=16)
        model = learner.fit(DATA, 1)
        model.update(DATA, 2)
        said = model.predict(DATA.features)
        assert np.mean(np.array(said.classes)[said.codes] == DATA.y) > 0.6
        assert learner.load(model.save()).digest() == model.digest()


def test_an_encoder_that_loses_rows_is_told() -> None:
    """As many rows must come out as went in."""
    learner: Any = learners.FineTuned(nn.Identity(), encode=lambda frame: torch.zeros(3, 2))
    with pytest.raises(LearnerError, match=r"shape \(3, 2\) for 240 rows"):
        learner.fit(DATA, 1)


def test_the_quickest_form_may_be_asked_by_several_threads() -> None:
    """And says what `predict` says."""
    model: Any = learners.FineTuned(normed()).fit(DATA, 1)
    form, matrix = model.serving(), DATA.features.matrix()
    found: list[bool] = []

    def ask() -> None:
        found.extend(np.array_equal(proba(form(matrix)), proba(model.predict(DATA.features))) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


# -- what is left alone, saved and told -------------------------------------------------------------------------------


def test_nothing_global_is_changed() -> None:
    """Random state, gradients, threads, and the module that was given are as they were."""
    given = normed()
    before = {name: t.clone() for name, t in given.state_dict().items()}
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    with torch.no_grad():
        model: Any = learners.FineTuned(given).fit(DATA, 1)
        model.update(DATA, 2)
        model.predict(DATA.features)
        model.serving()(DATA.features.matrix())
        assert not torch.is_grad_enabled()
    learners.FineTuned("torch.nn.Linear", **LINEAR)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()
    assert given.training
    assert all(torch.equal(t, before[name]) for name, t in given.state_dict().items())


def test_what_a_path_makes_is_the_same_everywhere() -> None:
    """Whatever was drawn before; and it can be said as a model of the configuration."""
    written = {"estimator": "perennial.learners.FineTuned", "params": {"module": "torch.nn.Linear", **LINEAR}}
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(learners.as_learner(written).identity())
        found.append(learners.FineTuned("torch.nn.Linear", **LINEAR).identity())
    assert len(set(found)) == 1
    assert learners.FineTuned("torch.nn.Linear", **{**LINEAR, "rows": 8}).identity() != found[0]
    bare = [learners.as_learner("torch.nn.Linear", params=LINEAR["params"]).identity() for _ in range(2)]
    assert bare[0] == bare[1]


def test_any_network_is_a_learner() -> None:
    """Also one whose class is the user's own; other things of PyTorch are none."""
    learner = learners.as_learner(normed())
    assert learner.name == "FineTuned(Normed)"
    assert learner.task == "classification"
    with pytest.raises(ConfigError, match=r"give a torch\.nn\.Module"):
        learners.as_learner(torch.zeros(3))
    with pytest.raises(ConfigError, match="lazy layers"):
        learners.as_learner(nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rates": 0.1}, "did you mean `rate`"),
        ({"rate": "fast"}, "positive number"),
        ({"rate": 0}, "positive number"),
        ({"epochs": 0}, "whole number, 1 or more"),
        ({"replay": -1}, "whole number, 0 or more"),
        ({"shrink": 1.5}, "factor"),
        ({"warmup": 2}, "share of the steps"),
        ({"anchor": -1}, "0 or more"),
        ({"task": "ranking"}, "use one of"),
        ({"freeze": "head"}, "give `module`"),
        ({"freeze": "module", "head": False}, "nothing would be trained"),
        ({"classes": ["a", "b"]}, "give head=False too"),
        ({"head": False, "classes": ["a", "a"]}, "name each class once"),
        ({"device": "tpu"}, "give `cpu` or `cuda`"),
        ({"encode": 3}, "a function from a pandas frame"),
    ],
)
def test_wrong_settings_are_told_when_made(settings: dict[str, Any], match: str) -> None:
    """Each names the setting and the rule."""
    with pytest.raises(ConfigError, match=match) as caught:
        learners.FineTuned(nn.Identity(), **settings)
    assert caught.value.field in settings


def test_a_saved_model_holds_tensors_and_no_code(tmp_path: Path) -> None:
    """Without any permission; golden rows come out the same, and another network's weights are refused."""
    learner: Any = learners.FineTuned(normed(), anchor=0.1, replay=10)
    model = learner.fit(DATA, 1)
    blob = model.save(Trust())
    assert codec_of(blob) == "native"
    loaded = learner.load(blob, Trust())
    assert loaded.size() == model.size() > 0
    assert reproduces_set(loaded, golden_set(model, DATA.features))
    with pytest.raises(FormatError, match="of another network than Linear is now"):
        learners.FineTuned("torch.nn.Linear", **LINEAR).load(blob)


def test_tied_weights_come_back_tied() -> None:
    """A tensor that two layers share is saved, and goes on being one."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4, bias=False)
            self.two = nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Any) -> Any:
            return self.two(torch.tanh(self.one(x)))

    torch.manual_seed(0)
    learner: Any = learners.FineTuned(Tied())
    model = learner.fit(DATA, 1)
    loaded = learner.load(model.save())
    for each in (model, loaded):
        each.update(DATA, 2)
        assert each._module.one.weight is each._module.two.weight
    assert model.digest() == loaded.digest()


def test_an_exported_model_opens_without_us(tmp_path: Path) -> None:
    """Weights as safetensors, the rest as JSON: the module, the head and a softmax say what the model says."""
    model: Any = learners.FineTuned("torch.nn.Linear", **LINEAR).fit(DATA, 1)
    written = export(model, tmp_path, "v1", schema=DATA.features.schema)
    assert "safetensors.torch.load_file" in written.readme
    held = safetensors.load_file(written.path / "model.safetensors")
    facts = json.loads((written.path / "model.json").read_text())
    layer = nn.Linear(4, 8)
    layer.load_state_dict({name.removeprefix("module."): t for name, t in held.items() if name.startswith("module.")})
    with torch.no_grad():
        shown = layer(torch.from_numpy(DATA.features.matrix().astype(np.float32)))
        said = torch.softmax(shown @ held["head.weight"].T + held["head.bias"], dim=1)
    assert facts["classes"] == list(THREE)
    np.testing.assert_allclose(said.numpy(), proba(model.predict(DATA.features)), atol=1e-5)


def test_weights_that_grow_without_bound_are_an_error() -> None:
    """It says what to do, and serves nothing."""
    huge = replace(make_examples(64, task="regression"), values=np.full(64, 1.0))
    learner: Any = learners.FineTuned(nn.Linear(4, 1), task="regression", head=False, rate=1e30, clip=None)
    with pytest.raises(LearnerError, match="lower `rate`"):
        learner.fit(huge, 1)


@pytest.mark.parametrize("lost", ["torch", "safetensors"])
def test_what_is_not_installed_is_named(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only the format of the weights is missing."""
    monkeypatch.delitem(sys.modules, factory.FRAMEWORKS["torch"], raising=False)
    monkeypatch.setitem(sys.modules, lost, None)
    with pytest.raises(MissingExtra, match=r"pip install 'perennial\[torch\]'"):
        learners.FineTuned("perennial.learners:FRAMEWORKS")


def test_weights_of_rows_count() -> None:
    """A row that weighs nothing might as well have another label."""
    assert DATA.codes is not None
    wrong = np.where(np.arange(240) % 2 == 0, DATA.codes, (DATA.codes + 1) % 3).astype(np.int32)
    weighed = replace(DATA, codes=wrong, weights=np.where(np.arange(240) % 2 == 0, 1.0, 0.0))
    learner: Callable[..., Any] = learners.FineTuned
    right = []
    for data in (weighed, replace(weighed, weights=None)):
        said = learner("torch.nn.Identity", rate=0.05, rows=16).fit(data, 1).predict(DATA.features)
        right.append(np.mean(np.array(said.classes)[said.codes] == DATA.y))
    assert right[0] > right[1] + 0.1


class _Gain(nn.Module):
    """Two networks of this class may differ in a plain number alone."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.line, self.gain = nn.Linear(4, 3), gain

    def forward(self, rows: Any) -> Any:
        return self.gain * self.line(rows)


def test_a_plain_attribute_is_part_of_the_identity() -> None:
    """Two networks that say different things are never taken for one another."""
    made = []
    for gain in (1.0, 0.0, 1.0):
        torch.manual_seed(0)
        made.append(learners.FineTuned(_Gain(gain)).identity())
    assert made[0] == made[2] != made[1]
