"""An SR in OHIF: the image it is about, every group drawn, its values to be read."""

from pathlib import Path

from engines.inference.measurements import LONG_AXIS
from engines.types import Volume
from tests.viewer.filed import Filed
from tests.viewer.ohif import ShownMeasurement, Viewer
from tests.waiting import eventually


def drawn(viewer: Viewer, filed: Filed) -> dict[str, ShownMeasurement]:
    """Open the SR of a series; its groups by name. The image is there, and every group is drawn on it."""
    header = filed.of("SR")
    viewer.open(filed.study_uid, filed.series_uid, header.SeriesInstanceUID)
    viewer.show(header.SeriesDescription)

    def loaded() -> list[ShownMeasurement]:
        groups = viewer.measurements(header.SeriesDescription)
        return groups if any(group.drawn for group in groups) else []

    groups = eventually(loaded, f"OHIF {viewer.version} draws the report")
    assert [group.name for group in groups if not group.drawn] == []
    viewer.stand_still()
    assert viewer.lit() > 0.2
    assert viewer.console() == []
    assert len({group.name for group in groups}) == len(groups)
    return {group.name: group for group in groups}


def test_the_report_of_a_ct_draws_lungs_and_nodule_with_their_values(
    viewer: Viewer, filed_ct: Filed, pictures: Path
) -> None:
    groups = drawn(viewer, filed_ct)
    assert [*groups] == ["ct-lung Left lung", "ct-lung Right lung", "ct-lung Nodule"]
    for entry in filed_ct.example.findings.measurements:
        values = list(groups.values())[entry.segment - 1].values
        assert any(value.startswith(f"{entry.concept.meaning} {entry.value:.2f} ") for value in values), entry
    [axis] = [entry for entry in filed_ct.example.findings.measurements if entry.concept == LONG_AXIS]
    viewer.scroll_to(filed_ct.slice_at(axis.points[0]))
    # OHIF calls the axes L and W
    eventually(lambda: f"L: : {axis.value:.2f} mm" in viewer.text(), "the long axis is written beside the nodule", 30)
    viewer.picture(pictures / "ohif-ct-report.png")


def test_the_report_of_an_x_ray_draws_fields_and_a_box_with_its_probability(
    viewer: Viewer, filed_xray: Filed, pictures: Path
) -> None:
    groups = drawn(viewer, filed_xray)
    assert [*groups] == ["ct-lung Left lung", "ct-lung Right lung", "ct-lung Pneumonia"]
    assert groups["ct-lung Pneumonia"].values[0] == "Certainty of Finding 81.25 %"
    eventually(lambda: "81.25 %" in viewer.text(), "the probability is written beside its box")
    viewer.picture(pictures / "ohif-xray-box.png")


def test_the_report_of_a_detector_draws_a_box_and_a_point_with_their_scores(
    viewer: Viewer, filed_detections: Filed, pictures: Path
) -> None:
    groups = drawn(viewer, filed_detections)
    assert [*groups] == ["ct-nodule Nodule", "ct-nodule Nodule (2)"]
    assert [group.values[0] for group in groups.values()] == ["Score 0.93 {0:1}", "Score 0.61 {0:1}"]
    image = filed_detections.example.image
    assert isinstance(image, Volume)
    viewer.scroll_to(image.sources[len(image.sources) // 2])
    eventually(lambda: "0.93" in viewer.text(), "the score is written beside the box", 30)
    viewer.picture(pictures / "ohif-detections.png")
    viewer.scroll_to(image.sources[len(image.sources) // 2 + 3])
    viewer.stand_still()
    viewer.picture(pictures / "ohif-detections-point.png")


def test_a_report_that_found_nothing_shows_where_was_looked(viewer: Viewer, filed_nothing: Filed) -> None:
    [group] = drawn(viewer, filed_nothing).values()
    assert group.values == ()
