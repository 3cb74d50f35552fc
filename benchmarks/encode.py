"""How fast a label map becomes a SEG on disk: 300 slices of 512 × 512 with 1, 10 and 100 segments.

Peers: highdicom and dcmqi's itkimage2segimage, in the same rounds. We and highdicom start from the same cleaned
source headers, dcmqi from source files of hardly a pixel and an uncompressed NRRD; ours is synced to disk, as in the
node. Every run is a fresh process that has encoded a small label map before. CPU seconds are those of all its
threads: other work on the machine disturbs them less. Memory is what the process grows by at most, for dcmqi all that
it has. Segments are compact: ellipsoids beside each other that cut into each other, some 70 slices each. Our frames
are compared with those of the peers: same segments, same places, same pixels. The self-check reads the file again and
compares every voxel; no peer does.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset

from benchmarks.memory import Growth
from benchmarks.report import Row, row, tell
from engines.types import Code, EngineIdentity, Findings, LabelMap, ModelIdentity, Segment, Volume
from service.results.analysis import Analysis
from service.results.coding import coded
from service.results.profile import ResultProfile, SegmentationForm
from service.results.self_check import self_check
from service.results.writers.segmentation import write_segmentations
from service.types import ResultObject

SHAPE = (300, 512, 512)
SMALL = (3, 16, 16)
SEGMENTS = (1, 10, 100)
FORMS: dict[str, SegmentationForm] = {"BINARY": "binary", "LABELMAP JPEG-LS": "labelmap-jpeg-ls"}
WETREAD, HIGHDICOM, DCMQI = "wetread", "highdicom", "dcmqi"


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench encode", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=FORMS, help="one form instead of all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for form in [options.only] if options.only else FORMS:
            for count in SEGMENTS:
                measure(form, count, Path(name), options.rounds, rows, ratios)
    tell("encode", options.rounds, rows, ratios, options.json)


def measure(form: str, count: int, folder: Path, rounds: int, rows: list[Row], ratios: dict[str, float]) -> None:
    """Seconds, memory and size of each subject, in turn."""
    case = f"{form}, {count} segment{'s' * (count > 1)}"
    labels = folder / f"{count}.npy"
    if not labels.exists():
        write_inputs(folder, count, organs(count, SHAPE))
    # dcmqi compresses label maps by deflate only, and those cannot be told here from what highdicom writes
    subjects = [WETREAD, HIGHDICOM, *([DCMQI] if form == "BINARY" else [])]
    measured: dict[str, list[Cost]] = defaultdict(list)
    size: dict[str, float] = {}
    content: dict[str, str] = {}
    processes = multiprocessing.get_context("spawn")
    for number in range(rounds):
        for subject in subjects:
            with ProcessPoolExecutor(1, processes) as pool:
                took = pool.submit(run, subject, form, count, folder).result()
            for name, cost in took.items():
                measured[name].append(cost)
            [file] = (folder / subject).glob("*.dcm")
            size[subject] = file.stat().st_size / 1e6
            if number == 0:
                content[subject] = digest(file)
            file.unlink()
    for name, costs in measured.items():
        rows.append(row(case, name, [cost.seconds for cost in costs], "s"))
        rows.append(row(case, f"{name}: CPU", [cost.cpu_seconds for cost in costs], "s"))
        rows.append(row(case, f"{name}: memory", [cost.memory for cost in costs], "MB"))
    rows += [row(case, f"{name}: file", [value], "MB") for name, value in size.items()]
    for peer in subjects[1:]:
        for what, of in {"": "seconds", ", CPU": "cpu_seconds"}.items():
            theirs, own = (statistics.median(getattr(cost, of) for cost in measured[who]) for who in (peer, WETREAD))
            ratios[f"{case}: {WETREAD}/{peer}{what}"] = round(theirs / own, 2)
        if content[peer] != content[WETREAD]:
            raise SystemExit(f"{case}: {peer} has written other frames; nothing can be compared")


# ---- inputs ----------------------------------------------------------------------------------------------------------


def organs(count: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Ellipsoids on a lattice that is out of order, the later ones on top of the earlier."""
    rng = np.random.default_rng(7)
    axes = [np.linspace(low, high, places) for low, high, places in ((0.16, 0.84, 4), (0.2, 0.8, 5), (0.14, 0.86, 5))]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = (rng.permutation(lattice)[:count] + rng.uniform(-0.05, 0.05, (count, 3))) * shape
    labels = np.zeros(shape, np.uint8)
    for number, centre in enumerate(centres, start=1):
        radii = rng.uniform((28, 10, 10), (42, 32, 32)) * np.array(shape) / SHAPE
        low, high = np.maximum(centre - radii, 0).astype(int), np.minimum(centre + radii + 2, shape).astype(int)
        box = tuple(map(slice, low, high))
        places = np.ogrid[box]
        distance = sum(((place - c) / r) ** 2 for place, c, r in zip(places, centre, radii, strict=True))
        labels[box][distance < 1] = number
    return labels


def segments(count: int) -> tuple[Segment, ...]:
    category, kind = Code("123037004", "SCT", "Anatomical Structure"), Code("39607008", "SCT", "Lung")
    rng = np.random.default_rng(3)
    colours = rng.integers(60, 250, (count, 3)).tolist()
    return tuple(
        Segment(number, f"Organ {number}", category, kind, tuple(colour))
        for number, colour in enumerate(colours, start=1)
    )


def headers(shape: tuple[int, int, int]) -> list[Dataset]:
    """Of a CT series."""
    slices = []
    for index in range(shape[0]):
        header = Dataset()
        header.SOPClassUID, header.Modality = uid.CTImageStorage, "CT"
        header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
        header.SOPInstanceUID, header.FrameOfReferenceUID = f"1.2.826.0.1.3680043.2.1.{index + 1}", "1.2.3.4.6"
        header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = "P1", "A^B", "", "O"
        header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20260101", "1200", "1", "1"
        header.ReferringPhysicianName, header.SeriesNumber, header.InstanceNumber = "", 1, index + 1
        header.Rows, header.Columns, header.PixelSpacing, header.SliceThickness = *shape[1:], [0.75, 0.75], 1.25
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-190, -185, 1.25 * index]
        slices.append(header)
    return slices


def write_inputs(folder: Path, count: int, labels: NDArray[np.uint8]) -> None:
    """The label map, and what dcmqi wants to have."""
    np.save(folder / f"{count}.npy", labels)
    image = sitk.GetImageFromArray(labels)
    image.SetOrigin((-190, -185, 0))
    image.SetSpacing((0.75, 0.75, 1.25))
    sitk.WriteImage(image, folder / f"{count}.nrrd", useCompression=False)
    described = [
        {
            "labelID": segment.number,
            "SegmentLabel": segment.label,
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "organs",
            "SegmentedPropertyCategoryCodeSequence": as_json(segment.category),
            "SegmentedPropertyTypeCodeSequence": as_json(segment.type),
            "recommendedDisplayRGBValue": list(segment.colour),
        }
        for segment in segments(count)
    ]
    meta = {
        "ContentCreatorName": "Reader1",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": [described],
    }
    (folder / f"{count}.json").write_text(json.dumps(meta))
    sources = folder / "sources"
    if not sources.exists():
        sources.mkdir()
        for index, header in enumerate(headers(SHAPE)):
            header.BitsAllocated, header.PixelData = 16, bytes(2)  # it takes no image without
            header["PixelData"].VR = "OW"
            header.file_meta = FileMetaDataset()
            header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            header.save_as(sources / f"{index:04}.dcm", enforce_file_format=True)


def as_json(code: Code) -> dict[str, str]:
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning}


def analysis_of(labels: NDArray[np.uint8], count: int, form: str) -> Analysis:
    slices = headers(labels.shape)
    affine = np.diag([1.25, 0.75, 0.75, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = -190, -185, 0
    # a SEG depends on no value of the image, and this one takes no memory
    values = np.broadcast_to(np.int16(0), labels.shape)
    volume = Volume(values, affine, tuple(header.SOPInstanceUID for header in slices))
    findings = Findings(
        ModelIdentity("organs", "1.0", "ab" * 32, "1", "Apache-2.0", "Research use only: a benchmark."),
        EngineIdentity("none", "none", "CPU"),
        datetime(2026, 3, 4),
        label_map=LabelMap(labels, segments(count)),
    )
    return Analysis(findings, volume, slices, ResultProfile(objects=("SEG",), segmentation=FORMS[form]))


# ---- subjects, each in a process of its own --------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """``memory`` in MB."""

    seconds: float
    cpu_seconds: float
    memory: float


def run(subject: str, form: str, count: int, folder: Path) -> dict[str, Cost]:
    """What a subject does and what it costs, by name."""
    target = folder / subject
    target.mkdir(exist_ok=True)
    if subject == DCMQI:
        began = time.perf_counter()
        dcmqi(folder, count, target / "seg.dcm")
        seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return {DCMQI: Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)}
    encode = {WETREAD: wetread, HIGHDICOM: highdicom}[subject]
    with tempfile.TemporaryDirectory() as warm:  # modules are imported when they are first needed
        small = analysis_of(np.ones(SMALL, np.uint8), count, form)
        encode(small, Path(warm))
        if subject == WETREAD:
            self_check(write_segmentations(small, Path(warm), ()), small)
    analysis = analysis_of(np.load(folder / f"{count}.npy"), count, form)
    before = cost(lambda: (analysis.source, analysis.label_maps))
    if subject == HIGHDICOM:
        return {HIGHDICOM: cost(lambda: highdicom(analysis, target))}
    objects: list[ResultObject] = []
    return {
        WETREAD: cost(lambda: objects.extend(write_segmentations(analysis, target, ()))),
        "wetread: cleaning the headers before": before,
        "wetread: self-check": cost(lambda: self_check(objects, analysis)),
    }


def wetread(analysis: Analysis, folder: Path) -> None:
    write_segmentations(analysis, folder, ())


def highdicom(analysis: Analysis, folder: Path) -> None:
    [label_map] = analysis.label_maps
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label,
            segmented_property_category=coded(segment.category),
            segmented_property_type=coded(segment.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="organs", family=pydicom.sr.codedict.codes.cid7162.ArtificialIntelligence, version="1.0"
            ),
        )
        for number, segment in enumerate(label_map.present, start=1)
    ]
    numbers = np.zeros(256, np.uint8)
    numbers[[segment.number for segment in label_map.present]] = range(1, len(descriptions) + 1)
    compressed = analysis.profile.segmentation != "binary"
    hd.seg.Segmentation(
        source_images=analysis.source.headers,
        pixel_array=numbers[label_map.array] if not np.array_equal(numbers, range(256)) else label_map.array,
        segmentation_type="LABELMAP" if compressed else "BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="highdicom",
        manufacturer_model_name="organs",
        software_versions="1.0",
        device_serial_number="1",
        transfer_syntax_uid=uid.JPEGLSLossless if compressed else uid.ExplicitVRLittleEndian,
    ).save_as(folder / "seg.dcm")


def dcmqi(folder: Path, count: int, file: Path) -> None:
    command = [
        Path(sys.executable).with_name("itkimage2segimage"),
        *("--inputImageList", folder / f"{count}.nrrd"),
        *("--inputDICOMDirectory", folder / "sources"),
        *("--inputMetadata", folder / f"{count}.json"),
        *("--outputDICOM", file),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cost(work: Callable[[], object]) -> Cost:
    """What work costs this process; memory is by how much it grows at most."""
    growth, began, cpu_began = Growth.begin(), time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Cost(seconds, cpu_seconds, growth.peak)


# ---- what is in a SEG ------------------------------------------------------------------------------------------------


def digest(file: Path) -> str:
    """Of all frames in the order of segments and source images: what they are of, and their pixels."""
    dataset = pydicom.dcmread(file)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    places = []
    for group in dataset.PerFrameFunctionalGroupsSequence:
        [image] = group.DerivationImageSequence[0].SourceImageSequence
        of = group if "SegmentIdentificationSequence" in group else shared
        segment = (of.get("SegmentIdentificationSequence") or [Dataset()])[0].get("ReferencedSegmentNumber")
        position = [float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient]
        places.append((segment or 0, str(image.ReferencedSOPInstanceUID), position))
    found = hashlib.sha256()
    for index, place in sorted(enumerate(places), key=lambda one: one[1][:2]):
        found.update(json.dumps(place).encode())
        found.update(pixels(dataset, index))
    return found.hexdigest()


def pixels(dataset: Dataset, index: int) -> bytes:
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frame: NDArray[np.uint8] = pydicom.pixels.pixel_array(dataset, index=index)
        return frame.tobytes()
    size = dataset.Rows * dataset.Columns // 8  # whole bytes
    return bytes(dataset.PixelData[index * size : (index + 1) * size])


if __name__ == "__main__":
    main()
