"""What errors, trainings, computing and kept data cost, as one number in the user's money."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.records import Label, TaskKind
from perennial.metrics.records import Scored

Amount = float | str  #: a price, or the column that holds one for each row

_MONTH = timedelta(days=30)
_GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in the user's money. Mistakes are priced in one way: ``error``, the two ``false_...``, or ``matrix``.

    Parameters
    ----------
    retrain, update : float
        Of one stateless training and of one stateful update.
    cpu_hour : float
        Of one CPU hour of training or prediction.
    kept_gb_month : float
        Of keeping 10^9 bytes of raw data for 30 days.
    error : float or str, optional
        Of one wrong prediction; for regression of one unit of absolute error. A word names the column that holds the
        row's own price.
    false_positive, false_negative : float or str, optional
        Of taking another class for the positive one, and of missing it. Other confusions are free.
    matrix : mapping of (true, predicted) to float or str
        The price of each pair of classes; negative is a gain, and pairs that are not named are free. A prediction
        whose class no label had named by then costs as much as the dearest named mistake about that true class.

    Raises
    ------
    ConfigError
        For a price that is no finite number, a negative one outside ``matrix``, or mistakes priced in two ways.

    Examples
    --------
    >>> Prices(retrain=0.5, false_positive=0.1, false_negative="amount").columns
    ('amount',)
    """

    retrain: float = 0.0
    update: float = 0.0
    cpu_hour: float = 0.0
    kept_gb_month: float = 0.0
    error: Amount | None = None
    false_positive: Amount | None = None
    false_negative: Amount | None = None
    matrix: Mapping[tuple[Label, Label], Amount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("retrain", "update", "cpu_hour", "kept_gb_month"):
            _check_number(f"cost.{name}", getattr(self, name))
        for name in ("error", "false_positive", "false_negative"):
            price = getattr(self, name)
            if price is not None:
                _check_amount(f"cost.{name}", price)
        for pair, price in self.matrix.items():
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ConfigError("cost.matrix", pair, "price pairs of classes: {(true, predicted): price}")
            _check_amount(f"cost.matrix.{pair[0]}.{pair[1]}", price, negative=True)
        ways = [
            *(["error"] if self.error is not None else []),
            *(["false_positive/false_negative"] if self._by_side else []),
            *(["matrix"] if self.matrix else []),
        ]
        if len(ways) > 1:
            raise ConfigError("cost", " and ".join(ways), "price mistakes in one way only: keep one of them")

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Prices:
        """Prices as a configuration file writes them; ``matrix`` is ``{true: {predicted: price}}`` or by pairs.

        Raises
        ------
        ConfigError
            For an unknown price, or what the record itself refuses.

        Examples
        --------
        >>> Prices.parse({"retrain": 0.5, "matrix": {"yes": {"no": "amount"}}}).matrix
        {('yes', 'no'): 'amount'}
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError("cost", mapping, "give prices by name, e.g. {retrain: 0.50, error: 0.10}")
        known = [f.name for f in fields(cls)]
        for name in mapping:
            if name not in known:
                raise ConfigError("cost", name, nearest(str(name), known))
        given = dict(mapping)
        for name in ("retrain", "update", "cpu_hour", "kept_gb_month"):
            if given.get(name, 0) is None:
                del given[name]
        matrix = given.pop("matrix", None)
        return cls(**given, matrix={} if matrix is None else _pairs(matrix))

    @property
    def _by_side(self) -> bool:
        return self.false_positive is not None or self.false_negative is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that hold prices, sorted: what ``amounts`` of :func:`bill` must have."""
        prices = (self.error, self.false_positive, self.false_negative, *self.matrix.values())
        return tuple(sorted({price for price in prices if isinstance(price, str)}))

    def check(self, task: TaskKind, classes: Sequence[Label] | None = None) -> None:
        """Raise ``ConfigError`` if prices do not suit the task, or name a class that is not in ``classes``."""
        if task == "regression":
            for name, given in (
                ("false_positive", self.false_positive is not None),
                ("false_negative", self.false_negative is not None),
                ("matrix", bool(self.matrix)),
            ):
                if given:
                    raise ConfigError(f"cost.{name}", getattr(self, name), "regression has no classes: use cost.error")
        if classes is not None:
            for label in (label for pair in self.matrix for label in pair):
                if _find(label, classes) is None:
                    raise ConfigError("cost.matrix", label, _no_class(label, classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What one strategy cost, in the user's money, part by part."""

    errors: float
    retraining: float
    updating: float
    cpu: float
    kept: float

    @property
    def parts(self) -> dict[str, float]:
        """Each part by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return math.fsum(self.parts.values())


def bill(
    prices: Prices,
    scored: Scored,
    *,
    amounts: Mapping[str, NDArray[Any]] | None = None,
    trainings: int = 0,
    updates: int = 0,
    cpu_seconds: float = 0.0,
    kept_bytes: float = 0.0,
    span: timedelta = timedelta(0),
) -> Bill:
    """The bill of a strategy.

    ``total = sum over rows of the price of the row's mistake + retrain * trainings + update * updates
    + cpu_hour * cpu_seconds / 3600 + kept_gb_month * (kept_bytes / 1e9) * (span / 30 days)``

    Weights are not used: each prediction is paid for once.

    Parameters
    ----------
    scored : Scored
        The rows to pay for.
    amounts : mapping of str to array, shape (n,)
        The columns that ``prices.columns`` names, aligned with the scored rows.
    trainings, updates : int
        Stateless trainings and stateful updates, shared ones included.
    cpu_seconds : float
        Of training and prediction.
    kept_bytes : float
        Raw data kept, the mean over ``span``.
    span : timedelta
        How long they were kept.

    Raises
    ------
    ConfigError
        If prices do not suit the task, or there is no positive class for a false positive to be about.
    DataError
        If a column is missing, not as long as the rows, or not finite where a mistake costs it.
    """
    prices.check(scored.task)
    return Bill(
        errors=_mistakes(prices, scored, amounts or {}),
        retraining=prices.retrain * trainings,
        updating=prices.update * updates,
        cpu=prices.cpu_hour * cpu_seconds / 3600,
        kept=prices.kept_gb_month * kept_bytes / _GIGABYTE * (span / _MONTH),
    )


def mistakes(
    prices: Prices, scored: Scored, edges: NDArray[np.int64], *, amounts: Mapping[str, NDArray[Any]] | None = None
) -> NDArray[np.float64]:
    """What the mistakes of each batch ``[edges[i], edges[i + 1])`` cost, shape (b,): ``errors`` of their bills.

    Parameters and errors are those of :func:`bill`.
    """
    prices.check(scored.task)
    columns = {name: np.asarray(column) for name, column in (amounts or {}).items()}
    out = np.zeros(len(edges) - 1)
    for i in np.flatnonzero(np.diff(edges)).tolist():
        low, high = int(edges[i]), int(edges[i + 1])
        part = {name: column[low:high] for name, column in columns.items()}
        out[i] = _mistakes(prices, scored.slice(low, high), part)
    return out


def _mistakes(prices: Prices, scored: Scored, amounts: Mapping[str, NDArray[Any]]) -> float:
    for column in prices.columns:
        if column not in amounts:
            raise DataError(f"cost names the column {column!r}, which is not in the data: {nearest(column, amounts)}")
        if len(amounts[column]) != len(scored):
            raise DataError(f"cost column {column!r} has {len(amounts[column])} rows, the scored rows {len(scored)}")
    if scored.values is not None:
        if prices.error is None:
            return 0.0
        size = np.abs(scored.values - np.asarray(scored.predicted_values))
        return _charge(prices.error, amounts, np.flatnonzero(size), size)
    codes, predicted = np.asarray(scored.codes), np.asarray(scored.predicted)
    if prices.error is not None:
        return _charge(prices.error, amounts, np.flatnonzero(codes != predicted))
    if prices._by_side:
        return _by_side(prices, scored.target, codes, predicted, amounts)
    return _by_pair(prices, scored.classes, codes, predicted, amounts)


def _by_side(
    prices: Prices,
    positive: int | None,
    codes: NDArray[np.int32],
    predicted: NDArray[np.int32],
    amounts: Mapping[str, NDArray[Any]],
) -> float:
    if positive is None:
        need = "there is no positive class to be false about: name one, or price pairs with cost.matrix"
        raise ConfigError("cost.false_positive", prices.false_positive, need)
    total = 0.0
    if prices.false_positive is not None:
        total += _charge(prices.false_positive, amounts, np.flatnonzero((predicted == positive) & (codes != positive)))
    if prices.false_negative is not None:
        total += _charge(prices.false_negative, amounts, np.flatnonzero((codes == positive) & (predicted != positive)))
    return total


def _by_pair(
    prices: Prices,
    classes: Sequence[Label],
    codes: NDArray[np.int32],
    predicted: NDArray[np.int32],
    amounts: Mapping[str, NDArray[Any]],
) -> float:
    total = 0.0
    about: dict[int, list[Amount]] = {}  # mistakes by true class, for predictions of a class not yet named
    for (true, said), price in prices.matrix.items():
        i, j = _find(true, classes), _find(said, classes)
        if i is None:
            continue  # a class that has not occurred costs nothing
        if i != j:
            about.setdefault(i, []).append(price)
        if j is not None:
            total += _charge(price, amounts, np.flatnonzero((codes == i) & (predicted == j)))
    unseen = predicted < 0
    for i, several in about.items():
        rows = np.flatnonzero((codes == i) & unseen)
        if len(rows):
            total += float(np.max([_each(price, amounts, rows) for price in several], axis=0).sum())
    return total


def _charge(
    price: Amount,
    amounts: Mapping[str, NDArray[Any]],
    rows: NDArray[np.int64],
    size: NDArray[np.float64] | None = None,
) -> float:
    if isinstance(price, float | int) and size is None:
        return price * len(rows)
    each = _each(price, amounts, rows)
    return float((each if size is None else each * size[rows]).sum())


def _each(price: Amount, amounts: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if not isinstance(price, str):
        return np.full(len(rows), float(price))
    each = np.asarray(amounts[price])[rows].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(each))
    if len(bad):
        where = f"scored row {int(rows[bad[0]])}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
        raise DataError(f"cost column {price!r} is {each[bad[0]]} in {where}: fill it, or price mistakes by a number")
    return each


def _check_number(name: str, price: object, *, negative: bool = False) -> None:
    if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price):
        raise ConfigError(name, price, "give a finite number, e.g. 0.50")
    if price < 0 and not negative:
        raise ConfigError(name, price, "a price is not negative: gains go into cost.matrix")


def _check_amount(name: str, price: object, *, negative: bool = False) -> None:
    if isinstance(price, str):
        if not price:
            raise ConfigError(name, price, "give a number or the name of a column")
        return
    if isinstance(price, bool) or not isinstance(price, int | float):
        raise ConfigError(name, price, "give a number or the name of a column")
    _check_number(name, price, negative=negative)


def _pairs(matrix: object) -> dict[tuple[Label, Label], Amount]:
    shape = "write cost.matrix as {true class: {predicted class: price}}"
    if not isinstance(matrix, Mapping):
        raise ConfigError("cost.matrix", matrix, shape)
    out: dict[tuple[Label, Label], Amount] = {}
    for key, item in matrix.items():
        if isinstance(key, tuple):
            out[key] = item
        elif isinstance(item, Mapping):
            out.update({(key, said): price for said, price in item.items()})
        else:
            raise ConfigError("cost.matrix", {key: item}, shape)
    return out


def _find(label: Label, classes: Sequence[Label]) -> int | None:
    """Index of a class: of the same type if there is one, else of an equal number (1 in a file is the class 1.0)."""
    equal = [i for i, known in enumerate(classes) if known == label]
    exact = [i for i in equal if type(classes[i]) is type(label)]
    return (exact or equal or [None])[0]  # type: ignore[list-item]


def _no_class(label: Label, classes: Sequence[Label]) -> str:
    if isinstance(label, str) and all(isinstance(known, str) for known in classes):
        return f"the labels have no such class: {nearest(label, (str(known) for known in classes))}"
    return f"the labels have no such class: use one of {list(classes)!r}"
