"""Jobs have a priority, and the node that holds them; results, how often an archive has refused them after all."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Every job that is there is routine, and of no node; no result was refused."""
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="100"))
    op.add_column("jobs", sa.Column("owner", sa.Text, nullable=False, server_default=""))
    op.drop_index("jobs_to_claim", "jobs")
    op.create_index("jobs_by_priority", "jobs", ["state", "stage", "priority", "run_at", "id"])
    op.add_column("results", sa.Column("refused", sa.Integer, nullable=False, server_default="0"))
