"""Is this SEG the label map, in the place of its source images?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.color import CIELabColor
from pydicom import Dataset

from engines.types import LabelMap, Segment
from service.results.analysis import Analysis
from service.results.checks.mismatch import paired, require
from service.results.checks.segmentation_frames import Shown, check_frames
from service.results.profile import SegmentationForm
from service.results.source import SAME_DIRECTION, Source
from service.results.storage import SEGMENTATIONS, Storage
from service.results.uids import ResultUIDs
from service.types import ResultObject


@dataclass(frozen=True)
class Form:
    """How a Segmentation object is stored."""

    type: str
    storage: Storage
    bits: int = 8


FORMS: dict[SegmentationForm, Form] = {
    "binary": Form("BINARY", SEGMENTATIONS["binary"], bits=1),
    "labelmap": Form("LABELMAP", SEGMENTATIONS["labelmap"]),
    "labelmap-rle": Form("LABELMAP", SEGMENTATIONS["labelmap-rle"]),
    "labelmap-jpeg-ls": Form("LABELMAP", SEGMENTATIONS["labelmap-jpeg-ls"]),
    "labelmap-jpeg-2000": Form("LABELMAP", SEGMENTATIONS["labelmap-jpeg-2000"]),
    "fractional": Form("FRACTIONAL", SEGMENTATIONS["fractional"]),
}


@dataclass(frozen=True, eq=False)
class Expected:
    """What a Segmentation object must be: of which kind, in which form, of what, showing what."""

    kind: str
    form: Form
    segments: Sequence[Segment]
    shown: Shown

    def require(self, holds: bool, difference: str) -> None:
        """Refuse the object unless a statement about it holds."""
        require(holds, self.kind, difference)


def check_segmentation(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded SEGs with the label maps and the source (`service.results.kinds.Check`)."""
    for dataset, label_map in paired(datasets, analysis.label_maps, "SEG"):
        form, shown = _shown(label_map, analysis.profile.segmentation)
        check_object(dataset, Expected("SEG", form, label_map.present, shown), analysis)


def check_object(dataset: Dataset, expected: Expected, analysis: Analysis) -> None:
    """Compare one decoded Segmentation object with what it must be.

    Raises
    ------
    Quarantined
        It is something else.
    """
    source = analysis.source
    _check_form(dataset, expected, analysis)
    _check_references(dataset, expected, source)
    _check_segments(dataset, expected, analysis.uids)
    _check_shared_geometry(dataset, expected, source)
    check_frames(dataset, expected.shown, source.planes, expected.require)


def _shown(label_map: LabelMap, wanted: SegmentationForm) -> tuple[Form, Shown]:
    """What a label map must be stored as; masks where probabilities are wanted that it has not."""
    present, slices = label_map.present, label_map.slices
    numbers = [segment.number for segment in present]
    total, form = int(label_map.counts[:, numbers].sum()), FORMS[wanted]
    if form.type == "FRACTIONAL" and label_map.probabilities is not None:
        of_all = dict(zip(label_map.segments, label_map.probabilities, strict=True))
        fractions = [of_all[segment].reshape(slices.shape) for segment in present]
        whole = [sum(int(np.count_nonzero(frame)) for frame in segment) for segment in fractions]
        if all(whole):
            return form, Shown(lambda segment, index: fractions[segment - 1][index], sum(whole), len(present))
    if form.type == "LABELMAP":
        renumbered = np.array([numbers.index(value) + 1 if value in numbers else 0 for value in range(256)], np.uint8)
        return form, Shown(lambda _, index: renumbered[slices[index]], total, len(present))

    masks = Shown(lambda segment, index: np.equal(slices[index], numbers[segment - 1]), total, len(present))
    return FORMS["binary"], masks


def _check_form(dataset: Dataset, expected: Expected, analysis: Analysis) -> None:
    form, bits = expected.form, expected.form.bits
    fractional = form.type == "FRACTIONAL"
    sop_class_uid, transfer_syntax_uid = form.storage
    for keyword, value in {
        "SOPClassUID": sop_class_uid,
        "SegmentationType": form.type,
        "SegmentationFractionalType": "PROBABILITY" if fractional else None,
        "MaximumFractionalValue": 255 if fractional else None,
        "ContentLabel": "RESEARCH",
        "FrameOfReferenceUID": analysis.source.frame_of_reference_uid,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 0,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
    }.items():
        expected.require(dataset.get(keyword) == value, f"{keyword} is not the expected one")
    syntax = dataset.file_meta.TransferSyntaxUID
    expected.require(syntax == transfer_syntax_uid, "the transfer syntax is not the expected one")
    extent = (dataset.Rows, dataset.Columns)
    expected.require(extent == analysis.image.array.shape[-2:], "rows and columns are not those of the source")


def _check_references(dataset: Dataset, expected: Expected, source: Source) -> None:
    series = dataset.get("ReferencedSeriesSequence") or []
    expected.require(
        [item.SeriesInstanceUID for item in series] == [source.first.SeriesInstanceUID],
        "ReferencedSeriesSequence is not the source series",
    )
    images = {(header.SOPClassUID, header.SOPInstanceUID) for header in source.headers}
    for keyword, items in {
        "ReferencedSeriesSequence": series[0].ReferencedInstanceSequence,
        "SourceImageSequence": dataset.SourceImageSequence,
    }.items():
        referenced = {(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in items}
        expected.require(referenced == images, f"{keyword} does not list the source images")


def _check_segments(dataset: Dataset, expected: Expected, uids: ResultUIDs) -> None:
    items = list(dataset.SegmentSequence)
    if expected.form.type == "LABELMAP":
        background = items.pop(0)
        expected.require(background.SegmentNumber == 0, "the background has a number")
    expected.require(
        [item.SegmentNumber for item in items] == list(range(1, len(expected.segments) + 1)),
        "the segment numbers are not 1, 2, …",
    )
    for item, segment in zip(items, expected.segments, strict=True):
        name = f"segment {item.SegmentNumber}"
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        category = item.SegmentedPropertyCategoryCodeSequence[0]
        sides = [code.CodeValue for code in kind.get("SegmentedPropertyTypeModifierCodeSequence") or []]
        expected.require(item.SegmentLabel == segment.label, f"{name} has another label")
        expected.require(item.get("SegmentAlgorithmType") == "AUTOMATIC", f"{name} does not say that a machine made it")
        expected.require(
            (kind.CodeValue, kind.CodingSchemeDesignator) == (segment.type.value, segment.type.scheme),
            f"{name} has another type",
        )
        expected.require(
            (category.CodeValue, category.CodingSchemeDesignator) == (segment.category.value, segment.category.scheme),
            f"{name} has another category",
        )
        expected.require(
            sides == ([segment.laterality.value] if segment.laterality else []), f"{name} has another laterality"
        )
        expected.require(item.get("TrackingUID") == uids.tracking(segment.label), f"{name} has another tracking UID")
        colour = tuple(CIELabColor.from_rgb(*segment.colour).value)
        expected.require(tuple(item.RecommendedDisplayCIELabValue) == colour, f"{name} has another colour")


def _check_shared_geometry(dataset: Dataset, expected: Expected, source: Source) -> None:
    plane = source.planes[0]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    expected.require(
        np.allclose(orientation, plane.orientation, atol=SAME_DIRECTION),
        "ImageOrientationPatient is not that of the source",
    )
    expected.require(np.allclose(spacing, plane.spacing, atol=SAME_DIRECTION), "PixelSpacing is not that of the source")
