"""What the integration tests share."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid

WrapAsDX = Callable[[Path, Path], Path]


@pytest.fixture(scope="session")
def wrap_as_dx(phantom_xray: Path) -> WrapAsDX:
    """A function that makes a DX file of a JPEG of a chest X-ray: the phantom's header around other pixels."""
    [template] = phantom_xray.glob("*.dcm")

    def wrap(jpeg: Path, target: Path) -> Path:
        pixels = np.asarray(Image.open(jpeg).convert("L"), "<u2") << 4
        image = pydicom.dcmread(template)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (generate_uid() for _ in range(3))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.PatientID, image.PatientName = f"CXR-{jpeg.stem[:20]}", "CHEST^XRAY"
        image.Rows, image.Columns = pixels.shape
        image.PixelData = pixels.tobytes()
        image.save_as(target)
        return target

    return wrap


@pytest.fixture(scope="session")
def real_xrays(shared_data: Path) -> dict[str, Path]:
    """One real chest X-ray (JPEG) of each class, none of which a model was trained on."""
    folder = shared_data / "cxr"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return {row["class"]: folder / "images" / row["file"] for row in reversed(rows)}
