"""The gate: paired losses of challenger and champion, looked at as often as one likes, until they tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perennial.core import protocols
from perennial.core.errors import ConfigError, nearest
from perennial.core.features import Features, Schema
from perennial.core.records import Verdict, Version
from perennial.core.times import micros, spell
from perennial.gate.bounds import boundary
from perennial.gate.evidence import Estimate, Evidence
from perennial.gate.margin import DEFAULT_MARGIN
from perennial.gate.slices import Slice

_DAY = timedelta(days=1)
_WORDS = {
    "mode": ("before", "after", "none"),
    "on_no_verdict": ("keep", "promote", "reject", "better"),
    "on_reject": ("back", "go_on"),
    "promote": ("auto", "manual"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Labelled rows that must go on working, such as old classes that new data lacks.

    Parameters
    ----------
    file : str
        Parquet or CSV files with the stream's features and its label. What they hold belongs to a gate's settings and
        where they lie does not, so it is told by their digest.
    limit : float
        The largest increase of the mean loss on them: above it a challenger is rejected. They are no sample of
        something else, so the mean is compared as it is.

    Raises
    ------
    ConfigError
        If no file is named, or the limit is no number.
    """

    file: str = field(repr=False)
    limit: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file:
            raise ConfigError("gate.golden.file", self.file, "name a file, e.g. golden.csv")
        _number("gate.golden.limit", self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What is known of a challenger besides its paired losses; None where it was not measured.

    Parameters
    ----------
    golden : float, optional
        Mean loss on the golden set, challenger minus champion.
    slices : mapping of str to Evidence
        Evidence from the rows of each slice alone; one that no row fell into may be left out.
    size_bytes : int, optional
        Size of the challenger's model.
    latency : timedelta, optional
        How long one prediction of the challenger takes.
    """

    golden: float | None = None
    slices: Mapping[str, Evidence] = field(default_factory=dict)
    size_bytes: int | None = None
    latency: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long a verdict is expected to take: labels and blocks, None if none is in sight, and the same in words."""

    outcome: Literal["promote", "reject"] | None
    labels: int | None
    blocks: int | None
    words: str

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class _Bounds:
    """An estimate with the bounds that hold at all times."""

    estimate: Estimate
    lower: float
    upper: float

    def plain(self) -> dict[str, Any]:
        known, sure = self.estimate.rows > 0, math.isfinite(self.upper)
        return {
            "rows": self.estimate.rows,
            "blocks": self.estimate.blocks,
            "effective_blocks": self.estimate.effective_blocks,
            "design_effect": None if math.isnan(self.estimate.design_effect) else self.estimate.design_effect,
            "mean": self.estimate.mean if known else None,
            "lower": self.lower if sure else None,
            "upper": self.upper if sure else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When a challenger takes over from the champion: settings, and the verdict that follows from evidence.

    With ``d`` the challenger's loss minus the champion's on the same examples, it promotes once the upper bound of
    the mean of ``d`` is below ``margin``, rejects once the lower bound is above 0, and goes on watching in between.
    The bounds hold at all times at once: looking at every batch costs nothing.

    Parameters
    ----------
    mode : {"before", "after", "none"}
        ``before``: the challenger predicts unseen until it is promoted. ``after``: it serves at once and the former
        champion predicts unseen; a rejection rolls back. ``none``: everything is promoted untested.
    margin : float, optional
        How much worse the mean loss may be, in units of the loss, and still be promoted; with 0 a challenger must be
        proven better. Unless given, it is set when a trial begins: by prices, or by the champion's mean loss so far,
        see :func:`~perennial.gate.trial_margin`. 0.003 where neither is known, as in :meth:`expected_wait`.
    alpha : float
        The probability that a line whose true mean difference is the margin or more is ever promoted, and the same
        for one that is no worse and is ever rejected.
    planned_labels : int
        The number of labels at which the bounds are sharpest: as many as a verdict may take. They hold before and
        after it too.
    least_blocks : int
        No verdict on fewer blocks, counted by their size.
    least_wait : timedelta
        No promotion sooner after the line began its trial. A rejection does not wait.
    greatest_wait : timedelta, optional
        When to settle a trial without a verdict; never unless given.
    on_no_verdict : {"keep", "promote", "reject", "better"}
        What happens then: go on watching, or decide; ``better`` promotes if the mean of ``d`` is below 0 and rejects
        otherwise.
    on_reject : {"back", "go_on"}
        Whether a stateful line returns to its last good checkpoint, or goes on learning from where it is.
    promote : {"auto", "manual"}
        ``manual``: say that it is ready, and leave the promotion to a person.
    block : timedelta or int
        The unit of analysis: rows of one block may err together, blocks should not. A span of event time, or a
        number of rows for streams whose rows are independent.
    golden : Golden, optional
        Rows that must go on working.
    held_out : timedelta, optional
        A fit leaves out the newest labelled rows of so long, and both versions are asked about them at once: evidence
        from the first turn on. For strategies that fit from scratch.
    slices : mapping of str to Slice
        Slices that must not get worse, each with its own margin or the gate's.
    largest_bytes : int, optional
        The largest model that may serve.
    largest_latency : timedelta, optional
        The longest that one prediction may take.
    canary, shadow : float
        In mode ``before``, where predictions are served: the share of requests that a new challenger answers, and of
        those that it and the champion are both asked about, from 0 to 1. They decide nothing: a trial goes on where
        they change.

    Raises
    ------
    ConfigError
        If a setting is out of its range, or two contradict each other.

    References
    ----------
    The bounds are in :mod:`perennial.gate.bounds`. Berger (1982), Multiparameter hypothesis testing and acceptance
    sampling, Technometrics 24: clearing every slice at level alpha needs no correction. Holm (1979), A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6: finding one that got worse
    does.

    Examples
    --------
    >>> gate = Gate(margin=0.003, planned_labels=1600)
    >>> str(gate)
    'before promotion: margin 0.003, alpha 0.05, planned for 1,600 labels in blocks of 1d'
    """

    mode: Literal["before", "after", "none"] = "before"
    margin: float | None = None
    alpha: float = 0.05
    planned_labels: int = 4000
    least_blocks: int = 20
    least_wait: timedelta = timedelta(0)
    greatest_wait: timedelta | None = None
    on_no_verdict: Literal["keep", "promote", "reject", "better"] = "keep"
    on_reject: Literal["back", "go_on"] = "back"
    promote: Literal["auto", "manual"] = "auto"
    block: timedelta | int = _DAY
    golden: Golden | None = None
    slices: Mapping[str, Slice] = field(default_factory=dict)
    largest_bytes: int | None = None
    largest_latency: timedelta | None = None
    held_out: timedelta | None = None
    canary: float = field(default=0.0, repr=False)  # a trial is known by the text of its gate
    shadow: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise ConfigError(f"gate.{name}", getattr(self, name), nearest(str(getattr(self, name)), words))
        if self.margin is not None:
            _number("gate.margin", self.margin)
            if self.margin < 0:
                raise ConfigError("gate.margin", self.margin, "give a number of at least 0")
        _number("gate.alpha", self.alpha, above=0)
        if self.alpha > 0.5:
            raise ConfigError("gate.alpha", self.alpha, "give a probability of at most 0.5, e.g. 0.05")
        _whole("gate.planned_labels", self.planned_labels, 1)
        _whole("gate.least_blocks", self.least_blocks, 2)
        _span("gate.least_wait", self.least_wait, timedelta(0))
        if self.greatest_wait is not None:
            _span("gate.greatest_wait", self.greatest_wait, max(self.least_wait, timedelta(microseconds=1)))
        elif self.on_no_verdict != "keep":
            raise ConfigError("gate.on_no_verdict", self.on_no_verdict, "say when: give greatest_wait, e.g. '60d'")
        if self.promote == "manual" and self.mode != "before":
            raise ConfigError("gate.promote", "manual", f"mode {self.mode!r} serves at once: use mode 'before'")
        if isinstance(self.block, timedelta):
            _span("gate.block", self.block, timedelta(microseconds=1))
        else:
            _whole("gate.block", self.block, 1)
        if self.golden is not None and not isinstance(self.golden, Golden):
            raise ConfigError("gate.golden", self.golden, "give Golden(file=..., limit=...)")
        for name, part in self.slices.items():
            if not isinstance(part, Slice):
                raise ConfigError(f"gate.slices.{name}", part, "give a Slice, e.g. Slice(where={'job': 'student'})")
        if self.largest_bytes is not None:
            _whole("gate.largest_bytes", self.largest_bytes, 1)
        if self.largest_latency is not None:
            _span("gate.largest_latency", self.largest_latency, timedelta(microseconds=1))
        if self.held_out is not None:
            _span("gate.held_out", self.held_out, timedelta(microseconds=1))
        for name in ("canary", "shadow"):
            share = getattr(self, name)
            _number(f"gate.{name}", share)
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"gate.{name}", share, "give the share of requests, from 0 to 1, e.g. 0.05")
            if share and self.mode != "before":
                raise ConfigError(
                    f"gate.{name}",
                    share,
                    f"mode {self.mode!r} holds no challenger back: use mode 'before', or leave it out",
                )

    def __str__(self) -> str:
        if self.mode == "none":
            return "no gate"
        block = spell(self.block) if isinstance(self.block, timedelta) else f"{self.block:,} rows"
        margin = "set by each trial" if self.margin is None else f"{self.margin:g}"
        return (
            f"{self.mode} promotion: margin {margin}, alpha {self.alpha:g}, planned for "
            f"{self.planned_labels:,} labels in blocks of {block}"
        )

    @property
    def needs_rows(self) -> bool:
        """Whether versions are asked about rows again after their labels came: impossible where no row is kept."""
        return self.held_out is not None

    @property
    def _margin(self) -> float:
        return DEFAULT_MARGIN if self.margin is None else self.margin

    def check_columns(self, schema: Schema, *, whole: bool) -> None:
        """Raise ``ConfigError`` if a slice is told by no feature, or by what its column cannot hold.

        With ``whole`` the schema has every word of the stream, and a slice of a word that it lacks is refused too.
        """
        for name, part in self.slices.items():
            try:
                part.check(schema, whole=whole)
            except ConfigError as error:
                raise ConfigError(f"gate.slices.{name}.{error.field}", error.got, error.need) from error

    def members(self, features: Features) -> NDArray[np.bool_]:
        """Which rows belong to each slice, shape (n, number of slices), in the order of ``slices``."""
        out = np.empty((len(features), len(self.slices)), dtype=np.bool_)
        for j, part in enumerate(self.slices.values()):
            out[:, j] = part.members(features)
        return out

    # ------------------------------------------------------------------ evidence

    def begin(self) -> Evidence:
        """No evidence yet."""
        return Evidence()

    def resume(self, plain: Mapping[str, Any]) -> Evidence:
        """Evidence from what :meth:`Evidence.to_plain` gave; raises ``FormatError`` if it cannot be read."""
        return Evidence.from_plain(plain)

    def blocks(self, time: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The block of each row, shape (n,), from event times in microseconds or from positions."""
        if isinstance(self.block, timedelta):
            return np.asarray(time, dtype=np.int64) // micros(self.block)
        return np.asarray(position, dtype=np.int64) // self.block

    # ------------------------------------------------------------------ verdict

    def judge(
        self,
        evidence: protocols.Evidence,
        *,
        now: int,
        begun: int,
        challenger: Version,
        champion: Version | None,
        checks: Checks | None = None,
    ) -> Verdict:
        """Promote, reject or keep watching, with the evidence and a reason in words.

        Parameters
        ----------
        evidence : Evidence
            Paired losses of the challenger's line, over all its MINORs.
        now, begun : int
            This instant, and when the line began its trial.
        challenger, champion : Version
            The newest version of the line, and the one it is held against; None if nothing serves yet. In mode
            ``after`` the champion is the former one, which predicts unseen.
        checks : Checks, optional
            What else is known.
        """
        checks = checks or Checks()
        if not isinstance(evidence, Evidence):
            raise ConfigError("evidence", type(evidence).__qualname__, "give what begin() or resume() of the gate made")
        number, against = challenger.number, champion.number if champion is not None else None
        if self.mode == "none":
            over = f" over {against}" if against is not None else ""
            return Verdict(
                outcome="promote", version=number, reason=f"no gate: promoted{over} untested", champion=against
            )
        broken = self._broken(checks)
        overall = self._bounds(evidence, evidence)
        slices = {name: self._bounds(checks.slices.get(name, Evidence()), evidence) for name in sorted(self.slices)}
        facts = self._facts(overall, slices, checks, now - begun)

        def verdict(outcome: Literal["promote", "reject", "keep"], reason: str) -> Verdict:
            return Verdict(outcome=outcome, version=number, reason=reason, champion=against, evidence=facts)

        if broken:
            return verdict("reject", self._turned_down(challenger, against, "; ".join(broken)))
        if against is None:
            return verdict("promote", f"{number} is promoted: there is no champion to hold it against")
        if worse := self._worse(overall, slices):
            return verdict("reject", self._turned_down(challenger, against, f"{worse}: {self._told(overall)}"))
        unknown = self._unknown(checks)
        missing = [*unknown, *self._missing(overall, slices, now - begun)]
        if not missing:
            outcome, reason = self._passed(number, against, f"not worse by {self._margin:g}: {self._told(overall)}")
            return verdict(outcome, reason)
        waited = timedelta(microseconds=now - begun)
        if self.greatest_wait is not None and waited >= self.greatest_wait:
            why = f"no verdict within {spell(self.greatest_wait)}, on_no_verdict is {self.on_no_verdict!r}"
            why = f"{why}: {self._told(overall)}"
            better = self.on_no_verdict == "better" and overall.estimate.mean < 0
            if (better or self.on_no_verdict == "promote") and not unknown:
                outcome, reason = self._passed(number, against, why)
                return verdict(outcome, reason)
            if self.on_no_verdict == "reject" or (self.on_no_verdict == "better" and not better):
                return verdict("reject", self._turned_down(challenger, against, why))
            missing = [why, *unknown]
        else:
            missing = [*missing, self._told(overall)]
        how = "is watched beside" if self.mode == "before" else "serves, and is held against"
        return verdict("keep", f"{number} {how} {against}: {'; '.join(missing)}")

    def _bounds(self, evidence: Evidence, overall: Evidence) -> _Bounds:
        """Bounds of one mean; a slice looks as far through the plan as the whole does."""
        return self._bounds_at(evidence.estimate(), overall.n, self.alpha)

    def _bounds_at(self, estimate: Estimate, rows: int, alpha: float) -> _Bounds:
        if not math.isfinite(estimate.error):
            return _Bounds(estimate, -math.inf, math.inf)
        width = boundary(rows / self.planned_labels, estimate.effective_blocks - 1, alpha) * estimate.error
        return _Bounds(estimate, estimate.mean - width, estimate.mean + width)

    def _enough(self, bounds: _Bounds) -> bool:
        return bounds.estimate.effective_blocks >= self.least_blocks - 1e-9

    def _broken(self, checks: Checks) -> list[str]:
        """Limits that are passed, whatever the evidence says."""
        out = []
        if self.golden is not None and checks.golden is not None and not checks.golden <= self.golden.limit:
            found = f"its loss on the golden set is {checks.golden:+.4g} against the champion's"
            if math.isnan(checks.golden):
                found = "it does not predict all rows of the golden set"
            out.append(f"{found}, at most {self.golden.limit:+g} is allowed")
        if self.largest_bytes is not None and checks.size_bytes is not None and checks.size_bytes > self.largest_bytes:
            out.append(f"it has {checks.size_bytes:,} bytes, at most {self.largest_bytes:,} are allowed")
        limit = self.largest_latency
        if limit is not None and checks.latency is not None and checks.latency > limit:
            out.append(f"a prediction takes {spell(checks.latency)}, at most {spell(limit)} is allowed")
        return out

    def _unknown(self, checks: Checks) -> list[str]:
        """What has a limit and was not measured: there is no promotion without it."""
        out = []
        for setting, found, what in (
            (self.golden, checks.golden, "its loss on the golden set"),
            (self.largest_bytes, checks.size_bytes, "its size"),
            (self.largest_latency, checks.latency, "its latency"),
        ):
            if setting is not None and found is None:
                out.append(f"{what} is not measured yet")
        return out

    def _worse(self, overall: _Bounds, slices: Mapping[str, _Bounds]) -> str:
        """What is proven to have got worse, in words; empty if nothing is."""
        if self._enough(overall) and overall.lower > 0:
            return "proven worse"
        if harmed := self._harmed(slices, overall.estimate.rows):
            return f"proven worse on {', '.join(harmed)}, by more than the margin there"
        return ""

    def _harmed(self, slices: Mapping[str, _Bounds], rows: int) -> list[str]:
        """Slices whose lower bound is above their margin, by Holm's procedure: alpha over how many are left."""
        left = [name for name, bounds in slices.items() if self._enough(bounds)]
        found: list[str] = []
        while left:
            alpha = self.alpha / len(left)
            more = [n for n in left if self._bounds_at(slices[n].estimate, rows, alpha).lower > self._margin_of(n)]
            if not more:
                break
            found, left = [*found, *more], [name for name in left if name not in more]
        return sorted(found)

    def _margin_of(self, name: str) -> float:
        margin = self.slices[name].margin
        return self._margin if margin is None else margin

    def _missing(self, overall: _Bounds, slices: Mapping[str, _Bounds], waited: int) -> list[str]:
        """What a promotion still waits for."""
        out = []
        if not self._enough(overall):
            so_far = math.floor(overall.estimate.effective_blocks)
            out.append(f"{so_far} of the {self.least_blocks} blocks that a verdict needs")
        elif not overall.upper < self._margin:
            out.append(f"not yet told apart, margin {self._margin:g}")
        if waited < micros(self.least_wait):
            out.append(f"on trial for {_since(waited)} of at least {spell(self.least_wait)}")
        unclear = [n for n, b in slices.items() if self._enough(b) and not b.upper < self._margin_of(n)]
        if unclear:
            out.append(f"not yet told apart on {', '.join(unclear)}")
        return out

    def _passed(self, number: str, against: str, why: str) -> tuple[Literal["promote", "keep"], str]:
        if self.promote == "manual":
            return "keep", f"ready: perennial promote {number} ({why})"
        if self.mode == "after":
            return "promote", f"{number} stays, in place of {against}: {why}"
        return "promote", f"{number} is promoted over {against}: {why}"

    def _turned_down(self, challenger: Version, against: str | None, why: str) -> str:
        number = challenger.number
        said = (
            f"rolled back from {number} to {against}" if self.mode == "after" and against else f"{number} is rejected"
        )
        back = ", and its line goes back to the last good checkpoint" if self.on_reject == "back" else ""
        return f"{said}{back if challenger.kind == 'update' else ''}: {why}"

    def _told(self, bounds: _Bounds) -> str:
        """The evidence in words."""
        found = bounds.estimate
        if not found.rows:
            return "no label yet"
        labels = f"{found.rows:,} {'label' if found.rows == 1 else 'labels'}"
        labels += f" in {found.blocks:,} {'block' if found.blocks == 1 else 'blocks'}"
        if not (self._enough(bounds) and math.isfinite(bounds.upper)):  # far out on a few blocks, and of no use
            return f"loss {found.mean:+.4g} on {labels}"
        return f"loss {found.mean:+.4g}, between {bounds.lower:+.4g} and {bounds.upper:+.4g}, on {labels}"

    def _facts(self, overall: _Bounds, slices: Mapping[str, _Bounds], checks: Checks, waited: int) -> dict[str, Any]:
        """The evidence as plain data."""
        facts: dict[str, Any] = {
            **overall.plain(),
            "mode": self.mode,
            "margin": self._margin,
            "alpha": self.alpha,
            "planned_labels": self.planned_labels,
            "least_blocks": self.least_blocks,
            "block": spell(self.block) if isinstance(self.block, timedelta) else self.block,
            "waited": spell(timedelta(microseconds=waited)),
        }
        if slices:
            facts["slices"] = {n: {**b.plain(), "margin": self._margin_of(n)} for n, b in slices.items()}
        for name, found in (("golden", checks.golden), ("size_bytes", checks.size_bytes)):
            if found is not None:
                facts[name] = found if math.isfinite(found) else None
        if checks.latency is not None:
            facts["latency"] = spell(checks.latency)
        return facts

    # ------------------------------------------------------------------ before a run

    def expected_wait(
        self,
        *,
        labels_per_block: float,
        effect: float = 0.0,
        disagreement: float | None = None,
        spread: float | None = None,
        design_effect: float = 1.0,
    ) -> Wait:
        """After how many labels a verdict is as likely as not, for a challenger of a given effect.

        Parameters
        ----------
        labels_per_block : float
            Labels that a block brings.
        effect : float
            The true mean of ``d``: below 0 for a challenger that is better.
        disagreement : float, optional
            Share of examples that one of the two gets wrong and the other right, where the loss is 0 or 1.
        spread : float, optional
            For other losses, the standard deviation of ``d`` over rows. Give one of the two.
        design_effect : float
            How much more the mean varies than with independent rows: 1 for those, 1.5 to 2 where days differ.

        Raises
        ------
        ConfigError
            If an argument is out of its range.

        Examples
        --------
        >>> gate = Gate(margin=0.003)
        >>> gate.expected_wait(labels_per_block=26, effect=-0.01, disagreement=0.08).labels
        2990
        """
        if (disagreement is None) == (spread is None):
            raise ConfigError("spread", spread, "give either disagreement (for a loss of 0 or 1) or spread")
        _number("labels_per_block", labels_per_block, above=0)
        _number("design_effect", design_effect, above=0)
        if disagreement is not None:
            _number("disagreement", disagreement, above=0)
            if disagreement > 1 or abs(effect) > disagreement:
                raise ConfigError("disagreement", disagreement, "give a share of rows, at least as large as the effect")
            spread = math.sqrt(disagreement - effect * effect)
        assert spread is not None
        _number("spread", spread, above=0)
        who = f"a challenger whose mean loss is {effect:+g}, at {labels_per_block:g} labels per block"
        found = self._first_verdict(labels_per_block, effect, spread * math.sqrt(design_effect))
        if found is None:
            return Wait(outcome=None, labels=None, blocks=None, words=f"no verdict in sight for {who}")
        outcome, blocks = found
        labels = math.ceil(blocks * labels_per_block)
        span = blocks * self.block if isinstance(self.block, timedelta) else None
        after = f"after about {labels:,} labels, {blocks:,} blocks" + (f" or {_about(span)}" if span else "")
        if span is not None and outcome == "promote":
            span = max(span, self.least_wait)
        if span is not None and self.greatest_wait is not None and span > self.greatest_wait:
            words = (
                f"no verdict within {spell(self.greatest_wait)} for {who}, then {self.on_no_verdict!r}; "
                f"{outcome} would come {after}"
            )
            return Wait(outcome=None, labels=labels, blocks=blocks, words=words)
        if self.least_wait and outcome == "promote":
            after += f", and not before {spell(self.least_wait)}"
        return Wait(outcome=outcome, labels=labels, blocks=blocks, words=f"{outcome} {after}, for {who}")

    def _first_verdict(
        self, per_block: float, effect: float, spread: float
    ) -> tuple[Literal["promote", "reject"], int] | None:
        """The first block at which evidence that is as expected would give a verdict."""
        blocks = self.least_blocks
        while blocks * per_block <= 1000 * self.planned_labels or blocks <= 10 * self.least_blocks:
            rows = blocks * per_block
            width = boundary(rows / self.planned_labels, blocks - 1, self.alpha) * spread / math.sqrt(rows)
            if effect > width:
                return "reject", blocks
            if effect + width < self._margin:
                return "promote", blocks
            blocks = max(blocks + 1, math.floor(blocks * 1.005))
        return None


def _since(waited: int) -> str:
    return _about(timedelta(microseconds=max(waited, 0)))


def _about(span: timedelta) -> str:
    if span >= 2 * _DAY:
        return f"{span / _DAY:.0f} days"
    return f"{span / timedelta(hours=1):.1f} hours"


def _number(field: str, value: object, above: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(field, value, "give a finite number")
    if above is not None and not value > above:
        raise ConfigError(field, value, f"give a number above {above:g}")


def _whole(field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(field, value, f"give a whole number of at least {least}")


def _span(field: str, value: object, least: timedelta) -> None:
    if not isinstance(value, timedelta):
        raise ConfigError(field, value, "give a timedelta, e.g. timedelta(days=1)")
    if value < least:
        raise ConfigError(field, str(value), f"give a duration of at least {spell(least)}")
