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


@dataclass(frozen=True)
class Images:
    """What is sent in one measurement, a folder over each association, and one more image to warm up with."""

    folders: tuple[Path, ...]
    warm_up: Path
    files: tuple[ImageFile, ...]

    @property
    def megabytes(self) -> float:
        """Without the one to warm up with."""
        return sum(one.size for one in self.files if one.path.parent != self.warm_up) / 1e6


def write_images(folder: Path, kind: str, senders: int, images: int) -> Images:
    """So many CT slices or X-rays (``DX``) of a series for each of the senders, of whom there are at most 9."""
    size, write_phantom = (DX_SIZE, write_chest_xray) if kind == "DX" else (CT_SIZE, write_chest_ct)
    with tempfile.TemporaryDirectory() as name:
        template = pydicom.dcmread(min(write_phantom(Path(name)).iterdir()))
    noise = np.random.default_rng(1).integers(0, 4096, size * size + images, dtype=np.uint16)
    folders = tuple(folder / str(number) for number in range(senders + 1))
    files = []
    for series, each in enumerate(folders):
        each.mkdir(parents=True)
        parts = (noise[index : index + size * size] for index in range(images if series else 1))
        files += [_write(template, each, part, size, series, index) for index, part in enumerate(parts)]
    return Images(folders[1:], folders[0], tuple(files))


def _write(image: Dataset, folder: Path, pixels: np.ndarray, size: int, series: int, index: int) -> ImageFile:
    run = f"{ROOT.decode()}{FIRST_RUN}"
    image.StudyInstanceUID, image.SeriesInstanceUID = run, f"{run}.{series}"
    image.SOPInstanceUID = f"{run}.{series}.{FIRST_INSTANCE + index}"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.InstanceNumber = index + 1
    if "ImagePositionPatient" in image:
        image.ImagePositionPatient[2] = float(index)
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
