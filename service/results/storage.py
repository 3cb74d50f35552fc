"""What each kind of result object is stored as (SOP class, transfer syntax), and what takes its place if refused."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from pydicom import uid

from service.results.profile import Kind, ReportForm, ResultProfile, SegmentationForm

Form = TypeVar("Form", bound=str)

Storage = tuple[str, str]
"""SOP Class UID and Transfer Syntax UID, as an association negotiates them (PS3.8 9.3.2.2)."""

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (PS3.4 B.5)."""

SEGMENTATIONS: Mapping[SegmentationForm, Storage] = {
    "binary": (uid.SegmentationStorage, uid.ExplicitVRLittleEndian),
    "fractional": (uid.SegmentationStorage, uid.ExplicitVRLittleEndian),
    "labelmap": (LABEL_MAP, uid.ExplicitVRLittleEndian),
    "labelmap-rle": (LABEL_MAP, uid.RLELossless),
    "labelmap-jpeg-ls": (LABEL_MAP, uid.JPEGLSLossless),
    "labelmap-jpeg-2000": (LABEL_MAP, uid.JPEG2000Lossless),
}
REPORTS: Mapping[ReportForm, Storage] = {
    "comprehensive-3d": (uid.Comprehensive3DSRStorage, uid.ExplicitVRLittleEndian),
    "comprehensive": (uid.ComprehensiveSRStorage, uid.ExplicitVRLittleEndian),
    "enhanced": (uid.EnhancedSRStorage, uid.ExplicitVRLittleEndian),
}
OTHERS: Mapping[str, Storage] = {
    "HEATMAP-SEG": (uid.SegmentationStorage, uid.ExplicitVRLittleEndian),
    "SC": (uid.SecondaryCaptureImageStorage, uid.ExplicitVRLittleEndian),
    "HEATMAP": (uid.SecondaryCaptureImageStorage, uid.ExplicitVRLittleEndian),
    "PDF": (uid.EncapsulatedPDFStorage, uid.ExplicitVRLittleEndian),
    "RTSTRUCT": (uid.RTStructureSetStorage, uid.ExplicitVRLittleEndian),
    "GSPS": (uid.GrayscaleSoftcopyPresentationStateStorage, uid.ExplicitVRLittleEndian),
    "KO": (uid.KeyObjectSelectionDocumentStorage, uid.ExplicitVRLittleEndian),
}

SEGMENTATION_FALLBACKS: tuple[SegmentationForm, ...] = ("labelmap", "binary")
REPORT_FALLBACKS: tuple[ReportForm, ...] = ("comprehensive", "enhanced")


def storage(kind: Kind, profile: ResultProfile) -> Storage:
    """What the objects of a kind are stored as."""
    if kind == "SEG":
        return SEGMENTATIONS[profile.segmentation]
    if kind == "SR":
        return REPORTS[profile.report]
    return OTHERS[kind]


def all_storages() -> list[Storage]:
    """Everything that a result can be stored as."""
    return sorted({*SEGMENTATIONS.values(), *REPORTS.values(), *OTHERS.values()})


def fallback(profile: ResultProfile, takes: Callable[[Storage], bool]) -> tuple[ResultProfile, tuple[str, ...]]:
    """The profile that an archive can file, next to the one that was asked for.

    A form that it refuses is replaced by one that it takes; a kind that it refuses in every form is left out, and where
    that is the SEG, secondary captures show what it would have.

    Parameters
    ----------
    takes
        Whether the archive takes a SOP class in a transfer syntax.

    Returns
    -------
    tuple[ResultProfile, tuple[str, ...]]
        The profile, and what became of what the archive refuses, for the operator; the same profile and nothing where
        it takes all of it.
    """
    notes: list[str] = []
    changes: dict[str, object] = {}
    segmentation = _first_taken(profile.segmentation, SEGMENTATION_FALLBACKS, SEGMENTATIONS, takes)
    report = _first_taken(profile.report, REPORT_FALLBACKS, REPORTS, takes)
    for kind, form, asked in (("SEG", segmentation, profile.segmentation), ("SR", report, profile.report)):
        if kind in profile.objects and form not in (None, asked):
            notes.append(f"{kind} as {form}, because the archive does not take it as {asked}")
    changes |= {"segmentation": segmentation or profile.segmentation, "report": report or profile.report}
    narrowed = profile.model_copy(update=changes)
    kinds = list(_kinds_taken(narrowed, takes))
    if lost := [kind for kind in profile.objects if kind not in kinds]:
        notes.append(f"no {', '.join(lost)}, because the archive does not take it")
    if "SEG" in lost and "SC" not in kinds and takes(storage("SC", profile)):
        kinds.append("SC")
        notes.append("SC instead of SEG")
    return narrowed.model_copy(update={"objects": tuple(kinds)}), tuple(notes)


def _kinds_taken(profile: ResultProfile, takes: Callable[[Storage], bool]) -> Iterator[Kind]:
    return (kind for kind in profile.objects if takes(storage(kind, profile)))


def _first_taken(
    asked: Form, others: tuple[Form, ...], storages: Mapping[Form, Storage], takes: Callable[[Storage], bool]
) -> Form | None:
    return next((form for form in (asked, *others) if takes(storages[form])), None)
