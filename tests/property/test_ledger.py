"""Whatever happens to a ledger, in whatever order: what was committed is there, and one version is champion."""

from __future__ import annotations

import hashlib
import math
import secrets
import shutil
import tempfile
from datetime import timedelta
from unittest.mock import patch

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from perennial.core import failpoints
from perennial.core.records import Decision, Loss, Verdict, Version
from perennial.ledger.errors import AliasMoved, Conflict, LeaseHeld, LeaseLost, MissingBlob
from perennial.ledger.records import AliasChange, Entry, Lease, Saved, Segment
from perennial.ledger.rows import from_json, to_json
from perennial.ledger.sql import SqlLedger

HOUR = timedelta(hours=1)
LIMIT = 100  # bytes in a row at most

whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | real | st.text(max_size=8) | st.just("$float"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("$float"), inner),
    max_leaves=8,
)
blobs = st.sampled_from([size * bytes([n]) for size in (1, 300) for n in range(3)])  # few, so that some are equal


@given(plain)
def test_plain_data_comes_back_from_json(value):
    """Numbers that JSON lacks and names that look like marks included; and what is written is strict JSON."""
    text = to_json(value)
    assert from_json(text) == value
    assert "Infinity" not in text.replace('"', " ").split()


@given(st.lists(st.just(math.nan) | st.just(math.inf) | real, max_size=4))
def test_what_is_not_a_number_comes_back_from_json(values):
    """A NaN stays one, wherever it stands."""
    assert str(from_json(to_json({"a": values}))["a"]) == str(values)


class Ledgers(RuleBasedStateMachine):
    """Two processes, of which one at most holds the lease, an operator, and a model of what must be there."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.deployment = f"d-{secrets.token_hex(4)}"
        self.ledger = self.opened()
        self.entries: list[Entry] = []
        self.bytes: dict[str, bytes] = {}  # by digest, of what lasts
        self.moves: list[AliasChange] = []
        self.numbers: list[str] = []
        self.intent = ""
        self.holder: Lease | None = None
        self.valid = False

    def opened(self) -> SqlLedger:
        """The ledger, as a process has it after its start."""
        return SqlLedger.open(f"sqlite:///{self.folder}/ledger.db", self.deployment, inline_bytes=LIMIT)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.ledger.close()
        shutil.rmtree(self.folder)

    def generation(self, alias: str) -> int:
        """How often a pointer was moved."""
        return sum(move.alias == alias for move in self.moves)

    @initialize(target=leases)
    def begin(self) -> Lease:
        """Somebody has the lease."""
        return self.acquire("a")

    @rule(target=leases, holder=st.sampled_from("ab"))
    def acquire(self, holder: str) -> Lease:
        """Take the lease, if it is free or one's own."""
        try:
            lease = self.ledger.acquire(holder, HOUR)
        except LeaseHeld:
            assert self.valid
            assert self.holder is not None
            assert self.holder.holder != holder
            return self.holder
        assert not self.valid or self.holder is None or self.holder.holder == holder
        assert self.holder is None or lease.token > self.holder.token
        self.holder, self.valid = lease, True
        return lease

    @rule()
    def run_out(self) -> None:
        """Time passes."""
        with self.ledger._database.writing() as connection:
            connection.execute(sa.text("UPDATE leases SET expires_at = 1"))
        self.valid = False

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        """Only whose token is the newest may go on."""
        try:
            self.ledger.renew(lease, HOUR)
        except LeaseLost:
            assert lease != self.holder
        else:
            assert lease == self.holder
            self.valid = True

    @rule(lease=leases, bounds=st.sampled_from(["[0, 1)", "[0, 2)"]), ahead=st.sampled_from([0, 0, 0, 1]))
    def intend(self, lease: Lease, bounds: str, ahead: int) -> None:
        """Fix the bounds of a turn."""
        try:
            self.ledger.intend(lease, len(self.entries) + ahead, bounds)
        except LeaseLost:
            assert lease != self.holder or not self.valid
        except Conflict:
            assert ahead or self.intent not in ("", bounds)
        else:
            assert lease == self.holder
            assert self.valid
            self.intent = bounds

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Take a turn, as the one who may."""
        self.take_turn(self.mine(), data, fails=False)

    @rule(data=st.data())
    def commit_again(self, data: st.DataObject) -> None:
        """Take two, so that turns are the most of what happens."""
        for _ in range(2):
            self.take_turn(self.mine(), data, fails=False)

    @rule(lease=leases, data=st.data(), fails=st.booleans())
    def try_to_commit(self, lease: Lease, data: st.DataObject, fails: bool) -> None:
        """Take a turn, under a lease that may be old, in a process that may stumble before the end."""
        self.take_turn(lease, data, fails)

    def mine(self) -> Lease:
        """The newest lease, renewed if need be."""
        assert self.holder is not None
        if not self.valid:
            self.renew(self.holder)
        return self.holder

    def take_turn(self, lease: Lease, data: st.DataObject, fails: bool) -> None:
        """Commit a turn that was drawn; at times it names a pointer's old generation."""
        entry, lasting, stale = self.draw(data)
        stumble = patch.object(failpoints, "reach", side_effect=lambda name: name == "commit.inside" and 1 / 0)
        try:
            if fails:
                with stumble:
                    self.ledger.commit(lease, entry)
            else:
                self.ledger.commit(lease, entry)
        except LeaseLost:
            assert lease != self.holder or not self.valid
        except AliasMoved:
            assert stale
        except ZeroDivisionError:
            assert fails
        else:
            assert lease == self.holder
            assert self.valid
            assert not fails
            assert not stale
            self.entries.append(entry)
            self.bytes |= lasting
            self.moves += entry.aliases
            self.numbers += [saved.version.number for saved in entry.versions]
            self.intent = ""

    def draw(self, data: st.DataObject) -> tuple[Entry, dict[str, bytes], bool]:
        """A turn, the bytes it names for good, and whether it has read an old generation."""
        lasting: dict[str, bytes] = {}

        def put(content: bytes) -> str:
            digest = self.ledger.put(content)
            lasting[digest] = content
            return digest

        turn = len(self.entries)
        saved = []
        for minor in range(data.draw(st.integers(0, 2))):
            content = data.draw(blobs)
            version = Version(
                major=turn, minor=minor, parent=data.draw(st.none() | words), kind="fit", at=data.draw(whole),
                ready_at=data.draw(whole), trained_rows=1, row_trees=2, first=-1, last=3, newest=data.draw(whole),
                data="d", key=None, reason=data.draw(words),
            )  # fmt: skip
            saved.append(
                Saved(
                    version=version,
                    blob=put(content),
                    state="s",
                    size=len(content),
                    golden=put(data.draw(blobs)) if data.draw(st.booleans()) else "",
                    cpu_seconds=data.draw(real),
                    facts=data.draw(st.dictionaries(words, plain, max_size=2)),
                )
            )
        known = self.numbers + [s.version.number for s in saved]
        aliases: list[AliasChange] = []
        stale = False
        if known:
            for alias in data.draw(st.lists(st.sampled_from(["champion", "challenger", "previous"]), max_size=3)):
                generation = self.generation(alias) + sum(a.alias == alias for a in aliases)
                old = generation > 0 and data.draw(st.integers(0, 9)) == 0
                stale |= old
                number = data.draw(
                    st.sampled_from(known) if alias == "champion" else st.none() | st.sampled_from(known)
                )
                aliases.append(
                    AliasChange(alias=alias, version=number, generation=generation - old, reason="r", at=turn)
                )
        alive = [s.digest for s in self.ledger.segments()]
        segment = None
        if data.draw(st.booleans()):
            content = b"segment" * 20 + bytes([turn % 7])
            segment = Segment(digest=put(content), first=turn, rows=1, oldest=0, newest=data.draw(whole))
        entry = Entry(
            turn=turn,
            kind=data.draw(st.sampled_from(["batch", "tick", "operator"])),
            now=data.draw(whole),
            first=turn,
            rows=1,
            position=data.draw(words),
            checkpoint=self.ledger.put(data.draw(blobs)),
            serving=data.draw(st.none() | words),
            loss=Loss(n=1, total=data.draw(real), name=data.draw(words)),
            decisions=tuple(Decision(*d) for d in data.draw(st.lists(st.tuples(st.booleans(), words), max_size=2))),
            verdicts=tuple(
                Verdict(outcome="keep", version="1.0", reason=reason, evidence={"e": evidence})
                for reason, evidence in data.draw(st.lists(st.tuples(words, plain), max_size=1))
            ),
            versions=tuple(saved),
            scores=data.draw(st.dictionaries(words, st.tuples(st.integers(0, 9), real), max_size=2)),
            segment=segment,
            released=tuple(alive[: data.draw(st.integers(0, len(alive)))]),
            predictions=put(data.draw(blobs)),
            labels="",
            aliases=tuple(aliases),
            quarantined=data.draw(st.none() | words),
            late=1,
            staleness=data.draw(st.none() | whole),
            notes=tuple(data.draw(st.lists(st.text(max_size=3), max_size=2))),
            cpu_seconds=data.draw(real),
        )
        if segment is not None:
            del lasting[segment.digest]  # lasts until it is released; `check` looks at it
        return entry, lasting, stale

    @rule(data=st.data(), alias=st.sampled_from(["champion", "previous"]), behind=st.sampled_from([0, 0, 1]))
    def appoint(self, data: st.DataObject, alias: str, behind: int) -> None:
        """An operator moves a pointer, at times too late."""
        if not self.numbers:
            return
        change = AliasChange(
            alias=alias,
            version=data.draw(st.sampled_from(self.numbers)),
            generation=self.generation(alias) - behind,
            reason="asked",
            actor="ada",
        )
        try:
            made = self.ledger.set_alias(change)
        except AliasMoved:
            assert behind
        else:
            assert not behind
            assert made.generation == change.generation + 1
            self.moves.append(change)

    @rule()
    def collect(self) -> None:
        """Remove what nothing names, as the one who may."""
        self.try_to_collect(self.mine())

    @rule(lease=leases)
    def try_to_collect(self, lease: Lease) -> None:
        """Remove what nothing names, under a lease that may be old."""
        try:
            gone = self.ledger.collect(lease)
        except LeaseLost:
            assert lease != self.holder or not self.valid
        else:
            assert not set(gone) & self.bytes.keys()

    @rule()
    def restart(self) -> None:
        """The process ends, and another begins."""
        self.ledger.close()
        self.ledger = self.opened()

    @rule()
    def forget_what_waits(self) -> None:
        """Bytes that were put for no turn do no harm."""
        self.ledger.put(b"waits")

    @invariant()
    def what_was_committed_is_there(self) -> None:
        """Turns, versions, bytes, head: equal to what was given."""
        assert list(self.ledger.entries()) == self.entries
        assert [s.version.number for s in self.ledger.versions()] == self.numbers
        head = self.ledger.head()
        assert (head.turn, head.intent) == (len(self.entries) - 1, self.intent)
        if self.entries:
            assert head.checkpoint == self.entries[-1].checkpoint
            assert hashlib.sha256(self.ledger.get(head.checkpoint)).hexdigest() == head.checkpoint
        assert all(self.ledger.get(digest) == content for digest, content in self.bytes.items())
        assert [finding for finding in self.ledger.check() if not finding.safe] == []

    @invariant()
    def exactly_one_version_is_champion(self) -> None:
        """From the first promotion on, always; and generations grow by one, without a gap."""
        history = self.ledger.alias_history()
        assert [(a.alias, a.version, a.generation - 1) for a in history] == [
            (m.alias, m.version, m.generation) for m in self.moves
        ]
        for name in ("champion", "challenger", "previous"):
            generations = [a.generation for a in history if a.alias == name]
            assert generations == list(range(1, len(generations) + 1))
        promoted = any(move.alias == "champion" for move in self.moves)
        assert list(self.ledger.statuses().values()).count("champion") == promoted

    @invariant()
    def segments_are_those_that_were_not_released(self) -> None:
        """Of equal digests the oldest is released first."""
        alive: list[Segment] = []
        for entry in self.entries:
            if entry.segment is not None:
                alive.append(entry.segment)
            for digest in entry.released:
                alive.remove(next(s for s in alive if s.digest == digest))
        assert self.ledger.segments() == alive
        for segment in alive:
            try:
                self.ledger.get(segment.digest)
            except MissingBlob as error:
                raise AssertionError(f"a segment that is alive is gone: {segment}") from error


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
