"""Findings become files: SEG and SR, written whole or not at all, and checked after they were written."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from engines.types import Findings, Image
from service.durable import replace_file
from service.errors import Quarantined
from service.results.predecessors import Predecessor
from service.results.report import report
from service.results.segmentation import segmentation
from service.results.self_check import self_check
from service.results.source import read_source
from service.results.uids import ResultUIDs
from service.types import ResultObject


def encode(
    findings: Findings,
    image: Image,
    headers: Sequence[Dataset],
    folder: Path,
    revision: str = "",
    predecessors: Sequence[Predecessor] = (),
) -> tuple[ResultObject, ...]:
    """Encode the findings of one model about one series.

    Parameters
    ----------
    findings
        Label map and measurements on the image's grid, or classes.
    image
        What was analysed.
    headers
        The source data sets without pixel data, one per slice in the volume's order; one for an X-ray and for a
        multi-frame image.
    folder
        Where the files go, each named ``KIND-UID.dcm`` by its own SOP Instance UID. The same findings give the same
        files, byte for byte.
    revision
        Which corrections of the source images this rests on, empty where there were none.
    predecessors
        The reports that the new one supersedes.

    Returns
    -------
    tuple[ResultObject, ...]
        The SEG, where any segment has a voxel, and the SR.

    Raises
    ------
    Quarantined
        The source lacks what a result must refer to, or what was written is not what was found.
    """
    source = read_source(headers, image)
    uids = ResultUIDs.about(findings, image, source.first.SeriesInstanceUID, revision)
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    segments: Dataset | None = None
    try:
        if findings.label_map and findings.label_map.present:
            segments = segmentation(findings, findings.label_map, image, source, uids, predecessors)
            objects.append(_write("SEG", segments, folder))
        document = report(findings, image, source, uids, segments, predecessors)
        objects.append(_write("SR", document, folder, predecessors))
    except (ValueError, TypeError, AttributeError) as error:
        # not the error's own text: it can quote a patient's attributes
        raise Quarantined(
            f"the result of {findings.model.name} cannot be encoded ({type(error).__name__}); its traceback says where"
        ) from error
    self_check(objects, findings, image, headers, revision, predecessors)
    return tuple(objects)


def _write(kind: str, dataset: Dataset, folder: Path, predecessors: Sequence[Predecessor] = ()) -> ResultObject:
    path = folder / f"{kind}-{dataset.SOPInstanceUID}.dcm"
    replace_file(path, lambda file: dataset.save_as(file, enforce_file_format=True))
    named = tuple(earlier.sop_instance_uid for earlier in predecessors)
    uids = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    return ResultObject(kind, *uids, path, str(dataset.SeriesInstanceUID), named)
