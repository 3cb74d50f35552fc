"""New series made of the phantom's files: same pixels, fresh UIDs, and whatever else a test changes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import generate_uid

MIDDLE = slice(40, 80)
"""The part of the phantom that has most of the lungs: enough for a result, and less to do."""


@dataclass(frozen=True)
class Series:
    """Files of one series, in slice order."""

    uid: str
    files: tuple[Path, ...]


def copy_series(
    source: Path, target: Path, slices: slice = slice(None), change: Callable[[Dataset], object] = lambda _: None
) -> Series:
    """Copy slices of a folder with one series into a new study of its own, each changed as the test wants it."""
    target.mkdir(parents=True)
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    files: list[Path] = []
    for file in sorted(source.glob("*.dcm"))[slices]:
        data_set = pydicom.dcmread(file)
        data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study, series
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data_set.FrameOfReferenceUID = frame_of_reference
        change(data_set)
        data_set.save_as(target / file.name)
        files.append(target / file.name)
    return Series(series, tuple(files))


def data_set_of(path: Path) -> bytes:
    """A file's data set as it lies there: all that follows the file meta information (PS3.10 7.1)."""
    content = path.read_bytes()
    assert content[128:138] == b"DICM\x02\x00\x00\x00UL", "a file starts with its preamble and the group length"
    return content[144 + int.from_bytes(content[140:144], "little") :]
