from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from engines.types import Classification, Findings, Radiograph
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.checks.heat_map import check_glow, check_heat_maps
from service.results.encode import encode
from service.results.kinds import wanted
from service.results.pictures.heat import colour_table
from service.results.profile import ResultProfile
from service.results.writers.heat_map import has_activation, heat_maps, write_heat_maps
from service.series.assembly import assemble
from tests.unit.service.results.examples import (
    analysis_of,
    findings,
    lung_findings,
    pneumonia_findings,
    small_ct,
    small_radiograph,
    two_fields,
)
from tests.validators import dciodvfy_errors

ONLY_HEAT = ResultProfile(objects=("HEATMAP",))


def glowing(shape: tuple[int, ...], *centres: tuple[float, float] | None) -> Findings:
    """Three classes; each has an activation around its centre, given as parts of height and width, or none."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    classes = []
    for entry, centre in zip(pneumonia_findings().classification.classes, centres, strict=True):  # type: ignore[union-attr]
        activation: NDArray[np.uint8] | None = None
        if centre:
            far = ((row / shape[0] - centre[0]) ** 2 + (column / shape[1] - centre[1]) ** 2) / 0.02
            activation = np.rint(255 * np.exp(-far)).astype(np.uint8)
        classes.append(replace(entry, activation=activation))
    return findings(classification=Classification(tuple(classes)))


def written(analysis: Analysis, folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(entry.path) for entry in encode(analysis, folder)]


def test_a_heat_map_glows_where_the_network_looked(shared_data: Path, tmp_path: Path) -> None:
    [item] = assemble([shared_data / "dicom" / "cr" / "wg04_RG1_JLSN.dcm"]).items
    assert isinstance(item.image, Radiograph)
    found = glowing(item.image.array.shape, (0.5, 0.5), (0.3, 0.75), (0.5, 0.5))
    # a label map beside it changes nothing
    found = replace(found, label_map=lung_findings(two_fields(item.image.array.shape), item.image).label_map)
    pneumonia, viral = written(analysis_of(found, item.image, item.headers(), profile=ONLY_HEAT), tmp_path)
    assert "Class activation map of Pneumonia: where the network looked, not a seg" in pneumonia.DerivationDescription
    assert "Viral pneumonia" in viral.DerivationDescription
    pixels = np.frombuffer(pneumonia.PixelData, np.uint8).reshape(pneumonia.Rows, pneumonia.Columns, 3)
    colourful = np.ptp(pixels[70:1080].astype(int), axis=-1) > 90
    rows, columns = np.nonzero(colourful)
    assert rows.mean() / 1010 == pytest.approx(0.3, abs=0.05)
    assert columns.mean() / pneumonia.Columns == pytest.approx(0.75, abs=0.05)
    for dataset in (pneumonia, viral):
        assert dciodvfy_errors(tmp_path / f"HEATMAP-{dataset.SOPInstanceUID}.dcm") == []


@pytest.mark.parametrize(
    ("centres", "named"),
    [
        ((None, None, None), []),
        ((None, (0.5, 0.5), None), ["Pneumonia"]),
        (((0.5, 0.5), None, None), ["Normal"]),
        (((0.5, 0.5), (0.5, 0.5), (0.5, 0.5)), ["Pneumonia", "Viral pneumonia"]),
    ],
)
def test_the_most_probable_class_has_a_heat_map_and_others_from_ten_per_cent(
    centres: tuple[tuple[float, float] | None, ...], named: list[str]
) -> None:
    image, headers = small_radiograph((60, 50))
    analysis = analysis_of(glowing((60, 50), *centres), image, headers, profile=ONLY_HEAT)
    assert has_activation(analysis) == bool(named)
    assert wanted(analysis) == (("HEATMAP",) if named else ())
    if named:
        about = [capture.description.split(":")[0] for capture in heat_maps(analysis)]
        assert about == [f"Class activation map of {name}" for name in named]


def test_an_activation_that_is_nowhere_and_a_ct_have_no_heat_map() -> None:
    image, headers = small_radiograph((60, 50))
    [*classes] = pneumonia_findings().classification.classes  # type: ignore[union-attr]
    dark = tuple(replace(entry, activation=np.zeros((60, 50), np.uint8)) for entry in classes)
    found = findings(classification=Classification(dark))
    assert not has_activation(analysis_of(found, image, headers))
    assert not has_activation(analysis_of(glowing((60, 50), (0.5, 0.5), None, None), *small_ct()))


def test_heat_that_lies_elsewhere_is_seen_without_drawing_it_again() -> None:
    image, headers = small_radiograph((60, 50))
    analysis = analysis_of(glowing((60, 50), None, (0.3, 0.75), None), image, headers, profile=ONLY_HEAT)
    [capture] = heat_maps(analysis)
    dataset = pydicom.Dataset()
    pixels = np.array(capture.page)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    activation = analysis.findings.classification.best.activation  # type: ignore[union-attr]
    assert capture.area
    assert activation is not None
    dataset.PixelData = pixels.tobytes()
    check_glow(dataset, capture.area, activation)
    dataset.PixelData = pixels[:, ::-1].tobytes()
    with pytest.raises(Quarantined, match="not where the activation is"):
        check_glow(dataset, capture.area, activation)


def test_a_damaged_heat_map_is_never_sent(tmp_path: Path) -> None:
    image, headers = small_radiograph((60, 50))
    analysis = analysis_of(glowing((60, 50), None, (0.3, 0.75), None), image, headers, profile=ONLY_HEAT)
    [entry] = write_heat_maps(analysis, tmp_path, ())
    dataset = pydicom.dcmread(entry.path)
    check_heat_maps([dataset], analysis, ())
    dataset.PixelData = bytes(len(dataset.PixelData))
    with pytest.raises(Quarantined):
        check_heat_maps([dataset], analysis, ())
    with pytest.raises(Quarantined):
        check_heat_maps([], analysis, ())


def test_the_colours_grow_lighter_evenly() -> None:
    lightness = colour_table() @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] < 5
    assert lightness[255] > 230
