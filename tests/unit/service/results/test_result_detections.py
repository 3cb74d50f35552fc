"""Detections, and what else a model says beside segments, in every kind of result."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pypdf import PdfReader

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    Detection,
    Detections,
    Findings,
    Image,
    InputStatistic,
    Radiograph,
    Volume,
)
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.checks.capture import check_rings
from service.results.contours import Points
from service.results.detected import Detected, detected
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.pictures.choice import chosen_slices
from service.results.pictures.legend import DETECTED
from service.results.pictures.sections import Sections
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.results.writers.capture import captures
from service.types import ResultObject
from tests.unit.service.results.damage import Damage, copies, damaged, set_, without
from tests.unit.service.results.examples import findings, small_ct, small_radiograph
from tests.unit.service.results.report_content import about, below, groups, image_of, regions, stated
from tests.validators import dciodvfy_errors

NODULE = Code("27925004", "SCT", "Nodule")
MASS = Code("4147007", "SCT", "Mass")
LOOKED_FOR = (("Nodule", NODULE), ("Mass", MASS))
EVERYTHING = ResultProfile(objects=tuple(KINDS), captures=5)
REPORT = ResultProfile(objects=("SR",))


def ct_analysis(profile: ResultProfile = EVERYTHING, **more: object) -> Analysis:
    """A box over slices 1 to 3, rows 4 to 8 and columns 3 to 7, and a point on slice 4, row 10, column 2."""
    volume, headers = small_ct()
    centre, point = ((volume.affine @ (*index, 1))[:3] for index in ((2, 6, 5), (4, 10, 2)))
    half = np.array([1.75, 2.0, 2.6])
    found = (
        Detection("Nodule", NODULE, 0.9, tuple((centre - half).tolist()), tuple((centre + half).tolist())),
        Detection("Nodule", NODULE, 0.625, tuple(point.tolist()), tuple(point.tolist())),
    )
    return Analysis(findings(detections=Detections(found, LOOKED_FOR), **more), volume, headers, profile)


def xray_analysis(profile: ResultProfile = EVERYTHING, **more: object) -> Analysis:
    """A box on rows 3 to 9 and columns 10 to 29, and a point."""
    image, headers = small_radiograph((40, 50))
    found = (
        Detection("Mass", MASS, 0.75, (2.5, 9.5), (9.5, 29.5)),
        Detection("Mass", MASS, 0.5, (20.0, 30.0), (20.0, 30.0)),
    )
    return Analysis(findings(detections=Detections(found, LOOKED_FOR), **more), image, headers, profile)


def written(analysis: Analysis, folder: Path) -> dict[str, list[ResultObject]]:
    made = encode(analysis, folder)
    return {kind: [entry for entry in made if entry.kind == kind] for kind in dict.fromkeys(e.kind for e in made)}


def errors_in(made: dict[str, list[ResultObject]]) -> list[str]:
    """What dciodvfy finds, but for presentation states: it wants Laterality in each of them (docs/results.md)."""
    paths = [entry.path for kind, entries in made.items() if kind != "GSPS" for entry in entries]
    return [error for path in paths for error in dciodvfy_errors(path)]


def evaluations(path: Path) -> list[Dataset]:
    [container] = [item for item in below(pydicom.dcmread(path)) if about(item) == "Qualitative Evaluations"]
    return list(container.ContentSequence)


def test_each_detection_of_a_ct_is_reported_with_its_score_where_it_is(tmp_path: Path) -> None:
    analysis = ct_analysis(REPORT)
    [report] = written(analysis, tmp_path)["SR"]
    assert dciodvfy_errors(report.path) == []
    box, volume, point = groups(report.path)
    assert stated(box, "Tracking Identifier") == stated(volume, "Tracking Identifier") == ["ct-lung Nodule"]
    assert stated(point, "Tracking Identifier") == ["ct-lung Nodule (2)"]
    assert stated(box, "Tracking Unique Identifier") == stated(volume, "Tracking Unique Identifier")
    assert stated(box, "Tracking Unique Identifier") != stated(point, "Tracking Unique Identifier")
    for group in (box, volume, point):
        assert stated(group, "Finding") == ["Nodule"]
    assert (stated(box, "Score"), stated(volume, "Score"), stated(point, "Score")) == (["0.9"], [], ["0.625"])
    # rows are 0.8 mm apart and columns 0.7: 6 ± 2.5 and 5 ± 2.5, and half a pixel to the standard's corner
    [ring] = regions(box)
    assert {tuple(corner) for corner in ring.round(4).tolist()} == {(3, 4), (8, 4), (8, 9), (3, 9)}
    assert image_of(box).ReferencedSOPInstanceUID == analysis.headers[2].SOPInstanceUID
    images = [
        item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in volume.ContentSequence
        if item.ValueType == "SCOORD"
    ]
    assert images == [analysis.headers[index].SOPInstanceUID for index in (1, 2, 3)]
    np.testing.assert_allclose(regions(point), [[[2.5, 10.5]]], atol=1e-4)
    assert image_of(point).ReferencedSOPInstanceUID == analysis.headers[4].SOPInstanceUID


def test_what_was_looked_for_and_not_found_is_said_to_be_absent(tmp_path: Path) -> None:
    [some] = written(ct_analysis(REPORT), tmp_path / "some")["SR"]
    absent = [item for item in evaluations(some.path) if item.ValueType == "CODE"]
    assert [(about(item), item.ConceptCodeSequence[0].CodeMeaning) for item in absent] == [("Mass", "Absent")]
    nothing = ct_analysis(EVERYTHING)
    nothing = replace(nothing, findings=replace(nothing.findings, detections=Detections((), LOOKED_FOR)))
    made = written(nothing, tmp_path / "none")
    assert [*made] == ["SC", "PDF", "SR"]
    absent = [item for item in evaluations(made["SR"][0].path) if item.ValueType == "CODE"]
    assert [about(item) for item in absent] == ["Nodule", "Mass"]
    # what a viewer draws, for it shows nothing of a report without a place
    [group] = groups(made["SR"][0].path)
    assert stated(group, "Tracking Identifier") == ["ct-lung nothing found"]
    assert "found none of: Nodule, Mass" in pydicom.dcmread(made["SC"][0].path).ImageComments


def test_a_score_is_said_to_be_no_probability(tmp_path: Path) -> None:
    made = written(xray_analysis(), tmp_path)
    [report] = made["SR"]
    assert any("it is no probability" in item.TextValue for item in evaluations(report.path) if "TextValue" in item)
    [pdf] = made["PDF"]
    document = PdfReader(BytesIO(pydicom.dcmread(pdf.path).EncapsulatedDocument))
    words = " ".join(document.pages[0].extract_text().split())
    assert "Mass score 0.75" in words.replace("\N{NO-BREAK SPACE}", " ")
    assert "it is no probability" in words


@pytest.mark.parametrize("form", ["comprehensive-3d", "comprehensive", "enhanced"])
def test_every_form_of_report_holds_detections(form: str, tmp_path: Path) -> None:
    profile = ResultProfile(objects=("SR",), report=form)  # type: ignore[arg-type]
    for name, analysis in (("ct", ct_analysis(profile)), ("xray", xray_analysis(profile))):
        [report] = written(analysis, tmp_path / name)["SR"]
        assert dciodvfy_errors(report.path) == []


def test_the_diameter_of_a_box_is_measured_beside_its_score(tmp_path: Path) -> None:
    analysis = ct_analysis()
    detections = analysis.findings.detections
    assert detections is not None
    first, *others = detections.found
    found = (replace(first, diameter_mm=5.2), *others)
    sized = replace(analysis, findings=findings(detections=replace(detections, found=found)))
    made = written(sized, tmp_path)
    assert errors_in(made) == []
    measured = [(stated(group, "Score"), stated(group, "Diameter")) for group in groups(made["SR"][0].path)]
    # the box on its middle slice, on all of its slices, and the point
    assert measured == [(["0.9"], ["5.2"]), ([], []), (["0.625"], [])]
    [diameter] = [item for item in below(pydicom.dcmread(made["SR"][0].path)) if about(item) == "Diameter"]
    assert diameter.ConceptNameCodeSequence[0].CodeValue == "81827009"
    assert diameter.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    assert "diameter 5 mm" in "".join(page.extract_text() for page in PdfReader(made["PDF"][0].path).pages)


def test_an_x_ray_has_a_box_and_a_point(tmp_path: Path) -> None:
    made = written(xray_analysis(), tmp_path)
    assert [*made] == ["SC", "PDF", "GSPS", "KO", "SR"]
    assert errors_in(made) == []
    box, point = groups(made["SR"][0].path)
    [ring] = regions(box)
    assert {tuple(corner) for corner in ring.tolist()} == {(10, 3), (30, 3), (30, 10), (10, 10)}
    np.testing.assert_array_equal(regions(point), [[[30.5, 20.5]]])


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan"), float("inf")])
def test_a_diameter_that_is_no_length_is_refused(diameter: float, tmp_path: Path) -> None:
    analysis = ct_analysis()
    detections = analysis.findings.detections
    assert detections is not None
    found = (replace(detections.found[0], diameter_mm=diameter),)
    with pytest.raises(Quarantined, match="a diameter is not a positive number"):
        written(replace(analysis, findings=findings(detections=replace(detections, found=found))), tmp_path)


@pytest.mark.parametrize("oblique", [False, True])
def test_every_kind_of_result_of_a_ct_passes_its_check(oblique: bool, tmp_path: Path) -> None:
    analysis = ct_analysis()
    if oblique:
        volume, headers = small_ct(oblique=True)
        centre = (volume.affine @ (2, 6, 5, 1))[:3]
        box = Detection("Nodule", NODULE, 0.9, tuple((centre - 3).tolist()), tuple((centre + 3).tolist()))
        analysis = Analysis(findings(detections=Detections((box,), LOOKED_FOR)), volume, headers, EVERYTHING)
    made = written(analysis, tmp_path)
    assert [*made] == ["SC", "PDF", "GSPS", "KO", "SR"]
    assert errors_in(made) == []


def test_a_presentation_state_draws_each_detection_on_each_of_its_slices(tmp_path: Path) -> None:
    analysis = ct_analysis()
    [state] = written(analysis, tmp_path)["GSPS"]
    drawn = [
        (
            item.ReferencedImageSequence[0].ReferencedSOPInstanceUID,
            item.GraphicObjectSequence[0].GraphicType,
            item.TextObjectSequence[0].UnformattedTextValue,
        )
        for item in pydicom.dcmread(state.path).GraphicAnnotationSequence
        if item.GraphicLayer == "DETECTIONS"
    ]
    uids = [header.SOPInstanceUID for header in analysis.headers]
    rings = [(uids[index], "POLYLINE", "Nodule 0.90") for index in (1, 2, 3)]
    assert drawn == [*rings, (uids[4], "POINT", "Nodule (2) 0.62")]


def test_the_middle_slices_are_key_images_and_have_pictures(tmp_path: Path) -> None:
    analysis = ct_analysis()
    made = written(analysis, tmp_path)
    assert analysis.findings.detections is not None
    uids = [header.SOPInstanceUID for header in analysis.headers]
    keys = pydicom.dcmread(made["KO"][0].path)
    shown = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in keys.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert shown[:2] == [uids[2], uids[4]]
    assert any("each detection has its middle" in item.get("TextValue", "") for item in keys.ContentSequence)
    volume = analysis.image
    assert isinstance(volume, Volume)
    assert sorted(chosen_slices(volume, (), 2, analysis.detected)) == [2, 4]
    assert sorted(chosen_slices(volume, (), 9, analysis.detected)) == [1, 2, 3, 4]


@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "F")])
def test_the_picture_of_an_x_ray_has_the_ring_where_the_box_is(orientation: tuple[str, str], tmp_path: Path) -> None:
    analysis = xray_analysis()
    assert isinstance(analysis.image, Radiograph)
    analysis = replace(
        analysis, image=replace(analysis.image, array=np.zeros((40, 50), np.float32), orientation=orientation)
    )
    _, picture = written(analysis, tmp_path)["SC"]
    pixels = pydicom.dcmread(picture.path).pixel_array
    rows, columns = np.nonzero((pixels == DETECTED).all(axis=-1))
    # the only other thing of this colour is what stands above the picture
    below_head = rows > 40
    rows, columns = rows[below_head], columns[below_head]
    # square pixels of 0.2 × 0.1 mm: 40 × 0.2 is 8 mm high, 50 × 0.1 is 5 mm wide, drawn 512 high, from left 96
    assert columns.min() == pytest.approx(96 + 10 / 50 * 320, abs=4)
    ring = columns < 96 + 12 / 50 * 320
    assert rows[ring].max() == pytest.approx(30 + 10 / 40 * 512, abs=4)


def test_in_a_ct_picture_the_patients_left_is_on_the_right(tmp_path: Path) -> None:
    # a box on the patient's left, in a series stored with its rows to the patient's right
    volume, headers = small_ct((3, 40, 40))
    for header in headers:
        header.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [30.0, *header.ImagePositionPatient[1:]]
    affine = volume.affine.copy()
    affine[:3, 2] *= -1
    affine[0, 3] = 30.0
    volume = replace(volume, array=np.full((3, 40, 40), -1000, np.int16), affine=affine)
    left = (affine @ (1, 20, 8, 1))[:3]
    box = Detection("Nodule", NODULE, 0.9, tuple((left - 2).tolist()), tuple((left + 2).tolist()))
    analysis = Analysis(findings(detections=Detections((box,), LOOKED_FOR)), volume, headers, EVERYTHING)
    _, picture, *_ = written(analysis, tmp_path)["SC"]
    pixels = pydicom.dcmread(picture.path).pixel_array
    _, columns = np.nonzero((pixels[40:512] == DETECTED).all(axis=-1))
    assert columns.min() > pixels.shape[1] / 2
    assert left[0] > (affine @ (1, 20, 20, 1))[0]


@pytest.mark.parametrize("against", [False, True])
def test_the_overview_has_the_boxes_where_the_patient_has_them(against: bool, tmp_path: Path) -> None:
    """On the patient's left, to the front, near the head: however the series is stored."""
    affine = np.array([[0, 0, 1, -20], [0, 1, 0, -20], [1, 0, 0, -20], [0, 0, 0, 1]], float)
    if against:
        affine[:3, :3] *= -1
        affine[:3, 3] *= -1
    volume = Volume(np.full((41, 41, 41), -1000, np.int16), affine, tuple(map(str, range(41))))
    box = Detection("Nodule", NODULE, 0.9, (8.0, -14.0, 10.0), (12.0, -8.0, 14.0))
    sections = Sections.of(volume, (), (box,))
    np.testing.assert_allclose(sections.boxes, [[[30, 6, 28], [34, 12, 32]]])
    assert min(sections.axial_indices(3)) >= 30
    axial, coronal = np.asarray(sections.axial(32, (410, 410))), np.asarray(sections.coronal((410, 410)))
    for picture, top, bottom in ((axial, 60, 130), (coronal, 60, 110)):
        rows, columns = np.nonzero((picture == DETECTED).all(axis=-1))
        assert (rows.min(), columns.min()) == pytest.approx((top + 5, 285), abs=3)
        assert (rows.max(), columns.max()) == pytest.approx((bottom - 5, 325), abs=3)
    assert not (np.asarray(sections.axial(20, (410, 410))) == DETECTED).all(axis=-1).any()


def moved(item: Dataset) -> None:
    item.GraphicData = [float(value) + 1 for value in item.GraphicData]


def scoord(dataset: Dataset, number: int) -> Dataset:
    return [item for item in below(dataset) if item.ValueType == "SCOORD"][number]


def group(dataset: Dataset, number: int) -> Dataset:
    return [item for item in below(dataset) if about(item) == "Measurement Group"][number]


def without_the_last_group(dataset: Dataset) -> None:
    [measurements] = [item for item in dataset.ContentSequence if about(item) == "Imaging Measurements"]
    del measurements.ContentSequence[-1]


def other_score(dataset: Dataset) -> None:
    [number] = [item for item in group(dataset, 0).ContentSequence if item.ValueType == "NUM"]
    number.MeasuredValueSequence[0].NumericValue = "0.91"


def as_probability(dataset: Dataset) -> None:
    [number] = [item for item in group(dataset, 0).ContentSequence if item.ValueType == "NUM"]
    number.ConceptNameCodeSequence[0].CodeValue = "122157"
    number.ConceptNameCodeSequence[0].CodingSchemeDesignator = "DCM"


def present_after_all(dataset: Dataset) -> None:
    [absent] = [item for item in below(dataset) if item.ValueType == "CODE" and about(item) == "Mass"]
    absent.ConceptCodeSequence[0].CodeValue = "52101004"


def other_image(dataset: Dataset) -> None:
    reference = scoord(dataset, 0).ContentSequence[0].ReferencedSOPSequence[0]
    reference.ReferencedSOPInstanceUID = (
        scoord(dataset, 1).ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    )


def without_statistics(dataset: Dataset) -> None:
    [qualitative] = [item for item in dataset.ContentSequence if about(item) == "Qualitative Evaluations"]
    del qualitative.ContentSequence[-1]


def annotation(dataset: Dataset) -> Dataset:
    return next(item for item in dataset.GraphicAnnotationSequence if item.GraphicLayer == "DETECTIONS")


def without_an_annotation(dataset: Dataset) -> None:
    dataset.GraphicAnnotationSequence.remove(annotation(dataset))


def other_words(dataset: Dataset) -> None:
    annotation(dataset).TextObjectSequence[0].UnformattedTextValue = "Nodule 0.91"


def without_an_image(dataset: Dataset) -> None:
    shown = [item for item in dataset.ContentSequence if item.ValueType == "IMAGE"]
    dataset.ContentSequence.remove(shown[1])


def without_the_ring(dataset: Dataset) -> None:
    pixels = np.array(dataset.pixel_array)
    pixels[(pixels == DETECTED).all(axis=-1)] = 0
    dataset.PixelData = pixels.tobytes()


DAMAGES: dict[str, tuple[str, Damage]] = {
    "a box moved by a pixel": ("SR", lambda dataset: moved(scoord(dataset, 0))),
    "a point moved by a pixel": ("SR", lambda dataset: moved(scoord(dataset, -1))),
    "one of several rings moved": ("SR", lambda dataset: moved(scoord(dataset, 2))),
    "a detection missing": ("SR", without_the_last_group),
    "another score": ("SR", other_score),
    "a score called a probability": ("SR", as_probability),
    "an absence that is none": ("SR", present_after_all),
    "a box on another image": ("SR", other_image),
    "no statistics of the input": ("SR", without_statistics),
    "a ring moved": ("GSPS", lambda dataset: moved(annotation(dataset).GraphicObjectSequence[0])),
    "a ring missing": ("GSPS", without_an_annotation),
    "another text": ("GSPS", other_words),
    "another layer": ("GSPS", set_("GraphicLayerSequence:1.GraphicLayer", "OTHER")),
    "no layer": ("GSPS", without("GraphicLayerSequence:1")),
    "a key image missing": ("KO", without_an_image),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, tuple[ResultObject, ...]]:
    profile = ResultProfile(objects=("GSPS", "KO", "SR"))
    analysis = ct_analysis(profile, input_statistics=(InputStatistic("mean", 1.0, "HU", 0.0, 2.0),))
    return analysis, encode(analysis, tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("name", DAMAGES)
def test_the_self_check_notices(name: str, sound: tuple[Analysis, tuple[ResultObject, ...]], tmp_path: Path) -> None:
    kind, damage = DAMAGES[name]
    analysis, objects = sound
    copied = copies(objects, tmp_path)
    damaged(next(entry.path for entry in copied if entry.kind == kind), damage)
    with pytest.raises(Quarantined, match=f"self-check of the {kind}"):
        self_check(copied, analysis)


MISPLACED: dict[str, Callable[[Points, tuple[int, ...]], Points]] = {
    "transposed": lambda points, shape: points[:, ::-1],
    "left for right": lambda points, shape: points * (1, -1) + (0, shape[1] - 1),
    "upside down": lambda points, shape: points * (-1, 1) + (shape[0] - 1, 0),
    "four pixels off": lambda points, shape: points + 4,
}


@pytest.mark.parametrize("name", MISPLACED)
def test_a_ring_that_writer_and_check_both_take_for_right_is_held_against_the_sources_positions(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def misplaced(found: Findings, image: Image) -> tuple[Detected, ...]:
        shape = image.array.shape[1:]
        change = MISPLACED[name]
        return tuple(
            replace(entry, on={index: change(points, shape) for index, points in entry.on.items()})
            for entry in detected(found, image)
        )

    monkeypatch.setattr("service.results.analysis.detected", misplaced)
    volume, headers = small_ct((5, 40, 60))
    centre = (volume.affine @ (2, 12, 16, 1))[:3]
    box = Detection("Nodule", NODULE, 0.9, tuple((centre - 3).tolist()), tuple((centre + 3).tolist()))
    analysis = Analysis(findings(detections=Detections((box,), LOOKED_FOR)), volume, headers, REPORT)
    with pytest.raises(Quarantined, match="is not around what was found"):
        encode(analysis, tmp_path)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.sampled_from((0.0, 0.1, 1.0, 2.5, 10.0))] * 3)),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_whatever_lies_in_a_volume_passes_its_own_check(
    places: list[tuple[tuple[float, ...], tuple[float, ...]]], oblique: bool
) -> None:
    volume, headers = small_ct((4, 9, 12), oblique=oblique)
    found = []
    for place, half in places:
        centre = (volume.affine @ (*(np.multiply(place, volume.array.shape) - 0.5), 1))[:3]
        low, high = tuple((centre - half).tolist()), tuple((centre + half).tolist())
        found.append(Detection("Nodule", NODULE, 0.5, low, high))
    profile = ResultProfile(objects=("GSPS", "KO", "SR"))
    analysis = Analysis(findings(detections=Detections(tuple(found), LOOKED_FOR)), volume, headers, profile)
    with TemporaryDirectory() as folder:
        assert len(encode(analysis, Path(folder))) == 3


def test_the_self_check_notices_a_picture_without_its_ring(tmp_path: Path) -> None:
    analysis = ct_analysis(ResultProfile(objects=("SC",), captures=1))
    objects = encode(analysis, tmp_path)
    dataset = pydicom.dcmread(objects[-1].path)
    capture = list(captures(analysis))[-1]
    assert capture.area is not None
    check_rings(dataset, capture.slices[0], capture.area, analysis)
    without_the_ring(dataset)
    with pytest.raises(Quarantined, match="the ring around Nodule in slice 3 is not where it was detected"):
        check_rings(dataset, capture.slices[0], capture.area, analysis)


def detection(**other: object) -> Detection:
    return replace(Detection("Mass", MASS, 0.5, (1.0, 2.0), (3.0, 4.0)), **other)  # type: ignore[arg-type]


UNSOUND = {
    "a score above 1": detection(score=1.5),
    "a score that is no number": detection(score=float("nan")),
    "a box to nowhere": detection(high=(3.0, float("inf"))),
    "a box inside out": detection(low=(4.0, 2.0)),
    "a box beside the image": detection(low=(60.0, 2.0), high=(70.0, 4.0)),
    "a box of three dimensions": detection(low=(1.0, 2.0, 3.0), high=(3.0, 4.0, 5.0)),
    "what was not looked for": detection(code=Code("1", "99X", "Other")),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_detections_that_cannot_be_are_quarantined(name: str, tmp_path: Path) -> None:
    analysis = xray_analysis()
    unsound = replace(analysis.findings, detections=Detections((UNSOUND[name],), LOOKED_FOR))
    with pytest.raises(Quarantined, match="not sound"):
        encode(replace(analysis, findings=unsound), tmp_path)


def test_a_detection_beside_a_ct_is_quarantined(tmp_path: Path) -> None:
    analysis = ct_analysis()
    beside = Detection("Mass", MASS, 0.5, (0.0, 0.0, 500.0), (1.0, 1.0, 501.0))
    unsound = replace(analysis.findings, detections=Detections((beside,), LOOKED_FOR))
    with pytest.raises(Quarantined, match="beside the image"):
        encode(replace(analysis, findings=unsound), tmp_path)


def test_labels_of_detections_are_told_apart_from_those_of_classes_and_fit_the_character_set() -> None:
    classes = Classification((ClassProbability("Mass", MASS, 1.0), ClassProbability("Normal", NODULE, 0.0)))
    analysis = xray_analysis(classification=classes)
    assert analysis.findings.detections is not None
    assert [entry.label for entry in analysis.findings.detections.found] == ["Mass (2)", "Mass (3)"]
    assert [label for label, _ in analysis.findings.detections.looked_for] == ["Nodule", "Mass (2)"]
    again = replace(analysis, findings=analysis.findings)
    assert again.findings.detections == analysis.findings.detections
    odd = Detections((detection(label="腫瘤\n"),), (("腫瘤", MASS),))
    worded = replace(analysis, findings=replace(analysis.findings, classification=None, detections=odd)).findings
    assert worded.detections is not None
    assert worded.detections.found[0].label == "Mass"


# Classes that do not exclude each other, and what the image is like.

FINDINGS = (
    ClassProbability("Effusion", Code("60046008", "SCT", "Pleural effusion"), 0.75),
    ClassProbability("Oedema", Code("19242006", "SCT", "Pulmonary edema"), 0.25),
    ClassProbability("Pneumonia", Code("233604007", "SCT", "Pneumonia"), 0.875),
)


def test_of_classes_that_stand_alone_each_likely_one_is_reported_as_a_finding(tmp_path: Path) -> None:
    image, headers = small_radiograph((40, 50))
    found = findings(classification=Classification(FINDINGS, exclusive=False))
    made = written(Analysis(found, image, headers, EVERYTHING), tmp_path)
    assert [stated(item, "Finding") for item in groups(made["SR"][0].path)] == [["Pleural effusion"], ["Pneumonia"]]
    [other] = [item for item in evaluations(made["SR"][0].path) if item.ValueType == "NUM"]
    assert other.MeasuredValueSequence[0].NumericValue == 25


def test_where_no_class_that_stands_alone_is_likely_none_is_a_finding(tmp_path: Path) -> None:
    image, headers = small_radiograph((40, 50))
    unlikely = tuple(replace(entry, probability=0.25) for entry in FINDINGS)
    found = findings(classification=Classification(unlikely, exclusive=False))
    [report] = written(Analysis(found, image, headers, REPORT), tmp_path)["SR"]
    [nothing] = groups(report.path)
    assert stated(nothing, "Tracking Identifier") == ["ct-lung nothing found"]
    assert len([item for item in evaluations(report.path) if item.ValueType == "NUM"]) == 3


def test_classes_of_a_ct_are_reported_on_its_middle_image(tmp_path: Path) -> None:
    volume, headers = small_ct()
    found = findings(classification=Classification(FINDINGS, exclusive=False))
    made = written(Analysis(found, volume, headers, EVERYTHING), tmp_path)
    assert [image_of(item).ReferencedSOPInstanceUID for item in groups(made["SR"][0].path)] == [
        headers[2].SOPInstanceUID
    ] * 2
    assert errors_in(made) == []


def test_the_report_says_what_the_image_is_like_and_where_that_is_unlike_the_training(tmp_path: Path) -> None:
    statistics = (
        InputStatistic("mean", -512.25, "HU", -800.0, -300.0),
        InputStatistic("slice_step_mm", 7.5, "mm", 0.5, 5.0),
        InputStatistic("p95", 40.0, "HU"),
    )
    note = "The image is unlike those that ct-lung was trained on: slice_step_mm 7.5 mm (in training 0.5 to 5)."
    made = written(ct_analysis(input_statistics=statistics, notes=(note,)), tmp_path)
    texts = [item.TextValue for item in evaluations(made["SR"][0].path) if item.ValueType == "TEXT"]
    assert note in texts
    assert texts[-1] == (
        "The image as ct-lung saw it: mean -512.2 HU (in training -800 to -300); "
        "slice step 7.5 mm (outside of those of the training, 0.5 to 5); 95th percentile 40 HU."
    )
    for capture in made["SC"]:
        assert note in pydicom.dcmread(capture.path).ImageComments
    document = PdfReader(BytesIO(pydicom.dcmread(made["PDF"][0].path).EncapsulatedDocument))
    words = " ".join(document.pages[0].extract_text().split())
    assert note in words
    assert texts[-1] in words


def test_the_report_names_the_model_by_its_digest_and_what_it_ran_on(tmp_path: Path) -> None:
    [report] = written(ct_analysis(REPORT), tmp_path)["SR"]
    dataset = pydicom.dcmread(report.path)
    texts = {about(item): item.TextValue for item in below(dataset) if item.ValueType == "TEXT"}
    assert texts["Device Observer Serial Number"] == "ab" * 32
    assert texts["Algorithm Name"] == "ct-lung"
    assert texts["Algorithm Version"] == "0.1.0"
    assert texts["Algorithm Parameters"] == "engine openvino 2026.4.1, fp32, CPU"
