"""Server and run killed with SIGKILL under load: what was acknowledged is there, once, and nothing is learned twice."""

from __future__ import annotations

import sys

import pytest

from tests.crash.serving import nothing_lost


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers of a server in /proc")
def test_nothing_is_lost(tmp_path):
    """A worker, the run and the whole server; every label, thumb and example; predictions are counted."""
    said = nothing_lost(tmp_path / "shop", kills=3, seed=0)
    assert "each there once" in said
