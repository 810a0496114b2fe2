"""The records of the configuration, one class per part of the YAML. A check is the constructor it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, Strict, field_validator, model_validator

from perennial import strategies, triggers, windows
from perennial.config.shapes import Arguments, OneOf, Record
from perennial.config.values import DURATION, ROWS, Batch, Class, Condition, Instant, Retention, Span, SpanOrRows
from perennial.core.errors import ConfigError, nearest
from perennial.core.protocols import Trigger as TriggerProtocol
from perennial.core.protocols import Trust
from perennial.core.protocols import Window as WindowProtocol
from perennial.gate import Gate as PairedGate
from perennial.gate import Golden as PairedGolden
from perennial.gate import Slice as PairedSlice
from perennial.metrics.money import Prices
from perennial.stream.quality import Quality as BatchQuality

SERVE = "serve"  #: the source of a deployment that takes in what servers write

Names = Annotated[tuple[str, ...], Strict(False)]


class Label(Arguments):
    """Which column holds the labels, and when each of them is known."""

    main: ClassVar[str] = "column"

    column: str
    """Column of labels."""
    delay: Span | None = None
    """A label is known this long after its event."""
    known_at: str | None = None
    """Column that says when each label became known."""
    within: Span | None = None
    """With `absent`: how long silence lasts before it is a label."""
    absent: Class | None = None
    """With `within`: the label that silence means."""
    positives_wait: bool = True
    """With `within`: whether the other labels wait as long."""
    wait: Span | None = None
    """With a label log, `labels`: how long after its event a row may still get a label from it."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.delay is not None and self.known_at is not None:
            raise ConfigError("delay", self.delay, "`known_at` already says when labels are known: give one of the two")
        if (self.within is None) != (self.absent is None):
            raise ConfigError("within", self.within, "`within` and `absent` go together, e.g. within: 90d, absent: 0")
        if self.wait is not None and self.within is not None and self.wait < self.within:
            raise ConfigError("wait", self.wait, "silence is a label after `within`: wait at least as long")
        return self


class Features(Record):
    """A function that makes features from a batch and past rows of the same key."""

    build: str
    """Where the function is: package.module:function."""
    lookback: Span
    """How far back it may look."""


class Stream(Record):
    """Where rows come from, what each column is for, and how rows are cut into batches."""

    source: str
    """A Parquet or CSV file, a folder of them, or a glob; or serve, what servers answered and what came back."""
    time: str
    """Column of event times."""
    label: Label
    """Column of labels, and when they are known."""
    time_zone: str | None = None
    """Zone of naive times and of calendar batches, e.g. Europe/Lisbon."""
    id: str | None = None
    """Column that a label refers to."""
    key: str | None = None
    """Column that says whom a row is about."""
    weight: str | None = None
    """Column of example weights."""
    group: str | None = None
    """Column for learners that keep groups together."""
    drop: Names = ()
    """Columns that are no features."""
    text: Names = ()
    """Columns of prose, for a model with its own vectoriser."""
    word_rows: int | None = None
    """Rows that must have had a word before it counts as one; 1 unless given, 10 with `retention: none`."""
    features: Features | None = None
    """Features that look back."""
    batch: Batch = "1d"
    """Calendar time or a number of rows that arrive together."""
    lateness: Span | None = None
    """Rows may come this much later than an earlier row."""
    positive: Class | None = None
    """The class that metrics of two classes are about."""
    labels: str | None = None
    """A log of labels that arrived apart from their rows: files, or a table."""
    columns: dict[str, Literal["number", "integer", "text", "boolean", "time"]] | None = None
    """With `source: serve`: what rows hold, and the label, where no example was pushed that says it."""

    @model_validator(mode="before")
    @classmethod
    def _served(cls, given: Any) -> Any:
        """What a stream that is served is unless it is said otherwise."""
        if not isinstance(given, Mapping) or given.get("source") != SERVE:
            return given
        return {"time": "time", "id": "id", "lateness": timedelta(minutes=1), "batch": "10s", **given}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.source != SERVE:
            if self.columns is not None:
                raise ConfigError("columns", [*self.columns], "they are of `source: serve`; a file says what it holds")
            return self
        if self.labels is not None:
            raise ConfigError("labels", self.labels, "what is served has its own label log: take it out")
        if self.label.known_at is not None:
            need = "labels are known when they are received: take it out; pushed rows may say, in a column `known_at`"
            raise ConfigError("label.known_at", self.label.known_at, need)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(core_schema)
        handler.resolve_ref_schema(whole)["required"].remove("time")  # it has a default where the source is `serve`
        return whole


class Made(Record):
    """Arguments of a constructor, which checks them."""

    makes: ClassVar[Any]

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.build()
        return self

    def build(self) -> Any:
        """What the constructor makes of the arguments that were given."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        built = {name: value.build() if isinstance(value, Trigger) else value for name, value in given.items()}
        return type(self).makes(**{name: value for name, value in built.items() if value is not None})


class Guarded(Made):
    """A window with gaps before the cut, for labels that look ahead."""

    purge: Span | None = None
    """How far a label looks ahead."""
    embargo: Span | None = None
    """A further gap between the newest example and the cut."""


class Sliding(Guarded, Arguments):
    """The most recent examples, by time or by count."""

    makes: ClassVar[Any] = windows.Sliding
    main: ClassVar[str] = "span"
    counted: ClassVar[str | None] = "rows"

    span: Span | None = None
    """How far back."""
    rows: int | None = None
    """How many."""


class Tumbling(Guarded, Arguments):
    """The last whole period of a fixed grid."""

    makes: ClassVar[Any] = windows.Tumbling
    main: ClassVar[str] = "span"
    counted: ClassVar[str | None] = "rows"

    span: Span | None = None
    """Length of a period."""
    rows: int | None = None
    """Rows of a period."""
    origin: Instant = Field(default=windows.Tumbling("1d").origin)
    """An instant at which a period begins."""


class Expanding(Guarded):
    """All examples so far."""

    makes: ClassVar[Any] = windows.Expanding


class Decayed(Guarded, Arguments):
    """All examples, the older the lighter."""

    makes: ClassVar[Any] = windows.Decayed
    main: ClassVar[str] = "half_life"
    counted: ClassVar[str | None] = "rows"

    half_life: Span | None = None
    """Age at which an example weighs half."""
    rows: int | None = None
    """The half-life in examples."""
    floor: float = 1e-3
    """Lightest weight kept."""


class Mix(Guarded):
    """Some of the initial or past data, and the most recent."""

    makes: ClassVar[Any] = windows.Mix

    initial: float | None = None
    """Share drawn from the initial data."""
    recent: float
    """Share of the most recent data."""
    past: float | None = None
    """Instead of `initial`: share drawn from any older data."""
    rows: int | None = None
    """Size of the training set, for shares of it."""
    share_of: Literal["set", "source"] = "set"
    """What the shares are shares of."""


class Window(OneOf):
    """Which examples a training may see."""

    words: ClassVar[tuple[str, ...]] = ("expanding",)

    sliding: Sliding | None = None
    """The most recent, by time or by count."""
    expanding: Expanding | None = None
    """All so far."""
    tumbling: Tumbling | None = None
    """The last whole period."""
    decayed: Decayed | None = None
    """All, the older the lighter."""
    mix: Mix | None = None
    """Some initial or past data and the most recent."""

    def build(self) -> WindowProtocol:
        """The window itself."""
        window: WindowProtocol = self.chosen.build()
        return window


class Every(Made, Arguments):
    """A fixed checkpoint interval, in time or in newly labelled rows."""

    makes: ClassVar[Any] = staticmethod(triggers.every)
    main: ClassVar[str] = "interval"
    counted: ClassVar[str | None] = "rows"

    interval: Span | None = None
    """Time between checkpoints."""
    rows: int | None = None
    """Newly labelled rows between checkpoints."""


class LossAbove(Made, Arguments):
    """When the recent mean loss is above a level."""

    makes: ClassVar[Any] = staticmethod(triggers.loss_above)
    main: ClassVar[str] = "level"

    level: float
    """The level."""
    rows: int = 200
    """Over how many of the newest scored rows."""


class Regret(Made, Arguments):
    """When staleness has cost as much as a retrain."""

    makes: ClassVar[Any] = staticmethod(triggers.regret)
    main: ClassVar[str] = "worth"

    worth: float
    """What a retrain is worth, in units of loss."""
    kappa: float = 0.5
    """Fire at this share of it."""
    fresh_rows: int = 100
    """Scored rows of a block, by which the loss is judged."""
    least_gap: Span | None = None
    """Never fire sooner after a training."""
    greatest_age: Span | None = None
    """Fire in any case after this long."""
    back_off: float = 2.0
    """What it must cost, and the least gap, are multiplied by this for each further rejection."""
    rejected: int = 2
    """Rejections from which that begins."""


class Forecast(Made, Arguments):
    """When a retrain is forecast to save more loss than it costs."""

    makes: ClassVar[Any] = staticmethod(triggers.forecast)
    main: ClassVar[str] = "worth"

    worth: float
    """What a retrain is worth, in units of loss."""
    horizon: Span = timedelta(days=14)
    """How long a retrain is expected to be of use."""
    quantile: float = 0.05
    """Of what it saves: lower is later, and surer."""
    fresh_rows: int = 100
    """Scored rows of a block, by which the loss is judged."""
    least_gap: Span | None = None
    """Never fire sooner after a training."""
    greatest_age: Span | None = None
    """Fire in any case after this long."""
    back_off: float = 2.0
    """What it must save, and the least gap, are multiplied by this for each further rejection."""
    rejected: int = 2
    """Rejections from which that begins."""


class Limited(Made):
    """Another trigger, held to limits."""

    makes: ClassVar[Any] = staticmethod(triggers.limited)

    trigger: Trigger
    """What decides within the limits."""
    least_gap: Span | None = None
    """Never fire sooner after a training."""
    greatest_age: Span | None = None
    """Fire in any case after this long."""
    back_off: float = 2.0
    """What the least gap is multiplied by for each further rejection."""
    rejected: int = 2
    """Rejections from which that begins."""


class Trigger(OneOf):
    """When to train. A bare duration or number of rows is a fixed interval."""

    every: Every | None = None
    """A fixed interval."""
    loss_above: LossAbove | None = None
    """When the loss passes a level."""
    regret: Regret | None = None
    """When staleness has cost as much as a retrain."""
    forecast: Forecast | None = None
    """When a retrain would save more than it costs."""
    any: Annotated[tuple[Trigger, ...], Strict(False)] | None = None
    """When one of several fires."""
    all: Annotated[tuple[Trigger, ...], Strict(False)] | None = None
    """When all of several fire in the same turn."""
    limited: Limited | None = None
    """Another trigger, held to limits."""

    @model_validator(mode="before")
    @classmethod
    def _interval(cls, given: Any) -> Any:
        if isinstance(given, str | int) and not isinstance(given, bool) and given not in cls.model_fields:
            return {"every": given}
        return given

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.chosen == ():
            raise ConfigError(self.kind, [], "give at least one trigger")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [DURATION, ROWS, super().__get_pydantic_json_schema__(core_schema, handler)]}

    def build(self) -> TriggerProtocol:
        """The trigger itself."""
        if isinstance(self.chosen, tuple):
            together = triggers.any_of if self.kind == "any" else triggers.all_of
            return together(*(trigger.build() for trigger in self.chosen))
        trigger: TriggerProtocol = self.chosen.build()
        return trigger


class Calibration(Record):
    """How probabilities are corrected by the newest labels."""

    inner: Literal["learns", "frozen"] = "learns"
    """Whether an update also reaches the learner inside."""
    share: float = 0.2
    """The last share of a fit's window, on which the correction is fitted."""
    ridge: float = 10.0
    """Pull towards the former correction, in examples."""


class EarlyStopping(Record):
    """When boosting stops, on the newest part of the window."""

    share: float = 0.2
    """How much of the window is held out."""
    rounds: int = 50
    """Rounds without improvement before it stops."""


class Model(Arguments):
    """What to train: the path of a class or a factory, and how it is updated."""

    main: ClassVar[str] = "estimator"

    estimator: str
    """A class, lightgbm.LGBMClassifier, or a function that makes an estimator, package.module:factory."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What it is called with."""
    update: Literal["decayed", "leaf_refit", "continued", "sliding_forest"] | None = None
    """How trees are updated; learners that update themselves need none."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of that way to update."""
    calibrated: bool | Calibration = False
    """Correct probabilities by the newest labels: true, or settings."""
    early_stopping: EarlyStopping | None = None
    """Stop boosting when the newest part of the window no longer improves."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.options and self.update is None:
            raise ConfigError("options", self.options, "they belong to `update`: say which, e.g. update: decayed")
        if self.update is not None and self.early_stopping is not None:
            raise ConfigError(
                "early_stopping", self.update, "an updated model does not stop early: give one of the two"
            )
        return self


class Plan(Record):
    """What every strategy may have of its own."""

    model: Model | None = None
    """Its own model, instead of the global one."""
    initial: SpanOrRows | None = None
    """Its own initial period; null starts a stateful strategy untrained."""


class Scheduled(Plan):
    """A strategy that trains again: give `every` or `trigger`."""

    every: Every | None = None
    """A fixed interval."""
    trigger: Trigger | None = None
    """Any other trigger."""

    @model_validator(mode="after")
    def _when(self) -> Self:
        if (self.every is None) == (self.trigger is None):
            got = None if self.every is None else "both"
            raise ConfigError("every", got, "say when to train: give either `every`, e.g. every: 7d, or `trigger`")
        return self

    @property
    def when(self) -> TriggerProtocol:
        """The trigger itself."""
        found = self.every if self.every is not None else self.trigger
        assert found is not None
        trigger: TriggerProtocol = found.build()
        return trigger


class Frozen(Plan):
    """Trained once and never again."""

    def build(self, model: Any, initial: Any) -> strategies.Strategy:
        """The strategy itself."""
        return strategies.Frozen(model, initial=initial)


class Stateless(Scheduled):
    """A new model from scratch at every checkpoint."""

    window: Window | None = None
    """The examples of each training; all so far unless given."""

    def build(self, model: Any, initial: Any) -> strategies.Strategy:
        """The strategy itself."""
        window = self.window.build() if self.window is not None else None
        return strategies.Stateless(model, initial=initial, trigger=self.when, window=window)


class Stateful(Scheduled):
    """One model, updated with each example once."""

    def build(self, model: Any, initial: Any) -> strategies.Strategy:
        """The strategy itself."""
        return strategies.Stateful(model, initial=initial, trigger=self.when)


class Hybrid(Scheduled):
    """A stateful line that is now and then replaced by a new model from scratch."""

    reset: Trigger
    """When to start from scratch."""
    window: Window | None = None
    """The examples of each fit; all so far unless given."""

    def build(self, model: Any, initial: Any) -> strategies.Strategy:
        """The strategy itself."""
        window = self.window.build() if self.window is not None else None
        reset = self.reset.build()
        return strategies.Hybrid(model, initial=initial, trigger=self.when, reset=reset, window=window)


class Strategy(OneOf):
    """How a model is kept current."""

    words: ClassVar[tuple[str, ...]] = ("frozen",)

    frozen: Frozen | None = None
    """Trained once and never again."""
    stateless: Stateless | None = None
    """A new model from scratch at every checkpoint."""
    stateful: Stateful | None = None
    """One model, updated as labels come."""
    hybrid: Hybrid | None = None
    """Updated as labels come, and now and then started from scratch."""


class Quality(Made):
    """What a batch must hold to be learned from; one that does not is quarantined."""

    makes: ClassVar[Any] = BatchQuality

    nulls: float | None = None
    """Greatest share of nulls in any column."""
    ranges: dict[str, Annotated[tuple[float, float], Strict(False)]] = Field(default_factory=dict)
    """Bounds that values of a column must respect: [low, high]."""
    duplicates: float | None = None
    """Greatest share of rows that repeat an earlier row of the batch."""
    labelled: float | None = None
    """Least share of rows that get a label by the time it is due; needs a fixed label delay."""
    label_rates: dict[str | int | bool, Annotated[tuple[float, float], Strict(False)]] = Field(default_factory=dict)
    """Bounds on the share of a class among labels that come together: [low, high]."""
    least_rows: int = 20
    """Batches with fewer rows, and fewer labels that come together, are not judged."""


class Slice(Record):
    """Rows on which a challenger must not get worse."""

    where: dict[str, Condition]
    """For each column a value, a list of values, or a range: {age: {least: 18, below: 30}}."""
    margin: float | None = None
    """How much worse the mean loss may be on them; the gate's margin unless given."""


class Golden(Arguments):
    """Labelled rows that must go on working."""

    main: ClassVar[str] = "file"

    file: str
    """Parquet or CSV files with the stream's features and its label."""
    limit: float = 0.0
    """How much the mean loss on them may rise."""


class Gate(Made):
    """Champion against challenger."""

    makes: ClassVar[Any] = PairedGate

    mode: Literal["before", "after", "none"] = "before"
    """Hold a challenger back until evidence, serve it at once and roll back on evidence, or no gate."""
    margin: float | None = None
    """How much worse the mean loss may be and still be promoted."""
    alpha: float = 0.05
    """Probability that a line that is worse by the margin is ever promoted."""
    planned_labels: int = 4000
    """Number of labels at which the bounds are sharpest."""
    least_blocks: int = 20
    """No verdict on fewer blocks."""
    block: SpanOrRows = timedelta(days=1)
    """What errs together: a span of time, or rows."""
    least_wait: Span = timedelta(0)
    """No promotion sooner."""
    greatest_wait: Span | None = None
    """When to settle a trial that has no verdict."""
    on_no_verdict: Literal["keep", "promote", "reject", "better"] = "keep"
    """What happens then; better: as the mean says."""
    on_reject: Literal["back", "go_on"] = "back"
    """Whether a stateful line returns to its champion's state, or goes on."""
    promote: Literal["auto", "manual"] = "auto"
    """manual: say that it is ready, and wait for perennial promote."""
    slices: dict[str, Slice] = Field(default_factory=dict)
    """Rows that are judged on their own as well, by name."""
    golden: Golden | None = None
    """Labelled rows that must go on working."""
    largest_bytes: int | None = None
    """The largest model that may serve."""
    largest_latency: Span | None = None
    """The longest that the prediction of one row may take."""
    held_out: Span | None = None
    """How much of the newest labelled rows a fit leaves out, for evidence at once."""
    canary: float = 0.0
    """The share of served requests that a challenger answers; 0.05 is one in twenty keys."""
    shadow: float = 0.0
    """The share of served requests that champion and challenger are both asked about, one of them unseen."""

    def build(self) -> PairedGate:
        """The gate itself."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "slices" in given:
            given["slices"] = {name: _slice(name, part) for name, part in self.slices.items()}
        if self.golden is not None:
            given["golden"] = PairedGolden(file=self.golden.file, limit=self.golden.limit)
        return PairedGate(**{name: value for name, value in given.items() if value is not None})


def _slice(name: str, given: Slice) -> PairedSlice:
    try:
        return PairedSlice(where=given.where, margin=given.margin)
    except ConfigError as error:
        raise ConfigError(f"gate.slices.{name}.{error.field}", error.got, error.need) from error


class Serialisation(Record):
    """How production saves models, and what it loads: formats that run no code, unless more is allowed."""

    pickle: bool = False
    """Save as a pickle what has no other form, and load such a model by the digest that was recorded."""
    trust: Names = ()
    """Types and functions of your own that may be loaded by name: [my_package.my_module.MyType]."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.build()
        return self

    def build(self) -> Trust:
        """What may be saved and loaded."""
        return Trust(pickle=self.pickle, types=self.trust)


class Hooks(Record):
    """Commands that hear of what happened, each given the event as JSON on its standard input."""

    promoted: str | None = None
    """The champion changed."""
    rejected: str | None = None
    """The gate turned a challenger down."""
    quarantined: str | None = None
    """Rows are never learned."""


class Serve(Record):
    """How predictions are served over HTTP, and what comes back is taken in."""

    inbox: str | None = None
    """Where predictions, labels and feedback wait for the run: a database; beside an SQLite ledger unless given."""
    flush: Span = timedelta(milliseconds=200)
    """How long a prediction may wait in memory before it is logged."""
    queue_rows: int = 100_000
    """Predicted rows that wait in memory at most."""
    overflow: Literal["drop", "refuse"] = "drop"
    """When as many wait: answer without logging, and count it; or refuse the request."""
    tokens: str | None = None
    """A file of access tokens, made by `perennial token`."""
    body_bytes: int = 8 * 2**20
    """The largest request."""
    rows: int = 10_000
    """The most rows of a request."""
    rate: float | None = None
    """Requests a second that one token, or address without one, may make; any number unless given."""
    patience: Span = timedelta(seconds=10)
    """How long a client may take to send a request."""
    models_bytes: int = 2 * 2**30
    """Memory for models that are held ready, champion and challenger aside."""
    infinite: Literal["refuse", "null"] = "refuse"
    """What is done with an infinite number."""
    nan: Literal["refuse", "null"] = "null"
    """What is done with NaN."""
    thumbs: Literal["keep", "label"] = "keep"
    """Keep thumbs, or take them as labels too: up confirms what was said, of two classes down is the other."""
    classes: int = 1000
    """The most classes: labels of others are passed over, and counted."""


class Config(Record):
    """One deployment: the stream, the model, the strategies to compare, and the one to run."""

    name: str | None = None
    """A name for reports."""
    folder: str = "."
    """Where relative paths and modules are looked up, relative to this file."""
    stream: Stream
    """Where rows come from and what each column is for."""
    model: Model | None = None
    """What to train, unless a strategy says otherwise."""
    strategies: dict[str, Strategy]
    """The strategies to compare, by name."""
    initial: SpanOrRows | None = None
    """Time or rows before the first training, unless a strategy says otherwise."""
    deploy: str | None = None
    """The strategy that production runs."""
    metrics: Names | None = None
    """Scores to compute, the first one decides; package.module:function for your own."""
    cost: dict[str, Any] | None = None
    """Prices: numbers, or columns of amounts."""
    seed: int = 0
    """What every random choice starts from."""
    train_latency: Span | None = None
    """How long a training takes before its model may serve."""
    clairvoyant: str | None = None
    """A stateless strategy for which the cheapest schedule is found in hindsight, at a training per checkpoint."""
    quality: Quality | None = None
    """What a batch must hold to be learned from."""
    gate: Gate | None = None
    """How a challenger becomes champion; every version is promoted untested unless given."""
    retention: Retention | None = None
    """How long labelled examples are kept; none keeps no raw row."""
    ledger: str | None = None
    """Where versions and decisions are recorded, e.g. sqlite:///.perennial/ledger.db."""
    hooks: Hooks = Hooks()
    """Commands to run on promotion, rejection and quarantine."""
    blobs: str | None = None
    """Where models and rows are kept: a folder or s3://...; beside an SQLite ledger unless given."""
    serialisation: Serialisation = Serialisation()
    """How models are saved: without pickle, unless it is allowed."""
    serve: Serve = Serve()
    """How predictions are served over HTTP."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.strategies:
            raise ConfigError("strategies", {}, "give at least one, e.g. weekly: {stateless: {every: 7d}}")
        if self.deploy is not None and self.deploy not in self.strategies:
            raise ConfigError("deploy", self.deploy, f"name a strategy; {nearest(self.deploy, self.strategies)}")
        if self.clairvoyant is not None:
            fitting = [name for name, strategy in self.strategies.items() if strategy.kind == "stateless"]
            if self.clairvoyant not in fitting:
                hint = nearest(self.clairvoyant, fitting) if fitting else "there is none"
                raise ConfigError("clairvoyant", self.clairvoyant, f"name a stateless strategy; {hint}")
            if self.cost is None:
                raise ConfigError("clairvoyant", self.clairvoyant, "the cheapest schedule needs prices: give `cost`")
        return self

    @field_validator("cost")
    @classmethod
    def _priced(cls, cost: dict[str, Any] | None) -> dict[str, Any] | None:
        if cost is not None:
            Prices.parse(cost)
        return cost

    def model_of(self, name: str) -> Model | None:
        """The model of a strategy: its own, else the global one."""
        own: Model | None = self.strategies[name].chosen.model
        return own if own is not None else self.model

    def initial_of(self, name: str) -> Any:
        """The initial period of a strategy: its own, null included, else the global one."""
        own = self.strategies[name].chosen
        return own.initial if "initial" in own.model_fields_set else self.initial
