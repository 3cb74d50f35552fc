"""Fixtures that every test may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import settings
from PIL import Image
from pydicom.uid import generate_uid

from tests.postgres import PostgresServer, why_not

REPO_ROOT = Path(__file__).resolve().parents[1]
WrapAsDX = Callable[[Path, Path], Path]


def pytest_configure() -> None:
    """Hypothesis judges what is computed, not how long it takes: other tests run beside."""
    settings.register_profile("wetread", settings.default, deadline=None)
    settings.load_profile("wetread")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public images beside the repository; the test is skipped where there is none."""
    folder = REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real images of ../shared/data, which are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def rtx() -> Any:
    """The module of TensorRT for RTX; where it is not installed the test is skipped, but never in CI."""
    from engines.errors import RuntimeUnavailable
    from engines.runtimes.tensorrt_library import load_tensorrt

    try:
        return load_tensorrt("rtx")
    except RuntimeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; where there is none the test is skipped, but never in CI."""
    if (reason := why_not()) and not os.environ.get("CI"):
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, in each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture(scope="session")
def phantom_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the CT series of the chest phantom (read only: tests share it)."""
    from service.demo.phantom import write_chest_ct

    return write_chest_ct(tmp_path_factory.mktemp("phantom_ct"))


@pytest.fixture(scope="session")
def phantom_xray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chest X-ray of the phantom (read only: tests share it)."""
    from service.demo.phantom import write_chest_xray

    return write_chest_xray(tmp_path_factory.mktemp("phantom_xray"))


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
