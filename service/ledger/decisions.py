"""Decisions in the ledger: when a series was found complete, and what that rested on."""

import json
import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import Row

from service.ledger.records import DecisionRecord
from service.ledger.schema import decisions
from service.series.evidence import Decision, Evidence


def keep_decision(connection: Connection, key: str, instances: int, decision: Decision) -> None:
    """Add a decision to those on a series."""
    evidence = {"for": [asdict(one) for one in decision.evidence], "against": decision.against}
    values = {"partial": decision.partial, "points": decision.points, "evidence": json.dumps(evidence)}
    connection.execute(insert(decisions).values(series=key, decided_at=time.time(), instances=instances, **values))


def select_decisions(connection: Connection, *conditions: Any) -> list[DecisionRecord]:
    """The decisions for which all conditions hold, in order."""
    rows = connection.execute(select(decisions).where(*conditions).order_by(decisions.c.id))
    return [_decision(row) for row in rows]


def _decision(row: Row[Any]) -> DecisionRecord:
    evidence = json.loads(row.evidence)
    return DecisionRecord(
        series=row.series,
        decided_at=row.decided_at,
        instances=row.instances,
        partial=row.partial,
        points=row.points,
        evidence=tuple(Evidence(**one) for one in evidence["for"]),
        against=tuple(evidence["against"]),
    )
