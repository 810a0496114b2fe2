"""From what a user hands in to a learner: an estimator, a path to one, or a learner already.

To add a framework, write ``learners/<framework>.py`` with ``wrap(model) -> Learner`` and add its line to
``FRAMEWORKS``. From outside this package, register an entry point in the group ``perennial.learners`` whose name is
the framework's top-level module and whose value is a module with ``wrap``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import FunctionType, ModuleType
from typing import Any, Literal, cast

from perennial.core.errors import ConfigError, MissingExtra, nearest
from perennial.core.protocols import Learner, Updatable

#: top-level module of a framework, and where its learners live
FRAMEWORKS = {
    "sklearn": "perennial.learners.sklearn",
    "lightgbm": "perennial.learners.lightgbm",
    "xgboost": "perennial.learners.xgboost",
    "catboost": "perennial.learners.catboost",
    "river": "perennial.learners.river",
    "torch": "perennial.learners.torch",
}


def as_learner(model: object, *, params: Mapping[str, object] | None = None) -> Learner:
    """The learner for a model, however the user names it.

    Parameters
    ----------
    model : object
        A learner (given back as it is); an estimator of a known framework; the path of a class,
        ``"lightgbm.LGBMClassifier"``; the path of a function that makes an estimator or a learner,
        ``"package.module:factory"``; or a mapping ``{"estimator": path, "params": {...}}`` as in the configuration.
    params : mapping, optional
        With a path: what the class or function is called with.

    Raises
    ------
    ConfigError
        If the path leads nowhere, or the framework is not known.
    MissingExtra
        If the framework is known and not installed.

    Examples
    --------
    >>> as_learner("sklearn.linear_model.SGDClassifier", params={"loss": "log_loss"}).name
    'SGDClassifier'
    """
    made = _made(model, params)
    if isinstance(made, Learner):
        return made
    return cast(Learner, _home(made).wrap(made))


def Decayed(  # noqa: N802 - reads as the type of learner it makes
    estimator: object, *, gamma: float = 0.7, trees: int = 10, **options: Any
) -> Updatable:
    """Boosted trees whose update shrinks the model by ``gamma`` and adds ``trees`` new trees on what is then left.

    A tree's weight is gamma to the power of its age, and trees of no weight are dropped: memory is bounded, and the
    model remembers about ``1 / (1 - gamma)`` batches.

    Parameters
    ----------
    estimator : object
        A LightGBM, XGBoost or CatBoost estimator, or the path of one.
    gamma : float
        In (0, 1).
    trees : int
        Boosting rounds per update.
    options
        Further settings of the framework's own ``decayed``.
    """
    return cast(Updatable, _boosted("decayed", estimator, gamma=gamma, trees=trees, **options))


def LeafRefit(estimator: object, *, decay: float = 0.9, **options: Any) -> Updatable:  # noqa: N802
    """Boosted trees whose update keeps every split and moves the leaves to ``decay * old + (1 - decay) * new``.

    The cheapest update; it holds until the structure itself has to change.
    """
    return cast(Updatable, _boosted("leaf_refit", estimator, decay=decay, **options))


def Continued(estimator: object, *, trees: int = 10, **options: Any) -> Updatable:  # noqa: N802
    """Boosted trees whose update piles ``trees`` more trees on: a baseline to beat, and it warns.

    Size grows without bound and early trees are never undone; on several streams it does worse than never updating.
    Take :func:`Decayed`.
    """
    return cast(Updatable, _boosted("continued", estimator, trees=trees, **options))


def EarlyStopped(  # noqa: N802
    estimator: object, *, share: float = 0.2, rounds: int = 50, **options: Any
) -> Learner:
    """Boosted trees that stop when they no longer improve on the last ``share`` of the window, in time order.

    Parameters
    ----------
    estimator : object
        A LightGBM, XGBoost or CatBoost estimator, or the path of one.
    share : float
        In (0, 1): how much of the window, its newest part, is held out to decide when to stop.
    rounds : int
        Stop after this many rounds without improvement.
    """
    return _boosted("early_stopped", estimator, share=share, rounds=rounds, **options)


def SlidingForest(  # noqa: N802
    estimator: object, *, trees: int = 10, size: int = 10, drop: Literal["worst", "oldest"] = "worst"
) -> Updatable:
    """Small forests, one per update, weighed by how they did on the newest labels.

    Parameters
    ----------
    estimator : object
        scikit-learn's random forest or extra trees, classifier or regressor, or the path of one.
    trees : int
        Trees per update. The first fit keeps the estimator's own ``n_estimators``.
    size : int
        Forests kept at most; memory is bounded by it.
    drop : {"worst", "oldest"}
        Which one goes when there are more.
    """
    from perennial.learners import sklearn

    return sklearn.SlidingForest(_made(estimator, None), trees=trees, size=size, drop=drop)


def AccuracyUpdated(learner: object, *, size: int = 10) -> Updatable:  # noqa: N802
    """One small model per update, each weighed by how it did on the newest labels.

    Each update first asks all members about its examples: member i then weighs ``1 / (E + e[i])``, with ``e[i]`` its
    mean squared error there and ``E`` that of saying the shares of the classes, or the mean; the new member, trained
    on these examples alone, weighs ``1 / E``. Members are not changed later. Of more than ``size`` the one that weighs
    least goes. Answers are averaged, so dropping one leaves no hole, as dropping trees of a boosted sum does.

    Parameters
    ----------
    learner : object
        Whatever :func:`as_learner` takes, e.g. a booster of few trees; a classifier must give probabilities.
    size : int
        Members at most: the memory is theirs.

    References
    ----------
    Brzezinski and Stefanowski (2014), the Accuracy Updated Ensemble, for the weights.
    """
    from perennial.learners import ensemble

    return ensemble.BatchEnsemble(as_learner(learner), size=size)


def Rebuilt(learner: object, *, rows: int, every: int = 1) -> Updatable:  # noqa: N802
    """A stateless model for whoever wants to be updated: it keeps its newest rows, and is fitted anew on them.

    For a committee, where stateless and stateful experts are weighed side by side. Alone,
    :class:`perennial.strategies.Stateless` does the same, and shares its window and its trainings with others.

    Parameters
    ----------
    learner : object
        Whatever :func:`as_learner` takes.
    rows : int
        The window: its newest rows, which it holds.
    every : int
        Updates from one fit to the next.
    """
    from perennial.learners import rebuilt

    return rebuilt.WindowedLearner(as_learner(learner), rows=rows, every=every)


def PriorCorrected(learner: object, *, memory: float = 1000.0, bound: float = 20.0) -> Updatable:  # noqa: N802
    """A classifier that is trained once, and whose probabilities follow how common the classes have become.

    For label drift alone: what a class looks like stays, and its share changes. No training is needed then:
    probabilities are multiplied by the share among the newest labels over the share in training, and divided by their
    sum. A :func:`Calibrated` learner repairs more, and needs more labels to do it.

    Parameters
    ----------
    learner : object
        Whatever :func:`as_learner` takes, if it gives probabilities.
    memory : float
        Labels after which an older one counts half.
    bound : float
        The greatest factor of a correction, up or down.

    References
    ----------
    Saerens, Latinne and Decaestecker (2002), equation 2.4, with shares counted among labels.
    """
    from perennial.learners import priors

    return priors.PriorCorrectedLearner(as_learner(learner), memory=memory, bound=bound)


def Tuned(  # noqa: N802
    estimator: object,
    search: Mapping[str, Sequence[Any]],
    *,
    split: float = 0.2,
    trials: int | None = None,
    wrap: Callable[[Any], Any] | None = None,
) -> Learner:
    """A learner whose parameters are chosen in each fit, inside its window: nothing is tuned on what comes later.

    The older part of the window trains every choice, its newest ``split`` judges them, and the best is fitted on all.
    Where the result can be updated, updates reach the chosen model. The search's cost counts: CPU seconds and
    row-trees are those of all choices.

    Parameters
    ----------
    estimator : object
        An estimator with ``set_params``, or the path of its class.
    search : mapping of str to list
        Values of parameters; every combination is a choice.
    split : float
        In (0, 1): the newest share of the window, in order, that judges.
    trials : int, optional
        How many choices each fit draws and tries; all unless given.
    wrap : callable, optional
        What makes a learner of the estimator, e.g. ``learners.Decayed``.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> Tuned(LogisticRegression(), {"C": [0.1, 1.0]}).name
    'Tuned(LogisticRegression)'
    """
    from perennial.learners import tuned

    def make(choice: dict[str, Any]) -> Learner:
        if isinstance(estimator, str | Mapping):
            made = _made(estimator, choice)
        else:
            made = tuned.with_parameters(estimator, choice)
        return as_learner(made if wrap is None else wrap(made))

    return tuned.tune(make, search, split=split, trials=trials)


def FineTuned(  # noqa: N802
    module: object,
    *,
    params: Mapping[str, object] | None = None,
    task: Literal["classification", "regression"] = "classification",
    encode: object = None,
    **settings: Any,
) -> Updatable:
    """A PyTorch network that is fitted, and fine-tuned by every update.

    A fit starts from the weights that the module was given with, pretrained or drawn; an update, from where the model
    stands. What the module says of a row goes through a linear head that grows when a class first appears.

    Parameters
    ----------
    module : object
        A ``torch.nn.Module``, or the path of a class or function that makes one, ``"package.module:factory"``. What a
        path makes is drawn from a fixed seed, so that it is the same in every process. A module gives a tensor of shape
        (rows, width), or an output with ``last_hidden_state``, as encoders of Hugging Face do, whose mean over the
        attention mask is taken. Where it has a method ``self_supervised_loss(inputs)`` that gives a scalar, the learner
        learns from rows without a label too.
    params : mapping, optional
        With a path: what the class or function is called with.
    task : {"classification", "regression"}
        Cross-entropy, or the squared error of values that the first fit standardises.
    encode : function or path, optional
        From a pandas frame of n rows to a tensor, or a dict of tensors by the names of the module's arguments, each of
        n rows. None is a float32 matrix of the features, which holds no words, nulls or infinities.
    settings
        ``head`` (True): False if the module itself gives logits, in the order in which classes come or in that of
        ``classes``, or values. ``epochs`` (10) of a fit, ``update_epochs`` (1), ``rows`` (64) of a step. ``rate``
        (0.001) and ``update_rate`` (as ``rate``) of AdamW, with ``warmup`` (0.1), the share of steps in which it rises
        before a cosine takes it to 0. ``weight_decay`` (0.01). ``clip`` (1.0): the largest norm of a gradient, or None.

        ``shrink`` (1.0), ``perturb`` (0.0): every update starts with ``shrink * weights + perturb * noise``.
        ``anchor`` (0.0): an update's loss has ``anchor / 2`` times the squared distance to the weights of the last fit,
        in the place of weight decay. ``replay`` (0): keep so many rows, drawn evenly from all, and mix them into an
        update as ``replay_share`` (0.5) of its rows. ``self_supervised`` (1.0): weight of the module's own loss; 0
        leaves it out. ``freeze`` (None): ``"module"`` trains the head alone. ``device`` (``"cpu"``): or ``"cuda"``.

    Raises
    ------
    ConfigError
        If something is no module, or a setting is unknown or out of range.
    MissingExtra
        If PyTorch or safetensors is not installed.
    """
    home = _imported(FRAMEWORKS["torch"], "FineTuned")
    made = _made(module, params)
    function = _found(encode) if isinstance(encode, str) else encode
    return cast(Updatable, home.fine_tuned(made, task=task, encode=function, **settings))


def Sklearn(  # noqa: N802
    estimator: object, *, view: Literal["frame", "arrow", "matrix"] | None = None
) -> Learner:
    """A scikit-learn estimator or pipeline, and the view of the rows it is given.

    Parameters
    ----------
    estimator : object
        Any classifier, regressor or pipeline with scikit-learn's interface, or the path of one.
    view : {"frame", "arrow", "matrix"}, optional
        A pandas frame with the user's own types, an Arrow table, or a float64 matrix. None chooses: a frame for
        whatever picks columns by name or meets words and dates, else a matrix.
    """
    from perennial.learners import sklearn

    return sklearn.wrap(_made(estimator, None), view=view)


def Calibrated(  # noqa: N802
    learner: object, *, inner: Literal["learns", "frozen"] = "learns", share: float = 0.2, ridge: float = 10.0
) -> Learner:
    """A classification learner whose probabilities are corrected by the newest labels.

    Parameters
    ----------
    learner : object
        Whatever :func:`as_learner` takes, if it gives probabilities.
    inner : {"learns", "frozen"}
        Whether an update also reaches the learner inside. A frozen one need not be updatable: only the correction
        learns then, which costs next to nothing and can be done with every batch of labels.
    share : float
        In (0, 1): the last share of a fit's window, on which the correction is fitted.
    ridge : float
        Pull towards the former correction, in examples: more is steadier.
    """
    from perennial.learners import calibrated

    return calibrated.calibrate(as_learner(learner), inner=inner, share=share, ridge=ridge)


def _boosted(kind: str, estimator: object, **options: Any) -> Learner:
    made = _made(estimator, None)
    home = _home(made)
    if not hasattr(home, kind):
        need = "give an estimator of lightgbm, xgboost or catboost: only boosted trees do this"
        raise ConfigError("estimator", type(made).__qualname__, need)
    return cast(Learner, getattr(home, kind)(made, **options))


def _made(model: object, params: Mapping[str, object] | None) -> object:
    """The object that a path or mapping stands for; any other object as it is."""
    if isinstance(model, Mapping):
        if unknown := set(model) - {"estimator", "params"}:
            word = str(sorted(unknown, key=str)[0])
            raise ConfigError("model", word, nearest(word, ["estimator", "params"]))
        if "estimator" not in model:
            raise ConfigError("model", dict(model), "say which: {estimator: lightgbm.LGBMClassifier, params: {...}}")
        return _made(model["estimator"], {**(model.get("params") or {}), **(params or {})})
    if isinstance(model, str):
        return _called(_found(model), model, params or {})
    if params:
        raise ConfigError("params", dict(params), f"set them on the {type(model).__qualname__} itself")
    return model


def _called(thing: object, path: str, params: Mapping[str, object]) -> object:
    if not callable(thing):
        if params:
            raise ConfigError("params", dict(params), f"{path} is no class or function: it takes none")
        return thing
    try:
        with _same_draws():
            return thing(**params)
    except TypeError as error:
        raise ConfigError("model", path, f"it could not be called with {sorted(params)}: {error}") from error


@contextmanager
def _same_draws() -> Iterator[None]:
    """The weights that PyTorch draws while a path is followed are the same in every process."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "random"):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _found(path: str) -> object:
    """What ``"package.module:name"`` or ``"package.module.Name"`` names."""
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    if not module or not name:
        raise ConfigError("model", path, "write a path such as lightgbm.LGBMClassifier or package.module:factory")
    home = _imported(module, path)
    thing: object = home
    for part in name.split("."):
        if not hasattr(thing, part):
            names = [word for word in dir(thing) if not word.startswith("_")]
            raise ConfigError("model", path, f"{module} has no {part!r}: {_near(part, names)}")
        thing = getattr(thing, part)
    return thing


def _near(word: str, names: list[str]) -> str:
    hint = nearest(word, names) if names else ""
    return hint if hint.startswith("did you mean") else "check the name"


def _imported(module: str, wanted_by: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name in FRAMEWORKS:
            raise MissingExtra(error.name, wanted_by) from error
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # the user's module was found, and something that it imports was not: its own trace says best
        need = f"there is no module {error.name!r}: check the path, or install its package"
        raise ConfigError("model", wanted_by, need) from error


@cache
def _others() -> dict[str, EntryPoint]:
    """Frameworks that other packages bring; looked for once, as every installed package is asked."""
    return {point.name: point for point in entry_points(group="perennial.learners")}


def _home(model: object) -> Any:
    """The module whose ``wrap`` takes a model: that of the most derived known base class."""
    if isinstance(model, type | FunctionType):
        raise ConfigError("model", model.__qualname__, f"give what it makes: {model.__name__}()")
    others = _others()
    for base in type(model).__mro__:
        top = base.__module__.partition(".")[0]
        if top in FRAMEWORKS:
            return _imported(FRAMEWORKS[top], type(model).__qualname__)
        if top in others:
            return others[top].load()
    known = ", ".join(sorted({*FRAMEWORKS, *others}))
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise ConfigError("model", kind, f"give an estimator of one of: {known}; or an object that is a Learner")
