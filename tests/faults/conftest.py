"""What the fault tests share: a model that is loaded and run at once, and an archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive import Archive
from tests.copies import MIDDLE, Series, copy_series
from tests.running_node import Section, small_engines


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Settings of a node that serves small models: here the node is killed, not a network judged."""
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        yield archive


@pytest.fixture
def series(tmp_path: Path, phantom_ct: Path) -> Series:
    return copy_series(phantom_ct, tmp_path / "sent", MIDDLE)
