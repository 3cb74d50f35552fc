"""What the fault tests share: a model that is loaded and run at once, and an archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive import Archive
from tests.copies import MIDDLE, Series, copy_series
from tests.running_node import Section
from tests.small_models import volume_package


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Settings of a node that serves one small CT model: here the node is killed, not the network judged."""
    models = tmp_path_factory.mktemp("models")
    volume_package(models, patch=(24, 96, 96))
    return {"folders": [str(models)], "models": ["tiny-ct"]}


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        yield archive


@pytest.fixture
def series(tmp_path: Path, phantom_ct: Path) -> Series:
    return copy_series(phantom_ct, tmp_path / "sent", MIDDLE)
