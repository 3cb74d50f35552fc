"""dcmjs, the JavaScript library that web viewers read DICOM with, as one more reader."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPO_ROOT
from tests.validators import missing, require_tool

READER = Path(__file__).with_name("dcmjs_reader.js")


@dataclass(frozen=True)
class ReadGroup:
    """A measurement group: code of the finding, tracking UID, values."""

    finding: str
    tracking_uid: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class ReadObject:
    """An object as dcmjs reads it; ``voxels`` by segment number."""

    modality: str
    instance_uid: str
    description: str
    voxels: dict[int, int]
    groups: tuple[ReadGroup, ...]


def dcmjs_read(paths: Sequence[Path]) -> list[ReadObject]:
    """Read files that are not compressed; the test is skipped where dcmjs is not there, and fails where it fails."""
    libraries = sorted(REPO_ROOT.glob(".dcmjs/*/dcmjs.js"))
    if not libraries:
        missing("dcmjs is not there (scripts/dcmjs)")
    command = [require_tool("node"), READER, libraries[-1], *paths]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    return [
        ReadObject(
            *(entry["modality"], entry["instance"], entry["description"]),
            {int(number): count for number, count in entry["voxels"].items()},
            tuple(
                ReadGroup(group.get("finding", ""), group.get("tracking", ""), tuple(group["values"]))
                for group in entry["groups"]
            ),
        )
        for entry in json.loads(done.stdout)
    ]
