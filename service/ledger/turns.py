"""Turns in the ledger: what is done now and then, by one node of several, however often they start."""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from service.ledger.schema import turns
from service.ledger.sql import now, upsert


@dataclass(frozen=True)
class Turn:
    """It is this node's turn. ``done_until`` is when the last turn that came to its end had begun, by the database's
    clock, in seconds since the epoch; ``began_at`` is when this one has.
    """

    name: str
    done_until: float
    began_at: float


def take_turn(connection: Connection, name: str, seconds: float) -> Turn | None:
    """Take a turn that is due, for so long unless it is prolonged; None where it is not due, or another node's."""
    first = upsert(connection.dialect.name, turns).values(name=name, due_at=now(), done_until=now())
    connection.execute(first.on_conflict_do_nothing())
    mine = update(turns).where(turns.c.name == name, turns.c.due_at <= now()).values(due_at=now() + seconds)
    taken = connection.execute(mine.returning(turns.c.done_until)).scalar()
    if taken is None:
        return None
    began = connection.execute(select(now())).scalar_one()
    return Turn(name, float(taken), float(began))


def hold_turn(connection: Connection, turn: Turn, seconds: float) -> None:
    """Go on with a turn for so long."""
    connection.execute(update(turns).where(turns.c.name == turn.name).values(due_at=now() + seconds))


def end_turn(connection: Connection, turn: Turn, again_in: float, *, done: bool) -> None:
    """End a turn; the next one is due after so many seconds.

    Parameters
    ----------
    done
        Whether all was done; otherwise the next turn is told the same ``done_until``.
    """
    values = {"due_at": now() + again_in} | ({"done_until": turn.began_at} if done else {})
    connection.execute(update(turns).where(turns.c.name == turn.name).values(**values))
