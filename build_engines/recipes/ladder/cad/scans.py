"""The CT that the pipeline learns from and is judged on, searched: candidates, and which of them are nodules.

Nodules of LIDC-IDRI are known in patches only; for whole lungs they are put into chests of LCTSC (`implant`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import starmap
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
from numpy.typing import NDArray

from build_engines.recipes.data import implant as implanting
from build_engines.recipes.data import nlst
from build_engines.recipes.data import nodules as nodules_of
from build_engines.recipes.data.implant import implant
from build_engines.recipes.data.nlst import read_nlst
from build_engines.recipes.data.nodules import NodulePatch, read_lidc
from build_engines.recipes.data.sources import LabelledCt, read_chests
from build_engines.recipes.ladder.cad import candidates, preprocessing
from build_engines.recipes.ladder.cad.candidates import Candidate, find
from build_engines.recipes.ladder.cad.features import Bytes
from build_engines.recipes.ladder.cad.preprocessing import prepare
from engines.types import Affine, Volume
from evaluation.cases import Lesion

NODULE, OTHER, NEITHER = 1, 0, -1

TEST_SEED = 202
"""Of the draws that are judged: the same, whatever the seed of a training."""

TEST_DRAWS, TEST_NODULES = 24, 10
"""CT that are judged, and nodules in each: every held-out nodule is drawn twelve times."""

TRAINING_DRAWS, TRAINING_NODULES = 4, 20
"""CT of each chest to learn from, and nodules in each: every nodule is drawn four times."""

OTHERS = 300
"""Candidates of a scan that are no nodule, at most, that a classifier learns from."""

NEAR_MM = 5.0
"""What lies outside of a nodule, but nearer to it than this, is neither nodule nor anything else to learn from."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT that was searched: everything that a classifier of its candidates needs.

    Attributes
    ----------
    image
        ``[slice, row, column]``, 0–255, on the grid of `preprocessing.Lungs`.
    affine
        Index to LPS millimetres.
    candidates
        The strongest first.
    lesions
        All nodules that are known.
    """

    image: Bytes
    affine: Affine
    candidates: tuple[Candidate, ...]
    lesions: tuple[Lesion, ...]

    @property
    def places(self) -> NDArray[np.float64]:
        """Middles of the candidates in LPS mm, ``[n, 3]``."""
        centres = np.array([candidate.centre for candidate in self.candidates]).reshape(-1, 3)
        return centres @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def targets(self) -> NDArray[np.int64]:
        """`NODULE` within a lesion's radius from its centre, `NEITHER` just outside, else `OTHER`: ``[n]``."""
        found = np.full(len(self.candidates), OTHER)
        for lesion in self.lesions:
            radius = (lesion.diameter_mm or float(np.min(np.subtract(lesion.high, lesion.low)))) / 2
            distances = np.linalg.norm(self.places - lesion.centre, axis=1)
            found[(distances <= radius + NEAR_MM) & (found == OTHER)] = NEITHER
            found[distances <= radius] = NODULE
        return found

    def around(self, centres: Sequence[tuple[int, int, int]], low: int, high: int) -> Iterator[Bytes]:
        """Cut a cube around each index, from ``low`` voxels before it up to, not including, ``high`` after it."""
        padded = np.pad(self.image, max(low, high), mode="edge")
        for centre in centres:
            yield padded[tuple(slice(place + max(low, high) - low, place + max(low, high) + high) for place in centre)]


def search(volume: Volume, lesions: tuple[Lesion, ...], whole: bool = True) -> Scan:
    """Search a CT, or with ``whole=False`` a patch of one, for candidates."""
    lungs = prepare(volume, whole)
    return Scan(np.rint(lungs.image * 255).astype(np.uint8), lungs.affine, find(lungs), lesions)


@dataclass(frozen=True, eq=False)
class Searched:
    """All CT of the pipeline, searched: those to learn from, and what it is judged on.

    Attributes
    ----------
    training
        Four chests of LCTSC with nodules that are trained on, in several draws, and the patches of these nodules.
    chests
        The held-out chest with held-out nodules, in several draws.
    patches
        Those of the held-out nodules; of each only the nodule in its middle is known.
    real
        The NLST series with its one nodule.
    """

    training: tuple[Scan, ...]
    chests: tuple[Scan, ...]
    patches: tuple[Scan, ...]
    real: Scan

    @property
    def judged(self) -> tuple[Scan, ...]:
        """All that is judged: chests, patches, the real one."""
        return (*self.chests, *self.patches, self.real)


def search_all(data: Path, seed: int) -> Searched:
    """Read and search everything; ``seed`` decides on what is learned from, not on what is judged.

    Raises
    ------
    FileNotFoundError
        If ``data`` has not all of it.
    """
    learned, chests = read_lidc(data, held_out=False), read_chests(data, held_out=False)
    real, lesion = read_nlst(data)
    training = with_nodules(chests, learned, TRAINING_DRAWS * len(chests), TRAINING_NODULES, seed)
    return Searched(
        training=(*starmap(search, training), *map(search_patch, learned)),
        chests=tuple(starmap(search, chests_to_judge(data))),
        patches=tuple(map(search_patch, read_lidc(data, held_out=True))),
        real=search(real, (lesion,)),
    )


def with_nodules(
    chests: Sequence[LabelledCt], patches: Sequence[NodulePatch], draws: int, nodules: int, seed: int
) -> Iterator[tuple[Volume, tuple[Lesion, ...]]]:
    """Put nodules into one chest after the other; every nodule is used once before one is used again."""
    random = np.random.default_rng(seed)
    order: list[int] = []
    for draw in range(draws):
        if len(order) < nodules:
            order += random.permutation(len(patches)).tolist()
        drawn, order = [patches[place] for place in order[:nodules]], order[nodules:]
        yield implant(chests[draw % len(chests)], drawn, random)


def chests_to_judge(data: Path) -> Iterator[tuple[Volume, tuple[Lesion, ...]]]:
    """Give the held-out chest with held-out nodules, in the draws that everything is judged on."""
    held_out_chest, held_out = read_chests(data, held_out=True), read_lidc(data, held_out=True)
    return with_nodules(held_out_chest, held_out, TEST_DRAWS, TEST_NODULES, TEST_SEED)


def search_patch(patch: NodulePatch) -> Scan:
    """Search the patch of a nodule."""
    return search(patch.volume, (patch.lesion,), whole=False)


def to_learn(scan: Scan, random: np.random.Generator) -> NDArray[np.int64]:
    """Choose candidates to learn from: all that are nodules, and up to `OTHERS` that are something else."""
    targets = scan.targets
    others = random.permutation(np.flatnonzero(targets == OTHER))[:OTHERS]
    return np.concatenate([np.flatnonzero(targets == NODULE), others])


def kept(folder: Path, *modules: ModuleType) -> joblib.Memory:
    """Keep what a function gives in a folder, anew for each change of the search or of further modules.

    Every row of the ladder needs the same.
    """
    sources = [str(module.__file__) for module in (preprocessing, candidates, implanting, nodules_of, nlst, *modules)]
    digest = sha256(b"".join(Path(source).read_bytes() for source in (__file__, *sources))).hexdigest()
    return joblib.Memory(folder / digest[:16], verbose=0)
