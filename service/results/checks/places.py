"""Which images and frames a result refers to."""

import numpy as np
from pydicom import Dataset

from service.results.checks.mismatch import require
from service.results.source import Source

Place = tuple[str, int | None]
"""SOP Instance UID, and frame number in a multi-frame image."""


def planes_of(source: Source) -> list[Place]:
    """The image, and the frame where it has several, of each slice."""
    return [(plane.sop_instance_uid, plane.frame) for plane in source.planes]


def image_places(item: Dataset, source: Source, kind: str) -> list[Place]:
    """The source images or frames that a reference of a result of some kind is to."""
    require(item.ReferencedSOPClassUID == source.first.SOPClassUID, kind, "it refers to images of another class")
    return places_of(item)


def places_of(item: Dataset) -> list[Place]:
    """The instances or frames that a reference is to."""
    frames = item.get("ReferencedFrameNumber")
    numbers = [None] if frames is None else [int(frame) for frame in np.atleast_1d(frames)]
    return [(str(item.ReferencedSOPInstanceUID), number) for number in numbers]
