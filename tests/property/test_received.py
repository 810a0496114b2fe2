"""Labels of few ids, in any order and any grouping: the log and its index end where a plain reading of them ends."""

from __future__ import annotations

import tempfile
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.server.received import LabelItem, Received
from perennial.stream.inbox import Inbox
from tests import inboxes

ITEMS = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["up", "down", "flat"]), st.one_of(st.none(), st.integers(1, 4))
)


def model(said):
    """What each item becomes and what stands of each id, by the words of the documentation."""
    stands, outcomes = {}, []
    for name, label, at in said:
        if name not in stands:
            stands[name] = (label, at)
            outcomes.append("accepted")
            continue
        before, when = stands[name]
        if label == before:
            stands[name] = (label, max((t for t in (at, when) if t is not None), default=None))
            outcomes.append("repeated")
        elif at is not None and when is not None and at < when:
            outcomes.append("older")
        else:
            stands[name] = (label, at)
            outcomes.append("revised")
    return outcomes, {name: label for name, (label, _) in stands.items()}


@settings(max_examples=40, deadline=None)
@given(
    said=st.lists(ITEMS, min_size=1, max_size=14),
    cuts=st.sets(st.integers(0, 14)),
    together=st.integers(1, 4),
    writers=st.integers(1, 2),
)
def test_any_interleaving_ends_as_a_plain_reading_does(said, cuts, together, writers):
    """Cut into requests, requests into transactions, transactions dealt to processes whose clocks differ."""
    edges = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    requests = [said[low:high] for low, high in pairwise(edges)]
    with tempfile.TemporaryDirectory() as folder:
        inbox = Inbox(f"sqlite:///{folder}/inbox.db", "shop")
        got = []
        for turn, low in enumerate(range(0, len(requests), together)):
            clock = 1_000_000 * (turn % writers) + turn  # one is a second ahead
            one = inboxes.writer(inbox, clock=lambda now=clock: now)
            futures = [
                one.take(Received(labels=[LabelItem(*item) for item in request]))
                for request in requests[low : low + together]
            ]
            one.start()
            got += [outcome.outcome for future in futures for outcome in future.result(20)]
            one.close()
        outcomes, stands = model(said)
        assert got == outcomes
        log = inboxes.rows(inbox, "labels")
        written = [item for item, outcome in zip(said, outcomes, strict=True) if outcome in ("accepted", "revised")]
        assert [(row["call"], row["y"]) for row in log] == [(name, label) for name, label, _ in written]
        assert {row["call"]: row["y"] for row in sorted(log, key=lambda row: row["known_at"])} == stands
        assert len({(row["call"], row["known_at"]) for row in log}) == len(log)
