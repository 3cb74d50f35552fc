"""Which models run on which image, and why the others do not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from engines.packages.package import ModelPackage
from engines.packages.selection import RadiographSelection, Selection, VolumeSelection
from service.routing.image_type import not_primary
from service.series.facts import ImageFacts
from service.settings import RoutingSettings

ROUNDING_MM = 0.11
"""How far a measured distance may be above a limit: scanners round positions to a tenth of a millimetre."""

EVERYTHING: Mapping[str, RoutingSettings] = MappingProxyType({})
"""The configuration narrows nothing."""


@dataclass(frozen=True)
class Refusal:
    """Why a model does not run on an image.

    Attributes
    ----------
    reason
        For an operator.
    faulty
        The model is meant for such images, but this one lacks something. Otherwise nothing is wrong: it is another
        model's, or nobody's.
    """

    reason: str
    faulty: bool = False

    def __str__(self) -> str:
        return self.reason


def route(
    facts: ImageFacts,
    packages: Mapping[str, ModelPackage],
    sender: str = "",
    narrowing: Mapping[str, RoutingSettings] = EVERYTHING,
) -> tuple[list[str], dict[str, Refusal]]:
    """The names of the models that run, and for every other one the reason why it does not.

    Parameters
    ----------
    sender
        The calling AE title that the series came from.
    narrowing
        ``[routing.MODEL]`` of the configuration, by model: a model runs where it and its package both agree.
    """
    reasons = {
        name: refusal
        for name, package in packages.items()
        if (refusal := _why_not(facts, package, sender, narrowing.get(name)))
    }
    return [name for name in packages if name not in reasons], reasons


def _why_not(
    facts: ImageFacts, package: ModelPackage, sender: str, narrowing: RoutingSettings | None
) -> Refusal | None:
    """The first reason that says "not meant for it"; only where there is none, the first fault."""
    refusals = list(_refusals(facts, package.input))
    if narrowing is not None:
        where = f"routing.{package.name}"
        if not narrowing.enabled:
            refusals.append(Refusal(f"{where}.enabled = false"))
        if narrowing.senders and sender not in narrowing.senders:
            refusals.append(Refusal(f"sender {sender or 'unknown'} is not {_one_of(narrowing.senders)} ({where})"))
        refusals += [Refusal(f"{each.reason} ({where})", each.faulty) for each in _refusals(facts, narrowing)]
    return min(refusals, key=lambda refusal: refusal.faulty, default=None)


def _refusals(facts: ImageFacts, wanted: Selection) -> Iterator[Refusal]:
    """All that speaks against it. What the header does not tell is accepted: many scanners leave much empty."""
    if wanted.modality and not matches(facts.modality, wanted.modality):
        yield Refusal(f"modality {facts.modality or 'empty'} is not {_one_of(wanted.modality)}")
    if not agrees(facts.body_part, wanted.body_part):
        yield Refusal(f"body part {facts.body_part} is not {_one_of(wanted.body_part)}")
    if not agrees(facts.view, wanted.view):
        yield Refusal(f"view {facts.view} is not {_one_of(wanted.view)}")
    if wanted.primary_only and (reason := not_primary(facts.image_type)):
        yield Refusal(f"not a primary image but {reason}")
    if isinstance(wanted, VolumeSelection):
        yield from _of_volume(facts, wanted)
    if isinstance(wanted, RadiographSelection) and not agrees(facts.presentation, wanted.presentation):
        yield Refusal(f"presentation intent {facts.presentation} is not {_one_of(wanted.presentation)}")
    # free text may tell who somebody is, so it is not repeated
    if not agrees(facts.protocol, wanted.protocol):
        yield Refusal(f"its protocol name is not {_one_of(wanted.protocol)}")
    if not agrees(facts.series_description, wanted.series_description):
        yield Refusal(f"its series description is not {_one_of(wanted.series_description)}")


def _of_volume(facts: ImageFacts, wanted: VolumeSelection) -> Iterator[Refusal]:
    if facts.slices < wanted.minimum_slices:
        yield Refusal(f"{facts.slices} slices, fewer than {wanted.minimum_slices}")
    if wanted.maximum_slices is not None and facts.slices > wanted.maximum_slices:
        yield Refusal(f"{facts.slices} slices, more than {wanted.maximum_slices}")
    if facts.plane and wanted.plane and facts.plane not in wanted.plane:
        yield Refusal(f"plane {facts.plane} is not {_one_of(wanted.plane)}")
    if facts.slice_thickness_mm is not None and wanted.slice_thickness_mm is not None:
        least, largest = wanted.slice_thickness_mm
        if not least <= facts.slice_thickness_mm <= largest:
            yield Refusal(f"slice thickness {facts.slice_thickness_mm:g} mm is not from {least:g} to {largest:g} mm")
    if not agrees(facts.kernel, wanted.kernel):
        yield Refusal(f"kernel {facts.kernel} is not {_one_of(wanted.kernel)}")
    if wanted.contrast != "any" and facts.contrast != (wanted.contrast == "with"):
        yield Refusal(f"{'with' if facts.contrast else 'without'} contrast agent, not {wanted.contrast}")
    if facts.largest_gap_mm > wanted.bridged_mm + ROUNDING_MM:
        gap = f"slices {facts.largest_gap_mm:.1f} mm apart, more than the {wanted.bridged_mm:g} mm that it bridges"
        if facts.missing_slices:
            slices = "1 slice is" if facts.missing_slices == 1 else f"{facts.missing_slices} slices are"
            yield Refusal(f"{slices} missing: {gap}; send the series again, whole", faulty=True)
        else:
            yield Refusal(gap)
    if facts.partial and not wanted.accepts_partial:
        yield Refusal("the series may be incomplete; send it again, whole", faulty=True)


def agrees(text: str, patterns: Sequence[str]) -> bool:
    """Whether a text is empty, or matches the patterns."""
    return not text or matches(text, patterns)


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Whether a text, or one of its values (between backslashes), is what the patterns ask for.

    Parameters
    ----------
    patterns
        As `engines.packages.selection` says: letter case does not matter, ``*`` and ``?`` are wildcards, ``!``
        excludes.
    """
    values = {text.upper(), *(value.strip().upper() for value in text.split("\\"))}
    wanted = [pattern.upper() for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:].upper() for pattern in patterns if pattern.startswith("!")]

    def hits(choice: Sequence[str]) -> bool:
        return any(fnmatchcase(value, pattern) for value in values for pattern in choice)

    return (not wanted or hits(wanted)) and not hits(unwanted)


def _one_of(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else "one of " + ", ".join(values)
