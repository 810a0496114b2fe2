"""Metrics of a run."""

import socket

import pytest

import perennial as pn
from perennial.production.metrics import Metrics


def test_a_port_that_cannot_be_listened_on_is_an_argument_to_mend():
    """Two runs that were given one port, or a number that is none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 910_000):
            with pytest.raises(pn.ConfigError, match="name another port") as told:
                Metrics("shop").serve(port)
            assert told.value.field == "metrics_port"
