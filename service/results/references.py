"""References to the source images, and to frames of them where they have several (PS3.3 10.3); and to results."""

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.uid import UID

from service.results.predecessors import Predecessor
from service.results.source import Source
from service.types import ResultObject


def image_references(source: Source, slices: Iterable[int]) -> list[Dataset]:
    """One item for each source image that some slices lie on, with the frames where it has several.

    Parameters
    ----------
    slices
        Indices of planes of the source.
    """
    frames: dict[str, list[int]] = {}
    for index in slices:
        plane = source.planes[index]
        frames.setdefault(plane.sop_instance_uid, []).extend([] if plane.frame is None else [plane.frame])
    items = []
    for uid, numbers in frames.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.first.SOPClassUID, uid
        if numbers:
            item.ReferencedFrameNumber = numbers
        items.append(item)
    return items


def result_reference(entry: ResultObject | Predecessor, source: Source) -> Dataset:
    """A result of the same study, as highdicom wants to be told of what a document refers to or supersedes."""
    data_set = Dataset()
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = source.first.StudyInstanceUID, UID(entry.series_uid)
    data_set.SOPClassUID, data_set.SOPInstanceUID = UID(entry.sop_class_uid), UID(entry.sop_instance_uid)
    return data_set
