"""Model files that somebody else wrote: what they are, and the model inside.

A file is read once, and what is opened are the bytes whose digest is told. A native file and one of skops hold no code;
a pickle runs the code of whoever wrote it as it is opened, and only an explicit word lets it.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from perennial.core.errors import ConfigError, FormatError, LearnerError, nearest
from perennial.core.protocols import Learner, ReadsNative, Trust
from perennial.learners.saved import sha256

Form = Literal["skops", "pickle", "lightgbm", "xgboost", "catboost"]

#: what the ending of a file says of its form
ENDINGS: dict[str, Form] = {
    ".skops": "skops",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".cbm": "catboost",
}
#: what a folder of MLflow must hold
_MLMODEL = "MLmodel"
_Flavor = Literal["sklearn", "lightgbm", "xgboost", "catboost"]
_FLAVORS: tuple[_Flavor, ...] = ("sklearn", "lightgbm", "xgboost", "catboost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model file as it lies there, not opened yet.

    Parameters
    ----------
    source : str
        Where it is, as the user said it.
    form : {"skops", "pickle", "lightgbm", "xgboost", "catboost"}
        How it is written.
    data : bytes
        Its content.
    names : tuple of str, optional
        Names of the model's features, where something beside the model tells them.
    """

    source: str
    form: Form
    data: bytes
    names: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return sha256(self.data)


def read(path: Path, source: str) -> ModelFile:
    """A model file, or the one inside an MLflow model's folder.

    Parameters
    ----------
    path : Path
        A file, whose ending says what it is, or a folder with an ``MLmodel`` file.
    source : str
        Where it came from, for messages and the ledger.

    Raises
    ------
    ConfigError
        If there is nothing, or nothing that is known.
    FormatError
        If the ``MLmodel`` file cannot be read.
    """
    if path.is_dir():
        return _of_mlflow(path, source)
    if not path.is_file():
        raise ConfigError("model", source, "there is no such file: name a model file or the folder of an MLflow model")
    form = ENDINGS.get(path.suffix.lower())
    if form is None:
        raise ConfigError("model", source, f"its ending says nothing of what it is: {nearest(path.suffix, ENDINGS)}")
    return ModelFile(source=source, form=form, data=path.read_bytes())


def _of_mlflow(folder: Path, source: str) -> ModelFile:
    import yaml

    try:
        about = yaml.safe_load((folder / _MLMODEL).read_text(encoding="utf-8"))
        flavors: dict[str, Any] = about["flavors"]
    except FileNotFoundError as error:
        raise ConfigError("model", source, f"the folder holds no {_MLMODEL} file: name a model file in it") from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise FormatError(
            f"{folder / _MLMODEL} is no description of an MLflow model ({error}): log it again"
        ) from error
    name = next((name for name in _FLAVORS if name in flavors), None)
    if name is None:
        raise ConfigError("model", source, f"its flavors are {', '.join(flavors)}: give one of {', '.join(_FLAVORS)}")
    facts = flavors[name]
    inside = folder / str(facts.get("pickled_model") or facts.get("data") or "")
    if not inside.is_file() or folder.resolve() not in inside.resolve().parents:
        raise FormatError(f"{folder / _MLMODEL} names {inside.name!r}, which is not in its folder: log the model again")
    by_itself: Form = name if name != "sklearn" else "pickle"
    if name == "sklearn" and facts.get("serialization_format") == "skops":
        by_itself = "skops"
    form = ENDINGS.get(inside.suffix.lower(), by_itself)
    return ModelFile(source=source, form=form, data=inside.read_bytes(), names=_signature(about))


def _signature(about: dict[str, Any]) -> tuple[str, ...] | None:
    """Names of the columns in a signature; None where there is none, or it is of an array."""
    try:
        inputs = json.loads(about["signature"]["inputs"])
        return tuple(column["name"] for column in inputs)
    except (KeyError, TypeError, ValueError):
        return None


def opened(file: ModelFile, learner: Learner, trust: Trust, *, allow_pickle: bool) -> Any:
    """The framework's own model that a file holds.

    Parameters
    ----------
    file : ModelFile
        As :func:`read` gave it.
    learner : Learner
        Which has to take it: a native file is opened by the configured framework.
    trust : Trust
        Types of the user's own that a file of skops may name.
    allow_pickle : bool
        Whether a pickle may be opened.

    Raises
    ------
    ConfigError
        If it is a pickle and none is allowed.
    LearnerError
        If it is a native file of another framework.
    FormatError
        If it cannot be opened, or names what may not be loaded.
    """
    if file.form == "skops":
        from perennial.learners import trust as by_name

        return by_name.load(file.data, trust)
    if file.form == "pickle":
        return _unpickled(file, allow=allow_pickle)
    if not isinstance(learner, ReadsNative) or learner.framework != file.form:
        raise LearnerError(
            f"{file.source} is a file of {file.form}, and the configured `model` is {learner.name}: configure the "
            "estimator that was trained; of wrappers and pipelines, see docs/adopting.md"
        )
    return learner.opened(file.data)


def _unpickled(file: ModelFile, *, allow: bool) -> Any:
    if not allow:
        raise ConfigError(
            "pickle",
            False,
            f"{file.source} is a pickle, which runs the code of whoever wrote it as it is opened: if that is you, or "
            "somebody you would let run a program here, say so with --pickle",
        )
    load = pickle.load
    with suppress(ImportError):
        load = import_module("joblib").load  # opens plain pickles too
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Trying to unpickle estimator")  # of another scikit-learn
            return load(io.BytesIO(file.data))
    except Exception as error:  # a pickle may raise anything
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FormatError(
            f"{file.source} cannot be opened ({first}): open it with the libraries that wrote it, and save it anew"
        ) from error
