import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut

from engines.types import Classification, Code, LabelMap, Measurement, Segment
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import wanted
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.types import ResultObject
from tests.unit.service.results.damage import Damage, copies, damaged, set_, without
from tests.unit.service.results.examples import (
    ANATOMY,
    LUNG,
    RIGHT_LUNG,
    Example,
    analysis_of,
    findings,
    lung_findings,
    pneumonia_findings,
    read_radiograph,
    small_ct,
    small_ct_example,
    small_radiograph,
    two_fields,
)
from tests.unit.service.results.odd_sources import enhanced_ct, tilted_head
from tests.validators import dcentvfy_errors, dciodvfy_errors, require_tool

FINER = 8
WAIVED = (
    "Laterality",
    "DeidentificationMethod",
    "LUT Descriptor number of bits = 16 but maximum LUT Data value is 0x3ff",
)
"""dicom3tools wants a side of every body part, known or not; the tilted head's own headers have the second one empty; a
real X-ray's own table says so."""


def analysed(example: Example) -> Analysis:
    profile = ResultProfile(objects=("GSPS",))
    return analysis_of(example.findings, example.image, example.headers, profile=profile)


def written(example: Example, folder: Path) -> ResultObject:
    [result] = encode(analysed(example), folder)
    return result


def x_ray(path: Path | None = None) -> Example:
    """An X-ray with two fields."""
    image, headers = read_radiograph(path) if path else small_radiograph((90, 70))
    # of one file they are no UIDs, which DCMTK does not pass
    headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID, headers[0].SOPInstanceUID = (
        "1.2.3",
        "1.2.3.4",
        "1.2.3.4.5",
    )
    image = replace(image, source="1.2.3.4.5")
    return Example(image, headers, lung_findings(two_fields(image.array.shape), image))


def drawn(annotation: Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Second opinion: rings as Pillow draws them on a finer grid, those within others as holes."""
    rows, columns = shape
    whole = np.zeros(shape, bool)
    for item in annotation.GraphicObjectSequence:
        canvas = Image.new("1", (FINER * columns, FINER * rows))
        ImageDraw.Draw(canvas).polygon([FINER * float(value) for value in item.GraphicData], fill=1)
        whole ^= np.asarray(canvas)[FINER // 2 :: FINER, FINER // 2 :: FINER]
    return whole


def errors(path: Path) -> list[str]:
    """What dicom3tools and DCMTK find wrong."""
    done = subprocess.run([require_tool("dcmpschk"), path], capture_output=True, text=True)
    failed = [] if done.returncode == 0 and "Test passed" in done.stderr + done.stdout else [done.stderr + done.stdout]
    others = [error for error in dciodvfy_errors(path) if not any(keyword in error for keyword in WAIVED)]
    return [*failed, *others, *dcentvfy_errors(path)]


def test_each_segment_is_outlined_on_each_of_its_slices_in_a_layer_of_its_own(tmp_path: Path) -> None:
    example = small_ct_example()
    assert example.findings.label_map is not None
    dataset = pydicom.dcmread(written(example, tmp_path).path)
    _, *layers = dataset.GraphicLayerSequence
    assert [layer.GraphicLayerDescription for layer in layers] == ["Left lung", "Right lung"]
    _, *annotations = dataset.GraphicAnnotationSequence
    found = np.zeros_like(example.findings.label_map.array)
    slices = {uid: index for index, uid in enumerate(example.image.sources)}
    for annotation in annotations:
        index = slices[annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID]
        number = {layer.GraphicLayer: number for number, layer in enumerate(layers, 1)}[annotation.GraphicLayer]
        found[index][drawn(annotation, found.shape[1:])] = number
    assert np.array_equal(found, example.findings.label_map.array)


def test_validators_find_no_error_in_outlines_of_real_images(
    chest_64: Example, shared_data: Path, tmp_path: Path
) -> None:
    for number, example in enumerate((chest_64, tilted_head(shared_data), enhanced_ct(shared_data))):
        assert errors(written(example, tmp_path / str(number)).path) == []


@pytest.mark.parametrize(
    "name",
    ["fo_CR-MONO1-10-chest_nopreamble", "fo_CR-ModalitySequenceLUT.dcm", "pydicom_vlut_04.dcm", "wg04_RG2_JPLY.dcm"],
)
def test_an_x_ray_is_outlined_and_shown_as_its_own_header_wants_it(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    example = x_ray(shared_data / "dicom" / "cr" / name)
    header = example.headers[0]
    result = written(example, tmp_path)
    dataset = pydicom.dcmread(result.path)
    assert dataset.PresentationLUTShape == ("INVERSE" if "MONO1" in name or "Modality" in name else "IDENTITY")
    if "WindowCenter" in header:
        [window] = dataset.SoftcopyVOILUTSequence
        assert (window.WindowCenter, window.WindowWidth) == (header.WindowCenter, header.WindowWidth)
    for keyword, holder in (
        ("ModalityLUTSequence", dataset),
        ("VOILUTSequence", dataset.get("SoftcopyVOILUTSequence")),
    ):
        if keyword in header:
            [table] = holder[keyword] if holder is dataset else holder[0][keyword]
            assert list(table.LUTDescriptor) == list(header[keyword][0].LUTDescriptor)
    assert errors(result.path) == []


def test_dcmtk_shows_a_real_slice_in_the_window_of_the_presentation_state(
    shared_data: Path, chest_64: Example, tmp_path: Path
) -> None:
    state = written(chest_64, tmp_path).path
    [file] = (shared_data / "dicom" / "ct_cip64_79slices").glob("*040.dcm")
    image = pydicom.dcmread(file)
    picture = tmp_path / "shown.pgm"
    subprocess.run([require_tool("dcmp2pgm"), "-p", state, file, picture], check=True, capture_output=True)
    [window] = pydicom.dcmread(state).SoftcopyVOILUTSequence
    values = apply_modality_lut(image.pixel_array, image)
    expected = np.clip((values - window.WindowCenter) / window.WindowWidth + 0.5, 0, 1) * 255
    shown = np.asarray(Image.open(picture), float)
    assert np.ptp(expected) > 150
    assert np.abs(shown - expected).max() < 3


def classified() -> Example:
    """An X-ray with three classes; one of them speaks from a corner."""
    image, headers = small_radiograph()
    where = np.zeros(image.array.shape, np.uint8)
    where[1:4, 2:6] = 255
    classification = pneumonia_findings().classification
    assert classification is not None
    normal, pneumonia, viral = classification.classes
    classes = Classification((normal, replace(pneumonia, activation=where), viral))
    return Example(image, headers, findings(classification=classes))


def test_classes_of_an_x_ray_are_stated_with_their_probabilities_and_boxes(tmp_path: Path) -> None:
    result = written(classified(), tmp_path)
    words, box = pydicom.dcmread(result.path).GraphicAnnotationSequence
    research, classes = (item.UnformattedTextValue for item in words.TextObjectSequence)
    assert research == "Research use only. ct-lung 0.1.0"
    assert classes.split("\r\n") == ["Normal 6.2%", "Pneumonia 81.2%", "Viral pneumonia 12.5%"]
    [line] = box.GraphicObjectSequence
    corners = np.reshape(line.GraphicData, (-1, 2))
    assert (corners.min(axis=0).tolist(), corners.max(axis=0).tolist()) == ([2, 1], [6, 4])
    assert box.TextObjectSequence[0].UnformattedTextValue == "Pneumonia 81.2%"
    assert errors(result.path) == []


BOX_DAMAGES: dict[str, Damage] = {
    "a box elsewhere": set_(
        "GraphicAnnotationSequence:1.GraphicObjectSequence.GraphicData", [1.0, 1, 5, 1, 5, 5, 1, 5, 1, 1]
    ),
    "no box": without("GraphicAnnotationSequence:1"),
    "another probability": set_("GraphicAnnotationSequence:1.TextObjectSequence.UnformattedTextValue", "Normal 99%"),
    "other probabilities": set_("GraphicAnnotationSequence:0.TextObjectSequence:1.UnformattedTextValue", "Normal 99%"),
    "another finding's UID": set_("GraphicAnnotationSequence:1.GraphicObjectSequence.TrackingUID", "1.2.3.9"),
}


@pytest.mark.parametrize("name", BOX_DAMAGES)
def test_a_damaged_presentation_of_classes_is_caught(name: str, tmp_path: Path) -> None:
    result = written(classified(), tmp_path)
    damaged(result.path, BOX_DAMAGES[name])
    with pytest.raises(Quarantined, match="GSPS"):
        self_check([result], analysed(classified()))


def test_an_empty_finding_is_not_outlined() -> None:
    volume, headers = small_ct()
    assert wanted(analysed(Example(volume, headers, lung_findings(np.zeros((5, 13, 11), np.uint8), volume)))) == ()
    assert wanted(analysed(Example(volume, headers, findings()))) == ()


def with_a_diameter() -> Example:
    example = small_ct_example()
    millimetre = Code("mm", "UCUM", "mm")
    measurement = Measurement(
        1, Code("103339001", "SCT", "Long Axis"), 5.25, millimetre, points=((2, 3, 4), (2, 8, 9.5))
    )
    return replace(example, findings=replace(example.findings, measurements=(measurement,)))


def test_a_diameter_is_drawn_between_its_ends_with_its_value(tmp_path: Path) -> None:
    _, *annotations = pydicom.dcmread(written(with_a_diameter(), tmp_path).path).GraphicAnnotationSequence
    lines = [item for each in annotations for item in each.GraphicObjectSequence if item.NumberOfGraphicPoints == 2]
    assert [list(line.GraphicData) for line in lines] == [[4.5, 3.5, 10.0, 8.5]]
    texts = [item.UnformattedTextValue for each in annotations for item in each.TextObjectSequence]
    assert [text for text in texts if "lung" not in text] == ["5.2 mm"]


def test_overlapping_segments_have_layers_of_their_own(tmp_path: Path) -> None:
    example = small_ct_example()
    lobe = Segment(3, "Lobe", ANATOMY, LUNG, (10, 200, 10))
    labels = np.zeros((5, 13, 11), np.uint8)
    labels[3, 2:6, 2:6] = 3
    overlapping = replace(example.findings, overlapping=(LabelMap(labels, (lobe,)),))
    result = written(replace(example, findings=overlapping), tmp_path)
    *_, layer = pydicom.dcmread(result.path).GraphicLayerSequence
    assert layer.GraphicLayerDescription == "Lobe"
    assert errors(result.path) == []


def test_slices_that_differ_in_their_rescale_get_a_presentation_state_each(tmp_path: Path) -> None:
    example = small_ct_example()
    for header in example.headers:
        header.RescaleSlope, header.RescaleIntercept = 1, -1024
    example.headers[2].RescaleSlope = 2
    first, second = encode(analysed(example), tmp_path)
    one, other = pydicom.dcmread(first.path), pydicom.dcmread(second.path)
    assert (one.RescaleSlope, other.RescaleSlope) == (1, 2)
    assert len(one.ReferencedSeriesSequence[0].ReferencedImageSequence) == 4
    [image] = other.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == example.headers[2].SOPInstanceUID
    assert (one.SeriesInstanceUID, one.InstanceNumber) == (other.SeriesInstanceUID, other.InstanceNumber - 1)


def test_pixels_that_are_not_square_are_said_to_be(tmp_path: Path) -> None:
    image, headers = small_radiograph((90, 70), spacing=(0.2, 0.1))
    example = Example(image, headers, lung_findings(two_fields((90, 70)), image))
    result = written(example, tmp_path)
    [area] = pydicom.dcmread(result.path).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelAspectRatio) == [2000, 1000]


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (written(small_ct_example(), tmp_path / name).path.read_bytes() for name in "ab")
    assert one == other


FIRST = "GraphicAnnotationSequence:1"
DAMAGES: dict[str, Damage] = {
    "another class": set_("SOPClassUID", "1.2.840.10008.5.1.4.1.1.11.2"),
    "another instance": set_("SOPInstanceUID", "1.2.3.9"),
    "another modality": set_("Modality", "CT"),
    "another content label": set_("ContentLabel", "CLINICAL"),
    "another series of images": set_("ReferencedSeriesSequence.SeriesInstanceUID", "1.2.3.9"),
    "an image less": without("ReferencedSeriesSequence.ReferencedImageSequence:2"),
    "another rescale": set_("RescaleIntercept", "-1000"),
    "no rescale": without("RescaleSlope"),
    "a layer less": without("GraphicLayerSequence:2"),
    "another layer's description": set_("GraphicLayerSequence:1.GraphicLayerDescription", "Right lung"),
    "another colour": set_("GraphicLayerSequence:1.GraphicLayerRecommendedDisplayCIELabValue", [1, 2, 3]),
    "no word of research": set_("GraphicAnnotationSequence.TextObjectSequence.UnformattedTextValue", "Clinical use"),
    "an outline less": without(FIRST),
    "a ring less": without(f"{FIRST}.GraphicObjectSequence:0"),
    "a ring off its place": set_(f"{FIRST}.GraphicObjectSequence.GraphicData", [1.0, 1, 5, 1, 5, 5, 1, 1]),
    "points beyond the image": set_(f"{FIRST}.GraphicObjectSequence.GraphicData", [1.0, 1, 99, 1, 5, 5, 1, 1]),
    "another number of points": set_(f"{FIRST}.GraphicObjectSequence.NumberOfGraphicPoints", 99),
    "points of what is displayed": set_(f"{FIRST}.GraphicObjectSequence.GraphicAnnotationUnits", "DISPLAY"),
    "another tracking UID": set_(f"{FIRST}.GraphicObjectSequence.TrackingUID", "1.2.3.9"),
    "another label": set_(f"{FIRST}.TextObjectSequence.UnformattedTextValue", RIGHT_LUNG.label),
    "another layer": set_(f"{FIRST}.GraphicLayer", "SEGMENT 2"),
    "a dangling image": set_(f"{FIRST}.ReferencedImageSequence.ReferencedSOPInstanceUID", "1.2.3.9"),
    "the neighbour's image": set_(f"{FIRST}.ReferencedImageSequence.ReferencedSOPInstanceUID", "1.2.3.4.5.5"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, ResultObject]:
    example = small_ct_example()
    return analysed(example), written(example, tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_presentation_state_is_caught(
    name: str, sound: tuple[Analysis, ResultObject], tmp_path: Path
) -> None:
    analysis, result = sound
    [copy] = copies([result], tmp_path)
    damaged(copy.path, DAMAGES[name])
    with pytest.raises(Quarantined, match="GSPS"):
        self_check([copy], analysis)


def test_a_diameter_drawn_elsewhere_is_caught(tmp_path: Path) -> None:
    example = with_a_diameter()
    result = written(example, tmp_path)
    dataset = pydicom.dcmread(result.path)
    for annotation in dataset.GraphicAnnotationSequence[1:]:
        for item in annotation.GraphicObjectSequence:
            if item.NumberOfGraphicPoints == 2:
                item.GraphicData = [1.0, 1.0, 2.0, 2.0]
    dataset.save_as(result.path)
    with pytest.raises(Quarantined, match="do not end where was measured"):
        self_check([result], analysed(example))
