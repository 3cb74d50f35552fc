"""The figures by which training and benchmarks judge the shipped models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from build_engines.recipes.evaluation import EVALUATIONS, accuracies, area_under_curve
from build_engines.recipes.sources import LEFT, NORMAL, PNEUMONIA, RIGHT, VIRAL, ClassifiedXray, split_lungs
from engines.packages.package import SHIPPED_MODELS


def test_judging_needs_no_pytorch() -> None:
    code = "import sys, build_engines.recipes.evaluation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_shipped_model_can_be_judged() -> None:
    assert EVALUATIONS.keys() == {folder.name for folder in SHIPPED_MODELS.iterdir() if folder.is_dir()}


def test_a_missing_data_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    for read in EVALUATIONS.values():
        with pytest.raises(FileNotFoundError, match="--data"):
            read(tmp_path)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == pytest.approx(0.875)


def test_accuracies_count_the_most_probable_class_and_compare_pneumonia_within_one_source() -> None:
    image = np.zeros((2, 2), np.float32)
    seen = [(NORMAL, "nih"), (PNEUMONIA, "nih"), (NORMAL, "mont"), (VIRAL, "cxnet")]
    cases = [ClassifiedXray(image, target, source) for target, source in seen]
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]])
    figures = accuracies(cases, probabilities, "test")
    assert figures["Accuracy, test"] == 0.5
    assert figures["AUC pneumonia against normal, NIH only, test"] == 1.0
    assert figures["AUC viral against normal, all sources, test"] == 1.0


def test_the_lung_with_the_larger_x_is_the_left_one() -> None:
    mask = np.zeros((4, 8, 20), np.uint8)
    mask[:, 2:6, 2:7] = mask[:, 2:6, 12:18] = 1
    labels = split_lungs(sitk.GetImageFromArray(mask))
    assert set(np.unique(labels[..., :10])) == {0, RIGHT}
    assert set(np.unique(labels[..., 10:])) == {0, LEFT}
