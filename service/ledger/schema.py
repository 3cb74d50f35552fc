"""The ledger's tables (SQLAlchemy Core).

A *series* is one DICOM series from one sender. An *item* is one thing in it that a model can run on: a CT volume, or
one radiograph. A *job* is one stage of one item and model; a stage that concerns the whole series has an empty item and
model. Times are seconds since the epoch.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

series = Table(
    "series",
    metadata,
    Column("key", String(16), primary_key=True),
    Column("study_uid", String(128), nullable=False),
    Column("series_uid", String(128), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("sender", String(16), nullable=False),
    Column("instances", Integer, nullable=False),  # how many there were when it was last found complete
    Column("opened_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), nullable=False),
    Column("item", String(16), nullable=False, default=""),
    Column("model", String(64), nullable=False, default=""),
    Column("stage", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("run_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("token", Integer, nullable=False, default=0),  # fencing: grows with each claim, only the last one may finish
    Column("lease_until", Float, nullable=True),
    Column("note", Text, nullable=False, default=""),  # what happened last, for an operator
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
    Column("seconds", Float, nullable=True),  # of the attempt that finished it
    UniqueConstraint("series", "item", "model", "stage"),
)
Index("jobs_to_claim", jobs.c.state, jobs.c.stage, jobs.c.run_at)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
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
    Column("id", Integer, primary_key=True),  # in the order in which they were encoded
    Column("sop_instance_uid", String(128), nullable=False, unique=True),
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), nullable=False, index=True),
    Column("item", String(16), nullable=False),
    Column("model", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sop_class_uid", String(128), nullable=False),
    Column("series_uid", String(128), nullable=False),  # Series Instance UID of the result itself
    Column("predecessors", Text, nullable=False),  # JSON: SOP Instance UIDs of the reports that it supersedes
    Column("path", Text, nullable=False),
    Column("status", String(16), nullable=False),  # service.ledger.records.STATUSES
    Column("archive", String(64), nullable=False, default=""),
    Column("refused", Integer, nullable=False, server_default="0"),  # how often it was taken, and not kept after all
)

analyses = Table(
    "analyses",
    metadata,
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), primary_key=True),
    Column("item", String(16), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("version", String(16), primary_key=True),  # of item and model: what was analysed, by exactly what
    Column("began_at", Float, nullable=False),  # of the first attempt: the content time of all results
)

corrections = Table(
    "corrections",
    metadata,
    Column("series", ForeignKey("series.key", ondelete="CASCADE"), primary_key=True),
    Column("count", Integer, nullable=False),  # how many instances were replaced when it was last found complete
)
