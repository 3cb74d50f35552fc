"""The independent checkers of DICOM objects that every test suite may run: dicom3tools, DCMTK, dcmqi.

No single one is enough: each is blind to what another sees. PixelMed, dicom-validator and dcmjs have
modules of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import SimpleITK

PACKAGES = {
    "dciodvfy": "apt-get install dicom3tools",
    "dcentvfy": "apt-get install dicom3tools",
    "dsrdump": "apt-get install dcmtk",
    "dsr2html": "apt-get install dcmtk",
    "java": "apt-get install default-jre-headless",
    "node": "apt-get install nodejs",
    "segimage2itkimage": "pip install dcmqi",
    "tid1500reader": "pip install dcmqi",
}


def require_tool(name: str) -> str:
    """The path of a counterpart tool; without it the test is skipped, and in CI (``CI=true``) it fails."""
    beside_python = Path(sys.executable).parent
    path = shutil.which(name, path=os.pathsep.join([str(beside_python), os.environ.get("PATH", "")]))
    if path is None:
        missing(f"{name} is not installed ({PACKAGES.get(name, 'see the README')})")
    return path


def missing(reason: str) -> NoReturn:
    """A counterpart is not there: the test is skipped with the reason, and in CI (``CI=true``) it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def dciodvfy_errors(path: Path) -> list[str]:
    """What ``dciodvfy -new`` calls an error in the object."""
    done = subprocess.run([require_tool("dciodvfy"), "-new", path], capture_output=True, text=True, errors="replace")
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    # the exit code is 0 beside some errors, so that only the text counts; other codes are crashes
    assert done.returncode in (0, 1), done.stderr
    assert errors or done.returncode == 0, done.stderr
    return errors


def dcentvfy_errors(*paths: Path) -> list[str]:
    """What ``dcentvfy`` says about objects that should share patient and study."""
    done = subprocess.run([require_tool("dcentvfy"), *paths], capture_output=True, text=True, errors="replace")
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    # a check that broke off has found nothing, which is not the same as nothing to find
    assert done.returncode == (1 if errors else 0), f"dcentvfy ended with {done.returncode}: {done.stderr}"
    return errors


def dsrdump_text(path: Path) -> str:
    """The report as DCMTK renders it; the test fails where DCMTK cannot read it."""
    done = subprocess.run([require_tool("dsrdump"), "+Pl", path], capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    return done.stdout


def tid1500(path: Path, folder: Path) -> dict[str, Any]:
    """The measurement report as dcmqi reads it."""
    target = folder / "tid1500.json"
    command = [require_tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", target]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert target.is_file(), done.stderr
    content: dict[str, Any] = json.loads(target.read_text())
    return content


@dataclass(frozen=True, eq=False)
class ReadSegment:
    """One segment as dcmqi reads it: its number, its label, and where its voxels lie."""

    number: int
    label: str
    image: SimpleITK.Image


def segments(path: Path, folder: Path) -> list[ReadSegment]:
    """The segments of a SEG as dcmqi places them, in patient coordinates."""
    folder.mkdir(exist_ok=True)
    command = [
        require_tool("segimage2itkimage"),
        "--inputDICOM",
        path,
        "--outputDirectory",
        folder,
        "--outputType",
        "nii",
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    [meta] = folder.glob("*meta.json")
    attributes = [entry for group in json.loads(meta.read_text())["segmentAttributes"] for entry in group]
    images = {file.name: SimpleITK.ReadImage(file) for file in folder.glob("*.nii.gz")}
    # the segments of a label map come as one image of their numbers
    merged = next(iter(images.values())) if len(images) == 1 < len(attributes) else None
    found = []
    for entry in attributes:
        name = f"{entry['labelID']}.nii.gz"
        assert merged is not None or name in images, f"{name} does not exist"
        image = images[name] if merged is None else merged == entry["labelID"]
        found.append(ReadSegment(entry["labelID"], entry["SegmentLabel"], image))
    return found
