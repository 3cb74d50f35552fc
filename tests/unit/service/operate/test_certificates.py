import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.operate.certificates import DAY, CertificateWatch, looked_at
from service.operate.metrics import Metrics
from service.settings import ArchiveSettings, ArchiveTlsSettings, Settings, TlsSettings
from tests.certificates import Authority, Issued


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def findings(issued: Issued, authorities: Path, key: Path | None = None) -> list[tuple[bool, str]]:
    settings = TlsSettings(certificate=issued.certificate, key=key or issued.key, authorities=authorities)
    return list(looked_at(Settings(tls=settings)))


def test_what_is_right_is_told_with_its_end(authority: Authority) -> None:
    own, authorities = findings(authority.issue("node"), authority.certificate)
    assert own[0]
    assert "(CN=node, DNS=node.clinic.example, IP=127.0.0.1, O=Clinic): until 20" in own[1]
    assert authorities[0]
    assert authorities[1].startswith(f"tls.authorities = {authority.certificate} (CN=authority, O=Clinic): until 20")


@pytest.mark.parametrize(("days", "finding"), [(-1, "): has expired on 20"), (20, "days; renew it")])
def test_what_has_ended_or_will_soon_is_wrong(days: int, finding: str, authority: Authority) -> None:
    issued = authority.issue("short", days=days)
    ok, told = findings(issued, authority.certificate)[0]
    assert not ok
    assert str(issued.certificate) in told
    assert finding in told


def test_the_log_tells_once_a_day_of_what_ends_soon_and_the_metrics_of_all(authority: Authority) -> None:
    issued = authority.issue("soon", days=40)
    with issued.certificate.open("a") as file:
        file.write(authority.certificate.read_text())  # what leads to the authority
    settings = TlsSettings(certificate=issued.certificate, key=issued.key, authorities=authority.certificate)
    began = time.time()
    days = 0.0
    watch = CertificateWatch(Settings(tls=settings), lambda: began + days * DAY)
    metrics = Metrics.on_new_registry()
    metrics.watch_certificates(watch.ends)

    with capture_logs() as events:
        watch.look()
        assert events == []
        for days in (0.9, 15.0, 15.5, 45.0, 400.0):  # noqa: B007 (the clock)
            watch.look()
    own = "CN=soon, DNS=soon.clinic.example, IP=127.0.0.1, O=Clinic"
    assert [(event["key"], event["certificate"], event["days"]) for event in events] == [
        ("tls.certificate", own, 24),
        ("tls.certificate", own, -6),
        ("tls.certificate", own, -361),
        ("tls.certificate", "CN=authority, O=Clinic", -36),
        ("tls.authorities", "CN=authority, O=Clinic", -36),
    ]
    assert events[0]["event"] == "tls.certificate_expires"
    assert str(issued.certificate) in events[0]["fix"]

    shown = {
        (sample.labels["key"], sample.labels["certificate"]): round((sample.value - began) / DAY)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "wetread_certificate_expiry_timestamp_seconds"
    }
    assert shown == {
        ("tls.certificate", own): 40,
        ("tls.certificate", "CN=authority, O=Clinic"): 365,
        ("tls.authorities", "CN=authority, O=Clinic"): 365,
    }
    issued.certificate.unlink()
    assert watch.ends() == {}, "it is being replaced"


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


def test_what_archives_are_shown_and_who_signs_theirs_is_looked_at_too(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("toarchive", days=20, usage="clientAuth")
    shown = ArchiveTlsSettings(authorities=authority.certificate, certificate=own.certificate, key=own.key)
    unreadable = ArchiveTlsSettings(authorities=tmp_path / "none.pem")
    archives = {
        name: ArchiveSettings(ae_title="A", host="h", port=104, tls=tls)
        for name, tls in (("old", unreadable), ("pacs", shown), ("plain", None))
    }
    settings = Settings(archives=archives)
    told = list(looked_at(settings))
    assert [ok for ok, _ in told] == [False, False, True]
    assert told[0][1].startswith("archives.old.tls.authorities = ")
    assert told[1][1].startswith(f"archives.pacs.tls.certificate = {own.certificate} (CN=toarchive")
    assert told[1][1].endswith("days; renew it")
    watch = CertificateWatch(settings)
    assert sorted(key for key, _ in watch.ends()) == ["archives.pacs.tls.authorities", "archives.pacs.tls.certificate"]
    with capture_logs() as events:
        watch.look()
    assert [(event["key"], event["days"]) for event in events] == [("archives.pacs.tls.certificate", 19)]
