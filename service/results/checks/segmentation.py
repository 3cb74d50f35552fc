"""Is this SEG the label map, in the place of its source images?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from engines.types import LabelMap, Segment
from service.results.analysis import Analysis
from service.results.checks.mismatch import require
from service.results.source import SAME_DIRECTION, SAME_PLACE_MM, Plane, Source
from service.results.uids import ResultUIDs
from service.types import ResultObject


def check_segmentation(datasets: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare decoded BINARY SEGs with the label maps and the source (`service.results.kinds.Check`)."""
    _require(len(datasets) == len(analysis.label_maps), "there is not one SEG for each label map")
    for part, (dataset, label_map) in enumerate(zip(datasets, analysis.label_maps, strict=True), start=1):
        _check_one(dataset, label_map, part, analysis)


def _check_one(dataset: Dataset, label_map: LabelMap, part: int, analysis: Analysis) -> None:
    image, source, uids = analysis.image, analysis.source, analysis.uids
    _require(dataset.SOPClassUID == SegmentationStorage, "SOPClassUID is not the expected one")
    _require(dataset.SOPInstanceUID == uids.instance("SEG", part), "SOPInstanceUID is not the expected one")
    _require(dataset.SeriesInstanceUID == uids.series("SEG", part), "SeriesInstanceUID is not the expected one")
    _require(dataset.Modality == "SEG", "Modality is not SEG")
    _require(
        dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian,
        "the transfer syntax is not Explicit VR Little Endian",
    )
    _require(dataset.get("SegmentationType") == "BINARY", "SegmentationType is not BINARY")
    _require(dataset.get("ContentLabel") == "RESEARCH", "ContentLabel is not RESEARCH")
    _require(
        dataset.get("FrameOfReferenceUID") == source.frame_of_reference_uid,
        "FrameOfReferenceUID is not that of the source",
    )
    _require((dataset.Rows, dataset.Columns) == image.array.shape[-2:], "rows and columns are not those of the source")
    _check_references(dataset, source)
    present = label_map.present
    _check_segments(dataset, present, uids)
    _check_shared_geometry(dataset, source)
    _check_frames(dataset, label_map.array, present, source)


def _require(holds: bool, difference: str) -> None:
    require(holds, "SEG", difference)


def _check_references(dataset: Dataset, source: Source) -> None:
    series = dataset.get("ReferencedSeriesSequence") or []
    _require(
        [item.SeriesInstanceUID for item in series] == [source.first.SeriesInstanceUID],
        "ReferencedSeriesSequence is not the source series",
    )
    referenced = {item.ReferencedSOPInstanceUID for item in series[0].ReferencedInstanceSequence}
    _require(
        referenced == {header.SOPInstanceUID for header in source.headers},
        "ReferencedSeriesSequence does not list the source images",
    )


def _check_segments(dataset: Dataset, present: Sequence[Segment], uids: ResultUIDs) -> None:
    items = dataset.SegmentSequence
    _require(
        [item.SegmentNumber for item in items] == list(range(1, len(present) + 1)),
        "the segment numbers are not 1, 2, …",
    )
    for item, segment in zip(items, present, strict=True):
        name = f"segment {item.SegmentNumber}"
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        category = item.SegmentedPropertyCategoryCodeSequence[0]
        sides = [code.CodeValue for code in kind.get("SegmentedPropertyTypeModifierCodeSequence") or []]
        _require(item.SegmentLabel == segment.label, f"{name} has another label")
        _require(
            (kind.CodeValue, kind.CodingSchemeDesignator) == (segment.type.value, segment.type.scheme),
            f"{name} has another type",
        )
        _require(
            (category.CodeValue, category.CodingSchemeDesignator) == (segment.category.value, segment.category.scheme),
            f"{name} has another category",
        )
        _require(sides == ([segment.laterality.value] if segment.laterality else []), f"{name} has another laterality")
        _require(item.get("TrackingUID") == uids.tracking(segment.label), f"{name} has another tracking UID")


def _check_shared_geometry(dataset: Dataset, source: Source) -> None:
    plane = source.planes[0]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    _require(
        np.allclose(orientation, plane.orientation, atol=SAME_DIRECTION),
        "ImageOrientationPatient is not that of the source",
    )
    _require(np.allclose(spacing, plane.spacing, atol=SAME_DIRECTION), "PixelSpacing is not that of the source")


def _check_frames(dataset: Dataset, array: NDArray[np.uint8], present: Sequence[Segment], source: Source) -> None:
    """Every frame lies where its source lies and shows its voxels; every voxel is in a frame."""
    slices = {(plane.sop_instance_uid, plane.frame): index for index, plane in enumerate(source.planes)}
    labels = array.reshape(-1, dataset.Rows, dataset.Columns)
    groups = dataset.PerFrameFunctionalGroupsSequence
    _require(len(groups) == int(dataset.NumberOfFrames), "NumberOfFrames is not the number of frames described")
    bits = _bits(dataset)
    seen = set()
    for number, group in enumerate(groups, start=1):
        segment_number = _segment_number(dataset, group)
        _require(1 <= segment_number <= len(present), f"frame {number} is of a segment that does not exist")
        index = slices.get(_source_of(group, number))
        if index is None:
            _require(False, f"frame {number} refers to an image that is not in the source")
            return
        _require((segment_number, index) not in seen, f"frame {number} is there twice")
        seen.add((segment_number, index))
        _check_position(group, source.planes[index], number)
        pixels = bits[number - 1]
        expected = labels[index] == present[segment_number - 1].number
        _require(bool(np.array_equal(pixels, expected)), f"frame {number} does not show the voxels that were found")
    for segment_number, segment in enumerate(present, start=1):
        occupied = np.flatnonzero((labels == segment.number).any(axis=(1, 2)))
        missing = {(segment_number, int(index)) for index in occupied} - seen
        _require(not missing, f"{len(missing)} frames of segment {segment_number} are missing")


def _segment_number(dataset: Dataset, group: Dataset) -> int:
    # a SEG of one segment may say so once for all frames
    for item in (group, dataset.SharedFunctionalGroupsSequence[0]):
        if "SegmentIdentificationSequence" in item:
            return int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 0


def _source_of(group: Dataset, number: int) -> tuple[str, int | None]:
    derivations = group.get("DerivationImageSequence") or []
    images = [item for derivation in derivations for item in derivation.SourceImageSequence]
    _require(len(images) == 1, f"frame {number} refers to {len(images)} source images instead of one")
    frame = images[0].get("ReferencedFrameNumber")
    return str(images[0].ReferencedSOPInstanceUID), None if frame is None else int(frame)


def _check_position(group: Dataset, plane: Plane, number: int) -> None:
    position = group.PlanePositionSequence[0].ImagePositionPatient
    same = np.allclose(position, plane.position, atol=SAME_PLACE_MM)
    _require(bool(same), f"ImagePositionPatient of frame {number} is not that of its source image")


def _bits(dataset: Dataset) -> NDArray[np.bool_]:
    """All frames, ``[frame, row, column]``; frames follow each other without padding (PS3.5 8.2)."""
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    count = int(np.prod(shape))
    stored = np.frombuffer(dataset.PixelData, np.uint8)
    _require(stored.size == (count + 15) // 16 * 2, "the pixel data have the wrong length")
    return np.unpackbits(stored, count=count, bitorder="little").view(bool).reshape(shape)
