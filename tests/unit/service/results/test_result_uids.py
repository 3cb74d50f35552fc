from dataclasses import replace

import numpy as np
import pytest

from engines.types import Volume
from service.results.uids import ResultUIDs, derived_uid, frame_of_reference_uid
from tests.unit.service.results.examples import findings

MODEL = findings().model
UIDS = ResultUIDs.of("1.2.3", ["1.2.3.1", "1.2.3.2"], MODEL)


def test_a_derived_uid_is_the_same_on_every_machine() -> None:
    assert derived_uid("a", "b") == "2.25.64011343465354666965703029345517516352"


def test_parts_are_not_run_together() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_a_uid_is_at_most_64_characters_without_leading_zeros() -> None:
    for number in range(200):
        uid = derived_uid(str(number))
        assert len(uid) <= 64
        assert all(part == str(int(part)) for part in uid.split("."))


def test_the_order_of_the_instances_does_not_count() -> None:
    assert ResultUIDs.of("1.2.3", ["1.2.3.2", "1.2.3.1", "1.2.3.1"], MODEL) == UIDS


def test_every_object_of_a_result_has_a_uid_of_its_own() -> None:
    uids = [UIDS.series("SEG"), UIDS.series("SR"), UIDS.instance("SEG"), UIDS.instance("SR"), UIDS.device()]
    uids += [UIDS.tracking("Left lung"), UIDS.tracking("Right lung"), UIDS.dimension_organization("SEG")]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("change", [{"name": "x"}, {"version": "2"}, {"digest": "cd" * 32}, {"uid_root": "7"}])
def test_another_model_gives_other_uids(change: dict[str, str]) -> None:
    other = ResultUIDs.of("1.2.3", ["1.2.3.1", "1.2.3.2"], replace(MODEL, **change))
    assert other.instance("SEG") != UIDS.instance("SEG")
    assert other.tracking("Left lung") != UIDS.tracking("Left lung")
    assert other.device() != UIDS.device()


def test_a_late_slice_gives_other_uids() -> None:
    assert ResultUIDs.of("1.2.3", ["1.2.3.1"], MODEL).instance("SR") != UIDS.instance("SR")


def test_a_frame_of_reference_belongs_to_the_image_and_not_to_the_model() -> None:
    assert frame_of_reference_uid("1.2.3.1") == frame_of_reference_uid("1.2.3.1") != frame_of_reference_uid("1.2.3.2")


def test_corrected_images_and_other_notes_give_other_uids() -> None:
    versions = [
        ResultUIDs.of("1.2.3", ["1.2.3.1", "1.2.3.2"], MODEL, revision, notes)
        for revision, notes in (("", ()), ("ab", ()), ("cd", ()), ("", ("A slice is missing.",)), ("", ("ab",)))
    ]
    assert len({uids.instance("SR") for uids in versions}) == len(versions)
    assert versions[0] == UIDS


def test_stacks_of_one_multi_frame_image_have_results_with_uids_of_their_own() -> None:
    first, second = (
        Volume(np.zeros((2, 3, 4), np.int16), np.eye(4), ("1.2.3.1", "1.2.3.1"), frames=frames)
        for frames in ((1, 2), (3, 4))
    )
    uids, other = (ResultUIDs.about(findings(), image, "1.2.3") for image in (first, second))
    for kind in ("SEG", "SR"):
        assert uids.instance(kind) != other.instance(kind)
        assert uids.series(kind) != other.series(kind)
