"""One CT slice in a file, with whatever its header should say."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from tests.synthetic_ct import AXIAL, Scan, decimal, save

VALUES = np.arange(24, dtype=np.uint16).reshape(4, 6)


def ct_slice(
    path: Path, values: NDArray[np.generic] = VALUES, z: float = 0.0, number: int | None = 1, **attributes: object
) -> Path:
    """Write a slice.

    Parameters
    ----------
    path
        The file; its name is the last component of the SOP Instance UID.
    values
        Stored values.
    z
        Position along the normal in mm.
    **attributes
        Put into the header; bytes are written as they are, an attribute that is None is left out.
    """
    rows, columns = values.shape
    header = Scan(places=(z,), shape=(rows, columns), origin=(0.0, 0.0, 0.0)).header("1.2.3", "1.2.3.4")
    header.SOPClassUID = uid.CTImageStorage
    header.SOPInstanceUID = f"1.2.3.4.{int.from_bytes(path.stem.encode(), 'big') % 10**20}"
    if number is not None:
        header.InstanceNumber = number
    orientation = attributes.get("ImageOrientationPatient")
    axes = orientation if isinstance(orientation, tuple) else AXIAL
    header.ImagePositionPatient = decimal(np.cross(axes[:3], axes[3:]) * z)
    header.ImageOrientationPatient, header.PixelSpacing = decimal(axes), ["1", "1"]
    header.RescaleSlope, header.RescaleIntercept = "1", "0"
    size = values.dtype.itemsize * 8
    header.BitsAllocated, header.BitsStored, header.HighBit = size, size, size - 1
    header.PixelRepresentation = int(values.dtype.kind == "i")
    header.PixelData = values.tobytes()
    header["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        _put(header, keyword, value)
    save(header, path)
    return path


def _put(header: Dataset, keyword: str, value: object) -> None:
    if value is None:
        header.pop(keyword, None)
    elif isinstance(value, tuple):
        setattr(header, keyword, decimal(value))
    elif isinstance(value, bytes) and keyword != "PixelData":
        tag = Tag(keyword)
        padded = value + b" " * (len(value) % 2)
        header[tag] = RawDataElement(tag, dictionary_VR(tag).split()[0], len(padded), padded, 0, False, True)
    else:
        setattr(header, keyword, value)
