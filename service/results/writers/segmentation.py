"""Label maps become Segmentation objects (PS3.3 A.51), in the form that an archive takes.

What it shows is drawn by `service.results.writers.segmentation_frames`, what it says of that is described by
`service.results.writers.segmentation_structure`, and both become a file in `service.results.writers.segmentation_file`.
"""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from pydicom.sr.codedict import codes

from engines.types import Findings, LabelMap, Radiograph, Segment
from service.results.analysis import Analysis
from service.results.coding import coded
from service.results.files import keep
from service.results.profile import Kind, SegmentationForm
from service.results.remarks import told
from service.results.storage import storage
from service.results.uids import MANUFACTURER, ResultUIDs
from service.results.writers.segmentation_file import write_segmentation
from service.results.writers.segmentation_frames import Fractions, Frames, Labels, Masks
from service.results.writers.segmentation_structure import structure
from service.types import ResultObject

NOMINAL_SPACING = "The pixel spacing of the image is unknown; the 1 mm stated here is nominal, do not measure with it"
NO_PROBABILITIES = "The model gives no probabilities of these segments: they are stored as binary masks"


def write_segmentations(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One SEG for each label map that has a segment with a voxel (`service.results.kinds.Writer`).

    Segments are numbered from 1 without a gap (PS3.3 C.8.20.4), so their numbers can differ from those in the label
    map; `LabelMap.present` is in their order. An X-ray's frame lies in a frame of reference of its own. A SEG has no
    place to name what it supersedes, so its description and comments say that it does.
    """
    form = analysis.profile.segmentation
    objects = []
    for part, label_map in enumerate(analysis.label_maps, start=1):
        frames = frames_of(label_map, form)
        notes = [NO_PROBABILITIES] if form == "fractional" and frames.type != "FRACTIONAL" else []
        objects.append(write_frames(analysis, "SEG", part, frames, label_map.present, notes, folder))
    return objects


def frames_of(label_map: LabelMap, form: SegmentationForm) -> Frames:
    """What a label map is stored as; without probabilities of all that is there, as masks instead of fractions."""
    present = label_map.present
    if form == "fractional" and label_map.probabilities is not None:
        of_segments = zip(label_map.segments, label_map.probabilities, strict=True)
        frames = Fractions(
            tuple(values.reshape(label_map.slices.shape) for segment, values in of_segments if segment in present)
        )
        if frames.present.any(axis=1).all():
            return frames
    if form.startswith("labelmap"):
        return Labels(label_map, present)
    return Masks(label_map, present)


def write_frames(
    analysis: Analysis,
    kind: Kind,
    part: int,
    frames: Frames,
    segments: Sequence[Segment],
    notes: Sequence[str],
    folder: Path,
) -> ResultObject:
    """Write frames as a Segmentation object.

    Parameters
    ----------
    kind, part
        Which object it is of the analysis.
    segments
        What the channels of the frames are, or the values of a label map from 1.
    notes
        What the reader must know of this object.
    """
    findings = analysis.findings
    statements = [*told(analysis, "segmentation"), *notes]
    if isinstance(analysis.image, Radiograph) and analysis.image.spacing is None:
        statements.append(NOMINAL_SPACING)
    descriptions = [
        _description(segment, number, findings, analysis.uids) for number, segment in enumerate(segments, start=1)
    ]
    _, transfer_syntax_uid = storage(kind, analysis.profile)
    described = structure(analysis, kind, part, frames, descriptions, statements)
    return keep(
        kind,
        described.dataset,
        folder,
        lambda file: write_segmentation(file, described, frames, transfer_syntax_uid),
    )


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
        tracking_id=uids.tracking_identifier(segment.label),
        display_color=CIELabColor.from_rgb(*segment.colour),
    )
    if segment.laterality:
        type_item = description.SegmentedPropertyTypeCodeSequence[0]
        type_item.SegmentedPropertyTypeModifierCodeSequence = [coded(segment.laterality)]
    return description
