"""What one stage leaves in the spool for the next: items (images with their facts) and findings.

Each is a JSON file beside a plain array. Files are replaced atomically, so a stage that runs twice, or while another
reads, does no harm. All of it can be made again from the received instances. That is why the slices of a volume are not
synced: an item says in which boot of the machine it was made, and one of an earlier boot is made again.
"""

import fcntl
import shutil
from collections.abc import Container, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    Detections,
    EngineIdentity,
    Findings,
    InputStatistic,
    LabelMap,
    Measurement,
    ModelIdentity,
    Radiograph,
    Segment,
    Volume,
)
from service.durable import replace_file
from service.series.assembly import Item
from service.series.facts import ImageFacts

ITEM, FINDINGS, STATE = "item.json", "findings.json", "state"


class _StoredArray(BaseModel):
    """Where an array lies: a file beside the item's folder or in it, and where in the file."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class _StoredItem(BaseModel):
    key: str
    boot: str
    array: _StoredArray
    affine: list[list[float]] | None = None
    at: tuple[float, ...] | None = None
    frames: tuple[int, ...] | None = None
    sources: tuple[str, ...]
    unit: str = ""
    spacing: tuple[float, float] | None = None
    orientation: tuple[str, str] = ("L", "F")
    aspect: float = 1.0
    files: tuple[str, ...]
    facts: ImageFacts
    notes: tuple[str, ...]
    version: str


class _StoredClass(BaseModel):
    label: str
    code: Code
    probability: float
    activation: bool
    """Whether there is an activation map, in a file of its own."""


class _StoredFindings(BaseModel):
    item: str
    model: ModelIdentity
    engine: EngineIdentity
    analysed_at: datetime
    segments: tuple[tuple[Segment, ...], ...]
    """Of each label map."""
    classes: tuple[_StoredClass, ...]
    """None where nothing was classified."""
    exclusive: bool = True
    detections: Detections | None = None
    input_statistics: tuple[InputStatistic, ...] = ()
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def save_item(folder: Path, item: Item) -> None:
    """Leave an item for the stages after assembly. An array that is mapped from the folder above is not copied."""
    image = item.image
    stored = _StoredItem(
        key=item.key,
        boot=_boot(),
        array=_keep_array(folder, image.array),
        affine=image.affine.tolist() if isinstance(image, Volume) else None,
        at=image.at if isinstance(image, Volume) else None,
        frames=image.frames if isinstance(image, Volume) else None,
        sources=image.sources if isinstance(image, Volume) else (image.source,),
        unit=image.unit if isinstance(image, Volume) else "",
        spacing=None if isinstance(image, Volume) else image.spacing,
        orientation=("L", "F") if isinstance(image, Volume) else image.orientation,
        aspect=1.0 if isinstance(image, Volume) else image.aspect,
        files=tuple(file.name for file in item.files),
        facts=item.facts,
        notes=item.notes,
        version=item.version,
    )
    replace_file(folder / ITEM, lambda file: file.write(stored.model_dump_json().encode()))


def load_item(folder: Path, instances: Path) -> Item:
    """Read an item; ``instances`` is the folder of the received files. The array is mapped, not read.

    Raises
    ------
    FileNotFoundError
        It is not there, or it was made before the machine started anew and so may not be whole: assemble it again.
    """
    stored = _StoredItem.model_validate_json((folder / ITEM).read_text())
    if stored.boot != _boot():
        raise FileNotFoundError(f"the item {stored.key} was made before the machine started")
    where = stored.array
    array = np.memmap(folder / where.file, where.dtype, "r", where.offset, where.shape)
    image: Volume | Radiograph
    if stored.affine is not None:
        image = Volume(
            array, np.asarray(stored.affine), stored.sources, stored.unit, at=stored.at, frames=stored.frames
        )
    else:
        image = Radiograph(np.asarray(array), stored.spacing, stored.sources[0], stored.orientation, stored.aspect)
    files = tuple(instances / name for name in stored.files)
    return Item(stored.key, image, files, stored.facts, stored.notes, stored.version)


def drop_slabs(folder: Path, arrays: Sequence[NDArray[Any]]) -> None:
    """Remove the slabs of earlier readings of a series from its folder.

    Those that the arrays are mapped from stay, and those to which slices that came meanwhile are written (locked ones).
    """
    used = {Path(array.filename).name for array in arrays if isinstance(array, np.memmap) and array.filename}
    for slab in folder.glob("*.slab"):
        with suppress(FileNotFoundError, BlockingIOError), slab.open("rb") as file:
            if slab.name not in used:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                slab.unlink(missing_ok=True)


def drop_items(folder: Path, but: Container[str]) -> None:
    """Remove the items of earlier assemblies from the folder of a series, with what was found of them, but for some."""
    for key in items_in(folder):
        if key not in but:
            shutil.rmtree(folder / key)


def save_state(folder: Path, state: str) -> None:
    """Note in the folder of a series what its items were made of; nothing where that is empty."""
    if state:
        replace_file(folder / STATE, lambda file: file.write(state.encode()))


def state_of(folder: Path) -> str:
    """What the items of a series were made of here; empty where that was not noted."""
    try:
        return (folder / STATE).read_text()
    except FileNotFoundError:
        return ""


def items_in(folder: Path) -> set[str]:
    """The items that the last assembly has left in the folder of a series."""
    return {path.parent.name for path in folder.glob(f"*/{ITEM}")}


def _keep_array(folder: Path, array: NDArray[Any]) -> _StoredArray:
    if isinstance(array, np.memmap) and array.filename and Path(array.filename).parent == folder.parent:
        file, offset = f"../{Path(array.filename).name}", int(array.offset)
    else:
        file, offset = "image.raw", 0
        replace_file(folder / file, lambda target: target.write(np.ascontiguousarray(array).data))
    return _StoredArray(file=file, offset=offset, dtype=array.dtype.str, shape=array.shape)


def _boot() -> str:
    """Which boot of the machine this is; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def save_findings(folder: Path, findings: Findings, item: Item) -> None:
    """Leave the findings of one model about an item for the encoder."""
    classes = findings.classification.classes if findings.classification else ()
    stored = _StoredFindings(
        item=item.version,
        model=findings.model,
        engine=findings.engine,
        analysed_at=findings.analysed_at,
        segments=tuple(label_map.segments for label_map in findings.label_maps),
        classes=tuple(
            _StoredClass(
                label=entry.label,
                code=entry.code,
                probability=entry.probability,
                activation=entry.activation is not None,
            )
            for entry in classes
        ),
        exclusive=findings.classification is None or findings.classification.exclusive,
        detections=findings.detections,
        input_statistics=findings.input_statistics,
        measurements=findings.measurements,
        notes=findings.notes,
        seconds=dict(findings.seconds),
    )
    for number, label_map in enumerate(findings.label_maps):
        _keep_or_drop(folder / f"labels-{number}.npy", label_map.array)
        _keep_or_drop(folder / f"probabilities-{number}.npy", label_map.probabilities)
    for number, entry in enumerate(classes):
        _keep_or_drop(folder / f"activation-{number}.npy", entry.activation)
    replace_file(folder / FINDINGS, lambda file: file.write(stored.model_dump_json().encode()))


def _keep_or_drop(path: Path, array: NDArray[Any] | None) -> None:
    if array is None:
        path.unlink(missing_ok=True)
    else:
        replace_file(path, lambda file: np.save(file, array))


def found_of(folder: Path, item: Item) -> bool:
    """Whether the findings in a folder are there, and about an item as it is now."""
    try:
        stored = _StoredFindings.model_validate_json((folder / FINDINGS).read_text())
    except FileNotFoundError:
        return False
    return stored.item == item.version


def load_findings(folder: Path) -> Findings:
    """Read the findings of one model."""
    stored = _StoredFindings.model_validate_json((folder / FINDINGS).read_text())
    label_maps = [_load_label_map(folder, number, segments) for number, segments in enumerate(stored.segments)]
    classes = tuple(
        ClassProbability(
            entry.label,
            entry.code,
            entry.probability,
            np.load(folder / f"activation-{number}.npy") if entry.activation else None,
        )
        for number, entry in enumerate(stored.classes)
    )
    return Findings(
        model=stored.model,
        engine=stored.engine,
        analysed_at=stored.analysed_at,
        label_map=label_maps[0] if label_maps else None,
        classification=Classification(classes, stored.exclusive) if classes else None,
        detections=stored.detections,
        input_statistics=stored.input_statistics,
        measurements=stored.measurements,
        notes=stored.notes,
        seconds=stored.seconds,
        overlapping=tuple(label_maps[1:]),
    )


def _load_label_map(folder: Path, number: int, segments: tuple[Segment, ...]) -> LabelMap:
    probabilities = folder / f"probabilities-{number}.npy"
    return LabelMap(
        np.load(folder / f"labels-{number}.npy"),
        segments,
        np.load(probabilities, mmap_mode="r") if probabilities.exists() else None,
    )
