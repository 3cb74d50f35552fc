"""How fast the slices of a series become a volume: 300 slices of 512 × 512, uncompressed and in five encodings.

Peers: a loop over pydicom, and SimpleITK's ImageSeriesReader, both in the same rounds. All read from the page cache.
"cold" is a series of which nothing was read while it came; "streamed" is what is left to do after the last slice when
each was read as it came. Memory is the growth of a fresh process that reads the series and then looks at every voxel.
"""

import argparse
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom import uid
from pydicom.encaps import encapsulate

from benchmarks.memory import Growth
from benchmarks.report import Row, row, tell
from service.demo.phantom import write_chest_ct
from service.series.assembly import assemble, assemble_from
from service.series.reader import SeriesReader

SLICES = 300
THREADS = 2
SENDER_SECONDS = 0.01
"""Between two slices of the streamed series: 100 a second, faster than scanners send."""

ENCODERS: dict[str, tuple[str, Callable[[np.ndarray], bytes] | None]] = {
    "uncompressed": (uid.ExplicitVRLittleEndian, None),
    "JPEG Lossless": (uid.JPEGLosslessSV1, lambda pixels: imagecodecs.ljpeg_encode(pixels, bitspersample=16)),
    "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000": (
        uid.JPEG2000Lossless,
        lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True),
    ),
    "HTJ2K": (uid.HTJ2KLossless, lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True)),
    "RLE": (uid.RLELossless, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench series", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--study", type=Path, help="a folder with one CT series instead of the phantom")
    parser.add_argument("--only", choices=sorted(ENCODERS), help="one encoding instead of all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        template = options.study or write_chest_ct(Path(name) / "phantom")
        for case in [options.only] if options.only else ENCODERS:
            files = write_series(template, Path(name) / case, case, options.slices)
            measure(case, files, options.rounds, rows, ratios)
            shutil.rmtree(Path(name) / case)
    tell("series", options.rounds, rows, ratios, options.json)


def write_series(template: Path, folder: Path, case: str, slices: int) -> list[Path]:
    """A series of so many slices of 512 × 512 pixels, made of those of a template, over and over."""
    folder.mkdir()
    syntax, encode = ENCODERS[case]
    sources = sorted(file for file in template.rglob("*") if file.is_file())
    files = []
    for index in range(slices):
        data_set = pydicom.dcmread(sources[index % len(sources)])
        if data_set.file_meta.TransferSyntaxUID.is_encapsulated:
            data_set.decompress()
        pixels = np.ascontiguousarray(
            sitk.GetArrayFromImage(
                sitk.Resample(
                    sitk.GetImageFromArray(data_set.pixel_array),
                    (512, 512),
                    sitk.ScaleTransform(2, [data_set.Columns / 512, data_set.Rows / 512]),
                    sitk.sitkLinear,
                )
            )
        )
        data_set.Rows, data_set.Columns = pixels.shape
        data_set.ImagePositionPatient[2] = float(index)
        data_set.InstanceNumber = index + 1
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.2.1.{index + 1}"
        data_set.PixelData = pixels.tobytes()
        if case == "RLE":
            data_set.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            data_set.compress(uid.RLELossless, generate_instance_uid=False)
        elif encode is not None:
            data_set.PixelData = encapsulate([encode(pixels.view(np.uint16))])
            data_set["PixelData"].VR = "OB"
        data_set.file_meta.TransferSyntaxUID = uid.UID(syntax)
        files.append(folder / f"{index:04}.dcm")
        data_set.save_as(files[-1])
    return files


def measure(case: str, files: list[Path], rounds: int, rows: list[Row], ratios: dict[str, float]) -> None:
    """Seconds and memory of each subject, in turn, and what the streamed series leaves to do."""
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    remaining, receiving = list[float](), list[float]()
    processes = multiprocessing.get_context("spawn")
    subjects = [name for name in SUBJECTS if reads(name, files)]
    for _ in range(rounds):
        for name in subjects:
            seconds[name].append(timed(lambda name=name: SUBJECTS[name](files)))
            with ProcessPoolExecutor(1, processes) as pool:
                memory[name].append(pool.submit(grown, name, files).result())
        received, left = streamed(files)
        receiving.append(received)
        remaining.append(left)
    for name, values in seconds.items():
        rows.append(row(case, name, [len(files) / value for value in values], "slices/s"))
    rows.append(row(case, "wetread, streamed: receiving", receiving, "s"))
    rows.append(row(case, "wetread, streamed: last slice to volume", remaining, "s"))
    volume_mb = len(files) * 512 * 512 * 2 / 1e6
    for name, values in memory.items():
        rows.append(row(case, f"{name}: memory", values, f"MB ({volume_mb:.0f} MB of int16)"))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for peer in subjects[1:]:
        ratios[f"{case}: {WETREAD}/{peer}"] = round(middle[peer] / middle[WETREAD], 2)
    ratios[f"{case}: last slice to volume/receiving"] = round(
        statistics.median(left / received for left, received in zip(remaining, receiving, strict=True)), 4
    )
    for peer in subjects[1:]:
        ratios[f"{case}: after the last slice, wetread streamed/{peer}"] = round(
            middle[peer] / statistics.median(remaining), 1
        )
    ratios[f"{case}: memory/volume"] = round(statistics.median(memory[WETREAD]) / volume_mb, 2)


# ---- subjects --------------------------------------------------------------------------------------------------------


def wetread(files: list[Path]) -> np.ndarray:
    [item] = assemble(files, THREADS).items
    return item.image.array


def pydicom_loop(files: list[Path]) -> np.ndarray:
    slices = sorted((pydicom.dcmread(file) for file in files), key=lambda one: float(one.ImagePositionPatient[2]))
    volume = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
    for target, one in zip(volume, slices, strict=True):
        target[:] = one.pixel_array.astype(np.int32) * int(one.RescaleSlope) + int(one.RescaleIntercept)
    return volume


def simple_itk(files: list[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    return reader.Execute()


WETREAD, PYDICOM, SIMPLE_ITK = "wetread, cold", "pydicom loop", "SimpleITK ImageSeriesReader"
SUBJECTS = {WETREAD: wetread, PYDICOM: pydicom_loop, SIMPLE_ITK: simple_itk}


def reads(name: str, files: list[Path]) -> bool:
    """Whether a subject can decode these files at all."""
    try:
        SUBJECTS[name](files[:2])
    except RuntimeError as error:
        print(f"{name} cannot read these files: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def streamed(files: list[Path]) -> tuple[float, float]:
    """Seconds of receiving, and from the last slice to the volume, with slices coming at the sender's pace."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:
        reader = SeriesReader(Path(folder), pool)
        began = time.perf_counter()
        for index, file in enumerate(files):
            time.sleep(max(0.0, began + index * SENDER_SECONDS - time.perf_counter()))
            reader.add([file])
        last = time.perf_counter()
        return last - began, timed(lambda: assemble_from(reader, files))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    volume = work()
    seconds = time.perf_counter() - began
    del volume  # giving memory back is not part of reading
    return seconds


def grown(name: str, files: list[Path]) -> float:
    """By how many MB a fresh process grows at most while it reads a series and looks at every voxel."""
    growth = Growth.begin()
    volume = SUBJECTS[name](files)
    np.asarray(sitk.GetArrayViewFromImage(volume) if isinstance(volume, sitk.Image) else volume).sum(dtype=np.int64)
    return growth.peak


if __name__ == "__main__":
    main()
