"""Jobs in the ledger: one stage of one series, item and model."""

import time
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Row

from service.ledger.records import READY, Job, NextJob, SeriesRecord
from service.ledger.schema import jobs, series


def create_job(connection: Connection, key: str, job: NextJob, state: str = READY) -> None:
    """Create a job; one that is there already starts afresh, and whoever runs it now runs in vain."""
    now = time.time()
    fresh = {
        "state": state, "run_at": now, "attempts": 0, "note": "", "lease_until": None, "created_at": now,
        "ended_at": None, "seconds": None,
    }  # fmt: skip
    connection.execute(
        upsert(jobs)
        .values(series=key, stage=job.stage, item=job.item, model=job.model, token=0, **fresh)
        .on_conflict_do_update(
            index_elements=["series", "item", "model", "stage"], set_={**fresh, "token": jobs.c.token + 1}
        )
    )


def select_jobs(connection: Connection, *conditions: Any) -> list[Job]:
    """The jobs for which all conditions hold, in the order in which they were created."""
    query = select(jobs, series.c.study_uid, series.c.series_uid, series.c.modality, series.c.sender)
    rows = connection.execute(query.join(series).where(*conditions).order_by(jobs.c.id))
    return [_job(row) for row in rows]


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        series=SeriesRecord(row.series, row.study_uid, row.series_uid, row.modality, row.sender),
        stage=row.stage,
        item=row.item,
        model=row.model,
        state=row.state,
        attempts=row.attempts,
        token=row.token,
        note=row.note,
        created_at=row.created_at,
        run_at=row.run_at,
        ended_at=row.ended_at,
        seconds=row.seconds,
    )
