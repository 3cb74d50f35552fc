"""The masks and lesions that rows of a manifest name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.types import Image, Segment, Volume
from evaluation.cases import Lesion
from evaluation.errors import DataError
from evaluation.images import PICTURES, VOLUMES, read_picture_mask, read_volume_mask
from evaluation.table import Row, Table, within

MASK_FOLDERS = ("masks", "mask")
MASK = "mask"
ONE = f"{MASK}:"
"""A column ``mask:Left lung`` names the mask of one segment."""
SEGMENTS = "segments"
"""The column that says which value of a mask is which segment: ``Left lung=1; Right lung=2``."""

BALL = ("x", "y", "z", "diameter_mm")
BOX = ("x_min", "y_min", "z_min", "x_max", "y_max", "z_max")
RECTANGLE = ("row_min", "column_min", "row_max", "column_max")
"""Columns of lesions: LPS mm in volumes, pixels in X-rays."""


def mask_columns(table: Table) -> tuple[str, ...]:
    """Give the columns that name masks."""
    return tuple(name for name in table.columns if name == MASK or name.startswith(ONE))


@dataclass(frozen=True)
class MaskFile:
    """A file of masks: the values of each segment's voxels, or, where ``values`` is empty, every value but 0."""

    file: Path
    label: str
    values: tuple[int, ...] = ()

    def among(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which voxels are the segment's."""
        return np.isin(values, self.values) if self.values else values != 0


@dataclass(frozen=True)
class Masks:
    """The masks of one image."""

    files: tuple[MaskFile, ...]

    @classmethod
    def of(cls, table: Table, row: Row, name: str, segments: Sequence[Segment]) -> "Masks | None":
        """Find the masks of a row: those that it names, or one of the image's name in ``masks/`` or ``mask/``.

        Parameters
        ----------
        name
            Of the image.
        segments
            Of the model; a mask that does not say what it shows is of all of them.
        """
        folder, whole = table.file.parent, "+".join(segment.label for segment in segments)
        found: list[MaskFile] = []
        for column in mask_columns(table):
            if not row[column]:
                continue
            file = _found([folder / each / within(row[column]) for each in (*MASK_FOLDERS, ".")])
            if column == MASK and row[SEGMENTS]:
                found += [MaskFile(file, label, values) for label, values in _values(row[SEGMENTS]).items()]
            else:
                found.append(MaskFile(file, _label(column, segments) or whole))
        if not found and not mask_columns(table) and any((folder / each).is_dir() for each in MASK_FOLDERS):
            bare = within(name).as_posix()
            stem = next((bare[: -len(end)] for end in (*VOLUMES, *PICTURES) if bare.lower().endswith(end)), bare)
            ends = (*PICTURES, *VOLUMES)
            found = [MaskFile(_found([folder / each / f"{stem}{end}" for each in MASK_FOLDERS for end in ends]), whole)]
        return cls(tuple(found)) if found else None

    def read(self, image: Callable[[], Image]) -> Mapping[str, NDArray[np.bool_]]:
        """Read them on the image's grid, by segment.

        Raises
        ------
        DataError
            A mask cannot be read, or is not as large as the image.
        """
        shown = image()
        files = {
            file: read_volume_mask(file, shown) if isinstance(shown, Volume) else read_picture_mask(file)
            for file in dict.fromkeys(each.file for each in self.files)
        }
        for file, values in files.items():
            if values.shape != shown.array.shape:
                raise DataError(f"{file.name} is not as large as its image; scale it")
        return {each.label: each.among(files[each.file]) for each in self.files}


def has_lesions(table: Table) -> bool:
    """Tell whether a manifest has columns of lesions."""
    return any(set(columns) <= set(table.columns) for columns in (BALL[:3], BOX, RECTANGLE))


def lesions_of(table: Table, rows: Sequence[Row]) -> tuple[Lesion, ...]:
    """Read the lesions of one image, one a row; a row without any says that there is none.

    Raises
    ------
    DataError
        A number is missing or none.
    """
    columns = next(names for names in (BOX, RECTANGLE, BALL[:3]) if set(names) <= set(table.columns))
    lesions = []
    for row in rows:
        if not any(row[name] for name in columns):
            continue
        places = [_number(row, name) for name in columns]
        diameter = _number(row, "diameter_mm") if row["diameter_mm"] else None
        if diameter is not None and diameter <= 0:
            raise DataError(f"line {row.line}: a lesion's diameter_mm is not above 0; correct it")
        if columns == BALL[:3]:
            if diameter is None:
                raise DataError(f"line {row.line} has no diameter_mm; fill it in")
            lesions.append(Lesion(*_around(places, diameter), diameter))
            continue
        half = len(places) // 2
        lesions.append(Lesion(tuple(places[:half]), tuple(places[half:]), diameter))
        if any(low > high for low, high in zip(places[:half], places[half:], strict=True)):
            raise DataError(f"line {row.line} has a box whose low corner is above its high one; correct it")
    return tuple(lesions)


def _around(centre: Sequence[float], diameter: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(each - diameter / 2 for each in centre), tuple(each + diameter / 2 for each in centre)


def _number(row: Row, column: str) -> float:
    try:
        number = float(row[column])
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise DataError(f"line {row.line}: {column} is no number; correct it")
    return number


def _label(column: str, segments: Sequence[Segment]) -> str:
    """The segment of a column, in the model's own words where it has one of that name."""
    asked = column.removeprefix(ONE).strip() if column.startswith(ONE) else ""
    return next((segment.label for segment in segments if segment.label.lower() == asked.lower()), asked)


def _values(cell: str) -> dict[str, tuple[int, ...]]:
    """``Left lung=1; Right lung=2+3`` by label."""
    found: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (each.strip() for each in cell.split(";"))):
        label, _, values = part.rpartition("=")
        try:
            found[label.strip()] = tuple(int(value) for value in values.split("+"))
        except ValueError:
            raise DataError(f"segments = {cell!r} is wrong; write 'Left lung=1; Right lung=2'") from None
        if not label.strip():
            raise DataError(f"segments = {cell!r} names no segment; write 'Left lung=1; Right lung=2'")
    return found


def _found(candidates: Sequence[Path]) -> Path:
    for file in candidates:
        if file.is_file():
            return file
    raise DataError("the mask is missing; put it into masks/ beside the manifest, or remove the row")
