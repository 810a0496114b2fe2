"""What all tests share: where optional things are looked for, and when a skip is a failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

#: real streams for developers: tests that need one skip where the folder is absent
DATA = Path(os.environ.get("PERENNIAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

#: files whose tests share a server, a browser or a deployment, which takes seconds to start: one process runs them all
TOGETHER = {
    f"tests/integration/test_{name}.py"
    for name in (
        "abuse", "cli", "client", "client_served", "dashboard", "hot_swap", "operate", "operating", "report_page",
        "serve_protocols", "stocks_example", "swap_under_load",
    )
}  # fmt: skip

# hundreds of tests start processes: none of them compiles the package anew, whatever this shell says
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests go to whichever process is free, but those of some files stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With PERENNIAL_NO_SKIPS set, a skipped test fails: nothing may be missing there."""
    report = yield
    if report.skipped and os.environ.get("PERENNIAL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """And so does a file of tests that is skipped as a whole."""
    report = yield
    if report.skipped and os.environ.get("PERENNIAL_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.fixture
def real_stream():
    """A function that gives the path of a real stream by name, or skips the test."""

    def find(name: str) -> Path:
        path = DATA / f"{name}.parquet"
        if not path.exists():
            pytest.skip(f"{path.name} is not in {DATA}: set PERENNIAL_DATA to the folder that holds it")
        return path

    return find


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Numeric libraries use one thread: tests run side by side."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
