"""Every kind of object, in every form, of every kind of source, before every independent checker at hand."""

from collections.abc import Callable

import pydicom
import pytest

from service.results.storage import storage
from tests.conformance.cases import Encoded, case_names
from tests.conformance.checkers import CHECKERS
from tests.conformance.conftest import Complaints
from tests.conformance.waivers import WAIVERS, Waiver


@pytest.mark.parametrize("case", case_names())
def test_objects_are_stored_in_the_form_that_was_asked_for(case: str, encoded_case: Callable[[str], Encoded]) -> None:
    encoded = encoded_case(case)
    assert encoded.objects
    for entry in encoded.objects:
        meta = pydicom.filereader.read_file_meta_info(entry.path)
        stored = (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        assert stored == storage(entry.kind, encoded.analysis.profile)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", case_names())
@pytest.mark.parametrize("checker", CHECKERS)
def test_nobody_complains_but_for_the_waivers(checker: str, case: str, complaints: Complaints) -> None:
    unwaived = [
        complaint
        for complaint in complaints(checker, case)
        if not any(waiver.covers(checker, case, complaint) for waiver in WAIVERS)
    ]
    assert unwaived == []


@pytest.mark.parametrize("waiver", WAIVERS, ids=lambda waiver: f"{waiver.checker}: {waiver.pattern}")
def test_every_waiver_is_needed(waiver: Waiver, complaints: Complaints) -> None:
    assert any(
        waiver.covers(waiver.checker, case, complaint)
        for case in case_names()
        for complaint in complaints(waiver.checker, case)
    )
