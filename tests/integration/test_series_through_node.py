"""Series that are not simply even, axial and single-frame, through a real node: what comes back is where it belongs."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.uid import RLELossless, generate_uid

from service.handover import load_findings
from service.results.attributes import COPIED
from service.spool import Spool
from tests.archive import Archive
from tests.copies import MIDDLE, copy_series
from tests.enhanced import as_enhanced
from tests.integration.test_geometry_through import points_of_seg
from tests.running_node import SENDER, RunningNode, Section
from tests.small_models import EVERY_CT, volume_package
from tests.synthetic_ct import Scan, save, write_enhanced, write_scan
from tests.validators import dciodvfy_errors, dsrdump_text
from tests.waiting import eventually

NARROW, WHOLE = "NARROW", "WHOLE"
"""Senders whose model bridges 8 mm only, or takes no partial series."""


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        yield archive


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Iterator[RunningNode]:
    folder = tmp_path_factory.mktemp("node")
    models = folder / "models"
    patch = (24, 96, 96)
    volume_package(models, "any-ct", patch, "91", EVERY_CT)
    volume_package(models, "narrow-ct", patch, "92", EVERY_CT.replace("100.0", "8.0"))
    volume_package(models, "whole-ct", patch, "93", EVERY_CT.replace("true", "false"))
    senders = {"any-ct": SENDER, "narrow-ct": NARROW, "whole-ct": WHOLE}
    sections: dict[str, Section] = {
        "engines": {"folders": [str(models)], "models": list(senders)},
        "series": {"limit_seconds": 2.0},
        **{f"routing.{model}": {"senders": [sender]} for model, sender in senders.items()},
    }
    with RunningNode(folder, archive.destination, senders=[*senders.values()], sections=sections) as node:
        yield node


def series_uid(file: Path) -> str:
    return str(pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)


def send(node: RunningNode, files: Sequence[Path], calling: str = SENDER) -> str:
    """Send a series and wait until all work on it has ended; give its UID."""
    assert node.send(files, calling) == list(files)
    uid = series_uid(files[0])
    node.ended(uid)
    return uid


def results(node: RunningNode, archive: Archive, uid: str, kind: str) -> list[Dataset]:
    """The objects of a series in the archive, by the stack that they are about."""
    assert {job["state"] for job in node.jobs(uid)} == {"done"}
    rows = sorted(node.results(uid), key=lambda row: str(row["item"]))
    assert len({row["sop_instance_uid"] for row in rows}) == len(rows)
    found = [archive.objects[row["sop_instance_uid"]] for row in rows if row["kind"] == kind]
    return [pydicom.dcmread(io.BytesIO(content), force=True) for content in found]


def path_of(node: RunningNode, uid: str, kind: str) -> Path:
    [path] = [Path(row["path"]) for row in node.results(uid) if row["kind"] == kind]
    return path


def labels_of(node: RunningNode, uid: str) -> NDArray[np.uint8]:
    [job] = node.jobs(uid, "infer")
    found = load_findings(node.spool / "work" / job["series"] / job["item"] / job["model"])
    assert found.label_map is not None
    return found.label_map.array


def comments(report: Dataset) -> str:
    """What a report says in words."""
    return " ".join(item.TextValue for group in report.ContentSequence for item in group.get("ContentSequence") or []
                    if item.ValueType == "TEXT")  # fmt: skip


def frames_of(seg: Dataset) -> list[tuple[int, str, int | None, NDArray[np.float64]]]:
    """Segment, source image, its frame, and position of each frame of a SEG."""
    frames = []
    for groups in seg.PerFrameFunctionalGroupsSequence:
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        frames.append(
            (
                groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
                str(source.ReferencedSOPInstanceUID),
                source.get("ReferencedFrameNumber"),
                np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float),
            )
        )
    return frames


# ---- a head: tilted, with three spacings -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "dicom" / "ct_ge_tilt_variable_spacing").iterdir())


@pytest.fixture(scope="module")
def head_uid(node: RunningNode, head: list[Path]) -> str:
    return send(node, head)


def test_the_frames_of_a_tilted_uneven_series_lie_where_its_headers_say(
    node: RunningNode, archive: Archive, head: list[Path], head_uid: str
) -> None:
    headers = {str(one.SOPInstanceUID): one for one in (pydicom.dcmread(file) for file in head)}
    [seg] = results(node, archive, head_uid, "SEG")
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    seen = set()
    for _, source, frame, position in frames_of(seg):
        assert frame is None
        np.testing.assert_allclose(position, np.array(headers[source].ImagePositionPatient, float), atol=1e-4)
        np.testing.assert_allclose(orientation, headers[source].ImageOrientationPatient, atol=1e-6)
        seen.add(source)
    assert seen == set(headers), "there is tissue on each slice"
    of_the_source = dciodvfy_errors(head[0])  # its own patient attributes, which are copied unchanged
    for kind in ("SEG", "SR"):
        assert set(dciodvfy_errors(path_of(node, head_uid, kind))) <= set(of_the_source)


def test_a_volume_counts_each_uneven_slice_half_way_to_its_neighbours(
    node: RunningNode, archive: Archive, head: list[Path], head_uid: str
) -> None:
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in head]
    row, column = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    along = {
        str(one.SOPInstanceUID): float(np.cross(row, column) @ np.array(one.ImagePositionPatient, float))
        for one in headers
    }
    places = np.sort(list(along.values()))
    borders = np.concatenate([[1.5 * places[0] - 0.5 * places[1]], (places[1:] + places[:-1]) / 2,
                              [1.5 * places[-1] - 0.5 * places[-2]]])  # fmt: skip
    width = dict(zip(places.tolist(), np.diff(borders).tolist(), strict=True))
    assert max(width.values()) > 2 * min(width.values())
    [seg] = results(node, archive, head_uid, "SEG")
    seg.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    area = float(np.prod(np.array(headers[0].PixelSpacing, float)))
    truth: dict[int, float] = {}
    for (segment, source, _, _), pixels in zip(frames_of(seg), seg.pixel_array, strict=True):
        truth[segment] = truth.get(segment, 0.0) + float(pixels.sum()) * area * width[along[source]] / 1000
    [report] = results(node, archive, head_uid, "SR")
    assert sorted(volumes_in(report)) == pytest.approx(sorted(truth.values()), rel=1e-4)


def volumes_in(report: Dataset) -> list[float]:
    """All values in mL that a report states."""
    if report.get("ValueType") == "NUM":
        [value] = report.MeasuredValueSequence
        return [float(value.NumericValue)] if value.MeasurementUnitsCodeSequence[0].CodeValue == "mL" else []
    return [value for item in report.get("ContentSequence") or [] for value in volumes_in(item)]


def test_the_reader_of_a_tilted_uneven_series_is_told(node: RunningNode, head_uid: str) -> None:
    assert "not evenly spaced" in dsrdump_text(path_of(node, head_uid, "SR"))


# ---- Enhanced CT -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chest(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "dicom" / "ct_nlst101287_toshiba_jpegls_plus_sybil_sr").glob("CT_*/*"))


@pytest.fixture(scope="module")
def chest_labels(node: RunningNode, chest: list[Path]) -> NDArray[np.uint8]:
    return labels_of(node, send(node, chest))


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["code streams as they are", "RLE"])
def test_a_large_enhanced_ct_has_the_label_map_of_its_single_frame_series(
    node: RunningNode, archive: Archive, chest: list[Path], chest_labels: NDArray[np.uint8], syntax: str, tmp_path: Path
) -> None:
    order = np.random.default_rng(5).permutation(len(chest))
    file = as_enhanced([chest[index] for index in order], tmp_path / "enhanced.dcm", syntax)
    source = pydicom.dcmread(file, stop_before_pixels=True)
    uid = send(node, [file])
    np.testing.assert_array_equal(labels_of(node, uid), chest_labels)
    [seg] = results(node, archive, uid, "SEG")
    groups = source.PerFrameFunctionalGroupsSequence
    for _, instance, frame, position in frames_of(seg):
        assert instance == source.SOPInstanceUID
        assert frame is not None
        stated = groups[frame - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, np.array(stated, float), atol=1e-4)
    assert dciodvfy_errors(path_of(node, uid, "SEG")) == []
    assert dciodvfy_errors(path_of(node, uid, "SR")) == []


# ---- several stacks --------------------------------------------------------------------------------------------------


def two_scans() -> list[Scan]:
    """The same positions twice, with the lesion elsewhere."""
    places = tuple(2.0 * index for index in range(24))
    size = {"shape": (48, 40), "spacing": (2.0, 2.0), "radius": 12.0}
    return [
        Scan(places, attributes={"AcquisitionNumber": 1}, centre=(0.3, 0.3, 0.3), **size),  # type: ignore[arg-type]
        Scan(places, attributes={"AcquisitionNumber": 2}, centre=(0.6, 0.7, 0.7), **size),  # type: ignore[arg-type]
    ]


def assert_one_result_for_each_stack(
    node: RunningNode, archive: Archive, uid: str, scans: Sequence[Scan], folder: Path, told: Sequence[Sequence[str]]
) -> None:
    segs, reports = results(node, archive, uid, "SEG"), results(node, archive, uid, "SR")
    assert len(segs) == len(reports) == len(scans)
    for number, (scan, seg, report, words) in enumerate(zip(scans, segs, reports, told, strict=True), 1):
        path = folder / f"{number}.dcm"
        save(seg, path)
        np.testing.assert_allclose(points_of_seg(path).mean(axis=0), scan.lesion_points().mean(axis=0), atol=0.5)
        for word in (f"This is stack {number} of {len(scans)} in the series", *words):
            assert word in comments(report)
            assert word in seg.ImageComments


def test_two_acquisitions_at_the_same_positions_give_two_results_that_say_which_they_are(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    first, second = two_scans()
    uid, study = generate_uid(), generate_uid()
    files = write_scan(first, tmp_path / "ct", series=uid, study=study)
    files += write_scan(second, tmp_path / "ct", range(25, 49), series=uid, study=study)
    send(node, [files[index] for index in np.random.default_rng(3).permutation(len(files))])
    told = [
        ("InstanceNumber 1 to 24", "differ in acquisition number; this is the one with 1"),
        ("InstanceNumber 25 to 48", "differ in acquisition number; this is the one with 2"),
    ]
    assert_one_result_for_each_stack(node, archive, uid, [first, second], tmp_path, told)


def test_two_stacks_of_one_enhanced_ct_give_two_results_that_say_which_they_are(
    node: RunningNode, archive: Archive, tmp_path: Path
) -> None:
    scans = two_scans()
    file = write_enhanced(scans, tmp_path / "enhanced.dcm")
    told = [("frames 1 to 24", "the one with 1"), ("frames 25 to 48", "the one with 2")]
    assert_one_result_for_each_stack(node, archive, send(node, [file]), scans, tmp_path, told)


# ---- missing slices --------------------------------------------------------------------------------------------------


def with_a_gap(phantom_ct: Path, folder: Path) -> tuple[str, list[Path], list[Path]]:
    """Series UID, files without three in the middle, and those three."""
    series = copy_series(phantom_ct, folder, MIDDLE)
    return series.uid, [*series.files[:18], *series.files[21:]], list(series.files[18:21])


def test_three_missing_slices_are_bridged_with_a_note_by_a_model_that_may(
    node: RunningNode, archive: Archive, phantom_ct: Path, tmp_path: Path
) -> None:
    _, came, _ = with_a_gap(phantom_ct, tmp_path / "ct")
    uid = send(node, came)
    [report] = results(node, archive, uid, "SR")
    assert "3 slices are missing between the first and the last one" in comments(report)
    assert "The series may be incomplete" in comments(report)
    [seg] = results(node, archive, uid, "SEG")
    assert {source for _, source, _, _ in frames_of(seg)} <= {
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in came
    }, "nothing is made up between the slices that are there"


@pytest.mark.parametrize(
    ("sender", "model", "why"),
    [
        (NARROW, "narrow-ct", "3 slices are missing: slices"),
        (WHOLE, "whole-ct", "the series may be incomplete"),
    ],
)
def test_three_missing_slices_are_a_dead_letter_where_the_model_may_not_until_they_come(
    node: RunningNode, archive: Archive, phantom_ct: Path, tmp_path: Path, sender: str, model: str, why: str
) -> None:
    _, came, missing = with_a_gap(phantom_ct, tmp_path / "ct")
    uid = send(node, came, sender)
    [assemble] = node.jobs(uid, "assemble")
    assert assemble["state"] == "dead"
    assert f"{model}: {why}" in assemble["note"]
    assert "send" in assemble["note"]
    assert node.results(uid) == []
    node.send(missing, sender)
    eventually(lambda: len(node.results(uid)) == 2, "the whole series has results")
    node.ended(uid)
    [report] = results(node, archive, uid, "SR")
    assert "missing" not in comments(report)


# ---- character sets --------------------------------------------------------------------------------------------------


def written(file: Path, keywords: Sequence[str]) -> dict[str, RawDataElement]:
    """Attributes as they are written in a file."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    elements = {keyword: header.get_item(keyword) for keyword in keywords if keyword in header}
    return {keyword: one for keyword, one in elements.items() if one.VR != "SQ" and keyword != "StudyInstanceUID"}


def test_names_in_every_character_set_come_through_byte_for_byte(
    node: RunningNode, archive: Archive, shared_data: Path, tmp_path: Path
) -> None:
    scan = Scan(tuple(2.0 * index for index in range(8)), radius=7.0)
    sources = sorted((shared_data / "dicom" / "awkward_charset").glob("*.dcm"))
    expected: dict[str, dict[str, RawDataElement]] = {}
    files: list[Path] = []
    for source in sources:
        elements = written(source, ("SpecificCharacterSet", *COPIED))
        series = write_scan(scan, tmp_path / source.stem)
        expected[series_uid(series[0])] = elements
        for file in series:
            header = pydicom.dcmread(file)
            for keyword, element in elements.items():
                header[keyword] = element
            # or pydicom would encode them anew
            header.set_original_encoding(False, True, convert_encodings(header.SpecificCharacterSet))
            header.save_as(file)
        for keyword, element in written(series[0], list(elements)).items():
            assert element.value == elements[keyword].value, "it is sent as it is in the public file"
        files += series
    assert node.send(files) == files
    assert len(expected) == len(sources) >= 17
    for uid, elements in expected.items():
        node.ended(uid)
        for kind in ("SEG", "SR"):
            [result] = results(node, archive, uid, kind)
            for keyword, element in elements.items():
                assert result.get_item(keyword).value == element.value, keyword
            assert not [word for word in ("Not copied",) if kind == "SR" and word in comments(result)]


# ---- slabs -----------------------------------------------------------------------------------------------------------


def test_only_the_slabs_that_are_in_use_stay_and_none_when_a_series_is_forgotten(
    node: RunningNode, phantom_ct: Path, tmp_path: Path
) -> None:
    series = copy_series(phantom_ct, tmp_path / "ct", MIDDLE)
    send(node, series.files[:30])
    [job] = node.jobs(series.uid, "infer")
    work = node.spool / "work" / job["series"]
    [first] = slabs(work)
    node.send(series.files[30:])
    eventually(lambda: len(node.results(series.uid)) == 4, "the late slices have given further results")
    node.ended(series.uid)
    [second] = slabs(work)
    assert second != first
    assert slabs(work) == {json.loads(item.read_text())["array"]["file"].removeprefix("../")
                           for item in work.glob("*/item.json")}  # fmt: skip
    Spool(node.spool).forget(job["series"])
    assert not work.exists()


def slabs(work: Path) -> set[str]:
    return {slab.name for slab in work.glob("*.slab")}
