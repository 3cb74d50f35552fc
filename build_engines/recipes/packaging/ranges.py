"""``python -m build_engines.recipes.packaging.ranges MODEL``: on what a model was trained, as ``[training.ranges]``.

Every training image is prepared as serving prepares it, and its statistics taken
(`engines.inference.input_statistics`). A range is what was observed in all but the two oddest of a hundred images,
widened by what the augmentation of the recipes changed in training, so that another scanner is no stranger: see
`WIDENED`. Needs no PyTorch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from build_engines.recipes.data.sources import chest_files, classified_cases, read_masks
from build_engines.recipes.folders import DATA
from engines.errors import PermanentError
from engines.inference.input_statistics import input_statistics
from engines.inference.radiograph_path import radiograph_tensor
from engines.inference.region import cropped
from engines.inference.volume_path import volume_tensor
from engines.packages.description import RadiographInput, TrainingSection, VolumeInput
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import EngineSet, open_engines
from engines.types import Image, InputStatistic, Radiograph, Volume
from evaluation.images import read_volume

Range = tuple[float, float]
Widen = Callable[[float, float], Range]


def by(margin: float) -> Widen:
    """Widen by so much on both sides."""
    return lambda least, largest: (least - margin, largest + margin)


def times(factor: float) -> Widen:
    """Widen by a factor on both sides."""
    return lambda least, largest: (least / factor, largest * factor)


WIDENED: Mapping[str, Mapping[type[Image], Widen]] = {
    # A tenth of the window: values were scaled by 6 % and shifted by 2 % of it, the air in the lungs by more.
    "p5": {Volume: by(140.0)},
    "p95": {Volume: by(140.0)},
    # A gamma of 0.5 to 2 and bent tone curves move and stretch the values of an X-ray by about as much.
    "median": {Volume: by(140.0), Radiograph: by(0.2)},
    "deviation": {Radiograph: times(1.5)},
    "middle": {Radiograph: by(0.1)},
    # Patients were made 0.74 to 1.57 times as large, and the field of view was cut.
    "cross_section_cm2": {Volume: times(2.5)},
    "extent_mm": {Volume: times(2.5)},
    # Thinner slices are averaged to the grid, and so nothing new.
    "slice_step_mm": {Volume: lambda _, largest: (0.0, 2 * largest)},
}
"""How far each range reaches beyond what was observed. Pixels of any size are averaged to the grid: no range."""


COMMON = (1.0, 99.0)
"""Percentiles: a large set always holds a few images that nobody would want to be like."""


def ct_lung(data: Path) -> Iterator[Image]:
    """Read what ``ct-lung`` was trained on."""
    return (read_volume(file) for file in chest_files(data, held_out=False))


def cxr_lung(data: Path) -> Iterator[Image]:
    """Read what ``cxr-lung`` was trained on."""
    return (Radiograph(case.image, None, "") for case in read_masks(data, "montgomery", "train"))


def cxr_pneumonia(data: Path) -> Iterator[Image]:
    """Read what ``cxr-pneumonia`` was trained on."""
    return (case.image() for case in classified_cases(data, "train"))


TRAINED_ON: Mapping[str, Callable[[Path], Iterator[Image]]] = {
    "ct-lung": ct_lung,
    # Nodules are put into the same chests; patches of 51 mm have no such statistics.
    "ct-nodule": ct_lung,
    "cxr-lung": cxr_lung,
    "cxr-pneumonia": cxr_pneumonia,
}


def statistics(package: ModelPackage, engines: EngineSet, image: Image) -> tuple[InputStatistic, ...]:
    """Give the statistics of an image, whatever ranges the package has.

    Raises
    ------
    PermanentError
        The image is of the wrong kind, or what it is to be cropped to is not there.
    """
    description = package.description.model_copy(update={"training": TrainingSection()})
    unranged = replace(package, description=description)
    match package.input, image:
        case VolumeInput() as wanted, Volume() as volume:
            region = engines.run(wanted.crop_to, volume).label_map if wanted.crop_to else None
            seen = cropped(package, wanted, volume, region)
            return input_statistics(unranged, volume_tensor(wanted, seen).values, seen)
        case RadiographInput() as wanted, Radiograph() as radiograph:
            region = engines.run(wanted.crop_to, radiograph).label_map if wanted.crop_to else None
            return input_statistics(unranged, radiograph_tensor(package, wanted, radiograph, region).values, radiograph)
        case _:
            raise PermanentError(f"{package.name} does not take a {type(image).__name__}")


def ranges(found: Iterable[tuple[InputStatistic, ...]], kind: type[Image]) -> dict[str, Range]:
    """Give the widened range of each statistic of which images can be strangers."""
    observed: dict[str, list[float]] = {}
    for each in found:
        for entry in each:
            observed.setdefault(entry.name, []).append(entry.value)
    return {
        name: widened[kind](*(float(value) for value in np.percentile(observed[name], COMMON)))
        for name, widened in WIDENED.items()
        if kind in widened and name in observed
    }


def as_toml(found: Mapping[str, Range]) -> str:
    """Write ranges as ``model.toml`` has them, to three digits."""

    def short(value: float) -> float:
        return float(f"{value:.3g}")

    entries = (f"{name} = {{ least = {short(low)}, largest = {short(high)} }}" for name, (low, high) in found.items())
    return "\n".join(("[training.ranges]", *entries))


def run(
    name: Annotated[str, typer.Argument(help=f"The model: {', '.join(TRAINED_ON)}.")],
    data: Annotated[Path, typer.Option(help="Folder with the training data.")] = DATA,
) -> None:
    """Print the training ranges of a shipped model."""
    if name not in TRAINED_ON:
        raise typer.BadParameter(f"{name} is none of {', '.join(TRAINED_ON)}")
    packages = load_packages(SHIPPED_MODELS)
    package, console = packages[name], Console(stderr=True)
    found = []
    crops = {key: packages[key] for key in (package.input.crop_to,) if key}
    with open_engines(crops, RuntimeSettings()) as engines:
        for image in track(list(TRAINED_ON[name](data)), "Training images", console=console):
            try:
                found.append(statistics(package, engines, image))
            except PermanentError as error:
                console.print(f"left out: {error}", markup=False)
    if not found:
        raise typer.BadParameter(f"{data} has no training images of {name}; name their folder with --data")
    kind = Volume if isinstance(package.input, VolumeInput) else Radiograph
    print(as_toml(ranges(found, kind)))


if __name__ == "__main__":
    typer.run(run)
