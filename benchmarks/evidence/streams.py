"""The streams of the evidence: real ones, where their folder is there, and generated ones, functions of their seed.

Real streams are what `PERENNIAL_DATA` holds. Columns that are known only after the label, or that repeat it, are left
out as the folder's own notes say. Text is hashed into counts of words and pairs of words: the hash is fixed, nothing is
fitted, and so nothing leaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial import Stream

TIME, TARGET = "at", "y"
Frame = pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stream before it is one: a frame with columns ``at`` and ``y``, and rows to a batch."""

    name: str
    batch: int
    read: Callable[[int], Frame]  # of the seed, which a real stream does not look at
    generated: bool
    label_delay: str | None = None

    def stream(self, seed: int) -> Stream:
        import pyarrow as pa

        table = pa.Table.from_pandas(self.read(seed), preserve_index=False)
        return Stream(table, time=TIME, target=TARGET, batch=self.batch, label_delay=self.label_delay)


def folder() -> Path | None:
    """Where the real streams are; None if nowhere."""
    told = os.environ.get("PERENNIAL_DATA")
    return Path(told) if told and (Path(told) / "electricity.parquet").exists() else None


def sources(batches: Mapping[str, int], generated: Mapping[str, Mapping[str, Any]]) -> list[Source]:
    """All streams that can be had: those of the folder in the order of ``batches``, then the generated ones.

    Parameters
    ----------
    batches : mapping of str to int
        Rows to a batch of each real stream.
    generated : mapping of str to mapping
        ``rows``, ``columns`` and ``batch`` of each generated kind.
    """
    found: list[Source] = []
    if (there := folder()) is not None:
        for name, batch in batches.items():
            delay = "1d" if name == "stocks_daily" else None
            found.append(Source(name=name, batch=batch, read=_real(name, there), generated=False, label_delay=delay))
    for name, size in generated.items():
        kind = str(size.get("kind", name))
        read = _made(kind, size["rows"], size["columns"])
        found.append(Source(name=name, batch=size["batch"], read=read, generated=True))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# generated
# ---------------------------------------------------------------------------------------------------------------------


def _made(kind: str, rows: int, columns: int) -> Callable[[int], Frame]:
    return lambda seed: KINDS[kind](np.random.default_rng([_place(kind), seed]), rows, columns)


def _place(kind: str) -> int:
    return list(KINDS).index(kind)


def _score(X: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear part, a wave and a product: neither trees nor a line have it easy."""
    return np.asarray((X * theta).sum(axis=1) + 1.5 * np.sin(2.0 * X[:, 0]) * X[:, 1])


def _frame(X: NDArray[np.float64], up: NDArray[np.bool_]) -> Frame:
    frame = pd.DataFrame({f"x{i}": X[:, i] for i in range(X.shape[1])})
    frame[TIME] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(X)), unit="min").astype("timedelta64[us]")
    frame[TARGET] = np.where(up, "up", "down")
    return frame


def _labels(rng: np.random.Generator, score: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(score + rng.logistic(scale=0.5, size=len(score)) > 0)


def gradual(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """One concept turns into another, evenly over the whole stream."""
    X, old, new = rng.normal(size=(rows, columns)), rng.normal(size=columns), rng.normal(size=columns)
    part = np.linspace(0.0, 1.0, rows)[:, None]
    return _frame(X, _labels(rng, _score(X, (1.0 - part) * old + part * new)))


def recurring(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """Two concepts change places, abruptly, every eighth of the stream."""
    X, one, two = rng.normal(size=(rows, columns)), rng.normal(size=columns), rng.normal(size=columns)
    second = (np.arange(rows) * 8 // rows % 2 == 1)[:, None]
    return _frame(X, _labels(rng, _score(X, np.where(second, two, one))))


def abrupt(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """Three new concepts, at random instants, none of which returns."""
    X = rng.normal(size=(rows, columns))
    edges = np.sort(rng.uniform(0.2, 0.9, size=3) * rows)
    concepts = rng.normal(size=(4, columns))
    return _frame(X, _labels(rng, _score(X, concepts[np.searchsorted(edges, np.arange(rows))])))


def prior(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """Only how common the classes are changes, slowly, between 10 and 60 %."""
    theta = rng.normal(size=columns)
    pool = rng.normal(size=(rows * 6, columns))
    up = _labels(rng, _score(pool, theta))
    share = 0.35 + 0.25 * np.sin(np.linspace(0.0, 4.0 * np.pi, rows) + rng.uniform(0, 2 * np.pi))
    wanted = rng.uniform(size=rows) < share
    ups, downs = np.flatnonzero(up), np.flatnonzero(~up)
    at = np.where(wanted, ups[np.arange(rows) % len(ups)], downs[np.arange(rows) % len(downs)])
    return _frame(pool[at], up[at])


def covariate(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """Only where the rows lie changes; what they mean does not."""
    X, theta = rng.normal(size=(rows, columns)), rng.normal(size=columns)
    X[:, :3] += np.cumsum(rng.normal(scale=2.0 / np.sqrt(rows), size=(rows, 3)), axis=0)
    return _frame(X, _labels(rng, _score(X, theta)))


def stationary(rng: np.random.Generator, rows: int, columns: int) -> Frame:
    """Nothing changes."""
    X, theta = rng.normal(size=(rows, columns)), rng.normal(size=columns)
    return _frame(X, _labels(rng, _score(X, theta)))


KINDS: Mapping[str, Callable[[np.random.Generator, int, int], Frame]] = {
    "gradual": gradual,
    "recurring": recurring,
    "abrupt": abrupt,
    "prior": prior,
    "covariate": covariate,
    "stationary": stationary,
}

# ---------------------------------------------------------------------------------------------------------------------
# real
# ---------------------------------------------------------------------------------------------------------------------


def _real(name: str, there: Path) -> Callable[[int], Frame]:
    def read(seed: int) -> Frame:  # noqa: ARG001 - there is one history
        frame = pd.read_parquet(there / f"{name}.parquet")
        return READ[name](frame).rename(columns={"timestamp": TIME, "target": TARGET})

    return read


def _hashed(texts: pd.Series, width: int, prefix: str) -> Frame:
    """Counts of words and pairs of words, by hash."""
    from sklearn.feature_extraction.text import HashingVectorizer

    made = HashingVectorizer(n_features=width, ngram_range=(1, 2), alternate_sign=False, norm=None)
    counts = made.transform(texts.fillna("").astype(str)).toarray().astype(np.float32)
    return pd.DataFrame(counts, columns=[f"{prefix}{i}" for i in range(width)], index=texts.index)


def _text(column: str, keep: tuple[str, ...] = (), width: int = 64) -> Callable[[Frame], Frame]:
    def read(frame: Frame) -> Frame:
        length = frame[column].fillna("").astype(str).str.len().rename("length")
        words = _hashed(frame[column], width, "w")
        return pd.concat([frame[["timestamp", *keep, "target"]], length, words], axis=1)

    return read


def _without(*columns: str) -> Callable[[Frame], Frame]:
    return lambda frame: frame.drop(columns=list(columns))


def _bike(frame: Frame) -> Frame:
    """Whether an hour is busier than the median hour of the first fifth; the parts of the sum are left out."""
    busy = frame["target"] > frame["target"].iloc[: len(frame) // 5].median()
    return frame.drop(columns=["casual", "registered", "target"]).assign(target=np.where(busy, "busy", "calm"))


def _stocks(frame: Frame) -> Frame:
    """Buy, hold or sell: whether the next day's return of a ticker is beyond 1 %, from its averages up to the close."""
    parts = []
    for _, own in frame.sort_values("timestamp", kind="stable").groupby("ticker", sort=False):
        price, volume = own["adjusted_close"], own["volume"].astype(float)
        daily = price.pct_change()
        made = pd.DataFrame({"timestamp": own["timestamp"], "ticker": own["ticker"]})
        for days in (5, 10, 20, 50):
            made[f"price_to_{days}"] = price / price.rolling(days).mean() - 1
        for days in (1, 5, 20):
            made[f"return_{days}"] = price.pct_change(days)
        made["volatility_20"] = daily.rolling(20).std()
        made["volume_to_20"] = volume / volume.rolling(20).mean() - 1
        ahead = daily.shift(-1)
        made["target"] = np.select([ahead > 0.01, ahead < -0.01], ["buy", "sell"], "hold")
        parts.append(made[ahead.notna()])
    return pd.concat(parts).sort_values("timestamp", kind="stable").reset_index(drop=True)


READ: Mapping[str, Callable[[Frame], Frame]] = {
    "electricity": _without("date_norm"),
    "insects_gradual_balanced": _without(),
    "bank_marketing": _without("duration"),
    "powersupply": _without(),
    "phishing": _without(),
    "bike_sharing_hourly": _bike,
    "stocks_daily": _stocks,
    "news_headlines": _text("title"),
    "hacker_news_posts": _text("title", ("kind",)),
    "sms_spam": _text("text"),
    "chat_thumbs_convai2": _text("response", ("bot_id",)),
    "chat_dialog_scores_convai2": _text("dialog", ("n_turns",)),
    "chat_turn_ratings_topicalchat": _text("message", ("turn", "agent", "sentiment")),
}
