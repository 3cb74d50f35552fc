"""Result objects on disk: written whole or not at all, named by what they are and nothing of the patient."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from pydicom import Dataset

from service.durable import replace_file
from service.types import ResultObject


def keep(kind: str, dataset: Dataset, folder: Path, write: Callable[[IO[bytes]], object] | None = None) -> ResultObject:
    """Write a result object into a folder, as ``KIND-UID.dcm``.

    Parameters
    ----------
    kind
        See `service.results.profile.Kind`.
    dataset
        The object, with file meta information.
    write
        Writes the whole file, where the data set alone is not all of it.
    """
    path = folder / f"{kind}-{dataset.SOPInstanceUID}.dcm"
    replace_file(path, write or (lambda file: dataset.save_as(file, enforce_file_format=True)))
    named = tuple(
        str(document.ReferencedSOPInstanceUID)
        for study in dataset.get("PredecessorDocumentsSequence") or []
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    )
    uids = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    return ResultObject(kind, *uids, path, str(dataset.SeriesInstanceUID), named)
