"""Fixtures that every test may use."""

from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public images beside the repository; the test is skipped where there is none."""
    folder = REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real images of ../shared/data, which are not part of the repository")
    return folder


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
