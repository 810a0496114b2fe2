"""The PostgreSQL server of the tests: looked for in one place, so that all of them skip alike without one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

URL = os.environ.get("PERENNIAL_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/test")


@contextmanager
def server() -> Iterator[sa.Engine]:
    """Its engine, each statement a transaction of its own; without a server the test is skipped."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    engine = sa.create_engine(URL, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            pass
    except sa.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL at {engine.url}: set PERENNIAL_POSTGRES ({error.orig})")
    yield engine
    engine.dispose()


def url() -> str:
    """Its URL; without a server the test is skipped."""
    with server():
        return URL


@contextmanager
def schema() -> Iterator[str]:
    """The URL of a schema that nobody else uses, dropped in the end."""
    name = f"perennial_{secrets.token_hex(4)}"
    with server() as engine:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {name}"))
        yield sa.make_url(URL).update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(False)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
