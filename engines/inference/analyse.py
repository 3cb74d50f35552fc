"""From an image to findings: the whole path of one model over one image."""

from collections.abc import Callable, Sequence
from datetime import datetime

from engines.errors import PermanentError
from engines.inference.input_statistics import in_words
from engines.inference.radiograph_path import read_radiograph
from engines.inference.volume_path import read_volume
from engines.packages.description import RadiographInput, VolumeInput
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine
from engines.types import Findings, Image, InputStatistic, LabelMap, Radiograph, Volume

Clock = Callable[[], datetime]
"""Gives the present time, with its time zone."""


def analyse(
    package: ModelPackage,
    engine: Engine,
    image: Image,
    *,
    clock: Clock,
    region: LabelMap | None = None,
    probabilities: bool = False,
) -> Findings:
    """Run one model over one image.

    Parameters
    ----------
    package
        The model.
    engine
        Of this model, and active.
    image
        A `Volume` in HU or a `Radiograph`, as the model's input asks for.
    clock
        Gives ``Findings.analysed_at``.
    region
        The label map on the same image of the model that ``input.crop_to`` names.
    probabilities
        Whether to keep the probabilities of a label map's segments on the image's grid too: as many bytes for each
        segment as the image has voxels.

    Returns
    -------
    Findings
        What the model's outputs say: label maps on the image's own grid with measurements, classes with their
        activation maps, detections; how like the training data the image is; and ``seconds`` for ``preprocess``,
        ``infer`` and ``postprocess``.

    Raises
    ------
    PermanentError
        The image is of the wrong kind or unit, has too few slices, holds NaN or infinity, is empty where it is to be
        cropped, or unlike those of the training where the package refuses such; or the engine's answer is not finite.
    OutOfMemory
        Not even the smallest patch fits into memory.
    """
    analysed_at = clock()
    match package.input, image:
        case VolumeInput() as wanted, Volume() as volume:
            found = read_volume(package, wanted, engine, volume, region, probabilities)
        case RadiographInput() as wanted, Radiograph() as radiograph:
            found = read_radiograph(package, wanted, engine, radiograph, region, probabilities)
        case wanted, _:
            raise PermanentError(
                f"{package.name} takes a {_kind(wanted)}, not a {type(image).__name__}; correct the routing"
            )
    return Findings(
        model=package.identity,
        engine=engine.identity,
        analysed_at=analysed_at,
        label_map=found.label_maps[0] if found.label_maps else None,
        overlapping=found.label_maps[1:],
        classification=found.classification,
        detections=found.detections,
        measurements=found.measurements,
        input_statistics=found.statistics,
        notes=_notes(package, found.statistics),
        seconds=found.seconds,
    )


def _notes(package: ModelPackage, statistics: Sequence[InputStatistic]) -> tuple[str, ...]:
    """Tell the reader of an image unlike those that the model was trained on."""
    outside = [each for each in statistics if each.outside]
    if not outside:
        return ()
    return (f"The image is unlike those that {package.name} was trained on: {in_words(outside)}.",)


def _kind(wanted: VolumeInput | RadiographInput) -> str:
    return Volume.__name__ if isinstance(wanted, VolumeInput) else Radiograph.__name__
