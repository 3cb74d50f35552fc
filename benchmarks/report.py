"""The one form in which every benchmark tells what it has measured."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measured quantity: ``case`` is what was done, ``subject`` who did it (we, a peer, a part of us)."""

    case: str
    subject: str
    median: float
    min: float
    max: float
    unit: str


def row(case: str, subject: str, values: Sequence[float], unit: str) -> Row:
    """Sum up the values of all rounds."""
    low, middle, high = (round(value, 4) for value in (min(values), statistics.median(values), max(values)))
    return Row(case, subject, middle, low, high, unit)


def tell(name: str, rounds: int, rows: Sequence[Row], ratios: Mapping[str, float], as_json: bool) -> None:
    """Print a table for people, and with ``as_json`` one last line for programs."""
    units = list(dict.fromkeys(one.unit for one in rows))
    table = Table("case", "subject", *units, title=f"{name}, {rounds} rounds: median (min to max)")
    for case, subject in dict.fromkeys((one.case, one.subject) for one in rows):
        of_it = [one for one in rows if (one.case, one.subject) == (case, subject)]
        cells = ["\n".join(_cell(one) for one in of_it if one.unit == unit) for unit in units]
        table.add_row(case, subject, *cells)
    Console(stderr=as_json).print(table)
    if as_json:
        print(json.dumps({"name": name, "rounds": rounds, "rows": [asdict(one) for one in rows], "ratios": ratios}))


def _cell(one: Row) -> str:
    return f"{one.median:.4g} ({one.min:.4g} to {one.max:.4g})"
