"""All of a Segmentation object but its frames, built and validated by highdicom (PS3.3 A.51)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence_item
from pydicom.uid import ExplicitVRLittleEndian

from service.results.analysis import Analysis
from service.results.remarks import in_sentences
from service.results.source import Source
from service.results.stamp import RESEARCH, general_attributes, stamp
from service.results.writers.segmentation_frames import Frames


@dataclass(frozen=True, eq=False)
class Structure:
    """A Segmentation object without its frames.

    Attributes
    ----------
    dataset
        All attributes but number of frames, per-frame functional groups and pixel data.
    groups
        The functional groups of a frame of each slice that has any, as an encoded item (Explicit VR Little Endian) of
        the first segment. Slices are counted from 0 and in the order in which their frames must be stored.
    """

    dataset: Dataset
    groups: Mapping[int, bytes]


def structure(
    analysis: Analysis,
    kind: str,
    part: int,
    frames: Frames,
    descriptions: Sequence[SegmentDescription],
    statements: Sequence[str],
) -> Structure:
    """Describe a Segmentation object.

    highdicom is given a stand-in of one pixel for each slice, which is filled where the slice has a frame. From that it
    makes everything but the pixels: references to the source, positions, dimensions, order of frames.

    Parameters
    ----------
    kind, part
        What series and object it is (`service.results.uids.ResultUIDs`).
    frames
        What it shows.
    descriptions
        Of the segments, numbered from 1.
    statements
        What it says to its reader.
    """
    source, model = analysis.source, analysis.findings.model
    dataset = hd.seg.Segmentation(
        source_images=[_one_pixel(header) for header in source.headers],
        pixel_array=_stand_in(frames),
        segmentation_type=frames.type,
        # highdicom goes through all pairs of segment and slice; two segments show it what any number would
        segment_descriptions=descriptions if frames.type == "LABELMAP" else descriptions[:2],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="RESEARCH",
        content_description=f"{RESEARCH}: {model.name} {model.version}"[:64],
        omit_empty_frames=True,
        **general_attributes(analysis, kind, part),
    )
    if frames.type != "LABELMAP":  # which has a background, too
        dataset.SegmentSequence = list(descriptions)
    dataset.Rows, dataset.Columns = frames.shape
    dataset.ContentCreatorName = ""  # type 2 (PS3.3 10.9), which highdicom leaves out
    dataset.ImageComments = in_sentences(statements)[:10240]
    slices = {plane.sop_instance_uid: index for index, plane in enumerate(source.planes)}
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = analysis.uids.dimension_organization(kind, part)
    groups = {_slice_of(item, slices): _encoded(item, source) for item in dataset.PerFrameFunctionalGroupsSequence}
    for frame_by_frame in ("NumberOfFrames", "PerFrameFunctionalGroupsSequence", "PixelData"):
        del dataset[frame_by_frame]
    stamp(dataset, analysis)
    return Structure(dataset, groups)


def _one_pixel(header: Dataset) -> Dataset:
    one_pixel = Dataset()
    one_pixel.update(header)
    for keyword in ("Rows", "Columns"):  # new elements: the others are those of the header itself
        one_pixel.add_new(keyword, "US", 1)
    return one_pixel


def _stand_in(frames: Frames) -> NDArray[np.uint8] | NDArray[np.float32]:
    slices = frames.present.any(axis=0).reshape(-1, 1, 1)
    if frames.type != "FRACTIONAL":
        return slices.astype(np.uint8)
    # all of it in the first of the segments
    of_segments = np.zeros((*slices.shape, min(len(frames.present), 2)), np.float32)
    of_segments[..., 0] = slices
    return of_segments


def _slice_of(item: Dataset, slices: Mapping[str, int]) -> int:
    image = item.DerivationImageSequence[0].SourceImageSequence[0]
    if "ReferencedFrameNumber" in image:
        # of the source's frames highdicom was given those that were used, in the order of the slices
        return int(image.ReferencedFrameNumber) - 1
    return slices[str(image.ReferencedSOPInstanceUID)]


def _encoded(item: Dataset, source: Source) -> bytes:
    image = item.DerivationImageSequence[0].SourceImageSequence[0]
    if "ReferencedFrameNumber" in image:
        image.ReferencedFrameNumber = source.planes[image.ReferencedFrameNumber - 1].frame
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, False
    write_sequence_item(written, item, ["iso8859"])
    return bytes(written.getvalue())
