"""An archive that accepts a form of results in the negotiation and refuses it when it is sent gets another one."""

from pathlib import Path

from tests.raw_archive import Line, RawArchive, Request
from tests.running_node import RunningNode, small_engines

LABEL_MAP, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"


def test_a_form_that_is_refused_when_it_is_sent_is_learnt_and_the_results_are_encoded_again(
    phantom_ct: Path, tmp_path: Path
) -> None:
    came: list[Request] = []

    def archive(line: Line) -> None:
        line.accept()
        while True:
            request = line.request()
            came.append(request)
            line.respond(request, 0x0122 if request.sop_class == LABEL_MAP else 0)

    with RawArchive(archive) as pacs:
        name = f"archives.{pacs.destination.name}"
        node = RunningNode(
            tmp_path,
            pacs.destination,
            sections={
                "engines": small_engines(tmp_path / "models"),
                name: {"count": "no", "commitment": "no"},
                f"{name}.results": {"objects": ["SEG", "SR"], "segmentation": "labelmap"},
            },
        )
        with node:
            node.send(sorted(phantom_ct.iterdir()))
            jobs = node.ended()
            assert {job["state"] for job in jobs} == {"done"}, [(job["stage"], job["note"]) for job in jobs]
            (encode,) = [job for job in jobs if job["stage"] == "encode"]
            assert "SEG as binary, because the archive does not take it as labelmap" in encode["note"]
            assert node.logged("archive.refuses")
            sent = {one["sop_class_uid"] for one in node.results() if one["status"] == "sent"}
            assert sent == {SEGMENTATION, COMPREHENSIVE_3D}
    stored = [request.sop_class for request in came if request.field == 0x0001]
    assert stored == [LABEL_MAP, SEGMENTATION, COMPREHENSIVE_3D]
