from pathlib import Path

import pytest

from service.operate.certificates import looked_at
from service.settings import TlsSettings
from tests.certificates import Authority, Issued


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def findings(issued: Issued, authorities: Path, key: Path | None = None) -> list[tuple[bool, str]]:
    settings = TlsSettings(certificate=issued.certificate, key=key or issued.key, authorities=authorities)
    return list(looked_at(settings))


def test_what_is_right_is_told_with_its_end(authority: Authority) -> None:
    own, authorities = findings(authority.issue("node"), authority.certificate)
    assert own[0]
    assert "(CN=node, DNS=node.clinic.example, IP=127.0.0.1, O=Clinic): until 20" in own[1]
    assert authorities[0]
    assert authorities[1].startswith("tls.authorities: CN=authority, O=Clinic: until 20")


@pytest.mark.parametrize(("days", "finding"), [(-1, "has expired; renew it"), (20, "in 20 days; renew it")])
def test_what_has_ended_or_will_soon_is_wrong(days: int, finding: str, authority: Authority) -> None:
    issued = authority.issue("short", days=days)
    ok, told = findings(issued, authority.certificate)[0]
    assert not ok
    assert str(issued.certificate) in told
    assert told.endswith(finding)


def test_files_that_do_not_serve_are_named_with_the_fix(authority: Authority, tmp_path: Path) -> None:
    node, other = authority.issue("node"), authority.issue("other")
    for issued, authorities, key, message in (
        (node, authority.certificate, other.key, "not the key of"),
        (node, tmp_path / "none.pem", None, "tls.authorities = "),
        (Issued(tmp_path / "none.pem", node.key), authority.certificate, None, "cannot be read (No such file"),
    ):
        ((ok, told),) = findings(issued, authorities, key)
        assert not ok
        assert message in told
