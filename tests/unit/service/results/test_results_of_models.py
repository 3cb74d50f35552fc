"""From a small model of each kind to checked results: what engines find is what results can hold."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from engines.inference.analyse import analyse
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Findings, Image, Radiograph, Volume
from service.handover import load_findings, save_findings
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.profile import ResultProfile
from service.series.assembly import Item
from service.series.facts import ImageFacts
from tests.small_models import classifier_package, detector_package, overlapping_package
from tests.unit.service.results.examples import small_ct, small_radiograph
from tests.unit.service.results.report_content import groups, image_of, regions, stated

EVERYTHING = ResultProfile(objects=tuple(KINDS), captures=2)


def found_by(package: Path, image: Image, folder: Path) -> Findings:
    """What a model finds, as it comes out of the spool."""
    model = load_package(package)
    with create_engine(model, RuntimeSettings(threads=1)) as engine:
        found = analyse(model, engine, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    item = Item("key", image, (), ImageFacts("CT", "CHEST", "", 1), (), version="1")
    save_findings(folder, found, item)
    return load_findings(folder)


def ct_with_a_ball(oblique: bool = False) -> tuple[Volume, list[Dataset], np.ndarray]:
    """Air with a dense ball of 10 mm in it, denser in its middle; where that is in LPS mm."""
    volume, headers = small_ct((8, 40, 44), oblique=oblique)
    index = np.stack(np.meshgrid(*map(np.arange, volume.array.shape), indexing="ij"), axis=-1)
    position = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    centre = (volume.affine @ (4, 26, 12, 1))[:3]
    away = np.linalg.norm(position - centre, axis=-1)
    array = np.where(away < 5.5, 0, -1000).astype(np.int16)
    return replace(volume, array=array), headers, centre


def by_kind(analysis: Analysis, folder: Path) -> dict[str, list[Path]]:
    made = encode(analysis, folder)
    return {kind: [entry.path for entry in made if entry.kind == kind] for kind in {entry.kind for entry in made}}


@pytest.mark.parametrize("oblique", [False, True])
def test_a_ball_that_a_model_detects_is_boxed_in_the_report(oblique: bool, tmp_path: Path) -> None:
    volume, headers, centre = ct_with_a_ball(oblique)
    found = found_by(detector_package(tmp_path), volume, tmp_path)
    made = by_kind(Analysis(found, volume, headers, EVERYTHING), tmp_path / "results")
    [report] = made["SR"]
    first, whole = groups(report)
    assert (stated(first, "Finding"), stated(whole, "Finding")) == (["Nodule"], ["Nodule"])
    [ring] = regions(first)
    slice_ = [header.SOPInstanceUID for header in headers].index(image_of(first).ReferencedSOPInstanceUID)
    column, row = (ring.min(axis=0) + ring.max(axis=0)) / 2 - 0.5
    middle = (volume.slice_affine(slice_) @ (0, row, column, 1))[:3]
    # half a step of the slices and a voxel of the network's grid
    assert np.linalg.norm(middle - centre) < 1.25 + 2


def test_segments_that_overlap_become_two_segs_and_one_report(tmp_path: Path) -> None:
    volume, headers, centre = ct_with_a_ball()
    index = np.stack(np.meshgrid(*map(np.arange, volume.array.shape), indexing="ij"), axis=-1)
    position = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    away = np.linalg.norm(position - centre, axis=-1)
    array = np.where(away < 6, 0, np.where(away < 12, -500, -1000)).astype(np.int16)
    volume = replace(volume, array=array)
    found = found_by(overlapping_package(tmp_path), volume, tmp_path)
    assert len(found.label_maps) == 2
    whole, core = (label_map.array > 0 for label_map in found.label_maps)
    assert (core & whole).sum() == core.sum() > 0
    made = by_kind(Analysis(found, volume, headers, EVERYTHING), tmp_path / "results")
    segments = [pydicom.dcmread(path).SegmentSequence[0].SegmentLabel for path in made["SEG"]]
    assert segments == ["Whole", "Core"]
    volumes = [float(value) for item in groups(made["SR"][0]) for value in stated(item, "Volume")]
    assert volumes[0] > volumes[1] > 0
    assert len(pydicom.dcmread(made["RTSTRUCT"][0]).StructureSetROISequence) == 2


def bright(shape: tuple[int, int]) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array[20:37, 50:67] = 1.0
    return array


@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "F"), ("L", "H")])
def test_a_spot_on_an_x_ray_that_a_model_detects_is_boxed_in_the_report(
    orientation: tuple[str, str], tmp_path: Path
) -> None:
    image, headers = small_radiograph((96, 96), spacing=(0.2, 0.2))
    image = Radiograph(bright((96, 96)), image.spacing, image.source, orientation)
    found = found_by(detector_package(tmp_path, grid=(32, 48)), image, tmp_path)
    made = by_kind(Analysis(found, image, headers, EVERYTHING), tmp_path / "results")
    [group] = groups(made["SR"][0])
    [ring] = regions(group)
    column, row = (ring.min(axis=0) + ring.max(axis=0)) / 2 - 0.5
    assert (abs(row - 28) <= 3.01, abs(column - 58) <= 3.01) == (True, True)


@pytest.mark.parametrize(("value", "finding"), [(0.9, ["Bright"]), (0.1, ["Dark"])])
def test_classes_that_stand_alone_come_through_the_spool_as_such(
    value: float, finding: list[str], tmp_path: Path
) -> None:
    image, headers = small_radiograph((32, 32))
    array = np.full((32, 32), value, np.float32)
    array[0, 0], array[0, 1] = 0.0, 1.0
    image = Radiograph(array, None, image.source)
    found = found_by(classifier_package(tmp_path, crop_to=None, exclusive=False), image, tmp_path)
    assert found.classification is not None
    assert not found.classification.exclusive
    made = by_kind(Analysis(found, image, headers, EVERYTHING), tmp_path / "results")
    assert [stated(item, "Finding") for item in groups(made["SR"][0])] == [finding]
    statements = pydicom.dcmread(made["SR"][0]).ContentSequence[-2].ContentSequence
    assert found.input_statistics
    assert str(statements[-1].TextValue).startswith("The image as tiny-class saw it: ")
