from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    EngineIdentity,
    Findings,
    LabelMap,
    Measurement,
    ModelIdentity,
    Radiograph,
    Segment,
    Volume,
)
from service.handover import load_findings, load_item, save_findings, save_item
from service.series.assembly import Item
from service.series.facts import ImageFacts

LUNG = Code("39607008", "SCT", "Lung")


def test_a_volume_comes_back_as_it_was_left(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.eye(4) + np.arange(16).reshape(4, 4) / 3
    item = Item(
        "volume", Volume(array, affine, ("1.1", "1.2")), (Path("a/x.dcm"), Path("a/y.dcm")),
        ImageFacts("CT", "CHEST", "", 2), ("lossy",),
    )  # fmt: skip
    save_item(tmp_path, item)
    read = load_item(tmp_path, Path("a"))
    assert isinstance(read.image, Volume)
    np.testing.assert_array_equal(read.image.array, array)
    np.testing.assert_array_equal(read.image.affine, affine)
    assert (read.image.sources, read.files, read.facts, read.notes) == (
        ("1.1", "1.2"),
        item.files,
        item.facts,
        item.notes,
    )


def test_a_radiograph_of_unknown_spacing_comes_back_as_it_was_left(tmp_path: Path) -> None:
    image = Radiograph(np.arange(6, dtype=np.float32).reshape(2, 3), None, "1.1")
    save_item(tmp_path, Item("key", image, (Path("a/x.dcm"),), ImageFacts("DX", "", "PA", 1), ()))
    read = load_item(tmp_path, Path("a"))
    assert isinstance(read.image, Radiograph)
    np.testing.assert_array_equal(read.image.array, image.array)
    assert (read.image.spacing, read.image.source) == (None, "1.1")


def test_findings_come_back_as_they_were_left(tmp_path: Path) -> None:
    segment = Segment(1, "Lung", LUNG, LUNG, (1, 2, 3), LUNG)
    labels = np.zeros((2, 3), np.uint8)
    labels[1, 1] = 1
    findings = Findings(
        ModelIdentity("m", "1", "ab", "1", "Apache-2.0", "research"),
        EngineIdentity("openvino", "fp32", "CPU"),
        datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        LabelMap(labels, (segment,)),
        Classification((ClassProbability("a", LUNG, 0.25), ClassProbability("b", LUNG, 0.75))),
        (Measurement(1, LUNG, 0.1 + 0.2, Code("mL", "UCUM", "mL")),),
        ("note",),
        {"infer": 1.5},
    )
    save_findings(tmp_path, findings)
    read = load_findings(tmp_path)
    assert read.label_map is not None
    np.testing.assert_array_equal(read.label_map.array, labels)
    assert read.label_map.segments == (segment,)
    for name in ("model", "engine", "analysed_at", "classification", "measurements", "notes", "seconds"):
        assert getattr(read, name) == getattr(findings, name), name
