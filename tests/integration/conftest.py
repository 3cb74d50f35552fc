"""What the integration tests share."""

import csv
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_xrays(shared_data: Path) -> dict[str, Path]:
    """One real chest X-ray (JPEG) of each class, none of which a model was trained on."""
    folder = shared_data / "cxr"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return {row["class"]: folder / "images" / row["file"] for row in reversed(rows)}
