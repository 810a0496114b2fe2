"""One number in the user's money."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from perennial.core.errors import ConfigError, DataError
from perennial.core.records import UNSEEN
from perennial.metrics import Prices, Scored, bill

TWO = Scored(
    codes=np.array([0, 0, 1, 1, 1], np.int32),
    predicted=np.array([0, 1, 0, UNSEEN, 1], np.int32),
    classes=("ok", "yes"),
)
AMOUNT = {"amount": np.array([1.0, 2.0, 40.0, 80.0, 160.0])}


def test_sides_and_a_column() -> None:
    """A false positive costs a number and a false negative the row's own amount."""
    prices = Prices.parse({"retrain": 0.50, "false_positive": 0.10, "false_negative": "amount"})
    got = bill(prices, TWO, amounts=AMOUNT, trainings=3)
    assert prices.columns == ("amount",)
    assert got.errors == pytest.approx(0.10 + 40 + 80)
    assert got.total == pytest.approx(0.10 + 120 + 1.5)


def test_every_part() -> None:
    """Trainings, updates, CPU hours and kept gigabyte-months each have their price, and the parts make the total."""
    prices = Prices(retrain=2, update=0.5, cpu_hour=36, kept_gb_month=10, error=1)
    got = bill(
        prices,
        TWO,
        trainings=2,
        updates=4,
        cpu_seconds=200,
        kept_bytes=3e9,
        span=timedelta(days=15),
    )
    assert got.parts == pytest.approx({"errors": 3, "retraining": 4, "updating": 2, "cpu": 2, "kept": 15})
    assert got.total == pytest.approx(26)


def test_error_by_column() -> None:
    """A wrong prediction may cost its row's amount."""
    assert bill(Prices(error="amount"), TWO, amounts=AMOUNT).errors == 122


def test_regression() -> None:
    """In regression a unit of absolute error has a price, by row if wanted."""
    scored = Scored(values=np.array([1.0, 2.0, 3.0]), predicted_values=np.array([1.0, 4.0, 2.5]))
    assert bill(Prices(error=2), scored).errors == 5
    amounts = {"size": np.array([np.nan, 1.0, 10.0])}  # the first is right: what it would have cost does not matter
    assert bill(Prices(error="size"), scored, amounts=amounts).errors == 2 + 5


def test_matrix() -> None:
    """Pairs of classes have prices or gains; an unnamed prediction costs the dearest mistake about its class."""
    prices = Prices.parse({"matrix": {"yes": {"ok": "amount", "yes": -5, "maybe": 60}, "ok": {"yes": 7}}})
    assert prices.columns == ("amount",)
    assert bill(prices, TWO, amounts=AMOUNT).errors == 7 + 40 + 80 - 5
    small = {"amount": np.array([1.0, 2.0, 40.0, 8.0, 160.0])}
    assert bill(prices, TWO, amounts=small).errors == 7 + 40 + 60 - 5


def test_matrix_of_numbers() -> None:
    """Classes are found by type first and then by value: 1 in a file is the class 1.0, never True or "1"."""
    scored = Scored(codes=np.array([0, 1], np.int32), predicted=np.array([1, 0], np.int32), classes=(1.0, "1"))
    assert bill(Prices(matrix={(1, "1"): 3}), scored).errors == 3
    assert bill(Prices(matrix={("1", 1): 4}), scored).errors == 4


def test_weights_are_not_money() -> None:
    """Each prediction is paid for once, whatever its weight."""
    scored = Scored(codes=TWO.codes, predicted=TWO.predicted, classes=TWO.classes, weights=np.full(5, 9.0))
    assert bill(Prices(error=1), scored).errors == 3


def test_free() -> None:
    """Without prices all is free."""
    assert bill(Prices(), TWO, trainings=5).total == 0
    assert Prices.parse({"retrain": None, "error": None}) == Prices()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"retrian": 1}, "did you mean `retrain`"),
        ({"retrain": "amount"}, "cost.retrain='amount': give a finite number"),
        ({"retrain": -1}, "not negative"),
        ({"cpu_hour": float("nan")}, "finite"),
        ({"error": True}, "a number or the name of a column"),
        ({"error": -1}, "not negative"),
        ({"false_positive": ""}, "name of a column"),
        ({"error": 1, "false_positive": 1}, "one way only"),
        ({"matrix": {"a": {"b": 1}}, "false_positive": 1}, "one way only"),
        ({"matrix": {"a": 3}}, "true class"),
        ({"matrix": 3}, "true class"),
        ({"matrix": {"a": {"b": None}}}, "cost.matrix.a.b"),
        (3, "prices by name"),
    ],
)
def test_bad_prices(mapping: object, message: str) -> None:
    """A wrong price fails when it is read, and the message names it."""
    with pytest.raises(ConfigError, match=message):
        Prices.parse(mapping)


def test_prices_that_do_not_suit() -> None:
    """Classes have no prices in regression, and a class that the labels lack is named with the nearest."""
    with pytest.raises(ConfigError, match=r"cost\.false_positive.*regression has no classes"):
        Prices(false_positive=1).check("regression")
    with pytest.raises(ConfigError, match="did you mean `fraud`"):
        Prices(matrix={("frau", "ok"): 1}).check("classification", ["fraud", "ok"])
    with pytest.raises(ConfigError, match="use one of"):
        Prices(matrix={(3, 1): 1}).check("classification", [0, 1])
    three = Scored(codes=np.zeros(1, np.int32), predicted=np.zeros(1, np.int32), classes=("a", "b", "c"))
    with pytest.raises(ConfigError, match="no positive class"):
        bill(Prices(false_negative=1), three)


def test_bad_amounts() -> None:
    """A column of amounts that is missing, short or not finite where it is charged is named."""
    prices = Prices(error="amount")
    with pytest.raises(DataError, match=r"'amount', which is not in the data: did you mean `amounts`"):
        bill(prices, TWO, amounts={"amounts": np.zeros(5)})
    with pytest.raises(DataError, match="has 2 rows"):
        bill(prices, TWO, amounts={"amount": np.zeros(2)})
    with pytest.raises(DataError, match="is nan in scored row 2 and 1 more"):
        bill(prices, TWO, amounts={"amount": np.array([np.nan, 0, np.nan, np.nan, 0])})
