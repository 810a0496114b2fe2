"""The SQL of the ledger of one deployment: each statement is built once, and compiled once by SQLAlchemy's cache."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects import postgresql, sqlite

from perennial.ledger.schema import (
    aliases,
    database_now,
    decisions,
    files,
    heads,
    leases,
    payloads,
    scores,
    segments,
    turns,
    verdicts,
    versions,
    waiting,
)


class Statements:
    """Statements by what they do. Names of parameters differ from those of columns where a statement changes rows."""

    def __init__(self, deployment: str, dialect: str) -> None:
        def mine(table: sa.Table) -> sa.ColumnElement[bool]:
            return table.c.deployment_id == deployment

        def add(table: sa.Table, **values: Any) -> sa.Insert:
            return sa.insert(table).values(deployment_id=deployment, **values)

        # the lease: locked where the database locks rows, so that a commit and a takeover exclude each other
        self.lease = (
            sa.select(leases.c.holder, leases.c.token, leases.c.expires_at, leases.c.ttl, database_now().label("now"))
            .where(mine(leases))
            .with_for_update()
        )
        span = bindparam("span", type_=sa.BigInteger)
        until = {"expires_at": database_now() + span, "ttl": span}
        held = sa.and_(mine(leases), leases.c.token == bindparam("held"), leases.c.holder == bindparam("by"))
        self.set_lease = (
            sa.update(leases)
            .where(mine(leases))
            .values(holder=bindparam("new_holder"), token=bindparam("new_token"), **until)
        )
        self.renew = sa.update(leases).where(held).values(**until)
        self.free_lease = sa.update(leases).where(held).values(holder="", expires_at=0)

        # the head
        self.head = sa.select(heads).where(mine(heads))
        self.lock_head = sa.select(heads.c.turn).where(mine(heads)).with_for_update()
        self.intend = sa.update(heads).where(mine(heads)).values(intent=bindparam("bounds"))
        self.advance = (
            sa.update(heads)
            .where(mine(heads), heads.c.turn == bindparam("last"))
            .values(
                turn=bindparam("new_turn"),
                position=bindparam("new_position"),
                checkpoint=bindparam("new_checkpoint"),
                intent="",
            )
        )

        # a turn
        self.add_turn = add(turns, committed_at=database_now())
        self.add_decision = add(decisions)
        self.add_verdict = add(verdicts)
        self.add_version = add(versions)
        self.add_score = add(scores)
        self.add_segment = add(segments)
        self.oldest_alive = (
            sa.select(segments.c.born, segments.c.seq)
            .where(mine(segments), segments.c.digest == bindparam("digest"), segments.c.dead.is_(None))
            .order_by(segments.c.born, segments.c.seq)
            .limit(1)
        )
        self.bury = (
            sa.update(segments)
            .where(mine(segments), segments.c.born == bindparam("oldest_born"), segments.c.seq == bindparam("its_seq"))
            .values(dead=bindparam("at_turn"), dead_seq=bindparam("at_seq"))
        )
        self.checkpoints = (
            sa.select(turns.c.turn, turns.c.checkpoint)
            .where(mine(turns), turns.c.checkpoint != "")
            .order_by(turns.c.turn.desc())
            .limit(bindparam("count", type_=sa.Integer))
        )

        # rows that wait for a label of a log
        one = sa.and_(mine(waiting), waiting.c.id == bindparam("of"), waiting.c.position == bindparam("at"))
        self.find_waiting = (
            sa.select(waiting.c.id, waiting.c.position, waiting.c.time, waiting.c.named)
            .where(mine(waiting), waiting.c.id.in_(bindparam("ids", expanding=True)))
            .order_by(waiting.c.id, waiting.c.position)
        )
        self.add_waiting = add(waiting)
        self.name_waiting = sa.update(waiting).where(one).values(named=True)
        self.drop_waiting = sa.delete(waiting).where(one)
        self.end_waiting = sa.delete(waiting).where(mine(waiting), waiting.c.time <= bindparam("until"))
        self.last_waiting = sa.select(sa.func.max(waiting.c.position)).where(mine(waiting))

        # bytes
        self.payload = sa.select(payloads.c.data, payloads.c.erased_at).where(
            mine(payloads), payloads.c.digest == bindparam("digest")
        )
        self.payload_place = sa.select(
            payloads.c.kept, payloads.c.erased_at, payloads.c.data.is_(None).label("outside")
        ).where(mine(payloads), payloads.c.digest == bindparam("digest"))
        self.known = sa.select(payloads.c.digest, payloads.c.kept, payloads.c.erased_at).where(
            mine(payloads), payloads.c.digest.in_(bindparam("digests", expanding=True))
        )
        self.add_payload = _upsert(deployment, dialect)
        self.drop_payload = sa.delete(payloads).where(mine(payloads), payloads.c.digest == bindparam("gone"))
        self.erase = (
            sa.update(payloads)
            .where(mine(payloads), payloads.c.digest == bindparam("gone"))
            .values(data=None, erased_at=database_now())
        )
        self.add_erased = add(payloads, size=0, kept=True, data=None, erased_at=database_now())
        self.digests = sa.select(payloads.c.digest).where(mine(payloads))
        self.inline = self.digests.where(payloads.c.data.is_not(None))
        self.erased = self.digests.where(payloads.c.erased_at.is_not(None))
        self.named = _named(mine)
        self.released = sa.select(segments.c.digest).where(mine(segments), segments.c.dead.is_not(None))

        # files that were predicted apart from the stream
        self.add_file = add(files, at=database_now())
        self.last_file = sa.select(sa.func.max(files.c.number)).where(mine(files))
        self.files = sa.select(files).where(mine(files)).order_by(files.c.number, files.c.part)
        self.change_file = (
            sa.update(files)
            .where(mine(files), files.c.number == bindparam("of_number"), files.c.part == bindparam("of_part"))
            .values(predictions=bindparam("instead"))
        )

        # aliases
        self.alias = (
            sa.select(aliases)
            .where(mine(aliases), aliases.c.alias == bindparam("alias"))
            .order_by(aliases.c.generation.desc())
            .limit(1)
        )
        self.champion_at = (
            sa.select(aliases)
            .where(mine(aliases), aliases.c.alias == "champion", aliases.c.at <= bindparam("instant"))
            .order_by(aliases.c.generation.desc())
            .limit(1)
        )
        self.moves = sa.select(sa.func.max(aliases.c.moved)).where(mine(aliases))
        self.add_alias = add(aliases)

        # versions and turns, read back
        self.versions = sa.select(versions).where(mine(versions)).order_by(versions.c.turn, versions.c.seq)
        self.version = sa.select(versions).where(mine(versions), versions.c.number == bindparam("number"))
        self.has_version = self.version.with_only_columns(versions.c.number)
        self.numbers = self.versions.with_only_columns(versions.c.number)
        self.outcomes = (
            sa.select(verdicts.c.version, verdicts.c.outcome)
            .where(mine(verdicts))
            .order_by(verdicts.c.turn, verdicts.c.seq)
        )

        def part(table: sa.Table, turn: sa.Column[int], *order: sa.ColumnElement[Any]) -> Any:
            return (
                sa.select(table, turn.label("of_turn"))
                .where(mine(table), turn >= bindparam("from_turn"), turn < bindparam("to_turn"))
                .order_by(turn, *order)
            )

        self.turns = part(turns, turns.c.turn)
        self.committed = sa.select(turns.c.turn, turns.c.committed_at).where(
            mine(turns), turns.c.turn >= bindparam("from_turn")
        )
        self.parts = {
            "decisions": part(decisions, decisions.c.turn, decisions.c.seq),
            "verdicts": part(verdicts, verdicts.c.turn, verdicts.c.seq),
            "versions": part(versions, versions.c.turn, versions.c.seq),
            "scores": part(scores, scores.c.turn, scores.c.name),
            "segments": part(segments, segments.c.born, segments.c.seq),
            "released": part(segments, segments.c.dead, segments.c.dead_seq),
            "aliases": part(aliases, aliases.c.turn, aliases.c.moved),
        }

        # what `check` asks
        self.turn_range = sa.select(
            sa.func.count().label("n"),
            sa.func.min(turns.c.turn).label("low"),
            sa.func.max(turns.c.turn).label("high"),
        ).where(mine(turns))
        self.rows = sa.select(sa.func.max(turns.c.first + turns.c.rows)).where(mine(turns))
        self.last_turn = sa.select(turns.c.position, turns.c.checkpoint).where(
            mine(turns), turns.c.turn == bindparam("turn")
        )
        self.alias_range = (
            sa.select(
                aliases.c.alias,
                sa.func.count().label("n"),
                sa.func.min(aliases.c.generation).label("low"),
                sa.func.max(aliases.c.generation).label("high"),
            )
            .where(mine(aliases))
            .group_by(aliases.c.alias)
        )
        same = sa.and_(versions.c.deployment_id == aliases.c.deployment_id, versions.c.number == aliases.c.version)
        self.lost_aliases = (
            sa.select(aliases)
            .outerjoin(versions, same)
            .where(mine(aliases), aliases.c.version.is_not(None), versions.c.number.is_(None))
        )


def _upsert(deployment: str, dialect: str) -> Any:
    """Bytes that are there stay; they may come to be kept, or to be there again after they were erased."""
    make: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(payloads).values(deployment_id=deployment, erased_at=None)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[payloads.c.deployment_id, payloads.c.digest],
        set_={
            "kept": sa.or_(payloads.c.kept, new.kept),
            "data": sa.func.coalesce(payloads.c.data, new.data),
            "of_version": sa.func.coalesce(payloads.c.of_version, new.of_version),
            "size": sa.func.max(payloads.c.size, new.size)
            if dialect == "sqlite"
            else sa.func.greatest(payloads.c.size, new.size),
            "erased_at": None,
        },
    )


def _named(mine: Any) -> Any:
    """Every digest whose bytes must be there, with what names it: ``digest``, ``what``, ``of``."""

    def one(digest: sa.Column[str], what: str, of: sa.Column[Any], *where: Any) -> Any:
        return sa.select(
            digest.label("digest"), sa.literal(what, sa.Text).label("what"), sa.cast(of, sa.Text).label("of")
        ).where(mine(digest.table), digest != "", *where)

    return sa.union_all(
        one(turns.c.checkpoint, "checkpoint of turn", turns.c.turn, turns.c.turn >= bindparam("from_turn")),
        one(turns.c.predictions, "predictions of turn", turns.c.turn),
        one(turns.c.labels, "labels of turn", turns.c.turn),
        one(segments.c.digest, "segment of turn", segments.c.born, segments.c.dead.is_(None)),
        one(payloads.c.digest, "facts of version", payloads.c.of_version, payloads.c.of_version.is_not(None)),
        one(versions.c.golden, "golden set of version", versions.c.number),
        one(versions.c.blob, "model of version", versions.c.number),
        one(files.c.predictions, "predicted file", files.c.number),
    )
