"""Results in the ledger: what was encoded, how far it got, and what it supersedes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.engine import Row

from service.ledger.records import ResultRecord
from service.ledger.schema import results
from service.types import ResultObject


def keep_result(connection: Connection, record: ResultRecord) -> None:
    """Write down a result and what it supersedes; what was written of it before is replaced, and keeps its place."""
    values = {
        "series": record.series,
        "item": record.item,
        "model": record.model,
        "kind": record.result.kind,
        "sop_class_uid": record.result.sop_class_uid,
        "series_uid": record.result.series_uid,
        "predecessors": json.dumps(record.result.predecessors),
        "path": str(record.result.path),
        "status": record.status,
        "archive": record.archive,
        "refused": record.refused,
    }
    uid = record.result.sop_instance_uid
    known = connection.execute(update(results).where(results.c.sop_instance_uid == uid).values(**values))
    if not known.rowcount:
        connection.execute(insert(results).values(sop_instance_uid=uid, **values))


def withdraw(connection: Connection, records: Sequence[ResultRecord], status: str, new_status: str) -> None:
    """Give another status to those of these results that have this one; no archive has them then."""
    named = results.c.sop_instance_uid.in_([record.result.sop_instance_uid for record in records])
    connection.execute(update(results).where(named, results.c.status == status).values(status=new_status, archive=""))


def select_results(connection: Connection, *conditions: Any) -> list[ResultRecord]:
    """The results for which all conditions hold, in the order in which they were encoded."""
    query = select(results).where(*conditions).order_by(results.c.id)
    return [_result(row) for row in connection.execute(query)]


def count_results(connection: Connection) -> dict[tuple[str, str], int]:
    """Number of results by archive and status."""
    counted = select(results.c.archive, results.c.status, func.count()).group_by(results.c.archive, results.c.status)
    return {(archive, status): count for archive, status, count in connection.execute(counted)}


def _result(row: Row[Any]) -> ResultRecord:
    result = ResultObject(
        row.kind,
        row.sop_class_uid,
        row.sop_instance_uid,
        Path(row.path),
        row.series_uid,
        tuple(json.loads(row.predecessors)),
    )
    return ResultRecord(row.series, row.item, row.model, result, row.status, row.archive, row.refused)
