"""What a stream is: where the rows come from, what each column is for, and how rows are cut into batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final
from zoneinfo import ZoneInfo, available_timezones

from perennial.core.errors import ConfigError, nearest
from perennial.core.records import Label
from perennial.core.times import Duration, duration, spell
from perennial.stream.calendar import Calendar
from perennial.stream.sources import check_source, is_url

if TYPE_CHECKING:
    from perennial.stream.prepared import Prepared

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

#: ``word_rows`` where no row may be kept
COMMON = 10

#: how long a run waits for a label from a log where nothing says so
LABEL_WAIT = timedelta(days=90)
#: settings that name one column each
ROLES = ("time", "target", "id", "key", "known_at", "weight", "group")


@final
@dataclass(frozen=True, eq=False)
class Stream:
    """A history of rows in the order they arrived, with the role of each column.

    Cheap to make: settings are checked, files must exist, and nothing is read before :meth:`prepare`.

    Parameters
    ----------
    source : path, glob, URL, Arrow table or reader, Polars or pandas frame
        A Parquet or CSV file; a folder of such files, or a glob, in name order, which is time order; a table of a
        database, as ``"sqlite:///shop.db?table=calls"``, or an ingest log, as ``"sqlite:///ingest.db?log=calls"``; or
        anything in memory with ``__arrow_c_stream__``. Files and tables may be larger than memory.
    time : str
        Column of event times: timestamps, dates, or ISO 8601 text. Rows are in this order.
    target : str, optional
        Column of labels: text, whole numbers, booleans or floats. Without one no row has a label.
    time_zone : str, optional
        Zone of naive times and of calendar batches, e.g. ``"Europe/Lisbon"``. Default: the zone of the time column;
        naive times are then taken for UTC, with a warning.
    id : str, optional
        Column that a label refers to. Not a feature.
    key : str, optional
        Column that says whom a row is about; look-back features see past rows of the same key. Not a feature.
    weight : str, optional
        Column of example weights, finite and not negative. Not a feature.
    group : str, optional
        Column for learners that keep groups together. Not a feature.
    drop : sequence of str
        Columns that are no features. They are not read.
    text : sequence of str
        Columns of prose, for a user's own vectoriser; other text columns are categories.
    word_rows : int
        A word of a category column gets a meaning of its own once this many rows had it, and counts as missing before:
        1 unless given. More keeps words that tell single people apart out of models.
    label_delay : duration, optional
        A label is known this long after its event. With none of ``label_delay``, ``known_at`` and ``within`` the
        delay is zero, which reports point out.
    known_at : str, optional
        Column that says when each label becomes known; never, where it is null. Not a feature.
    within, absent : duration and label, optional
        Silence: a row without a label, or without a ``known_at``, has the label ``absent`` once ``within`` has
        passed since its event. A label that comes later than that is a revision.
    positives_wait : bool
        With ``within``: labels other than by silence wait as long, so that the newest examples are not nearly all
        positive.
    positive : label, optional
        The class that metrics of two classes are about.
    batch : duration or int
        Calendar time (``"1d"``, ``"6h"``, ``"1w"``, ``"1mo"``) or a number of rows. Days, weeks (from Monday) and
        months are those of ``time_zone``; shorter spans count from local midnight.
    features : str or callable, optional
        ``"package.module:function"`` or the function: ``build(past, now)`` gives the features of the rows ``now``
        from them and past rows; see :class:`~perennial.stream.lookback.LookBack`.
    lookback : duration, optional
        How far ``past`` reaches. Needed with ``features``.
    lateness : duration, optional
        Rows may come this much later than an earlier row; they are flagged late. Default: none may.
    labels : path, URL or table, optional
        A log of labels that arrived apart from their rows, with columns named as ``id``, ``target`` and ``known_at``
        (``"known_at"`` by default) here. Needs ``id`` and ``target``.
    label_wait : duration, optional
        With ``labels``: how long after its event a row may still get a label from the log. One that became known later
        is passed over and counted. Default: for ever in a backtest; in a run, which must hold rows for as long,
        ``within``, or 90 days without it.
    served : bool
        The source is the log of rows that servers answered, and ``labels`` that of what came back: what was said of a
        row is its prediction, and nothing that a client sends may stop a run. An id may be predicted again, its label
        is then that of the newest row before it; a label from before its event, by the clock of another machine, counts
        as known at the event; rows are late whatever their time.
    most_classes : int
        With ``served``: labels of more classes than this many, in the order in which they came, are passed over and
        counted.
    name : str, optional
        A name for reports; by default that of the file or folder.

    Raises
    ------
    ConfigError
        If a setting is wrong or a file is missing.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from datetime import datetime
    >>> table = pa.table({"at": [datetime(2026, 1, 1), datetime(2026, 1, 2)], "x": [1.0, 2.0], "y": ["a", "b"]})
    >>> Stream(table, time="at", target="y", label_delay="2d", batch="1d").describe()["labels"]
    'known 2d after the event'
    """

    source: Any = field(repr=False)
    _: KW_ONLY
    time: str
    target: str | None = None
    time_zone: str | None = None
    id: str | None = None
    key: str | None = None
    weight: str | None = None
    group: str | None = None
    drop: Sequence[str] = ()
    text: Sequence[str] = ()
    word_rows: int = 1
    label_delay: Duration | None = None
    known_at: str | None = None
    within: Duration | None = None
    absent: Label | None = None
    positives_wait: bool = True
    positive: Label | None = None
    batch: Duration | int = "1d"
    features: str | Callable[..., Any] | None = None
    lookback: Duration | None = None
    lateness: Duration | None = None
    labels: Any = field(default=None, repr=False)
    label_wait: Duration | None = None
    served: bool = False
    most_classes: int = 1000
    name: str | None = None

    def __post_init__(self) -> None:
        for setting in ("drop", "text"):
            object.__setattr__(self, setting, _names(getattr(self, setting), setting))
        for setting in ("label_delay", "within", "label_wait", "lookback", "lateness"):
            if (value := getattr(self, setting)) is not None:
                span = duration(value, setting, positive=setting in ("within", "label_wait", "lookback"))
                object.__setattr__(self, setting, span)
        if isinstance(self.word_rows, bool) or not isinstance(self.word_rows, int) or self.word_rows < 1:
            raise ConfigError("word_rows", self.word_rows, "give a number of rows, at least 1")
        self._check_roles()
        self._check_labels()
        self._check_features()
        if self.time_zone is not None:
            _check_zone(self.time_zone)
        _ = self.calendar
        check_source(self.source, "source", there=not self.served)
        if self.labels is not None:
            check_source(self.labels, "labels", there=not self.served)
        elif self.served:
            raise ConfigError("labels", None, "a stream that is served has its labels in a log: give it")
        if self.most_classes < 2:
            raise ConfigError("most_classes", self.most_classes, "a classification has at least 2")
        if self.name is None:
            object.__setattr__(self, "name", _default_name(self.source))

    @property
    def roles(self) -> Mapping[str, str]:
        """Columns by role, of the roles that have one."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    @property
    def calendar(self) -> Calendar | int:
        """How rows are cut into batches: a calendar, or a number of rows."""
        if isinstance(self.batch, bool):
            raise ConfigError("batch", self.batch, "give a number of rows or a duration such as '1d'")
        if isinstance(self.batch, int):
            if self.batch < 1:
                raise ConfigError("batch", self.batch, "give at least 1 row")
            return self.batch
        return Calendar.of(self.batch)

    def span(self, setting: Literal["label_delay", "within", "label_wait", "lookback", "lateness"]) -> timedelta | None:
        """A setting that is a duration, as a ``timedelta``."""
        value = getattr(self, setting)
        assert value is None or isinstance(value, timedelta)  # durations are read when the record is made
        return value

    @property
    def waits(self) -> timedelta:
        """How long a run waits for a label from the log, from the event on; zero without a log."""
        if self.labels is None:
            return timedelta(0)
        return self.span("label_wait") or self.span("within") or LABEL_WAIT

    @property
    def implicit_delay(self) -> bool:
        """Whether labels count as known at once only because nothing else was said."""
        return self.label_delay is None and self.known_at is None and self.within is None and self.labels is None

    @property
    def label_rule(self) -> str:
        """When labels become known, in words."""
        if self.target is None:
            return "no labels"
        if self.known_at is not None:
            known = f"known at `{self.known_at}`"
        elif self.label_delay:
            known = f"known {_spell(self.label_delay)} after the event"
        elif self.labels is not None:
            known = "known when the label log says"
        else:
            known = "known at once"
        if self.label_wait is not None:
            by = "" if known.endswith("says") else ", or as the label log says"
            known = f"{known}{by}, up to {_spell(self.label_wait)} after the event"
        if self.within is None:
            return known
        wait = ", others wait as long" if self.positives_wait else ""
        return f"{known}; {self.absent!r} after {_spell(self.within)} of silence{wait}"

    def describe(self) -> dict[str, Any]:
        """The settings as plain facts for reports."""
        common = {"word_rows": self.word_rows} if self.word_rows > 1 else {}
        served = {"served": True} if self.served else {}
        return (
            common
            | served
            | {
                "name": self.name,
                "source": self.source.__class__.__name__
                if not isinstance(self.source, str | Path)
                else str(self.source),
                "time_zone": self.time_zone,
                "roles": dict(self.roles),
                "drop": list(self.drop),
                "text": list(self.text),
                "labels": self.label_rule,
                "implicit_delay": self.implicit_delay,
                "positive": self.positive,
                "batch": f"{self.batch} rows" if isinstance(self.batch, int) else str(self.calendar),
                "features": _function_name(self.features),
                "lookback": _spell(self.lookback),
                "lateness": _spell(self.lateness),
            }
        )

    def prepare(
        self,
        folder: Path,
        *,
        extra: Sequence[str] = (),
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Prepared:
        """The stream, read once from end to end, checked, and written in one canonical form.

        Parameters
        ----------
        folder : Path
            Where to write; made if missing. What an earlier call wrote there is replaced.
        extra : sequence of str
            Columns to keep besides, as numbers: amounts of money. They may be features too.
        progress : callable, optional
            Called with the rows done and the rows in all (None if unknown).

        Raises
        ------
        ConfigError
            If a setting names no column.
        DataError
            If the data break a rule: the message says which row, column or file.
        """
        from perennial.stream.prepare import prepare

        return prepare(self, Path(folder), tuple(extra), progress)

    def _check_roles(self) -> None:
        if not isinstance(self.time, str) or not self.time:
            raise ConfigError("time", self.time, "name the column of event times")
        taken: dict[str, str] = {}
        for role, column in self.roles.items():
            if not isinstance(column, str):
                raise ConfigError(role, column, "give the name of a column")
            if column in taken and not {role, taken[column]} <= {"id", "key", "group"}:
                raise ConfigError(role, column, f"the column is already `{taken[column]}`: give each role its own")
            taken[column] = role
            if column in self.drop and role in ("time", "target"):
                raise ConfigError("drop", column, f"the column is `{role}`, which is no feature anyway: take it out")

    def _check_labels(self) -> None:
        if (self.within is None) != (self.absent is None):
            raise ConfigError("within", self.within, "`within` and `absent` go together, e.g. within='90d', absent=0")
        if self.label_delay is not None and self.known_at is not None:
            raise ConfigError(
                "label_delay", _spell(self.label_delay), "`known_at` already says when labels are known: give one"
            )
        if self.target is None:
            for setting in ("label_delay", "known_at", "within", "labels", "positive"):
                if getattr(self, setting) is not None:
                    raise ConfigError(
                        setting, getattr(self, setting), "it is about labels: name their column, `target`"
                    )
        if self.labels is not None and self.id is None:
            raise ConfigError("labels", "...", "a label log refers to rows by id: name the column, `id`")
        if (wait := self.span("label_wait")) is not None:
            if self.labels is None:
                raise ConfigError("label_wait", _spell(wait), "it is about a label log: give `labels`, or take it out")
            if (within := self.span("within")) is not None and wait < within:
                need = f"silence is a label after within={_spell(within)!r}: wait at least as long"
                raise ConfigError("label_wait", _spell(wait), need)

    def _check_features(self) -> None:
        if (self.features is None) != (self.lookback is None):
            raise ConfigError("lookback", _spell(self.lookback), "`features` and `lookback` go together")
        if isinstance(self.features, str) and not _REFERENCE.fullmatch(self.features):
            raise ConfigError("features", self.features, "write package.module:function")
        if self.features is not None and not isinstance(self.features, str) and not callable(self.features):
            raise ConfigError("features", self.features, "give a function, or its name as package.module:function")


def _names(value: object, setting: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise ConfigError(setting, value, "give a list of column names")
    return tuple(value)


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError("time_zone", zone, nearest(zone, available_timezones())[:200]) from error


def _spell(span: object) -> str | None:
    return spell(span) if isinstance(span, timedelta) else None


def _function_name(features: str | Callable[..., Any] | None) -> str | None:
    if features is None or isinstance(features, str):
        return features
    return f"{features.__module__}:{getattr(features, '__qualname__', type(features).__qualname__)}"


def _default_name(source: object) -> str:
    if is_url(source):
        from perennial.stream.sql import Address

        return Address.of(source, there=False).table
    if isinstance(source, str | Path):
        stem = Path(source).name.split(".")[0]
        return Path(source).parent.name or "stream" if "*" in stem else stem
    return "stream"
