"""Every case is encoded once, every checker runs once over it."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conformance.cases import Encoded, encoded
from tests.conformance.checkers import CHECKERS, Bench, Complaint
from tests.conformance.subjects import SUBJECTS, Subject
from tests.validators.pixelmed import PixelMed, pixelmed

Complaints = Callable[[str, str], tuple[Complaint, ...]]


@pytest.fixture(scope="session")
def running_pixelmed() -> Iterator[PixelMed]:
    with pixelmed() as running:
        yield running


@pytest.fixture(scope="session")
def encoded_case(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoded]:
    """What was written of a case, by its name."""

    @cache
    def subject(name: str) -> Subject:
        return SUBJECTS[name](shared_data / "dicom", tmp_path_factory.mktemp(name))

    @cache
    def case(name: str) -> Encoded:
        return encoded(name, subject(name.split()[0]), tmp_path_factory.mktemp(name.replace(" ", "-")))

    return case


@pytest.fixture(scope="session")
def complaints(
    encoded_case: Callable[[str], Encoded], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Complaints:
    """What a checker says about a case, by the names of both."""

    @cache
    def of(checker: str, name: str) -> tuple[Complaint, ...]:
        bench = Bench(tmp_path_factory.mktemp("bench"), lambda: request.getfixturevalue("running_pixelmed"))
        return tuple(CHECKERS[checker](encoded_case(name), bench))

    return of
