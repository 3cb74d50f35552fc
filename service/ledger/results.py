"""Results in the ledger: what was encoded, how far it got, and what it supersedes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.engine import Row

from service.ledger.records import ResultRecord
from service.ledger.schema import lineage, results
from service.types import ResultObject


def keep_result(connection: Connection, record: ResultRecord) -> None:
    """Write down a result and what it supersedes; what was written of it before is replaced."""
    values = {
        "sop_instance_uid": record.result.sop_instance_uid,
        "series": record.series,
        "item": record.item,
        "model": record.model,
        "kind": record.result.kind,
        "sop_class_uid": record.result.sop_class_uid,
        "path": str(record.result.path),
        "status": record.status,
        "archive": record.archive,
    }
    ancestry = {
        "sop_instance_uid": record.result.sop_instance_uid,
        "series": record.series,
        "series_uid": record.result.series_uid,
        "predecessors": json.dumps(record.result.predecessors),
    }
    for table, row in ((results, values), (lineage, ancestry)):
        connection.execute(delete(table).where(table.c.sop_instance_uid == record.result.sop_instance_uid))
        connection.execute(insert(table).values(**row))


def withdraw(connection: Connection, records: Sequence[ResultRecord], status: str, new_status: str) -> None:
    """Give another status to those of these results that have this one; no archive has them then."""
    named = results.c.sop_instance_uid.in_([record.result.sop_instance_uid for record in records])
    connection.execute(update(results).where(named, results.c.status == status).values(status=new_status, archive=""))


def select_results(connection: Connection, *conditions: Any) -> list[ResultRecord]:
    """The results for which all conditions hold."""
    query = select(results, lineage.c.series_uid, lineage.c.predecessors)
    query = query.join(lineage, lineage.c.sop_instance_uid == results.c.sop_instance_uid, isouter=True)
    query = query.where(*conditions).order_by(results.c.series, results.c.kind, lineage.c.series_uid)
    return [_result(row) for row in connection.execute(query)]


def _result(row: Row[Any]) -> ResultRecord:
    result = ResultObject(
        row.kind,
        row.sop_class_uid,
        row.sop_instance_uid,
        Path(row.path),
        row.series_uid or "",
        tuple(json.loads(row.predecessors or "[]")),
    )
    return ResultRecord(row.series, row.item, row.model, result, row.status, row.archive)
