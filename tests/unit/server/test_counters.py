"""What workers counted outlives them, and what a dead one left open is lost and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from perennial.server.counters import COUNTED, EDGES, NOW, SHARED, Counters


def test_sums_over_workers(tmp_path: Path) -> None:
    """Each adds to its own file; anybody sees the sums."""
    with Counters(tmp_path) as one, Counters(tmp_path) as other:
        assert (one.worker, other.worker) == (0, 1)
        one.add("predictions", 3)
        other.add("predictions", 4)
        assert (one.total("predictions"), other.total("predictions"), other.own("predictions")) == (7, 7, 4)
        one.request("infer", 200)
        other.request("infer", 200)
        other.request("infer", 418)
        other.request("nowhere", 404)
        assert one.requests() == {("infer", 200): 2, ("infer", 0): 1, ("other", 404): 1}
        one.put("in_flight", 2)
        assert [now["in_flight"] for _, now in sorted(other.workers().items())] == [2, 0]


def test_a_worker_that_ends_gives_its_file_to_the_next(tmp_path: Path) -> None:
    """Counts go on; what was so in that moment does not."""
    with Counters(tmp_path) as first:
        first.add("rows", 5)
        first.put("generation", 9)
    with Counters(tmp_path) as second:
        assert (second.worker, second.own("rows"), second.own("generation"), second.total("lost")) == (0, 5, 0, 0)


def test_threads_that_share_a_name_count_every_time(tmp_path: Path) -> None:
    """Whoever reads a cell while another holds the lock waits for it."""
    with Counters(tmp_path) as counters:
        threads = [threading.Thread(target=counters.add, args=(name,)) for name in sorted(SHARED)]
        with counters._lock:
            for thread in threads:
                thread.start()
            assert all(thread.is_alive() for thread in threads)
            assert all(counters.own(name) == 0 for name in SHARED)
        for thread in threads:
            thread.join()
        assert all(counters.own(name) == 1 for name in SHARED)


def test_who_counts_too_late_counts_for_nobody(tmp_path: Path) -> None:
    """A writer may outlive its patience: the file belongs to the next worker."""
    with Counters(tmp_path) as counters:
        counters.add("logged", 2)
    counters.add("logged")
    with Counters(tmp_path) as counters:
        assert counters.own("logged") == 2


def test_durations(tmp_path: Path) -> None:
    """A duration lands in the first bin whose end it does not exceed."""
    with Counters(tmp_path) as one, Counters(tmp_path) as other:
        for nanoseconds in (1, EDGES[0], EDGES[0] + 1, EDGES[-1] + 1):
            one.observe("seconds", nanoseconds)
        bins, total = other.durations("seconds")
        assert (bins[0], bins[1], bins[-1], sum(bins)) == (2, 1, 1, 4)
        assert total == 2 * EDGES[0] + EDGES[-1] + 3


_DYING = """
import os, signal, sys
from pathlib import Path
from perennial.server.counters import Counters
c = Counters(Path(sys.argv[1]))
c.add("answered", 10); c.add("logged", 6); c.add("dropped", 1); c.put("in_flight", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_had_not_logged_is_lost(tmp_path: Path) -> None:
    """Answered less logged less dropped, and each time anew; nothing that it counted is gone."""
    for time in (1, 2):
        done = subprocess.run([sys.executable, "-c", _DYING, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
        with Counters(tmp_path) as after:
            assert (after.total("answered"), after.total("lost")) == (10 * time, 3 * time)
            assert after.own("in_flight") == 0


def test_any_worker_closes_the_books_of_the_dead(tmp_path: Path) -> None:
    """Where fewer workers serve than before, nobody takes the last files."""
    with Counters(tmp_path):  # the dying one takes the second file
        done = subprocess.run([sys.executable, "-c", _DYING, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
    with Counters(tmp_path) as after:
        assert (after.worker, after.total("lost"), after.total("logged")) == (0, 3, 6)
    with Counters(tmp_path) as again:
        assert again.total("lost") == 3


def test_a_file_of_another_release_begins_anew(tmp_path: Path) -> None:
    """Its cells mean other things."""
    with Counters(tmp_path) as counters:
        counters.add("rows", 5)
    with (tmp_path / "worker-0.cells").open("r+b") as file:
        file.write(b"\1" * 8)
    with Counters(tmp_path) as counters:
        assert counters.own("rows") == 0


def test_prometheus_reads_it(tmp_path: Path) -> None:
    """Every name is told with its help, and a histogram adds up."""
    with Counters(tmp_path) as counters:
        counters.add("labels", 2)
        counters.request("infer", 200)
        counters.request("infer", 302)
        counters.observe("seconds", 3_000_000)
        families = {family.name: family for family in text_string_to_metric_families(counters.metrics())}
    for name in COUNTED:
        assert families[f"perennial_{name}"].documentation == COUNTED[name]
    for name in NOW:
        assert families[f"perennial_{name}"].type == "gauge"
    assert families["perennial_labels"].samples[0].value == 2
    told = {(s.labels["route"], s.labels["status"]): s.value for s in families["perennial_requests"].samples}
    assert told == {("infer", "200"): 1, ("infer", "other"): 1}
    samples = families["perennial_request_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert (buckets["0.0025"], buckets["0.005"], buckets["+Inf"]) == (0, 1, 1)
    assert next(s.value for s in samples if s.name.endswith("_sum")) == pytest.approx(0.003)


def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    """Counts are nobody else's business."""
    with Counters(tmp_path):
        assert (tmp_path / "worker-0.cells").stat().st_mode & 0o777 == 0o600
        assert os.access(tmp_path / "worker-0.cells", os.R_OK)
