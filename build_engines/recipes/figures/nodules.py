"""How well nodules are found: while a detector is trained, and of its package as a node runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from build_engines.recipes.data.implant import implant
from build_engines.recipes.data.nodules import NodulePatch
from build_engines.recipes.data.sources import LabelledCt
from build_engines.recipes.figures.lungs import OTHER, VALIDATION, read_other
from build_engines.recipes.networks.blocks import Network
from engines.inference.analyse import analyse
from engines.inference.detection import detect, extent, to_patient
from engines.inference.preprocessing import resample_to_grid, window
from engines.inference.sliding_window import Window
from engines.packages.head_sections import DetectionSection
from engines.packages.package import ModelPackage
from engines.serving.engine_set import EngineSet, utc_now
from engines.types import Detections, LabelMap, Volume
from evaluation.estimate import Estimate
from evaluation.metrics.detection import Candidates, Scan, detection_figures, figures_of, match

LEAST_SCORE = 0.05
"""Candidates with less are not looked at, not even for the FROC curve."""

NAME = "ct-nodule"

AS_SHIPPED = ("lesion_sensitivity", "false_positives_per_scan", "diameter_")
"""Figures of what a node answers, with the least score that the package has."""

PLACES = 2
"""How often each held-out nodule is put into the held-out chest."""

MULTIPLE = 16
"""The network halves its grid so far."""

Find = Callable[[Volume], Detections]


def validate_nodules(
    network: Network, nodules: Sequence[NodulePatch], chest: LabelledCt, settings: Mapping[str, Any]
) -> Mapping[str, float]:
    """Judge a network on the held-out nodules in their own surroundings, and put into the held-out chest.

    The lungs are the reference's here, so that only the detector is judged.
    """
    find = detector(network, settings)
    patches = [match(candidates(find(nodule.volume)), [nodule.lesion]) for nodule in nodules]
    found = figures_of(patches)
    scans = []
    lungs = cropped(chest)
    for seed in (1, 2):
        volume, lesions = implant(lungs, nodules[seed - 1 :: 2], np.random.default_rng(seed))
        inside = in_lungs(find(volume), lungs)
        scans.append(match(candidates(inside), lesions))
    chests = figures_of(scans)
    scores = np.concatenate([np.maximum(0, scan.scores) for scan in patches])
    return {
        "LIDC held out, median score": float(np.median(scores)),
        "LIDC held out, sensitivity at 1/8 false positive a patch": found["froc_sensitivity_at_0.125"],
        "LIDC held out, diameter error, mm": found["diameter_mae_mm"],
        "put into LCTSC-202, sensitivity at 1 false positive a scan": chests["froc_sensitivity_at_1"],
        "put into LCTSC-202, FROC mean": chests["froc_mean"],
        "put into LCTSC-202, FROC mean below 8 mm": chests["froc_mean_below_8_mm"],
        "put into LCTSC-202, diameter error, mm": chests["diameter_mae_mm"],
    }


def detector(network: Network, settings: Mapping[str, Any]) -> Find:
    """Run a network over a whole volume at once, as its ``model.toml`` says but for the least score."""
    section = DetectionSection(**{**settings["detection"], "least_score": LEAST_SCORE, "most": 200})
    wanted = settings["input"]

    def find(volume: Volume) -> Detections:
        grid, affine = resample_to_grid(volume, tuple(wanted["spacing_mm"]))
        tensor = torch.from_numpy(window(grid, *wanted["window"]))[None, None]
        padding = [part for length in reversed(grid.shape) for part in (0, -length % MULTIPLE)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            places, scores = network(torch.nn.functional.pad(tensor, padding))
        answers = {section.places: places[0].float().numpy(), section.scores: scores[0].float().numpy()}
        return detect(section, [Window((0, 0, 0), answers)], extent(grid.shape), to_patient(affine))

    return find


def candidates(found: Detections) -> Candidates:
    """Give detections as the metrics want them."""
    low, high = (
        np.array([getattr(entry, end) for entry in found.found], np.float64).reshape(-1, 3) for end in ("low", "high")
    )
    return Candidates(np.array([entry.score for entry in found.found], np.float64), low, high)


def cropped(ct: LabelledCt, margin_mm: float = 8.0) -> LabelledCt:
    """Crop a CT to its lungs."""
    where, margin = np.argwhere(ct.labels), np.ceil(margin_mm / np.array(ct.volume.spacing)).astype(int)
    start, stop = np.maximum(0, where.min(axis=0) - margin), where.max(axis=0) + margin + 1
    box = tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    affine = ct.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return LabelledCt(Volume(ct.volume.array[box], affine, ct.volume.sources[box[0]]), ct.labels[box])


def in_lungs(found: Detections, ct: LabelledCt) -> Detections:
    """Leave out what has its centre not in a voxel of the lungs."""
    to_index, shape = np.linalg.inv(ct.volume.affine), np.array(ct.labels.shape) - 1
    kept = []
    for entry in found.found:
        centre = (np.array(entry.low) + np.array(entry.high)) / 2
        index = np.round(to_index[:3, :3] @ centre + to_index[:3, 3]).astype(int)
        if ct.labels[tuple(np.clip(index, 0, shape))]:
            kept.append(entry)
    return Detections(tuple(kept), found.looked_for)


def measure_nodules(
    engines: EngineSet, data: Path, nodules: Sequence[NodulePatch], chest: LabelledCt
) -> Mapping[str, Estimate]:
    """Judge the package as a node runs it: ``SET.METRIC``. FROC looks at lower scores than a node does.

    Each held-out nodule is put `PLACES` times into the held-out chest, alone (``implanted``); the chest's lungs are
    found once, before that. It is also looked at in its own 51 mm (``patches``). Intervals are by nodule; how other
    chests differ from this one, they cannot tell.
    """
    served = engines.models[NAME].package
    section = served.description.detection
    assert section is not None
    whole, low = uncropped(lowered(served)), lowered(served)
    lungs = lungs_of(engines, served, chest.volume)
    scans, whose = [], []
    for number, nodule in enumerate(nodules):
        for place in range(PLACES):
            volume, lesions = implant(chest, [nodule], np.random.default_rng([number, place]))
            scans.append(match(candidates(found_by(engines, low, volume, lungs)), lesions))
            whose.append(nodule.name)
    patches = [match(candidates(found_by(engines, whole, nodule.volume)), [nodule.lesion]) for nodule in nodules]
    figures = {
        f"implanted.{name}": each for name, each in detection_figures(scans, whose).items() if name.startswith("froc_")
    }
    names = [nodule.name for nodule in nodules]
    for where, found, of in (("implanted", scans, whose), ("patches", patches, names)):
        kept = detection_figures([above(scan, section.least_score) for scan in found], of)
        figures |= {f"{where}.{name}": each for name, each in kept.items() if name.startswith(AS_SHIPPED)}
    # The two CT that were not trained on, nothing put into them.
    for name, ct in {VALIDATION: chest.volume, OTHER: read_other(data).volume}.items():
        found_there = found_by(engines, served, ct, lungs_of(engines, served, ct)).found
        figures[f"{name}.false_positives_per_scan"] = Estimate(len(found_there), np.nan, np.nan)
    return figures


def lungs_of(engines: EngineSet, package: ModelPackage, volume: Volume) -> LabelMap | None:
    """Segment what a package is cropped to; None where it looks at all of an image."""
    return engines.run(package.input.crop_to, volume).label_map if package.input.crop_to else None


def found_by(engines: EngineSet, package: ModelPackage, volume: Volume, lungs: LabelMap | None = None) -> Detections:
    """Run a package that is the served one but for a few settings, with the served engine."""
    engine = engines.models[NAME].engine
    found = analyse(package, engine, volume, clock=utc_now, region=lungs).detections
    assert found is not None
    return found


def lowered(package: ModelPackage) -> ModelPackage:
    """Let a package keep what has `LEAST_SCORE` or more."""
    detection = package.description.detection
    assert detection is not None
    kept = detection.model_copy(update={"least_score": LEAST_SCORE, "most": 200})
    return replace(package, description=package.description.model_copy(update={"detection": kept}))


def uncropped(package: ModelPackage) -> ModelPackage:
    """Let a package look at all of an image, whatever is lung: a patch of 51 mm has no lungs to be cropped to."""
    described = package.description
    assert described.detection is not None
    whole = described.input.model_copy(update={"crop_to": None})
    anywhere = described.detection.model_copy(update={"within_mm": None})
    return replace(package, description=described.model_copy(update={"input": whole, "detection": anywhere}))


def above(scan: Scan, least: float) -> Scan:
    """Leave out what has less than a score."""
    found = scan.scores >= least
    return Scan(
        scores=np.where(found, scan.scores, -np.inf),
        diameters=scan.diameters,
        errors=np.where(found, scan.errors, np.nan),
        false=scan.false[scan.false >= least],
        repeated=scan.repeated[scan.repeated >= least],
    )
