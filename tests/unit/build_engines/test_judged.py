"""The images by which training and benchmarks judge the shipped models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from build_engines.recipes.data.sources import LEFT, RIGHT, OutlinedXray, classified_cases, split_lungs
from build_engines.recipes.figures.judged import SETS, figures, outlined_cases
from build_engines.recipes.packaging.texts import with_figures
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from engines.types import Radiograph
from evaluation.estimate import Estimate
from tests.small_models import xray_package


def test_judging_needs_no_pytorch() -> None:
    code = "import sys, build_engines.recipes.figures.judged; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_shipped_models_are_judged() -> None:
    assert SETS.keys() == {folder.name for folder in SHIPPED_MODELS.iterdir() if folder.is_dir()}


def test_a_missing_data_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    for read in SETS.values():
        with pytest.raises(FileNotFoundError, match="--data"):
            read(tmp_path)


def test_a_figure_has_its_set_in_its_name_and_is_there_once(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    bright = np.zeros((64, 96), np.float32)
    bright[16:48, 24:72] = 255
    right, wrong = OutlinedXray(bright, bright > 0, "one"), OutlinedXray(bright, bright == 0, "two")
    # the model calls it "Field"; the reference of these sets always is "Lung"
    renamed = [case for case in outlined_cases([right, wrong]) if case.masks and case.masks().keys() == {"Lung"}]
    assert [case.name for case in renamed] == ["one", "two"]
    with open_engines({package.name: package}, RuntimeSettings()) as engines:
        assert figures(package, engines, {"lungs": renamed}) == {}
        as_fields = [
            type(case)(case.name, case.patient, case.image, masks=lambda mask=mask: {"Field": mask})
            for case, mask in zip(renamed, (right.mask, wrong.mask), strict=True)
        ]
        found = figures(package, engines, {"good": as_fields[:1], "bad": as_fields[1:]})
    assert found["good.dice"].value == pytest.approx(1.0, abs=0.02)
    assert found["bad.dice"].value == pytest.approx(0.0, abs=0.02)
    assert not [name for name in found if name.endswith("_field")]


def test_every_row_of_a_split_is_a_case_of_its_patient_and_source(shared_data: Path) -> None:
    cases = classified_cases(shared_data, "test")
    assert len(cases) > 200
    assert {case.label for case in cases} == {"normal", "pneumonia", "viral"}
    assert len({case.patient for case in cases}) < len(cases)
    assert all(case.patient.startswith(f"{case.groups['source']}/") for case in cases)
    image = cases[0].image()
    assert isinstance(image, Radiograph)
    assert max(image.array.shape) <= 384
    nih = SETS["cxr-pneumonia"](shared_data)["nih"]
    assert {case.groups["source"] for case in nih} == {"nih"}


def test_the_lung_with_the_larger_x_is_the_left_one() -> None:
    mask = np.zeros((4, 8, 20), np.uint8)
    mask[:, 2:6, 2:7] = mask[:, 2:6, 12:18] = 1
    labels = split_lungs(sitk.GetImageFromArray(mask))
    assert set(np.unique(labels[..., :10])) == {0, RIGHT}
    assert set(np.unique(labels[..., 10:])) == {0, LEFT}


def test_a_card_says_where_a_figure_has_no_interval() -> None:
    card = "# A model\n\n<!-- figures -->\nold\n<!-- /figures -->\n"
    written = with_figures(card, {"dice": Estimate(0.97, np.nan, np.nan), "iou": Estimate(0.9, 0.85, 0.95)})
    assert "| dice | 0.970 | none |\n| iou | 0.900 | 0.850–0.950 |\n" in written
    assert "old" not in written
