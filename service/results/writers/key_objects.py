"""The important images of an analysis: a Key Object Selection Document (PS3.3 A.35.4, PS3.16 TID 2010)."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from engines.types import Volume
from service.results.analysis import Analysis
from service.results.files import keep
from service.results.predecessors import supersedes
from service.results.references import image_references
from service.results.stamp import RESEARCH, general_attributes, observer, stamp
from service.types import ResultObject

PICTURES = ("SC", "HEATMAP")
"""The kinds of results that are images to look at."""
REFERRED_TO = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "ReferencedSeriesSequence")


def has_key_images(analysis: Analysis) -> bool:
    """Something is somewhere in a volume, or the image is one: nothing stands out where nothing was found."""
    return bool(analysis.label_maps or analysis.detected) or not isinstance(analysis.image, Volume)


def write_key_objects(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One document (`service.results.kinds.Writer`)."""
    return [keep("KO", key_objects(analysis, made), folder)]


def key_objects(analysis: Analysis, made: Sequence[ResultObject]) -> hd.ko.KeyObjectSelectionDocument:
    """Refer to the slices that matter, shown as a presentation state draws on them, and to the pictures of the results.

    Parameters
    ----------
    made
        The other result objects of the same analysis.
    """
    source = analysis.source
    headers = {header.SOPInstanceUID: header for header in source.headers}
    references = image_references(source, key_slices(analysis))
    images = [headers[item.ReferencedSOPInstanceUID] for item in references]
    images += [pydicom.dcmread(entry.path, stop_before_pixels=True) for entry in made if entry.kind in PICTURES]
    states = [pydicom.dcmread(entry.path, specific_tags=[*REFERRED_TO]) for entry in made if entry.kind == "GSPS"]
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=images,
        observer_device_context=observer(analysis),
        description=description(analysis),
    )
    shown = [item for item in content[0].ContentSequence if item.ValueType == "IMAGE"]
    for item, reference in zip(shown, references, strict=False):
        if "ReferencedFrameNumber" in reference:
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = reference.ReferencedFrameNumber
        if drawn_by := _drawn_by(states, reference.ReferencedSOPInstanceUID):
            item.ReferencedSOPSequence[0].ReferencedSOPSequence = [drawn_by]
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=[*images, *states],
        content=content,
        **general_attributes(analysis, "KO"),
    )
    stamp(document, analysis)
    return document


def key_slices(analysis: Analysis) -> list[int]:
    """The slices where a segment is largest, a diameter ends or a detection has its middle; an X-ray has one."""
    if not isinstance(analysis.image, Volume):
        return [0]
    chosen = {
        int(label_map.counts[:, segment.number].argmax())
        for label_map in analysis.label_maps
        for segment in label_map.present
    }
    chosen |= {found.middle for found in analysis.detected}
    for entry in analysis.findings.measurements:
        chosen |= {round(point[0]) for point in entry.points}
    return sorted(chosen)


def description(analysis: Analysis) -> str:
    """Why these images, for the reader."""
    model = analysis.findings.model
    why = _why(analysis) if len(analysis.source.planes) > 1 else ""
    earlier = supersedes("selection", analysis.predecessors)
    return " ".join(text for text in (f"{RESEARCH}. {model.name} {model.version}.", why, *earlier) if text)


def _why(analysis: Analysis) -> str:
    parts = ["each segment is largest, or a diameter ends"] if analysis.findings.label_maps else []
    parts += ["each detection has its middle"] if analysis.detected else []
    return f"The slices where {', or '.join(parts)}."


def _drawn_by(states: Sequence[Dataset], uid: str) -> Dataset | None:
    """Reference to the presentation state for an image: the first, where frames have several."""
    for state in states:
        images = state.ReferencedSeriesSequence[0].ReferencedImageSequence
        if any(image.ReferencedSOPInstanceUID == uid for image in images):
            item = Dataset()
            item.ReferencedSOPClassUID = GrayscaleSoftcopyPresentationStateStorage
            item.ReferencedSOPInstanceUID = state.SOPInstanceUID
            return item
    return None
