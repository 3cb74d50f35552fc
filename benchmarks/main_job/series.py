"""The CT that is sent: a real chest where it is there, else the demo's, in as many slices as are wanted.

Each time it is sent it is another one: it has other UIDs, so that nothing of it is known, and a voxel has another
value, so that what a model found in it before is not taken for what it finds now (`engines.serving.recent`).
"""

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.inference.images import NLST
from benchmarks.receiving.images import FIRST_RUN, ROOT, ImageFile, renew
from service.demo.phantom import write_chest_ct

SIZE = 512
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_HEAD = 1 << 14


@dataclass(frozen=True)
class Series:
    """Files of one CT series, and what they are in words."""

    files: tuple[ImageFile, ...]
    words: str

    @property
    def paths(self) -> list[Path]:
        """The files in the order of the slices."""
        return [one.path for one in self.files]

    def renew(self, run: int) -> str:
        """Make another series of it; return its Series Instance UID."""
        renew(self.files, run)
        middle = self.files[len(self.files) // 2].path
        descriptor = os.open(middle, os.O_WRONLY)
        try:
            centre = SIZE * SIZE + SIZE  # in bytes from the end: two for each pixel
            os.pwrite(descriptor, struct.pack("<h", run), os.fstat(descriptor).st_size - centre)
        finally:
            os.close(descriptor)
        return f"{ROOT.decode()}{FIRST_RUN + run}.2"


def write_series(folder: Path, slices: int, data: Path) -> Series:
    """Write a chest CT of so many slices of 512 × 512 pixels, uncompressed, as a scanner sends it.

    Parameters
    ----------
    data
        The folder of real images. Without it the demo's phantom is taken.

    Slices between those of the source are interpolated; the chest keeps its height.
    """
    folder.mkdir(parents=True)
    real = data / NLST
    with tempfile.TemporaryDirectory() as name:
        source = next(real.glob("CT_*")) if real.is_dir() else write_chest_ct(Path(name) / "ct")
        headers = [pydicom.dcmread(file) for file in source.iterdir()]
    headers.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    pixels = np.stack([one.pixel_array for one in headers]).astype(np.int16)
    image = sitk.GetImageFromArray(pixels)
    steps = (pixels.shape[2] / SIZE, pixels.shape[1] / SIZE, (len(headers) - 1) / (slices - 1))
    placed = sitk.Resample(image, (SIZE, SIZE, slices), sitk.Transform(), sitk.sitkLinear, (0, 0, 0), steps)
    least, most = (float(headers[at].ImagePositionPatient[2]) for at in (0, -1))
    apart = (most - least) / (slices - 1)
    written = []
    one = _like(headers[0], steps, apart)
    for index, plane in enumerate(sitk.GetArrayViewFromImage(placed)):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{ROOT.decode()}{FIRST_RUN}.4.{index + 1}"
        one.InstanceNumber = index + 1
        place = round(least + index * apart, 4)
        one.ImagePositionPatient = [*one.ImagePositionPatient[:2], place]
        one.SliceLocation = place
        one.add_new("PixelData", "OW", plane.tobytes())
        path = folder / f"{index:05}.dcm"
        one.save_as(path, enforce_file_format=True)
        written.append(ImageFile(path, _runs(path)))
    words = f"{'NLST chest' if real.is_dir() else 'phantom'}, {slices} × {SIZE}²"
    return Series(tuple(written), words)


def _like(header: Dataset, steps: tuple[float, ...], apart: float) -> Dataset:
    """What all slices have in common: the header of one, with UIDs that can be made new, and without pixels."""
    del header.PixelData
    for number, keyword in enumerate(_UIDS, start=1):
        setattr(header, keyword, f"{ROOT.decode()}{FIRST_RUN}.{number}")
    row, column = header.PixelSpacing
    header.PixelSpacing = [float(row) * steps[1], float(column) * steps[0]]
    header.SliceThickness = round(apart, 4)
    header.Rows = header.Columns = SIZE
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def _runs(path: Path) -> tuple[int, ...]:
    """Where in a file the run stands that makes its UIDs its own."""
    with path.open("rb") as file:
        head, at, runs = file.read(_HEAD), 0, list[int]()
    while (at := head.find(ROOT, at)) >= 0:
        at += len(ROOT)
        runs.append(at)
    return tuple(runs)
