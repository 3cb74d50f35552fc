"""What is written is what highdicom writes of the whole input, attribute by attribute, in every form."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import get_args

import highdicom as hd
import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import EnhancedCTImageStorage

from engines.types import LabelMap, Segment
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.checks.segmentation import check_segmentation
from service.results.profile import ResultProfile, SegmentationForm
from service.results.self_check import self_check
from service.results.stamp import contributing_equipment, stamp
from service.results.storage import SEGMENTATIONS
from service.results.writers.segmentation import write_segmentations
from tests.unit.service.results.examples import (
    ANATOMY,
    LUNG,
    Example,
    findings,
    read_radiograph,
    small_ct,
    small_radiograph,
)

FORMS = get_args(SegmentationForm)
LABEL_MAPS = [form for form in FORMS if form.startswith("labelmap")]


def segments(count: int) -> tuple[Segment, ...]:
    """So many, whose numbers have gaps."""
    return tuple(
        Segment(2 * number + 1, f"Organ {number}", ANATOMY, LUNG, (number * 5 % 256, 90, 200))
        for number in range(1, count + 1)
    )


def labels_of(shape: tuple[int, ...], described: Sequence[Segment], seed: int = 0) -> NDArray[np.uint8]:
    """Labels at random: the first slice is empty, and the last segment only in the last slice."""
    rng = np.random.default_rng(seed)
    numbers = np.array([0, *(segment.number for segment in described)], np.uint8)
    labels = numbers[rng.integers(0, len(numbers), shape)]
    if labels.ndim == 3:
        labels[0] = 0
        labels[:-1][labels[:-1] == described[-1].number] = 0
    return labels


def probabilities_of(labels: NDArray[np.uint8], described: Sequence[Segment]) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    values = [np.where(labels == segment.number, rng.integers(128, 256, labels.shape), 0) for segment in described]
    return np.stack(values).astype(np.uint8)


def analysed(image: object, headers: Sequence[Dataset], label_map: LabelMap, form: SegmentationForm) -> Analysis:
    profile = ResultProfile(objects=("SEG",), segmentation=form)
    return Analysis(findings(label_map=label_map), image, headers, profile)  # type: ignore[arg-type]


def example(count: int, form: SegmentationForm, oblique: bool = False, **shape: tuple[int, int, int]) -> Analysis:
    volume, headers = small_ct(oblique=oblique, **shape)
    return analysed(volume, headers, label_map_of(volume.array.shape, count), form)


def label_map_of(shape: tuple[int, ...], count: int) -> LabelMap:
    described = segments(count)
    labels = labels_of(shape, described)
    return LabelMap(labels, described, probabilities_of(labels, described))


def written(analysis: Analysis, folder: Path) -> Dataset:
    """The SEG as it is on disk, which the self-check has passed."""
    objects = write_segmentations(analysis, folder, ())
    self_check(objects, analysis)
    return pydicom.dcmread(objects[0].path)


def highdicom_writes(ours: Dataset, analysis: Analysis, folder: Path) -> Dataset:
    """What highdicom makes of the whole input; dates, comments, creator and dimension organization are ours to choose.

    It encodes no frames, as some of its encoders crash on images of a few pixels.
    """
    [label_map] = analysis.label_maps
    descriptions = list(ours.SegmentSequence)[ours.SegmentationType == "LABELMAP" :]
    present = label_map.present
    rows, columns = label_map.array.shape[-2:]
    if ours.SegmentationType == "FRACTIONAL":
        assert label_map.probabilities is not None
        which = [label_map.segments.index(segment) for segment in present]
        values = label_map.probabilities[which].reshape(len(which), -1, rows, columns)
        pixels = np.moveaxis(values, 0, -1).astype(np.float32) / 255
    else:
        numbers = np.zeros(256, np.uint8)
        numbers[[segment.number for segment in present]] = range(1, len(present) + 1)
        pixels = numbers[label_map.array].reshape(-1, rows, columns)
    whole = hd.seg.Segmentation(
        source_images=analysis.source.headers,
        pixel_array=pixels,
        segmentation_type=ours.SegmentationType,
        segment_descriptions=[hd.seg.SegmentDescription.from_dataset(item) for item in descriptions],
        series_instance_uid=ours.SeriesInstanceUID,
        series_number=ours.SeriesNumber,
        sop_instance_uid=ours.SOPInstanceUID,
        instance_number=1,
        manufacturer=ours.Manufacturer,
        manufacturer_model_name=ours.ManufacturerModelName,
        software_versions=list(ours.SoftwareVersions),
        device_serial_number=ours.DeviceSerialNumber,
        content_label=ours.ContentLabel,
        content_description=ours.ContentDescription,
        series_description=ours.SeriesDescription,
        contributing_equipment=[contributing_equipment(analysis.findings)],
        specific_character_set=None,
    )
    whole.ImageComments, whole.ContentCreatorName = ours.ImageComments, ""
    organization = ours.DimensionOrganizationSequence[0].DimensionOrganizationUID
    for item in (*whole.DimensionOrganizationSequence, *whole.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    for group in whole.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        if "ReferencedFrameNumber" in image and not hasattr(image, "told"):
            image.told = True
            image.ReferencedFrameNumber = analysis.source.planes[image.ReferencedFrameNumber - 1].frame
    stamp(whole, analysis)
    path = folder / "highdicom.dcm"
    whole.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)


def assert_equal(ours: Dataset, whole: Dataset) -> None:
    whole.file_meta.TransferSyntaxUID = ours.file_meta.TransferSyntaxUID
    del whole.file_meta.FileMetaInformationGroupLength, ours.file_meta.FileMetaInformationGroupLength
    assert ours.file_meta == whole.file_meta
    assert [element.tag for element in ours] == [element.tag for element in whole]
    for one, other in zip(ours, whole, strict=True):
        if one.keyword != "PixelData":
            assert_same_element(one, other)
    assert ours["PixelData"].VR == whole["PixelData"].VR
    assert np.array_equal(stored(ours), stored(whole))


def assert_same_element(one: DataElement, other: DataElement) -> None:
    assert (one.tag, one.VR) == (other.tag, other.VR)
    assert one.value == other.value, one.keyword


def stored(dataset: Dataset) -> NDArray[np.uint8]:
    """The bytes of the pixels as they are without compression, but for the last one of padding."""
    if dataset["PixelData"].is_undefined_length:
        # by another library than the one that the node encodes with
        dataset.decompress(generate_instance_uid=False)
    size = dataset.Rows * dataset.Columns * dataset.NumberOfFrames * dataset.BitsAllocated
    return np.frombuffer(dataset.PixelData, np.uint8)[: (size + 7) // 8]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_ct_of_odd_size_gives_what_highdicom_gives(form: SegmentationForm, count: int, tmp_path: Path) -> None:
    analysis = example(count, form)
    ours = written(analysis, tmp_path)
    assert (ours.SOPClassUID, ours.file_meta.TransferSyntaxUID) == SEGMENTATIONS[form]
    assert_equal(ours, highdicom_writes(ours, analysis, tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_an_oblique_ct_gives_what_highdicom_gives(form: SegmentationForm, tmp_path: Path) -> None:
    analysis = example(3, form, oblique=True, shape=(6, 16, 8))
    ours = written(analysis, tmp_path)
    assert_equal(ours, highdicom_writes(ours, analysis, tmp_path))


@pytest.mark.parametrize("form", ["binary", "labelmap", "fractional"])
def test_slices_that_run_against_the_normal_or_are_uneven_give_what_highdicom_gives(
    form: SegmentationForm, tmp_path: Path
) -> None:
    for name, places in (("down", [0, -2, -4, -6, -8]), ("uneven", [0, 2, 4, 9, 14])):
        volume, headers = small_ct()
        for header, place in zip(headers, places, strict=True):
            header.ImagePositionPatient = [*header.ImagePositionPatient[:2], place]
        affine = volume.affine.copy()
        affine[:3, 0] = [0, 0, places[1]]
        affine[2, 3] = 0
        at = tuple(place / places[1] for place in places)
        analysis = analysed(replace(volume, affine=affine, at=at), headers, label_map_of(volume.array.shape, 3), form)
        (tmp_path / name).mkdir()
        ours = written(analysis, tmp_path / name)
        assert_equal(ours, highdicom_writes(ours, analysis, tmp_path / name))


@pytest.mark.parametrize("form", FORMS)
def test_an_x_ray_gives_what_highdicom_gives(form: SegmentationForm, tmp_path: Path) -> None:
    image, headers = small_radiograph()
    analysis = analysed(image, headers, label_map_of(image.array.shape, 3), form)
    ours = written(analysis, tmp_path)
    assert_equal(ours, highdicom_writes(ours, analysis, tmp_path))


def test_a_real_x_ray_gives_what_highdicom_gives(shared_data: Path, tmp_path: Path) -> None:
    image, headers = read_radiograph(shared_data / "dicom" / "cr" / "wg04_RG3_RLE.dcm")
    analysis = analysed(image, headers, label_map_of(image.array.shape, 2), "binary")
    ours = written(analysis, tmp_path)
    assert_equal(ours, highdicom_writes(ours, analysis, tmp_path))


def test_a_real_ct_gives_what_highdicom_gives(chest_64: Example, tmp_path: Path) -> None:
    assert chest_64.findings.label_map is not None
    analysis = analysed(chest_64.image, chest_64.headers, chest_64.findings.label_map, "binary")
    ours = written(analysis, tmp_path)
    assert_equal(ours, highdicom_writes(ours, analysis, tmp_path))


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(2, 9),  # of fewer than 8 pixels in all highdicom 0.28.2 pads each frame to a byte
    columns=st.integers(4, 9),
    slices=st.integers(2, 5),
    count=st.integers(1, 4),
    seed=st.integers(0, 99),
    form=st.sampled_from(["binary", "labelmap", "fractional"]),
)
def test_any_matrix_gives_what_highdicom_gives(
    rows: int,
    columns: int,
    slices: int,
    count: int,
    seed: int,
    form: SegmentationForm,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    volume, headers = small_ct((slices, rows, columns))
    described = segments(count)
    labels = labels_of(volume.array.shape, described, seed)
    labels[-1, 0, 0] = described[0].number  # else there may be nothing
    label_map = LabelMap(labels, described, probabilities_of(labels, described))
    analysis = analysed(volume, headers, label_map, form)
    folder = tmp_path_factory.mktemp("any")
    ours = written(analysis, folder)
    assert_equal(ours, highdicom_writes(ours, analysis, folder))


def test_frames_of_a_few_bits_follow_each_other_without_padding(tmp_path: Path) -> None:
    analysis = example(2, "binary", shape=(5, 1, 3))
    ours = written(analysis, tmp_path)
    [label_map] = analysis.label_maps
    masks = [label_map.array == segment.number for segment in label_map.present]
    frames = np.concatenate([mask[mask.any(axis=(1, 2))][::-1] for mask in masks])  # highdicom's order is downwards
    assert np.array_equal(ours.pixel_array.reshape(frames.shape), frames)
    assert len(ours.PixelData) == 2 * -(-frames.size // 16)


def test_frames_of_an_enhanced_ct_refer_to_the_frames_that_they_are_of(tmp_path: Path) -> None:
    volume, [first, *others] = small_ct((4, 9, 7))
    enhanced, stored_at = Dataset(), (2, 0, 3, 1)  # frames need not be stored in the order of the slices
    enhanced.update(first)
    enhanced.SOPClassUID = EnhancedCTImageStorage
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    enhanced.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in np.argsort(stored_at):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [first, *others][index].ImagePositionPatient
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    enhanced.PerFrameFunctionalGroupsSequence, enhanced.NumberOfFrames = frames, len(frames)
    uid = enhanced.SOPInstanceUID
    volume = replace(volume, sources=(uid,) * 4, frames=tuple(place + 1 for place in stored_at))
    for form in ("binary", "labelmap"):
        analysis = analysed(volume, [enhanced], label_map_of(volume.array.shape, 3), form)
        (tmp_path / form).mkdir()
        ours = written(analysis, tmp_path / form)
        assert_equal(ours, highdicom_writes(ours, analysis, tmp_path / form))
        image = ours.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedFrameNumber == stored_at[-1] + 1  # highdicom's order is downwards


def test_a_model_without_probabilities_gives_masks_and_the_object_says_so(tmp_path: Path) -> None:
    analysis = example(2, "fractional")
    [label_map] = analysis.label_maps
    assert "no probabilities" not in written(analysis, tmp_path).ImageComments
    bare = replace(analysis, findings=findings(label_map=replace(label_map, probabilities=None)))
    ours = written(bare, tmp_path)
    assert ours.SegmentationType == "BINARY"
    assert "no probabilities" in ours.ImageComments
    assert_equal(ours, highdicom_writes(ours, bare, tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_overlapping_segments_are_objects_of_their_own(form: SegmentationForm, tmp_path: Path) -> None:
    analysis = example(2, form)
    [label_map] = analysis.label_maps
    labels = label_map.array[:, ::-1].copy()
    overlapping = (LabelMap(labels, label_map.segments, probabilities_of(labels, label_map.segments)),)
    both = replace(analysis, findings=findings(label_map=label_map, overlapping=overlapping))
    objects = write_segmentations(both, tmp_path, ())
    self_check(objects, both)
    one, other = (pydicom.dcmread(entry.path) for entry in objects)
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.PixelData != other.PixelData
    with pytest.raises(Quarantined):
        self_check(objects[::-1], both)


@pytest.mark.parametrize("form", FORMS)
def test_a_repeat_gives_the_same_bytes(form: SegmentationForm, tmp_path: Path) -> None:
    analysis = example(3, form)
    [one], [other] = (write_segmentations(analysis, make(tmp_path / name), ()) for name in ("one", "other"))
    assert one.path.read_bytes() == other.path.read_bytes()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def voxel_of_a_label_map(dataset: Dataset) -> None:
    frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    pixels = imagecodecs.jpegls_decode(frames[0]).copy()
    pixels[0, 0] = (pixels[0, 0] + 1) % 3
    dataset.PixelData = encapsulate([imagecodecs.jpegls_encode(pixels), *frames[1:]])


def swapped_frames(dataset: Dataset) -> None:
    first, second, *others = generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames)
    dataset.PixelData = encapsulate([second, first, *others])


def fraction(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    place = next(index for index, value in enumerate(pixels) if value)
    pixels[place] -= 1
    dataset.PixelData = bytes(pixels)


def frame_of_the_neighbour(dataset: Dataset) -> None:
    one, other = dataset.PerFrameFunctionalGroupsSequence[:2]
    one.DerivationImageSequence, other.DerivationImageSequence = (
        other.DerivationImageSequence,
        one.DerivationImageSequence,
    )


def other_rank(dataset: Dataset) -> None:
    first, second = dataset.PerFrameFunctionalGroupsSequence[:2]
    one, other = first.FrameContentSequence[0], second.FrameContentSequence[0]
    one.DimensionIndexValues, other.DimensionIndexValues = other.DimensionIndexValues, one.DimensionIndexValues


def other_colour(dataset: Dataset) -> None:
    dataset.SegmentSequence[-1].RecommendedDisplayCIELabValue = [1, 2, 3]


def less_source(dataset: Dataset) -> None:
    dataset.SourceImageSequence = list(dataset.SourceImageSequence)[1:]


def one_frame_less(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence = list(dataset.PerFrameFunctionalGroupsSequence)[:-1]
    dataset.NumberOfFrames -= 1
    size = dataset.Rows * dataset.Columns * dataset.NumberOfFrames
    dataset.PixelData = dataset.PixelData[:size] + bytes(size % 2)


def an_empty_frame(dataset: Dataset) -> None:
    """The last segment is only in the last slice; now it has a frame of the one beside, too."""
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    group = deepcopy(groups[1])
    group.SegmentIdentificationSequence = groups[-1].SegmentIdentificationSequence
    content = group.FrameContentSequence[0]
    content.DimensionIndexValues = [2, content.DimensionIndexValues[1]]
    dataset.PerFrameFunctionalGroupsSequence = [*groups, group]
    dataset.NumberOfFrames += 1
    size = dataset.Rows * dataset.Columns * (dataset.NumberOfFrames - 1)
    dataset.PixelData = dataset.PixelData[:size] + bytes((size + dataset.Rows * dataset.Columns + 1) // 2 * 2 - size)


def numbered_background(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentNumber = 7


def set_(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


DAMAGES: list[tuple[SegmentationForm, Callable[[Dataset], None], str]] = [
    ("labelmap-jpeg-ls", voxel_of_a_label_map, "does not show"),
    ("labelmap-rle", swapped_frames, "does not show"),
    ("labelmap-jpeg-2000", swapped_frames, "does not show"),
    ("labelmap", fraction, "does not show"),
    ("fractional", fraction, "does not show"),
    ("labelmap", frame_of_the_neighbour, "ImagePositionPatient of frame 1"),
    ("fractional", frame_of_the_neighbour, "ImagePositionPatient of frame 1"),
    ("labelmap", other_rank, "another order"),
    ("binary", other_rank, "another order"),
    ("binary", other_colour, "another colour"),
    ("binary", less_source, "SourceImageSequence"),
    ("labelmap", one_frame_less, "are missing"),
    ("fractional", one_frame_less, "are missing"),
    ("fractional", an_empty_frame, "is empty"),
    ("labelmap", numbered_background, "background"),
    ("fractional", set_("MaximumFractionalValue", 100), "MaximumFractionalValue"),
    ("fractional", set_("SegmentationFractionalType", "OCCUPANCY"), "SegmentationFractionalType"),
    ("labelmap", set_("BitsStored", 7), "BitsStored"),
    ("labelmap", set_("PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation"),
]


@pytest.mark.parametrize(("form", "damage", "difference"), DAMAGES)
def test_what_is_damaged_is_caught(
    form: SegmentationForm, damage: Callable[[Dataset], None], difference: str, tmp_path: Path
) -> None:
    analysis = example(2, form, oblique=True)
    [entry] = write_segmentations(analysis, tmp_path, ())
    dataset = pydicom.dcmread(entry.path)
    damage(dataset)
    dataset.save_as(entry.path)
    with pytest.raises(Quarantined, match=difference):
        self_check([entry], analysis)


def test_an_object_in_another_form_than_wanted_is_caught(tmp_path: Path) -> None:
    for form in LABEL_MAPS:
        analysis = example(2, form)
        objects = write_segmentations(analysis, make(tmp_path / form), ())
        for other in set(FORMS) - {form}:
            with pytest.raises(Quarantined):
                check_segmentation(
                    [pydicom.dcmread(entry.path) for entry in objects],
                    replace(analysis, profile=ResultProfile(objects=("SEG",), segmentation=other)),
                    (),
                )
