import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    Detection,
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
from service.handover import drop_slabs, found_of, load_findings, load_item, save_findings, save_item
from service.series.assembly import Item, assemble, assemble_from
from service.series.facts import ImageFacts
from service.series.reader import SeriesReader

LUNG = Code("39607008", "SCT", "Lung")


def test_a_volume_comes_back_as_it_was_left(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.eye(4) + np.arange(16).reshape(4, 4) / 3
    volume = Volume(array, affine, ("1.1", "1.2"), at=(0.0, 1.0), frames=(1, 2))
    item = Item(
        "volume", volume, (Path("a/x.dcm"), Path("a/y.dcm")),
        ImageFacts("CT", "CHEST", "", 2, image_type=("ORIGINAL", "PRIMARY"), slice_thickness_mm=2.5), ("lossy",), "1f",
    )  # fmt: skip
    save_item(tmp_path, item)
    read = load_item(tmp_path, Path("a"))
    assert isinstance(read.image, Volume)
    np.testing.assert_array_equal(read.image.array, array)
    np.testing.assert_array_equal(read.image.affine, affine)
    assert (read.image.sources, read.image.at, read.image.frames) == (volume.sources, volume.at, volume.frames)
    assert (read.files, read.facts, read.notes, read.version) == (item.files, item.facts, item.notes, item.version)


def test_the_slices_of_a_volume_stay_in_the_slab_that_they_were_read_into(phantom_ct: Path, tmp_path: Path) -> None:
    files = sorted(phantom_ct.iterdir())
    with ThreadPoolExecutor(2) as pool:
        [item] = assemble_from(SeriesReader(tmp_path, pool), files).items
    (tmp_path / "volume").mkdir()
    save_item(tmp_path / "volume", item)
    assert [path.name for path in (tmp_path / "volume").iterdir()] == ["item.json"]
    (tmp_path / "left.slab").touch()
    drop_slabs(tmp_path, [item.image.array])
    [slab] = tmp_path.glob("*.slab")
    read = load_item(tmp_path / "volume", files[0].parent)
    np.testing.assert_array_equal(read.image.array, item.image.array)
    np.testing.assert_array_equal(read.image.array[0], assemble(files).items[0].image.array[0])
    assert slab.stat().st_blocks * 512 < 1.2 * item.image.array.nbytes, "unused slots take no room"


def test_an_item_of_an_earlier_boot_of_the_machine_is_not_trusted(tmp_path: Path) -> None:
    image = Radiograph(np.zeros((2, 3), np.float32), None, "1.1")
    save_item(tmp_path, Item("key", image, (Path("a/x.dcm"),), ImageFacts("DX", "", "PA", 1), ()))
    stored = tmp_path / "item.json"
    content = json.loads(stored.read_text())
    stored.write_text(json.dumps(content | {"boot": "another"}))
    with pytest.raises(FileNotFoundError):
        load_item(tmp_path, Path("a"))


def test_a_radiograph_of_unknown_spacing_comes_back_as_it_was_left(tmp_path: Path) -> None:
    image = Radiograph(np.arange(6, dtype=np.float32).reshape(2, 3), None, "1.1", ("F", "R"), 2.0)
    save_item(tmp_path, Item("key", image, (Path("a/x.dcm"),), ImageFacts("DX", "", "PA", 1), ()))
    read = load_item(tmp_path, Path("a"))
    assert isinstance(read.image, Radiograph)
    np.testing.assert_array_equal(read.image.array, image.array)
    assert (read.image.spacing, read.image.source, read.image.orientation) == (None, "1.1", ("F", "R"))
    assert read.image.aspect == 2.0


def test_findings_come_back_as_they_were_left(tmp_path: Path) -> None:
    segment = Segment(1, "Lung", LUNG, LUNG, (1, 2, 3), LUNG)
    labels = np.zeros((2, 3), np.uint8)
    labels[1, 1] = 1
    findings = Findings(
        ModelIdentity("m", "1", "ab", "1", "Apache-2.0", "research"),
        EngineIdentity("openvino", "fp32", "CPU"),
        datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        LabelMap(labels, (segment,)),
        Classification((ClassProbability("a", LUNG, 0.25), ClassProbability("b", LUNG, 0.5)), exclusive=False),
        (Measurement(1, LUNG, 0.1 + 0.2, Code("mL", "UCUM", "mL")),),
        ("note",),
        {"infer": 1.5},
        detections=Detections((Detection("x", LUNG, 0.1 + 0.2, (1.0, 2.0), (3.5, 4.25)),), (("x", LUNG), ("y", LUNG))),
        input_statistics=(InputStatistic("mean", 0.3, "HU", -1.0, 2.0), InputStatistic("p5", 0.1, "")),
    )
    image = Radiograph(np.zeros((2, 3), np.float32), None, "1.1")
    item = Item("key", image, (Path("a/x.dcm"),), ImageFacts("DX", "", "PA", 1), (), version="1f")
    assert not found_of(tmp_path, item)
    save_findings(tmp_path, findings, item)
    assert found_of(tmp_path, item)
    assert not found_of(tmp_path, replace(item, version="20"))
    read = load_findings(tmp_path)
    assert read.label_map is not None
    np.testing.assert_array_equal(read.label_map.array, labels)
    assert read.label_map.segments == (segment,)
    compared = ("model", "engine", "analysed_at", "classification", "measurements", "notes", "seconds")
    for name in (*compared, "detections", "input_statistics"):
        assert getattr(read, name) == getattr(findings, name), name
