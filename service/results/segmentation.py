"""A label map becomes a BINARY Segmentation object (PS3.3 A.51)."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from engines.types import Code, Findings, Radiograph, Segment
from service.results.analysis import Analysis
from service.results.files import keep
from service.results.predecessors import supersedes
from service.results.source import Source
from service.results.stamp import (
    MANUFACTURER,
    RESEARCH,
    contributing_equipment,
    series_description,
    series_number,
    software_versions,
    stamp,
)
from service.results.uids import ResultUIDs
from service.types import ResultObject


def coded(code: Code) -> CodedConcept:
    """The same concept as a code sequence item (PS3.3 8.8)."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def tracking_identifier(findings: Findings, label: str) -> str:
    """What a reader sees a finding followed under; the tracking UID is the unique one."""
    return f"{findings.model.name} {label}"[:64]


def write_segmentations(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One SEG for each label map that has a segment with a voxel (`service.results.kinds.Writer`)."""
    parts = range(1, len(analysis.label_maps) + 1)
    return [keep("SEG", segmentation(analysis, part), folder) for part in parts]


def segmentation(analysis: Analysis, part: int = 1) -> hd.seg.Segmentation:
    """Encode the segments of a label map that have a voxel.

    Segments are numbered from 1 without a gap (PS3.3 C.8.20.4), so their numbers can differ from those in the label
    map; `LabelMap.present` is in their order. Frames without a voxel of their segment are left out. An X-ray's frame
    lies in a frame of reference of its own. A SEG has no place to name what it supersedes, so its description and
    comments say that it does.

    Parameters
    ----------
    part
        Which of ``analysis.label_maps``, counted from 1.
    """
    findings, source, uids = analysis.findings, analysis.source, analysis.uids
    label_map = analysis.label_maps[part - 1]
    present = label_map.present
    result = hd.seg.Segmentation(
        source_images=source.headers,
        pixel_array=_renumbered(label_map.array, present),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(segment, number, findings, uids) for number, segment in enumerate(present, start=1)
        ],
        series_instance_uid=uids.series("SEG", part),
        series_number=series_number(findings, "SEG"),
        sop_instance_uid=uids.instance("SEG", part),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=findings.model.name,
        software_versions=software_versions(findings),  # type: ignore[arg-type]  # highdicom takes any length
        device_serial_number=findings.model.digest[:64],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="RESEARCH",
        content_description=f"{RESEARCH}: {findings.model.name} {findings.model.version}"[:64],
        series_description=series_description(analysis, "SEG"),
        contributing_equipment=[contributing_equipment(findings)],
        specific_character_set=None,
        omit_empty_frames=True,
    )
    notes = [RESEARCH, findings.model.intended_use, *supersedes("segmentation", analysis.predecessors), *findings.notes]
    if isinstance(analysis.image, Radiograph) and analysis.image.spacing is None:
        notes.append(
            "The pixel spacing of the image is unknown; the 1 mm stated here is nominal, do not measure with it"
        )
    result.ImageComments = ". ".join(note.rstrip(".") for note in notes) + "."
    _refer_to_frames(result, source)
    _set_dimension_organization(result, uids.dimension_organization(part))
    stamp(result, analysis)
    return result


def _renumbered(labels: NDArray[np.uint8], present: Sequence[Segment]) -> NDArray[np.uint8]:
    numbers = np.zeros(256, np.uint8)
    for number, segment in enumerate(present, start=1):
        numbers[segment.number] = number
    return numbers[labels]


def _refer_to_frames(dataset: hd.seg.Segmentation, source: Source) -> None:
    """Refer to the frames by their numbers in the source image; `Source.headers` hold only those that were used."""
    if source.planes[0].frame is None:
        return
    images = {
        id(image): image  # frames of several segments share one
        for group in dataset.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for image in derivation.SourceImageSequence
    }
    for image in images.values():
        image.ReferencedFrameNumber = source.planes[image.ReferencedFrameNumber - 1].frame


def _description(segment: Segment, number: int, findings: Findings, uids: ResultUIDs) -> SegmentDescription:
    model = findings.model
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name, family=codes.cid7162.ArtificialIntelligence, version=model.version, source=MANUFACTURER
        ),
        tracking_uid=uids.tracking(segment.label),
        tracking_id=tracking_identifier(findings, segment.label),
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality:
        type_item = description.SegmentedPropertyTypeCodeSequence[0]
        type_item.SegmentedPropertyTypeModifierCodeSequence = [coded(segment.laterality)]
    return description


def _set_dimension_organization(dataset: hd.seg.Segmentation, uid: str) -> None:
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
