"""A committee: many experts, each weighed by how it did lately.

Experts may learn in any way: updated in place, made anew on a window (:func:`perennial.learners.Rebuilt`), or frozen.
Their weights follow fixed share: those that lose less on a batch gain weight, and a small part of all weight is shared
out again after every batch, so that an expert that was of no use for long can come back within a few. Now and then the
expert that leads is copied and kept as it is: a concept that returns is met by who knew it, and not by training.

What is said is the mean of the experts' probabilities, or values, by weight. Let ``L[i, t]`` be the loss of expert i on
batch t (log loss in nats, summed over its rows) and ``w`` the weights before it. After the batch

    ``w[i] <- (1 - share) * v[i] + share / K``,  with  ``v[i]`` proportional to ``w[i] * exp(-rate * L[i, t])``.

The regret is what the committee lost above the best expert in hindsight. Over T batches it is at most

    ``(ln(K) + (T - 1) * ln(1 / (1 - share + share / K))) / rate  +  sum of gaps``,

where the gap of a batch is the committee's own loss less its mix loss,
``-ln(sum of w[i] exp(-rate * L[i, t])) / rate``. Both are counted as they happen, so the bound is a fact about this
stream and needs no assumption. Where experts give probabilities, none of which is near 0, and ``rate`` is at most one
over the weight of a batch's rows, no gap is above 0 (the log loss is exp-concave), and what is left is the textbook's
bound; a greater rate follows faster, and pays with gaps.

References
----------
Herbster and Warmuth (1998), Tracking the best expert, Machine Learning 32: fixed share. De Rooij, van Erven, Grünwald
and Koolen (2014), Follow the leader if you can, hedge if you must, Journal of Machine Learning Research 15: mix loss
and gap ("mixability gap"). Which copies stay, those that differ most in what they say, is our own rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LearnerError, nearest
from perennial.core.features import Features
from perennial.core.identity import canonical, digest, seed_from
from perennial.core.protocols import LOCAL, Learner, Servable, Serving, Sized, Trust, Updatable
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind, align
from perennial.learners.around import CODECS, Around, loaded, per_row, saved, told
from perennial.learners.export import Exportable, Files, as_json
from perennial.learners.recall import Recall, shown
from perennial.learners.saved import join, pack, part, unpack

Floats = NDArray[np.float64]

_FLOOR = 1e-6  #: probabilities below it lose as much as it: one row must not decide over an expert for good


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How weights follow losses, and what is kept; see :func:`perennial.learners.committee.committee`."""

    rate: float = 0.05
    share: float = 0.05
    champions: int = 0
    every: int = 10
    most_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < math.inf:
            raise ConfigError("rate", self.rate, "give how fast weights follow losses, e.g. 0.05 per nat")
        if not 0.0 < self.share < 1.0:
            raise ConfigError("share", self.share, "give the part of all weight that is shared out again, in (0, 1)")
        if not isinstance(self.champions, int) or self.champions < 0:
            raise ConfigError("champions", self.champions, "give how many frozen copies are kept, 0 or more")
        if not isinstance(self.every, int) or self.every < 1:
            raise ConfigError("every", self.every, "give after how many updates a copy is made, 1 or more")
        if self.most_bytes < 1:
            raise ConfigError("most_bytes", self.most_bytes, "give a positive number of bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a committee and its experts lost, in nats (or squared error over twice its mean), and what bounds it.

    Parameters
    ----------
    batches, rows : int
        That were learned since the fit, and so were predicted before.
    lost : float
        By the committee.
    gaps : float
        Sum over batches of its loss less its mix loss.
    experts : mapping of str to float
        Lost by each expert that was there from the start; a copy that joined later is held against nothing.
    """

    batches: int = 0
    rows: float = 0.0
    lost: float = 0.0
    gaps: float = 0.0
    experts: Mapping[str, float] = field(default_factory=dict)

    @property
    def regret(self) -> float:
        """Lost above the best expert in hindsight; below 0 where the mean was better than every single one."""
        return self.lost - min(self.experts.values()) if self.experts else 0.0


@dataclass(slots=True, kw_only=True)
class _Expert:
    """One voice: its template, its model, its weight, and whether it learns."""

    name: str
    of: str  # the template's name
    model: Learner
    weight: float
    frozen: bool = False


@final
class CommitteeLearner(Around):
    """Experts whose weights follow their losses.

    Parameters
    ----------
    experts : mapping of str to Learner
        By name, two or more, all of one task. Those that cannot be updated are frozen after their fit.
    settings : Settings
        See there.
    """

    def __init__(self, experts: Mapping[str, Learner], settings: Settings, *, label: str = "Committee") -> None:
        if len(experts) < 2:
            raise ConfigError("experts", sorted(experts), "give two or more, by name")
        tasks = {expert.task for expert in experts.values()}
        if len(tasks) > 1:
            raise ConfigError("experts", sorted(tasks), "give experts of one task: all classify, or none does")
        if not any(isinstance(expert, Updatable) for expert in experts.values()):
            raise ConfigError("experts", sorted(experts), "give at least one that can be updated")
        unsized = next((name for name, expert in experts.items() if not isinstance(expert, Sized)), None)
        if unsized is not None:
            raise ConfigError("experts", unsized, f"{experts[unsized].name} has no size(): a committee bounds its own")
        if any("@" in name for name in experts):
            raise ConfigError("experts", sorted(experts), "leave @ out of names: copies are told by it")
        self._templates = dict(experts)
        self._settings, self._label = settings, label
        self._experts: list[_Expert] | None = None
        self._classes: tuple[Label, ...] = ()
        self._account = Account()
        self._scale = 0.0  # regression: mean squared error of the committee so far
        self._labels = (0.0, 0.0, 0.0)  # regression: weight, mean, and summed squares about it of the labels so far
        self._built = 0.0
        self._entry = 0.0  # ln K of the start, and what copies that joined took from its experts
        self._recall = Recall()

    def _inside(self) -> Sequence[Learner]:
        return list(self._templates.values()) if self._experts is None else [one.model for one in self._experts]

    @property
    def name(self) -> str:
        """``Committee(...)`` of its experts' names."""
        return f"{self._label}({', '.join(self._templates)})"

    @property
    def task(self) -> TaskKind:
        """That of its experts."""
        return next(iter(self._templates.values())).task

    @property
    def experts(self) -> Mapping[str, Learner]:
        """The templates of its experts, by name."""
        return dict(self._templates)

    def identity(self) -> str:
        """Every expert and the settings."""
        experts = {name: learner.identity() for name, learner in self._templates.items()}
        return canonical({"learner": "Committee", "of": experts, "settings": self._settings})

    def fit(self, examples: Examples, seed: int) -> Self:
        """Every expert fitted on all examples; each weighs the same."""
        return self._started(
            {n: t.fit(examples, seed_from(str(seed), n)) for n, t in self._templates.items()}, len(examples), examples
        )

    def begin(self) -> Self:
        """Untrained experts.

        Raises
        ------
        LearnerError
            If one of them wants a fit first.
        """
        models: dict[str, Learner] = {}
        for name, template in self._templates.items():
            if not isinstance(template, Updatable):
                raise LearnerError(f"the expert {name!r}, {template.name}, must be fitted first: give `initial`")
            models[name] = template.begin()
        return self._started(models, 0, None)

    def update(self, examples: Examples, seed: int) -> None:
        """Weigh the experts by what they said of these examples; then let those learn that can."""
        experts = self._trained()
        if not len(examples):
            return
        counted = self._weigh(experts, examples)
        if examples.codes is not None:
            self._classes = examples.classes
        rows, built = len(examples), 0
        for one in experts:
            if not one.frozen and isinstance(one.model, Updatable):
                one.model.update(examples, seed_from(str(seed), one.name))
                built += one.model.row_trees(rows)
        self._built = built / rows
        self._recall.forget()  # those that learned say something else now
        if counted and self._account.batches % self._settings.every == 0:
            self._keep_leader(examples)
        self._within_bounds()

    def predict(self, features: Features) -> Prediction:
        """The experts' probabilities or values in the mean by weight; who abstains from a row has no say in it."""
        rows = shown(features)
        experts = self._trained()
        return self._mixed(
            [self._recall.of(rows, one, partial(one.model.predict, features), features.schema) for one in experts]
        )

    def serving(self) -> Serving | None:
        """The quickest forms of all experts; None if one has none."""
        forms = [one.model.serving() if isinstance(one.model, Servable) else None for one in self._trained()]
        quick = [form for form in forms if form is not None]
        return None if len(quick) < len(forms) else lambda matrix: self._mixed([form(matrix) for form in quick])

    def account(self) -> Mapping[str, Any]:
        """Weights, losses, regret and its bound, as plain data: losses per row, in nats or squared error.

        ``bound`` and ``regret`` are totals; a stream of no batch yet has neither.
        """
        experts, a = self._trained(), self._account
        rows = max(a.rows, 1e-12)
        return {
            "experts": [
                {"name": e.name, "weight": e.weight, "frozen": e.frozen, "loss": a.experts[e.name] / rows}
                if e.name in a.experts
                else {"name": e.name, "weight": e.weight, "frozen": e.frozen, "loss": None}
                for e in experts
            ],
            "batches": a.batches,
            "rows": a.rows,
            "loss": a.lost / rows,
            "regret": a.regret if a.batches else None,
            "bound": self.bound() if a.batches else None,
            "gaps": a.gaps,
            "rate": self._settings.rate,
            "share": self._settings.share,
            "most_bytes": self._settings.most_bytes,
            "unit": "nats" if self.task == "classification" else "squared error over twice its mean",
        }

    def bound(self) -> float:
        """What the regret cannot exceed on what was seen so far, in the unit of the losses; see the module."""
        s, k = self._settings, len(self._templates) + self._settings.champions
        stay = max(self._account.batches - 1, 0) * -math.log(1.0 - s.share + s.share / k)
        return (self._entry + stay) / s.rate + self._account.gaps

    def save(self, trust: Trust = LOCAL) -> bytes:
        """Weights and account as text, and what every expert saves."""
        experts = self._trained()
        blobs, codec = saved([one.model for one in experts], trust)
        a = self._account
        state = {
            "experts": [[one.name, one.of, one.weight, one.frozen] for one in experts],
            "classes": self._classes,
            "account": [a.batches, a.rows, a.lost, a.gaps, list(a.experts.items())],
            "scale": self._scale,
            "labels": self._labels,
            "built": self._built,
            "entry": self._entry,
        }
        return pack(self.name, join(state, blobs), {}, codec)

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; every expert is loaded by the same trust."""
        state, blobs = part(unpack(self.name, blob, {}, trust, CODECS)[1])
        new = type(self)(self._templates, self._settings, label=self._label)
        new._experts = [
            _Expert(name=name, of=of, model=loaded(self._templates[of], one, trust), weight=weight, frozen=frozen)
            for (name, of, weight, frozen), one in zip(state["experts"], blobs, strict=True)
        ]
        batches, rows, lost, gaps, experts = state["account"]
        new._account = Account(batches=batches, rows=rows, lost=lost, gaps=gaps, experts=dict(experts))
        new._classes, new._scale, new._built = tuple(state["classes"]), state["scale"], state["built"]
        new._entry, new._labels = state["entry"], tuple(state["labels"])
        return new

    def exported(self, trust: Trust) -> Files:
        """The files of every expert, and their weights as JSON."""
        files: dict[str, bytes] = {}
        experts: list[dict[str, Any]] = []
        for one in self._trained():
            if not isinstance(one.model, Exportable):
                raise LearnerError(f"{one.model.name} has no plain form: its type has no method `exported`")
            inner = one.model.exported(trust)
            of, _, batch = one.name.partition("@")
            place = f"copies/{batch}/{of}" if batch else f"experts/{of}"
            names = [f"{place}/{name}" for name in inner.files]
            files |= dict(zip(names, inner.files.values(), strict=True))
            experts.append({"name": one.name, "weight": one.weight, "files": names, "readme": inner.readme})
        facts = {"classes": self._classes, "experts": experts}
        readme = "the sum over experts of weight * what it says, in committee.json, which says how to ask each"
        return Files(files={"committee.json": as_json(facts), **files}, readme=readme)

    def digest(self) -> str:
        """Digest of the experts, their weights, and the account."""
        a = self._account
        plain = [
            [[one.name, one.weight, one.frozen] for one in self._trained()],
            list(self._classes), self._scale, list(self._labels), self._built, self._entry,
            [a.batches, a.rows, a.lost, a.gaps, sorted(a.experts.items())],
        ]  # fmt: skip
        return digest(canonical(plain), *(one.model.digest() for one in self._trained()))

    def row_trees(self, rows: int) -> int:
        """What the last training of all experts cost."""
        return round(rows * self._built)

    # ------------------------------------------------------------------ state

    def _started(self, models: Mapping[str, Learner], rows: int, examples: Examples | None) -> Self:
        new = type(self)(self._templates, self._settings, label=self._label)
        equal = 1.0 / len(models)
        new._experts = [
            _Expert(name=name, of=name, model=model, weight=equal, frozen=not isinstance(model, Updatable))
            for name, model in models.items()
        ]
        new._entry = math.log(len(models))
        new._account = Account(experts=dict.fromkeys(models, 0.0))
        if examples is not None:
            new._classes = examples.classes if examples.codes is not None else ()
            new._built = per_row(list(models.values()), rows) / max(rows, 1)
            new._within_bounds()
        return new

    def _trained(self) -> list[_Expert]:
        if self._experts is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._experts

    # ------------------------------------------------------------------ weights

    def _weigh(self, experts: list[_Expert], examples: Examples) -> bool:
        """Losses of all on examples that none has learned; the account, and the weights that follow.

        False, and nothing else, if nobody said anything of them.
        """
        rows = shown(examples.features)
        said = [
            self._recall.of(rows, one, partial(one.model.predict, examples.features), examples.features.schema)
            for one in experts
        ]
        mixed = self._mixed(said)
        heard = told(mixed)
        if not heard.any():
            return False
        weights = np.ones(len(examples)) if examples.weights is None else examples.weights
        if self.task == "regression":
            self._hear(examples, weights)
        own = np.where(heard, self._losses(mixed, examples), 0.0)
        # who abstains from a row loses what the committee does, and neither gains nor loses weight by it
        each = [
            np.where(there, self._losses(one, examples), own) if (there := told(one)).any() else own for one in said
        ]
        lost, losses = float(weights @ own), np.array([float(weights @ one) for one in each])
        if not math.isfinite(lost) or not np.isfinite(losses).all():
            raise LearnerError(f"{self.name}: an expert said what is no number of these examples")
        rate, before = self._settings.rate, np.array([one.weight for one in experts])
        exponents = -rate * (losses - losses.min())
        gained = before * np.exp(exponents)
        total = float(gained.sum())
        mix = float(losses.min()) - math.log(total) / rate
        a = self._account
        self._account = Account(
            batches=a.batches + 1,
            rows=a.rows + float(weights[heard].sum()),
            lost=a.lost + lost,
            gaps=a.gaps + (lost - mix),
            experts={
                n: a.experts[n] + float(v) for n, v in zip(_names(experts), losses, strict=True) if n in a.experts
            },
        )
        if self.task == "regression":
            self._scale = self._next_scale(mixed, examples, weights, heard)
        share = self._settings.share
        after = (1.0 - share) * gained / total + share / len(experts)
        for one, weight in zip(experts, after.tolist(), strict=True):
            one.weight = weight
        return True

    def _losses(self, said: Prediction, examples: Examples) -> Floats:
        """Log loss of each row; or its squared error over twice the committee's mean squared error so far."""
        if said.values is not None:
            assert examples.values is not None
            return np.asarray(np.square(examples.values - said.values) / (2.0 * self._unit()))
        assert examples.codes is not None
        wide = self._wide(said, examples.classes)
        given = wide[np.arange(len(examples)), examples.codes]
        return np.asarray(-np.log(np.maximum(given, _FLOOR)))

    def _hear(self, examples: Examples, weights: Floats) -> None:
        """Count labels: their variance is the unit of losses until the committee has a record, and keeps it off 0."""
        assert examples.values is not None
        mass, mean, spread = self._labels
        more = float(weights.sum())
        if not more > 0:
            return
        own = float(np.average(examples.values, weights=weights))
        spread += float(weights @ np.square(examples.values - own)) + (own - mean) ** 2 * mass * more / (mass + more)
        self._labels = (mass + more, mean + (own - mean) * more / (mass + more), spread)

    def _unit(self) -> float:
        """Mean squared error so far, and a thousandth of the labels' variance at least; 1 where both are 0."""
        mass, _, spread = self._labels
        variance = spread / mass if mass > 0 else 0.0
        return (max(self._scale, 1e-3 * variance) if self._account.batches else variance) or 1.0

    def _next_scale(self, mixed: Prediction, examples: Examples, weights: Floats, heard: NDArray[np.bool_]) -> float:
        assert mixed.values is not None
        assert examples.values is not None
        mass = float(weights[heard].sum())
        if not mass > 0:
            return self._scale
        error = float(np.average(np.square(examples.values - mixed.values)[heard], weights=weights[heard]))
        before = self._account.rows - mass
        return (self._scale * before + error * mass) / max(before + mass, 1e-12)

    def _wide(self, said: Prediction, classes: tuple[Label, ...]) -> Floats:
        if said.proba is None:
            raise LearnerError(f"an expert of {self.name} gives no probabilities, which experts are weighed by")
        wide = align(said, classes).proba
        assert wide is not None
        return wide

    def _mixed(self, said: Sequence[Prediction]) -> Prediction:
        """The mean by weight over those that say something of a row."""
        weights = np.array([one.weight for one in self._trained()])
        there = np.stack([told(one) for one in said])
        every = bool(there.all())
        mass = weights.sum() if every else np.where(there, weights[:, None], 0.0).sum(axis=0)
        none = np.zeros(len(said[0]), dtype=np.bool_) if every else ~there.any(axis=0)
        if self.task == "regression":
            values = np.stack([one.values for one in said if one.values is not None])
            total = weights @ np.where(there, values, 0.0)
            with np.errstate(invalid="ignore", divide="ignore"):
                return Prediction(values=np.asarray(total / mass))
        wide: Any = 0.0
        for weight, one, tells in zip(weights.tolist(), said, there, strict=True):
            if one.classes and len(one):
                part_of = weight * self._wide(one, self._classes)
                wide = wide + (part_of if every else np.where(tells[:, None], part_of, 0.0))
        if not self._classes or np.isscalar(wide):
            return Prediction(codes=np.full(len(said[0]), ABSTAINED, dtype=np.int32))
        proba = wide / (mass if every else np.where(none, 1.0, mass)[:, None])
        codes = np.where(none, ABSTAINED, proba.argmax(axis=1)).astype(np.int32)
        return Prediction(codes=codes, proba=proba, classes=self._classes)

    # ------------------------------------------------------------------ former champions

    def _keep_leader(self, examples: Examples) -> None:
        """Freeze a copy of the expert that leads; where there are enough, one that says what another says goes."""
        s, experts = self._settings, self._trained()
        if not s.champions:
            return
        lead = max((one for one in experts if not one.frozen), key=lambda one: one.weight)
        template = self._templates[lead.of]
        copy = template.load(lead.model.save())
        copies = [one for one in experts if one.frozen and "@" in one.name]
        made = _Expert(name=f"{lead.of}@{self._account.batches}", of=lead.of, model=copy, weight=0.0, frozen=True)
        if len(copies) >= s.champions:
            self._replace(self._dispensable([*copies, made], examples.features), made)
        else:
            self._admit(made)

    def _admit(self, made: _Expert) -> None:
        """A newcomer gets an equal part, which all others give."""
        experts = self._trained()
        k = len(experts) + 1
        for one in experts:
            one.weight *= (k - 1) / k
        made.weight = 1.0 / k
        self._entry += -math.log((k - 1) / k)
        experts.append(made)

    def _replace(self, gone: _Expert, made: _Expert) -> None:
        """A newcomer takes the weight of who goes."""
        made.weight = gone.weight
        experts = self._trained()
        experts[experts.index(gone)] = made

    def _dispensable(self, copies: Sequence[_Expert], features: Features) -> _Expert:
        """The older of the two that differ least in what they say of the newest rows, the newcomer among them."""
        said = [self._plainly(one.model.predict(features)) for one in copies]
        _, older = min(
            (float(np.mean(np.abs(said[i] - said[j]))), i)
            for i in range(len(copies)) for j in range(i + 1, len(copies))
        )  # fmt: skip
        return copies[older]

    def _plainly(self, said: Prediction) -> Floats:
        if said.values is not None:
            return np.nan_to_num(said.values)
        if said.proba is None and not told(said).any():
            return np.zeros((len(said), len(self._classes)))
        return self._wide(said, self._classes)

    def _within_bounds(self) -> None:
        """Let copies go, the lightest first, until the state is within its bound.

        Raises
        ------
        LearnerError
            If the learning experts alone are larger.
        """
        s, experts = self._settings, self._trained()
        while (held := self.size()) > s.most_bytes:
            copies = [one for one in experts if "@" in one.name]
            if not copies:
                raise LearnerError(
                    f"{self.name} holds {held:,} bytes, and most_bytes is {s.most_bytes:,}: give it more, or smaller "
                    "experts"
                )
            gone = min(copies, key=lambda one: one.weight)
            experts.remove(gone)
            left = 1.0 - gone.weight
            for one in experts:
                one.weight /= left


def _names(experts: Sequence[_Expert]) -> list[str]:
    return [one.name for one in experts]


# ---------------------------------------------------------------------------------------------------------------------
# ready-made ones
# ---------------------------------------------------------------------------------------------------------------------


def committee(
    experts: Mapping[str, object],
    *,
    rate: float = 0.05,
    share: float = 0.05,
    champions: int = 0,
    every: int = 10,
    most_bytes: int = 64 * 2**20,
) -> CommitteeLearner:
    """A committee of experts of one's own.

    Parameters
    ----------
    experts : mapping of str to object
        By name, two or more of whatever :func:`perennial.learners.as_learner` takes: those that can be updated learn,
        :func:`perennial.learners.Rebuilt` makes a stateless one, and all others stay as their first fit made them.
    rate : float
        How fast weights follow losses, per nat of a batch's summed loss: much less than 1 mixes experts, 1 picks one.
    share : float
        In (0, 1): the part of all weight that is shared out again after each batch, about one over the batches between
        two changes of the best expert.
    champions : int
        How many frozen copies of leading experts are kept.
    every : int
        After how many batches another copy is made.
    most_bytes : int
        The greatest size of the state, as ``size`` tells it: copies go first, and experts that are larger fail.

    Raises
    ------
    ConfigError
        If there are too few experts, they have several tasks, none can be updated, or a setting is out of range.
    """
    from perennial.learners.factory import as_learner

    settings = Settings(rate=rate, share=share, champions=champions, every=every, most_bytes=most_bytes)
    return CommitteeLearner({name: as_learner(expert) for name, expert in experts.items()}, settings)


def light(framework: Framework = "lightgbm", *, task: TaskKind = "classification", **settings: Any) -> CommitteeLearner:
    """Leaf refit, an ensemble of small boosters, and decayed boosting: three cheap ways to follow a stream.

    All are calibrated by the newest labels, where they classify. The state is bounded: the trees of the first fit, ten
    boosters of 30 trees with 7 leaves, and 59 of 20 trees with 15 leaves at most; see ``size``.

    Parameters
    ----------
    framework : {"lightgbm", "xgboost", "catboost"}
        Whose trees.
    task : {"classification", "regression"}
        What is predicted.
    settings
        ``rate``, ``share``, ``champions``, ``every`` and ``most_bytes`` of :func:`committee`.
    """
    return committee(_light(framework, task), **settings)


def full(framework: Framework = "lightgbm", *, task: TaskKind = "classification", **settings: Any) -> CommitteeLearner:
    """The light committee and more: faster and slower decay, a sliding forest, a stateless expert, former champions.

    The stateless one is made anew from the newest 8,000 rows at every fourth update, and so keeps these rows: under
    ``retention: none`` it is refused. Three frozen copies of leading experts are kept unless told otherwise.

    Parameters
    ----------
    framework, task, settings
        As for :func:`light`.
    """
    from perennial.learners import factory

    made = _Made(framework, task)
    experts = _light(framework, task) | {
        "fast": made.calibrated(factory.Decayed(made.small, gamma=0.8, trees=20, floor=0.05)),
        "slow": made.calibrated(factory.Decayed(made.slow, gamma=0.97, trees=20, floor=0.2)),
        "forest": made.calibrated(factory.SlidingForest(made.forest, trees=10, size=10)),
        "window": made.calibrated(factory.Rebuilt(made.default, rows=8_000, every=4)),
    }
    return committee(experts, **({"champions": 3} | settings))


Framework = Literal["lightgbm", "xgboost", "catboost"]
_CLASSES: dict[str, str] = {"lightgbm": "LGBM", "xgboost": "XGB", "catboost": "CatBoost"}
#: what each framework calls rounds, leaves or depth, penalty and learning rate, and what keeps it still and single
_WORDS: dict[str, dict[str, Any]] = {
    "lightgbm": {"rounds": "n_estimators", "l2": "reg_lambda", "rate": "learning_rate", "still": {"verbose": -1}},
    "xgboost": {"rounds": "n_estimators", "l2": "reg_lambda", "rate": "learning_rate", "still": {}},
    "catboost": {
        "rounds": "iterations",
        "l2": "l2_leaf_reg",
        "rate": "learning_rate",
        "still": {"verbose": False, "allow_writing_files": False},
    },
}


class _Made:
    """The estimators of the ready-made committees, in the words of one framework."""

    def __init__(self, framework: Framework, task: TaskKind) -> None:
        if framework not in _CLASSES:
            raise ConfigError("framework", framework, nearest(str(framework), _CLASSES))
        if task not in ("classification", "regression"):
            raise ConfigError("task", task, nearest(str(task), ["classification", "regression"]))
        self._framework, self._task = framework, task

    def estimator(self, *, rounds: int, leaves: int, rate: float, l2: float) -> dict[str, Any]:
        words = _WORDS[self._framework]
        kind = "Classifier" if self._task == "classification" else "Regressor"
        params = {words["rounds"]: rounds, words["l2"]: l2, words["rate"]: rate, **words["still"]}
        if self._framework == "lightgbm":
            params["num_leaves"] = leaves
        else:  # levels of a balanced tree with as many leaves
            params["max_depth" if self._framework == "xgboost" else "depth"] = max(2, math.ceil(math.log2(leaves)))
        return {"estimator": f"{self._framework}.{_CLASSES[self._framework]}{kind}", "params": params}

    @property
    def default(self) -> dict[str, Any]:
        """As the framework's own default is: a hundred rounds."""
        return self.estimator(rounds=100, leaves=31, rate=0.1, l2=1.0)

    @property
    def short(self) -> dict[str, Any]:
        """A small booster for a single batch."""
        return self.estimator(rounds=30, leaves=7, rate=0.2, l2=5.0)

    @property
    def small(self) -> dict[str, Any]:
        """What decayed boosting starts from."""
        return self.estimator(rounds=50, leaves=15, rate=0.2, l2=5.0)

    @property
    def slow(self) -> dict[str, Any]:
        """The same for a long memory."""
        return self.estimator(rounds=100, leaves=15, rate=0.1, l2=5.0)

    @property
    def forest(self) -> dict[str, Any]:
        """A forest of the first fit."""
        kind = "Classifier" if self._task == "classification" else "Regressor"
        return {"estimator": f"sklearn.ensemble.RandomForest{kind}", "params": {"min_samples_leaf": 5, "n_jobs": 1}}

    def calibrated(self, learner: Learner) -> Learner:
        """With calibration, where there are probabilities."""
        from perennial.learners import factory

        return factory.Calibrated(learner) if self._task == "classification" else learner


def _light(framework: Framework, task: TaskKind) -> dict[str, object]:
    from perennial.learners import factory

    made = _Made(framework, task)
    return {
        "refit": made.calibrated(factory.LeafRefit(made.default, decay=0.9)),
        "ensemble": made.calibrated(factory.AccuracyUpdated(made.short, size=10)),
        "decayed": made.calibrated(factory.Decayed(made.small, gamma=0.95, trees=20, floor=0.05)),
    }
