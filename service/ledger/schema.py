"""The ledger's tables (SQLAlchemy Core).

A *series* is one DICOM series from one sender. An *item* is one thing in it that a model can run on: a CT volume, or
one radiograph. A *job* is one stage of one item and model; a stage that concerns the whole series has an empty item and
model. Times are seconds since the epoch, by the database's clock (`service.ledger.sql.now`).

A change here needs a migration in ``migrations/versions``, and its number in `REVISION`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from service.ledger.records import ROUTINE

REVISION = "0004"
"""The newest migration: what these tables are."""

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")
"""Numbers of rows. SQLite counts rows only in a column that is declared INTEGER, and as far as any."""
Key = Text().with_variant(Text(collation="C"), "postgresql")
"""A series' key, compared byte by byte, so that an index finds those that begin alike."""

series = Table(
    "series",
    metadata,
    Column("key", Key, primary_key=True),
    Column("study_uid", Text, nullable=False),
    Column("series_uid", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("instances", Integer, nullable=False),  # how many there were when it was last found complete
    Column("opened_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Number, primary_key=True),
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), nullable=False),
    Column("item", Text, nullable=False, default=""),
    Column("model", Text, nullable=False, default=""),
    Column("stage", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("run_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("token", Integer, nullable=False, default=0),  # fencing: grows with each claim, only the last one may finish
    Column("lease_until", Float, nullable=True),
    Column("note", Text, nullable=False, default=""),  # what happened last, for an operator
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
    Column("seconds", Float, nullable=True),  # of the attempt that finished it
    Column("priority", Integer, nullable=False, server_default=str(ROUTINE)),
    Column("owner", Text, nullable=False, server_default=""),  # the node that holds it, or held it last
    UniqueConstraint("series", "item", "model", "stage"),
)
Index("jobs_by_priority", jobs.c.state, jobs.c.stage, jobs.c.priority, jobs.c.run_at, jobs.c.id)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Number, primary_key=True),
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), nullable=False, index=True),
    Column("decided_at", Float, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("partial", Boolean, nullable=False),  # it started although something spoke for more to come
    Column("points", Float, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON: {"for": [{"name", "points", "text"}], "against": [text]}
)

results = Table(
    "results",
    metadata,
    Column("id", Number, primary_key=True),  # in the order in which they were encoded
    Column("sop_instance_uid", Text, nullable=False, unique=True),
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), nullable=False, index=True),
    Column("item", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("series_uid", Text, nullable=False),  # Series Instance UID of the result itself
    Column("predecessors", Text, nullable=False),  # JSON: SOP Instance UIDs of the reports that it supersedes
    Column("path", Text, nullable=False),
    Column("status", Text, nullable=False),  # service.ledger.records.STATUSES
    Column("archive", Text, nullable=False, default=""),
    Column("refused", Integer, nullable=False, server_default="0"),  # how often it was taken, and not kept after all
)

analyses = Table(
    "analyses",
    metadata,
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), primary_key=True),
    Column("item", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),  # of item and model: what was analysed, by exactly what
    Column("began_at", Float, nullable=False),  # of the first attempt: the content time of all results
)

corrections = Table(
    "corrections",
    metadata,
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), primary_key=True),
    Column("count", Integer, nullable=False),  # how many instances were replaced when it was last found complete
)

objects = Table(
    "objects",
    metadata,
    Column("name", Key, primary_key=True),  # the path in the spool
    Column("token", Text, nullable=False),  # with the name, the key in the store: one that is replaced gets another
    Column("digest", Text, nullable=False),  # SHA-256 (service.sharing); "damaged" before it where the store lost it
    Column("length", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),  # the file's time, the same wherever it is copied to
    Column("kept_at", Float, nullable=False),
)

leavings = Table(
    "leavings",
    metadata,
    Column("key", Text, primary_key=True),  # in the store, to be removed there
)

turns = Table(
    "turns",
    metadata,
    Column("name", Text, primary_key=True),  # of what is done now and then, by one node of several
    Column("due_at", Float, nullable=False),  # when it is somebody's turn
    Column("done_until", Float, nullable=False),  # the beginning of the last turn that came to its end
)
