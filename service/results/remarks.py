"""What results say to their reader in words, besides what was found."""

from collections.abc import Iterable

from service.results.analysis import Analysis
from service.results.predecessors import supersedes
from service.results.stamp import purpose


def told(analysis: Analysis, what: str) -> list[str]:
    """What every result says of itself (``what`` it is: report, segmentation): its purpose first, and of its input."""
    findings = analysis.findings
    return [purpose(findings), *supersedes(what, analysis.predecessors), *findings.notes]


def remarks(analysis: Analysis) -> tuple[str, ...]:
    """What a reader must know besides the numbers; the first is that the report is for research only."""
    findings, dropped = analysis.findings, analysis.source.dropped
    statements = told(analysis, "report")
    if findings.label_maps and not analysis.label_maps:
        statements.append(f"{findings.model.name} found nothing to segment.")
    if dropped:
        statements.append(f"Not copied from the source, because unreadable or invalid: {', '.join(dropped)}.")
    return tuple(statements)


def in_sentences(statements: Iterable[str]) -> str:
    """Statements as one text."""
    return ". ".join(statement.rstrip(".") for statement in statements) + "."
