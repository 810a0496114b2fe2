"""The backtest: the engine on recorded time, strategies side by side, and the report."""

from perennial.replay.comparison import backtest
from perennial.replay.grids import grid
from perennial.replay.result import BacktestResult, Baseline, StrategyResult

__all__ = ["BacktestResult", "Baseline", "StrategyResult", "backtest", "grid"]
