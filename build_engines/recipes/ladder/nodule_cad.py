"""The ladder of the CAD pipeline for CT nodules, classical and deep; and its features on the patches of LUNA16."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from build_engines.recipes.data.nlst import read_nlst
from build_engines.recipes.data.sources import read_chests
from build_engines.recipes.figures.nodules import NAME, candidates, found_by, lowered, lungs_of
from build_engines.recipes.folders import KEPT
from build_engines.recipes.ladder.cad import classify, deep, features, scans
from build_engines.recipes.ladder.cad.classify import CLASSIFIERS, RESPONSE
from build_engines.recipes.ladder.cad.features import GROUPS
from build_engines.recipes.ladder.cad.judging import froc_figures, judge, single_figures
from build_engines.recipes.ladder.cad.scans import Searched, chests_to_judge
from build_engines.recipes.ladder.measure import measure_package, time_of
from build_engines.recipes.ladder.nodule_patches import JUDGED_ON as LUNA_JUDGED_ON
from build_engines.recipes.ladder.nodule_patches import TRAINED_ON as LUNA_TRAINED_ON
from build_engines.recipes.ladder.nodule_patches import figures
from build_engines.recipes.ladder.rows import Result, Row
from build_engines.recipes.ladder.unpackaged import Compiled, train_and_judge
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.serving.engine_set import EngineSet
from evaluation.estimate import Estimate
from evaluation.metrics.detection import match

TRAINED_ON = "80 LIDC-IDRI nodules: put into 4 chests of LCTSC, 16 draws of 20, and in patches of 51 mm"
JUDGED_ON = "20 LIDC-IDRI nodules of other patients, put into LCTSC-202, 24 draws of 10; intervals by nodule"
PUBLISHED = "sensitivity 94.6 %; 95.6 % at 4.88 false positives a scan; 87 % under 8 mm (LIDC)"
DIFFERS = "whole chests of LIDC there; here nodules put into one chest of 2 × 2 × 3 mm"

EVERY_GROUP = (RESPONSE, *GROUPS)

TIMED = 50
"""Candidates that are described and scored at once to be timed, as those of a scan are."""

OUTPUT = "classes"
STEPS = 2400

T = TypeVar("T")


def shipped(data: Path, seed: int) -> Result:
    """Judge ``ct-nodule`` as it is shipped on the same CT; nothing is trained or drawn.

    The lungs of the held-out chest are found once, before nodules are put into it.
    """
    package = load_package(SHIPPED_MODELS / NAME)
    lower = lowered(package)

    def judged(engines: EngineSet) -> dict[str, Estimate]:
        (chest,) = read_chests(data, held_out=True)
        lungs = lungs_of(engines, package, chest.volume)
        figures = froc_figures([
            match(candidates(found_by(engines, lower, volume, lungs)), lesions)
            for volume, lesions in chests_to_judge(data)
        ])  # fmt: skip
        real, lesion = read_nlst(data)
        found = found_by(engines, lower, real, lungs_of(engines, package, real))
        of_nlst = single_figures(match(candidates(found), [lesion]))
        return figures | {f"nlst.{name}": each for name, each in of_nlst.items()}

    return measure_package(package, judged)


def candidates_only(data: Path, seed: int) -> Result:
    """Judge the search by itself: what the dot filter answers more strongly counts more."""
    searched = _searched(data, seed)
    volume, _ = read_nlst(data)
    return Result(
        metrics=judge(searched, [np.array([each.response for each in scan.candidates]) for scan in searched.judged]),
        latency_ms=time_of(lambda: scans.search(volume, ()), rounds=3),
        engine="Python, one scan of 143 slices",
        seed=seed,
    )


def classical(kind: str, groups: Sequence[str], data: Path, seed: int) -> Result:
    """Train a classical classifier on some groups of features, and judge it."""
    searched = _searched(data, seed)
    described = _kept(classify.describe_all, ["searched"])(searched=searched, data=data, seed=seed)
    begun = perf_counter()
    classifier = CLASSIFIERS[kind](seed).fit(described.training.matrix(groups), described.training.targets)
    seconds = perf_counter() - begun
    scan, some = searched.real, np.arange(TIMED)
    return Result(
        metrics=judge(searched, [classify.scores(classifier, each.matrix(groups)) for each in described.judged]),
        latency_ms=time_of(lambda: classify.scores(classifier, classify.describe_scan(scan, some).matrix(groups)))
        / TIMED,
        engine="Python, all features of one candidate",
        seconds=seconds,
        seed=seed,
    )


def deep_classifier(steps: int, data: Path, seed: int) -> Result:
    """Train the deep classifier on the cubes around candidates, and judge it compiled."""
    searched = _searched(data, seed)

    def figures_of(engine: Compiled) -> dict[str, Estimate]:
        found = [deep.scores(scan, lambda cube: engine.infer(cube)[OUTPUT]) for scan in searched.judged]
        return judge(searched, found)

    result = train_and_judge(
        deep.training_cubes(searched.training, seed),
        steps,
        seed,
        np.zeros((1, 1, *(deep.SIDE,) * 3), np.float32),
        (OUTPUT,),
        figures_of,
    )
    return replace(result, engine="OpenVINO FP32, one candidate")


def classical_patches(kind: str, groups: Sequence[str], data: Path, seed: int) -> Result:
    """Train a classical classifier on the features of LUNA16's patches, and judge it."""
    learned, judged = (_kept(classify.describe_luna)(data=data, split=split) for split in ("train", "val"))
    begun = perf_counter()
    classifier = CLASSIFIERS[kind](seed).fit(learned.matrix(groups), learned.targets)
    seconds = perf_counter() - begun
    patches, labels = np.zeros((TIMED, 50, 50), np.uint8), np.zeros(TIMED, np.int64)
    return Result(
        metrics=figures(classify.scores(classifier, judged.matrix(groups)), judged.targets),
        latency_ms=time_of(
            lambda: classify.scores(classifier, classify.describe_patches(patches, labels).matrix(groups))
        )
        / TIMED,
        engine="Python, all features",
        seconds=seconds,
        seed=seed,
    )


def _searched(data: Path, seed: int) -> Searched:
    found: Searched = scans.kept(KEPT / "cad").cache(scans.search_all)(data, seed)
    return found


def _kept(function: Callable[..., T], ignore: Sequence[str] = ()) -> Callable[..., T]:
    """Keep what a function of `classify` answers; the features of a scan take minutes, and every row needs them."""
    cached: Callable[..., T] = scans.kept(KEPT / "cad", classify, features).cache(function, ignore=list(ignore))
    return cached


def _row(title: str, kind: str, groups: Sequence[str], published: str = "") -> Row:
    return Row(
        table="nodule-cad",
        title=title,
        run=partial(classical, kind, groups),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=published,
        differs=DIFFERS if published else "",
    )


def _patch_row(title: str, kind: str, groups: Sequence[str]) -> Row:
    return Row(
        table="nodule-patches",
        title=f"Nodule or not: {title}",
        run=partial(classical_patches, kind, groups),
        trained_on=LUNA_TRAINED_ON,
        judged_on=LUNA_JUDGED_ON,
    )


ROWS: Mapping[str, Row] = {
    "nodule-cad-shipped": Row(
        table="nodule-cad",
        title="ct-nodule as shipped: 3D centre-point detector in the lungs of ct-lung, no search",
        run=shipped,
        trained_on="80 LIDC-IDRI nodules: put into 4 chests of LCTSC anew at every step, and in patches of 51 mm",
        judged_on=JUDGED_ON,
        published="mean FROC sensitivity 0.891: Ding et al., MICCAI 2017 (LUNA16)",
        differs=DIFFERS,
    ),
    "nodule-cad-candidates": Row(
        table="nodule-cad",
        title="Search alone: blobs of several sizes, dot filter",
        run=candidates_only,
        trained_on="nothing",
        judged_on=JUDGED_ON,
    ),
    "nodule-cad-forest": _row("Search, all features, random forest", "forest", EVERY_GROUP, PUBLISHED),
    "nodule-cad-svm": _row("Search, all features, support vector machine", "support vectors", EVERY_GROUP),
    "nodule-cad-pca": _row("Search, 20 principal components, support vector machine", "components", EVERY_GROUP),
    **{
        f"nodule-cad-{name}": _row(f"Search, {title} only, random forest", "forest", (name,))
        for name, title in (
            ("lbp", "local binary patterns"),
            ("gradient", "gradients"),
            ("statistics", "mean, variance and percentiles"),
            ("texture", "co-occurrence texture"),
            ("shape", "shape"),
        )
    },
    "nodule-cad-deep": Row(
        table="nodule-cad",
        title=f"Search, 3D network on cubes of 48 mm, {STEPS} steps",
        run=partial(deep_classifier, STEPS),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=PUBLISHED,
        differs=DIFFERS,
    ),
    "nodule-patch-forest": _patch_row("all features, random forest", "forest", tuple(GROUPS)),
    "nodule-patch-pca": _patch_row("20 principal components, support vector machine", "components", tuple(GROUPS)),
    "nodule-patch-lbp": _patch_row("local binary patterns, random forest", "forest", ("lbp",)),
    "nodule-patch-gradient": _patch_row("gradients, random forest", "forest", ("gradient",)),
}
