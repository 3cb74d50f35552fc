"""A manifest becomes cases: a CSV that says of each image what is known about it (docs/evaluation.md has the columns).

Only ``file`` and one reference are required: ``class``, a mask, or lesions. An image lies in ``images/`` or ``img/``
beside the manifest, or where ``file`` leads from there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from engines.packages.package import ModelPackage
from engines.types import Image
from evaluation.cases import Case
from evaluation.collection import EVERYTHING, Choice, Collection, age_band, spread
from evaluation.dicom_image import is_dicom, read_dicom
from evaluation.errors import DataError
from evaluation.images import PICTURES, VOLUMES, is_picture, is_volume, read_radiograph, read_volume
from evaluation.judgement import CaseResult
from evaluation.manifest_references import MASK_FOLDERS, Masks, has_lesions, lesions_of, mask_columns
from evaluation.table import Row, Table, read_table, within

IMAGE_FOLDERS = ("images", "img", ".")
GROUPS = ("source", "sex", "age", "view")
"""Columns that are always subgroups."""
VALIDATION = ("val", "valid", "validation")
TEST = "test"


def read_manifest(path: Path, package: ModelPackage, choice: Choice) -> Collection:
    """Read a manifest, or that of a folder; its images are read when they are wanted.

    Raises
    ------
    DataError
        It cannot be read, has no column that names images, none that the model can be judged by, or no such split.
    """
    file = path / "manifest.csv" if path.is_dir() else path
    table = read_table(file)
    named = next((name for name in ("file", "id") if name in table.columns), None)
    if named is None:
        raise DataError(f"{file.name} has no column 'file' (it has {', '.join(table.columns)}); add it")
    _require_reference(table, package)
    wanted, words = _chosen(table, choice)
    # an image is wanted once for the model and once for the masks on it
    reader = _Reader(table, named, package, choice, lru_cache(maxsize=1)(_read))
    cases, unusable = reader.cases(wanted)
    chosen_on: Sequence[Case] = ()
    if package.description.classification and "class" in table.columns:
        judged = {row.line for row in wanted}
        held = [row for row in table.rows if row[choice.column].lower() in VALIDATION and row.line not in judged]
        chosen_on, _ = reader.cases(held)
    broken = tuple(CaseResult(f"line {line}", {}, problem=problem) for line, problem in table.broken.items())
    name = f"{file.parent.resolve().name}/{file.name}"
    taken = spread(cases, choice.limit)
    part = f", {len(taken)} of {len(cases)} images" if len(taken) < len(cases) else ""
    return Collection(f"{name}, {words}{part}", taken, spread(chosen_on, choice.limit), (*broken, *unusable))


def _require_reference(table: Table, package: ModelPackage) -> None:
    folder = table.file.parent
    needs = {
        "classification": ("class", "class" in table.columns),
        "segmentation": (
            "mask",
            bool(mask_columns(table)) or any((folder / name).is_dir() for name in MASK_FOLDERS),
        ),
        "detection": ("x, y, z and diameter_mm", has_lesions(table)),
    }
    if not any(needs[task][1] for task in package.description.tasks):
        columns = ", or ".join(needs[task][0] for task in package.description.tasks)
        raise DataError(
            f"{table.file.name} says nothing that {package.name} could be judged by; it needs the column {columns} "
            f"(it has {', '.join(table.columns)})"
        )


def _chosen(table: Table, choice: Choice) -> tuple[tuple[Row, ...], str]:
    """The rows that are wanted, and words for them."""
    column, split = choice.column.lower(), choice.split
    values = {row[column] for row in table.rows}
    if column not in table.columns and (split not in (None, EVERYTHING) or column != Choice.column):
        raise DataError(f"{table.file.name} has no column {column!r}; choose of {', '.join(table.columns)}")
    if split is None:
        split = TEST if TEST in values else EVERYTHING
    if split == EVERYTHING:
        return table.rows, "all rows"
    rows = tuple(row for row in table.rows if row[column] == split)
    if not rows:
        known = ", ".join(sorted(value for value in values if value))
        raise DataError(f"{table.file.name} has no rows whose {column} is {split!r}; choose of {known}, {EVERYTHING}")
    return rows, f"rows whose {column} is {split!r}"


@dataclass(frozen=True)
class _Reader:
    """Makes cases of rows; ``named`` is the column that names the image."""

    table: Table
    named: str
    package: ModelPackage
    choice: Choice
    read: Callable[[Path], Image]

    def cases(self, rows: Sequence[Row]) -> tuple[list[Case], tuple[CaseResult, ...]]:
        """Make a case of each image; rows of which none can be made come as their problems."""
        cases: list[Case] = []
        unusable: list[CaseResult] = []
        for name, of_image in self._images(rows).items():
            try:
                cases.append(self._case(name, of_image))
            except DataError as error:
                unusable.append(CaseResult(f"{name or 'line'} ({_lines(of_image)})", {}, problem=str(error)))
        return cases, tuple(unusable)

    def _images(self, rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
        """The rows of each image, in order."""
        images: dict[str, list[Row]] = {}
        for row in rows:
            images.setdefault(row[self.named], []).append(row)
        return images

    def _case(self, name: str, rows: Sequence[Row]) -> Case:
        if not name:
            raise DataError(f"no {self.named} is named; fill it in or remove the row")
        row, tasks = rows[0], self.package.description.tasks
        lesions = lesions_of(self.table, rows) if "detection" in tasks and has_lesions(self.table) else None
        labels = {row["class"] for row in rows}
        if len(rows) > 1 and (lesions is None or len(labels) > 1):
            raise DataError("the image is there twice; remove a row")
        label = row["class"] if "classification" in tasks and row["class"] else None
        file = self._image(name)
        masks = Masks.of(self.table, row, name, self.package.segments) if "segmentation" in tasks else None
        if label is None and masks is None and lesions is None:
            raise DataError("the row says nothing that the model could be judged by; fill it in or remove it")
        image = partial(self.read, file)
        return Case(
            name=name,
            patient="/".join((row["source"], row["patient"])) if row["patient"] else f"image {name}",
            image=image,
            label=label,
            masks=partial(masks.read, image) if masks else None,
            lesions=lesions,
            split=row[self.choice.column],
            groups=dict(self._groups(row)),
        )

    def _image(self, name: str) -> Path:
        path = within(name)
        candidates = [self.table.file.parent / folder / path for folder in IMAGE_FOLDERS]
        if self.named == "id":
            candidates = [file.with_name(file.name + end) for file in candidates for end in (*PICTURES, *VOLUMES)]
        found = next((file for file in candidates if file.exists()), None)
        if found is None:
            raise DataError("the image is missing; put it into images/ beside the manifest, or remove the row")
        return found

    def _groups(self, row: Row) -> Iterator[tuple[str, str]]:
        for column in dict.fromkeys((*GROUPS, *self.choice.groups)):
            value = age_band(row[column]) if column == "age" else row[column]
            if value:
                yield column, value


def _read(file: Path) -> Image:
    if is_volume(file):
        return read_volume(file)
    if is_picture(file):
        return read_radiograph(file)
    if file.is_dir() or is_dicom(file):
        return read_dicom(file)
    raise DataError(f"{file.name} is no picture, volume or DICOM file ({', '.join((*PICTURES, *VOLUMES))})")


def _lines(rows: Sequence[Row]) -> str:
    return ("line " if len(rows) == 1 else "lines ") + ", ".join(str(row.line) for row in rows[:5])
