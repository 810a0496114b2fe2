"""River models: row by row, as River itself would, with River's own results.

Rows reach the model as dicts in column order, labels as the user wrote them, one ``learn_one`` per example. A
model that only tells ``False`` from ``True`` gets its labels translated; everything else passes through.

This module imports River: load it through the registry, which does so only when a River model is used.
"""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections import UserList, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
import river
from numpy.typing import NDArray
from river import active, base, compose, dummy, neighbors, preprocessing, proba

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Features, Kind, Schema
from perennial.core.identity import canonical, digest, seed_from
from perennial.core.protocols import LOCAL, Known, Trust
from perennial.core.records import ABSTAINED, UNSEEN, Examples, Label, Prediction, TaskKind
from perennial.learners.export import Files
from perennial.learners.memorising import memorises
from perennial.learners.saved import pack, unpack

#: where multi-class models keep the classes that they have met
_CLASSES = ("classes", "class_counts", "classifiers")
#: where parts keep something of each column
_BY_COLUMN = ("means", "counts", "weights", "min", "max")
_START_SEED = 0  # an untrained model is made before any training data could give it a seed


def wrap(model: object) -> River:
    """The learner for a River model: a classifier or regressor, or a pipeline that ends in one.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    return River(model)


@final
class River:
    """A River classifier or regressor, or a pipeline that ends in one, as a learner.

    ``fit`` clones the template, so what the given model itself has learned is not used. Every example is learned
    once, in order, and learning in one call or in many gives the same model. Where a ``seed`` of the model or of a
    part of it is None, ``fit`` sets it from its own; an untrained model (``begin``) sets it from a constant, since it
    exists before any data. The user's own seeds win.

    Parameters
    ----------
    model : river.base.Classifier or river.base.Regressor
        The template. It is copied.
    positive : label, optional
        For a model that knows two classes only, as most linear ones do: the class that is ``True`` to River. By
        default ``False`` and numbers up to 0 are ``False``; of two words that a ``fit`` meets together, the one that
        sorts last is ``True``; of words that come one by one, the first. A class that River names before any label
        did is ``UNSEEN``, and has no column among the probabilities.
    mini_batch : bool
        Learn with ``learn_many``: quicker, and not the same model that ``learn_one`` gives.

    Raises
    ------
    ConfigError
        If the model is neither a classifier nor a regressor, if ``mini_batch`` is asked of a model that has no
        ``learn_many``, or ``positive`` of one that takes labels as they are.

    References
    ----------
    Montiel et al. (2021), River: machine learning for streaming data in Python, JMLR 22.
    """

    def __init__(self, model: Any, *, positive: Label | None = None, mini_batch: bool = False) -> None:
        self._task = _task_of(model)
        last = _last(model)
        if mini_batch and not isinstance(last, (base.MiniBatchClassifier, base.MiniBatchRegressor)):
            raise ConfigError("mini_batch", mini_batch, f"{model} has no learn_many: leave mini_batch off")
        self._binary = self._task == "classification" and not model._multiclass
        if positive is not None and not self._binary:
            raise ConfigError("positive", positive, f"{model} takes labels as they are: leave positive out")
        self._template = model
        self._positive = positive
        self._mini_batch = mini_batch
        self._has_proba = self._task == "classification" and _states_proba(last)
        self._own_label = not self._has_proba or type(last).predict_one is not base.Classifier.predict_one
        self._model: Any = None
        self._classes: list[Label] = []  # in the order learned: what our codes mean
        self._said: dict[Label, Label] = {}  # the user's label -> the label that River is told
        self._code: dict[Label | None, int] = {None: ABSTAINED}  # the label that River says -> our code

    @property
    def name(self) -> str:
        """The model as River prints it, e.g. ``"StandardScaler | LogisticRegression"``."""
        return str(self._template)

    @property
    def task(self) -> TaskKind:
        """``"classification"`` or ``"regression"``."""
        return self._task

    def memorises(self, *, untrained: bool) -> str | None:  # noqa: ARG002 - the protocol's
        """The part of the model that holds rows."""
        return memorises(self._template)

    @property
    def resumes(self) -> bool:
        """Whether going on from a saved model is bit for bit going on: not with approximate neighbours.

        River models hold their own random state, and all of it is saved. The graph of ``neighbors.SWINN`` is walked in
        the order of memory addresses, which nobody can save: take ``neighbors.LazySearch``.
        """
        return not any(isinstance(part, neighbors.SWINN) for part in _parts(self._template))

    def identity(self) -> str:
        """Canonical text of classes, parameters and the River version.

        Raises
        ------
        Unhashable
            If a parameter's content cannot be told, such as a lambda in the pipeline.
        """
        return canonical(
            {
                "learner": River,
                "model": _settings(self._template),
                "positive": self._positive,
                "mini_batch": self._mini_batch,
                "river": river.__version__,
            }
        )

    def fit(self, examples: Examples, seed: int) -> River:
        """A new model that learned ``examples`` in order."""
        new = self._untrained(seed)
        new._learn(examples, together=True)
        return new

    def begin(self) -> River:
        """A new untrained model, which answers as River's untrained model does."""
        return self._untrained(_START_SEED)

    def update(self, examples: Examples, seed: int) -> None:  # noqa: ARG002
        """Learn more examples in order; mutates the model. Random state goes on, so ``seed`` is not used."""
        self._learn(examples, together=False)

    def predict(self, features: Features) -> Prediction:
        """What River says of each row: its ``predict_one``, and its probabilities if the model gives them.

        Where River gives no answer (None, or no probabilities at all) the row abstains.
        """
        model = self._trained()
        rows = features.dicts()
        labels = [model.predict_one(x) for x in rows] if self._own_label else None
        probas = [model.predict_proba_one(x) for x in rows] if self._has_proba else None
        return self._prediction(labels, probas, len(rows))

    def interleave(self, queue: Examples, features: Features, upto: NDArray[np.int64], seed: int) -> Prediction:  # noqa: ARG002
        """Before predicting row i, learn ``queue[upto[i - 1] : upto[i]]`` one by one: progressive validation."""
        stops = upto.tolist()
        queue = queue.slice(0, stops[-1] if stops else 0)
        rows = features.dicts()
        first_told = self._admit(queue, together=False)
        learn, xs, ys = self._lessons(queue)
        model = self._trained()
        labels: list[Any] = []
        probas: list[Any] = []
        # the bound methods are all that stands between River and a row: this loop is River's own cost
        ask = model.predict_one if self._own_label else model.predict_proba_one
        answer = (labels if self._own_label else probas).append
        ask_also = model.predict_proba_one if self._own_label and self._has_proba else None
        at = 0
        for x, stop in zip(rows, stops, strict=True):
            while at < stop:
                learn(xs[at], ys[at])
                at += 1
            answer(ask(x))
            if ask_also is not None:
                probas.append(ask_also(x))
        told = self._prediction(labels if self._own_label else None, probas if self._has_proba else None, len(rows))
        for code, position in first_told.items():  # no row may be said to be of a class not yet named
            early = slice(0, int(np.searchsorted(upto, position, side="right")))
            assert told.codes is not None
            told.codes[early][told.codes[early] == code] = UNSEEN
            if told.proba is not None:
                told.proba[early, code][told.codes[early] != ABSTAINED] = 0.0
        return told

    @property
    def needs_pickle(self) -> Literal[True]:
        """River has no other form, and skops was seen to reload a tree that silently predicts something else."""
        return True

    def save(self, trust: Trust = LOCAL) -> bytes:
        """The model, pickled, behind a checked header.

        Raises
        ------
        LearnerError
            If ``trust`` allows no pickle.
        """
        if not (trust.local or trust.pickle):
            raise LearnerError(
                f"{self.name} can be saved as a pickle only, since River has no other form: allow it with "
                "`serialisation: {pickle: true}`"
            )
        state = (self._trained(), self._classes, self._said, self._code)
        return pack(self._kind(), pickle.dumps(state, protocol=5), {"river": river.__version__}, "pickle")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> River:
        """A new model from what :meth:`save` gave. It is a pickle: ``trust`` must be local, or hold its digest.

        Raises
        ------
        FormatError
            If it is damaged, was saved by another model, a newer release or another River, or is not to be trusted.
        """
        _, payload = unpack(self._kind(), blob, {"river": river.__version__}, trust, ("pickle",))
        try:
            state = pickle.loads(payload)
        except (pickle.UnpicklingError, AttributeError, ImportError, EOFError) as error:
            raise FormatError(f"the saved {self.name} cannot be read ({error}): train anew") from error
        new = self._copy()
        new._model, new._classes, new._said, new._code = state
        return new

    def exported(self, trust: Trust) -> Files:
        """River's own model, pickled, which ``trust`` must allow."""
        if not trust.pickle:
            raise LearnerError(
                f"{self.name} can be exported as a pickle only, since River has no other form: allow it with "
                "`serialisation: {pickle: true}`"
            )
        labels = "".join(f"; {told!r} is {label!r}" for label, told in self._said.items() if told is not label)
        readme = f"pickle.load, with river {river.__version__} installed, then predict_one({{column: value}}){labels}"
        return Files(files={"model.pickle": pickle.dumps(self._trained(), protocol=5)}, readme=readme)

    def digest(self) -> str:
        """Digest of everything the model holds, random state included; what it only caches is left out."""
        return digest(*_content([self._trained(), self._classes, list(self._said.items())]))

    def size(self) -> int:
        """Bytes of everything the model holds but what it only caches."""
        return sum(map(len, _content([self._trained(), self._classes, list(self._said.items())])))

    def known(self, model: Any, schema: Schema) -> Known:
        """Classes, where the model keeps them; columns that it has learned of must be the stream's.

        Raises
        ------
        LearnerError
            If it is built of other parts than the configured model.
        DataError
            If it has learned of a column that the stream lacks, or has not of one that the stream has.
        """
        if type(model) is not type(self._template) or str(model) != str(self._template):
            raise LearnerError(
                f"the model is {model}, and the configured `model` is {self._template}: configure the one "
                "that is to be adopted"
            )
        if (met := _columns_met(model)) is not None:
            for name in sorted(met - set(schema.names)):
                raise DataError(f"the model has learned of a column {name!r}, which the stream lacks: name it so")
            for name in sorted(set(schema.names) - met):
                raise DataError(f"the model never met column {name!r} of the stream: list it under `drop`")
        return Known(classes=self._own_classes(model))

    def adopted(self, model: Any, classes: tuple[Label, ...]) -> River:
        """The model as it is; of a model for two classes the second is ``True`` to River."""
        new = self._copy()
        new._model = model
        own: tuple[Label, ...] = self._own_classes(model) or classes
        for label, said in zip(classes, own, strict=True):
            new._said[label] = said
            new._code[said] = len(new._classes)
            new._classes.append(label)
        return new

    def _own_classes(self, model: Any) -> tuple[Label, ...]:
        """Classes that River itself names, in order; empty where its model does not keep them."""
        if self._task == "regression":
            return ()
        if self._binary:
            return (False, True)
        last = _last(model)
        found = next((kept for name in _CLASSES if (kept := getattr(last, name, None))), ())
        return tuple(sorted(found, key=lambda label: (str(type(label)), label)))

    def row_trees(self, rows: int) -> int:  # noqa: ARG002
        """0: River's trees grow leaf by leaf, and none is built by a training."""
        return 0

    def check(self, features: Features) -> None:
        """Raise ``DataError`` if a number is infinite, or missing where nothing in the model fills it in."""
        if not len(features) or _takes_anything(self._template):
            return
        gaps = any(_fills_gaps(part) for part in _parts(self._template))
        for column, values in zip(features.schema.columns, features.arrow().columns, strict=True):
            if column.kind is not Kind.NUMBER:
                continue
            floating = pa.types.is_floating(values.type)
            numbers = values.drop_null().to_numpy() if floating else np.empty(0)
            if np.isinf(numbers).any():
                raise DataError(
                    f"column {column.name!r} holds infinite values, which {self.name} cannot learn: clip them or "
                    "make them null"
                )
            if not gaps and (values.null_count or np.isnan(numbers).any()):
                raise DataError(
                    f"column {column.name!r} holds nulls, which {self.name} cannot learn: put "
                    "preprocessing.StatImputer((column, stats.Mean())) in front of it, or list the column under `drop`"
                )

    def _kind(self) -> str:
        return f"river: {self.name}"

    def _copy(self) -> River:
        return River(self._template, positive=self._positive, mini_batch=self._mini_batch)

    def _untrained(self, seed: int) -> River:
        new = self._copy()
        new._model = _seeded(self._template, seed)
        return new

    def _trained(self) -> Any:
        if self._model is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._model

    def _learn(self, examples: Examples, *, together: bool) -> None:
        model = self._trained()
        self._admit(examples, together=together)
        if self._mini_batch:
            self._refuse_weights(examples, "its learn_many is called with none")
            if len(examples):
                model.learn_many(examples.features.frame(), _series(self._labels(examples)))
            return
        learn, xs, ys = self._lessons(examples)
        for x, y in zip(xs, ys, strict=True):
            learn(x, y)

    def _lessons(self, examples: Examples) -> tuple[Callable[[Any, Any], object], Sequence[Any], Sequence[Any]]:
        """What to call for each example, and with what."""
        model, labels = self._trained(), self._labels(examples)
        if self._mini_batch:
            self._refuse_weights(examples, "its learn_many is called with none")
            frame = examples.features.frame() if len(examples) else None
            frames = [frame.iloc[i : i + 1] for i in range(len(examples))] if frame is not None else []
            return model.learn_many, frames, [_series([y]) for y in labels]
        rows = examples.features.dicts()
        if examples.weights is None:
            return model.learn_one, rows, labels
        if not _takes_weights(_last(model)):
            self._refuse_weights(examples, "its learn_one takes no w")

        def learn(x: Any, pair: tuple[Any, float]) -> None:
            model.learn_one(x, pair[0], w=pair[1])

        return learn, rows, list(zip(labels, examples.weights.tolist(), strict=True))

    def _refuse_weights(self, examples: Examples, why: str) -> None:
        if examples.weights is not None:
            raise LearnerError(
                f"{self.name} cannot learn weighted examples ({why}): drop the weight column or the decaying window, "
                "or use a model that takes weights row by row, e.g. linear_model.LogisticRegression"
            )

    def _labels(self, examples: Examples) -> list[Any]:
        if self._task == "regression":
            assert examples.values is not None
            return list(examples.values.tolist())
        assert examples.codes is not None
        table = [self._said.get(label) for label in examples.classes]
        return [table[code] for code in examples.codes.tolist()]

    def _admit(self, examples: Examples, *, together: bool) -> dict[int, int]:
        """Give every class that is new here its code; returns where each new code is first learned."""
        if self._task == "regression":
            return {}
        assert examples.codes is not None
        if self._binary:  # a boolean label means the same to River, also before any is known
            for truth in (label for label in examples.classes if isinstance(label, bool) and label not in self._said):
                self._said[truth] = truth
                self._code[truth] = len(self._classes)
                self._classes.append(truth)
        codes, first = np.unique(examples.codes, return_index=True)
        new = sorted((int(at), examples.classes[code]) for at, code in zip(first, codes, strict=True))
        new = [(at, label) for at, label in new if label not in self._said]
        said = self._translated([label for _, label in new], together=together)
        told = {}
        for at, label in new:
            code = len(self._classes)
            self._classes.append(label)
            self._said[label] = said[label]
            self._code[said[label]] = code
            told[code] = at
        return told

    def _translated(self, labels: list[Label], *, together: bool) -> dict[Label, Label]:
        """The label that River is told for each new one, all decided before anything is learned."""
        if not self._binary:
            return {label: label for label in labels}
        if len(self._said) + len(labels) > 2:
            known = ", ".join(repr(label) for label in [*self._said, *labels][:2])
            third = [*self._said, *labels][2]
            raise LearnerError(
                f"{self.name} tells two classes apart ({known}), and {third!r} is a third: wrap it in "
                "river.multiclass.OneVsRestClassifier"
            )
        if self._positive is None and together and len(labels) == 2 and _comparable(*labels):
            low, high = sorted(labels)
            return {low: False, high: True}
        out: dict[Label, Label] = {}
        taken = set(self._said.values())
        for label in labels:
            wanted = label > 0 if not isinstance(label, str) else True
            if self._positive is not None:
                wanted = label == self._positive
                if wanted in taken:
                    seen = ", ".join(repr(one) for one in [*self._said, *labels])
                    raise LearnerError(f"positive={self._positive!r} is neither class of {seen}: name one of them")
            out[label] = wanted if wanted not in taken else not wanted
            taken.add(out[label])
        return out

    def _prediction(self, labels: list[Any] | None, probas: list[Any] | None, rows: int) -> Prediction:
        if self._task == "regression":
            assert labels is not None
            values = np.array([math.nan if value is None else value for value in labels], dtype=np.float64)
            return Prediction(values=values)
        if labels is None:
            assert probas is not None
            labels = [max(p, key=p.get) if p else None for p in probas]  # River's own rule: the first of the highest
        code = self._code
        codes = np.fromiter((code.get(label, UNSEEN) for label in labels), dtype=np.int32, count=rows)
        proba = None
        if probas is not None:
            proba = np.empty((rows, len(self._classes)))
            for j, label in enumerate(self._classes):
                said = self._said[label]
                proba[:, j] = [p.get(said, 0.0) for p in probas]
            proba[codes == ABSTAINED] = np.nan
        return Prediction(codes=codes, proba=proba, classes=tuple(self._classes))


def _columns_met(model: Any) -> set[str] | None:
    """Columns that the first part of a model has learned of; None where it keeps nothing by column."""
    first = model
    while isinstance(first, compose.Pipeline):
        first = next(iter(first.steps.values()))
    for name in _BY_COLUMN:
        kept = getattr(first, name, None)
        if isinstance(kept, Mapping) and len(kept) and all(isinstance(key, str) for key in kept):
            return set(kept)
    return None


def _task_of(model: Any) -> TaskKind:
    if isinstance(model, type):
        raise ConfigError("model", model.__name__, f"give an object, not a class: {model.__name__}()")
    if isinstance(model, active.base.ActiveLearningClassifier):
        raise ConfigError(
            "model", str(model), "an active learner asks for labels, which a stream cannot answer: unwrap it"
        )
    if isinstance(model, base.Classifier):
        return "classification"
    if isinstance(model, base.Regressor):
        return "regression"
    raise ConfigError("model", str(model), "give a River classifier or regressor, or a pipeline that ends in one")


def _last(model: Any) -> Any:
    while isinstance(model, compose.Pipeline):
        model = model._last_step
    return model


def _states_proba(model: Any) -> bool:
    """Whether a classifier gives probabilities; a wrapper does if what it wraps does."""
    model = _last(model)
    if type(model).predict_proba_one is base.Classifier.predict_proba_one:
        return False
    wrapped = getattr(model, "_wrapped_model", None)
    return _states_proba(wrapped) if isinstance(wrapped, base.Classifier) else True


def _takes_weights(model: Any) -> bool:
    parameters = inspect.signature(model.learn_one).parameters
    wrapped = getattr(model, "_wrapped_model", None)
    if "w" not in parameters and wrapped is not None and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return _takes_weights(_last(wrapped))
    return "w" in parameters


def _parts(model: Any) -> Iterator[Any]:
    """A model and everything of River's inside it, each once, from the outside in, always in the same order."""
    stack, seen = [model], set()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        if isinstance(value, base.Base):
            seen.add(id(value))
            yield value
            inner = list(vars(value).values()) if hasattr(value, "__dict__") else []
        elif isinstance(value, dict):
            inner = list(value.values())
        elif isinstance(value, (list, tuple)):
            inner = list(value)
        else:
            continue
        stack.extend(reversed(inner))


def _seeded(template: Any, seed: int) -> Any:
    """A fresh clone in which every seed that was None is set, each differently."""
    model = copy.deepcopy(template)
    parts = list(_parts(model))
    for number, part in enumerate(parts):
        if "seed" in inspect.signature(type(part)).parameters and getattr(part, "seed", 0) is None:
            part.seed = seed_from(str(seed), str(number))
    for part in reversed(parts):  # cloning copies the members of a list with all they know: renew them, inner first
        if isinstance(part, UserList):
            part.data = [member.clone() if isinstance(member, base.Base) else member for member in part.data]
    return model.clone()


def _settings(value: Any) -> Any:
    """Parameters as plain containers with River's objects opened, for :func:`canonical`."""
    if isinstance(value, compose.Pipeline):
        return {"class": type(value), "steps": [[name, _settings(step)] for name, step in value.steps.items()]}
    if isinstance(value, compose.TransformerUnion):
        return {"class": type(value), "union": [[name, _settings(part)] for name, part in value.transformers.items()]}
    if isinstance(value, base.Base):
        params = value._get_params()
        return {"class": type(value), "params": {k: _settings(getattr(value, k, v)) for k, v in params.items()}}
    if isinstance(value, (list, tuple)):
        return [_settings(item) for item in value]
    if isinstance(value, dict):
        return {key: _settings(item) for key, item in value.items()}
    return value


def _content(root: object) -> Iterator[bytes]:
    """What an object holds, as a sequence of bytes that is equal for equal states.

    Pickles of equal River models differ, by what they share and by generators that nobody draws from. Here a
    mutable object is given once, and by its number where it is met again, so cycles end; a generator of a
    distribution, which only ``sample`` uses and which starts from the clock, is left out, and so is a pipeline's plan.
    """
    met: dict[int, int] = {}
    alive = []  # or an id could be given twice
    stack = [root]
    while stack:
        value = stack.pop()
        kind = type(value)
        if value is None or kind in (bool, int, float, str, bytes):
            yield kind.__name__.encode() + b":" + (value if isinstance(value, bytes) else repr(value).encode())
            continue
        if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
            yield f"name:{value.__module__}.{value.__qualname__}".encode()
            continue
        if id(value) in met:
            yield f"met:{met[id(value)]}".encode()
            continue
        if kind is not tuple:  # equal tuples may be one object here and two after loading
            met[id(value)] = len(met)
            alive.append(value)
        inner = _inside(value)
        yield f"{kind.__module__}.{kind.__qualname__}:{len(inner)}".encode()
        alive.append(inner)
        stack.extend(reversed(inner))


def _inside(value: Any) -> list[Any]:
    if type(value) in (list, tuple):
        return list(value)
    if type(value) is defaultdict and value.default_factory in (int, float):
        value = {key: held for key, held in value.items() if held}  # asking leaves a 0 behind, which says nothing
    if type(value) is dict:
        return [part for item in value.items() for part in item]  # in order: sums over it depend on the order
    if isinstance(value, (set, frozenset)):
        return sorted(digest(*_content(item)) for item in value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [str(value.dtype), str(value.shape), value.tobytes()]
    if isinstance(value, compose.Pipeline):
        return [value.steps]
    if isinstance(value, proba.base.Distribution) and hasattr(value, "__dict__"):
        return [{name: held for name, held in vars(value).items() if name != "_rng"}]
    if isinstance(value, MethodType):
        return [value.__name__, value.__self__]
    rebuilt = value.__reduce_ex__(4)
    if isinstance(rebuilt, str):
        return [rebuilt]
    return [list(part) if isinstance(part, Iterator) else part for part in rebuilt]


def _takes_anything(model: Any) -> bool:
    """Whether a model never looks at its features."""
    return isinstance(model, (dummy.NoChangeClassifier, dummy.PriorClassifier, dummy.StatisticRegressor))


def _fills_gaps(part: Any) -> bool:
    """Whether a part may deal with nulls: an imputer, a function, or a class that is not River's."""
    known: tuple[type, ...] = (preprocessing.StatImputer, preprocessing.PreviousImputer, compose.FuncTransformer)
    return isinstance(part, known) or not str(type(part).__module__).startswith("river.")


def _comparable(one: Label, other: Label) -> bool:
    return isinstance(one, str) == isinstance(other, str)


def _series(labels: list[Any]) -> Any:
    import pandas as pd

    return pd.Series(labels)
