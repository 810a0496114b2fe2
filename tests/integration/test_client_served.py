"""The client and the server that it is made for."""

from __future__ import annotations

import time

import pandas as pd
import pytest

from perennial.client import Client, Conflict, InvalidRequest, NotFound
from tests.serving import PATIENCE, deploy_mixed, serving

ROW = {"amount": 1.5, "age": 40, "member": True, "colour": "red"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a deployment of numbers and words, on the server's own machine."""
    config = deploy_mixed(tmp_path_factory.mktemp("served"))
    with serving(config) as server, Client(server.url, timeout=PATIENCE) as client:
        yield client


def test_predictions_have_labels_probabilities_ids_and_a_version(client):
    """Rows of dicts and of pandas are the same rows; ids are the stream's or the request's."""
    assert client.health()
    assert client.ready()
    rows = [ROW, ROW | {"colour": None, "amount": -2.0}]
    said = client.predict(rows, request_id="r1")
    assert said.ids == ("r1/0", "r1/1")
    assert said.classes == ("no", "yes")
    assert said.probabilities is not None
    for label, shares in zip(said.labels, said.probabilities, strict=True):
        assert sum(shares) == pytest.approx(1)
        assert label == said.classes[max((0, 1), key=shares.__getitem__)]
    assert said.version == client.champion().version
    frame = pd.DataFrame(rows).assign(call=["c1", "c2"], person=7)
    again = client.predict(frame, version=said.version)
    assert again.ids == ("c1", "c2")
    assert (again.labels, again.probabilities) == (said.labels, said.probabilities)


def test_what_is_wrong_is_told_by_its_column(client):
    """An id that was used for other rows, a column too few, a version that is not there."""
    client.predict([ROW], request_id="once")
    client.predict([ROW], request_id="once")
    with pytest.raises(Conflict, match="request id"):
        client.predict([ROW | {"age": 41}], request_id="once")
    with pytest.raises(InvalidRequest, match="'age'"):
        client.predict([{"amount": 1.0, "member": None, "colour": "red"}])
    with pytest.raises(NotFound):
        client.predict([ROW], version="99.0")
    with pytest.raises(Conflict, match="source: serve"):
        client.label("c1", "yes")


def test_a_promotion_reaches_the_answers(client):
    """What an operator says is what answers a little later, and the way back too."""
    before = client.champion().version
    client.promote("1.0", "to see")
    waited_for(client, "1.0")
    client.rollback("seen")
    waited_for(client, before)


def waited_for(client, version):
    """Wait until a version answers."""
    deadline = time.monotonic() + PATIENCE
    while client.predict([ROW]).version != version:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.champion().answers == version
