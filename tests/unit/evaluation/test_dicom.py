"""Folders of DICOM become cases: what SEGs and SRs say, whoever wrote them, lies where it is on the images."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset
from pydicom.uid import generate_uid

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.types import Code, Detection, Detections, LabelMap, Segment, Volume
from evaluation.collection import Choice
from evaluation.dicom import read_folder
from evaluation.dicom_headers import read_headers
from evaluation.dicom_image import read_dicom
from evaluation.dicom_lesions import lesions_in_volume, looked_for
from evaluation.dicom_report import read_findings
from evaluation.dicom_segmentation import read_masks
from evaluation.errors import DataError
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile, SegmentationForm
from service.series.assembly import Item, assemble
from tests.small_models import detector_package
from tests.unit.service.results.examples import LEFT_LUNG, RIGHT_LUNG, findings, pneumonia_findings

NODULE, MASS = Code("27925004", "SCT", "Nodule"), Code("4147007", "SCT", "Mass")
LIVER = Segment(1, "Liver", Code("85756007", "SCT", "Tissue"), Code("10200004", "SCT", "Liver"), (200, 90, 60))


def unwatched(*_: object) -> None:
    """Nobody looks at the progress."""


def series_in(folder: Path) -> Item:
    [item] = assemble(sorted(folder.glob("*.dcm"))).items
    return item


def some_labels(image: Volume) -> np.ndarray:
    """Left and right lung as two blocks that touch no border and are as different as can be."""
    labels = np.zeros(image.array.shape, np.uint8)
    _, rows, columns = labels.shape
    labels[2:9, 3 : rows // 2, 5 : columns // 3] = RIGHT_LUNG.number
    labels[4:11, rows // 3 : rows - 7, columns // 2 : columns - 2] = LEFT_LUNG.number
    labels[6, rows // 3, columns // 2] = 0
    return labels


def seg_of(item: Item, labels: np.ndarray, folder: Path, form: SegmentationForm = "binary") -> Path:
    """The SEG that the node would send."""
    probabilities = np.stack([(labels == number) * np.uint8(200) for number in (1, 2)])
    found = findings(label_map=LabelMap(labels, (LEFT_LUNG, RIGHT_LUNG), probabilities))
    profile = ResultProfile(objects=("SEG",), segmentation=form)
    [made] = encode(Analysis(found, item.image, item.headers(), profile), folder)
    return made.path


@pytest.fixture(scope="module")
def ct(phantom_ct: Path) -> Item:
    return series_in(phantom_ct)


@pytest.fixture(scope="module")
def ct_lung() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "ct-lung")


FORMS: tuple[SegmentationForm, ...] = ("binary", "labelmap", "labelmap-rle", "labelmap-jpeg-ls", "fractional")


@pytest.mark.parametrize("form", FORMS)
def test_a_seg_of_ours_is_read_voxel_by_voxel(tmp_path: Path, ct: Item, form: SegmentationForm) -> None:
    labels = some_labels(ct.image)  # type: ignore[arg-type]
    masks = read_masks(seg_of(ct, labels, tmp_path, form), ct.image, (LEFT_LUNG, RIGHT_LUNG))
    assert {*masks} == {"Left lung", "Right lung"}
    assert np.array_equal(masks["Left lung"], labels == LEFT_LUNG.number)
    assert np.array_equal(masks["Right lung"], labels == RIGHT_LUNG.number)


def test_segments_are_known_by_their_codes_where_their_labels_are_others(tmp_path: Path, ct: Item) -> None:
    labels = some_labels(ct.image)  # type: ignore[arg-type]
    file = seg_of(ct, labels, tmp_path)
    ours = (replace(LEFT_LUNG, label="Pulmo sinister"), replace(RIGHT_LUNG, label="Pulmo dexter"))
    masks = read_masks(file, ct.image, ours)
    assert np.array_equal(masks["Pulmo sinister"], labels == LEFT_LUNG.number)
    seg = pydicom.dcmread(file)
    for number, item in enumerate(seg.SegmentSequence):
        item.SegmentLabel = f"structure {number}"
        [kind] = item.SegmentedPropertyTypeCodeSequence
        kind.CodeValue, kind.CodingSchemeDesignator = "T-28000", "SRT"  # SNOMED's old identifier of the same
        del kind.SegmentedPropertyTypeModifierCodeSequence
    seg.save_as(file)
    [(label, mask)] = read_masks(file, ct.image, ours).items()
    assert label == "Pulmo sinister+Pulmo dexter"  # the reference tells no sides
    assert np.array_equal(mask, labels > 0)


def test_a_seg_of_something_else_is_refused(tmp_path: Path, ct: Item) -> None:
    file = seg_of(ct, some_labels(ct.image), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"none of it is Liver"):
        read_masks(file, ct.image, (LIVER,))


def changed(file: Path, position: tuple[float, float], cropped: int = 0, spacing: float = 1.0) -> Path:
    """A label map of bytes whose frames begin that many rows and columns later, and are that much smaller."""
    seg = pydicom.dcmread(file)
    frames = seg.pixel_array[:, cropped:, cropped:]
    seg.Rows, seg.Columns, seg.PixelData = *frames.shape[1:], frames.tobytes()
    [measures] = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    step = [float(each) for each in measures.PixelSpacing]
    measures.PixelSpacing = [each * spacing for each in step]
    for group in seg.PerFrameFunctionalGroupsSequence:
        [place] = group.PlanePositionSequence
        x, y, z = (float(each) for each in place.ImagePositionPatient)
        place.ImagePositionPatient = [x + position[1] * step[1], y + position[0] * step[0], z]
    seg.save_as(file)
    return file


def test_a_seg_that_was_cropped_lies_where_its_positions_say(tmp_path: Path, ct: Item) -> None:
    labels = some_labels(ct.image)  # type: ignore[arg-type]
    file = changed(seg_of(ct, labels, tmp_path, "labelmap"), (2, 2), cropped=2)
    masks = read_masks(file, ct.image, (LEFT_LUNG, RIGHT_LUNG))
    assert np.array_equal(masks["Left lung"], labels == LEFT_LUNG.number)


def test_a_seg_that_was_written_upside_down_lies_where_its_positions_say(tmp_path: Path, ct: Item) -> None:
    labels = some_labels(ct.image)  # type: ignore[arg-type]
    file = changed(seg_of(ct, labels, tmp_path, "labelmap"), (labels.shape[1] - 1, 0))
    seg = pydicom.dcmread(file)
    seg.PixelData = seg.pixel_array[:, ::-1].tobytes()
    for orientation in (
        group.PlaneOrientationSequence[0]
        for group in (*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence)
        if "PlaneOrientationSequence" in group
    ):
        along = [float(each) for each in orientation.ImageOrientationPatient]
        orientation.ImageOrientationPatient = [*along[:3], *(-each for each in along[3:])]
    seg.save_as(file)
    masks = read_masks(file, ct.image, (LEFT_LUNG, RIGHT_LUNG))
    assert np.array_equal(masks["Left lung"], labels == LEFT_LUNG.number)


@pytest.mark.parametrize(("shift", "spacing"), [((0.5, 0), 1.0), ((0, 0), 1.1)])
def test_a_seg_on_another_grid_is_refused(tmp_path: Path, ct: Item, shift: tuple[float, float], spacing: float) -> None:
    file = seg_of(ct, some_labels(ct.image), tmp_path, "labelmap")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="resample it"):
        read_masks(changed(file, shift, spacing=spacing), ct.image, (LEFT_LUNG, RIGHT_LUNG))


def test_a_seg_of_slices_that_are_not_there_is_refused(tmp_path: Path, ct: Item, phantom_ct: Path) -> None:
    file = seg_of(ct, some_labels(ct.image), tmp_path)  # type: ignore[arg-type]
    [half] = assemble(sorted(phantom_ct.glob("*.dcm"))[:7]).items
    with pytest.raises(DataError, match="slices that are missing"):
        read_masks(file, half.image, (LEFT_LUNG, RIGHT_LUNG))


def test_what_is_no_seg_is_said_to_be_none(tmp_path: Path, ct: Item) -> None:
    file = tmp_path / "x.dcm"
    pydicom.dcmread(ct.files[0]).save_as(file)
    with pytest.raises(DataError, match="cannot be understood"):
        read_masks(file, ct.image, (LEFT_LUNG,))


@pytest.mark.parametrize(
    ("seg", "images", "expected"),
    [
        ("liver.dcm", "ct-3slice", "liver_seg.nrrd"),
        ("sparse-labelmap-noppv.dcm", "24x38x3/image", "sparse_labelmap_noppv_seg.nrrd"),
    ],
)
def test_a_seg_of_dcmqi_is_read_as_dcmqi_reads_it(shared_data: Path, seg: str, images: str, expected: str) -> None:
    folder = shared_data / "dicom" / "seg_dcmqi"
    item = series_in(folder / images)
    [mask] = read_masks(folder / seg, item.image, (LIVER,)).values()
    assert mask.any()
    image = sitk.ReadImage(folder / expected)
    like = sitk.GetImageFromArray(item.image.array)
    affine = item.image.affine  # type: ignore[union-attr]
    like.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0)[::-1].tolist())
    like.SetOrigin(affine[:3, 3].tolist())
    like.SetDirection((affine[:3, 2::-1] / np.linalg.norm(affine[:3, :3], axis=0)[::-1]).ravel().tolist())
    resampled = sitk.Resample(image, like, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(mask, sitk.GetArrayFromImage(resampled) > 0)


def test_eight_boxes_on_the_slices_of_one_nodule_are_one_lesion(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "ct_nlst101287_toshiba_jpegls_plus_sybil_sr"
    package = load_package(detector_package(tmp_path))
    found = read_folder(folder, package, Choice(), unwatched)
    [case] = found.cases
    assert case.lesions is not None
    [lesion] = case.lesions
    # eight slices of 2 mm, boxes of 27 to 40 by 27 to 34 pixels of 0.54 mm
    assert lesion.high[2] - lesion.low[2] == pytest.approx(16.0)
    assert 20 < lesion.high[0] - lesion.low[0] < 23
    assert 17 < lesion.high[1] - lesion.low[1] < 20
    volume = case.image()
    assert isinstance(volume, Volume)
    inside = np.linalg.inv(volume.affine) @ (*lesion.centre, 1)
    assert inside[2] == pytest.approx((266 + 306) / 2, abs=1)
    assert inside[1] == pytest.approx((286.4 + 320.4) / 2, abs=1)
    assert case.name not in ("", "101287")


@pytest.mark.parametrize("form", ["binary", "labelmap"])
def test_a_seg_of_an_xray_is_read_pixel_by_pixel(tmp_path: Path, phantom_xray: Path, form: SegmentationForm) -> None:
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    [item] = assemble(sorted(phantom_xray.glob("*.dcm"))).items
    labels = np.zeros(item.image.array.shape, np.uint8)
    labels[30:90, 20:130] = 1
    found = findings(label_map=LabelMap(labels, package.segments))
    [made] = encode(
        Analysis(found, item.image, item.headers(), ResultProfile(objects=("SEG",), segmentation=form)),
        tmp_path / "seg",
    )
    [case] = read_folder(folder_of(tmp_path, phantom_xray, made.path), package, Choice(), unwatched).cases
    assert case.masks is not None
    assert np.array_equal(case.masks()["Lung"], labels == 1)


def test_a_hostile_report_is_refused(tmp_path: Path, ct: Item) -> None:
    [made] = encode(detected(ct, ((0.0, 0.0, 0.0), (9.0, 9.0, 9.0))), tmp_path / "sr")
    good = pydicom.dcmread(made.path)
    groups = (item for part in good.ContentSequence for item in part.get("ContentSequence") or [])
    [group, *_] = (item for item in groups if item.ConceptNameCodeSequence[0].CodeValue == "125007")
    [region] = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
    for data, said in (
        ([], "an SR"),
        ([1.0, 2.0, 3.0], "cannot be understood"),
        ([float("nan")] * 4, "without a place"),
    ):
        region.GraphicData = data
        good.save_as(tmp_path / "bad.dcm")
        with pytest.raises(DataError, match=said):
            read_findings(tmp_path / "bad.dcm")
    region.GraphicData = [1.0, 2.0]
    group.ContentSequence = [region] * 6000
    good.save_as(tmp_path / "bad.dcm")
    with pytest.raises(DataError, match="more than 5000"):
        read_findings(tmp_path / "bad.dcm")
    assert read_findings(_noise(tmp_path / "noise.dcm")) is None  # and not: there is nothing to find


def _noise(file: Path) -> Path:
    file.write_bytes(bytes(128) + b"DICM" + np.random.default_rng(1).bytes(2000))
    return file


def test_files_that_are_no_dicom_or_broken_are_counted_and_disturb_nothing(
    tmp_path: Path, phantom_ct: Path, ct: Item, ct_lung: ModelPackage
) -> None:
    folder = folder_of(tmp_path, phantom_ct, seg_of(ct, some_labels(ct.image), tmp_path / "seg"))  # type: ignore[arg-type]
    _noise(folder / "noise.dcm")
    (folder / "readme.txt").write_text("hello")
    found = read_folder(folder, ct_lung, Choice(), unwatched)
    assert len(found.cases) == 1
    assert any(note.startswith("1 DICOM files were left out") for note in found.notes)


def detected(item: Item, *boxes: tuple[tuple[float, ...], tuple[float, ...]]) -> Analysis:
    found = tuple(Detection("Nodule", NODULE, 0.9, low, high) for low, high in boxes)
    answer = findings(detections=Detections(found, (("Nodule", NODULE), ("Mass", MASS))))
    return Analysis(answer, item.image, item.headers(), ResultProfile(objects=("SR",)))


def test_a_report_of_ours_gives_back_the_boxes_that_were_found(tmp_path: Path, phantom_ct: Path, ct: Item) -> None:
    volume = ct.image
    assert isinstance(volume, Volume)
    centres = [(volume.affine @ (*index, 1))[:3] for index in ((5, 20, 20), (14, 40, 30))]
    boxes = [(tuple(map(float, centre - 7.5)), tuple(map(float, centre + 7.5))) for centre in centres]
    [made] = encode(detected(ct, *boxes), tmp_path / "sr")
    found = read_headers(phantom_ct, unwatched)
    lesions = lesions_in_volume(looked_for(read_findings(made.path) or (), [NODULE]), found.series[0])
    assert len(lesions) == 2
    for lesion, (low, high) in zip(lesions, boxes, strict=True):
        assert np.allclose(lesion.low, low, atol=volume.spacing[0])
        assert np.allclose(lesion.high, high, atol=volume.spacing[0])


def folder_of(tmp_path: Path, images: Path, *objects: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(images, folder)
    for number, file in enumerate(objects):
        shutil.copy(file, folder / f"object-{number}.dcm")
    return folder


def test_a_folder_with_a_seg_is_a_case_whose_mask_lies_on_its_image(
    tmp_path: Path, phantom_ct: Path, ct: Item, ct_lung: ModelPackage
) -> None:
    labels = some_labels(ct.image)  # type: ignore[arg-type]
    folder = folder_of(tmp_path, phantom_ct, seg_of(ct, labels, tmp_path / "seg"))
    found = read_folder(folder, ct_lung, Choice(), unwatched)
    [case] = found.cases
    image = case.image()
    assert np.array_equal(image.array, ct.image.array)
    assert case.masks is not None
    assert np.array_equal(case.masks()["Left lung"], labels == LEFT_LUNG.number)
    assert any("AUTOMATIC" in note for note in found.notes)
    header = ct.headers()[0]
    told = f"{case.name} {case.patient} {found.words} {case.groups}"
    assert str(header.PatientID) not in told
    assert str(header.PatientName) not in told


def test_a_seg_goes_to_the_series_that_it_names_and_others_are_left_out(
    tmp_path: Path, phantom_ct: Path, ct: Item, ct_lung: ModelPackage
) -> None:
    folder = folder_of(tmp_path, phantom_ct, seg_of(ct, some_labels(ct.image), tmp_path / "seg"))  # type: ignore[arg-type]
    series = generate_uid()
    for file in phantom_ct.glob("*.dcm"):  # the same place once more
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID, image.SOPInstanceUID = series, generate_uid()
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(folder / f"again-{file.name}")
    found = read_folder(folder, ct_lung, Choice(), unwatched)
    assert len(found.cases) == 1
    assert any(note.startswith("1 series was left out: no SEG or SR") for note in found.notes)


@pytest.mark.parametrize("shift", [0.5, 120.0], ids=["between", "behind"])
def test_slices_of_two_patients_in_one_folder_make_no_image(tmp_path: Path, phantom_ct: Path, shift: float) -> None:
    folder = tmp_path / "both"
    shutil.copytree(phantom_ct, folder)
    assert read_dicom(folder).array.shape[0] == len(list(phantom_ct.glob("*.dcm")))
    step = series_in(phantom_ct).image.affine[:3, 0]  # type: ignore[union-attr]
    series = generate_uid()
    for file in sorted(phantom_ct.glob("*.dcm")):  # slices that would fill the gaps, or go on where the others end
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID, image.SOPInstanceUID, image.PatientID = series, generate_uid(), "another"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.ImagePositionPatient = [f"{each:.6g}" for each in np.array(image.ImagePositionPatient) + shift * step]
        image.save_as(folder / f"again-{file.name}")
    with pytest.raises(DataError, match="holds 2 images instead of one"):
        read_dicom(folder)


def test_an_image_without_a_reference_is_no_case(tmp_path: Path, phantom_ct: Path, ct_lung: ModelPackage) -> None:
    with pytest.raises(DataError, match="holds no SEG about its CT series that ct-lung could be judged by"):
        read_folder(phantom_ct, ct_lung, Choice(), unwatched)
    with pytest.raises(DataError, match="holds no X-ray, which cxr-lung takes"):
        read_folder(phantom_ct, load_package(SHIPPED_MODELS / "cxr-lung"), Choice(), unwatched)
    with pytest.raises(DataError, match=r"neither a manifest\.csv nor DICOM"):
        read_folder(tmp_path, ct_lung, Choice(), unwatched)


def test_a_report_that_found_nothing_says_that_there_is_no_lesion(tmp_path: Path, phantom_ct: Path, ct: Item) -> None:
    [made] = encode(detected(ct), tmp_path / "sr")
    package = load_package(detector_package(tmp_path / "models"))
    [case] = read_folder(folder_of(tmp_path, phantom_ct, made.path), package, Choice(), unwatched).cases
    assert case.lesions == ()


def test_the_newest_report_about_a_series_counts(tmp_path: Path, phantom_ct: Path, ct: Item) -> None:
    volume = ct.image
    assert isinstance(volume, Volume)
    centre = (volume.affine @ (5, 20, 20, 1))[:3]
    [older] = encode(detected(ct), tmp_path / "older")
    [newer] = encode(detected(ct, (tuple(centre - 4), tuple(centre + 4))), tmp_path / "newer")
    report = pydicom.dcmread(newer.path)
    report.ContentDate = "20990101"
    report.save_as(tmp_path / "newer.dcm")
    package = load_package(detector_package(tmp_path / "models"))
    for words, *order in (
        ("first", older.path, tmp_path / "newer.dcm"),
        ("last", tmp_path / "newer.dcm", older.path),
    ):
        folder = folder_of(tmp_path / words, phantom_ct, *order)
        [case] = read_folder(folder, package, Choice(), unwatched).cases
        assert case.lesions is not None
        assert len(case.lesions) == 1


def test_the_finding_of_a_report_is_the_class_of_an_xray(tmp_path: Path, phantom_xray: Path) -> None:
    [item] = assemble(sorted(phantom_xray.glob("*.dcm"))).items
    analysis = Analysis(pneumonia_findings(), item.image, item.headers(), ResultProfile(objects=("SR",)))
    [made] = encode(analysis, tmp_path / "sr")
    package = load_package(SHIPPED_MODELS / "cxr-pneumonia")
    report = pydicom.dcmread(made.path)
    present = _present("233604007", "Pneumonia")
    [measurements] = (item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    measurements.ContentSequence.append(present)
    report.save_as(tmp_path / "report.dcm")
    folder = folder_of(tmp_path, phantom_xray, tmp_path / "report.dcm")
    [case] = read_folder(folder, package, Choice(), unwatched).cases
    assert case.label == "Pneumonia"
    assert case.groups["view"] in ("PA", "AP")


def _present(value: str, meaning: str) -> Dataset:
    """A coded evaluation that says that something is present."""
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "CODE"
    item.ConceptNameCodeSequence = [_code(value, meaning)]
    item.ConceptCodeSequence = [_code("52101004", "Present")]
    return item


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


def test_regions_of_highdicom_are_circles_and_polygons_with_their_diameter(shared_data: Path) -> None:
    file = shared_data / "dicom" / "seg_sr_highdicom" / "sr_document_with_multiple_groups.dcm"
    everything = read_findings(file) or ()
    [nodule] = (each for each in everything if each.code is not None and each.code.CodeMeaning == "Nodule")
    [region] = nodule.regions
    assert nodule.diameter_mm == 10.0
    # a circle around column 45 and row 55 with a radius of 10; the first pixel spans 0 to 1
    assert region.points.min(axis=0) == pytest.approx((44.5, 34.5))
    assert region.points.max(axis=0) == pytest.approx((64.5, 54.5))
    wanted = looked_for(everything, [NODULE])
    assert [each.diameter_mm for each in wanted] == [10.0]  # no aorta, no vertebra
