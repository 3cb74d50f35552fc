import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from service.deliver.capabilities import Capabilities
from service.ledger.records import ASSEMBLE, DELIVER, NextJob, ResultRecord, SeriesRecord
from service.types import ResultObject
from tests.operated import Operated

PASSWORD = "correct horse battery"


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Operated]:
    operated = Operated(tmp_path)
    yield operated
    operated.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Operated]:
    operated = Operated(tmp_path, PASSWORD)
    yield operated
    operated.close()


def known(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def test_a_dead_letter_is_shown_with_its_reason_and_tried_again_by_a_button(operated: Operated) -> None:
    job = operated.dead()
    shown = operated.get().text
    assert "two slices at &lt;one&gt; position" in shown
    assert f'action="/jobs/{job}/retry"' in shown
    assert "abcdef01" in shown
    assert operated.post(f"/jobs/{job}/retry").headers["location"] == "/"
    assert operated.state(job) == "ready"
    assert "Nothing: no job is a dead letter." in operated.get().text


def test_all_dead_letters_are_tried_again_by_one_button(operated: Operated) -> None:
    jobs = [operated.dead(key=f"{number}bcdef0123456789") for number in range(3)]
    assert "Try all again" in operated.get().text
    assert operated.post("/jobs/dead/retry", Origin="http://evil.example").status_code == 403
    assert operated.post("/jobs/dead/retry").status_code == 303
    assert {operated.state(job) for job in jobs} == {"ready"}


def test_a_job_is_given_up_by_a_button(operated: Operated) -> None:
    job = operated.dead()
    assert operated.post(f"/jobs/{job}/cancel").status_code == 303
    assert operated.state(job) == "cancelled"
    assert operated.post(f"/jobs/{job}/forget").status_code == 404


def test_an_archive_is_shown_with_what_it_has_refused_and_how_far_its_results_are(
    operated: Operated, tmp_path: Path
) -> None:
    operated.dead()
    operated.ledger.rerun("abcdef0123456789", ASSEMBLE)
    job = operated.ledger.claim([ASSEMBLE])
    assert job is not None
    records = [
        ResultRecord(
            job.series.key, "volume", "m", ResultObject("SR", "1.1", f"2.25.{number}", tmp_path), status, "pacs"
        )
        for number, status in enumerate(("sent", "sent", "committed"))
    ]
    operated.ledger.finish(job, [], results=records)
    learnt = Capabilities("WETREAD", tmp_path)
    learnt.refused(operated.settings.destination("pacs"), (SegmentationStorage, ExplicitVRLittleEndian), "0x0122")
    shown = operated.get().text
    assert "PACS at pacs.example:104" in shown
    assert "Segmentation Storage in Explicit VR Little Endian" in shown
    row = shown[shown.index("PACS at pacs.example:104") :]
    assert re.findall(r'<td class="number [^"]*">(\d+)</td>', row)[:4] == ["0", "2", "0", "1"]


def test_what_is_tried_again_later_says_when_and_why(operated: Operated) -> None:
    operated.ledger.open_series(SeriesRecord("00aa", "1.2", "1.2.3", "CT", "CT1"), 3)
    operated.ledger.complete_series("00aa", 3, "", [NextJob(DELIVER, "volume", "m")])
    job = operated.ledger.claim([DELIVER])
    assert job is not None
    operated.ledger.retry_later(job, job.created_at + 3600, "pacs does not answer")
    assert "pacs does not answer" in operated.get().text


def test_another_sites_request_does_nothing(operated: Operated) -> None:
    job = operated.dead()
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert operated.post(f"/jobs/{job}/retry", **headers).status_code == 403
    assert operated.get(f"/jobs/{job}/retry").status_code == 405
    assert operated.state(job) == "dead"
    own = operated.url.partition("://")[2]
    assert operated.post(f"/jobs/{job}/retry", Origin=f"http://{own}").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8080"},
        {"X-Forwarded-For": "10.0.0.7"},
        {"Via": "1.1 x"},
    ],
)
def test_without_a_password_it_is_for_this_machine_only(operated: Operated, headers: dict[str, str]) -> None:
    job = operated.dead()
    assert operated.get(**headers).status_code == 403
    assert operated.post(f"/jobs/{job}/retry", **headers).status_code == 403
    assert operated.state(job) == "dead"
    for host in ("localhost", "localhost:1234", "[::1]:8080", "127.0.0.1"):
        assert operated.get(Host=host).status_code == 200
    assert operated.get("/health", **headers).status_code == 200


def test_with_a_password_it_is_for_those_who_know_it(locked: Operated) -> None:
    job = locked.dead()
    for headers in (
        {},
        {"Authorization": known("guessed")},
        {"Authorization": "Basic %"},
        {"Authorization": "Bearer x"},
    ):
        answer = locked.get(**headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Basic")
        assert "slices" not in answer.text
        assert locked.post(f"/jobs/{job}/cancel", **headers).status_code == 401
    assert locked.state(job) == "dead"
    knowing = {"Authorization": known(PASSWORD), "Host": "wetread.example"}
    assert "two slices" in locked.get(**knowing).text
    assert locked.post(f"/jobs/{job}/cancel", **knowing).status_code == 303
    assert locked.get("/health").status_code == 200


def test_nothing_foreign_is_loaded_and_nobody_frames_it(operated: Operated) -> None:
    policy = operated.get().headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert operated.get("/page.css").headers["content-type"].startswith("text/css")
