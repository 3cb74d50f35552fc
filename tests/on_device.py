"""Volumes to try the device path with, and engines whose whole path runs on a device, with any other as network."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from engines.device.whole_path import DevicePath
from engines.inference.analyse import analyse
from engines.packages.package import ModelPackage, load_package
from engines.runtimes.base import Engine, WholePath
from engines.types import Affine, Findings, Volume
from tests.cuda_on_cpu import CpuDriver
from tests.small_models import convolutional_package

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


SHAPE = (26, 34, 30)
TURNED, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))


def affine(axes: np.ndarray, *spacing: float, shear: float = 0.0) -> Affine:
    """Of a volume with these directions (as columns) and spacings; sheared as by a tilted gantry."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 0] += shear * matrix[:3, 1]
    matrix[:3, 3] = -31.0, 12.5, 220.0
    return matrix


AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
SAGITTAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
UNEVEN = tuple(np.cumsum([0, *np.random.default_rng(2).choice([0.4, 1.0, 2.3], SHAPE[0] - 1)]).tolist())
GEOMETRIES = {
    "axial": (affine(AXIAL, 2.5, 1.4, 1.4), None),
    "the grid itself": (affine(AXIAL, 2.0, 2.0, 2.0), None),
    "averaged, odd sizes": (affine(AXIAL, 1.0, 0.5, 0.6), None),
    "upside down": (affine(-AXIAL, 2.5, 1.4, 1.4), None),
    "sagittal": (affine(SAGITTAL, 1.5, 1.0, 2.2), None),
    "oblique": (affine(TURNED, 2.1, 1.3, 0.9), None),
    "tilted gantry": (affine(AXIAL, 2.5, 1.2, 1.2, shear=0.7), None),
    "uneven slices": (affine(AXIAL, 1.7, 1.2, 1.2), UNEVEN),
    "uneven slices, averaged and tilted": (affine(AXIAL, 0.8, 0.7, 0.7, shear=0.3), UNEVEN),
    "one slice thick": (affine(AXIAL, 40.0, 1.4, 1.4), None),
}


def noisy(matrix: Affine, at: tuple[float, ...] | None = None, kind: type = np.int16, seed: int = 5) -> Volume:
    """Blobs of dark and of bright in the air, with noise: many borders, and many small components."""
    random = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in SHAPE), indexing="ij"), axis=-1)
    array = np.full(SHAPE, -1000.0)
    for centre, radius, value in (
        ((0.2, -0.1, 0.3), 0.6, -500),
        ((-0.5, 0.3, -0.4), 0.5, 0),
        ((0.9, 0.9, 0.9), 0.3, 0),
        ((-0.9, -0.9, -0.9), 0.25, -500),
    ):
        array[np.linalg.norm(index - centre, axis=-1) < radius] = value
    array += random.normal(0, 130, SHAPE)
    values = np.rint(array).astype(np.int16) if kind is np.int16 else array.astype(np.float32)
    return Volume(values, matrix, tuple(str(number) for number in range(SHAPE[0])), at=at)


class Routed:
    """An engine with another whole path, or none."""

    def __init__(self, engine: Engine, whole_path: WholePath | None) -> None:
        self.whole_path, self._engine = whole_path, engine
        self.identity, self.batch, self.infer = engine.identity, engine.batch, engine.infer


def on_cpu(
    driver: CpuDriver, package: ModelPackage, engine: Engine
) -> Callable[[int, Mapping[str, int], tuple[int, ...], int], None]:
    """Give what enqueues an engine's network in the memory of the stand-in for a GPU."""

    def run(image: int, outputs: Mapping[str, int], grid: tuple[int, ...], stream: int) -> None:
        def work() -> None:
            answers = engine.infer(driver.view(image, (engine.batch, 1, *grid)).copy())
            for name, address in outputs.items():
                driver.view(address, answers[name].shape)[:] = answers[name]

        driver.streams[stream].enqueue(work)

    return run


def both_ways(driver: CpuDriver, package: ModelPackage, engine: Engine, volume: Volume) -> tuple[Findings, Findings]:
    """What the host, and what the device makes of a volume."""
    path = DevicePath(driver, package, on_cpu(driver, package, engine), package.input.grids, batch=engine.batch)
    host, device = (
        analyse(package, Routed(engine, way), volume, clock=lambda: NOON)  # type: ignore[arg-type]
        for way in (None, path)
    )
    path.close()
    assert not driver.held, "all device memory is given back"
    return host, device


def require_the_same(host: np.ndarray, device: np.ndarray, labels: int) -> None:
    """Two label maps overlap as good as wholly, label by label."""
    for number in range(1, labels + 1):
        inside, within = host == number, device == number
        assert inside.sum() > 30, "the test has something to compare"
        assert 2 * (inside & within).sum() / (inside.sum() + within.sum()) > 0.9999


def unet(folder: Path, keys: str) -> ModelPackage:
    """A network whose answer depends on where in the patch a voxel lies, with further keys of ``[input]``."""
    path = convolutional_package(folder) / "model.toml"
    text = path.read_text()
    for key in keys.splitlines():
        name = key.split("=")[0]
        kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(name))
        text = kept.replace("[segmentation]\n", f"{key}\n\n[segmentation]\n", 1)
    path.write_text(text)
    return load_package(path.parent)


def real_ct(shared_data: Path, every: int) -> Volume:
    """A chest of 143 slices (NLST), every so many rows and columns of it."""
    reader = sitk.ImageSeriesReader()
    [series] = (shared_data / "dicom" / "ct_nlst101287_toshiba_jpegls_plus_sybil_sr").glob("CT_*")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1] * (1, every, every)
    matrix[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).astype(np.int16)[:, ::every, ::every]
    return Volume(array, matrix, tuple(str(number) for number in range(len(array))))
