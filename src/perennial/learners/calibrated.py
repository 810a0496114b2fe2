"""Probabilities corrected by the newest labels: one slope for all classes and a shift for each.

With p what the learner inside says, the corrected probabilities are ``softmax(a * log p + b)``: a temperature
``1 / a`` and a shift per class. For two classes this is Platt's ``a * logit(p) + b``. An update minimises the log loss
of the new labels plus ``ridge / 2`` times the squared distance from the former correction, so that a small batch
moves it little; it costs next to nothing, repairs the log loss under label drift, and leaves the ranking of two
classes as it was.

References
----------
Platt (1999), Probabilistic outputs for support vector machines; Alexandari, Kundaje and Shrikumar (2020), Maximum
likelihood with bias-corrected calibration, for the shift per class. Here the former correction takes the place of
the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LearnerError, nearest
from perennial.core.features import Features
from perennial.core.identity import canonical
from perennial.core.protocols import LOCAL, Learner, Memorises, Pickled, Servable, Serving, Sized, Trust, Updatable
from perennial.core.records import Examples, Label, Prediction, TaskKind
from perennial.learners.export import Exportable, Files, as_json
from perennial.learners.saved import codec_of, join, pack, part, state_digest, state_size, unpack, within

_FLOOR = 1e-6  # probabilities below it count as it: a correction cannot hang on a 0 that was rounded
_SLOPES = (0.05, 20.0)  # a slope that reached 0 would forget the learner inside, and one below would contradict it


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A slope, and a shift for each class heard of; the neutral one changes nothing."""

    slope: float = 1.0
    classes: tuple[Label, ...] = ()
    shifts: tuple[float, ...] = ()

    def over(self, classes: tuple[Label, ...]) -> NDArray[np.float64]:
        """Slope and shifts in the order of ``classes``, 0 for one not heard of; shape (1 + k,)."""
        known = dict(zip(((type(c), c) for c in self.classes), self.shifts, strict=True))
        return np.array([self.slope, *(known.get((type(c), c), 0.0) for c in classes)])

    def moved(self, classes: tuple[Label, ...], to: NDArray[np.float64]) -> Correction:
        """This correction with new values for ``classes``; what it knows of others stays."""
        known = {(type(c), c): shift for c, shift in zip(self.classes, self.shifts, strict=True)}
        known.update({(type(c), c): float(shift) for c, shift in zip(classes, to[1:], strict=True)})
        return Correction(slope=float(to[0]), classes=tuple(c for _, c in known), shifts=tuple(known.values()))


def calibrate(
    learner: Learner, *, inner: Literal["learns", "frozen"] = "learns", share: float = 0.2, ridge: float = 10.0
) -> CalibratedLearner:
    """``learner`` with corrected probabilities; see :func:`perennial.learners.Calibrated`.

    Raises
    ------
    ConfigError
        If it is no classification learner, or a setting is out of range.
    """
    if learner.task != "classification":
        raise ConfigError("learner", learner.name, "give a classification learner: there are no probabilities here")
    if inner not in ("learns", "frozen"):
        raise ConfigError("inner", inner, nearest(str(inner), ["learns", "frozen"]))
    if not 0.0 < share < 1.0:
        raise ConfigError("share", share, "give a share of the window between 0 and 1, e.g. 0.2")
    if not ridge > 0.0:
        raise ConfigError("ridge", ridge, "give a positive number of examples, e.g. 10")
    if inner == "frozen" or isinstance(learner, Updatable):
        return UpdatableCalibrated(learner, inner, share, ridge)
    return CalibratedLearner(learner, inner, share, ridge)


class CalibratedLearner:
    """A learner and the correction of its probabilities, trained from scratch together."""

    def __init__(self, learner: Learner, inner: Literal["learns", "frozen"], share: float, ridge: float) -> None:
        self._learner = learner
        self._inner: Literal["learns", "frozen"] = inner
        self._share, self._ridge = share, ridge
        self._correction = Correction()
        self._trees = 0.0  # per row of the last training, over all the trainings inside that it took

    @property
    def name(self) -> str:
        """``Calibrated(...)`` of what is inside."""
        return f"Calibrated({self._learner.name})"

    @property
    def task(self) -> TaskKind:
        """Classification."""
        return "classification"

    @property
    def resumes(self) -> bool:
        """Whether the learner inside does."""
        return self._learner.resumes

    def memorises(self, *, untrained: bool) -> str | None:
        """What the learner inside says."""
        return self._learner.memorises(untrained=untrained) if isinstance(self._learner, Memorises) else None

    def identity(self) -> str:
        """The learner inside and the settings."""
        settings = {"inner": self._inner, "share": self._share, "ridge": self._ridge}
        return canonical({"learner": "Calibrated", "of": self._learner.identity(), **settings})

    def fit(self, examples: Examples, seed: int) -> Self:
        """A new model: the first ``1 - share`` of the rows, in order, train the inside; the rest the correction.

        If updates reach the inside, it then learns the rest too, as an update; otherwise it has seen the first part
        alone, and the correction is made on rows that it has not. With fewer than two rows there is no correction.
        """
        n = len(examples)
        cut = min(max(round(n * (1.0 - self._share)), 1), n)
        new = self._with(self._learner.fit(examples.slice(0, cut), seed))
        built = new._learner.row_trees(cut)
        rest = examples.slice(cut, n)
        if len(rest):
            new._correct(rest)
            if self._inner == "learns" and isinstance(new._learner, Updatable):
                new._learner.update(rest, seed)
                built += new._learner.row_trees(len(rest))
        new._trees = built / max(n, 1)
        return new

    def predict(self, features: Features) -> Prediction:
        """The corrected probabilities and the class of the highest; rows that the inside abstains from stay so."""
        return self._adjusted(self._learner.predict(features))

    def serving(self) -> Serving | None:
        """The correction of what the inside's own quickest form says."""
        inside = self._learner.serving() if isinstance(self._learner, Servable) else None
        return None if inside is None else lambda matrix: self._adjusted(inside(matrix))

    def _adjusted(self, said: Prediction) -> Prediction:
        if not said.classes or not len(said):
            return said
        theta = self._correction.over(said.classes)
        proba = _corrected(_logs(self._proba(said)), theta)
        assert said.codes is not None
        codes = np.where(said.codes < 0, said.codes, proba.argmax(axis=1)).astype(np.int32)
        return Prediction(codes=codes, proba=proba, classes=said.classes)

    @property
    def needs_pickle(self) -> bool:
        """Whether the learner inside does."""
        return isinstance(self._learner, Pickled) and self._learner.needs_pickle

    def save(self, trust: Trust = LOCAL) -> bytes:
        """The correction as text, and what the inside saves."""
        c = self._correction
        state = {"slope": c.slope, "classes": c.classes, "shifts": c.shifts, "trees": self._trees}
        inner = self._learner.save(trust)
        return pack("Calibrated", join(state, [inner]), {}, codec_of(inner) or "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; the inside is loaded by the same trust."""
        state, (inner,) = part(unpack("Calibrated", blob, {}, trust, ("native", "skops", "pickle"))[1])
        new = self._with(self._learner.load(inner, within(trust, inner)))
        classes, shifts = tuple(state["classes"]), tuple(state["shifts"])
        new._correction = Correction(slope=state["slope"], classes=classes, shifts=shifts)
        new._trees = state["trees"]
        return new

    def exported(self, trust: Trust) -> Files:
        """The files of the inside, and the correction as JSON."""
        if not isinstance(self._learner, Exportable):
            raise LearnerError(f"{self._learner.name} has no plain form: its type has no method `exported`")
        inner, c = self._learner.exported(trust), self._correction
        names = {n: n if len(inner.files) == 1 else f"model/{n}" for n in inner.files}
        facts = {"slope": c.slope, "classes": c.classes, "shifts": c.shifts, "floor": _FLOOR}
        files = {"calibration.json": as_json(facts), **{names[n]: content for n, content in inner.files.items()}}
        readme = (
            "corrected: softmax over classes of slope * log(max(p, floor)) + shift, in calibration.json; "
            f"p from {', '.join(names.values())}: {inner.readme}"
        )
        return Files(files=files, readme=readme)

    def digest(self) -> str:
        """Digest of the correction and of the state inside."""
        c = self._correction
        return state_digest(self._learner.digest(), c.slope, c.classes, c.shifts, self._trees)

    def size(self) -> int:
        """Bytes of the state inside and of the correction; raises ``LearnerError`` if the inside does not say."""
        if not isinstance(self._learner, Sized):
            raise LearnerError(f"{self._learner.name} does not say how large it is: leave out the gate's largest_bytes")
        c = self._correction
        return self._learner.size() + state_size(c.slope, c.classes, c.shifts)

    def row_trees(self, rows: int) -> int:
        """What the trainings inside cost."""
        return round(rows * self._trees)

    def check(self, features: Features) -> None:
        """Refuse what the inside refuses."""
        self._learner.check(features)

    def _with(self, learner: Learner) -> Self:
        return type(self)(learner, self._inner, self._share, self._ridge)

    def _correct(self, examples: Examples) -> None:
        """Move the correction towards these labels, as predicted by an inside that has not learned them."""
        said = self._learner.predict(examples.features)
        if not said.classes:
            return
        at = {(type(c), c): i for i, c in enumerate(said.classes)}
        table = np.array([at.get((type(c), c), -1) for c in examples.classes], dtype=np.int64)
        assert examples.codes is not None
        assert said.codes is not None
        truth = table[examples.codes]
        use = (truth >= 0) & (said.codes >= 0)  # a class that the inside does not know says nothing of its others
        if len(said.classes) < 2 or not use.any():
            return
        weights = np.ones(len(truth)) if examples.weights is None else examples.weights
        before = self._correction.over(said.classes)
        after = _fitted(_logs(self._proba(said)[use]), truth[use], weights[use], before, self._ridge)
        self._correction = self._correction.moved(said.classes, after)

    def _proba(self, said: Prediction) -> NDArray[np.float64]:
        if said.proba is None:
            raise LearnerError(f"{self._learner.name} gives no probabilities, so there is nothing to calibrate")
        return said.proba


@final
class UpdatableCalibrated(CalibratedLearner):
    """A calibrated learner whose correction, and the inside unless it is frozen, goes on learning."""

    def begin(self) -> Self:
        """An untrained model with a neutral correction.

        Raises
        ------
        LearnerError
            If the inside is frozen: it would never be trained.
        """
        if self._inner == "frozen" or not isinstance(self._learner, Updatable):
            raise LearnerError(f"{self.name} has a frozen inside that must be trained first: give `initial`")
        return self._with(self._learner.begin())

    def update(self, examples: Examples, seed: int) -> None:
        """Correct by how the inside predicts these examples; only then may the inside learn them."""
        if not len(examples):
            return
        self._correct(examples)
        self._trees = 0.0
        if self._inner == "learns" and isinstance(self._learner, Updatable):
            self._learner.update(examples, seed)
            self._trees = self._learner.row_trees(len(examples)) / len(examples)


def _logs(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(proba, _FLOOR))


def _corrected(logs: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = theta[0] * logs + theta[1:]
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _fitted(
    logs: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    before: NDArray[np.float64],
    ridge: float,
) -> NDArray[np.float64]:
    """Slope and shifts that minimise log loss plus ridge; with the slope held at a bound if it would pass it."""
    after = _newton(logs, truth, weights, before, ridge, np.ones(len(before), dtype=bool))
    low, high = _SLOPES
    if low <= after[0] <= high:
        return after
    start = before.copy()
    start[0] = np.clip(after[0], low, high)
    free = np.ones(len(before), dtype=bool)
    free[0] = False
    return _newton(logs, truth, weights, start, ridge, free)


def _newton(
    logs: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    start: NDArray[np.float64],
    ridge: float,
    free: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Damped Newton steps on a strictly convex loss: the ridge makes it so."""
    theta, value = start, _loss(logs, truth, weights, start, start, ridge)
    for _ in range(50):
        proba = _corrected(logs, theta)
        excess = proba.copy()
        excess[np.arange(len(truth)), truth] -= 1.0
        excess *= weights[:, None]
        gradient = np.concatenate([[(excess * logs).sum()], excess.sum(axis=0)]) + ridge * (theta - start)
        hessian = _curvature(logs, proba, weights) + ridge * np.eye(len(theta))
        step = np.zeros_like(theta)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        size = 1.0
        while size > 1e-4:
            trial = theta - size * step
            lower = _loss(logs, truth, weights, trial, start, ridge)
            if lower <= value:
                break
            size /= 2.0
        else:
            return theta
        done = value - lower <= 1e-12 * max(abs(value), 1.0)
        theta, value = trial, lower
        if done:
            return theta
    return theta


def _curvature(
    logs: NDArray[np.float64], proba: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    k = logs.shape[1]
    weighted = proba * weights[:, None]
    mean = (proba * logs).sum(axis=1)
    out = np.empty((k + 1, k + 1))
    out[0, 0] = (weighted * logs**2).sum() - (weights * mean**2).sum()
    out[0, 1:] = out[1:, 0] = (weighted * (logs - mean[:, None])).sum(axis=0)
    out[1:, 1:] = np.diag(weighted.sum(axis=0)) - weighted.T @ proba
    return out


def _loss(
    logs: NDArray[np.float64],
    truth: NDArray[np.int64],
    weights: NDArray[np.float64],
    theta: NDArray[np.float64],
    start: NDArray[np.float64],
    ridge: float,
) -> float:
    scores = theta[0] * logs + theta[1:]
    top = scores.max(axis=1)
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    missed = total - scores[np.arange(len(truth)), truth]
    return float((weights * missed).sum() + ridge / 2.0 * np.square(theta - start).sum())
