"""Which models run on which image, and why the others do not."""

from collections.abc import Mapping

from engines.description import VolumeInput
from engines.package import ModelPackage
from service.series.facts import ImageFacts


def route(facts: ImageFacts, packages: Mapping[str, ModelPackage]) -> tuple[list[str], dict[str, str]]:
    """The names of the models that run, and for every other one the reason why it does not."""
    reasons = {name: reason for name, package in packages.items() if (reason := why_not(facts, package))}
    return [name for name in packages if name not in reasons], reasons


def why_not(facts: ImageFacts, package: ModelPackage) -> str | None:
    """Why a model does not run on an image; None where it does.

    A body part or view that the header does not tell is accepted: many scanners leave both empty.
    """
    wanted = package.input
    if facts.modality not in wanted.modality:
        return f"modality {facts.modality or 'empty'} is not {_one_of(wanted.modality)}"
    if facts.body_part and wanted.body_part and facts.body_part not in wanted.body_part:
        return f"body part {facts.body_part} is not {_one_of(wanted.body_part)}"
    if facts.view and wanted.view and facts.view not in wanted.view:
        return f"view {facts.view} is not {_one_of(wanted.view)}"
    if isinstance(wanted, VolumeInput) and facts.slices < wanted.minimum_slices:
        return f"{facts.slices} slices, fewer than {wanted.minimum_slices}"
    return None


def _one_of(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else "one of " + ", ".join(values)
