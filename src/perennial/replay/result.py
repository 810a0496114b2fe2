"""What a backtest gives: scores, costs, versions and predictions of every strategy, side by side."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, final

from perennial.core.errors import ConfigError, nearest
from perennial.core.records import Version
from perennial.replay.evaluation import Curve
from perennial.replay.spill import Summary, as_table, read

if TYPE_CHECKING:
    import pyarrow as pa

    from perennial.advice.advise import Advice
    from perennial.advice.blocks import Blocks


@final
class Home:
    """A temporary folder that goes when nobody holds it any more."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="perennial-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A no-skill line: what it knows, and what it scores on the rows that strategies are scored on."""

    name: str
    description: str
    scores: Mapping[str, float | None]
    curve: Curve = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class StrategyResult:
    """What one strategy gave.

    Parameters
    ----------
    name, kind, description, learner : str
        What it was.
    scores : mapping of metric name to float or None
        Over all evaluated rows, the same for every strategy; None where undefined.
    curve : Curve
        Scores per batch and cumulative.
    costs : mapping of str to number
        ``train_cpu_seconds``, ``predict_cpu_seconds``, ``rows_trained``, ``row_trees``, ``trainings``, ``fits``,
        ``updates``, ``kept_bytes`` (greatest raw data held), ``staleness_seconds`` (mean over predictions),
        ``staleness_max_seconds``, ``money`` and its ``bill`` (None without prices). A training shared with another
        strategy counts in full: it is what the strategy costs alone.
    versions : tuple of Version
        In order of creation.
    shared_trainings : int
        Trainings that were taken from the cache.
    abstained : int
        Predictions that the model did not make.
    quarantined : tuple of (int, str)
        Instant and fault of each batch that was not learned from.
    notes : tuple of str
        What else happened.
    committee : mapping, optional
        Of a committee: ``experts`` with their ``weight`` at the end and mean ``loss``, the committee's own ``loss``,
        its ``regret`` against the best expert in hindsight and the ``bound`` of it, both in all and in ``unit``.
    """

    name: str
    kind: str
    description: str
    learner: str
    scores: Mapping[str, float | None]
    curve: Curve = field(repr=False)
    costs: Mapping[str, Any]
    versions: tuple[Version, ...] = field(repr=False)
    shared_trainings: int
    abstained: int
    quarantined: tuple[tuple[int, str], ...] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)
    committee: Mapping[str, Any] | None = field(repr=False)
    _summary: Summary = field(repr=False)
    _folder: Path = field(repr=False)
    _home: Home | None = field(repr=False)  # lives as long as whoever reads from it

    @property
    def predictions(self) -> pa.Table:
        """All predictions, memory-mapped: row, event_time, label, prediction, proba_<class>..., version."""
        path = self._folder / "predictions.arrow"
        return as_table(read(self._folder, self._summary), self._summary, path)


class BacktestResult(Mapping[str, StrategyResult]):
    """Strategies side by side: ``result["monthly"].scores["log_loss"]``.

    Also a mapping from name to :class:`StrategyResult`, in the order given.
    """

    def __init__(
        self,
        report: dict[str, Any],
        strategies: dict[str, StrategyResult],
        baselines: dict[str, Baseline],
        blocks: Blocks | None = None,
    ) -> None:
        self._report = report
        self._strategies = strategies
        self._blocks = blocks
        self.baselines: Mapping[str, Baseline] = baselines

    def __getitem__(self, name: str) -> StrategyResult:
        try:
            return self._strategies[name]
        except KeyError:
            raise ConfigError("strategy", name, nearest(str(name), self._strategies)) from None

    def get(self, name: object, default: Any = None) -> Any:
        """The result of a strategy, or ``default`` where there is none of that name."""
        return self._strategies.get(str(name), default)

    def __contains__(self, name: object) -> bool:
        return name in self._strategies

    def __iter__(self) -> Iterator[str]:
        return iter(self._strategies)

    def __len__(self) -> int:
        return len(self._strategies)

    def __repr__(self) -> str:
        return f"BacktestResult({', '.join(self._strategies)})"

    @property
    def recommended(self) -> Mapping[str, str] | None:
        """The advice in short: ``strategy``, ``by`` (``"money"`` or the first metric) and ``reason``; or None."""
        found: Mapping[str, str] | None = self._report["recommended"]
        return found

    def advice(self, level: float = 0.9, seed: int = 0, *, margin: float = 0.01) -> Advice | None:
        """What to use, how sure that is, and what would change it; None if nothing could be scored.

        Of the strategies that cannot be told apart from the best, and lost about as little, the cheapest, by the totals
        of whole batches. Print it.

        Parameters
        ----------
        level : float
            Of intervals and of the model confidence set. The report's own has 0.9.
        seed : int
            Of the bootstrap: the same seed gives the same advice.
        margin : float
            How much more than the least of the tied the cheapest may have lost, as a share of it. The report's own has
            0.01; ``inf`` takes the cheapest of all that are tied.
        """
        from perennial.advice.advise import advise

        return None if self._blocks is None else advise(self._blocks, level=level, margin=margin, seed=seed)

    @property
    def clairvoyant(self) -> Mapping[str, Any] | None:
        """The clairvoyant retrain schedule, a lower bound for cost; None unless asked for."""
        found: Mapping[str, Any] | None = self._report["clairvoyant"]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of ``report.json``, as plain data."""
        copy: dict[str, Any] = json.loads(json.dumps(self._report))
        return copy

    def to_json(self, path: str | Path) -> Path:
        """Write ``report.json``; its schema is ``perennial.replay.report.schema()``."""
        path = _made(path)
        path.write_text(json.dumps(self._report, indent=1) + "\n", encoding="utf-8")
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write ``report.html``: one file that works offline."""
        from perennial.replay.report import html

        path = _made(path)
        path.write_text(html(self._report), encoding="utf-8")
        return path

    def to_svg(self, path: str | Path) -> Path:
        """Write a picture: score over time, and score against cost."""
        from perennial.replay.report import picture

        path = _made(path)
        path.write_text(picture(self._report), encoding="utf-8")
        return path

    def table(self) -> Any:
        """The report as a table for a terminal, to print with rich."""
        from perennial.replay.report import table

        return table(self._report)


def _made(path: str | Path) -> Path:
    """The path, its folder made if missing: nobody wants to lose an hour's result to a missing folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
