"""What one stage leaves in the spool for the next: items (images with their facts) and findings.

Each is a JSON file beside a plain ``.npy`` array. Files are replaced atomically, so a stage that runs twice, or while
another one reads, does no harm. All of it can be made again from the received instances.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from engines.types import (
    Classification,
    EngineIdentity,
    Findings,
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


class _StoredItem(BaseModel):
    key: str
    affine: list[list[float]] | None = None
    sources: tuple[str, ...]
    unit: str = ""
    spacing: tuple[float, float] | None = None
    files: tuple[str, ...]
    facts: ImageFacts
    notes: tuple[str, ...]


class _StoredFindings(BaseModel):
    model: ModelIdentity
    engine: EngineIdentity
    analysed_at: datetime
    segments: tuple[Segment, ...] | None
    classification: Classification | None
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def save_item(folder: Path, item: Item) -> None:
    """Leave an item for the stages after assembly."""
    image = item.image
    if isinstance(image, Volume):
        stored = _StoredItem(
            key=item.key, affine=image.affine.tolist(), sources=image.sources, unit=image.unit,
            files=tuple(file.name for file in item.files), facts=item.facts, notes=item.notes,
        )  # fmt: skip
    else:
        stored = _StoredItem(
            key=item.key, sources=(image.source,), spacing=image.spacing,
            files=tuple(file.name for file in item.files), facts=item.facts, notes=item.notes,
        )  # fmt: skip
    replace_file(folder / "image.npy", lambda file: np.save(file, image.array))
    replace_file(folder / "item.json", lambda file: file.write(stored.model_dump_json().encode()))


def load_item(folder: Path, instances: Path) -> Item:
    """Read an item; ``instances`` is the folder of the received files. The array of a volume is mapped, not read."""
    stored = _StoredItem.model_validate_json((folder / "item.json").read_text())
    array = np.load(folder / "image.npy", mmap_mode="r")
    image: Volume | Radiograph
    if stored.affine is not None:
        image = Volume(array, np.asarray(stored.affine), stored.sources, stored.unit)
    else:
        image = Radiograph(np.asarray(array), stored.spacing, stored.sources[0])
    files = tuple(instances / name for name in stored.files)
    return Item(stored.key, image, files, stored.facts, stored.notes)


def save_findings(folder: Path, findings: Findings) -> None:
    """Leave the findings of one model for the encoder."""
    label_map = findings.label_map
    stored = _StoredFindings(
        model=findings.model,
        engine=findings.engine,
        analysed_at=findings.analysed_at,
        segments=None if label_map is None else label_map.segments,
        classification=findings.classification,
        measurements=findings.measurements,
        notes=findings.notes,
        seconds=dict(findings.seconds),
    )
    if label_map is not None:
        replace_file(folder / "labels.npy", lambda file: np.save(file, label_map.array))
    replace_file(folder / "findings.json", lambda file: file.write(stored.model_dump_json().encode()))


def load_findings(folder: Path) -> Findings:
    """Read the findings of one model."""
    stored = _StoredFindings.model_validate_json((folder / "findings.json").read_text())
    label_map = None
    if stored.segments is not None:
        label_map = LabelMap(np.load(folder / "labels.npy"), stored.segments)
    return Findings(
        model=stored.model,
        engine=stored.engine,
        analysed_at=stored.analysed_at,
        label_map=label_map,
        classification=stored.classification,
        measurements=stored.measurements,
        notes=stored.notes,
        seconds=stored.seconds,
    )
