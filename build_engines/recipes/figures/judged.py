"""What the shipped models are judged on: the images that they were not trained on, in sets. Needs no PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from build_engines.recipes.data.implant import implant
from build_engines.recipes.data.nodules import NodulePatch, read_lidc
from build_engines.recipes.data.sources import (
    LEFT,
    RIGHT,
    LabelledCt,
    OutlinedXray,
    classified_cases,
    read_chests,
    read_masks,
)
from build_engines.recipes.figures.lungs import OTHER, VALIDATION
from build_engines.recipes.figures.lungs import judged as judged_cts
from engines.packages.package import ModelPackage
from engines.types import Radiograph
from evaluation.cases import Case
from evaluation.estimate import Estimate
from evaluation.judge import Models, judge

Sets = Mapping[str, Sequence[Case]]
"""Cases by the set's name."""


def figures(package: ModelPackage, models: Models, sets: Sets) -> dict[str, Estimate]:
    """Judge a model on each set: ``SET.METRIC``. What a single segment's figures say twice is said once."""
    return {
        f"{name}.{metric}": estimate
        for name, cases in sets.items()
        for metric, estimate in judge(package, models, cases, name).metrics.items()
        if not (len(package.segments) == 1 and metric.endswith(f"_{package.segments[0].label.lower()}"))
    }


def ct_lungs(data: Path) -> Sets:
    """Read the two real CT that ``ct-lung`` was not trained on."""
    cts = judged_cts(data)
    return {name: (ct_case(name, cts[name]),) for name in (VALIDATION, OTHER)}


def xray_lungs(data: Path) -> Sets:
    """Read the X-rays with lung masks that ``cxr-lung`` was not trained on."""
    return {name: outlined_cases(xrays) for name, xrays in read_outlined(data).items()}


def read_outlined(data: Path) -> dict[str, tuple[OutlinedXray, ...]]:
    """Read the same as arrays.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``cxr_lung/manifest.csv``.
    """
    return {
        "montgomery_val": read_masks(data, "montgomery", "val"),
        "montgomery_test": read_masks(data, "montgomery", "test"),
        "shenzhen": read_masks(data, "shenzhen", "train", "val", "test"),
    }


def xray_classes(data: Path) -> Sets:
    """Find the test rows of the X-rays with a class: all, and those of NIH, where the source says nothing.

    An image that was read is kept.
    """
    rows = [replace(case, image=cache(case.image)) for case in classified_cases(data, "test")]
    return {"test": tuple(rows), "nih": tuple(case for case in rows if case.groups["source"] == "nih")}


def nodule_scans(data: Path) -> Sets:
    """Put the held-out nodules into the held-out chest, a half of them at a time."""
    (chest,), held_out = read_chests(data, held_out=True), read_lidc(data, held_out=True)
    return {"implanted": tuple(nodule_case(chest, held_out[half::2], seed=half) for half in (0, 1))}


SETS: Mapping[str, Callable[[Path], Sets]] = {
    "ct-lung": ct_lungs,
    "ct-nodule": nodule_scans,
    "cxr-lung": xray_lungs,
    "cxr-pneumonia": xray_classes,
}
"""Of each shipped model, from the folder of the data."""


def ct_case(name: str, ct: LabelledCt) -> Case:
    """Make a case of a CT with left and right lung."""
    masks = {"Left lung": ct.labels == LEFT, "Right lung": ct.labels == RIGHT}
    return Case(name, patient=name, image=lambda: ct.volume, masks=lambda: masks)


def nodule_case(chest: LabelledCt, nodules: Sequence[NodulePatch], seed: int) -> Case:
    """Make a case of a CT with nodules that are put into its lungs."""
    volume, lesions = implant(chest, nodules, np.random.default_rng(seed))
    return Case(f"implanted-{seed}", f"implanted-{seed}", image=lambda: volume, lesions=lesions)


def outlined_cases(xrays: Sequence[OutlinedXray]) -> tuple[Case, ...]:
    """Make cases of X-rays with a lung mask; each is another patient's."""

    return tuple(
        Case(
            name=xray.name or str(number),
            patient=xray.name or str(number),
            image=partial(Radiograph, xray.image, None, ""),
            masks=partial(dict, Lung=xray.mask),
        )
        for number, xray in enumerate(xrays)
    )
