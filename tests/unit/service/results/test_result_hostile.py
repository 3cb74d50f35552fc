"""Every kind of result of odd findings in odd images: it is right, or it is quarantined, and never anything else.

Think of a scanner of fifteen years ago, of a careless model package, of an attacker.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage

from engines.types import (
    Classification,
    ClassProbability,
    Code,
    EngineIdentity,
    Image,
    LabelMap,
    Measurement,
    Segment,
    Volume,
)
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.predecessors import Predecessor
from service.results.profile import ResultProfile
from service.types import ResultObject
from tests.unit.service.results.examples import (
    ANATOMY,
    LUNG,
    MILLILITRE,
    VOLUME,
    findings,
    small_ct,
    small_labels,
    small_radiograph,
    volume_of,
)
from tests.validators import dciodvfy_errors

FEW = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EVERY_KIND = ResultProfile(objects=tuple(KINDS), captures=1)
LONG_AXIS, MILLIMETRE = Code("103339001", "SCT", "Long axis"), Code("mm", "UCUM", "mm")
SECRET = "Zaphod"
KNOWN_FALSE_ALARMS = (
    "Laterality(0020,0060)",  # tests.conformance.waivers
    "DisplayedAreaSelectionSequence is internally inconsistent",  # of an image of one row: it is what it is
)


def segment(number: int, label: str = "", **more: object) -> Segment:
    colour = (number * 37 % 256, number * 91 % 256, number * 53 % 256)
    return replace(Segment(number, label or f"Part {number}", ANATOMY, LUNG, colour), **more)  # type: ignore[arg-type]


def ct(labels: NDArray[np.uint8] | None = None, segments: Sequence[Segment] = (), **more: object) -> Analysis:
    """Labels in a made-up CT of their shape."""
    labels = small_labels((3, 8, 9)) if labels is None else labels
    volume, headers = small_ct(labels.shape)  # type: ignore[arg-type]
    if len(headers) == 1:
        volume.affine[:3, 0] = (0, 0, 2.5)
    return in_image(volume, headers, labels, segments, **more)


def xray(labels: NDArray[np.uint8] | None = None, segments: Sequence[Segment] = (), **more: object) -> Analysis:
    """Labels in a made-up X-ray of their shape."""
    labels = np.eye(9, 7, dtype=np.uint8) if labels is None else labels
    image, headers = small_radiograph(labels.shape)  # type: ignore[arg-type]
    return in_image(image, headers, labels, segments, **more)


def in_image(
    image: Image,
    headers: list[Dataset],
    labels: NDArray[np.uint8],
    segments: Sequence[Segment],
    *,
    header: Callable[[Dataset], object] = lambda _: None,
    probabilities: NDArray[np.uint8] | None = None,
    profile: ResultProfile = EVERY_KIND,
    predecessors: Sequence[Predecessor] = (),
    **found: object,
) -> Analysis:
    for each in headers:
        header(each)
    given = tuple(segments) or tuple(segment(number) for number in range(1, int(labels.max()) + 1))
    label_map = LabelMap(labels, given, probabilities)
    said = findings(**{"label_map": label_map, **found})
    return Analysis(said, image, headers, profile, predecessors=predecessors)


def written(analysis: Analysis, folder: Path) -> dict[str, list[Dataset]]:
    """The decoded results of each kind; the self-check has passed."""
    results: dict[str, list[Dataset]] = {}
    for entry in encode(analysis, folder):
        results.setdefault(entry.kind, []).append(pydicom.dcmread(entry.path))
    return results


def files(objects: Sequence[ResultObject]) -> dict[str, bytes]:
    return {entry.path.name: entry.path.read_bytes() for entry in objects}


def assert_valid(folder: Path) -> None:
    """No error of dciodvfy, of one object of each kind."""
    of_each_kind = {path.name.rpartition("-")[0]: path for path in sorted(folder.iterdir())}
    for path in of_each_kind.values():
        errors = dciodvfy_errors(path)
        assert [error for error in errors if not any(known in error for known in KNOWN_FALSE_ALARMS)] == []


def class_of(label: str, probability: float, activation: NDArray[np.uint8] | None = None) -> ClassProbability:
    return ClassProbability(label, Code("17621005", "SCT", "Normal"), probability, activation)


def with_model(analysis: Analysis, **changed: object) -> Analysis:
    model = replace(analysis.findings.model, **changed)  # type: ignore[arg-type]
    return replace(analysis, findings=replace(analysis.findings, model=model))


def line(*points: tuple[float, float, float]) -> Measurement:
    length = float(np.hypot((points[-1][1] - points[0][1]) * 0.8, (points[-1][2] - points[0][2]) * 0.7))
    return Measurement(1, LONG_AXIS, length, MILLIMETRE, points=points)


def filled(shape: tuple[int, ...], value: int = 1) -> NDArray[np.uint8]:
    return np.full(shape, value, np.uint8)


def one_voxel(shape: tuple[int, ...], place: tuple[int, ...]) -> NDArray[np.uint8]:
    labels = filled(shape, 0)
    labels[place] = 1
    return labels


def frame(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    labels = filled(shape)
    labels[..., 1:-1, 1:-1] = 0
    return labels


def holes(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    labels = filled(shape)
    labels[..., 1::2, 1::2] = 0
    return labels


# --- masks -----------------------------------------------------------------------------------------------------------

MASKS = {
    "one voxel": filled((1, 1, 1)),
    "one row": filled((1, 1, 9)),
    "one column": filled((2, 7, 1)),
    "elongated": filled((2, 2, 700)),
    "one voxel in the first corner": one_voxel((3, 8, 9), (0, 0, 0)),
    "one voxel in the last corner": one_voxel((3, 8, 9), (2, 7, 8)),
    "all of the image": filled((2, 8, 9)),
    "all borders": frame((2, 8, 9)),
    "hundreds of holes": holes((1, 41, 41)),
    "a chessboard": (np.indices((1, 16, 16)).sum(axis=0) % 2).astype(np.uint8),
}


@pytest.mark.parametrize("name", MASKS)
def test_odd_masks_give_every_kind(name: str, tmp_path: Path) -> None:
    labels = MASKS[name]
    assert set(written(ct(labels), tmp_path / "ct")) == {"SEG", "RTSTRUCT", "SC", "PDF", "GSPS", "KO", "SR"}
    shown = class_of("Sure", 1.0, labels[-1] * 255), class_of("Never", 0.0)
    of_xray = written(xray(labels[-1], (segment(1),), classification=Classification(shown)), tmp_path / "xray")
    assert set(of_xray) >= {"SC", "PDF", "GSPS", "KO", "SR"}


def test_255_segments_give_a_label_map(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    profile = ResultProfile(objects=("SEG",), segmentation="labelmap")
    [seg] = written(ct(labels, profile=profile), tmp_path)["SEG"]
    assert len(seg.SegmentSequence) == 256  # with the background


def test_segments_that_are_only_in_further_label_maps_or_the_same_there_give_every_kind(tmp_path: Path) -> None:
    inside = (small_labels((3, 8, 9)) > 0).astype(np.uint8)
    alone = ct(filled((3, 8, 9), 0), (segment(1),), overlapping=(LabelMap(inside * 2, (segment(2),)),))
    assert len(written(alone, tmp_path / "alone")["SEG"]) == 1
    same = ct(inside, (segment(1),), overlapping=(LabelMap(inside * 2, (segment(2),)),))
    results = written(same, tmp_path / "same")
    assert [seg.SegmentSequence[0].SegmentLabel for seg in results["SEG"]] == ["Part 1", "Part 2"]
    assert len(results["RTSTRUCT"][0].ROIContourSequence) == 2


@FEW
@given(data=st.data())
def test_ragged_noise_gives_every_kind_twice_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)))
    seed = data.draw(st.integers(0, 999))
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    segments = [segment(number) for number in (1, 2, 3)]
    make = xray if data.draw(st.booleans()) else ct
    flat = labels[0] if make is xray else labels
    folder = tmp_path_factory.mktemp("noise")
    assert files(encode(make(flat, segments), folder / "a")) == files(encode(make(flat, segments), folder / "b"))


# --- words -----------------------------------------------------------------------------------------------------------

LABELS = {
    "Chinese": ("左肺 结节", "Lung"),
    "right to left": ("الرئة", "Lung"),
    "turned around": ("a\u202eb", "ab"),
    "half a letter": ("a\ud800b", "ab"),
    "emoji": ("Lung 🫁", "Lung ?"),
    "accents": ("Poumon gauché", "Poumon gauche"),
    "too long": ("x" * 70, "x" * 64),
    "control characters": ("Lu\x07ng\x00a\x1b$B", "Lu ng a $B"),
    "two lines": ("Left\r\nlung", "Left lung"),
    "two values": ("Left\\Right", "Left/Right"),
    "only a backslash": ("\\", "Lung"),
    "blanks": ("  Left\u00a0lung ", "Left lung"),
    "nothing": ("", "Lung"),
    "quotes and mark-up": ("\"a\" '<b>&amp;</b>'", "\"a\" '<b>&amp;</b>'"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_said_in_letters_that_the_source_has(name: str, tmp_path: Path) -> None:
    given_label, said = LABELS[name]
    profile = ResultProfile(objects=("SEG", "RTSTRUCT", "GSPS", "SR"))
    results = written(ct(segments=(replace(segment(1), label=given_label), segment(2)), profile=profile), tmp_path)
    assert results["SEG"][0].SegmentSequence[0].SegmentLabel == said
    assert results["RTSTRUCT"][0].StructureSetROISequence[0].ROIName == said
    assert results["GSPS"][0].GraphicLayerSequence[1].GraphicLayerDescription == said
    assert_valid(tmp_path)


def test_a_label_in_letters_that_the_source_has_stays_what_it_is(tmp_path: Path) -> None:
    def in_unicode(header: Dataset) -> None:
        header.SpecificCharacterSet = "ISO_IR 192"

    labels = ("左肺 🫁", "الرئة اليسرى")
    results = written(
        ct(segments=[segment(n, label) for n, label in enumerate(labels, 1)], header=in_unicode), tmp_path
    )
    assert tuple(item.SegmentLabel for item in results["SEG"][0].SegmentSequence) == labels


@FEW
@given(text=st.text(max_size=90))
def test_any_label_and_note_can_be_said(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    profile = ResultProfile(objects=("SEG", "SR"))
    analysis = ct(segments=(segment(1, text), segment(2, text)), notes=(text,), profile=profile)
    [seg] = written(analysis, tmp_path_factory.mktemp("words"))["SEG"]
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    assert len(set(labels)) == 2
    assert all(0 < len(label) <= 64 and label.isascii() for label in labels)
    assert not any(unicodedata.category(letter) == "Cc" for label in labels for letter in label)


@pytest.mark.parametrize("label", ["Nodule", "x" * 64, "x" * 70])
def test_findings_with_one_label_are_followed_apart(label: str, tmp_path: Path) -> None:
    results = written(ct(segments=(segment(1, label), segment(2, label))), tmp_path / "ct")
    assert len({item.TrackingUID for item in results["SEG"][0].SegmentSequence}) == 2
    assert len({item.TrackingID for item in results["SEG"][0].SegmentSequence}) == 2
    shown = Classification((class_of(label, 0.5, filled((9, 7))), class_of(label, 0.5, filled((9, 7)))))
    of_xray = written(xray(filled((9, 7), 0), (segment(1),), classification=shown), tmp_path / "xray")
    assert len({item.TrackingUID for item in of_xray["HEATMAP-SEG"][0].SegmentSequence}) == 2


def test_long_words_of_a_model_give_valid_objects(tmp_path: Path) -> None:
    analysis = ct(notes=("w" * 10000, *(f"Note {number} \\ on something." for number in range(500)), " ", "肺"))
    analysis = with_model(analysis, name="n" * 64, version="1.2.3", intended_use="For\nresearch " * 500)
    engine = EngineIdentity("r" * 100, "p" * 50, "dé\\vice")
    results = written(replace(analysis, findings=replace(analysis.findings, engine=engine)), tmp_path)
    [seg] = results["SEG"]
    assert seg.SeriesDescription.endswith("1.2.3 segmentation")
    assert [len(version) <= 64 for version in seg.SoftwareVersions] == [True] * 3
    assert_valid(tmp_path)


@pytest.mark.parametrize(
    "code", [("1" * 17, "99X"), ("1\\2", "99X"), ("", "99X"), (" 1", "99X"), ("肺", "99X"), ("1", ""), ("1", "9" * 17)]
)
@pytest.mark.parametrize("place", ["type", "category", "laterality"])
def test_what_cannot_be_a_code_is_told_to_whoever_made_the_model(code: tuple[str, str], place: str) -> None:
    with pytest.raises(Quarantined, match=r"is no code.*correct the model package"):
        ct(segments=(segment(1, **{place: Code(*code, "Meaning")}), segment(2)))


def test_meanings_of_codes_are_cut_to_their_place(tmp_path: Path) -> None:
    code = Code("1", "99X", "me\\an" + "ing" * 40)
    measured = (Measurement(1, code, 1.0, Code("mm", "UCUM", "")),)
    results = written(ct(segments=(segment(1, type=code, category=code), segment(2)), measurements=measured), tmp_path)
    meaning = results["SEG"][0].SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning
    assert (meaning[:8], len(meaning)) == ("me/aning", 64)
    assert_valid(tmp_path)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, -0.0, 1e-12, 123456789.123])
def test_odd_values_are_stated_or_left_out(value: float, tmp_path: Path) -> None:
    profile = ResultProfile(objects=("SEG", "SR", "PDF"))
    analysis = ct(measurements=(Measurement(1, VOLUME, value, MILLILITRE),), profile=profile)
    [sr] = written(analysis, tmp_path)["SR"]
    stated = [float(element.value) for element in sr.iterall() if element.keyword == "NumericValue"]
    assert stated == ([float(f"{value:.6g}")] if np.isfinite(value) else [])


WRONG: dict[str, Callable[[], Analysis]] = {
    "a line between slices": lambda: ct(measurements=(line((1, 0, 0), (2, 3, 4)),)),
    "a line on no slice": lambda: ct(measurements=(line((99, 0, 0), (99, 3, 4)),)),
    "a line on the last slice but one from its end": lambda: ct(measurements=(line((-1, 0, 0), (-1, 3, 4)),)),
    "a line between two slices": lambda: ct(measurements=(line((1.5, 0, 0), (1.5, 3, 4)),)),
    "a line beyond the image": lambda: ct(measurements=(line((1, 0, 0), (1, 300, 4)),)),
    "a line to nowhere": lambda: ct(measurements=(line((1, np.nan, 0), (1, 3, 4)),)),
    "a line of one point": lambda: ct(measurements=(line((1, 0, 0)),)),
    "points of two numbers": lambda: ct(measurements=(replace(line((1, 0, 0)), points=((1, 0), (1, 2))),)),  # type: ignore[arg-type]
    "a value that is no segment": lambda: ct(segments=(segment(1),)),
    "a segment of the background": lambda: ct(segments=(segment(1), segment(2), segment(0))),
    "one number for two segments": lambda: ct(segments=(segment(1), segment(2), segment(2))),
    "one segment in two label maps": lambda: ct(
        overlapping=(LabelMap(small_labels((3, 8, 9)), (segment(1), segment(2))),)
    ),
    "another grid": lambda: replace(ct(), findings=findings(label_map=LabelMap(filled((2, 2, 2)), (segment(1),)))),
    "probabilities of another grid": lambda: ct(probabilities=filled((1, 3, 8, 9))),
    "a colour that is none": lambda: ct(segments=(segment(1, colour=(300, 0, 0)), segment(2))),
    "no class": lambda: xray(classification=Classification(())),
    "a probability that is no number": lambda: xray(classification=Classification((class_of("A", np.nan),))),
    "a probability below 0": lambda: xray(classification=Classification((class_of("A", -0.1), class_of("B", 1.0)))),
    "an activation of another grid": lambda: xray(classification=Classification((class_of("A", 1.0, filled((3, 3))),))),
    "an activation in a CT": lambda: ct(classification=Classification((class_of("A", 1.0, filled((5, 13, 11))),))),
}


@pytest.mark.parametrize("name", WRONG)
def test_findings_that_cannot_be_are_quarantined_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(Quarantined, match=r"not sound: .*; correct the model package"):
        encode(WRONG[name](), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_odd_probabilities_and_activations_give_every_kind(tmp_path: Path) -> None:
    pixel = one_voxel((9, 7), (8, 6))
    shown = (
        class_of("A", 0.0, filled((9, 7), 0)),
        class_of("B", 1.0, filled((9, 7), 255)),
        class_of("C", 1e-300, pixel),
    )
    results = written(xray(pixel, classification=Classification(shown)), tmp_path / "few")
    assert [item.SegmentLabel for item in results["HEATMAP-SEG"][0].SegmentSequence] == ["B", "C"]
    many = Classification(tuple(class_of(f"Class {number}", number / 300) for number in range(300)))
    [state] = written(xray(pixel, classification=many), tmp_path / "many")["GSPS"]
    text = state.GraphicAnnotationSequence[0].TextObjectSequence[1].UnformattedTextValue
    assert text.splitlines()[-1] == "Class 299 99.7%"  # the most probable are named


# --- images ----------------------------------------------------------------------------------------------------------

VALUES: dict[str, NDArray[np.float32] | NDArray[np.int16]] = {
    "fractions": np.random.default_rng(0).random((3, 8, 9), np.float32),
    "one value": np.full((3, 8, 9), 7, np.int16),
    "extremes": np.where(np.indices((3, 8, 9)).sum(axis=0) % 2, -32768, 32767).astype(np.int16),
    "no number": np.full((3, 8, 9), np.nan, np.float32),
    "infinite": np.where(np.indices((3, 8, 9)).sum(axis=0) % 2, np.inf, 0).astype(np.float32),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_odd_values_of_an_image_can_be_shown(name: str, tmp_path: Path) -> None:
    analysis = ct()
    assert isinstance(analysis.image, Volume)
    analysis = replace(analysis, image=replace(analysis.image, array=VALUES[name], unit="1"))
    [state] = written(analysis, tmp_path)["GSPS"]
    window = state.SoftcopyVOILUTSequence[0]
    assert window.WindowWidth > 0
    assert_valid(tmp_path)


@pytest.mark.parametrize("spacing", [(0.01, 0.01, 0.01), (50.0, 50.0, 50.0), (500.0, 50.0, 0.01)])
def test_odd_spacing_gives_every_kind(spacing: tuple[float, float, float], tmp_path: Path) -> None:
    volume, headers = small_ct((3, 8, 9))
    for index, header in enumerate(headers):
        header.PixelSpacing, header.ImagePositionPatient = list(spacing[1:]), [1e5, -1e5, index * spacing[0]]
    volume = volume_of(volume.array, headers)  # type: ignore[arg-type]
    assert len(written(in_image(volume, headers, small_labels((3, 8, 9)), ()), tmp_path)) == 7


@pytest.mark.parametrize(("spacing", "aspect"), [(None, 1.0), (None, 50.0), ((0.001, 0.001), 1.0), ((0.2, 20.0), 1.0)])
def test_an_x_ray_of_odd_pixels_gives_every_kind(
    spacing: tuple[float, float] | None, aspect: float, tmp_path: Path
) -> None:
    image, headers = small_radiograph((9, 7), spacing)
    analysis = in_image(replace(image, aspect=aspect), headers, np.eye(9, 7, dtype=np.uint8), ())
    assert set(written(analysis, tmp_path)) == {"SEG", "SC", "PDF", "GSPS", "KO", "SR"}


def stored(keyword: str, vr: str, value: bytes) -> Callable[[Dataset], None]:
    """An element as it was received, which nobody has decoded yet."""

    def put(header: Dataset) -> None:
        tag = Tag(keyword)
        header[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)

    return put


def without_anything(header: Dataset) -> None:
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        del header[keyword]
    header.AccessionNumber = ""
    del header.Modality


def lossy(header: Dataset) -> None:
    header.LossyImageCompression = "01"
    stored("LossyImageCompressionRatio", "DS", b"ten:1 ")(header)


def long_uids(header: Dataset) -> None:
    header.StudyInstanceUID = header.SeriesInstanceUID = "1." + "2" * 62


HEADERS: dict[str, Callable[[Dataset], object]] = {
    "nothing optional": without_anything,
    "a bad compression ratio": lossy,
    "UIDs of 64 characters": long_uids,
    "an unknown character set": stored("SpecificCharacterSet", "CS", b"ISO_IR 999"),
    "contradicting character sets": stored("SpecificCharacterSet", "CS", b"ISO_IR 192\\ISO 2022 IR 87"),
    "letters without a character set": stored("PatientName", "PN", "王^小东".encode()),
    "infinite slices": stored("SliceThickness", "DS", b"inf "),
    "no slices": stored("SliceThickness", "DS", b"2,5 "),
    "a number of letters": stored("InstanceNumber", "IS", b"a12 "),
    "a rescale with a comma": stored("RescaleSlope", "DS", b"1,0 "),
    "a date of points": stored("StudyDate", "DA", b"01.02.2020"),
    "a time zone of another planet": stored("TimezoneOffsetFromUTC", "SH", b"+2360 "),
    "a third direction": stored("PatientOrientation", "CS", b"L\\F\\H "),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("ignore")
def test_dirty_headers_give_every_kind(name: str, tmp_path: Path) -> None:
    assert len(written(ct(header=HEADERS[name]), tmp_path / "ct")) == 7
    assert len(written(xray(header=HEADERS[name]), tmp_path / "xray")) == 6
    if name in ("nothing optional", "a bad compression ratio", "infinite slices"):
        assert_valid(tmp_path / "xray")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", [0.0, np.nan])
def test_whatever_is_raised_is_told_by_its_place_and_not_by_its_words(aspect: float, tmp_path: Path) -> None:
    def named(header: Dataset) -> None:
        header.PatientName = header.PatientID = SECRET

    image, headers = small_radiograph((9, 7), None)
    analysis = in_image(replace(image, aspect=aspect), headers, np.eye(9, 7, dtype=np.uint8), (), header=named)
    with pytest.raises(Quarantined) as caught:
        encode(analysis, tmp_path)
    assert SECRET not in str(caught.value)


def test_a_class_that_nobody_knows_is_told_by_its_place(tmp_path: Path) -> None:
    def unknown(header: Dataset) -> None:
        header.SOPClassUID = "1.2.3.4.5.6"

    with pytest.raises(
        Quarantined, match=r"SEG of ct-lung cannot be encoded \(KeyError in \w+\.py:\d+\); nothing is sent"
    ):
        encode(ct(header=unknown), tmp_path)


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segmentation", "report", "uid_root"),
    [
        ("binary", "enhanced", "1.2.826.0.1.3680043.8.498.1234"),
        ("labelmap", "comprehensive", "0.0"),
        ("labelmap-rle", "enhanced", "2.999"),
        ("labelmap-jpeg-ls", "comprehensive", "2.25.1"),
        ("labelmap-jpeg-2000", "enhanced", "1.2.3"),
        ("fractional", "comprehensive", "2.25"),
    ],
)
def test_every_form_supersedes_with_the_same_bytes_twice(
    segmentation: str, report: str, uid_root: str, tmp_path: Path
) -> None:
    labels = small_labels((3, 8, 9))
    probabilities = np.stack([np.where(labels == number, 255, 1).astype(np.uint8) for number in (1, 2)])
    profile = ResultProfile(
        objects=tuple(KINDS), captures=1, segmentation=segmentation, report=report, uid_root=uid_root
    )  # type: ignore[arg-type]
    earlier = (
        Predecessor("2.25.7", Comprehensive3DSRStorage, "2.25.8"),
        Predecessor("2.25.7", Comprehensive3DSRStorage, "2.25.9", 2),
    )

    def once(folder: str) -> dict[str, bytes]:
        analysis = ct(labels, profile=profile, predecessors=earlier, probabilities=probabilities)
        return files(encode(analysis, tmp_path / folder))

    first = once("first")
    assert first == once("again")
    for path in (tmp_path / "first").iterdir():
        result = pydicom.dcmread(path, stop_before_pixels=True)
        assert result.SeriesDescription.startswith("RESEARCH v3")
        assert result.SOPInstanceUID.startswith(f"{uid_root}.")
        assert len(result.SOPInstanceUID) <= 64
