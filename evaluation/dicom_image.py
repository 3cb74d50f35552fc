"""DICOM files become the images that models run on, as the node itself makes them."""

from collections.abc import Sequence
from pathlib import Path

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
    items = assemble_or_say(files).items
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
        reasons = dict.fromkeys([*assembly.refused, *(each.reason for each in assembly.left_out)])
        raise DataError(f"no image can be made of it: {'; '.join(reasons) or 'no images'}")
    return assembly


def largest(items: Sequence[Item], wanted: Sequence[str]) -> Item:
    """Give the item that holds most of the instances that are wanted; of equal ones that of most slices."""

    def held(item: Item) -> tuple[int, int]:
        sources = item.image.sources if isinstance(item.image, Volume) else (item.image.source,)
        return len(set(sources) & set(wanted)), len(item.files)

    return max(items, key=held)
