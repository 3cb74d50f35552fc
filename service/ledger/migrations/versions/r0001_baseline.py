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
    before = _results_before()
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
    if before:
        _take_over_results(before)
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


def _results_before() -> list[str]:
    """The tables in which the first ledgers kept their results, the results' renamed; none where there are none."""
    found = sa.inspect(op.get_bind())
    tables = found.get_table_names()
    if "results" not in tables or "id" in {column["name"] for column in found.get_columns("results")}:
        return []
    op.rename_table("results", "results_before")
    return ["results_before", *({"lineage"} & set(tables))]


def _take_over_results(before: list[str]) -> None:
    """Results in the order in which they were written; what they supersede was in a table of its own, or nowhere."""
    known = "lineage" in before
    lineage = "LEFT JOIN lineage ON lineage.sop_instance_uid = old.sop_instance_uid" if known else ""
    series_uid, predecessors = ("lineage.series_uid", "lineage.predecessors") if known else ("''", "'[]'")
    op.execute(
        "INSERT INTO results (sop_instance_uid, series, item, model, kind, sop_class_uid, series_uid, predecessors, "
        "path, status, archive) SELECT old.sop_instance_uid, old.series, item, model, kind, sop_class_uid, "
        f"coalesce({series_uid}, ''), coalesce({predecessors}, '[]'), path, status, archive "
        f"FROM results_before AS old {lineage} ORDER BY old.rowid"
    )
    for table in reversed(before):
        op.drop_table(table)


def _series(primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "series", _KEY, sa.ForeignKey("series.key", ondelete="CASCADE"), nullable=False, primary_key=primary_key
    )
