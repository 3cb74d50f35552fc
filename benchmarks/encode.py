"""How fast a label map becomes a SEG on disk: 300 slices of 512 × 512 with 1, 10 and 100 segments.

Peers: highdicom (from the same cleaned headers) and dcmqi's itkimage2segimage (from an uncompressed NRRD and source
files of hardly a pixel), in the same rounds. Segments are compact: ellipsoids that cut into each other, some 70
slices each. Every run is a fresh process that has encoded a small label map before; its memory is what it grows by at
most, for dcmqi all that its process has. Ours reads the source headers, too, and is synced to disk, as in the node.
Its frames are compared with those of the peers: same segments, same places, same pixels. The self-check reads the
file again and compares every voxel; no peer does.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset

from benchmarks.report import Row, row, tell
from engines.types import Code, EngineIdentity, Findings, LabelMap, ModelIdentity, Segment, Volume
from service.results.analysis import Analysis
from service.results.profile import ResultProfile, SegmentationForm
from service.results.segmentation import coded, write_segmentations
from service.results.self_check import self_check

SHAPE = (300, 512, 512)
SMALL = (3, 16, 16)
SEGMENTS = (1, 10, 100)
FORMS: dict[str, SegmentationForm] = {"BINARY": "binary", "LABELMAP JPEG-LS": "labelmap-jpeg-ls"}
WETREAD, HIGHDICOM, DCMQI = "wetread", "highdicom", "dcmqi"
SELF_CHECK = "wetread: self-check"


def main() -> None:
    parser = argparse.ArgumentParser(prog="wetread bench encode", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for form in FORMS:
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
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    size: dict[str, float] = {}
    content: dict[str, str] = {}
    processes = multiprocessing.get_context("spawn")
    for number in range(rounds):
        for subject in subjects:
            with ProcessPoolExecutor(1, processes) as pool:
                took = pool.submit(run, subject, form, count, folder).result()
            for name, (value, grown) in took.items():
                seconds[name].append(value)
                memory[name].append(grown)
            [file] = (folder / subject).glob("*.dcm")
            size[subject] = file.stat().st_size / 1e6
            if number == 0:
                content[subject] = digest(file)
            file.unlink()
    for name, values in seconds.items():
        rows.append(row(case, name, values, "s"))
        rows.append(row(case, f"{name}: memory", memory[name], "MB"))
    rows += [row(case, f"{name}: file", [value], "MB") for name, value in size.items()]
    middle = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    for peer in subjects[1:]:
        ratios[f"{case}: {peer}/{WETREAD}"] = round(middle[peer] / middle[WETREAD], 2)
        ratios[f"{case}: equal content, {peer}"] = float(content[peer] == content[WETREAD])


# ---- inputs ----------------------------------------------------------------------------------------------------------


def organs(count: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Ellipsoids, the later ones on top of the earlier."""
    rng = np.random.default_rng(7)
    labels = np.zeros(shape, np.uint8)
    for number in range(1, count + 1):
        centre = rng.uniform((0.12, 0.2, 0.15), (0.88, 0.8, 0.85)) * shape
        radii = rng.uniform((25, 20, 20), (45, 60, 60)) * np.array(shape) / SHAPE
        low = np.maximum(centre - radii, 0).astype(int)
        box = tuple(slice(start, int(end) + 2) for start, end in zip(low, centre + radii, strict=True))
        places = np.ogrid[tuple(slice(part.start, min(part.stop, size)) for part, size in zip(box, shape, strict=True))]
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


def run(subject: str, form: str, count: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds and MB of what a subject does, by name."""
    target = folder / subject
    target.mkdir(exist_ok=True)
    if subject == DCMQI:
        seconds = timed(lambda: dcmqi(folder, count, target / "seg.dcm"))
        return {DCMQI: (seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)}
    encode = {WETREAD: wetread, HIGHDICOM: highdicom}[subject]
    with tempfile.TemporaryDirectory() as warm:  # modules are imported when they are first needed
        small = analysis_of(organs(count, SMALL), count, form)
        encode(small, Path(warm))
        if subject == WETREAD:
            self_check(write_segmentations(small, Path(warm), ()), small)
    analysis = analysis_of(np.load(folder / f"{count}.npy"), count, form)
    if subject == HIGHDICOM:
        _ = analysis.source, analysis.label_maps
        return {HIGHDICOM: grown(lambda: highdicom(analysis, target))}
    objects: list = []
    took = {WETREAD: grown(lambda: objects.extend(write_segmentations(analysis, target, ())))}
    return {**took, SELF_CHECK: grown(lambda: self_check(objects, analysis))}


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


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def grown(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and by how many MB this process grows at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    seconds = timed(work)
    return seconds, resident("VmHWM") - before


def resident(what: str) -> float:
    """Memory of this process in MB, from ``/proc/self/status``."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) / 1000


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
