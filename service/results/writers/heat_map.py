"""Class activations become Secondary Captures: where the network looked, over the X-ray."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.types import Radiograph
from service.results.analysis import Analysis
from service.results.pictures.heat import NOT_A_SEGMENTATION, heat_picture, mapped_classes
from service.results.pictures.window import display_window
from service.results.writers.capture import Capture, keep_captures, known_sides
from service.types import ResultObject


def has_activation(analysis: Analysis) -> bool:
    """A class of an X-ray has an activation map that is not 0 everywhere."""
    classification = analysis.findings.classification
    is_radiograph = isinstance(analysis.image, Radiograph)
    return is_radiograph and classification is not None and bool(mapped_classes(classification))


def write_heat_maps(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """One heat map for each class that is worth it, in one series (`service.results.kinds.Writer`)."""
    return keep_captures(analysis, "HEATMAP", heat_maps(analysis), folder)


def heat_maps(analysis: Analysis) -> Iterator[Capture]:
    """The heat map of the most probable class, then those of the others."""
    findings, image = analysis.findings, analysis.image
    assert isinstance(image, Radiograph)
    assert findings.classification is not None
    window, sides = display_window(image), known_sides(analysis)
    for entry in mapped_classes(findings.classification):
        picture = heat_picture(findings, image, entry, window, sides)
        description = f"Class activation map of {entry.label}: {NOT_A_SEGMENTATION}; {window.name}"
        yield Capture(picture.page, (0,), description, picture.orientation, picture.area)
