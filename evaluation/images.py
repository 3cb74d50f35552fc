"""Images and masks in files that are no DICOM: pictures (PNG, JPEG, TIFF, BMP) and volumes (NIfTI, NRRD, MetaImage)."""

import gzip
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageOps

from engines.types import Affine, Radiograph, Volume
from evaluation.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""What Pillow may take a file for, whatever its name: its other formats are for other things than X-rays."""

MOST_PIXELS = 100_000_000
"""Of a picture; the largest detectors have 20 million. More is a file that wants to fill the memory."""
MOST_VOXELS = 1_500_000_000
"""Of a volume: 5000 slices of 512 × 512."""

CHUNK = 1 << 24

SAME_SCALE = 1e-2
"""How far the two spacings that a NIfTI states may be apart, as a part of them."""
SAME_PLACE_MM = 0.1
"""How far the outermost voxels of a mask and its image may be apart."""


def is_picture(file: Path) -> bool:
    """Tell a picture by its name."""
    return file.name.lower().endswith(PICTURES)


def is_volume(file: Path) -> bool:
    """Tell a volume by its name."""
    return file.name.lower().endswith(VOLUMES)


def read_radiograph(file: Path) -> Radiograph:
    """Read a picture as an X-ray of unknown spacing, bone bright as it is.

    Raises
    ------
    DataError
        There is no such file, or it is not such a picture.
    """
    return Radiograph(_picture(file).astype(np.float32), None, file.name)


def read_picture_mask(file: Path) -> NDArray[Any]:
    """Read the values of a mask ``[row, column]``; those of a JPEG, which blurs edges, as 0 and 1.

    Where a palette gives the values colours, it is the values that count, not how bright their colours are.

    Raises
    ------
    DataError
        See `read_radiograph`.
    """
    values = _picture(file, colours=False)
    blurred = file.suffix.lower() in (".jpg", ".jpeg")
    return (values > 127).astype(np.uint8) if blurred else values


def read_volume(file: Path) -> Volume:
    """Read a CT in HU with its geometry.

    Raises
    ------
    DataError
        There is no such file, or it is no volume.
    """
    image = _volume(file)
    array = sitk.GetArrayFromImage(image)
    whole = array.dtype.kind in "iu" and (array.size == 0 or (array.min() >= -32768 and array.max() <= 32767))
    array = array.astype(np.int16 if whole else np.float32, copy=False)
    return Volume(array, affine_of(image), tuple(f"{file.name}#{index}" for index in range(len(array))))


def read_volume_mask(file: Path, volume: Volume) -> NDArray[Any]:
    """Read the values of a mask ``[slice, row, column]`` whose voxels are those of a volume.

    Their order may be another one: what writes NIfTI often turns the axes of the DICOM series that it is about.

    Raises
    ------
    DataError
        See `read_volume`; or it lies on another grid.
    """
    image = _volume(file)
    values: NDArray[Any] = sitk.GetArrayFromImage(image)
    turned = _turned(values, affine_of(image), volume)
    if turned is None:
        raise DataError(
            f"{file.name} with {_by(values)} voxels lies on another grid than its image with {_by(volume.array)}; "
            "resample it to the image's"
        )
    return turned


def _turned(values: NDArray[Any], affine: Affine, volume: Volume) -> NDArray[Any] | None:
    """Values in the order of a volume's axes; None where they are not its voxels."""
    to_mask = np.linalg.inv(affine) @ volume.affine
    axes = np.abs(to_mask[:3, :3]).argmax(axis=0)  # of the mask, for each of the volume's
    if sorted(axes) != [0, 1, 2] or tuple(values.shape[axis] for axis in axes) != volume.array.shape:
        return None
    last = np.array(volume.array.shape) - 1
    ends = np.array([*np.diag(last), np.zeros(3, int)])  # the last voxel along each axis, and the first voxel
    places = ends.astype(np.float64)
    if volume.at is not None:
        places[:, 0] = np.array(volume.at)[ends[:, 0]]
    backwards = [bool(to_mask[axis, own] < 0) for own, axis in enumerate(axes)]
    expected = np.zeros((4, 3))
    expected[:, axes] = np.where(backwards, last - ends, ends)
    if np.abs(_moved(places, volume.affine) - _moved(expected, affine)).max() > SAME_PLACE_MM:
        return None
    turned: NDArray[Any] = values.transpose(axes)
    return turned[tuple(slice(None, None, -1 if back else 1) for back in backwards)]


def _moved(points: NDArray[np.float64], affine: Affine) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return moved


def affine_of(image: sitk.Image) -> Affine:
    """Give the matrix from array index to LPS millimetres of a SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return affine


def _picture(file: Path, colours: bool = True) -> NDArray[Any]:
    _require(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Picture.DecompressionBombWarning)  # it has a limit of its own, below
            with Picture.open(file, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise DataError(f"{file.name} has {picture.width} × {picture.height} pixels; that is no X-ray")
                upright = ImageOps.exif_transpose(picture)
                deep = upright.mode in ("I", "F") or upright.mode.startswith("I;")
                numbers = not colours and _has_coloured_palette(upright)
                return np.array(upright if deep or numbers else upright.convert("L"))
    except (OSError, ValueError, SyntaxError, Picture.DecompressionBombError, EOFError) as error:
        raise DataError(f"{file.name} is no picture that can be read ({type(error).__name__}); replace it") from error


def _has_coloured_palette(picture: Picture.Image) -> bool:
    """Tell a palette that gives labels colours from one that is a scale of grey, in any order."""
    palette = np.array(picture.getpalette() or [0, 0, 0]).reshape(-1, 3)
    return picture.mode == "P" and bool((palette != palette[:, :1]).any())


def _volume(file: Path) -> sitk.Image:
    _require(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            raise DataError(f"{file.name} is no volume of one value a voxel; convert it")
        if np.prod(np.array(reader.GetSize(), dtype=np.float64)) > MOST_VOXELS:
            raise DataError(f"{file.name} has {' × '.join(map(str, reader.GetSize()))} voxels; that is no CT")
        if file.name.lower().endswith((".nii", ".nii.gz")):
            _require_sound_nifti(file, reader)
        image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise DataError(f"{file.name} is no volume that can be read; replace it") from error
    return image


def _require_sound_nifti(file: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse what ITK would read wrongly without a word.

    It fills what was cut off with zeros, which are water; takes ``pixdim`` for the spacing, whatever the sform says;
    where neither sform nor qform is valid, guesses which side is left; and for ``a.nii.gz`` gives the voxels of an
    ``a.nii`` beside it.
    """
    if file.name.endswith(".gz") and file.with_suffix("").exists():
        raise DataError(f"{file.name} lies beside a file of the same name without .gz; remove or rename one of them")
    told = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    bits = float(np.prod(np.array(reader.GetSize(), dtype=np.float64))) * int(told["bitpix"])
    if _length(file) < float(told["vox_offset"]) + bits / 8:
        raise DataError(f"{file.name} ends before its last voxel; copy it again")
    if int(told["sform_code"]) <= 0 and int(told["qform_code"]) <= 0:
        raise DataError(f"{file.name} does not say how it lies in the patient (sform and qform are 0); convert it anew")
    if int(told["sform_code"]) > 0 and int(told["qform_code"]) <= 0:
        rows = np.array([told[f"srow_{axis}"].split()[:3] for axis in "xyz"], np.float64)
        if not np.allclose(np.linalg.norm(rows, axis=0), reader.GetSpacing(), rtol=SAME_SCALE):
            raise DataError(f"{file.name} states two spacings, in pixdim and in its sform; correct it")


def _length(file: Path) -> int:
    """Bytes, unpacked."""
    if not file.name.lower().endswith(".gz"):
        return file.stat().st_size
    try:
        with gzip.open(file) as content:
            return sum(map(len, iter(lambda: content.read(CHUNK), b"")))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file.name} cannot be unpacked ({type(error).__name__}); copy it again") from error


def _require(file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{file.name} is missing; put it in its place or remove the row")


def _by(array: NDArray[Any]) -> str:
    return " × ".join(map(str, array.shape))
