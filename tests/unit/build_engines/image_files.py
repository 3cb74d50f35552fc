"""Image files that the tests of calibration read."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, path)
    return path


def write_dicom_series(folder: Path, array: np.ndarray, spacing: float) -> None:
    folder.mkdir()
    for number, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels[None])
        image.SetSpacing((spacing, spacing, spacing))
        image.SetOrigin((0.0, 0.0, number * spacing))
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0060": "CT",
            "0020|000d": "2.25.1",
            "0020|000e": "2.25.2",
            "0020|0013": str(number + 1),
            "0020|0032": f"0\\0\\{number * spacing}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{number:03}.dcm"))
        writer.Execute(image)
