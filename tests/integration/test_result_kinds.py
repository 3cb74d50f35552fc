"""Every kind of result object, from a node into a real Orthanc, for a CT and an X-ray of the shipped models."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from service.results.kinds import KINDS
from service.types import Destination
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, command, free_ports
from tests.validators import dcentvfy_errors, dciodvfy_errors

CAPTURES = 5
EXPECTED = {
    "ct-lung": {"SEG", "SC", "PDF", "RTSTRUCT", "GSPS", "KO", "SR"},
    "ct-nodule": {"SC", "PDF", "GSPS", "KO", "SR"},
    "cxr-lung": {"SEG", "SC", "PDF", "GSPS", "KO", "SR"},
    "cxr-pneumonia": {"HEATMAP-SEG", "SC", "HEATMAP", "PDF", "GSPS", "KO", "SR"},
}
"""The kinds that each model's findings give."""


@dataclass(frozen=True, eq=False)
class Run:
    """A node that has analysed a CT and an X-ray, and the archive that has the results."""

    node: RunningNode
    orthanc: Orthanc
    sources: tuple[Path, ...]
    results: dict[str, list[tuple[str, Path]]]
    """Kind and file, as it came back out of the archive, by model."""

    def report(self, model: str) -> Dataset:
        [path] = [path for kind, path in self.results[model] if kind == "SR"]
        return pydicom.dcmread(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, phantom_ct: Path, phantom_xray: Path) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("kinds")
    archive = Destination("orthanc", "ORTHANC", "127.0.0.1", free_ports(1)[0])
    everything = {"objects": list(KINDS), "captures": CAPTURES, "segmentation": "labelmap-rle"}
    node = RunningNode(folder, archive, models=(), sections={"archives.orthanc.results": everything})
    sources = (*sorted(phantom_ct.glob("*.dcm")), *sorted(phantom_xray.glob("*.dcm")))
    with running_orthanc(folder, node.destination.port, dicom_port=archive.port) as orthanc, node:
        assert len(node.send(sources)) == len(sources)
        node.ended()
        results: dict[str, list[tuple[str, Path]]] = {}
        for row in node.results():
            held = orthanc.post(
                "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": row["sop_instance_uid"]}}
            )
            assert len(held) == 1, f"the {row['kind']} of {row['model']} is not in the archive"
            path = orthanc.fetch(held[0], folder / f"{row['sop_instance_uid']}.dcm")
            results.setdefault(row["model"], []).append((row["kind"], path))
        yield Run(node, orthanc, sources, results)


def test_every_kind_that_the_findings_give_is_in_the_archive(run: Run) -> None:
    assert {model: {kind for kind, _ in found} for model, found in run.results.items()} == EXPECTED
    assert [job for job in run.node.jobs() if job["state"] != "done"] == []
    counts = Counter(kind for kind, _ in run.results["ct-lung"])
    assert counts.pop("SC") == 1 + CAPTURES
    assert set(counts.values()) == {1}


def test_what_the_archive_does_not_take_was_replaced_and_said(run: Run) -> None:
    notes = [job["note"] for job in run.node.jobs(stage="encode") if job["model"] == "ct-lung"]
    assert notes == [
        note for note in notes if "SEG as binary, because the archive does not take it as labelmap-rle" in note
    ]


def test_every_kind_is_filed_under_the_patient_and_study_of_its_source_without_an_error(run: Run) -> None:
    found = [each for several in run.results.values() for each in several]
    for kind, path in found:
        # dicom3tools wants it in every presentation state; the phantom's chest is no paired structure
        known = "Laterality" if kind == "GSPS" else "nothing"
        assert [error for error in dciodvfy_errors(path) if known not in error] == [], kind
    by_study: dict[str, list[Path]] = {}
    for path in (*run.sources, *(path for _, path in found)):
        by_study.setdefault(str(pydicom.dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID), []).append(
            path
        )
    for together in by_study.values():
        assert dcentvfy_errors(*together) == []


@pytest.mark.parametrize("model", EXPECTED)
def test_the_report_refers_to_every_other_object(model: str, run: Run) -> None:
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in run.report(model).CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    others = {
        pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        for kind, path in run.results[model]
        if kind != "SR"
    }
    assert others <= evidence


def test_every_object_says_that_it_is_for_research(run: Run) -> None:
    for found in run.results.values():
        for _, path in found:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            assert header.SeriesDescription.startswith("RESEARCH")
            assert re.match("Research use only", header.ContributingEquipmentSequence[0].ContributionDescription)


def test_jobs_show_counts_captures_and_lists_the_rest(run: Run) -> None:
    [key] = {job["series"] for job in run.node.jobs(stage="infer") if job["model"] == "ct-lung"}
    shown = command("jobs", "show", key, "--config", run.node.config)
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"SC +{1 + CAPTURES} instances of 2\.25\.", shown.stdout)
    assert re.search(r"RTSTRUCT +2\.25\.", shown.stdout)
