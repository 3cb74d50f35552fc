"""DICOM files become the images that models run on, as the node itself makes them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom

from engines.types import Image, Volume
from evaluation.errors import DataError
from service.series.assembly import Assembly, Item, assemble

PREAMBLE = 128


def is_dicom(file: Path) -> bool:
    """Whether it is a DICOM file (PS3.10 7.1)."""
    try:
        with file.open("rb") as content:
            return content.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path) -> Image:
    """Read the one image in a DICOM file, or in a folder that holds a series.

    Raises
    ------
    DataError
        There is no image, or there are several.
    """
    files = sorted(file for file in path.rglob("*") if is_dicom(file)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path.name} holds no DICOM files; put a series there or remove the row")
    assemblies = [assemble(of_series) for of_series in _by_series(files)]
    items = [item for assembly in assemblies for item in assembly.items]
    if not items:
        raise _no_image(assemblies)
    if len(items) != 1:
        raise DataError(f"{path.name} holds {len(items)} images instead of one; give each a row of its own")
    return items[0].image


def assemble_or_say(files: Sequence[Path]) -> Assembly:
    """Make images of the files of one series.

    Raises
    ------
    DataError
        There is none; the message says why.
    """
    assembly = assemble(files)
    if not assembly.items:
        raise _no_image([assembly])
    return assembly


def largest(items: Sequence[Item], wanted: Sequence[str]) -> Item:
    """Give the item that holds most of the instances that are wanted; of equal ones that of most slices."""

    def held(item: Item) -> tuple[int, int]:
        sources = item.image.sources if isinstance(item.image, Volume) else (item.image.source,)
        return len(set(sources) & set(wanted)), len(item.files)

    return max(items, key=held)


def _no_image(assemblies: Sequence[Assembly]) -> DataError:
    refused = [reason for assembly in assemblies for reason in assembly.refused]
    left_out = [each.reason for assembly in assemblies for each in assembly.left_out]
    return DataError(f"no image can be made of it: {'; '.join(dict.fromkeys([*refused, *left_out])) or 'no images'}")


def _by_series(files: Sequence[Path]) -> Iterable[Sequence[Path]]:
    """Part files by their series: slices of two series, or of two patients, make no volume, whatever they look like."""
    series: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        try:
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"]
            )
            key = str(header.get("StudyInstanceUID")), str(header.get("SeriesInstanceUID"))
        except Exception:  # a header can be wrong in many ways; the assembly says which
            key = "", ""
        series.setdefault(key, []).append(file)
    return series.values()
