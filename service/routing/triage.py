"""Triage: findings for which the work on a study comes before all other."""

from collections.abc import Iterator, Mapping

from engines.packages.package import ModelPackage
from engines.types import Findings


def is_urgent(findings: Findings, least: Mapping[str, float]) -> bool:
    """Whether one of the named classes or things was found, with this probability or score at least.

    Parameters
    ----------
    least
        ``[routing.MODEL.stat]``: by label; letter case does not matter.
    """
    limits = {label.casefold(): limit for label, limit in least.items()}
    return any(sure >= limits.get(label.casefold(), 2.0) for label, sure in _found(findings))


def _found(findings: Findings) -> Iterator[tuple[str, float]]:
    if findings.classification is not None:
        yield from ((one.label, one.probability) for one in findings.classification.classes)
    if findings.detections is not None:
        yield from ((one.label, one.score) for one in findings.detections.found)


def labels_of(package: ModelPackage) -> tuple[str, ...]:
    """What a model could find that triage can go by."""
    outputs = package.description.classification, package.description.detection
    return tuple(each.label for output in outputs if output is not None for each in output.classes)
