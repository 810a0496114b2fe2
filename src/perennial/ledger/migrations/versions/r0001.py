"""The first tables. What a release has shipped is never edited: a later revision changes it.

Columns as ``name:type``, ``?`` where NULL is allowed; ``schema.py`` says what they mean, and a test that both agree.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TYPES = {"text": sa.Text, "int": sa.BigInteger, "double": sa.Double, "bool": sa.Boolean, "bytes": sa.LargeBinary}
_OF_TURN = ("turns", ("turn",), ("turn",))
_OF_DEPLOYMENT = ("deployments", (), ())


def _create(
    name: str,
    columns: str,
    key: tuple[str, ...],
    *of: tuple[str, tuple[str, ...], tuple[str, ...]],
    clustered: bool = True,
) -> None:
    made: list[sa.Column[object]] = [sa.Column("deployment_id", sa.Text, nullable=False)]
    for word in columns.split():
        column, _, kind = word.partition(":")
        made.append(sa.Column(column, _TYPES[kind.rstrip("?")], nullable=kind.endswith("?")))
    op.create_table(
        name,
        *made,
        sa.PrimaryKeyConstraint("deployment_id", *key, name=f"pk_{name}"),
        *(
            sa.ForeignKeyConstraint(
                ["deployment_id", *mine],
                [f"{other}.{column}" for column in ("deployment_id", *theirs)],
                name=f"fk_{name}_{other}",
            )
            for other, mine, theirs in of
        ),
        sqlite_with_rowid=not clustered,
    )


def _index(table: str, *columns: str) -> None:
    op.create_index("_".join(("ix", table, "deployment_id", *columns)), table, ["deployment_id", *columns])


def upgrade() -> None:
    """Create everything."""
    _create("deployments", "place:text forgets:bool created_at:int", ())
    _create("leases", "holder:text token:int expires_at:int ttl:int", (), _OF_DEPLOYMENT)
    _create("heads", "turn:int position:text checkpoint:text intent:text", (), _OF_DEPLOYMENT)
    _create(
        "turns",
        "turn:int kind:text now:int first:int rows:int position:text checkpoint:text serving:text? "
        "loss_n:int loss_total:double? loss_name:text predictions:text labels:text quarantined:text? late:int "
        "staleness:int? notes:text cpu_seconds:double? committed_at:int",
        ("turn",),
        _OF_DEPLOYMENT,
    )
    _create("decisions", "turn:int seq:int fire:bool reason:text", ("turn", "seq"), _OF_TURN)
    _create(
        "verdicts",
        "turn:int seq:int outcome:text version:text reason:text champion:text? evidence:text",
        ("turn", "seq"),
        _OF_TURN,
    )
    _create(
        "versions",
        "number:text turn:int seq:int major:int minor:int parent:text? kind:text at:int ready_at:int "
        "trained_rows:int row_trees:int first:int last:int newest:int data:text key:text? reason:text steps:int "
        "blob:text state:text size:int golden:text cpu_seconds:double? facts:text",
        ("number",),
        _OF_TURN,
    )
    _create("scores", "turn:int name:text n:int total:double?", ("turn", "name"), _OF_TURN)
    _create(
        "aliases",
        "alias:text generation:int moved:int turn:int? version:text? reason:text actor:text at:int canary:double "
        "shadow:double",
        ("alias", "generation"),
        _OF_DEPLOYMENT,
        ("versions", ("version",), ("number",)),
    )
    _create(
        "segments",
        "born:int seq:int digest:text first:int rows:int oldest:int newest:int dead:int? dead_seq:int?",
        ("born", "seq"),
        ("turns", ("born",), ("turn",)),
    )
    _create("waiting", "id:bytes position:int time:int named:bool", ("id", "position"), _OF_DEPLOYMENT)
    _create(
        "files",
        "number:int part:int version:text at:int file:text rows:int predictions:text",
        ("number", "part"),
        _OF_DEPLOYMENT,
        ("versions", ("version",), ("number",)),
    )
    _create(
        "payloads",
        "digest:text size:int kept:bool data:bytes? of_version:text? erased_at:int?",
        ("digest",),
        _OF_DEPLOYMENT,
        clustered=False,
    )
    _index("verdicts", "version")
    _index("versions", "turn", "seq")
    _index("aliases", "moved")
    _index("aliases", "turn")
    _index("segments", "digest")
    _index("segments", "dead")
    _index("waiting", "time")
