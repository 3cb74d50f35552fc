"""A SEG in OHIF: every voxel of every segment on its slice, in its name."""

from collections.abc import Mapping
from pathlib import Path

from service.results.profile import SegmentationForm
from tests.viewer.filed import Filed
from tests.viewer.ohif import Viewer
from tests.waiting import eventually


def shown_exactly(viewer: Viewer, filed: Filed) -> None:
    """Open the SEG of a series, and compare what is held and shown with what was found."""
    header = filed.of("SEG")
    viewer.open(filed.study_uid, filed.series_uid, header.SeriesInstanceUID)
    viewer.show(header.SeriesDescription)
    [held] = eventually(viewer.segmentations, f"OHIF {viewer.version} loads the segmentation")
    assert held.label == header.SeriesDescription
    truth = {segment.label: voxels for segment, voxels in filed.truth()}
    # a label map names its background too
    assert {label: voxels for label, voxels in held.voxels.items() if label != "Background"} == truth
    assert viewer.lit() > 0.2
    assert viewer.console() == []


def test_every_voxel_of_lungs_and_nodule_is_on_its_slice(viewer: Viewer, filed_ct: Filed, pictures: Path) -> None:
    shown_exactly(viewer, filed_ct)
    viewer.scroll_to(filed_ct.slice_with_most("Nodule"))
    viewer.picture(pictures / "ohif-ct-nodule.png")


def test_every_voxel_of_a_label_map_is_on_its_slice(viewer: Viewer, filed_small_ct: Filed) -> None:
    shown_exactly(viewer, filed_small_ct)


def test_every_pixel_of_an_x_rays_fields_is_shown(viewer: Viewer, filed_xray: Filed) -> None:
    shown_exactly(viewer, filed_xray)


def test_frames_that_begin_within_a_byte_are_shown(
    viewer: Viewer, filed_odd_xray: Mapping[SegmentationForm, Filed]
) -> None:
    # OHIF 3.13 asks for single frames, and Orthanc 1.10 refuses to cut frames of one bit a pixel out of a byte
    known_limit = viewer.version == "3.13.2"
    shown_exactly(viewer, filed_odd_xray["labelmap" if known_limit else "binary"])


def test_contours_are_a_segmentation_too(viewer: Viewer, filed_small_ct: Filed) -> None:
    header = filed_small_ct.of("RTSTRUCT")
    viewer.open(filed_small_ct.study_uid, filed_small_ct.series_uid, header.SeriesInstanceUID)
    viewer.show(header.SeriesDescription)
    [held] = eventually(viewer.segmentations, f"OHIF {viewer.version} loads the contours")
    assert [*held.voxels] == [segment.label for segment, _ in filed_small_ct.truth()]
    assert viewer.lit() > 0.2
    assert viewer.console() == []
