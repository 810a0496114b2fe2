"""The decision: which strategy to use, as a pure function of what all of them lost and cost in each batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perennial.advice import confidence
from perennial.advice.blocks import Blocks
from perennial.core.errors import ConfigError

Floats = NDArray[np.float64]
Verdict = Literal["clear", "tied", "no_skill", "not_enough"]

LEAST_BATCHES = 20  #: fewer are not enough evidence
LEAST_RUNS = 7.0  #: batches over the mean length of a run: fewer are not enough to leave several strategies tied

MARGIN = 0.01  #: what the cheapest may have lost more than the least of the tied, as a share of it, unless told

_MONTH = 30.0
_LINES = {
    "no_change": "repeating the last label",
    "no_change_by_batch": "repeating the last label of the batch before",
    "majority": "always saying the commonest class",
    "mean": "always saying the mean so far",
    "frozen": "the frozen model",
}
_EFFORTS = {"money": "money for trainings", "row_trees": "rows times trees", "rows_trained": "rows trained"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where one strategy or no-skill line stands.

    ``saving``, ``low`` and ``high`` are against the reference, in the unit of the advice; ``p_best`` is None for lines.
    ``p_set`` is the p-value of the model confidence set, None where nothing was tested; ``p_pair`` that of the
    Diebold-Mariano test against the advised strategy.
    """

    name: str
    line: bool
    loss: float
    cost: float
    saving: float
    low: float
    high: float
    p_best: float | None
    p_set: float | None
    in_set: bool
    p_pair: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Which strategy to use, how sure that is, and what would change it.

    Parameters
    ----------
    strategy, described : str
        The one to use, by name and in words.
    verdict : {"clear", "tied", "no_skill", "not_enough"}
        One is told apart from all others; the cheapest of several that are not; as ``tied`` or ``clear``, but a line
        without skill is not beaten; or too little history to say.
    by : str
        ``"money"``, or the name of the first metric.
    loss, unit, per : str
        What is summed, what savings are in, and over what they are: ``"month"`` (30 days), ``"span"`` or ``"row"``.
    level : float
        Of the intervals and the confidence set.
    margin : float
        How much more than the least the advised strategy may have lost on record, as a share of it.
    seed : int
        Of the bootstrap: the same seed, the same advice.
    batches, rows : int
        Compared.
    days : float
        How long they are together.
    block : float
        Mean length of the runs in which batches are drawn.
    reference : str
        What savings are counted from.
    saving, low, high, p_best : float
        Of the advised strategy.
    tied : tuple of str
        Other strategies that cannot be told apart from the best, the confidence set.
    unbeaten : tuple of str
        Lines without skill that the advised strategy is not shown to beat.
    cheapest_by : {"money", "row_trees", "rows_trained"}
        What the cheapest of the tied was found by.
    if_double, if_half : str, optional
        What the advice becomes if a training costs twice, or half, as much; None without prices.
    standings : tuple of Standing
        Strategies in the order given, then lines.
    short : str
        Why it is not enough evidence; empty otherwise.
    notes : tuple of str
        What else to know.
    """

    strategy: str
    described: str
    verdict: Verdict
    by: str
    loss: str
    unit: str
    per: str
    level: float
    margin: float
    seed: int
    batches: int
    rows: int
    days: float
    block: float
    reference: str
    saving: float
    low: float
    high: float
    p_best: float
    tied: tuple[str, ...]
    unbeaten: tuple[str, ...]
    cheapest_by: str
    if_double: str | None
    if_half: str | None
    standings: tuple[Standing, ...]
    short: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data: ``advice`` of ``report.json``."""
        plain = asdict(self)
        for name in ("tied", "unbeaten", "notes", "standings"):
            plain[name] = list(plain[name])
        plain["margin"] = None if math.isinf(self.margin) else self.margin
        return plain | {"sentences": self.sentences()}

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """The advice in words, what to do first."""
        what = f": {self.described}" if self.described else ""
        if self.verdict == "not_enough":
            out = [
                f"Not enough evidence to choose: {self.short}.",
                f"As a stop-gap, the cheapest of what lost about the least: {self.strategy}{what}.",
            ]
        else:
            out = [f"Use {self.strategy}{what}.", self._expected()]
        if self.tied:
            others = "; ".join(self.tied)
            if self.verdict != "not_enough":
                way = _EFFORTS[self.cheapest_by]
                out.append(f"Cannot be told apart from {others}. {self._cheapest()}, by {way}, is {self.strategy}.")
            else:
                out.append(f"Cannot be told apart from {others}.")
        elif self.verdict == "clear" and sum(not one.line for one in self.standings) > 1:
            out.append(f"Every other strategy is shown to be worse ({100 * self.level:g} % confidence set).")
        if self.unbeaten:
            lines = " or ".join(_LINES.get(name, name) for name in self.unbeaten)
            out.append(f"It is not shown to beat {lines}.")
        out.append(self._sensitivity())
        return out + [note[:1].upper() + note[1:] + "." for note in self.notes]

    def reason(self) -> str:
        """One line of why, for a table."""
        if self.verdict == "not_enough":
            return f"not enough evidence: {self.short}; the cheapest of what lost about the least, as a stop-gap"
        first = (
            f"cheapest of {len(self.tied) + 1} that cannot be told apart"
            if self.tied
            else "every other strategy is shown to be worse"
            if sum(not one.line for one in self.standings) > 1
            else "the only strategy"
        )
        out = f"{first} ({100 * self.level:g} % confidence set of {self.batches} batches)"
        if self.strategy != self.reference:
            out += f"; {self._amount()}"
        if self.unbeaten:
            out += f"; not shown to beat {' or '.join(_LINES.get(name, name) for name in self.unbeaten)}"
        return out

    def _cheapest(self) -> str:
        if math.isinf(self.margin):
            return "Cheapest of them"
        return f"Cheapest of those that lost at most {100 * self.margin:g} % more than the least of them"

    def _amount(self) -> str:
        return (
            f"saves {spelled(self.saving)} ({spelled(self.low)} to {spelled(self.high)}) {self._unit()} against "
            f"{self.reference}"
        )

    def _unit(self) -> str:
        if self.per == "row":
            return f"of {self.unit} per row"
        return "per month" if self.per == "month" else f"over {self.days:,.1f} days"

    def _expected(self) -> str:
        sure = f"{100 * self.level:g} % interval"
        if self.strategy == self.reference:
            rivals = [one for one in self.standings if not one.line and one.name != self.strategy]
            if not rivals:
                return f"There is nothing to compare it with: P(best) = {self.p_best:.2f}."
            rival = max(rivals, key=lambda one: one.saving)
            return (
                f"Against it, {rival.name} would save {spelled(rival.saving)} {self._unit()} ({sure} "
                f"{spelled(rival.low)} to {spelled(rival.high)}); P(best) = {self.p_best:.2f}."
            )
        half = (self.high - self.low) / 2
        return (
            f"Expected saving against {self.reference}: {spelled(self.saving)} ± {spelled(half)} {self._unit()} "
            f"({sure} {spelled(self.low)} to {spelled(self.high)}); P(best) = {self.p_best:.2f}."
        )

    def _sensitivity(self) -> str:
        if self.if_double is None or self.if_half is None:
            return "What it becomes at another price of a retrain cannot be told without a price of one."
        double = "the same" if self.if_double == self.strategy else self.if_double
        half = "the same" if self.if_half == self.strategy else self.if_half
        return f"If a retrain costs twice as much: {double}; half as much: {half}."


def spelled(value: float) -> str:
    """A number with the digits that matter.

    Examples
    --------
    >>> spelled(1234.5), spelled(12.345), spelled(-0.01234), spelled(0.0)
    ('1,234', '12.35', '-0.0123', '0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:,.2f}" if size >= 1 else f"{value:.3g}"


def advise(blocks: Blocks, *, level: float = 0.9, margin: float = MARGIN, seed: int = 0) -> Advice:
    """What to use: the cheapest of the strategies that cannot be told apart from the best and lost about as little.

    Batches are resampled in runs, never rows. With prices a strategy's total is its mistakes and its costs in money;
    without, its loss. What is *cheapest* goes by the money for trainings, then the total; without a price of them by
    what has no measurement noise: rows times trees where all that are tied have trees, rows trained, trainings, and
    the order given.

    Parameters
    ----------
    blocks : Blocks
        What strategies lost and cost, by batch.
    level : float
        Of intervals and of the confidence set, between 0.5 and 1.
    margin : float
        How much more than the least of the tied the advised strategy may have lost, as a share of that loss; ``inf``
        takes the cheapest of all that are tied. Not told apart is not the same: where evidence is short, strategies of
        very different losses are tied.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ConfigError
        For a level, a margin or a seed that is none.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(60, 1))
    >>> blocks = Blocks(
    ...     strategies=("never", "weekly", "daily"),
    ...     rows=np.full(60, 100),
    ...     loss=50 + noise + [9.0, 1.0, 1.0],
    ...     effort={"rows_trained": np.array([100.0, 900.0, 6000.0])},
    ... )
    >>> found = advise(blocks)
    >>> found.strategy, found.tied
    ('weekly', ('daily',))
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.5 <= level < 1:
        raise ConfigError("level", level, "give a share from 0.5 to below 1, e.g. 0.9")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError("seed", seed, "give a whole number that is not negative")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not margin >= 0:
        raise ConfigError("margin", margin, "give a share of the loss, 0 or more, e.g. 0.01; inf for no limit")
    k, t = len(blocks.strategies), len(blocks.rows)
    total = blocks.total
    # from the median strategy: one that goes stale all the time does not make the others' differences last for ever
    apart = total[:, :k] - np.median(total[:, :k], axis=1, keepdims=True)
    length = confidence.block_length(apart)
    counts = confidence.drawn(t, length, confidence.REPLICATES, seed)
    against = total[:, [blocks.reference]] - total  # positive: a saving
    savings, replicates = against.sum(axis=0), counts @ against
    wider = confidence.widening(against, savings, replicates, length, level)
    low, high = confidence.interval(savings, replicates, wider, level)
    best = confidence.shares_of_best(counts @ total[:, :k])

    test = SetTest(
        length=length,
        wider=_typical_widening(apart, counts, length, level),
        level=level,
        seed=seed,
    )
    found = decide(blocks, test, margin)
    pairs = total - total[:, [found.chosen]]
    scale, per, unit = _scale(blocks)
    standings = tuple(
        Standing(
            name=name,
            line=j >= k,
            loss=float(blocks.loss[:, j].sum()) * scale,
            cost=float((total - blocks.loss)[:, j].sum()) * scale,
            saving=float(savings[j]) * scale,
            low=float(low[j]) * scale,
            high=float(high[j]) * scale,
            p_best=float(best[j]) if j < k else None,
            p_set=None if found.p_set is None else float(found.p_set[j]),
            in_set=bool(found.members[j]),
            p_pair=None if j == found.chosen or t < 2 else confidence.diebold_mariano(pairs[:, j]).p,
        )
        for j, name in enumerate(blocks.columns)
    )
    mine = standings[found.chosen]
    tied = tuple(name for j, name in enumerate(blocks.strategies) if found.tied[j] and j != found.chosen)
    unbeaten = found.unbeaten + _unbeaten_apart(blocks, found.chosen, counts, length, level)
    short = _short(t, length, found, blocks)
    verdict: Verdict = "not_enough" if short else "no_skill" if unbeaten else "tied" if tied else "clear"
    notes = [*blocks.notes]
    if not blocks.exact:
        notes.append(f"{blocks.metric} is no mean over rows: {blocks.loss_name} stands in for it")
    priced = blocks.priced and bool(blocks.trained.any())
    return Advice(
        strategy=blocks.strategies[found.chosen],
        described=blocks.described[found.chosen] if blocks.described else "",
        verdict=verdict,
        by="money" if blocks.priced else blocks.metric,
        loss=blocks.loss_name,
        unit=unit,
        per=per,
        level=float(level),
        margin=float(margin),
        seed=seed,
        batches=t,
        rows=int(blocks.rows.sum()),
        days=float(blocks.days),
        block=length,
        reference=blocks.columns[blocks.reference],
        saving=mine.saving,
        low=mine.low,
        high=mine.high,
        p_best=float(best[found.chosen]),
        tied=tied,
        unbeaten=unbeaten,
        cheapest_by=found.cheapest_by,
        if_double=_at(blocks, 2.0, test, margin) if priced else None,
        if_half=_at(blocks, 0.5, test, margin) if priced else None,
        standings=standings,
        short=short,
        notes=tuple(notes),
    )


def _typical_widening(apart: Floats, counts: Floats, length: float, level: float) -> float:
    """The median over strategies: the widest would let one that swings hide what is told of all others."""
    apart = apart[:, np.ptp(apart, axis=0) > 0]
    if not apart.shape[1]:
        return 1.0
    return max(1.0, float(np.median(confidence.widening(apart, apart.sum(axis=0), counts @ apart, length, level))))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTest:
    """How the confidence set is found: see :func:`~perennial.advice.confidence.confidence_set`."""

    length: float
    wider: float
    level: float
    seed: int

    def __call__(self, totals: Floats) -> Floats:
        """The p-value of each column."""
        return confidence.confidence_set(totals, self.length, self.level, self.seed, wider=self.wider)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which column is chosen, of which that are tied, and what was tested.

    ``members`` is the confidence set of all columns, shape (k + m,); ``tied`` are the strategies chosen from, shape
    (k,): those in the set, or where only lines are, the confidence set of the strategies alone. ``unbeaten`` are
    lines in the set.
    """

    chosen: int
    members: NDArray[np.bool_]
    tied: NDArray[np.bool_]
    unbeaten: tuple[str, ...]
    cheapest_by: str
    p_set: Floats | None


def decide(blocks: Blocks, test: SetTest, margin: float) -> Decision:
    """The cheapest strategy of those that are tied with the best and lost about as little; see :func:`advise`."""
    k = len(blocks.strategies)
    if len(blocks.rows) < confidence.LEAST_TESTED:
        chosen, way = cheapest(blocks, near(blocks, range(k), margin))
        everyone = np.ones(len(blocks.columns), dtype=bool)
        return Decision(
            chosen=chosen, members=everyone, tied=everyone[:k], unbeaten=blocks.lines, cheapest_by=way, p_set=None
        )
    total = blocks.total
    p_set = test(total)
    members = p_set > 1 - test.level
    tied = members[:k]
    if not tied.any():  # lines without skill beat every strategy: which of these, at least?
        tied = test(total[:, :k]) > 1 - test.level
    chosen, way = cheapest(blocks, near(blocks, np.flatnonzero(tied).tolist(), margin))
    unbeaten = tuple(name for j, name in enumerate(blocks.lines) if members[k + j])
    return Decision(chosen=chosen, members=members, tied=tied, unbeaten=unbeaten, cheapest_by=way, p_set=p_set)


def near(blocks: Blocks, among: Sequence[int], margin: float) -> list[int]:
    """Those of the strategies whose total is above the least of them by at most a share of that one's loss."""
    total, loss = blocks.total.sum(axis=0), blocks.loss.sum(axis=0)
    least = min(among, key=lambda j: float(total[j]))
    bound = total[least] + (margin * abs(loss[least]) if loss[least] else 0.0)
    return [j for j in among if total[j] <= bound]


def cheapest(blocks: Blocks, among: Sequence[int]) -> tuple[int, str]:
    """The strategy of least cost, and what it was found by.

    Costs that are the same at every run are taken, never CPU seconds, so that advice can be repeated. Where trainings
    have a price, what has none costs nothing: of equally dear ones the one of the least total is taken.
    """
    k = len(blocks.strategies)
    money = blocks.trained[:, :k].sum(axis=0)
    keys: list[tuple[str, Floats]] = []
    if blocks.priced and money.any():
        keys += [("money", np.round(money, 9)), ("total", np.round(blocks.total[:, :k].sum(axis=0), 9))]
    trees = blocks.effort.get("row_trees")
    if trees is not None and all(trees[j] > 0 for j in among):
        keys.append(("row_trees", trees))
    keys += [(name, blocks.effort[name]) for name in ("rows_trained", "trainings") if name in blocks.effort]
    chosen = min(among, key=lambda j: tuple(float(values[j]) for _, values in keys))
    return chosen, next((name for name, _ in keys if name in _EFFORTS), "rows_trained")


def _at(blocks: Blocks, factor: float, test: SetTest, margin: float) -> str:
    return blocks.strategies[decide(blocks.at_price(factor), test, margin).chosen]


def _scale(blocks: Blocks) -> tuple[float, str, str]:
    """From a total to what is told: per month or over the span in money, else per row."""
    if not blocks.priced:
        return 1 / max(int(blocks.rows.sum()), 1), "row", blocks.loss_name
    return (_MONTH / blocks.days, "month", "money") if blocks.days >= _MONTH else (1.0, "span", "money")


def _short(t: int, length: float, found: Decision, blocks: Blocks) -> str:
    """Why there is not enough evidence; empty if there is."""
    if t < LEAST_BATCHES:
        return f"{t} {'batch' if t == 1 else 'batches'}, and {LEAST_BATCHES} are needed"
    if t / length < LEAST_RUNS and found.tied.sum() > 1:
        return (
            f"what is better in one batch lasts for {length:.1f}, so that {t} batches count as {t / length:.1f} runs, "
            f"and {LEAST_RUNS:g} are needed"
        )
    skill = [name for name in blocks.lines if name != "frozen"]
    if skill and found.members.all():
        return f"in {t} batches nothing is told apart, not even {' or '.join(_LINES.get(n, n) for n in skill)}"
    return ""


def _unbeaten_apart(blocks: Blocks, chosen: int, counts: Floats, length: float, level: float) -> tuple[str, ...]:
    """Lines without probabilities that the chosen strategy is not shown to make fewer errors than."""
    if blocks.errors is None:
        return ()
    out: list[str] = []
    for name, errors in blocks.apart.items():
        fewer = (errors - blocks.errors[:, chosen])[:, None]
        sums, replicates = fewer.sum(axis=0), counts @ fewer
        wider = confidence.widening(fewer, sums, replicates, length, level)
        low, _ = confidence.interval(sums, replicates, wider, level)
        if not low[0] > 0:
            out.append(name)
    return tuple(out)


def recommended(advice: Advice) -> Mapping[str, str]:
    """The advice in three words for a report: ``strategy``, ``by``, ``reason``."""
    return {"strategy": advice.strategy, "by": advice.by, "reason": advice.reason()}
