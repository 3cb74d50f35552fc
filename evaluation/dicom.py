"""A folder of DICOM becomes cases: its series, assembled as the node does it, with the SEGs and SRs about them.

Nobody has to write code or a list. A SEG is the reference of a segmentation; a report (TID 1500) that of a detection
by what it draws, and of a classification by what it finds.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage
from engines.types import Image
from evaluation.cases import Case, Lesion
from evaluation.collection import Choice, Collection, age_band, spread
from evaluation.dicom_headers import Folder, Reference, Series, Watch, counted, read_headers
from evaluation.dicom_image import assemble_or_say, largest
from evaluation.dicom_lesions import lesions_in_volume, lesions_in_xray, looked_for
from evaluation.dicom_report import Finding, read_findings
from evaluation.dicom_segmentation import Masks, OtherSegments, read_masks, says
from evaluation.errors import DataError
from evaluation.judgement import CaseResult
from service.series.assembly import Assembly
from service.spool import key_of

SHOWN_KEY = 8
"""Digits of a key that name a case: a hash of UIDs, nothing of a patient."""


def read_folder(folder: Path, package: ModelPackage, choice: Choice, watch: Watch) -> Collection:
    """Read the headers of a folder of DICOM; images and masks are read when they are wanted.

    Raises
    ------
    DataError
        It holds no DICOM, no images of the model's kind, or nothing says what they show.
    """
    found = read_headers(folder, watch)
    volumes = isinstance(package.input, VolumeInput)
    meant = [series for series in found.series if series.volume == volumes]
    what = "CT series" if volumes else "X-ray"
    if not meant:
        raise DataError(f"{folder} holds no {what}, which {package.name} takes; name another folder or model")
    reader = _Reader(found, package, lru_cache(maxsize=1)(assemble_or_say))
    cases: list[Case] = []
    unusable: list[CaseResult] = []
    left_out: Counter[str] = Counter()
    for number, series in enumerate(meant):
        watch("reading references", number, len(meant))
        try:
            of_series = list(reader.cases(series))
        except DataError as error:
            unusable.append(CaseResult(_name(series.uid), _groups(series), problem=str(error)))
        else:
            cases += of_series
            left_out["no SEG or SR of this folder says what they show"] += not of_series
    if not cases and not unusable:
        needs = "SEG" if package.description.tasks == ("segmentation",) else "SEG or SR (TID 1500)"
        raise DataError(f"{folder} holds no {needs} about its {what} that {package.name} could be judged by; add it")
    left_out[f"not a {what}"] += len(found.series) - len(meant)
    notes = [*counted(+left_out)]
    if found.unread:
        notes.append(f"{found.unread} DICOM files were left out: their headers cannot be read.")
    if automatic := sum(map(_automatic, found.segmentations)):
        notes.append(
            f"{automatic} of the SEGs were made by an algorithm without a human (SegmentAlgorithmType AUTOMATIC): "
            "with them, figures say how far two algorithms agree, not how good one is."
        )
    words = f"DICOM of {folder.resolve().name}, {len(cases)} {what}{'s' if not volumes and len(cases) != 1 else ''}"
    return Collection(words, spread(cases, choice.limit), unusable=tuple(unusable), notes=tuple(notes))


@dataclass(frozen=True)
class _Reader:
    folder: Folder
    package: ModelPackage
    assemble: Callable[[Sequence[Path]], Assembly]

    def cases(self, series: Series) -> Iterator[Case]:
        """The case of a CT series, or those of the X-rays in a series; none where nothing refers to it."""
        if series.volume:
            yield from self._case(series, tuple(sorted(series.files.values())), series.uid, frozenset(series.files))
            return
        for instance, file in series.files.items():
            yield from self._case(series, (file,), instance, frozenset((instance,)))

    def _case(self, series: Series, files: tuple[Path, ...], name: str, instances: frozenset[str]) -> Iterator[Case]:
        tasks = self.package.description.tasks
        segmentations = self._about(self.folder.segmentations, series, instances) if "segmentation" in tasks else []
        findings = self._findings(series, instances) if {"detection", "classification"} & set(tasks) else None
        lesions = self._lesions(findings, series, name) if "detection" in tasks and findings is not None else None
        label = self._label(findings) if "classification" in tasks and findings else None
        if not segmentations and lesions is None and label is None:
            return
        wanted = tuple(uid for each in segmentations for uid in each.instances)
        image = partial(self._image, files, wanted)
        patient = str(series.first.get("PatientID") or "")
        yield Case(
            name=_name(name),
            patient=key_of(patient or series.study),
            image=image,
            label=label,
            masks=partial(self._masks, segmentations, image) if segmentations else None,
            lesions=lesions,
            groups=_groups(series),
        )

    def _about(self, references: Sequence[Reference], series: Series, instances: frozenset[str]) -> list[Reference]:
        found = [each for each in references if each.is_about(series, self.folder.series)]
        if series.volume:
            return found
        return [each for each in found if not each.instances or each.instances & instances]

    def _image(self, files: tuple[Path, ...], wanted: Sequence[str]) -> Image:
        return largest(self.assemble(files).items, wanted).image

    def _masks(self, references: Sequence[Reference], image: Callable[[], Image]) -> Mapping[str, NDArray[np.bool_]]:
        shown, masks, problems = image(), Masks(), list[OtherSegments]()
        for reference in references:
            try:
                for label, mask in read_masks(reference.file, shown, self.package.segments).items():
                    masks[label] = masks[label] | mask if label in masks else mask
            except OtherSegments as error:  # another SEG may be about the model's
                problems.append(error)
        if not masks:
            raise problems[0]
        return masks

    def _findings(self, series: Series, instances: frozenset[str]) -> tuple[Finding, ...] | None:
        """What the newest report about these images says; None where there is none."""
        for report in sorted(self.folder.reports, key=lambda each: each.made, reverse=True):
            if series.uid not in report.series and report.series:
                continue
            findings = read_findings(report.file)
            if findings is None:
                continue
            placed = {region.instance for each in findings for region in each.regions}
            elsewhere = placed and not placed & instances
            spaces = {place.frame_of_reference for each in findings for place in each.places}
            if not elsewhere and (not spaces or spaces & {"", series.frame_of_reference} or placed):
                return findings
        return None

    def _lesions(self, findings: Sequence[Finding], series: Series, name: str) -> tuple[Lesion, ...] | None:
        section = self.package.description.detection
        codes = [entry.code.code for entry in section.classes] if section else []
        wanted = looked_for(findings, codes)
        if findings and not wanted:
            return None  # it is about something else
        return lesions_in_volume(wanted, series) if series.volume else lesions_in_xray(wanted, name)

    def _label(self, findings: Sequence[Finding]) -> str | None:
        section = self.package.description.classification
        labels = {
            entry.label
            for entry in (section.classes if section else ())
            for each in findings
            if each.code is not None and says(each.code, entry.code.code)
        }
        if len(labels) > 1:
            raise DataError(f"a report finds {' and '.join(sorted(labels))} in one image; leave one in it")
        return next(iter(labels), None)


def _name(uid: str) -> str:
    return key_of(uid)[:SHOWN_KEY]


def _groups(series: Series) -> dict[str, str]:
    """Subgroups of which headers tell; ages in bands."""
    header = series.first
    found = {
        "sex": str(header.get("PatientSex") or ""),
        "age": age_band(str(header.get("PatientAge") or "")),
        "view": str(header.get("ViewPosition") or ""),
        "manufacturer": str(header.get("Manufacturer") or ""),
    }
    return {name: value for name, value in found.items() if value}


def _automatic(reference: Reference) -> bool:
    segments = reference.header.get("SegmentSequence") or []
    return any(item.get("SegmentAlgorithmType") == "AUTOMATIC" for item in segments)
