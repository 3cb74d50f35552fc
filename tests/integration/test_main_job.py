"""The main job: a real Orthanc forwards a real chest CT and real X-rays to the node, and the results come back into it.

One run of both serves all tests of this module.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom import Dataset

from engines.packages.package import SHIPPED_MODELS, load_packages
from service.handover import load_findings, load_item
from service.types import Destination
from tests.conftest import WrapAsDX
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, free_ports
from tests.unit.service.results.report_content import below, groups, image_of, regions, stated
from tests.validators import dcentvfy_errors, dciodvfy_errors, dsrdump_text, segments, tid1500
from tests.waiting import eventually

STABLE_SECONDS = 2
CT_FOLDER = "dicom/ct_nlst101287_toshiba_jpegls_plus_sybil_sr"
CHEST_XRAYS = ("fo_CR-MONO1-10-chest_nopreamble", "wg04_RG1_J2KI.dcm")
OTHER_XRAYS = ("wg04_RG2_JPLL.dcm", "txv_1.2.276.0.7230010.3..dcm")
"""A hip, and a chest X-ray that is a secondary capture: forwarded, stored, processed by no model."""

SAME_AS_SOURCE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Source:
    """A series that lies in Orthanc before anything is forwarded."""

    header: Dataset
    instances: int
    models: tuple[str, ...]

    @property
    def study_uid(self) -> str:
        return str(self.header.StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        return str(self.header.SeriesInstanceUID)


@dataclass(frozen=True, eq=False)
class Result:
    """A result as it came back out of Orthanc."""

    source: Source
    model: str
    path: Path
    header: Dataset


@dataclass(frozen=True, eq=False)
class Job:
    """All that one run has left. ``before`` is what Orthanc held before the first result came."""

    node: RunningNode
    orthanc: Orthanc
    sources: tuple[Source, ...]
    results: tuple[Result, ...]
    before: int
    forwarded: int
    folder: Path

    @property
    def ct(self) -> Source:
        [ct] = [source for source in self.sources if source.header.Modality == "CT"]
        return ct

    def inferred(self, model: str) -> dict[str, Any]:
        [row] = [row for row in self.node.jobs(self.ct.series_uid, "infer") if row["model"] == model]
        return row

    def of(self, source: Source, modality: str, model: str = "") -> list[Result]:
        found = [one for one in self.results if one.source is source and one.header.Modality == modality]
        return [one for one in found if model in ("", one.model)]


def models_for(modality: str) -> tuple[str, ...]:
    return tuple(name for name, package in load_packages(SHIPPED_MODELS).items() if modality in package.input.modality)


def with_meta_information(path: Path, target: Path) -> Path:
    """The same data set as a DICOM file: one of the samples is a bare data set, as it goes over the wire."""
    data_set = pydicom.dcmread(path, force=True)
    if not data_set.file_meta:
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    data_set.save_as(target, enforce_file_format=True)
    return target


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, real_xrays: dict[str, Path], wrap_as_dx: WrapAsDX
) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("main_job")
    archive = Destination("orthanc", "ORTHANC", "127.0.0.1", free_ports(1)[0])
    node = RunningNode(folder, archive, models=(), senders=[archive.ae_title])
    groups: list[tuple[Sequence[Path], tuple[str, ...]]] = [
        (sorted((shared_data / CT_FOLDER).glob("CT_*/*.dcm")), models_for("CT"))
    ]
    for name in CHEST_XRAYS:
        file = with_meta_information(shared_data / "dicom" / "cr" / name, folder / f"{name}.dcm")
        groups.append(([file], models_for("CR")))
    groups += [([shared_data / "dicom" / "cr" / name], ()) for name in OTHER_XRAYS]
    for name, jpeg in real_xrays.items():
        groups.append(([wrap_as_dx(jpeg, folder / f"{name}.dcm")], models_for("DX")))
    third_party_report = sorted((shared_data / CT_FOLDER).glob("SR_*/*.dcm"))
    with (
        node,
        running_orthanc(
            folder, node.destination.port, dicom_port=archive.port, stable_seconds=STABLE_SECONDS
        ) as orthanc,
    ):
        orthanc.upload(*third_party_report, *(file for files, _ in groups for file in files))
        before = len(third_party_report) + sum(len(files) for files, _ in groups)
        sources = tuple(
            Source(pydicom.dcmread(files[0], stop_before_pixels=True), len(files), models) for files, models in groups
        )
        for source in sources:
            node.ended(source.series_uid)
        eventually(lambda: all_are_stable_again(orthanc, sources), "the results make their studies stable again")
        # a loop would need this long to start: once more stable, forwarded, quiet
        sleep(STABLE_SECONDS + 4)
        results = tuple(fetched(orthanc, node, source, folder) for source in sources)
        yield Job(
            node, orthanc, sources, tuple(one for group in results for one in group),
            before, times_forwarded(orthanc), folder,
        )  # fmt: skip


def all_are_stable_again(orthanc: Orthanc, sources: Sequence[Source]) -> bool:
    studies = {orthanc.study(source.study_uid) for source in sources if source.models}
    return all(orthanc.changes("StableStudy", study) >= 2 for study in studies)


def times_forwarded(orthanc: Orthanc) -> int:
    return sum(job["Type"] == "DicomModalityStore" for job in orthanc.jobs())


def fetched(orthanc: Orthanc, node: RunningNode, source: Source, folder: Path) -> list[Result]:
    """The results of a source that lie in Orthanc, fetched by REST."""
    models = {row["sop_instance_uid"]: row["model"] for row in node.results(source.series_uid)}
    found = []
    for name in orthanc.instances(source.study_uid):
        path = orthanc.fetch(name, folder / f"{name}.dcm")
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if str(header.SOPInstanceUID) in models:
            found.append(Result(source, models[str(header.SOPInstanceUID)], path, header))
    return found


def test_the_ct_and_the_x_rays_are_received_whole(job: Job) -> None:
    for source in job.sources:
        [receive] = job.node.jobs(source.series_uid, "receive")
        assert receive["note"].startswith(f"{source.instances} instance")
    assert {row["state"] for row in job.node.jobs()} == {"done"}
    assert not job.node.quarantined()


def test_each_model_gives_its_objects_in_the_study_it_came_from(job: Job) -> None:
    segmenting = {"ct-lung", "cxr-lung"}
    for source in job.sources:
        came = Counter((one.model, one.header.Modality) for one in job.results if one.source is source)
        expected = {(model, "SR"): 1 for model in source.models}
        expected |= {(model, "SEG"): 1 for model in source.models if model in segmenting}
        assert came == expected, f"{source.header.Modality} {source.header.get('BodyPartExamined')}"
    assert len(job.results) == 3 + 5 * 3, "one CT, and five chest X-rays, with two models each"


def test_the_results_are_stored_once_and_never_forwarded(job: Job) -> None:
    assert job.forwarded == len({source.study_uid for source in job.sources}), "each study is forwarded once"
    assert job.orthanc.count() == job.before + len(job.results)
    assert len(job.node.rows("SELECT * FROM series")) == len(job.sources)
    assert all(row["attempts"] == 1 for row in job.node.jobs() if row["stage"] != "receive")


def test_a_study_that_is_forwarded_again_by_hand_gives_nothing_new(job: Job) -> None:
    held = job.orthanc.count()
    ledger = job.node.results()
    work = job.node.jobs()
    sent_again = [source for source in job.sources if source.models]

    for source in sent_again:
        job.orthanc.forward(source.study_uid)
    eventually(lambda: len(job.node.logged("instance.returned")) == len(job.results), "its results come back")
    sleep(STABLE_SECONDS + 4)
    assert job.orthanc.count() == held
    assert job.node.results() == ledger
    known = len(work)
    assert job.node.jobs()[:known] == work
    carried = [(row["stage"], row["state"]) for row in job.node.jobs()[known:]]
    assert carried == [("receive", "done"), ("assemble", "done")], (
        "a third party's report comes along, and runs nothing"
    )
    assert len(job.node.rows("SELECT * FROM series")) == len(job.sources) + 1


def test_dciodvfy_finds_no_error_in_any_result(job: Job) -> None:
    errors = {
        f"{one.source.header.Modality} {one.model} {one.path.name}": dciodvfy_errors(one.path) for one in job.results
    }
    assert {name: found for name, found in errors.items() if found} == {}


def test_the_results_belong_to_the_patient_and_study_of_their_source(job: Job) -> None:
    for one in job.results:
        for keyword in SAME_AS_SOURCE:
            assert str(one.header.get(keyword) or "") == str(one.source.header.get(keyword) or ""), keyword
        assert one.header.SeriesInstanceUID != one.source.series_uid
        assert b"RESEARCH" in one.path.read_bytes().upper()
    sources = sorted(job.node.stored())
    for source in job.sources:
        mine = [one.path for one in job.results if one.source is source]
        slices = [path for path in sources if series_of(path) == source.series_uid]
        assert not (mine and dcentvfy_errors(*slices, *mine))


def series_of(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)


def test_dcmqi_puts_the_ct_segments_on_the_voxels_that_were_encoded(job: Job) -> None:
    [segmentation] = job.of(job.ct, "SEG")
    row = job.inferred("ct-lung")
    series, item = job.node.spool / "work" / row["series"], row["item"]
    image = load_item(series / item, job.node.spool / "series" / row["series"]).image
    labels = load_findings(series / item / row["model"]).label_map
    assert labels is not None
    read = segments(segmentation.path, job.folder / "dcmqi")
    assert [segment.label for segment in read] == ["Left lung", "Right lung"]
    for segment, expected in zip(read, labels.segments, strict=True):
        encoded = labels.array == expected.number
        assert encoded.sum() > 1_000_000, "a lung has litres"
        assert dice(encoded, on_the_grid_of(segment.image, labels.array, image.affine)) >= 0.999


def on_the_grid_of(image: SimpleITK.Image, labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A segment's image, sampled where the voxels of the source series lie (LPS millimetres)."""
    reference = SimpleITK.GetImageFromArray(labels)
    axes = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(axes, axis=0)
    reference.SetSpacing(spacing.tolist())
    reference.SetDirection((axes / spacing).ravel().tolist())
    reference.SetOrigin(affine[:3, 3].tolist())
    resampled = SimpleITK.Resample(
        image, reference, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0, SimpleITK.sitkUInt8
    )
    return SimpleITK.GetArrayFromImage(resampled) > 0


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_the_left_lung_lies_on_the_patients_left(job: Job) -> None:
    [segmentation] = job.of(job.ct, "SEG")
    left, right = segments(segmentation.path, job.folder / "sides")
    centres = []
    for segment in (left, right):
        inside = np.argwhere(SimpleITK.GetArrayViewFromImage(segment.image) > 0).mean(axis=0)
        centres.append(segment.image.TransformContinuousIndexToPhysicalPoint(inside[::-1].tolist())[0])
    assert centres[0] > centres[1] + 50, "x grows to the patient's left (LPS)"


def test_other_readers_find_the_measured_values_in_the_ct_report(job: Job) -> None:
    [report] = job.of(job.ct, "SR", "ct-lung")
    [segmentation] = job.of(job.ct, "SEG")
    row = job.inferred("ct-lung")
    findings = load_findings(job.node.spool / "work" / row["series"] / row["item"] / row["model"])
    groups = tid1500(report.path, job.folder)["Measurements"]
    whole = [group for group in groups if "ReferencedSegment" in group]
    assert (len(whole), len(groups)) == (2, 4), "each segment has its values, and an outline"
    for group in whole:
        assert group["segmentationSOPInstanceUID"] == segmentation.header.SOPInstanceUID
        number = int(group["ReferencedSegment"])
        written = {float(item["value"]) for item in group["measurementItems"]}
        measured = [one.value for one in findings.measurements if one.segment == number]
        assert sorted(written) == pytest.approx(sorted(measured), rel=1e-4)
    assert "Left" in dsrdump_text(report.path)


def boxes(report: Path) -> list[tuple[str, NDArray[np.float64]]]:
    """The image regions of a report: the image, and column and row of each point."""
    lines = [item for item in below(pydicom.dcmread(report)) if item.ValueType == "SCOORD"]
    return [
        (
            str(line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID),
            np.array(line.GraphicData, float).reshape(-1, 2),
        )
        for line in lines
    ]


def test_the_nodule_that_a_third_party_has_marked_is_among_the_candidates(job: Job, shared_data: Path) -> None:
    [third_party] = sorted((shared_data / CT_FOLDER).glob("SR_*/*.dcm"))
    marked = {image: (points.min(axis=0), points.max(axis=0)) for image, points in boxes(third_party)}
    [report] = job.of(job.ct, "SR", "ct-nodule")
    candidates = [group for group in groups(report.path) if stated(group, "Score")]
    assert len(candidates) <= 5
    on_it = []
    for group in candidates:
        [ring] = regions(group)
        low, high = marked.get(str(image_of(group).ReferencedSOPInstanceUID), (np.inf, -np.inf))
        middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
        if (middle >= low).all() and (middle <= high).all():
            on_it.append(group)
    [found] = on_it
    assert 9 < float(stated(found, "Diameter")[0]) < 20


def test_other_readers_can_read_the_x_ray_reports(job: Job) -> None:
    reports = [one for one in job.results if one.header.Modality == "SR" and one.source is not job.ct]
    assert reports
    for report in reports:
        text = dsrdump_text(report.path)
        assert ("Pneumonia" in text) == (report.model == "cxr-pneumonia")


def test_every_slice_that_a_segmentation_names_is_in_the_archive(job: Job) -> None:
    for one in job.results:
        if one.header.Modality != "SEG":
            continue
        held = set(job.orthanc.sop_instances(one.source.header.Modality))
        frames = one.header.PerFrameFunctionalGroupsSequence
        named = {
            str(source.ReferencedSOPInstanceUID)
            for frame in frames
            for derivation in frame.DerivationImageSequence
            for source in derivation.SourceImageSequence
        }
        assert named
        assert named <= held
