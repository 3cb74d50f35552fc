"""Bad input gives a clear error, loses nothing, and holds nothing else up. Real processes and real associations."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE

from service.spool import Spool
from tests.archive import Archive
from tests.copies import MIDDLE, Series, copy_series, data_set_of
from tests.running_node import SENDER, RunningNode, Section, command, free_ports, small_engines
from tests.small_models import volume_package
from tests.validators import dsrdump_text, require_tool
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Section:
    return small_engines(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        yield archive


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, archive: Archive, engines: Section) -> Iterator[RunningNode]:
    folder = tmp_path_factory.mktemp("node")
    with RunningNode(folder, archive.destination, sections={"engines": engines}) as node:
        yield node


@pytest.fixture
def ct(tmp_path: Path, phantom_ct: Path) -> Series:
    return copy_series(phantom_ct, tmp_path / "ct", MIDDLE)


@pytest.fixture
def xray(tmp_path: Path, phantom_xray: Path) -> Series:
    return copy_series(phantom_xray, tmp_path / "xray")


def all_are_in_the_spool(node: RunningNode, files: list[Path] | tuple[Path, ...]) -> bool:
    return set(map(data_set_of, files)) <= set(map(data_set_of, node.stored()))


def reasons_for(node: RunningNode, file: Path) -> list[str]:
    """Why the content of a file is in quarantine."""
    return [reason for reason, path in node.quarantined() if data_set_of(path) == data_set_of(file)]


# ---- who and what may come in ----------------------------------------------------------------------------------------


def test_an_unknown_sender_is_rejected_and_the_log_says_what_to_do(node: RunningNode, ct: Series) -> None:
    to = node.destination
    before = node.stored()
    sent = subprocess.run(
        [require_tool("dcmsend"), "-aet", "STRANGER", "-aec", to.ae_title, to.host, str(to.port), ct.files[0]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sent.returncode != 0
    assert "Association Rejected" in sent.stderr
    event = node.event("association.rejected", calling="STRANGER")
    assert event["reason"] == "calling AE title not recognised"
    assert "[senders.STRANGER]" in event["fix"]
    assert node.stored() == before


def test_an_unsupported_sop_class_is_refused_while_the_ct_beside_it_is_stored(node: RunningNode, ct: Series) -> None:
    ae = AE(SENDER)
    ae.add_requested_context(MRImageStorage)
    ae.add_requested_context(CTImageStorage)
    association = ae.associate(node.destination.host, node.destination.port, ae_title=node.destination.ae_title)
    assert [context.abstract_syntax for context in association.rejected_contexts] == [MRImageStorage]
    assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage]
    assert association.send_c_store(pydicom.dcmread(ct.files[0])).Status == 0x0000
    association.release()
    assert all_are_in_the_spool(node, ct.files[:1])


def test_other_content_under_the_same_uid_is_kept_beside_the_first_until_an_operator_makes_it_count(
    node: RunningNode, xray: Series, tmp_path: Path
) -> None:
    [file] = xray.files
    other = pydicom.dcmread(file)
    other.SeriesDescription = "Somebody changed this"
    changed = tmp_path / "changed.dcm"
    other.save_as(changed)

    assert node.send([file]) == [file]
    node.ended(xray.uid)
    done = len(node.jobs(xray.uid))
    assert node.send([changed]) == [changed]
    assert node.send([file]) == [file], "it came before, and changes nothing"
    assert all_are_in_the_spool(node, [file])
    [reason] = reasons_for(node, changed)
    assert "another instance came first" in reason
    assert node.logged("instance.beside", reason=reason)
    assert len(node.jobs(xray.uid)) == done, "nothing runs again"

    [entry] = [entry for entry in Spool(node.spool).quarantined() if entry.reason == reason]
    said = command("quarantine", "release", entry.id, "--config", node.config).stdout
    assert "runs again" in said
    node.ended(xray.uid)
    assert all_are_in_the_spool(node, [changed])
    [reason] = reasons_for(node, file)
    assert "release this one to use it again" in reason


# ---- images that cannot be used --------------------------------------------------------------------------------------


def test_a_truncated_slice_is_quarantined_and_the_reader_is_told_of_the_gap_that_it_leaves(
    node: RunningNode, ct: Series
) -> None:
    cut_short(ct.files[20])
    assert len(node.send(ct.files)) == len(ct.files)
    jobs = node.ended(ct.uid)
    [reason] = reasons_for(node, ct.files[20])
    assert "truncated" in reason
    assert "send the image again" in reason
    assert {job["state"] for job in jobs} == {"done"}
    [assemble] = [job for job in jobs if job["stage"] == "assemble"]
    assert f"1 instance in quarantine: {reason}" in assemble["note"]
    assert all_are_in_the_spool(node, ct.files)
    [report] = [Path(result["path"]) for result in node.results(ct.uid) if result["kind"] == "SR"]
    told = dsrdump_text(report)
    assert "1 slice is missing" in told
    assert "1 image of the series could not be used" in told


def test_a_truncated_x_ray_is_quarantined_while_the_other_one_of_its_series_goes_on(
    node: RunningNode, phantom_xray: Path, tmp_path: Path
) -> None:
    good, bad = two_xrays_of_one_series(phantom_xray, tmp_path)
    cut_short(bad)
    node.send([bad, good])
    assert_only_one_gives_results(node, good, bad, "truncated")


def test_an_x_ray_without_pixel_data_is_quarantined_while_the_other_one_of_its_series_goes_on(
    node: RunningNode, phantom_xray: Path, tmp_path: Path
) -> None:
    good, bad = two_xrays_of_one_series(phantom_xray, tmp_path)
    data_set = pydicom.dcmread(bad)
    del data_set.PixelData
    data_set.save_as(bad)
    node.send([bad, good])
    assert_only_one_gives_results(node, good, bad, "no pixel data")


def test_a_series_with_more_missing_slices_than_the_model_bridges_is_a_dead_letter_until_they_come(
    node: RunningNode, archive: Archive, ct: Series
) -> None:
    missing = ct.files[10:14]
    came = [file for file in ct.files if file not in missing]
    node.send(came)
    [_, assemble] = node.ended(ct.uid)
    assert assemble["state"] == "dead"
    assert "4 slices are missing" in assemble["note"]
    assert "more than the 6 mm that it bridges; send the series again, whole" in assemble["note"]
    assert all_are_in_the_spool(node, came)
    event = node.event("job.dead", series=assemble["series"])
    assert event["fix"] == f"`wetread jobs retry {assemble['id']}` after the cause is gone"

    node.send(missing)
    eventually(lambda: len(node.results(ct.uid)) == 2, "the whole series has results")
    assert {job["state"] for job in node.ended(ct.uid)} == {"done"}
    assert {result["sop_instance_uid"] for result in node.results(ct.uid)} <= set(archive.objects)


def cut_short(file: Path) -> None:
    """Take away the last third of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def two_xrays_of_one_series(source: Path, folder: Path) -> tuple[Path, Path]:
    [first] = copy_series(source, folder / "first").files

    def join(data_set: Dataset) -> None:
        with pydicom.dcmread(first) as other:
            data_set.StudyInstanceUID, data_set.SeriesInstanceUID = other.StudyInstanceUID, other.SeriesInstanceUID

    [second] = copy_series(source, folder / "second", change=join).files
    return first, second


def assert_only_one_gives_results(node: RunningNode, good: Path, bad: Path, why: str) -> None:
    header = pydicom.dcmread(good, stop_before_pixels=True)
    jobs = node.ended(header.SeriesInstanceUID)
    assert {job["state"] for job in jobs} == {"done"}
    [assemble] = [job for job in jobs if job["stage"] == "assemble"]
    assert f"1 instance in quarantine: {why}" in assemble["note"]
    [reason] = reasons_for(node, bad)
    assert why in reason
    assert all_are_in_the_spool(node, [good, bad])
    results = [pydicom.dcmread(result["path"]) for result in node.results(header.SeriesInstanceUID)]
    assert [result.Modality for result in results] == ["SEG", "SR"]
    [referenced] = results[0].ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert referenced.ReferencedSOPInstanceUID == header.SOPInstanceUID


# ---- a node that cannot be as its configuration says -----------------------------------------------------------------


def refuses_to_serve(node: RunningNode) -> str:
    """What a node says that ends with exit code 1 instead of serving."""
    done = command("serve", "--config", node.config)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_model_whose_shape_is_not_the_networks_is_refused_with_file_key_and_fix(
    tmp_path: Path, archive: Archive
) -> None:
    package = volume_package(tmp_path / "models", patch=(8, 12, 16))
    description = package / "model.toml"
    description.write_text(description.read_text().replace("patch = [8, 12, 16]", "patch = [8, 12, 24]"))
    settings = {"folders": [str(package.parent)], "models": ["tiny-ct"]}
    node = RunningNode(tmp_path, archive.destination, sections={"engines": settings})

    for said in (refuses_to_serve(node), command("check", "--config", node.config).stdout):
        text = "".join(said.split())  # a table breaks lines
        assert str(package) in text
        assert "patch" in text
        assert "[1,1,8,12,16]" in text
        assert "[1,1,8,12,24]" in text
        assert "exportthemodelagain" in text


def test_a_spool_that_cannot_be_written_is_refused_with_key_and_fix(
    tmp_path: Path, archive: Archive, engines: Section
) -> None:
    (tmp_path / "a-file").touch()
    sections = {"engines": engines, "spool": {"path": str(tmp_path / "a-file" / "spool")}}
    node = RunningNode(tmp_path, archive.destination, sections=sections)
    said = refuses_to_serve(node)
    assert f"spool.path = '{tmp_path / 'a-file' / 'spool'}': cannot be written (Not a directory)" in said
    assert "name another folder" in said


def test_a_wrong_key_is_refused_with_its_value_and_the_keys_that_there_are(tmp_path: Path, archive: Archive) -> None:
    node = RunningNode(tmp_path, archive.destination, sections={"node": {"prot": 11112}})
    said = refuses_to_serve(node)
    assert f"{node.config}: node.prot = 11112: no such key" in said
    assert "maximum_pdu, port" in said


def test_a_second_node_on_a_spool_is_refused(node: RunningNode, tmp_path: Path, engines: Section) -> None:
    second = RunningNode(tmp_path, node.destination, sections={"engines": engines, "spool": {"path": str(node.spool)}})
    said = refuses_to_serve(second)
    assert f"spool.path = '{node.spool}': another node works on it" in said
    assert node.alive


def test_a_port_that_is_taken_is_refused_with_key_and_fix(
    node: RunningNode, tmp_path: Path, archive: Archive, engines: Section
) -> None:
    taken = {"engines": engines, "node": {"ae_title": "WETREAD", "port": node.destination.port}}
    said = refuses_to_serve(RunningNode(tmp_path, archive.destination, sections=taken))
    assert f"node.port = {node.destination.port}: cannot listen on 127.0.0.1 (Address already in use)" in said
    assert "choose another port" in said


# ---- results that cannot be delivered --------------------------------------------------------------------------------


def test_results_wait_for_an_archive_that_is_down(tmp_path: Path, engines: Section, xray: Series) -> None:
    away = Archive(free_ports(1)[0])
    with RunningNode(tmp_path, away.destination, sections={"engines": engines}) as node:
        node.send(xray.files)
        event = node.event("deliver.postponed", attempt=2)
        assert "pacs (PACS at 127.0.0.1:" in event["reason"]
        assert "start it, or correct host and port" in event["reason"]
        assert {result["status"] for result in node.results(xray.uid)} == {"encoded"}
        with away:
            jobs = node.ended(xray.uid)
            assert {job["state"] for job in jobs} == {"done"}
            assert {result["sop_instance_uid"] for result in node.results(xray.uid)} == set(away.objects)
            assert len(away.arrivals) == 2


def test_findings_for_a_sender_without_an_archive_are_kept_until_there_is_one(
    tmp_path: Path, archive: Archive, engines: Section, xray: Series
) -> None:
    anybody = {"engines": engines, "node": {"accept_unknown_senders": True}}
    with RunningNode(tmp_path, archive.destination, sections=anybody) as node:
        node.send(xray.files, calling="STRANGER")
        *_, encode = node.ended(xray.uid)
        assert (encode["stage"], encode["state"]) == ("encode", "dead"), "what is made depends on who gets it"
        assert "add [senders.STRANGER] with an archive" in encode["note"]
        assert node.terminate() == 0

    with RunningNode(tmp_path, archive.destination, senders=["STRANGER"], sections={"engines": engines}) as node:
        retried = command("jobs", "retry", str(encode["id"]), "--config", node.config)
        assert retried.returncode == 0, retried.stderr
        eventually(lambda: {job["state"] for job in node.jobs(xray.uid)} == {"done"}, "the results are delivered")
        assert {result["sop_instance_uid"] for result in node.results(xray.uid)} <= set(archive.objects)
