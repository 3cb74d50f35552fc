"""What results say to their reader in words, besides what was found."""

from collections.abc import Iterable

from engines.types import Findings, InputStatistic
from service.results.analysis import Analysis
from service.results.predecessors import supersedes
from service.results.stamp import purpose

IN_WORDS = {
    "deviation": "standard deviation",
    "p5": "5th percentile",
    "p95": "95th percentile",
    "slice_step_mm": "slice step",
    "extent_mm": "extent",
    "pixel_mm": "pixel",
    "cross_section_cm2": "cross-section",
    "middle": "brightness of the middle against the whole",
}
"""Names of statistics (`engines.inference.input_statistics`) for a reader."""
SCORES = "A score is what the network itself gives a detection, from 0 to 1; it is no probability."


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
    if detections := findings.detections:
        names = ", ".join(label for label, _ in detections.looked_for)
        statements.append(SCORES if detections.found else f"{findings.model.name} found none of: {names}.")
    if dropped:
        statements.append(f"Not copied from the source, because unreadable or invalid: {', '.join(dropped)}.")
    return tuple(statements)


def input_statistics(findings: Findings) -> tuple[str, ...]:
    """What the image is like as the model saw it, beside the images of its training: one statement, or none."""
    if not findings.input_statistics:
        return ()
    said = "; ".join(map(_statistic, findings.input_statistics))
    return (f"The image as {findings.model.name} saw it: {said}.",)


def _statistic(entry: InputStatistic) -> str:
    value = f"{IN_WORDS.get(entry.name, entry.name)} {entry.value:.4g} {entry.unit}".rstrip()
    if entry.least is None or entry.largest is None:
        return value
    where = "outside of" if entry.outside else "in training"
    training = "those of the training, " if entry.outside else ""
    return f"{value} ({where} {training}{entry.least:g} to {entry.largest:g})"


def in_sentences(statements: Iterable[str]) -> str:
    """Statements as one text."""
    return ". ".join(statement.rstrip(".") for statement in statements) + "."
