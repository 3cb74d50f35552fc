"""A damaged object does not get through: the self-check and the validators together notice every damage."""

from pathlib import Path

import pytest

from service.results.kinds import KINDS
from tests.conformance.damages import DAMAGES
from tests.conformance.gate import TABLE, Gate
from tests.validators.pixelmed import PixelMed

EVERY_DAMAGE = [(kind, name) for kind, named in DAMAGES.items() if kind in KINDS for name in named]


@pytest.fixture(scope="module")
def gate(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, running_pixelmed: PixelMed) -> Gate:
    return Gate(shared_data, tmp_path_factory.mktemp("gate"), lambda: running_pixelmed)


@pytest.mark.parametrize(("kind", "name"), EVERY_DAMAGE)
def test_a_damaged_object_is_noticed(kind: str, name: str, gate: Gate) -> None:
    assert gate.noticed_by(kind, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_object_passes(kind: str, gate: Gate) -> None:
    assert gate.unexplained(kind) == []


def test_every_kind_is_damaged() -> None:
    assert set(KINDS) <= set(DAMAGES)


def test_the_table_says_who_notices_what(gate: Gate) -> None:
    assert TABLE.read_text() == gate.table(), "run `make validators`"
