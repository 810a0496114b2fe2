"""What a fresh model loses, and how much of a change is noise: what triggers that count excess loss stand on.

Turns are gathered into blocks of enough scored rows, so that one row more or less is no news. The first blocks after
each training say what a fresh model loses; differences of neighbouring blocks say how much noise there is. All of it is
plain data, for checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.core.errors import ConfigError, FormatError
from perennial.core.protocols import Facts

FRESH = 2  #: blocks after a training that tell what a fresh model loses
MEMORY = 12  #: fresh blocks remembered across trainings
_STEPS = 24  # differences of neighbouring blocks that tell the noise
_DOUBT = 8.0  # a variance from p differences, the greatest left out, is raised by 1 + _DOUBT / p
_EPISODES = 3  # trainings before their own fresh levels can be told apart
_NAMES = frozenset({"open", "since", "fresh", "steps", "last", "own"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Scored rows of neighbouring turns, against what was known before them.

    Parameters
    ----------
    rows : int
        How many.
    mean : float
        Their mean loss.
    excess : float
        That over the fresh level; 0 for a block that tells the level itself.
    error : float
        Standard error of the fresh level.
    sigma : float
        Standard deviation of the mean loss of a block of this size.
    fresh : bool
        Whether the block tells the fresh level, and so nothing of staleness.
    """

    rows: int
    mean: float
    excess: float
    error: float
    sigma: float
    fresh: bool


def start(**more: Any) -> dict[str, Any]:
    """State before the first turn, with what a trigger keeps ``more``."""
    return {"open": [0, 0.0], "since": 0, "fresh": [], "steps": [], "last": None, "own": True, **more}


def check_settings(positive: Mapping[str, float], fresh_rows: int) -> None:
    """Raise ``ConfigError``, by name, for what is no positive number, or no number of rows."""
    for field, value in positive.items():
        if not (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
            raise ConfigError(field, value, "give a positive number")
    if not isinstance(fresh_rows, int) or isinstance(fresh_rows, bool) or fresh_rows < 1:
        raise ConfigError("fresh_rows", fresh_rows, "give a positive whole number of rows")


def check(state: Any, *more: str) -> None:
    """Raise ``FormatError`` if a state is none of this release: a checkpoint of another must not be misread."""
    if not isinstance(state, dict) or state.keys() != _NAMES.union(more):
        held = sorted(state) if isinstance(state, dict) else state
        raise FormatError(f"the checkpoint's state of this trigger is of another release: {held}, not that of this one")


def trained(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """State after a training: the fresh level and the noise are remembered, an open block is dropped."""
    return {**state, "open": [0, 0.0], "since": 0, "last": None, **more}


def take(state: dict[str, Any], facts: Facts, rows: int) -> tuple[Block | None, dict[str, Any]]:
    """Add a turn; the block that it closes, if any, and the next state.

    A block closes with the turn at which it holds ``rows`` scored rows, so it is never smaller than a turn. As long as
    the losses are those of an older model than the last that was trained, no block is a fresh one.
    """
    n, total = state["open"][0] + facts.loss.n, state["open"][1] + facts.loss.total
    if n < rows:
        return None, {**state, "open": [n, total]}
    mean, since, variance = total / n, state["since"] + 1, _variance(state["steps"])
    known, steps = state["fresh"], state["steps"]
    if state["last"] is not None:
        before, there = state["last"]
        steps = [*steps, (mean - there) ** 2 / (1 / n + 1 / before)][-_STEPS:]
    state = {**state, "open": [0, 0.0], "since": since, "steps": steps, "last": [n, mean]}
    if not known or (facts.own and since <= FRESH):
        if since == 1 or not known:
            known = [*known, []]
        known = [*known[:-1], [*known[-1], [n, mean]]]
        if sum(map(len, known)) > MEMORY:
            known = known[1:]
        level, error = _level(known, _variance(steps))
        block = Block(rows=n, mean=mean, excess=0.0, error=error, sigma=math.sqrt(_variance(steps) / n), fresh=True)
        return block, {**state, "fresh": known}
    level, error = _level(known, variance)
    return Block(rows=n, mean=mean, excess=mean - level, error=error, sigma=math.sqrt(variance / n), fresh=False), state


def _variance(steps: list[float]) -> float:
    """Variance of one row's loss, on the safe side: half the mean square difference of blocks, times their rows.

    The greatest is left out, because a jump is no noise. What is left out, and how little a few differences tell, is
    made up for.
    """
    if len(steps) < 2:
        return sum(steps) * (1 + _DOUBT)
    return (sum(steps) - max(steps)) / (len(steps) - 1) * (1 + _DOUBT / len(steps))


def _level(fresh: list[list[list[float]]], variance: float) -> tuple[float, float]:
    """What a model loses that was just trained, and the standard error of that.

    The mean of all fresh blocks; where trainings differ more in theirs than noise explains, the last training's own
    mean is shrunk to it only as far as it is uncertain (empirical Bayes, by moments).
    """
    episodes = [_mean(blocks) for blocks in fresh]
    rows, pooled = _mean([block for blocks in fresh for block in blocks])
    error = variance / rows
    if len(episodes) < _EPISODES:
        return pooled, math.sqrt(error)
    within = sum(variance / n for n, _ in episodes) / len(episodes)
    between = sum((mean - pooled) ** 2 for _, mean in episodes) / (len(episodes) - 1) - 2 * within
    if between <= 0:
        return pooled, math.sqrt(error)
    own_rows, own = episodes[-1]
    share = between / (between + variance / own_rows)
    return share * own + (1 - share) * pooled, math.sqrt(share * variance / own_rows + (1 - share) * error)


def _mean(blocks: list[list[float]]) -> tuple[float, float]:
    rows = sum(n for n, _ in blocks)
    return rows, sum(n * mean for n, mean in blocks) / rows
