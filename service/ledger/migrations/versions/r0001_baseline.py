"""The tables of 0.1. Ledgers from before the first migration have them, so what is there stays."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make what is not there."""
    op.create_table(
        "series",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("study_uid", sa.Text, nullable=False),
        sa.Column("series_uid", sa.Text, nullable=False),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "jobs",
        sa.Column("id", _NUMBER, primary_key=True),
        _series(),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("run_at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Float, nullable=True),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=True),
        sa.Column("seconds", sa.Float, nullable=True),
        sa.UniqueConstraint("series", "item", "model", "stage"),
        if_not_exists=True,
    )
    op.create_index("jobs_to_claim", "jobs", ["state", "stage", "run_at"], if_not_exists=True)
    op.create_table(
        "decisions",
        sa.Column("id", _NUMBER, primary_key=True),
        _series(),
        sa.Column("decided_at", sa.Float, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("partial", sa.Boolean, nullable=False),
        sa.Column("points", sa.Float, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_decisions_series", "decisions", ["series"], if_not_exists=True)
    op.create_table(
        "results",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("sop_instance_uid", sa.Text, nullable=False, unique=True),
        _series(),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sop_class_uid", sa.Text, nullable=False),
        sa.Column("series_uid", sa.Text, nullable=False),
        sa.Column("predecessors", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("archive", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_results_series", "results", ["series"], if_not_exists=True)
    op.create_table(
        "analyses",
        _series(primary_key=True),
        sa.Column("item", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("began_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "corrections",
        _series(primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        if_not_exists=True,
    )


def _series(primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "series", _KEY, sa.ForeignKey("series.key", ondelete="CASCADE"), nullable=False, primary_key=primary_key
    )
