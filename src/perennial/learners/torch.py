"""PyTorch: a network that is fitted, and then fine-tuned by every update.

What a model holds are weights and, if asked for, the weights that it shall stay near and a few rows to replay. Every
training makes its optimizer anew and warms the learning rate up again, so nothing but weights goes from one training
to the next, and a model that was saved and loaded goes on bit for bit. Architecture is code and is never saved: what
is saved are tensors, in safetensors, which hold no code.

References
----------
Loshchilov and Hutter (2019), Decoupled weight decay regularization: AdamW, and (2017) SGDR: the cosine.
Gupta et al. (2023), Continual pre-training of large language models: how to (re)warm your model?
Ash and Adams (2020), On warm-starting neural network training: shrink and perturb.
Li, Grandvalet and Davoine (2018), Explicit inductive bias for transfer learning: L2-SP. There it stands in the place of
weight decay under plain gradient descent; here too, but the optimizer is AdamW, which rescales its gradient.
Vitter (1985), Random sampling with a reservoir: algorithm R.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError, MissingExtra, nearest
from perennial.core.features import Features, Kind
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind, typed
from perennial.learners.export import Files, as_json
from perennial.learners.saved import join, pack, part, unpack

try:
    from safetensors import SafetensorError
    from safetensors.torch import load as _read
    from safetensors.torch import save as _write
except ModuleNotFoundError as _missing:
    raise MissingExtra("torch", "perennial.learners.torch") from _missing

KIND = "FineTuned"
#: rows that are predicted together, which bounds memory
BLOCK_ROWS = 1024
_SELF = "self_supervised_loss"
_REPLAYED = "replay."

Tensor = Any
Inputs = Any  #: a tensor, or tensors by the names of the module's arguments; the first axis is rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a network is trained; see :func:`perennial.learners.FineTuned`."""

    task: TaskKind = "classification"
    encode: Callable[[Any], Any] | None = None
    head: bool = True
    classes: tuple[Label, ...] = ()
    epochs: int = 10
    update_epochs: int = 1
    rows: int = 64
    rate: float = 1e-3
    update_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float | None = 1.0
    shrink: float = 1.0
    perturb: float = 0.0
    anchor: float = 0.0
    replay: int = 0
    replay_share: float = 0.5
    self_supervised: float = 1.0
    freeze: Literal["module"] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.task not in ("classification", "regression"):
            raise ConfigError("task", self.task, nearest(str(self.task), ["classification", "regression"]))
        if self.encode is not None and not callable(self.encode):
            raise ConfigError("encode", self.encode, "give a function from a pandas frame to a tensor, or its path")
        if self.freeze not in (None, "module"):
            raise ConfigError("freeze", self.freeze, "give `module`, or leave it out")
        for name in ("epochs", "update_epochs", "rows"):
            _whole(name, getattr(self, name), 1)
        _whole("replay", self.replay, 0)
        for name in ("rate", "update_rate", "clip"):
            _number(name, getattr(self, name), lambda x: x > 0, "give a positive number")
        for name in ("weight_decay", "perturb", "anchor", "self_supervised"):
            _number(name, getattr(self, name), lambda x: x >= 0, "give a number, 0 or more")
        _number("warmup", self.warmup, lambda x: 0 <= x <= 1, "give a share of the steps between 0 and 1, e.g. 0.1")
        _number("shrink", self.shrink, lambda x: 0 < x <= 1, "give a factor in (0, 1], e.g. 0.8")
        _number("replay_share", self.replay_share, lambda x: 0 < x < 1, "give a share between 0 and 1, e.g. 0.5")
        if self.classes and (self.head or self.task == "regression"):
            raise ConfigError("classes", self.classes, "they name the module's own outputs: give head=False too")
        if len(set(map(typed, self.classes))) != len(self.classes):
            raise ConfigError("classes", self.classes, "name each class once")
        if self.freeze and not self.head:
            raise ConfigError("freeze", self.freeze, "without a head of ours nothing would be trained: leave it out")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(name, value, f"give a whole number, {least} or more")


def _number(name: str, value: object, fits: Callable[[float], bool], need: str) -> None:
    if value is None and name in ("update_rate", "clip"):
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and fits(value)):
        raise ConfigError(name, value, need)


def wrap(model: Any) -> FineTunedLearner:
    """The learner for a network, with the default settings."""
    return fine_tuned(model)


def fine_tuned(module: Any, **settings: Any) -> FineTunedLearner:
    """The learner for a network: its type says whether it learns from rows without a label too.

    Raises
    ------
    ConfigError
        If it is no network, or a setting is unknown or out of range.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError("module", type(module).__qualname__, "give a torch.nn.Module, or a path to what makes one")
    if any(isinstance(held, nn.parameter.UninitializedTensorMixin) for held in module.parameters()):
        raise ConfigError("module", type(module).__qualname__, "it has lazy layers: give them their widths")
    known = [field.name for field in fields(Settings)]
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(name, value, nearest(name, [*known, "params"]))
    if "classes" in settings:
        settings["classes"] = tuple(settings["classes"] or ())
    made = Settings(**settings)
    _check_device(made.device)
    template = copy.deepcopy(module).cpu().eval()
    if made.self_supervised and made.freeze is None and hasattr(template, _SELF):
        return SelfSupervisedLearner(template, made)
    return FineTunedLearner(template, made)


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError("device", device, "give `cpu` or `cuda`") from error
    if kind not in ("cpu", "cuda"):
        raise ConfigError("device", device, "give `cpu` or `cuda`")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", device, "there is no such device here: leave it out, or run where there is")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Encoded rows, n of them: labels are codes of our own (-1: none) or standardised values (NaN: none)."""

    inputs: Inputs
    labels: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> Tensor:
        """Which rows have a label, shape (n,)."""
        return ~torch.isnan(self.labels) if self.labels.is_floating_point() else self.labels >= 0

    def take(self, index: Tensor) -> _Rows:
        return _Rows(
            inputs=_each(self.inputs, lambda t: t[index]), labels=self.labels[index], weights=self.weights[index]
        )

    def to(self, device: str) -> _Rows:
        inputs = _each(self.inputs, lambda t: t.to(device))
        return _Rows(inputs=inputs, labels=self.labels.to(device), weights=self.weights.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name: what :meth:`of` takes."""
        inputs = self.inputs if isinstance(self.inputs, dict) else {"": self.inputs}
        return {"labels": self.labels, "weights": self.weights, **{f"inputs.{k}": v for k, v in inputs.items()}}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> _Rows:
        inputs = {k.removeprefix("inputs."): v for k, v in tensors.items() if k.startswith("inputs.")}
        whole = inputs[""] if set(inputs) == {""} else inputs
        return cls(inputs=whole, labels=tensors["labels"], weights=tensors["weights"])

    @classmethod
    def join(cls, one: _Rows, other: _Rows) -> _Rows:
        """The rows of both, one after the other; raises ``LearnerError`` if they have other shapes."""
        a, b = one.tensors(), other.tensors()
        shapes = [{k: (t.dtype, tuple(t.shape[1:])) for k, t in held.items()} for held in (a, b)]
        if shapes[0] != shapes[1]:
            raise LearnerError(
                f"rows that are replayed have the shapes {_shown(shapes[0])}, and new ones {_shown(shapes[1])}: let "
                "`encode` pad every row to one fixed length"
            )
        return cls.of({k: torch.cat([t, b[k]]) for k, t in a.items()})


def _shown(shapes: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    found = {k.removeprefix("inputs."): shape for k, (_, shape) in shapes.items() if k.startswith("inputs.")}
    return ", ".join(f"{name}{shape}" for name, shape in sorted(found.items()))


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {k: change(t) for k, t in inputs.items()} if isinstance(inputs, dict) else change(inputs)


class FineTunedLearner:
    """A network and a linear head, fitted from the network's given weights and fine-tuned by updates."""

    resumes = True

    def __init__(self, template: Any, settings: Settings) -> None:
        self._template = template  # on the CPU and in evaluation mode; never trained
        self._dtype = next((t.dtype for t in template.parameters() if t.is_floating_point()), torch.float32)
        self._set = settings
        self._module: Any = None
        self._head: Any = None
        self._classes: list[Label] = list(settings.classes)
        self._centre, self._scale = 0.0, 1.0  # of a regression's values, as the first training found them
        self._origin: dict[str, Tensor] = {}  # what an anchor pulls to
        self._kept: _Rows | None = None
        self._seen = 0  # labelled rows that the reservoir was offered

    @property
    def name(self) -> str:
        """The network's class."""
        return f"FineTuned({type(self._template).__name__})"

    @property
    def task(self) -> TaskKind:
        """As it was set."""
        return self._set.task

    def memorises(self, *, untrained: bool) -> str | None:  # noqa: ARG002 - the protocol's
        """The rows that are kept to be replayed."""
        if not self._set.replay:
            return None
        return f"{self.name} keeps up to {self._set.replay:,} rows to replay: leave out `replay`, and give an `anchor`"

    def identity(self) -> str:
        """Classes of all layers, the network as it prints itself, digest of the given weights, settings, version."""
        settings = {name: value for name, value in asdict(self._set).items() if name != "encode"}
        parts = sorted({type(m) for m in self._template.modules()}, key=lambda t: (t.__module__, t.__qualname__))
        return canonical(
            {
                "learner": KIND,
                "module": [parts, repr(self._template), _plain_parts(self._template)],
                "weights": _digest_of(self._template.state_dict()),
                "settings": settings,
                "encode": self._set.encode,
                "torch": torch.__version__,
            }
        )

    def fit(self, examples: Examples, seed: int) -> Self:
        """A new model: the network as it was given, trained on ``examples`` for ``epochs``.

        Raises
        ------
        LearnerError
            If there is no row, more classes come than the network has outputs, or the weights grew without bound.
        """
        if not len(examples):
            raise LearnerError(f"{self.name} cannot be fitted on no rows: widen the window")
        new = self._copy()
        with _working(seed, self._set.device):
            new._train(examples, seed, self._set.epochs, self._set.rate, update=False)
        if self._set.anchor:
            new._origin = {name: held.detach().clone() for name, held in new._trainable().items()}
        return new

    def begin(self) -> Self:
        """The network as it was given; it abstains until it has heard of a class, unless the outputs have names."""
        new = self._copy()
        if self._set.anchor:
            new._origin = {name: held.detach().clone() for name, held in new._trainable().items()}
        return new

    def update(self, examples: Examples, seed: int) -> None:
        """Go on from the current weights for ``update_epochs``, with a fresh optimizer; mutates ``self``.

        Raises
        ------
        LearnerError
            As :meth:`fit`.
        """
        self._trained()
        if not len(examples):
            return
        rate = self._set.rate if self._set.update_rate is None else self._set.update_rate
        with _working(seed, self._set.device):
            if self._set.shrink < 1.0 or self._set.perturb:
                self._shrink_and_perturb()
            self._train(examples, seed, self._set.update_epochs, rate, update=True)

    def predict(self, features: Features) -> Prediction:
        """Softmax of the logits and the class of the highest, or the values; nothing before anything was learned."""
        self._trained()
        starts = range(0, len(features), BLOCK_ROWS)
        return self._said(len(features), (self._encoded(features.slice(i, i + BLOCK_ROWS)) for i in starts))

    def serving(self) -> Serving | None:
        """The network asked in a matrix; None if rows are encoded by a function of the user's."""
        if self._module is None or self._set.encode is not None:
            return None

        def said(matrix: NDArray[np.float64]) -> Prediction:
            starts = range(0, len(matrix), BLOCK_ROWS)
            blocks = (_floats(matrix[i : i + BLOCK_ROWS], self.name, None).to(self._dtype) for i in starts)
            return self._said(len(matrix), blocks)

        return said

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - the protocol's: it holds no code anyway
        """Plain values as JSON, tensors as safetensors, behind a checked header."""
        facts = {"classes": self._classes, "centre": self._centre, "scale": self._scale, "seen": self._seen}
        return pack(KIND, join(facts, [_write(self._state())]), {"torch": torch.__version__}, "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """The weights that were saved, in the network as it was given.

        Raises
        ------
        FormatError
            If it is damaged, is no such model, or the network has other layers by now.
        """
        facts, payloads = part(unpack(KIND, blob, {}, trust)[1])  # any PyTorch reads the tensors
        try:
            tensors = _read(payloads[0])
            new = self._copy()
            new._classes = list(facts["classes"])
            new._centre, new._scale, new._seen = facts["centre"], facts["scale"], facts["seen"]
        except (SafetensorError, KeyError, IndexError, TypeError) as error:
            raise FormatError(f"the saved {self.name} is damaged ({error}): restore the file or train anew") from error
        new._restore(tensors)
        return new

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - it holds no code
        """The weights of module and head, and what is needed beside them as JSON."""
        self._trained()
        weights = {name: held for name, held in self._state().items() if name.startswith(("module.", "head."))}
        facts = {
            "task": self.task,
            "module": f"{type(self._template).__module__}.{type(self._template).__qualname__}",
            "classes": self._classes,
            "centre": self._centre,
            "scale": self._scale,
            "torch": torch.__version__,
        }
        ask = "softmax over classes of" if self.task == "classification" else "centre + scale *"
        head = "head.weight @ module(inputs) + head.bias" if self._head is not None else "module(inputs)"
        readme = (
            "safetensors.torch.load_file('model.safetensors'): `module.*` is the module's state_dict; then "
            f"{ask} {head}; classes and scale are in model.json"
        )
        return Files(files={"model.safetensors": _write(weights), "model.json": as_json(facts)}, readme=readme)

    def digest(self) -> str:
        """Digest of all tensors, classes and scales."""
        facts = [[typed(label) for label in self._classes], self._centre, self._scale, self._seen]
        return digest(canonical(facts), _digest_of(self._state()))

    def size(self) -> int:
        """Bytes of all tensors, and of the classes as text."""
        return sum(int(held.nbytes) for held in self._state().values()) + len(repr(self._classes))

    def row_trees(self, rows: int) -> int:  # noqa: ARG002
        """0: there are no trees."""
        return 0

    def check(self, features: Features) -> None:
        """Refuse words, nulls and infinities, unless a function of the user's encodes the rows."""
        if self._set.encode is None:
            self._encoded(features)

    # -- state --------------------------------------------------------------------------------------------------------

    def _copy(self) -> Self:
        new = type(self)(self._template, self._set)
        new._module = copy.deepcopy(self._template).to(self._set.device)
        return new

    def _trained(self) -> Any:
        if self._module is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._module

    def _trainable(self) -> dict[str, Any]:
        """Parameters that a training may change, by name."""
        found: dict[str, Any] = {}
        if self._set.freeze is None:
            found |= {f"module.{n}": p for n, p in self._trained().named_parameters() if p.requires_grad}
        if self._head is not None:
            found |= {f"head.{n}": p for n, p in self._head.named_parameters()}
        return found

    def _state(self) -> dict[str, Tensor]:
        """All tensors by name, each with its own memory on the CPU: tied weights twice."""
        held = {f"module.{n}": t for n, t in self._trained().state_dict().items()}
        if self._head is not None:
            held |= {f"head.{n}": t for n, t in self._head.state_dict().items()}
        held |= {f"origin.{n}": t for n, t in self._origin.items()}
        if self._kept is not None:
            held |= {f"{_REPLAYED}{n}": t for n, t in self._kept.tensors().items()}
        return {name: t.detach().cpu().contiguous().clone() for name, t in held.items()}

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        found = {name.partition(".")[0] for name in tensors}
        parts = {place: _within(tensors, f"{place}.") for place in found}
        own = {name: tuple(t.shape) for name, t in self._module.state_dict().items()}
        if own != {name: tuple(t.shape) for name, t in parts.get("module", {}).items()}:
            raise FormatError(
                f"the saved weights are of another network than {type(self._template).__name__} is now: bring back the "
                "code that they were trained with, or train anew"
            )
        self._module.load_state_dict(parts.get("module", {}))
        if "head" in parts:
            self._head = _linear(parts["head"]["weight"], parts["head"]["bias"], self._set.device)
        self._origin = {name: t.to(self._set.device) for name, t in parts.get("origin", {}).items()}
        if "replay" in parts:
            self._kept = _Rows.of(parts["replay"])

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _encoded(self, features: Features) -> Inputs:
        """Rows as the module's inputs, on the CPU."""
        if self._set.encode is None:
            for column in features.schema.columns:
                if column.kind is not Kind.NUMBER:
                    raise DataError(
                        f"column {column.name!r} holds words or dates ({column.dtype}), and {self.name} is given "
                        "numbers: give `encode`, build a number from it in `features`, or list it under `drop`"
                    )
            return _floats(features.matrix(), self.name, features.names).to(self._dtype)
        given = self._set.encode(features.frame())
        inputs = (
            {str(name): _tensor(value) for name, value in given.items()}
            if isinstance(given, Mapping)
            else _tensor(given)
        )
        for tensor in inputs.values() if isinstance(inputs, dict) else [inputs]:
            if not tensor.ndim or len(tensor) != len(features):
                raise LearnerError(
                    f"`encode` gave a tensor of shape {tuple(tensor.shape)} for {len(features)} rows: its first axis "
                    "must be the rows"
                )
        return _each(inputs, lambda t: t.to(self._dtype) if t.is_floating_point() else t)

    def _rows(self, examples: Examples) -> _Rows:
        """Examples as tensors; classes that are new get their codes, a first training finds a regression's scale."""
        n = len(examples)
        weights = np.ones(n) if examples.weights is None else examples.weights / max(examples.weights.mean(), 1e-300)
        if self.task == "regression":
            assert examples.values is not None
            known = examples.values[~np.isnan(examples.values)]
            if self._set.head and self._head is None and len(known):
                spread = float(known.std())
                self._centre, self._scale = float(known.mean()), spread if spread > 0 else 1.0
            labels = torch.from_numpy(((examples.values - self._centre) / self._scale).astype(np.float32))
        else:
            labels = torch.from_numpy(self._codes(examples))
        held = torch.from_numpy(weights.astype(np.float32))
        return _Rows(inputs=self._encoded(examples.features), labels=labels, weights=held)

    def _codes(self, examples: Examples) -> NDArray[np.int64]:
        """Labels as places in our own list of classes, to which new ones are appended; -1 where there is none."""
        assert examples.codes is not None
        known = {typed(label): code for code, label in enumerate(self._classes)}
        for code in np.unique(examples.codes[examples.codes >= 0]).tolist():
            label = examples.classes[code]
            if typed(label) in known:
                continue
            if self._set.classes:
                names = ", ".join(map(repr, self._set.classes))
                raise LearnerError(
                    f"{self.name} tells {len(self._set.classes)} classes apart ({names}), and {label!r} is another: "
                    "give a module with more outputs, or a head of ours, head=True, which grows"
                )
            known[typed(label)] = len(self._classes)
            self._classes.append(label)
        table = np.array([known.get(typed(label), -1) for label in examples.classes] + [-1], dtype=np.int64)
        return np.asarray(table[examples.codes])

    # -- the network --------------------------------------------------------------------------------------------------

    def _represented(self, inputs: Inputs) -> Tensor:
        """What the module says of rows, shape (n, h)."""
        module = self._module
        out = module(**inputs) if isinstance(inputs, dict) else module(inputs)
        if hasattr(out, "last_hidden_state"):
            hidden = out.last_hidden_state
            mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
            if mask is None:
                return hidden.mean(dim=1)
            share = mask.to(hidden.dtype).unsqueeze(-1)
            return (hidden * share).sum(dim=1) / share.sum(dim=1).clamp(min=1.0)
        if hasattr(out, "logits"):
            out = out.logits
        if not isinstance(out, torch.Tensor) or out.ndim not in (1, 2):
            got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__qualname__
            raise LearnerError(f"{type(module).__name__} gave {got}: let it give a tensor of shape (rows, width)")
        return out.unsqueeze(1) if out.ndim == 1 else out

    def _scores(self, inputs: Inputs, *, exact: bool = False) -> Tensor:
        """Logits of the classes known, or standardised values, shape (n, k) or (n, 1)."""
        if self._set.freeze is None:
            shown = self._represented(inputs)
        else:
            with torch.no_grad():
                shown = self._represented(inputs)
        if exact:  # little is left, and a row alone is then said of as it is among others
            shown = shown.double()
        if self._head is not None:
            weight, bias = self._head.weight, self._head.bias
            return functional.linear(shown, weight.to(shown.dtype), bias.to(shown.dtype))
        k = 1 if self.task == "regression" else len(self._classes)
        if shown.shape[1] < k or (k == 1 and self.task == "regression" and shown.shape[1] != 1):
            raise LearnerError(
                f"{type(self._module).__name__} gives {shown.shape[1]} outputs, and {k} are needed"
                + (f" ({', '.join(map(repr, self._classes))})" if self._classes else "")
                + ": give a module with so many, or a head of ours, head=True, which grows"
            )
        return shown[:, :k]

    @property
    def _mute(self) -> bool:
        """Whether there is nothing yet that could be said."""
        if self._set.head:
            return self._head is None
        return self.task == "classification" and not self._classes

    def _said(self, n: int, blocks: Iterator[Inputs]) -> Prediction:
        k = 1 if self.task == "regression" else len(self._classes)
        if self._mute:
            if self.task == "regression":
                return Prediction(values=np.full(n, np.nan))
            return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32))
        found = [np.empty((0, k))]
        with torch.no_grad(), _one_thread():
            for inputs in blocks:
                scores = self._scores(_each(inputs, lambda t: t.to(self._set.device)), exact=True)
                scores = torch.softmax(scores, dim=1) if self.task == "classification" else scores
                found.append(scores.cpu().numpy())
        shown = np.concatenate(found)
        if self.task == "regression":
            return Prediction(values=self._centre + self._scale * shown[:, 0])
        return Prediction(codes=shown.argmax(axis=1).astype(np.int32), proba=shown, classes=tuple(self._classes))

    def _prepare_head(self, rows: _Rows) -> None:
        """A head for what these rows are labelled with: made if there is none, wider if classes are new.

        Rows of the head start from zero. A first bias is the log of the class's share. That of a class which comes
        later gives it, on average, its share among these rows; what is said of the former ones relative to each other
        stays as it was.
        """
        if not self._set.head or not (labelled := rows.labelled).any():
            return
        with torch.no_grad():
            if self.task == "regression":
                if self._head is None:
                    self._grow(torch.zeros(1), rows)
                return
            count = torch.bincount(rows.labels[labelled], minlength=len(self._classes)).double()
            share = (count / count.sum()).clamp(min=0.5 / float(count.sum()))
            old = 0 if self._head is None else self._head.out_features
            if old == len(self._classes):
                return
            if not old:
                self._grow(share.log(), rows)
                return
            left = (1.0 - share[old:].sum()).clamp(min=0.5 / float(count.sum()))
            level = [torch.logsumexp(self._scores(block.inputs, exact=True), dim=1) for block in self._blocks(rows)]
            self._grow((share[old:] / left).log() + torch.cat(level).mean().cpu(), rows)

    def _blocks(self, rows: _Rows) -> Iterator[_Rows]:
        for start in range(0, len(rows), BLOCK_ROWS):
            index = torch.arange(start, min(start + BLOCK_ROWS, len(rows)))
            yield rows.take(index).to(self._set.device)

    def _grow(self, bias: Tensor, rows: _Rows) -> None:
        """Further outputs of the head, one for each bias, with weights of zero."""
        if self._head is None:
            first = rows.take(torch.arange(1)).to(self._set.device)
            width = self._represented(first.inputs).shape[1]
        else:
            width = self._head.in_features
        fresh = {"head.weight": torch.zeros(len(bias), width), "head.bias": bias.float()}
        fresh = {name: held.to(self._set.device) for name, held in fresh.items()}
        held = {} if self._head is None else {f"head.{n}": t.detach() for n, t in self._head.named_parameters()}
        both = {name: torch.cat([held[name], t]) if name in held else t for name, t in fresh.items()}
        self._head = _linear(both["head.weight"], both["head.bias"], self._set.device)
        if self._set.anchor:  # a row that comes after the first fit is pulled to what it began as
            for name, t in fresh.items():
                before = self._origin.get(name)
                self._origin[name] = t.clone() if before is None else torch.cat([before, t])

    # -- training -----------------------------------------------------------------------------------------------------

    def _shrink_and_perturb(self) -> None:
        """``theta <- shrink * theta + noise``, the noise normal with the standard deviation ``perturb``."""
        with torch.no_grad():
            for held in self._trainable().values():
                held.mul_(self._set.shrink)
                if self._set.perturb:
                    held.add_(torch.randn(held.shape).to(held), alpha=self._set.perturb)

    def _train(self, examples: Examples, seed: int, epochs: int, rate: float, *, update: bool) -> None:
        rows = self._rows(examples)
        self._prepare_head(rows)
        parameters = self._trainable()
        pull = self._set.anchor if update else 0.0
        decay = 0.0 if pull else self._set.weight_decay
        optimizer = torch.optim.AdamW(_groups(parameters, decay), lr=rate)
        order = torch.Generator().manual_seed(seed)
        per_epoch = math.ceil(len(rows) / self._set.rows)
        for step in range(epochs * per_epoch):
            if step % per_epoch == 0:
                parts = torch.tensor_split(torch.randperm(len(rows), generator=order), per_epoch)
            taken = self._with_replayed(rows.take(parts[step % per_epoch]), order, update=update)
            loss = self._loss(taken.to(self._set.device))
            if pull:
                away = [(held - self._origin[name]).square().sum() for name, held in parameters.items()]
                loss = loss + 0.5 * pull * torch.stack(away).sum()
            if not loss.requires_grad:  # a frozen module, and no row with a label
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate * pace(step, epochs * per_epoch, self._set.warmup)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self._set.clip is not None:
                nn.utils.clip_grad_norm_(parameters.values(), self._set.clip)
            optimizer.step()
        self._module.eval()
        optimizer.zero_grad(set_to_none=True)
        if not all(bool(torch.isfinite(held).all()) for held in parameters.values()):
            raise LearnerError(f"the weights of {self.name} grew without bound: lower `rate`, or scale the features")
        if self._set.replay:
            self._keep(rows, seed)

    def _with_replayed(self, rows: _Rows, order: Any, *, update: bool) -> _Rows:
        """A step's rows and, in an update, as many of those kept as make up their share."""
        if self._kept is None or not update:
            return rows
        share = self._set.replay_share
        wanted = max(1, round(len(rows) * share / (1.0 - share)))
        return _Rows.join(rows, self._kept.take(torch.randint(len(self._kept), (wanted,), generator=order)))

    def _loss(self, rows: _Rows) -> Tensor:
        """What a step minimises, of rows that lie on the device."""
        # one row has no variance: where a step has no more, layers that normalise go by what they have seen so far
        self._module.train(len(rows) > 1 and self._set.freeze is None)
        labelled = rows.labelled
        if not bool(labelled.any()):
            return torch.zeros((), device=self._set.device)
        if not bool(labelled.all()):
            rows = rows.take(labelled)
        scores = self._scores(rows.inputs)
        if self.task == "regression":
            missed = (scores[:, 0] - rows.labels.to(scores.dtype)).square()
        else:
            missed = functional.cross_entropy(scores, rows.labels, reduction="none")
        return (rows.weights * missed).mean()

    def _keep(self, rows: _Rows, seed: int) -> None:
        """Offer labelled rows to the reservoir: each that ever came is kept with the same chance."""
        offered = rows.take(torch.nonzero(rows.labelled)[:, 0])
        most, n = self._set.replay, len(offered)
        if not n:
            return
        place = self._seen + np.arange(n)
        slot = np.where(place < most, place, np.random.default_rng(seed).integers(0, place + 1))
        taken = dict(zip(slot[slot < most].tolist(), np.flatnonzero(slot < most).tolist(), strict=True))
        held = 0 if self._kept is None else len(self._kept)
        index = [held + taken[s] if s in taken else s for s in range(min(most, self._seen + n))]
        both = offered if self._kept is None else _Rows.join(self._kept, offered)
        self._kept = both.take(torch.tensor(index))
        self._seen += n


@final
class SelfSupervisedLearner(FineTunedLearner):
    """A network that has a loss of its own: rows without a label are part of what it learns from.

    A step minimises the loss of its labelled rows plus ``self_supervised`` times what the module's own
    ``self_supervised_loss(inputs)`` says of all of its rows.
    """

    @property
    def wants_unlabelled(self) -> Literal[True]:
        """It takes rows without a label."""
        return True

    def _loss(self, rows: _Rows) -> Tensor:
        loss = super()._loss(rows)
        own = getattr(self._module, _SELF)(rows.inputs)
        if not isinstance(own, torch.Tensor) or own.ndim:
            raise LearnerError(f"{type(self._module).__name__}.{_SELF} must give a scalar tensor")
        return loss + self._set.self_supervised * own


def pace(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor at a step, counted from 0: a line up to 1, then a cosine down to 0.

    Examples
    --------
    >>> [round(pace(step, 10, 0.2), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (steps - warm)))


def _groups(parameters: Mapping[str, Any], decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and the scales of layers that normalise do not."""
    matrices = [held for held in parameters.values() if held.ndim > 1]
    others = [held for held in parameters.values() if held.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _linear(weight: Tensor, bias: Tensor, device: str) -> Any:
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])  # draws nothing
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.to(device)


def _floats(matrix: NDArray[np.float64], name: str, columns: Sequence[str] | None) -> Tensor:
    """A matrix as float32; raises ``DataError`` for what is missing or has no finite float32."""
    with np.errstate(over="ignore"):
        out = matrix.astype(np.float32)
    if not np.isfinite(out).all():
        j = int(np.flatnonzero(~np.isfinite(out).all(axis=0))[0])
        what = "nulls" if np.isnan(out[:, j]).any() else "infinite values, or too large ones for float32"
        column = f"column {columns[j]!r}" if columns is not None else f"feature {j}"
        raise DataError(
            f"{column} holds {what}, which {name} cannot learn: fill or clip them in `features`, give `encode`, or "
            "list the column under `drop`"
        )
    return torch.from_numpy(out)


def _tensor(value: Any) -> Tensor:
    """A tensor as it is, and of anything else a copy: what numpy lends may not be written to."""
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


#: attributes that say nothing of one layer: weights and layers are told elsewhere, hooks and modes are none of it
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _plain_parts(module: nn.Module) -> list[Any]:
    """What layers hold beside weights, by name: what a network says may hang on any of it.

    A tensor is told by its content; an attribute that cannot be told makes the whole network untellable.
    """
    out: list[Any] = []
    for name, layer in module.named_modules():
        held = {key: value for key, value in vars(layer).items() if key not in _OF_EVERY_MODULE}
        held |= dict(layer.named_buffers(recurse=False))
        out.append([name, sorted((key, _plain_part(value)) for key, value in held.items())])
    return out


def _plain_part(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _digest_of({"": value})
    if hasattr(value, "to_dict"):  # a configuration of Hugging Face
        value = value.to_dict()
    return canonical(value)


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    parts: list[str | bytes] = []
    for name, held in sorted(tensors.items()):
        flat = held.detach().cpu().contiguous().reshape(-1)
        parts += [f"{name}\0{held.dtype}\0{tuple(held.shape)}", flat.view(torch.uint8).numpy().tobytes()]
    return digest(*parts)


@contextmanager
def _working(seed: int, device: str) -> Iterator[None]:
    """Gradients, one thread, and every draw from ``seed``; the process has its own random state again afterwards."""
    place = torch.device(device)
    index = [] if place.type == "cpu" else [place.index if place.index is not None else torch.cuda.current_device()]
    with torch.random.fork_rng(devices=index), torch.enable_grad(), _one_thread():
        torch.default_generator.manual_seed(seed)
        for i in index:
            torch.cuda.default_generators[i].manual_seed(seed)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, so that sums have one order, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
