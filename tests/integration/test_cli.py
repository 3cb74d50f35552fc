"""The ``wetread`` command as an operator uses it."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from service.settings import TEMPLATE, load
from service.spool import Spool
from tests.archive import Archive
from tests.copies import Series, copy_series
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import SENDER, RunningNode, Section, command, free_ports, small_engines, write_config
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def away() -> Archive:
    """An archive that is not there yet."""
    return Archive(free_ports(1)[0])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, away: Archive, engines: Section) -> Iterator[RunningNode]:
    with RunningNode(
        tmp_path_factory.mktemp("node"), away.destination, models=(), sections={"engines": engines}
    ) as node:
        yield node


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), free_ports(1)[0], dicomweb=True) as running:
        yield running


@pytest.fixture
def xray(tmp_path: Path, phantom_xray: Path) -> Series:
    return copy_series(phantom_xray, tmp_path / "xray")


def answer(*arguments: str | Path) -> Any:
    """What a command prints for programs."""
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_init_writes_a_commented_configuration_that_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "wetread.toml"
    assert command("init", path, "--spool", tmp_path / "spool").returncode == 0
    assert path.read_text() == TEMPLATE.replace("{spool}", str(tmp_path / "spool"))
    assert load(path).spool.path == tmp_path / "spool"
    assert tomllib.loads(path.read_text())["node"]["host"] == "127.0.0.1", "safe by default"


def test_init_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "wetread.toml"
    path.write_text("# mine")
    done = command("init", path)
    assert done.returncode == 1
    assert "exists and is left alone" in done.stderr
    assert path.read_text() == "# mine"


def test_check_says_what_is_right_and_exits_with_0(tmp_path: Path, engines: Section) -> None:
    with Archive() as archive:
        config = RunningNode(tmp_path, archive.destination, sections={"engines": engines}).config
        said = command("check", "--config", config)
        told = answer("check", "--config", config)
    assert said.returncode == 0, said.stdout
    assert "answers C-ECHO" in said.stdout
    assert told["ok"]
    assert all(line["ok"] for line in told["lines"])
    assert {"archive pacs", "spool", "model tiny-ct", "model tiny-cxr"} <= {line["what"] for line in told["lines"]}


def counts(config: Path) -> list[dict[str, Any]]:
    """What `check` says of how an archive can be asked."""
    lines = json.loads(command("check", "--config", config, "--json").stdout)["lines"]
    return [line for line in lines if line["what"].endswith(" count")]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, "can be asked what a series has (c-find); missing images are not fetched"),
        ({"fetch": "c-move"}, "can be asked what a series has (c-find); missing images come by c-move, to WETREAD"),
        (
            {"count": "qido", "fetch": "wado-rs"},
            "can be asked what a series has (qido); missing images come by wado-rs",
        ),
    ],
)
def test_check_asks_an_archive_what_the_node_will_ask(
    keys: dict[str, object], found: str, orthanc: Orthanc, tmp_path: Path, engines: Section
) -> None:
    sections = {"engines": engines, "archives.orthanc": {**keys, "dicomweb": orthanc.dicomweb}}
    [line] = counts(RunningNode(tmp_path, orthanc.destination, sections=sections).config)
    assert line == {"ok": True, "what": "archive orthanc count", "finding": found}


def test_check_finds_an_archive_that_cannot_be_asked_wrong_only_where_somebody_has_set_that_it_is(
    tmp_path: Path, engines: Section
) -> None:
    settings: list[Section] = [{}, {"count": "no"}, {"count": "c-find"}, {"fetch": "c-get"}]
    with Archive() as archive:
        said = [
            counts(
                RunningNode(tmp_path, archive.destination, sections={"engines": engines, "archives.pacs": keys}).config
            )
            for keys in settings
        ]
    assert [[line["ok"] for line in lines] for lines in said] == [[True], [], [False], [False]]
    assert "takes none of: Study Root Query/Retrieve Information Model - FIND" in said[0][0]["finding"]
    assert 'archives.pacs.count = "no"' in said[0][0]["finding"]


@pytest.mark.parametrize(
    ("results", "ok", "found"),
    [
        ({"objects": ["SEG", "SC", "SR"]}, True, "takes SEG, SC, SR"),
        ({"objects": ["SR", "PDF"], "report": "enhanced"}, True, "takes SR, PDF"),
        (
            {"objects": ["SEG"], "segmentation": "labelmap"},
            False,
            "gets SEG: SEG as binary, because the archive does not take it as labelmap; "
            "correct [archives.orthanc.results], or let ORTHANC accept these SOP classes",
        ),
    ],
)
def test_check_asks_an_archive_whether_it_takes_its_results(
    results: Section, ok: bool, found: str, orthanc: Orthanc, tmp_path: Path, engines: Section
) -> None:
    sections = {"engines": engines, "archives.orthanc.results": results}
    config = RunningNode(tmp_path, orthanc.destination, sections=sections).config
    lines = json.loads(command("check", "--config", config, "--json").stdout)["lines"]
    [line] = [line for line in lines if line["what"] == "archive orthanc results"]
    assert line == {"ok": ok, "what": "archive orthanc results", "finding": found}


def test_check_says_everything_that_is_wrong_and_exits_with_1(tmp_path: Path, away: Archive, engines: Section) -> None:
    (tmp_path / "a-file").touch()
    sections = {"engines": {**engines, "models": ["tiny-mr"]}, "spool": {"path": str(tmp_path / "a-file" / "spool")}}
    config = RunningNode(tmp_path, away.destination, sections=sections).config
    done = command("check", "--config", config, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert not told["ok"]
    wrong = {line["what"]: line["finding"] for line in told["lines"] if not line["ok"]}
    assert set(wrong) == {"archive pacs", "spool", "models"}
    assert "archives.pacs: " in wrong["archive pacs"]
    assert "spool.path = " in wrong["spool"]
    assert "engines.models = ['tiny-mr']: no such model; there are" in wrong["models"]


def test_check_names_a_wrong_key_with_its_value_and_the_known_ones(tmp_path: Path) -> None:
    config = write_config(tmp_path / "wetread.toml", {"senders.CT1": {"archiv": "pacs"}, "node": {"port": 70000}})
    done = command("check", "--config", config, "--json")
    assert done.returncode == 1
    findings = [line["finding"] for line in json.loads(done.stdout)["lines"]]
    wrong = "senders.CT1.archiv = 'pacs': no such key; remove it or use one of: addresses, archive, "
    assert any(wrong in one for one in findings)
    assert any("node.port = 70000: " in one for one in findings)


def test_send_sends_a_folder_and_says_what_it_skipped(node: RunningNode, xray: Series) -> None:
    folder = xray.files[0].parent
    (folder / "notes.txt").write_text("no DICOM")
    to = node.destination
    done = command("send", folder, to.host, str(to.port), to.ae_title, "--calling", SENDER)
    assert done.returncode == 0, done.stderr
    assert "1 sent, 1 skipped" in done.stdout
    assert "notes.txt: not a DICOM file" in done.stdout
    assert node.jobs(xray.uid)


def test_send_as_a_stranger_ends_with_the_reason(node: RunningNode, xray: Series) -> None:
    to = node.destination
    done = command("send", xray.files[0], to.host, str(to.port), to.ae_title, "--calling", "STRANGER")
    assert done.returncode == 1
    assert "must know the AE title STRANGER" in done.stderr


def test_check_and_serve_refuse_to_narrow_a_model_that_is_not_there(
    tmp_path: Path, away: Archive, engines: Section
) -> None:
    sections: dict[str, Section] = {"engines": engines, "routing.tiny-cd": {"enabled": False}}
    config = RunningNode(tmp_path, away.destination, sections=sections).config
    told = json.loads(command("check", "--config", config, "--json").stdout)
    wrong = [line["finding"] for line in told["lines"] if line["what"] == "models"]
    assert any("routing.tiny-cd: no such model; there are ct-lung" in finding for finding in wrong)
    refused = command("serve", "--config", config)
    assert refused.returncode == 1
    assert "routing.tiny-cd: no such model" in refused.stderr


def test_route_shows_what_the_node_would_do_with_a_folder(node: RunningNode, xray: Series) -> None:
    folder = xray.files[0].parent
    (folder / "notes.txt").write_text("no DICOM")
    done = command("route", folder, "--config", node.config)
    assert done.returncode == 0, done.stderr
    assert "tiny-cxr" in done.stdout
    assert "runs, results → pacs (PACS at 127.0.0.1:" in done.stdout
    assert "1 file not DICOM" in done.stdout
    told = answer("route", folder, "--config", node.config)
    [series] = told["series"]
    assert series["series_uid"] == xray.uid
    assert series["items"][0]["models"] == ["tiny-cxr"]
    assert series["items"][0]["refusals"]["tiny-ct"] == {"reason": "modality DX is not CT", "faulty": False}
    assert not node.jobs(xray.uid), "nothing was stored"


def test_route_needs_no_configuration(xray: Series) -> None:
    done = command("route", xray.files[0])
    assert done.returncode == 0, done.stderr
    assert "cxr-lung" in done.stdout
    assert "no configuration" in done.stdout


def test_quarantine_shows_what_cannot_be_used_and_discards_it(node: RunningNode, xray: Series) -> None:
    [file] = xray.files
    file.write_bytes(file.read_bytes()[:-5000])
    node.send(xray.files)
    node.ended(xray.uid)
    config = ("--config", node.config)
    [group] = [group for group in answer("quarantine", "list", *config) if "truncated" in group["reason"]]
    assert group["count"] == 1
    assert group["bytes"] > 0
    [id] = group["ids"]
    assert group["series"] in command("quarantine", "list", *config).stdout

    shown = answer("quarantine", "show", id[:6], *config)
    assert shown["header"]["series_uid"] == xray.uid
    assert Path(shown["path"]).is_file()
    person = command("quarantine", "show", id, *config).stdout
    assert xray.uid in person
    assert "send the image again from its source" in person
    assert f"wetread quarantine discard {id}" in person

    asked = command("quarantine", "discard", id, *config)
    assert asked.returncode == 1, "nobody is there to confirm"
    assert Path(shown["path"]).is_file()
    assert command("quarantine", "discard", id, "--yes", *config).returncode == 0
    assert not Path(shown["path"]).exists()
    gone = command("quarantine", "show", id, *config)
    assert gone.returncode == 1
    assert "no such entry" in gone.stderr


def test_what_is_released_from_quarantine_runs_at_once(node: RunningNode, phantom_xray: Path, tmp_path: Path) -> None:
    first = copy_series(phantom_xray, tmp_path / "first")
    node.send(first.files)
    eventually(lambda: node.jobs(first.uid, "deliver"), "the first image is through")
    second = pydicom.dcmread(first.files[0])
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    second.save_as(tmp_path / "second.dcm")
    [key] = {job["series"] for job in node.jobs(first.uid)}
    entry = Spool(node.spool).quarantine(key, tmp_path / "second.dcm", "an earlier version could not decode it")

    done = command("quarantine", "release", entry.id[:8], "--config", node.config)
    assert done.returncode == 0, done.stderr
    assert f"series {key} has 2 instances and runs again" in done.stdout
    delivers = eventually(
        lambda: jobs if len(jobs := node.jobs(first.uid, "deliver")) == 2 else [], "the second image is through"
    )
    assert len({job["item"] for job in delivers}) == 2
    assert entry.id not in command("quarantine", "list", "--config", node.config, "--json").stdout


def test_what_has_no_uids_cannot_be_released_and_the_command_says_what_to_do(
    node: RunningNode, xray: Series, tmp_path: Path
) -> None:
    nameless = pydicom.dcmread(xray.files[0])
    nameless.StudyInstanceUID = ""
    nameless.save_as(tmp_path / "nameless.dcm")
    assert node.send([tmp_path / "nameless.dcm"]), "it is kept, so it is acknowledged"
    config = ("--config", node.config)
    [group] = [one for one in answer("quarantine", "list", *config) if "StudyInstanceUID missing" in one["reason"]]
    done = command("quarantine", "release", "--series", group["series"], *config)
    assert done.returncode == 1
    assert "repair the header and send it again" in done.stdout
    assert group in answer("quarantine", "list", *config)


def test_jobs_shows_cancels_and_retries_what_waits_for_an_archive(
    node: RunningNode, away: Archive, xray: Series
) -> None:
    def waiting() -> dict[str, Any] | None:
        return next((job for job in node.jobs(xray.uid, "deliver") if job["state"] == "ready" and job["note"]), None)

    node.send(xray.files)
    deliver = eventually(waiting, "the delivery waits")
    number, series = str(deliver["id"]), deliver["series"]
    config = ("--config", node.config)

    listed = {job["id"]: job for job in answer("jobs", "list", "--series", series, *config)}
    assert [job["stage"] for job in listed.values()] == ["receive", "assemble", "infer", "encode", "deliver"]
    assert "start it, or correct host and port" in listed[deliver["id"]]["note"]
    assert series in command("jobs", "list", *config).stdout

    assert command("jobs", "cancel", number, *config).returncode == 0
    assert [job["id"] for job in answer("jobs", "list", "--state", "cancelled", *config)] == [deliver["id"]]
    refused = command("jobs", "cancel", number, *config)
    assert refused.returncode == 1
    assert f"job {number}: there is none, or it is ended already" in refused.stderr

    with away:
        assert command("jobs", "retry", number, *config).returncode == 0
        node.ended(xray.uid)
        shown = answer("jobs", "show", series[:8], *config)
    assert {job["state"] for job in shown["jobs"]} == {"done"}
    assert [(result["kind"], result["status"]) for result in shown["results"]] == [("SEG", "sent"), ("SR", "sent")]
    assert {result["sop_instance_uid"] for result in shown["results"]} <= set(away.objects)
    person = command("jobs", "show", series, *config).stdout
    assert xray.uid in person
    assert "tiny-cxr" in person
    assert command("jobs", "show", "nothing", *config).returncode == 1
