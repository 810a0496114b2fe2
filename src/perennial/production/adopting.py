"""A model that the user has already becomes champion 1.0: no initial training, and the strategy goes on from it.

All of it is one turn of the ledger, the first: killed at any instant, there is nothing or there is champion 1.0. What
the model means by its rows is checked before: names and order of features, words of categories, classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perennial.core.errors import ConfigError, DataError, LearnerError, LedgerError, nearest
from perennial.core.features import Features, Schema
from perennial.core.protocols import Adopts, Known, Learner
from perennial.core.records import UNLABELLED, Adopt, Batch, Label
from perennial.core.times import EPOCH, micros
from perennial.learners import opening
from perennial.learners.golden import GOLDEN_ROWS, synthetic
from perennial.learners.opening import ModelFile
from perennial.ledger.records import Lease
from perennial.ledger.sql import SqlLedger
from perennial.production.deployment import Deployment
from perennial.production.run import Adoption, Run, Tell, silent
from perennial.stream.intake import Intake
from perennial.stream.sources import files_of, is_url
from perennial.windows import Mix

_TYPES: dict[str, type] = {"string": str, "int64": int, "bool": bool, "double": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was adopted.

    ``version`` is its number and ``learner`` what keeps it. ``digest`` is the SHA-256 of the file of form ``form`` that
    ``source`` names. ``features`` are its columns, ``classes`` the labels of its classes in its own order. ``asked``
    counts the rows of the source that it was asked about; 0 where there were none, and made-up ones were taken.
    ``notes`` say what a user should know.
    """

    version: str
    learner: str
    source: str
    form: str
    digest: str
    features: tuple[str, ...]
    classes: tuple[Label, ...]
    asked: int
    notes: tuple[str, ...]


def adopt(
    deployment: Deployment,
    ledger: SqlLedger,
    lease: Lease,
    source: str,
    *,
    now: datetime,
    allow_pickle: bool = False,
    classes: Sequence[str] = (),
    actor: str = "operator",
    reason: str = "",
    tell: Tell = silent,
) -> Adopted:
    """Make a model file or an MLflow model champion 1.0 of a deployment that has taken no turn yet.

    Parameters
    ----------
    deployment : Deployment
        Its strategy's model must be of the class that is adopted.
    ledger, lease : SqlLedger, Lease
        Where it becomes durable, and the right to write there.
    source : str
        A file (:data:`~perennial.learners.opening.ENDINGS`), the folder of an MLflow model, or ``models:/name/version``
        or ``runs:/id/path``, which MLflow's client fetches.
    now : datetime
        When it is adopted, if the source holds no row yet; else that is the instant of the first batch. Aware.
    allow_pickle : bool
        Open a pickle, which runs the code of whoever wrote it.
    classes : sequence of str
        The labels that the model's classes 0, 1, ... stand for, in this order; needed only if it knows them by number.
    actor, reason : str
        Who, and why; recorded.
    tell : callable, optional
        Hears of the turn, once it is durable.

    Raises
    ------
    LedgerError
        If the deployment has taken a turn already.
    ConfigError
        If there is no such model, it is a pickle and none is allowed, or ``classes`` do not fit it.
    LearnerError
        If the configured model cannot adopt, is another, or cannot predict the stream's rows.
    DataError
        If the model and the stream disagree on a column or on the labels; names the column.
    FormatError
        If the file cannot be opened.
    LeaseLost
        If somebody else took over.
    """
    _refuse_begun(deployment, ledger, source)
    if not deployment.begun():
        need = "say what rows hold, and the label: the inbox is empty, and the model's file does not tell"
        raise ConfigError("columns", None, need)
    file = _fetched(source)
    learner = deployment.learner
    if not isinstance(learner, Adopts):
        raise LearnerError(_cannot(learner))
    model = opening.opened(file, learner, deployment.trust, allow_pickle=allow_pickle)
    about = f"{file.source} (SHA-256 {file.digest})"

    intake = Intake(deployment.stream, learner.task)
    first = _first(intake)
    types = intake.feature_types
    if types is None:
        raise DataError(
            f"{deployment.stream.source} holds no row yet, and its features are built by a function: adopt once there "
            "is a row, so that the model can be held against them"
        )
    if not first:
        _refuse_untyped(deployment.stream.source)
        intake.begin(types, {})
    schema: Schema = intake.schema
    known = learner.known(model, schema)
    _check_names(known.names or file.names, known.width, schema, str(deployment.stream.source))
    labels, notes = _labels(deployment, learner, known, intake.label_type, classes, first)
    words = {schema.names[i]: list(meant) for i, meant in known.words.items()}
    probe = _probe(deployment, types, words, schema)
    adopted = learner.adopted(model, labels)
    _ask(adopted, probe, labels, file.source)

    at = first[0].start if first else micros(now - EPOCH)
    told = f"adopted from {about}, by {actor}" + (f": {reason}" if reason else "")
    asked = len(probe) if first else 0
    facts = {
        "source": file.source, "form": file.form, "sha256": file.digest, "by": actor, "classes": list(labels),
        "rows": asked, "words": {name: len(some) for name, some in words.items()},
    }  # fmt: skip
    event = Adopt(now=at, model=adopted, reason=told, classes=labels)
    run = Run(deployment, ledger, lease, tell)
    run.adopt(Adoption(event=event, types=types, words=words, probe=probe, facts=facts))
    return Adopted(
        version="1.0", learner=learner.name, source=file.source, form=file.form, digest=file.digest,
        features=schema.names, classes=labels, asked=asked, notes=(*notes, *_cautions(deployment)),
    )  # fmt: skip


def _refuse_begun(deployment: Deployment, ledger: SqlLedger, source: str) -> None:
    if ledger.head().turn < 0:
        return
    first = next((saved.version for saved in ledger.versions()), None)
    if first is not None and first.kind == "adopt":
        raise LedgerError(
            f"deployment {deployment.name!r} has a model already, {first.number} {first.reason}: there is nothing to "
            f"do; for {source}, give the configuration a new `name`"
        )
    raise LedgerError(
        f"deployment {deployment.name!r} has begun, and adopts no model any more: give the configuration a new `name` "
        "for it, or make a version of its own champion,  perennial promote"
    )


def _cannot(learner: Learner) -> str:
    return (
        f"{learner.name} cannot adopt a model: it keeps more than one model and what it has learned of labels since, "
        "which a file of one model does not hold. Configure the plain estimator (or EarlyStopped) with a stateless "
        "strategy, or for updates one with partial_fit or a River model"
    )


def _fetched(source: str) -> ModelFile:
    """The file of a path, or of a registry's address."""
    if not source.startswith(("models:/", "runs:/")):
        return opening.read(Path(source), source)
    try:
        artifacts: Any = import_module("mlflow.artifacts")
    except ImportError as error:
        raise ConfigError(
            "model", source, "MLflow's client fetches it: run  pip install mlflow  or give the folder of the model"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = artifacts.download_artifacts(artifact_uri=source, dst_path=folder)
        except Exception as error:  # of the registry, the store behind it, or the way there
            raise ConfigError("model", source, f"MLflow could not fetch it: {error}") from error
        return opening.read(Path(path), source)


# -- the stream's first rows ------------------------------------------------------------------------------------------


def _first(intake: Intake) -> list[Batch]:
    """The first batches of the source, as far as they are there, until they hold enough rows to ask about."""
    intake.refresh()
    out: list[Batch] = []
    while sum(map(len, out)) < GOLDEN_ROWS and (bounds := intake.look(to_the_end=True)) is not None:
        out.append(intake.take(bounds).batch)
    return out


def _refuse_untyped(source: Any) -> None:
    """Raise ``DataError`` where files without rows do not tell the types of their columns."""
    for file in () if is_url(source) else files_of(source):
        parquet = file.suffix.lower() in (".parquet", ".pq")
        if not parquet or any(pa.types.is_null(column.type) for column in pq.read_schema(file)):
            raise DataError(
                f"{file.name} holds no row, and does not tell the types of its columns without one: adopt once there "
                "is a row"
            )


def _probe(deployment: Deployment, types: dict[str, Any], words: dict[str, list[str]], schema: Schema) -> Features:
    """Rows to ask the model about, in the codes that it knows: the first of the source, else made up."""
    intake = Intake(deployment.stream, deployment.learner.task)
    intake.begin(types, words)
    if batches := _first(intake):
        return Features.join(intake.schema, [batch.features for batch in batches]).slice(0, GOLDEN_ROWS)
    return synthetic(Schema(schema.columns, intake.schema.vocabularies), {}, GOLDEN_ROWS)


# -- what both must agree on ------------------------------------------------------------------------------------------


def _check_names(names: tuple[str, ...] | None, width: int | None, schema: Schema, source: str) -> None:
    """Raise ``DataError``, naming the column, unless the stream has the model's features in the model's order."""
    has = schema.names
    if names is None:
        if width is not None and width != len(has):
            raise DataError(
                f"the model wants {width} features and names none, and {source} has {len(has)}: {', '.join(has)}: list "
                "those that it was not trained on under `drop`"
            )
        return
    for name in names:
        if name not in has:
            raise DataError(
                f"the model wants a column {name!r}, which {source} lacks as a feature: {nearest(name, has)}"
            )
    for name in has:
        if name not in names:
            raise DataError(f"column {name!r} of {source} is unknown to the model: list it under `drop`")
    for i, (ours, theirs) in enumerate(zip(has, names, strict=True), 1):
        if ours != theirs:
            raise DataError(
                f"feature {i} is column {ours!r} in {source} and {theirs!r} in the model: write the columns in the "
                f"model's order, {', '.join(names)}"
            )


def _labels(
    deployment: Deployment,
    learner: Adopts,
    known: Known,
    label_type: str,
    given: Sequence[str],
    first: Sequence[Batch],
) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    """The labels of the model's classes, in its order and the label column's type, and what is to be said of them."""
    if learner.task == "regression":
        if given:
            raise ConfigError("classes", ", ".join(given), f"{learner.name} is a regression: leave them out")
        return (), ()
    target = str(deployment.stream.target)
    kind, own = _TYPES[label_type], known.classes
    itself = bool(own) and all(type(label) is kind for label in own)
    numbered = all(isinstance(label, bool | int | float) for label in own) and list(own) == list(range(len(own)))
    if given:
        labels = tuple(_label_of(word, kind, target) for word in given)
        if len(set(labels)) < len(labels) or (own and len(labels) != len(own)):
            raise ConfigError("classes", ", ".join(given), f"the model has {len(own)} classes: give each its own label")
        if itself and labels != own and not numbered:
            raise ConfigError("classes", ", ".join(given), f"the model itself names {_spelled(own)}: leave them out")
        itself = False
    elif itself:
        labels = own
        itself = not numbered  # numbers may be anybody's: LightGBM and a label encoder number all classes
    elif own and numbered and kind is bool and len(own) == 2:
        labels = (False, True)
    elif own and numbered and kind in (int, float):
        labels = tuple(kind(label) for label in own)
    else:
        says = f"the model's classes are {_spelled(own)}" if own else "the model does not say what its classes are"
        raise DataError(
            f"label column {target!r} holds {label_type}, and {says}: name the labels that they stand for, in the "
            "model's order, with --classes"
        )
    return labels, _unknown_labels(labels, target, first, itself=itself)


def _unknown_labels(labels: tuple[Label, ...], target: str, first: Sequence[Batch], *, itself: bool) -> tuple[str, ...]:
    """Raise ``DataError`` where the first rows' labels show that the classes mean something else."""
    codes = {code for batch in first if batch.label_codes is not None for code in batch.label_codes.tolist()}
    present = [first[-1].label_values[code] for code in sorted(codes - {UNLABELLED})]
    unknown = [label for label in present if label not in labels]
    if not unknown:
        return ()
    if itself and len(unknown) < len(present):
        return (
            f"label column {target!r} holds {_spelled(unknown)}, which the model does not know: it is wrong of each "
            "such row, until a later version has learned them",
        )
    raise DataError(
        f"label column {target!r} holds {_spelled(unknown)}, and the model's classes are {_spelled(labels)}: name the "
        "labels that its classes stand for, in its order, with --classes, or adopt a model of these labels"
    )


def _label_of(word: str, kind: type, target: str) -> Label:
    """A label from its text, in the type of the label column."""
    truths = {"true": True, "false": False}
    try:
        label: Label = truths[word.strip().lower()] if kind is bool else kind(word.strip())
    except (KeyError, ValueError) as error:
        raise ConfigError("classes", word, f"label column {target!r} holds values of type {kind.__name__}") from error
    return label


def _spelled(labels: Sequence[Label], most: int = 5) -> str:
    return ", ".join(map(repr, labels[:most])) + (", ..." if len(labels) > most else "")


def _ask(model: Learner, probe: Features, labels: tuple[Label, ...], source: str) -> None:
    """Raise if the model cannot be asked about the stream's rows, or answers in other classes."""
    model.check(probe)
    try:
        said = model.predict(probe)
    except (DataError, LearnerError):
        raise
    except Exception as error:  # whatever a framework raises over rows that it does not understand
        raise LearnerError(f"{source} cannot predict the stream's rows: {error}") from error
    if said.proba is not None and said.proba.shape[1] != len(labels):
        raise LearnerError(f"{source} gives {said.proba.shape[1]} probabilities for {len(labels)} classes")


def _cautions(deployment: Deployment) -> tuple[str, ...]:
    """What settings mean after an adoption and might surprise, each in a sentence."""
    strategy, out = deployment.strategy, []
    if strategy.initial is not None:
        out.append("`initial` is not used: the adopted model predicts from the first row on")
    if strategy.refits and deployment.gate is None:
        out.append(
            "there is no `gate`: the first model that is trained, on the rows that came until then, replaces this one "
            "untested"
        )
    if isinstance(strategy.window, Mix) and strategy.window.initial is not None:
        out.append(f"the window ({strategy.window}) has no initial rows to draw from: it holds its recent share alone")
    return tuple(out)
