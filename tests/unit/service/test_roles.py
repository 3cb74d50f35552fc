from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.operate.http import EngineHealth, Health
from service.roles import Role
from service.settings import parse
from service.spool import Spool
from service.versions import Stored
from tests.small_files import dicom


def test_a_node_that_shares_its_ledger_has_a_folder_of_its_name_in_the_spool() -> None:
    assert parse({"spool": {"path": "/spool"}}, "test").home == Path("/spool")
    shared = {"url": "postgresql://wetread@ledger/wetread", "node": "receiver-0"}
    assert parse({"spool": {"path": "/spool"}, "ledger": shared}, "test").home == Path("/spool/nodes/receiver-0")
    assert parse({"ledger": {"url": shared["url"]}}, "test").shared  # the host's name
    with pytest.raises(ConfigurationError, match=r"ledger\.node"):
        parse({"ledger": shared | {"node": "../receiver"}}, "test")


def test_nodes_of_different_names_work_on_one_spool_and_two_of_one_name_do_not(tmp_path: Path) -> None:
    one, other, same = (Spool(tmp_path, ready_mb=1, node=name) for name in ("a", "b", "a"))
    one.lock()
    other.lock()
    with pytest.raises(ConfigurationError, match=r"ledger\.node = 'a' is taken"):
        same.lock()
    assert one.store("series", "instance", dicom(b"pixels")) is Stored.NEW
    assert other.store("series", "instance", dicom(b"pixels")) is Stored.DUPLICATE
    assert one.instances("series") == other.instances("series") != []
    one.unlock()
    same.lock()
    for spool in (same, other):
        spool.unlock()


@pytest.mark.parametrize(
    ("role", "receiver_listening", "engines", "ok"),
    [
        (Role.ALL, True, True, True),
        (Role.ALL, False, True, False),
        (Role.ALL, True, False, False),
        (Role.RECEIVE, True, False, True),
        (Role.RECEIVE, False, False, False),
        (Role.WORK, False, True, True),
        (Role.WORK, False, False, False),
        (Role.DELIVER, False, False, True),
    ],
)
def test_a_node_is_well_where_it_has_what_its_role_needs(
    role: Role, receiver_listening: bool, engines: bool, ok: bool
) -> None:
    serving = (EngineHealth("ct-lung", "openvino", "int8", "cpu", True),) if engines else ()
    health = Health("1", receiver_listening, True, True, 1, serving, role=role)
    assert health.ok is ok
    assert not replace(health, ledger_reachable=False).ok
    assert not replace(health, spool_writable=False).ok
