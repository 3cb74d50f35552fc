"""Many runs in one table."""

from collections.abc import Sequence
from typing import Any

COUNTS = ("acknowledged", "results", "lost", "doubled", "differing", "held", "unsound")


def by_fault(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Totals of the runs of each fault, in the order in which faults came first."""
    table: dict[str, dict[str, int]] = {}
    for line in lines:
        row = table.setdefault(line["fault"], dict.fromkeys(("runs", "failed", *COUNTS), 0))
        row["runs"] += 1
        row["failed"] += not line["ok"]
        for name in COUNTS:
            row[name] += line.get(name, 0)
    return table


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One object: all runs, and each fault."""
    table = by_fault(lines)
    total = {name: sum(row[name] for row in table.values()) for name in ("runs", "failed", *COUNTS)}
    seconds = round(sum(line["seconds"] for line in lines))
    return {"ok": all(line["ok"] for line in lines), **total, "seconds": seconds, "faults": table}


def told(lines: Sequence[dict[str, Any]]) -> str:
    """The same as a table in Markdown."""
    table = by_fault(lines)
    names = ("runs", *COUNTS)
    rows = [f"| fault | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for fault, row in table.items():
        rows.append(f"| {fault} | {' | '.join(f'{row[name]:,}' for name in names)} |")
    total = [sum(row[name] for row in table.values()) for name in names]
    rows.append(f"| **all** | {' | '.join(f'**{count:,}**' for count in total)} |")
    failed = [f"{line['seed']} ({line['fault']})" for line in lines if not line["ok"]]
    return "\n".join(rows) + (f"\n\nfailed: {', '.join(failed)}" if failed else "")
