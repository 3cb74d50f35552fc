"""The table of a manifest: a CSV as spreadsheets and programs write it, read without trusting it."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evaluation.errors import DataError

LARGEST_TABLE = 100_000_000
"""Bytes; a million rows."""
LONGEST_CELL = 1000
"""Characters; of a longer one nobody knows what it is."""
SEPARATORS = ",;\t"
LINE_END = re.compile(r"\r\n?|\n")
"""Within a cell, as in notes; it is a space there."""


@dataclass(frozen=True)
class Row:
    """One row: its line in the file, and its cells by the column's name in lower case; missing ones are empty."""

    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


@dataclass(frozen=True)
class Table:
    """All rows of a manifest; ``broken`` are the lines that are no row, with the reason."""

    file: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    broken: Mapping[int, str]


def read_table(file: Path) -> Table:
    """Read a CSV in UTF-8, its cells parted by commas, semicolons or tabs, its columns named in the first line.

    Raises
    ------
    DataError
        It is missing, too large, no text, or has no rows.
    """
    try:
        if file.stat().st_size > LARGEST_TABLE:
            raise DataError(f"{file.name} has more than {LARGEST_TABLE // 10**6} MB; that is no manifest")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; name a manifest.csv, or a folder that has one") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not in UTF-8; save it as 'CSV UTF-8'") from error
    first = next(filter(str.strip, text.splitlines()), "")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=first.count))
    rows: list[Row] = []
    broken: dict[int, str] = {}
    columns: tuple[str, ...] = ()
    try:
        for cells in lines:
            stripped = [LINE_END.sub(" ", cell).strip() for cell in cells]
            if not any(stripped):
                continue
            if not columns:
                columns = tuple(cell.lower() for cell in stripped)
            elif problem := _problem(stripped, len(columns)):
                broken[lines.line_num] = problem
            else:
                rows.append(Row(lines.line_num, dict(zip(columns, stripped, strict=False))))
    except csv.Error as error:
        raise DataError(f"{file.name}, line {lines.line_num}: {error}; correct it") from error
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise DataError(f"{file.name} has the column {twice[0]!r} twice; remove one")
    if not rows:
        raise DataError(f"{file.name} has no rows that can be read; its first line names the columns, file and class")
    return Table(file, columns, tuple(rows), broken)


def within(cell: str) -> PurePosixPath:
    """Give a path that a cell names, and that leads nowhere but below the manifest's folder.

    Raises
    ------
    DataError
        It is absolute, or goes up.
    """
    path = PurePosixPath(cell.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or path.parts[0][1:2] == ":":
        raise DataError("its path leads out of the manifest's folder; put the file into it and name it from there")
    return path


def _problem(cells: list[str], columns: int) -> str:
    if len(cells) > columns:
        return f"{len(cells)} cells where there are {columns} columns"
    if any(len(cell) > LONGEST_CELL for cell in cells):
        return f"a cell of more than {LONGEST_CELL} characters"
    if any(ord(character) < 32 or ord(character) == 127 for cell in cells for character in cell):
        return "a cell with control characters"
    return ""
