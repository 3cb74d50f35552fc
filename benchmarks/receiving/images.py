"""What is sent: synthetic images in files, whose UIDs can be made new in place, so that nothing is ever sent twice."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from service.demo.phantom import write_chest_ct, write_chest_xray

ROOT = b"1.2.826.0.1.3680043.10.1."
"""What all UIDs begin with; then come the six digits of the run."""
FIRST_RUN, FIRST_INSTANCE = 100_000, 10_000
CT_SIZE, DX_SIZE = 512, 3000
"""Rows and columns: 0.5 MB and 18 MB."""


@dataclass(frozen=True)
class ImageFile:
    """A file, and where in it the run stands that makes its UIDs its own."""

    path: Path
    runs: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size


def write_ct(folder: Path, images: int, series: int) -> list[ImageFile]:
    """So many slices of one CT series; ``series`` is a number of one digit."""
    with tempfile.TemporaryDirectory() as name:
        template = pydicom.dcmread(sorted(write_chest_ct(Path(name)).iterdir())[0])
    noise = np.random.default_rng(series).integers(-1024, 3000, CT_SIZE * CT_SIZE * 2, dtype=np.int16)
    folder.mkdir(parents=True)
    files = []
    for index in range(images):
        template.ImagePositionPatient[2] = float(index)
        files.append(_write(template, folder, noise[index : index + CT_SIZE * CT_SIZE], CT_SIZE, series, index))
    return files


def write_dx(folder: Path, images: int) -> list[ImageFile]:
    """So many X-rays."""
    with tempfile.TemporaryDirectory() as name:
        template = pydicom.dcmread(next(write_chest_xray(Path(name)).iterdir()))
    noise = np.random.default_rng(1).integers(0, 4096, DX_SIZE * DX_SIZE + images, dtype=np.uint16)
    folder.mkdir(parents=True)
    return [_write(template, folder, noise[index : index + DX_SIZE**2], DX_SIZE, 9, index) for index in range(images)]


def _write(image: Dataset, folder: Path, pixels: np.ndarray, size: int, series: int, index: int) -> ImageFile:
    run = f"{ROOT.decode()}{FIRST_RUN}"
    image.StudyInstanceUID, image.SeriesInstanceUID = run, f"{run}.{series}"
    image.SOPInstanceUID = f"{run}.{series}.{FIRST_INSTANCE + index}"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.InstanceNumber = index + 1
    image.Rows = image.Columns = size
    image.PixelData = pixels.tobytes()
    path = folder / f"{index:05}.dcm"
    image.save_as(path)
    with path.open("rb") as file:
        head, at, runs = file.read(1 << 14), 0, list[int]()
    while (at := head.find(ROOT, at)) >= 0:
        at += len(ROOT)
        runs.append(at)
    return ImageFile(path, tuple(runs))


def renew(files: Iterable[ImageFile], run: int) -> None:
    """Give files the UIDs of another run; lengths stay."""
    digits = str(FIRST_RUN + run).encode()
    for one in files:
        descriptor = os.open(one.path, os.O_WRONLY)
        try:
            for place in one.runs:
                os.pwrite(descriptor, digits, place)
        finally:
            os.close(descriptor)
