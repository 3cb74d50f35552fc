"""A single-frame CT series as one Enhanced CT image (PS3.3 A.38): the same pixels, the same places."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from tests.synthetic_ct import decimal, save

MOVED = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
}
"""Attributes of each image that go to functional groups of each frame."""
DROPPED = ("InstanceNumber", "SliceLocation", "WindowCenter", "WindowWidth", "AcquisitionNumber", "PixelData")


def as_enhanced(files: Sequence[Path], path: Path, syntax: UID | None = None) -> Path:
    """Write one Enhanced CT with a frame for each file, in the order of the files.

    Parameters
    ----------
    syntax
        Transfer syntax of the frames, None to keep the code streams as they are.
    """
    images = [pydicom.dcmread(file) for file in files]
    result = pydicom.dcmread(files[0], stop_before_pixels=True)
    result.file_meta.clear()
    for keyword in (*DROPPED, *(each for group in MOVED.values() for each in group)):
        if keyword in result:
            del result[keyword]
    result.SOPClassUID, result.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    result.StudyInstanceUID, result.SeriesInstanceUID = generate_uid(), generate_uid()
    result.InstanceNumber, result.NumberOfFrames = 1, len(images)
    result.SharedFunctionalGroupsSequence = [Dataset()]
    result.PerFrameFunctionalGroupsSequence = [_groups(image, number) for number, image in enumerate(images, 1)]
    stored = images[0].file_meta.TransferSyntaxUID
    if syntax is None and stored.is_encapsulated:
        frames = [next(generate_frames(image.PixelData, number_of_frames=1)) for image in images]
        result.PixelData = encapsulate(frames)
        result["PixelData"].VR = "OB"
        save(result, path, stored)
        return path
    result.PixelData = b"".join(np.ascontiguousarray(image.pixel_array).tobytes() for image in images)
    result["PixelData"].VR = "OW"
    save(result, path)
    if syntax == RLELossless:
        result = pydicom.dcmread(path)
        result.compress(RLELossless, generate_instance_uid=False)
        result.save_as(path)
    else:
        assert syntax in (None, ExplicitVRLittleEndian)
    return path


def _groups(image: Dataset, number: int) -> Dataset:
    groups, content = Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber = "1", number
    groups.FrameContentSequence = [content]
    for sequence, keywords in MOVED.items():
        macro = Dataset()
        for keyword in keywords:
            value = image[keyword].value
            setattr(macro, keyword, decimal(value) if image[keyword].VM > 1 else str(value))
        setattr(groups, sequence, [macro])
    return groups
