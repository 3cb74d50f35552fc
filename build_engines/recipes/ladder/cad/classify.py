"""The classical classifiers of candidates: a forest, and a support vector machine, with principal components or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from build_engines.recipes.data.nodules import LUNA_WINDOW, read_luna
from build_engines.recipes.ladder.cad.candidates import Candidate
from build_engines.recipes.ladder.cad.features import Bytes, Features, describe
from build_engines.recipes.ladder.cad.preprocessing import SPACING_MM
from build_engines.recipes.ladder.cad.scans import Scan, Searched, to_learn

REACH = 24
"""Voxels that are looked at around a candidate, at most."""

RESPONSE = "response"
"""The group of features that the search itself gives."""

PATCH_RADII = (4.0, 10.0)
"""Pixels that are looked at in a patch, whose finding may be of any size."""

COMPONENTS = 20


@dataclass(frozen=True, eq=False)
class Described:
    """Features by group, each ``[n, feature]``, and the classes ``[n]``: 1 is a nodule."""

    groups: Mapping[str, Features]
    targets: NDArray[np.int64]

    def matrix(self, names: Sequence[str]) -> Features:
        """Join some groups: ``[n, feature]``."""
        return np.concatenate([self.groups[name] for name in names], axis=1)


def describe_scan(scan: Scan, chosen: NDArray[np.int64] | None = None) -> Described:
    """Give the features of a scan's candidates, or of some of them."""
    chosen = np.arange(len(scan.candidates)) if chosen is None else chosen
    found = [scan.candidates[index] for index in chosen]
    cubes = scan.around([candidate.centre for candidate in found], REACH, REACH + 1)
    rows = [
        {RESPONSE: _response(candidate), **describe(cube, candidate.diameter_mm / 2 / SPACING_MM)}
        for cube, candidate in zip(cubes, found, strict=True)
    ]
    return Described(_stacked(rows), scan.targets[chosen])


@dataclass(frozen=True, eq=False)
class DescribedScans:
    """Features of `scans.Searched`: of chosen candidates to learn from, and of all candidates that are judged."""

    training: Described
    judged: tuple[Described, ...]


def describe_all(searched: Searched, data: Path, seed: int) -> DescribedScans:
    """Give all features; to learn from are all candidates that are nodules, and up to `OTHERS` a scan that are not.

    ``data`` and ``seed`` are those that were searched with; what is kept of this function's answers goes by them.
    """
    random = np.random.default_rng(seed)
    return DescribedScans(
        training=joined([describe_scan(scan, to_learn(scan, random)) for scan in searched.training]),
        judged=tuple(map(describe_scan, searched.judged)),
    )


def joined(parts: Sequence[Described]) -> Described:
    """Put several one after the other."""
    groups = {name: np.concatenate([part.groups[name] for part in parts]) for name in parts[0].groups}
    return Described(groups, np.concatenate([part.targets for part in parts]))


def describe_patches(images: Bytes, targets: NDArray[np.int64]) -> Described:
    """Give the features of 2D patches ``[patch, row, column]``, each looked at within several radii."""
    rows = []
    for image in images:
        near = [describe(image, radius) for radius in PATCH_RADII]
        rows.append({name: np.concatenate([each[name] for each in near]) for name in near[0]})
    return Described(_stacked(rows), targets)


def describe_luna(data: Path, split: str) -> Described:
    """Give the features of the patches of LUNA16."""
    images, labels = read_luna(data, split)
    low, high = LUNA_WINDOW
    return describe_patches(np.rint((images - low) / (high - low) * 255).astype(np.uint8), labels)


def forest(seed: int) -> Any:
    """A random forest (Breiman, Machine Learning 45, 2001)."""
    return RandomForestClassifier(400, min_samples_leaf=2, class_weight="balanced_subsample", random_state=seed)


def support_vectors(seed: int) -> Any:
    """A support vector machine with a Gaussian kernel (Cortes and Vapnik, Machine Learning 20, 1995)."""
    return make_pipeline(StandardScaler(), SVC(C=3.0, class_weight="balanced", random_state=seed))


def components(seed: int) -> Any:
    """The same on the first principal components of the features."""
    reduced = PCA(COMPONENTS, random_state=seed)
    return make_pipeline(StandardScaler(), reduced, SVC(C=3.0, class_weight="balanced", random_state=seed))


CLASSIFIERS: Mapping[str, Callable[[int], Any]] = {
    "forest": forest,
    "support vectors": support_vectors,
    "components": components,
}


def scores(classifier: Any, features: Features) -> NDArray[np.float64]:
    """Score rows of features in 0–1, larger the more they look like a nodule; no probability."""
    if hasattr(classifier, "predict_proba"):
        found: NDArray[np.float64] = classifier.predict_proba(features)[:, 1]
        return found
    return 1 / (1 + np.exp(-np.asarray(classifier.decision_function(features), np.float64)))


def _response(candidate: Candidate) -> Features:
    steepest, middle, flattest = candidate.eigenvalues
    sizes = (candidate.sigma_mm, candidate.response, steepest, middle, flattest)
    return np.array([*sizes, flattest / steepest, middle / steepest], np.float32)


def _stacked(rows: Sequence[Mapping[str, Features]]) -> dict[str, Features]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
