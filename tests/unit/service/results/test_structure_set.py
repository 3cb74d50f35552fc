import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset

from engines.types import LabelMap, Segment
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.contours import inside, polygons
from service.results.encode import encode
from service.results.kinds import wanted
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.results.writers.structure_set import keyhole
from service.types import ResultObject
from tests.unit.service.results.damage import Damage, copies, damaged, set_
from tests.unit.service.results.examples import (
    ANATOMY,
    LEFT_LUNG,
    LUNG,
    Example,
    analysis_of,
    lung_findings,
    small_ct,
    small_ct_example,
    small_radiograph,
    two_fields,
    volume_of,
)
from tests.unit.service.results.odd_sources import enhanced_ct, tilted_head
from tests.validators import dcentvfy_errors, dciodvfy_errors, require_tool

FINER = 4


def analysed(example: Example) -> Analysis:
    profile = ResultProfile(objects=("RTSTRUCT",))
    return analysis_of(example.findings, example.image, example.headers, profile=profile)


def written(example: Example, folder: Path) -> ResultObject:
    [result] = encode(analysed(example), folder)
    return result


def labels_of(example: Example) -> NDArray[np.uint8]:
    assert example.findings.label_map is not None
    return example.findings.label_map.array


def thinned(example: Example) -> Example:
    """Every eighth slice."""
    headers = example.headers[::8]
    volume = volume_of(example.image.array[::8], headers)
    return Example(volume, headers, lung_findings(labels_of(example)[::8], volume))


def geometry(example: Example) -> dict[tuple[str, int | None], tuple[int, Dataset, Dataset, Dataset]]:
    """Slice, position, orientation and spacing of each image or frame, from the headers themselves."""
    found = {}
    for header in example.headers:
        if "PerFrameFunctionalGroupsSequence" not in header:
            found[(header.SOPInstanceUID, None)] = (len(found), header, header, header)
            continue
        shared = header.SharedFunctionalGroupsSequence[0]
        for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence, start=1):
            places = frame.PlanePositionSequence[0]
            directions = (frame.get("PlaneOrientationSequence") or shared.PlaneOrientationSequence)[0]
            sizes = (frame.get("PixelMeasuresSequence") or shared.PixelMeasuresSequence)[0]
            assert example.image.frames is not None
            index = example.image.frames.index(number)
            found[(header.SOPInstanceUID, number)] = (index, places, directions, sizes)
    return found


def drawn(item: Dataset, example: Example, slices: set[int]) -> NDArray[np.bool_]:
    """Second opinion: the contours of one region, as Pillow draws them on a finer grid of each of some slices."""
    shape = labels_of(example).shape
    result = np.zeros(shape, bool)
    places = geometry(example)
    for contour in item.ContourSequence:
        [image] = contour.ContourImageSequence
        uid, frame = image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")
        index, position, orientation, spacing = places[(uid, frame)]
        if index not in slices:
            continue
        offsets = np.reshape(contour.ContourData, (-1, 3)).astype(float) - np.array(
            position.ImagePositionPatient, float
        )
        axes = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
        assert np.abs(offsets @ np.cross(*axes)).max() < 0.01, "off its plane"
        columns = offsets @ axes[0] / float(spacing.PixelSpacing[1])
        rows = offsets @ axes[1] / float(spacing.PixelSpacing[0])
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        canvas = Image.new("1", (FINER * width, FINER * height))
        corners = zip((FINER * (columns - left + 0.5)).tolist(), (FINER * (rows - top + 0.5)).tolist(), strict=True)
        ImageDraw.Draw(canvas).polygon(list(corners), fill=1)
        box = result[index, top : top + height, left : left + width]
        box |= np.asarray(canvas)[FINER // 2 :: FINER, FINER // 2 :: FINER]
    return result


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("source", ["nlst", "small chest", "tilted head", "enhanced", "oblique"])
def test_contours_drawn_by_another_hand_hold_the_voxels_that_were_found(
    source: str, shared_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sources: dict[str, Callable[[], Example]] = {
        "nlst": lambda: thinned(request.getfixturevalue("nlst_ct")),
        "small chest": lambda: request.getfixturevalue("chest_64"),
        "tilted head": lambda: tilted_head(shared_data),
        "enhanced": lambda: enhanced_ct(shared_data),
        "oblique": lambda: small_ct_example(oblique=True),
    }
    example = sources[source]()
    labels = labels_of(example)
    result = written(example, tmp_path)
    dataset = pydicom.dcmread(result.path)
    slices = set(range(0, len(labels), max(len(labels) // 8, 1)))
    chosen = sorted(slices)
    for item, segment in zip(dataset.ROIContourSequence, example.findings.label_map.present, strict=True):
        found = drawn(item, example, slices)
        assert dice(found[chosen], labels[chosen] == segment.number) >= 0.99
    # the head's own headers have it empty, beside PatientIdentityRemoved
    assert [error for error in dciodvfy_errors(result.path) if "DeidentificationMethod" not in error] == []
    assert dcentvfy_errors(result.path) == []


def test_dcmtk_reads_the_structure_set(chest_64: Example, tmp_path: Path) -> None:
    result = written(chest_64, tmp_path)
    done = subprocess.run([require_tool("drtdump"), result.path], capture_output=True, text=True, check=True)
    assert "RT Structure Set object" in done.stdout
    assert "Wetread, ct-lung" in done.stdout


def test_regions_are_named_coloured_coded_and_unapproved(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(written(small_ct_example(), tmp_path).path)
    assert [item.ROIName for item in dataset.StructureSetROISequence] == ["Left lung", "Right lung"]
    assert {item.ROIGenerationAlgorithm for item in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    assert list(dataset.ROIContourSequence[0].ROIDisplayColor) == list(LEFT_LUNG.colour)
    first = dataset.RTROIObservationsSequence[0]
    assert first.RTROIInterpretedType == "ORGAN"
    [kind] = first.RTROIIdentificationCodeSequence
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == ("39607008", "7771000")
    assert (dataset.StructureSetLabel, dataset.ApprovalStatus) == ("RESEARCH", "UNAPPROVED")
    assert dataset.StructureSetDescription.startswith("Research use only: ")
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20260304", "050607.890123")


def test_a_lesion_is_no_organ_and_no_target(tmp_path: Path) -> None:
    example = small_ct_example()
    lesion = replace(
        LEFT_LUNG, category=replace(ANATOMY, value="49755003", meaning="Morphologically Abnormal Structure")
    )
    findings = replace(example.findings, label_map=LabelMap(labels_of(example) % 2, (lesion,)), measurements=())
    result = written(replace(example, findings=findings), tmp_path)
    assert pydicom.dcmread(result.path).RTROIObservationsSequence[0].RTROIInterpretedType == ""
    assert dciodvfy_errors(result.path) == []


def test_overlapping_segments_are_regions_of_one_structure_set(tmp_path: Path) -> None:
    example = small_ct_example()
    labels = labels_of(example)
    lobe = Segment(3, "Lobe", ANATOMY, LUNG, (10, 200, 10))
    findings = replace(example.findings, overlapping=(LabelMap(np.where(labels == 1, 3, 0).astype(np.uint8), (lobe,)),))
    dataset = pydicom.dcmread(written(replace(example, findings=findings), tmp_path).path)
    left, _, again = dataset.ROIContourSequence
    assert [contour.ContourData for contour in left.ContourSequence] == [
        contour.ContourData for contour in again.ContourSequence
    ]


def test_neither_an_x_ray_nor_an_empty_finding_has_contours() -> None:
    image, headers = small_radiograph((40, 50))
    assert wanted(analysed(Example(image, headers, lung_findings(two_fields((40, 50)), image)))) == ()
    volume, headers = small_ct()
    assert wanted(analysed(Example(volume, headers, lung_findings(np.zeros((5, 13, 11), np.uint8), volume)))) == ()


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    example = small_ct_example()
    one, other = (written(example, tmp_path / name).path.read_bytes() for name in "ab")
    assert one == other


def test_a_region_whose_contour_is_too_long_for_its_value_is_cut_into_several(tmp_path: Path) -> None:
    sieve = np.ones((2, 110, 110), np.uint8)
    sieve[:, 1:-1:3, 1:-1:3] = 0
    assert len(polygons(sieve[0] == 1)) == 1
    volume, headers = small_ct((2, 110, 110))
    result = written(Example(volume, headers, lung_findings(sieve, volume)), tmp_path)  # self-checked voxel by voxel
    contours = pydicom.dcmread(result.path).ROIContourSequence[0].ContourSequence
    lengths = [len(contour.get_item("ContourData").value) for contour in contours]
    assert len(contours) > 2 * 4
    assert max(lengths) < 65534
    assert dciodvfy_errors(result.path) == []


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=14)))
def test_channels_to_holes_take_no_pixel_away(mask: NDArray[np.bool_]) -> None:
    found = polygons(mask)
    rings = [keyhole(polygon) for polygon in found]
    assert np.array_equal(inside(rings, mask.shape), mask)
    for ring, polygon in zip(rings, found, strict=True):
        # the two ends of a channel, there and back, at quarters: none runs through a centre
        assert np.count_nonzero(ring[:, 1] % 0.5 == 0.25) == 4 * len(polygon.holes)


def contour(dataset: Dataset, number: int = 0) -> Dataset:
    found: Dataset = dataset.ROIContourSequence[0].ContourSequence[number]
    return found


def shifted(axis: int, by: float) -> Damage:
    def damage(dataset: Dataset) -> None:
        points = np.reshape(contour(dataset).ContourData, (-1, 3)).astype(float)
        points[:, axis] += by
        contour(dataset).ContourData = [f"{value:.3f}" for value in points.ravel()]

    return damage


def one_contour_less(dataset: Dataset) -> None:
    item = dataset.ROIContourSequence[0]
    item.ContourSequence = list(item.ContourSequence)[1:]


def other_image(dataset: Dataset) -> None:
    contour(dataset).ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.9"


def neighbouring_image(dataset: Dataset) -> None:
    [neighbour] = contour(dataset, -1).ContourImageSequence
    contour(dataset).ContourImageSequence[0].ReferencedSOPInstanceUID = neighbour.ReferencedSOPInstanceUID


def fewer_images(dataset: Dataset) -> None:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    images = study.RTReferencedSeriesSequence[0].ContourImageSequence
    study.RTReferencedSeriesSequence[0].ContourImageSequence = list(images)[:-1]


def swapped_regions(dataset: Dataset) -> None:
    first, second = dataset.ROIContourSequence
    first.ContourSequence, second.ContourSequence = second.ContourSequence, first.ContourSequence


DAMAGES: dict[str, Damage] = {
    "a contour half a pixel off": shifted(0, 0.45),
    "a contour off its plane": shifted(2, 0.1),
    "one contour less": one_contour_less,
    "a dangling image": other_image,
    "the neighbour's image": neighbouring_image,
    "an image less in the list": fewer_images,
    "the other region's contours": swapped_regions,
    "a foreign frame of reference": set_("FrameOfReferenceUID", "1.2.3.9"),
    "a region in a foreign one": set_("StructureSetROISequence.ReferencedFrameOfReferenceUID", "1.2.3.9"),
    "another source study": set_(
        "ReferencedFrameOfReferenceSequence.RTReferencedStudySequence.ReferencedSOPInstanceUID", "1.2.3.9"
    ),
    "another region number": set_("StructureSetROISequence.ROINumber", 7),
    "contours of another region": set_("ROIContourSequence.ReferencedROINumber", 2),
    "another name": set_("StructureSetROISequence.ROIName", "Right lung"),
    "another colour": set_("ROIContourSequence.ROIDisplayColor", [1, 2, 3]),
    "another type": set_("RTROIObservationsSequence.RTROIIdentificationCodeSequence.CodeValue", "10200004"),
    "an open contour": set_("ROIContourSequence.ContourSequence.ContourGeometricType", "OPEN_PLANAR"),
    "another number of points": set_("ROIContourSequence.ContourSequence.NumberOfContourPoints", 3),
    "approval": set_("ApprovalStatus", "APPROVED"),
    "another label": set_("StructureSetLabel", "CLINICAL"),
    "another modality": set_("Modality", "CT"),
    "another instance": set_("SOPInstanceUID", "1.2.3.9"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, ResultObject]:
    example = small_ct_example()
    return analysed(example), written(example, tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_structure_set_is_caught(name: str, sound: tuple[Analysis, ResultObject], tmp_path: Path) -> None:
    analysis, result = sound
    [copy] = copies([result], tmp_path)
    damaged(copy.path, DAMAGES[name])
    with pytest.raises(Quarantined, match="RTSTRUCT"):
        self_check([copy], analysis)
