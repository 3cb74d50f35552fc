"""Manifests become cases; what is broken or hostile in them becomes a problem of its row."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image as Picture

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.types import Radiograph, Volume
from evaluation.collection import EVERYTHING, Choice, age_band, spread
from evaluation.errors import DataError
from evaluation.images import MOST_PIXELS
from evaluation.manifest import read_manifest
from evaluation.table import Row
from tests.small_models import detector_package

EVERY_ROW = Choice(split=EVERYTHING)


@pytest.fixture(scope="module")
def classifier() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "cxr-pneumonia")


@pytest.fixture(scope="module")
def ct_lung() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "ct-lung")


@pytest.fixture(scope="module")
def cxr_lung() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "cxr-lung")


def picture(file: Path, values: object = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) if values is None else np.asarray(values)).save(file)
    return file


def manifest(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def volume(file: Path, values: np.ndarray, origin: tuple[float, float, float] = (0, 0, 0)) -> Path:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin(origin)
    sitk.WriteImage(image, file)
    return file


def test_a_file_and_its_class_are_enough(tmp_path: Path, classifier: ModelPackage) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "deep.png", np.full((4, 4), 40000, np.uint16))
    picture(tmp_path / "images" / "b.jpg")
    found = read_manifest(
        manifest(tmp_path, "file,class", "a.png,normal", "deep.png,viral", "b.jpg,normal"), classifier, Choice()
    )
    assert [(case.name, case.label) for case in found.cases] == [
        ("a.png", "normal"), ("deep.png", "viral"), ("b.jpg", "normal"),
    ]  # fmt: skip
    images = [case.image() for case in found.cases]
    assert all(isinstance(image, Radiograph) and image.spacing is None for image in images)
    assert images[0].array[1, 2] == 10
    assert images[1].array.max() == 40000  # nothing is lost of 16 bits
    assert len({case.patient for case in found.cases}) == 3
    assert "all rows" in found.words


def test_a_dicom_file_is_read_as_the_node_reads_it(
    tmp_path: Path, classifier: ModelPackage, phantom_xray: Path
) -> None:
    [source] = phantom_xray.glob("*.dcm")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.dcm").write_bytes(source.read_bytes())
    [case] = read_manifest(manifest(tmp_path, "file,class", "x.dcm,normal"), classifier, Choice()).cases
    image = case.image()
    assert isinstance(image, Radiograph)
    assert image.spacing is not None


def test_a_spreadsheet_with_semicolons_and_a_byte_order_mark_is_read(tmp_path: Path, classifier: ModelPackage) -> None:
    picture(tmp_path / "img" / "a b.png")
    (tmp_path / "manifest.csv").write_bytes("\ufeffFile; Class ;view\r\na b.png; normal;PA\r\n".encode())
    [case] = read_manifest(tmp_path, classifier, Choice()).cases
    assert (case.label, case.groups) == ("normal", {"view": "PA"})


def test_a_line_break_in_a_note_and_empty_lines_before_the_columns_part_no_rows(
    tmp_path: Path, classifier: ModelPackage
) -> None:
    picture(tmp_path / "a.png")
    text = '\r\n\r\nfile;note;class\r\na.png;"two\r\nlines";normal\r\na.png;one\u2028or\x85two;normal\r\n'
    (tmp_path / "manifest.csv").write_bytes(text.encode())
    found = read_manifest(tmp_path, classifier, Choice(groups=("note",)))
    assert [case.problem for case in found.unusable] == ["the image is there twice; remove a row"]
    (tmp_path / "manifest.csv").write_bytes(text.rpartition("a.png")[0].encode())
    [case] = read_manifest(tmp_path, classifier, Choice(groups=("note",))).cases
    assert (case.label, case.groups) == ("normal", {"note": "two lines"})


def test_a_row_is_compared_with_no_other_to_find_the_validation_rows(
    tmp_path: Path, classifier: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Row, other: object) -> bool:
        raise AssertionError("with 100,000 rows that would take minutes")

    rows = [f"{split}.png,normal,{split}" for split in ("val", "test")]
    for row in rows:
        picture(tmp_path / row.split(",")[0])
    monkeypatch.setattr(Row, "__eq__", never)
    found = read_manifest(manifest(tmp_path, "file,class,split", *rows), classifier, Choice())
    assert (len(found.cases), len(found.validation)) == (1, 1)


def test_the_test_rows_are_judged_and_thresholds_come_from_the_validation_rows(
    tmp_path: Path, classifier: ModelPackage
) -> None:
    rows = [f"{split}-{number}.png,normal,{split}" for split in ("train", "val", "test") for number in range(3)]
    for row in rows:
        picture(tmp_path / row.split(",")[0])
    folder = manifest(tmp_path, "file,class,split", *rows)
    found = read_manifest(folder, classifier, Choice())
    assert {case.split for case in found.cases} == {"test"}
    assert {case.split for case in found.validation} == {"val"}
    assert "'test'" in found.words
    assert len(read_manifest(folder, classifier, EVERY_ROW).cases) == 9
    on_validation = read_manifest(folder, classifier, Choice(split="val"))
    assert {case.split for case in on_validation.cases} == {"val"}
    assert on_validation.validation == ()  # not chosen on what is judged
    with pytest.raises(DataError, match="choose of test, train, val, all"):
        read_manifest(folder, classifier, Choice(split="holdout"))
    with pytest.raises(DataError, match="no column 'fold'"):
        read_manifest(folder, classifier, Choice(column="fold"))


def test_patients_of_two_sources_are_not_taken_for_one(tmp_path: Path, classifier: ModelPackage) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    rows = ("a.png,normal,1,x", "b.png,normal,1,y", "c.png,normal,1,x")
    found = read_manifest(manifest(tmp_path, "file,class,patient,source", *rows), classifier, Choice())
    assert [case.patient for case in found.cases] == ["x/1", "y/1", "x/1"]


def test_a_missing_image_a_double_one_and_an_empty_class_are_problems_of_their_rows(
    tmp_path: Path, classifier: ModelPackage
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    rows = ("a.png,normal", "gone.png,normal", "b.png,viral", "b.png,viral", "c.png,", ",normal", "d.png,normal,x,y")
    found = read_manifest(manifest(tmp_path, "file,class", *rows), classifier, Choice())
    assert [case.name for case in found.cases] == ["a.png"]
    problems = {case.name: case.problem for case in found.unusable}
    assert "missing" in problems["gone.png (line 3)"]
    assert "twice" in problems["b.png (lines 4, 5)"]
    assert "nothing" in problems["c.png (line 6)"]
    assert "no file is named" in problems["line (line 7)"]
    assert "4 cells" in problems["line 8"]


HOSTILE = {
    "up": "../secret.png",
    "up by a backslash": "..\\secret.png",
    "up within": "images/../../secret.png",
    "absolute": "{secret}",
    "a drive": "C:\\secret.png",
    "a NUL": "secret\0.png",
    "only a point": ".",
    "long": "a" * 2000 + ".png",
}


@pytest.mark.parametrize("cell", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_path_that_leads_out_of_the_folder_is_never_opened(
    tmp_path: Path, classifier: ModelPackage, cell: str
) -> None:
    secret, folder = picture(tmp_path / "secret.png"), tmp_path / "data"
    picture(folder / "a.png")
    path = cell.replace("{secret}", str(secret))
    found = read_manifest(manifest(folder, "file,class", "a.png,normal", f"{path},normal"), classifier, Choice())
    assert [case.name for case in found.cases] == ["a.png"]
    assert len(found.unusable) == 1


def test_a_mask_out_of_the_folder_is_never_opened(tmp_path: Path, cxr_lung: ModelPackage) -> None:
    picture(tmp_path / "secret.png")
    picture(tmp_path / "data" / "a.png")
    folder = manifest(tmp_path / "data", "file,mask", "a.png,../secret.png")
    assert [case.name for case in read_manifest(folder, cxr_lung, Choice()).unusable] == ["a.png (line 2)"]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(kind: str) -> bytes:
    written = io.BytesIO()
    Picture.new("L", (8, 8), 50).save(written, kind)
    return written.getvalue()


BROKEN = {
    "a smaller bomb.png": png_that_claims(12_000, 10_000),
    "of another format.png": encoded("GIF"),
    "a bomb.png": png_that_claims(40_000, 40_000),
    "one that Pillow refuses itself.png": png_that_claims(MOST_PIXELS, 10),
    "cut short.png": png_that_claims(400, 400)[:60],
    "text.jpg": b"this is no picture",
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "empty.png": b"",
    "no volume.nii.gz": b"\x1f\x8b nothing",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_said_to_be_none(tmp_path: Path, classifier: ModelPackage, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    [case] = read_manifest(manifest(tmp_path, "file,class", f"{name},normal"), classifier, Choice()).cases
    with pytest.raises(DataError, match="that is no X-ray" if "smaller" in name else "replace it"):
        case.image()


NO_MANIFEST = {
    "no rows": ("file,class", "no rows"),
    "nothing": ("", "no rows"),
    "no file": ("image,class\na.png,normal", "no column 'file'"),
    "no class": ("file,diagnosis\na.png,normal", "needs the column class"),
    "a column twice": ("file,class,class\na.png,normal,viral", "twice"),
    "a huge cell": (f'file,class\na.png,"{"x" * 200_000}', "field larger"),
}


@pytest.mark.parametrize(("text", "said"), NO_MANIFEST.values(), ids=NO_MANIFEST.keys())
def test_what_is_no_manifest_is_refused_in_one_sentence(
    tmp_path: Path, classifier: ModelPackage, text: str, said: str
) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=said) as refused:
        read_manifest(tmp_path, classifier, Choice())
    assert "\n" not in str(refused.value)


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path, classifier: ModelPackage) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"file,class\n\xff\xfe,normal\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(tmp_path, classifier, Choice())


def test_masks_lie_in_a_folder_of_their_own_under_the_name_of_the_image(tmp_path: Path, cxr_lung: ModelPackage) -> None:
    inside = np.zeros((16, 24), np.uint8)
    inside[4:9, 3:11] = 255
    picture(tmp_path / "img" / "one.jpg", np.zeros((16, 24), np.uint8))
    picture(tmp_path / "mask" / "one.png", inside)
    [case] = read_manifest(manifest(tmp_path, "id,source", "one,here"), cxr_lung, Choice()).cases
    assert case.masks is not None
    [(label, mask)] = case.masks().items()
    assert label == "Lung"
    assert np.array_equal(mask, inside > 0)


def test_the_blur_of_a_jpeg_does_not_widen_a_mask(tmp_path: Path, cxr_lung: ModelPackage) -> None:
    inside = np.zeros((64, 64), np.uint8)
    inside[20:41, 13:37] = 255
    picture(tmp_path / "images" / "one.png", inside)
    picture(tmp_path / "masks" / "one.jpg", inside)
    [case] = read_manifest(manifest(tmp_path, "file", "one.png"), cxr_lung, Choice()).cases
    assert case.masks is not None
    assert np.array_equal(case.masks()["Lung"], inside > 0)


def test_the_colours_of_a_palette_do_not_change_the_values_of_a_mask(tmp_path: Path, cxr_lung: ModelPackage) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[:, :3], labels[:, 5:] = 1, 2
    coloured = Picture.fromarray(labels).convert("P")
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    grey = Picture.fromarray(labels).convert("P")
    grey.putpalette([255] * 3 + [0] * 3 + [255] * 3)  # what is 1 is black
    (tmp_path / "masks").mkdir()
    for name, mask in (("a", coloured), ("b", grey)):
        picture(tmp_path / f"{name}.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
        mask.save(tmp_path / "masks" / f"{name}.png")
    told = "Left lung=1; Right lung=2"
    rows = (f"a.png,a.png,{told}", "b.png,b.png,")
    one, other = read_manifest(manifest(tmp_path, "file,mask,segments", *rows), cxr_lung, Choice()).cases
    assert one.masks is not None
    assert other.masks is not None
    for label, value in (("Left lung", 1), ("Right lung", 2)):
        np.testing.assert_array_equal(one.masks()[label], labels == value)
    [whole] = other.masks().values()
    np.testing.assert_array_equal(whole, labels != 1)


def test_a_mask_of_another_size_is_refused(tmp_path: Path, cxr_lung: ModelPackage) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "m.png", np.zeros((5, 5), np.uint8))
    [case] = read_manifest(manifest(tmp_path, "file,mask", "a.png,m.png"), cxr_lung, Choice()).cases
    assert case.masks is not None
    with pytest.raises(DataError, match="scale it"):
        case.masks()


def test_a_ct_keeps_its_geometry_and_its_mask_tells_segments_by_their_values(
    tmp_path: Path, ct_lung: ModelPackage
) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, :, :2], labels[1, :, 3:], labels[2] = 1, 2, 3
    volume(tmp_path / "ct.nii.gz", np.full((3, 4, 5), -700, np.int16), (10, 20, 30))
    volume(tmp_path / "labels.nrrd", labels, (10, 20, 30))
    folder = manifest(
        tmp_path, "file,mask,segments", "ct.nii.gz,labels.nrrd,Right lung=1; Left lung=2+3", "ct.nii.gz2,labels.nrrd,"
    )
    [case] = read_manifest(folder, ct_lung, Choice()).cases
    image = case.image()
    assert isinstance(image, Volume)
    assert image.spacing == pytest.approx((2.0, 0.75, 0.5))
    assert image.affine @ (1, 2, 3, 1) == pytest.approx((10 + 1.5, 20 + 1.5, 30 + 2, 1))
    assert case.masks is not None
    masks = case.masks()
    assert np.array_equal(masks["Right lung"], labels == 1)
    assert np.array_equal(masks["Left lung"], labels >= 2)


def test_a_mask_that_tells_no_sides_is_of_all_segments(tmp_path: Path, ct_lung: ModelPackage) -> None:
    volume(tmp_path / "ct.nii", np.zeros((3, 4, 5), np.int16))
    volume(tmp_path / "m.nii", np.ones((3, 4, 5), np.uint8))
    [case] = read_manifest(manifest(tmp_path, "file,mask", "ct.nii,m.nii"), ct_lung, Choice()).cases
    assert case.masks is not None
    assert list(case.masks()) == ["Left lung+Right lung"]
    one = manifest(tmp_path, "file,mask:left lung", "ct.nii,m.nii")
    [case] = read_manifest(one, ct_lung, Choice()).cases
    assert case.masks is not None
    assert list(case.masks()) == ["Left lung"]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ASL", "SRP"])
def test_a_mask_whose_axes_are_turned_lies_where_it_was_drawn(tmp_path: Path, ct_lung: ModelPackage, axes: str) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2:, 1], labels[2, 0, 4] = 1, 1
    volume(tmp_path / "ct.nii", labels.astype(np.int16) * 100, (10, 20, 30))
    straight = sitk.ReadImage(volume(tmp_path / "m.nrrd", labels, (10, 20, 30)))
    sitk.WriteImage(sitk.DICOMOrient(straight, axes), tmp_path / "m.nrrd")
    [case] = read_manifest(manifest(tmp_path, "file,mask", "ct.nii,m.nrrd"), ct_lung, Choice()).cases
    assert case.masks is not None
    [mask] = case.masks().values()
    assert np.array_equal(mask, labels > 0)
    assert np.array_equal(mask, case.image().array > 0)


@pytest.mark.parametrize("shift", [(0, 0, 2.0), (0.5, 0, 0)])
def test_a_mask_that_lies_beside_its_ct_is_refused(
    tmp_path: Path, ct_lung: ModelPackage, shift: tuple[float, float, float]
) -> None:
    volume(tmp_path / "ct.nii", np.zeros((3, 4, 5), np.int16))
    volume(tmp_path / "m.nii", np.ones((3, 4, 5), np.uint8), shift)
    [case] = read_manifest(manifest(tmp_path, "file,mask", "ct.nii,m.nii"), ct_lung, Choice()).cases
    assert case.masks is not None
    with pytest.raises(DataError, match="resample it"):
        case.masks()


def test_rows_of_lesions_are_joined_by_their_scan_and_an_empty_one_says_that_there_is_none(tmp_path: Path) -> None:
    package = load_package(detector_package(tmp_path / "models"))
    for name in "ab":
        volume(tmp_path / f"{name}.nii", np.zeros((3, 4, 5), np.int16))
    folder = manifest(tmp_path, "file,x,y,z,diameter_mm", "a.nii,10,20,30,6", "b.nii,,,,", "a.nii,-1,0,1,4")
    one, other = read_manifest(folder, package, Choice()).cases
    assert one.lesions is not None
    assert [(lesion.centre, lesion.diameter_mm) for lesion in one.lesions] == [((10, 20, 30), 6), ((-1, 0, 1), 4)]
    assert one.lesions[0].low == (7, 17, 27)
    assert other.lesions == ()


@pytest.mark.parametrize("row", ["a.nii,x,20,30,6", "a.nii,1,nan,30,6", "a.nii,1,2,3,-6", "a.nii,1,2,3,"])
def test_a_lesion_without_a_sound_place_is_a_problem(tmp_path: Path, row: str) -> None:
    package = load_package(detector_package(tmp_path / "models"))
    volume(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16))
    found = read_manifest(manifest(tmp_path, "file,x,y,z,diameter_mm", row), package, Choice())
    assert (len(found.cases), len(found.unusable)) == (0, 1)


@pytest.mark.parametrize("diameter", ["0", "-5"])
def test_a_box_whose_diameter_is_no_size_is_a_problem(tmp_path: Path, diameter: str) -> None:
    package = load_package(detector_package(tmp_path / "models"))
    volume(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16))
    columns = "file,x_min,y_min,z_min,x_max,y_max,z_max,diameter_mm"
    found = read_manifest(manifest(tmp_path, columns, f"a.nii,1,2,3,4,5,6,{diameter}"), package, Choice())
    assert [case.problem for case in found.unusable] == ["line 2: a lesion's diameter_mm is not above 0; correct it"]


def short_integers(content: bytes, start: int, *values: int) -> bytes:
    return content[:start] + struct.pack(f"<{len(values)}h", *values) + content[start + 2 * len(values) :]


UNSOUND = {
    "cut off": (".nii", lambda content: content[:-40], "ends before its last voxel"),
    "cut off when packed": (".nii.gz", lambda content: content[:-40], "cannot be unpacked"),
    "lying nowhere": (".nii", lambda content: short_integers(content, 252, 0, 0), "does not say how it lies"),
    "of two spacings": (
        ".nii",
        lambda content: short_integers(content[:80] + struct.pack("<f", 3.0) + content[84:], 252, 0, 1),
        "states two spacings",
    ),
}  # qform_code and sform_code are at 252, the second pixdim at 80 (nifti1.h)


@pytest.mark.parametrize(("end", "damage", "said"), UNSOUND.values(), ids=UNSOUND.keys())
def test_a_nifti_that_would_be_read_wrongly_is_refused(
    tmp_path: Path, ct_lung: ModelPackage, end: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    values = np.random.default_rng(1).integers(-1000, 400, (6, 12, 12)).astype(np.int16)
    file = volume(tmp_path / f"a{end}", values)
    (tmp_path / "masks").mkdir()
    volume(tmp_path / "masks" / "a.nii", (values > 0).astype(np.uint8))
    [case] = read_manifest(manifest(tmp_path, "file", f"a{end}"), ct_lung, Choice()).cases
    assert case.image().array.shape == (6, 12, 12)
    file.write_bytes(damage(file.read_bytes()))
    [case] = read_manifest(tmp_path, ct_lung, Choice()).cases
    with pytest.raises(DataError, match=said):
        case.image()


def test_of_two_niftis_of_one_name_none_is_taken_for_the_other(tmp_path: Path, ct_lung: ModelPackage) -> None:
    (tmp_path / "masks").mkdir()
    volume(tmp_path / "masks" / "a.nii", np.zeros((6, 12, 12), np.uint8))
    for name, value in (("a.nii", 1), ("a.nii.gz", 2)):
        volume(tmp_path / name, np.full((6, 12, 12), value, np.int16))
    plain, packed = read_manifest(manifest(tmp_path, "file", "a.nii", "a.nii.gz"), ct_lung, Choice()).cases
    assert (plain.image().array == 1).all()
    with pytest.raises(DataError, match="same name without"):
        packed.image()


def test_a_limit_takes_rows_from_everywhere(tmp_path: Path, classifier: ModelPackage) -> None:
    rows = [f"{number:02}.png,{'normal' if number < 10 else 'viral'}" for number in range(20)]
    for row in rows:
        picture(tmp_path / row.split(",")[0])
    found = read_manifest(manifest(tmp_path, "file,class", *rows), classifier, Choice(limit=4))
    assert [case.label for case in found.cases] == ["normal", "normal", "viral", "viral"]
    assert found.words.endswith("all rows, 4 of 20 images")
    assert spread("abc", 5) == ("a", "b", "c")


def test_ages_become_bands() -> None:
    said: Callable[[str], str] = age_band
    assert [said(age) for age in ("17", "18", "062Y", "64.5", "65", "010M", "3000", "", "unknown")] == [
        "under 18", "18 to 39", "40 to 64", "40 to 64", "65 and more", "under 18", "", "", "",
    ]  # fmt: skip


def test_the_manifests_of_the_shared_data_are_read_whole(
    shared_data: Path, classifier: ModelPackage, cxr_lung: ModelPackage
) -> None:
    classes = read_manifest(shared_data / "cxr", classifier, EVERY_ROW)
    assert (len(classes.cases), classes.unusable) == (2107, ())
    outlines = read_manifest(shared_data / "cxr_lung" / "manifest.csv", cxr_lung, EVERY_ROW)
    assert (len(outlines.cases), outlines.unusable) == (338, ())
    assert outlines.cases[0].masks is not None
    assert outlines.cases[0].masks()["Lung"].any()
