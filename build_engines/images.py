"""Images from files: what SimpleITK reads (NIfTI, MHA, NRRD, DICOM) and pictures, as the rooms speak of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image as Picture

from engines.errors import PermanentError
from engines.types import Image, Radiograph, Volume

PICTURES = (".jpeg", ".jpg", ".png")
ENDINGS = (*PICTURES, ".dcm", ".mha", ".mhd", ".nii", ".nii.gz", ".nrrd")

INVERSE = "MONOCHROME1"
"""Photometric interpretation of an X-ray whose larger values are darker (PS3.3 C.7.6.3.1.2)."""


def find_images(paths: Iterable[Path]) -> list[tuple[str, ...]]:
    """Find the images in files and folders.

    Parameters
    ----------
    paths
        Files, each an image; folders, whose DICOM series are an image each and whose other files with a known ending
        are too.

    Returns
    -------
    list of tuple of str
        The files of each image, in order.

    Raises
    ------
    PermanentError
        A path does not exist, or holds no image.
    """
    found: list[tuple[str, ...]] = []
    for path in paths:
        if not path.exists():
            raise PermanentError(f"{path} does not exist; name files or folders of images")
        inside = _in_folder(path) if path.is_dir() else [(str(path),)]
        if not inside:
            raise PermanentError(f"{path} holds no DICOM series and no file that ends in {', '.join(ENDINGS)}")
        found += inside
    return found


def _in_folder(folder: Path) -> list[tuple[str, ...]]:
    files = sorted(each for each in folder.iterdir() if each.name.lower().endswith(ENDINGS))
    quiet = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        identifiers = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        series = [tuple(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), each)) for each in identifiers]
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(quiet)
    in_series = {name for names in series for name in names}
    return [*series, *((str(file),) for file in files if str(file) not in in_series)]


def read_image(files: tuple[str, ...]) -> Image:
    """Read one image.

    Returns
    -------
    Volume or Radiograph
        A volume (its values taken for HU) where there is more than one slice.

    Raises
    ------
    PermanentError
        It cannot be read, or is no grey image of two or three dimensions.
    """
    if files[0].lower().endswith(PICTURES):
        with Picture.open(files[0]) as picture:
            return Radiograph(np.asarray(picture.convert("L"), np.float32), None, "")
    try:
        read = sitk.ReadImage(files[0] if len(files) == 1 else list(files))
    except RuntimeError as error:
        raise PermanentError(f"{files[0]} cannot be read as an image: {str(error).splitlines()[-1]}") from error
    if read.GetNumberOfComponentsPerPixel() != 1 or read.GetDimension() not in (2, 3):
        raise PermanentError(f"{files[0]} is no grey image of two or three dimensions; name others")
    array = sitk.GetArrayFromImage(read)
    if array.ndim == 3 and len(array) > 1:
        affine = np.eye(4)
        affine[:3, :3] = (np.array(read.GetDirection()).reshape(3, 3) * read.GetSpacing())[:, ::-1]
        affine[:3, 3] = read.GetOrigin()
        values = array if array.dtype == np.int16 else array.astype(np.float32)
        return Volume(values, affine, tuple(str(number) for number in range(len(array))))
    pixels = array.reshape(array.shape[-2:]).astype(np.float32)
    if read.HasMetaDataKey("0028|0004") and read.GetMetaData("0028|0004").strip() == INVERSE:
        pixels = pixels.max() - pixels
    column, row = read.GetSpacing()[:2]
    return Radiograph(pixels, (row, column), "")
