"""What takes the place of a result that an archive refuses."""

import pytest
from pydicom import uid

from service.results.kinds import KINDS
from service.results.profile import ResultProfile
from service.results.storage import (
    LABEL_MAP,
    OTHERS,
    REPORTS,
    SEGMENTATIONS,
    Storage,
    all_storages,
    fallback,
    storage,
)

EVERYTHING = ResultProfile(objects=("SEG", "HEATMAP-SEG", "SC", "HEATMAP", "PDF", "RTSTRUCT", "GSPS", "KO", "SR"))


def without(*sop_classes: str) -> set[Storage]:
    return {each for each in all_storages() if each[0] not in sop_classes}


def test_every_kind_that_is_written_is_stored_as_something() -> None:
    for kind in KINDS:
        assert storage(kind, ResultProfile()) in all_storages()


def test_an_archive_that_takes_everything_gets_what_was_asked_for() -> None:
    for profile in (ResultProfile(), EVERYTHING):
        assert fallback(profile, without().__contains__) == (profile, ())


@pytest.mark.parametrize("form", [form for form in SEGMENTATIONS if form.startswith("labelmap")])
def test_label_maps_become_binary_where_the_archive_knows_none(form: str) -> None:
    profile = ResultProfile(segmentation=form)  # type: ignore[arg-type]
    given, notes = fallback(profile, without(LABEL_MAP).__contains__)
    assert given == profile.model_copy(update={"segmentation": "binary"})
    assert notes == (f"SEG as binary, because the archive does not take it as {form}",)


def test_a_compressed_label_map_becomes_a_plain_one_where_only_the_compression_is_refused() -> None:
    takes = without() - {SEGMENTATIONS["labelmap-jpeg-ls"]}
    given, _ = fallback(ResultProfile(segmentation="labelmap-jpeg-ls"), takes.__contains__)
    assert given.segmentation == "labelmap"


def test_an_older_report_is_written_where_the_archive_knows_no_newer_one() -> None:
    given, notes = fallback(ResultProfile(), without(REPORTS["comprehensive-3d"][0]).__contains__)
    assert given.report == "comprehensive"
    older, _ = fallback(
        ResultProfile(), without(*(REPORTS[form][0] for form in REPORTS if form != "enhanced")).__contains__
    )
    assert older.report == "enhanced"
    assert notes == ("SR as comprehensive, because the archive does not take it as comprehensive-3d",)


def test_secondary_captures_take_the_place_of_a_segmentation_that_nobody_would_see() -> None:
    profile = ResultProfile(objects=("SEG", "SR"))
    given, notes = fallback(profile, without(uid.SegmentationStorage, LABEL_MAP).__contains__)
    assert given.objects == ("SR", "SC")
    assert notes == ("no SEG, because the archive does not take it", "SC instead of SEG")


def test_what_the_archive_refuses_without_a_substitute_is_left_out_and_named() -> None:
    given, notes = fallback(EVERYTHING, without(OTHERS["PDF"][0], OTHERS["KO"][0]).__contains__)
    assert set(EVERYTHING.objects) - set(given.objects) == {"PDF", "KO"}
    assert notes == ("no PDF, KO, because the archive does not take it",)


def test_an_archive_that_takes_no_result_gets_none() -> None:
    given, notes = fallback(EVERYTHING, set[Storage]().__contains__)
    assert given.objects == ()
    assert len(notes) == 1
