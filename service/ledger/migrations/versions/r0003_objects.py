"""What lies in the object store of a spool that is no shared folder, and what is to be removed there."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Nothing lies there yet."""
    op.create_table(
        "objects",
        sa.Column("name", _KEY, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("modified_ns", sa.BigInteger, nullable=False),
        sa.Column("kept_at", sa.Float, nullable=False),
    )
    op.create_table("leavings", sa.Column("key", sa.Text, primary_key=True))
