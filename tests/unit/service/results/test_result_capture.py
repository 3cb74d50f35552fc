from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from engines.types import Code, LabelMap, Measurement, Segment, Volume
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.checks.capture import check_captures, check_outlines
from service.results.encode import encode
from service.results.pictures.choice import chosen_slices
from service.results.pictures.legend import stated
from service.results.pictures.lettering import printable
from service.results.pictures.summary import summary_pages
from service.results.pictures.window import LUNG, SOFT_TISSUE, display_window
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.results.writers.capture import captures, known_sides, write_captures
from service.series.assembly import assemble
from service.types import ResultObject
from tests.unit.service.results.damage import copies, damaged
from tests.unit.service.results.examples import (
    ANATOMY,
    LEFT_LUNG,
    MILLILITRE,
    RIGHT_LUNG,
    VOLUME,
    Example,
    analysis_of,
    findings,
    lung_findings,
    pneumonia_findings,
    small_ct,
    small_ct_example,
    small_radiograph,
    two_fields,
    volume_of,
)
from tests.unit.service.results.examples import (
    LUNG as LUNG_CODE,
)
from tests.validators import dciodvfy_errors

ONLY_SC = ResultProfile(objects=("SC",))
ONLY_FEW = ResultProfile(objects=("SC",), captures=3)
NODULE = Segment(3, "Nodule", ANATOMY, Code("27925004", "SCT", "Nodule"), (255, 210, 60))
PATIENT_AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


def in_files(analysis: Analysis, folder: Path) -> list[Dataset]:
    """Its Secondary Captures, checked, as they were written."""
    return [pydicom.dcmread(entry.path) for entry in encode(analysis, folder)]


def pixels_of(dataset: Dataset) -> NDArray[np.uint8]:
    return np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, dataset.Columns, 3)


def colours_of(page: Pillow.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in page.getcolors(1 << 24) or []}  # type: ignore[misc]


def own_errors(dataset: Dataset, folder: Path) -> list[str]:
    """What dciodvfy calls an error, less what came with the source: an empty attribute, a UID of no registered root."""
    errors = dciodvfy_errors(folder / f"SC-{dataset.SOPInstanceUID}.dcm")
    return [error for error in errors if "DeidentificationMethod" not in error and "<999.999." not in error]


def stored_along(row: str, column: str, through: str, tilt_degrees: float = 0.0) -> Example:
    """A volume whose rows, columns and slices run to these sides, with a nodule at the patient's left, back and top."""
    shape, spacing = (12, 40, 34), (2.5, 0.9, 0.7)
    tilt = np.deg2rad(tilt_degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    directions = [turn @ np.array(PATIENT_AXES[letter], float) for letter in (through, column, row)]
    centre = (np.array(shape) - 1) / 2
    index = np.moveaxis(np.indices(shape), 0, -1) - centre
    place = index * spacing @ np.array(directions)
    labels = np.zeros(shape, np.uint8)
    extent = np.abs(place).reshape(-1, 3).max(axis=0)
    labels[(place > extent * 0.2).all(axis=-1) & (place < extent * 0.7).all(axis=-1)] = NODULE.number
    slices = []
    for number in range(shape[0]):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"1.2.3.4.5.{number + 1}"
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = (
            "1.2.3.4",
            "1.2.3.4.5",
            "1.2.3.4.6",
        )
        header.Modality, header.PatientID, header.PatientName = "CT", "P1", "Doe^Jane"
        header.Rows, header.Columns, header.PixelSpacing = shape[1], shape[2], [spacing[1], spacing[2]]
        header.ImageOrientationPatient = [float(value) for value in (*directions[2], *directions[1])]
        first = directions[0] * (number - centre[0]) * spacing[0]
        header.ImagePositionPatient = [float(value) for value in first]
        slices.append(header)
    volume = volume_of(np.full(shape, 20, np.int16), slices)
    measured = (Measurement(NODULE.number, VOLUME, 1.5, MILLILITRE),)
    return Example(volume, slices, findings(label_map=LabelMap(labels, (NODULE,)), measurements=measured))


def test_a_real_ct_becomes_a_summary_and_24_slices_with_outlines(nlst_ct: Example, tmp_path: Path) -> None:
    written = in_files(analysis_of(nlst_ct.findings, nlst_ct.image, nlst_ct.headers, profile=ONLY_SC), tmp_path)
    assert [dataset.InstanceNumber for dataset in written] == list(range(1, 26))
    assert len({dataset.SeriesInstanceUID for dataset in written}) == 1
    shown = [dataset.SourceImageSequence[0].ReferencedSOPInstanceUID for dataset in written[1:]]
    assert len(set(shown)) == 24
    heights = {header.SOPInstanceUID: header.ImagePositionPatient[2] for header in nlst_ct.headers}
    from_the_head_down = sorted(shown, key=lambda uid: -heights[uid])
    assert shown == from_the_head_down
    for number in (0, 12):
        assert own_errors(written[number], tmp_path) == []
    middle = pixels_of(written[12])
    columns = {
        segment.label: np.nonzero((middle == segment.colour).all(axis=-1))[1].mean()
        for segment in (LEFT_LUNG, RIGHT_LUNG)
    }
    assert columns["Right lung"] < 256 < columns["Left lung"]


@pytest.mark.parametrize(
    ("stored", "read_as"),
    [
        ("LPH", "LP"),
        ("RPF", "LP"),
        ("RAH", "LP"),
        ("PLF", "LP"),
        ("ALH", "LP"),
        ("LFP", "LF"),
        ("LHA", "LF"),
        ("RFA", "LF"),
        ("FLP", "LF"),
        ("PFR", "PF"),
        ("AFL", "PF"),
        ("HPL", "PF"),
    ],
)
@pytest.mark.parametrize("tilt_degrees", [0, 25])
def test_however_a_series_is_stored_its_pictures_lie_as_a_radiologist_looks_at_them(
    stored: str, read_as: str, tilt_degrees: int, tmp_path: Path
) -> None:
    example = stored_along(*stored, tilt_degrees=tilt_degrees)
    analysis = analysis_of(example.findings, example.image, example.headers, profile=ONLY_FEW)
    picture = in_files(analysis, tmp_path)[-1]
    assert list(picture.PatientOrientation) == list(read_as)
    rows, columns = np.nonzero((pixels_of(picture)[30:542] == NODULE.colour).all(axis=-1))
    # the nodule is at the patient's left, back and top, and the image in the middle of the picture
    assert rows.size
    assert columns.mean() > picture.Columns / 2 + 20
    assert (rows.mean() > 256 + 20) if read_as == "LP" else (rows.mean() < 256 - 20)


def test_a_mirrored_picture_is_seen_without_drawing_it_again() -> None:
    example = stored_along(*"LPH")
    analysis = analysis_of(example.findings, example.image, example.headers, profile=ONLY_FEW)
    capture = list(captures(analysis))[-1]
    assert capture.area
    pixels = np.array(capture.page)
    dataset = Dataset()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.PatientOrientation = ["L", "P"]
    dataset.PixelData = pixels.tobytes()
    check_outlines(dataset, capture.slices[0], capture.area, analysis)
    dataset.PixelData = pixels[:, ::-1].tobytes()
    with pytest.raises(Quarantined, match="not where the segment is"):
        check_outlines(dataset, capture.slices[0], capture.area, analysis)
    dataset.PatientOrientation = ["R", "P"]
    check_outlines(dataset, capture.slices[0], capture.area, analysis)
    dataset.PixelData = np.where(pixels == NODULE.colour, 0, pixels).astype(np.uint8).tobytes()
    with pytest.raises(Quarantined, match="not where the segment is"):
        check_outlines(dataset, capture.slices[0], capture.area, analysis)


def test_uneven_and_tilted_slices_are_drawn_as_they_are_stored(shared_data: Path, tmp_path: Path) -> None:
    [item] = assemble(sorted((shared_data / "dicom" / "ct_ge_tilt_variable_spacing").iterdir())).items
    assert isinstance(item.image, Volume)
    bone = Segment(1, "Bone", ANATOMY, LUNG_CODE, (230, 120, 60))
    found = findings(label_map=LabelMap((item.image.array > 300).astype(np.uint8), (bone,)), notes=item.notes)
    written = in_files(analysis_of(found, item.image, item.headers(), profile=ONLY_FEW), tmp_path)
    assert "soft tissue window" in written[1].DerivationDescription
    for dataset in written:
        assert own_errors(dataset, tmp_path) == []


@pytest.mark.parametrize("name", ["wg04_RG1_J2KI.dcm", "wg04_RG3_JPLL.dcm", "fo_CR-ModalitySequenceLUT.dcm"])
def test_an_x_ray_becomes_a_summary_and_one_image(name: str, shared_data: Path, tmp_path: Path) -> None:
    [item] = assemble([shared_data / "dicom" / "cr" / name]).items
    found = lung_findings(two_fields(item.image.array.shape), item.image, notes=item.notes)
    found = replace(found, classification=pneumonia_findings().classification)
    summary, picture = in_files(analysis_of(found, item.image, item.headers(), profile=ONLY_SC), tmp_path)
    assert 512 <= max(picture.Rows, picture.Columns) <= 1300
    stated_sides = item.headers()[0].get("PatientOrientation")
    assert (picture.get("PatientOrientation") or None) == (stated_sides or None)
    lossy = item.headers()[0].get("LossyImageCompression") == "01"
    assert (picture.get("LossyImageCompression") == "01") == lossy
    for dataset in (summary, picture):
        assert own_errors(dataset, tmp_path) == []


def test_no_side_is_claimed_where_the_header_names_none() -> None:
    image, [header] = small_radiograph()
    assert known_sides(analysis_of(pneumonia_findings(), image, [header])) is None
    header.PatientOrientation = ["L", "F"]
    assert known_sides(analysis_of(pneumonia_findings(), image, [header])) == ("L", "F")
    header.PatientOrientation = ["L", "LEFT"]
    assert known_sides(analysis_of(pneumonia_findings(), image, [header])) is None


@pytest.mark.parametrize(("source", "expected"), [("YES", "YES"), ("NO", "NO"), (None, None)])
def test_burned_in_annotation_of_an_x_ray_stays_what_it_is(
    source: str | None, expected: str | None, tmp_path: Path
) -> None:
    image, [header] = small_radiograph()
    if source:
        header.BurnedInAnnotation = source
    written = in_files(analysis_of(pneumonia_findings(), image, [header], profile=ONLY_SC), tmp_path)
    assert [dataset.get("BurnedInAnnotation") for dataset in written] == [expected, expected]


def test_nothing_found_is_said_and_the_middle_slice_shown(tmp_path: Path) -> None:
    volume, headers = small_ct()
    empty = lung_findings(np.zeros(volume.array.shape, np.uint8), volume)
    for found in (empty, findings()):
        written = in_files(analysis_of(found, volume, headers, profile=ONLY_SC), tmp_path / str(len(found.label_maps)))
        assert len(written) == 2
        [shown] = written[1].SourceImageSequence
        assert shown.ReferencedSOPInstanceUID == headers[2].SOPInstanceUID
        assert not written[0].PatientOrientation


def test_where_a_small_finding_is_largest_there_is_always_a_picture() -> None:
    volume, _ = small_ct((300, 8, 8))
    lungs = np.zeros(volume.array.shape, np.uint8)
    lungs[20:280, 2:6, 1:4], lungs[20:280, 2:6, 4:7] = 1, 2
    nodules = np.zeros(volume.array.shape, np.uint8)
    nodules[101:104, 3, 3] = 3
    nodules[102, 3:5, 3:5] = 3
    maps = (LabelMap(lungs, (LEFT_LUNG, RIGHT_LUNG)), LabelMap(nodules, (NODULE,)))
    for most in (1, 2, 5, 24, 500):
        chosen = chosen_slices(volume, maps, most)
        assert 102 in chosen
        assert len(chosen) == len(set(chosen)) == min(most, 260)
        assert chosen == sorted(chosen, reverse=True)
    many = chosen_slices(volume, maps, 24)
    assert max(many) > 265
    assert min(many) < 35
    assert max(np.diff(sorted(many))) < 30


def test_without_captures_there_is_the_summary_only(tmp_path: Path) -> None:
    profile = ResultProfile(objects=("SC",), captures=0)
    for example in (small_ct_example(), Example(*small_radiograph(), pneumonia_findings())):
        analysis = analysis_of(example.findings, example.image, example.headers, profile=profile)
        assert len(in_files(analysis, tmp_path / type(example.image).__name__)) == 1


def test_the_same_analysis_gives_the_same_bytes(tmp_path: Path) -> None:
    example = small_ct_example()
    analysis = analysis_of(example.findings, example.image, example.headers, profile=ONLY_FEW)
    first = [one.path.read_bytes() for one in write_captures(analysis, tmp_path, ())]
    assert [one.path.read_bytes() for one in write_captures(analysis, tmp_path, ())] == first


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, list[ResultObject]]:
    example = small_ct_example()
    analysis = analysis_of(example.findings, example.image, example.headers, profile=ONLY_FEW)
    return analysis, write_captures(analysis, tmp_path_factory.mktemp("few"), ())


@pytest.mark.parametrize(
    "damage",
    [
        lambda dataset: dataset.update({"PixelData": dataset.PixelData[:-2] + b"\1\1"}),
        lambda dataset: dataset.update({"PixelData": dataset.PixelData[:-2]}),
        lambda dataset: dataset.update({"PhotometricInterpretation": "YBR_FULL"}),
        lambda dataset: dataset.update({"Rows": dataset.Columns, "Columns": dataset.Rows}),
        lambda dataset: dataset.update({"PatientOrientation": ["R", "P"]}),
        lambda dataset: dataset.update({"InstanceNumber": 7}),
        lambda dataset: dataset.update({"Modality": "CT"}),
        lambda dataset: dataset.update({"ImageComments": "A report"}),
        lambda dataset: dataset.update({"SeriesInstanceUID": "1.2.3"}),
        lambda dataset: dataset.SourceImageSequence[0].update({"ReferencedSOPInstanceUID": "1.2.3"}),
        lambda dataset: dataset.pop("SourceImageSequence"),
    ],
)
def test_a_damaged_picture_is_never_sent(damage, few, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    analysis, written = few
    objects = copies(written, tmp_path)
    damaged(objects[2].path, damage)
    with pytest.raises(Quarantined):
        self_check(objects, analysis)


def test_as_many_pictures_are_sent_as_were_drawn(few: tuple[Analysis, list[ResultObject]]) -> None:
    analysis, objects = few
    self_check(objects, analysis)
    datasets = [pydicom.dcmread(entry.path) for entry in objects]
    with pytest.raises(Quarantined, match="missing"):
        check_captures(datasets[:-1], analysis, ())
    with pytest.raises(Quarantined, match="too many"):
        check_captures([*datasets, datasets[-1]], analysis, ())


def test_a_hundred_segments_need_more_pages_and_all_are_named() -> None:
    volume, _ = small_ct((3, 40, 40))
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[1] = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((4, 4)))
    parts = tuple(Segment(n, f"Part {n} 肺 ünd Łódź", ANATOMY, LUNG_CODE, (n, 2 * n, 255 - n)) for n in range(1, 102))
    measured = tuple(Measurement(n, VOLUME, n * 1.5, MILLILITRE) for n in range(1, 101))
    found = findings(label_map=LabelMap(labels, parts), measurements=measured)
    pages = summary_pages(found, volume, ["Research use only. " * 40])
    assert 3 <= len(pages) <= 8
    # the last one is not there
    assert {part.colour for part in parts[:100]} <= {colour for page in pages for colour in colours_of(page)}


def test_letters_that_no_font_has_become_others() -> None:
    assert printable("Lunge, groß · 12 mm² − Łódź") == "Lunge, groß · 12 mm² − Łódz"
    assert printable("肺 αβ\n\tx\x00") == "? ?? x?"
    assert printable("\u1e0aot") == "Dot"


def test_values_say_what_was_measured() -> None:
    axis = Code("103339001", "SCT", "Long Axis")
    assert stated(Measurement(1, VOLUME, 3428.22, MILLILITRE)) == "3,428 mL"
    assert stated(Measurement(1, axis, 12.34, Code("mm", "UCUM", "mm"))) == "long axis 12.3 mm"
    assert stated(Measurement(1, VOLUME, 0.0123, MILLILITRE)) == "0.012 mL"


def test_a_chest_is_seen_in_a_lung_window_and_a_head_is_not(nlst_ct: Example, shared_data: Path) -> None:
    assert display_window(nlst_ct.image) is LUNG
    [head] = assemble(sorted((shared_data / "dicom" / "ct_ge_tilt_variable_spacing").iterdir())).items
    assert display_window(head.image) is SOFT_TISSUE
    other = Volume(
        np.linspace(0, 1, 4000, dtype=np.float32).reshape(10, 20, 20), np.eye(4), tuple("abcdefghij"), unit="1"
    )
    assert display_window(other).low == pytest.approx(0.005, abs=0.002)
