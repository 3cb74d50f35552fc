"""Does this SR say what was found, about the images it was found in?"""

from collections.abc import Iterable, Iterator, Sequence

from pydicom import Dataset

from service import __version__
from service.results.analysis import Analysis
from service.results.checks.mismatch import only, require
from service.results.checks.report_evaluations import check_evaluations
from service.results.checks.report_groups import check_groups, concept
from service.results.predecessors import Predecessor
from service.results.remarks import input_statistics, remarks
from service.results.source import Source
from service.results.uids import MANUFACTURER
from service.types import ResultObject

MEASUREMENT_GROUP, COMMENT, SOURCE_SERIES = "125007", "121106", "121232"
PROCEDURE_REPORTED = "121058"
QUALITATIVE_EVALUATIONS = "C0034375"
OBSERVER = {"121008", *(str(code) for code in range(121012, 121018))}
"""Who observed, a person or a device, with what is said of it (TID 1003, 1004)."""
STATE = {"CompletionFlag": "COMPLETE", "PreliminaryFlag": "PRELIMINARY", "VerificationFlag": "UNVERIFIED"}
"""All that can be said of it has been said, by nobody who answers for it (PS3.3 C.17.2)."""


def check_report(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded TID 1500 report with findings and source (`service.results.kinds.Check`)."""
    dataset = only(datasets, "SR")
    for keyword, value in STATE.items():
        _require(dataset.get(keyword) == value, f"{keyword} is not {value}")
    _require(dataset.get("ValueType") == "CONTAINER", "the root is not a container")
    template = (dataset.get("ContentTemplateSequence") or [Dataset()])[0].get("TemplateIdentifier")
    _require(template == "1500", "the root template is not TID 1500")
    items = list(_items(dataset))
    procedures = [item.ConceptCodeSequence[0].CodeMeaning for item in items if concept(item) == PROCEDURE_REPORTED]
    _require(len(procedures) == 1 and bool(procedures[0]), "it does not say which procedure it reports")
    _check_observer(items, analysis)
    _check_references(dataset, items, analysis.source, made)
    _check_predecessors(dataset, analysis.source, analysis.predecessors)
    comments = [item.TextValue for item in items if concept(item) == COMMENT]
    _require(
        comments == [*remarks(analysis), *input_statistics(analysis.findings)],
        "the remarks (research use, earlier reports, input quality and statistics) are not the expected ones",
    )
    evaluations = [item for item in dataset.ContentSequence if concept(item) == QUALITATIVE_EVALUATIONS]
    check_evaluations([child for item in evaluations for child in item.ContentSequence], analysis)
    check_groups([item for item in items if concept(item) == MEASUREMENT_GROUP], analysis, made)


def _require(holds: bool, difference: str) -> None:
    require(holds, "SR", difference)


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from _items(child)


def _check_observer(items: Sequence[Dataset], analysis: Analysis) -> None:
    """The model made the observations, and nobody else (TID 1004)."""
    model = analysis.findings.model
    expected = {
        "121012": analysis.uids.device(),
        "121013": f"{MANUFACTURER} {__version__}",
        "121014": MANUFACTURER,
        "121015": f"{model.name} {model.version}",
        "121016": model.digest,
    }
    found = {
        concept(item): item.get("UID") or item.get("TextValue")
        for item in items
        if item.get("RelationshipType") == "HAS OBS CONTEXT" and concept(item) in OBSERVER
    }
    _require(found == expected, "the observer is not the model")


def _check_references(dataset: Dataset, items: Sequence[Dataset], source: Source, made: Sequence[ResultObject]) -> None:
    """It refers to source images and to every other result, which are its evidence, all in their study and series."""
    series_uid = str(source.first.SeriesInstanceUID)
    known = {(series_uid, str(header.SOPClassUID), str(header.SOPInstanceUID)) for header in source.headers}
    known |= {(entry.series_uid, entry.sop_class_uid, entry.sop_instance_uid) for entry in made}
    referenced = {
        (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID)
        for item in items
        for reference in item.get("ReferencedSOPSequence") or []
    }
    _require(referenced <= {entry[1:] for entry in known}, "it refers to an object that does not exist")
    results = {(entry.sop_class_uid, entry.sop_instance_uid) for entry in made}
    _require(results <= referenced, "it does not refer to all other results")
    _require(bool(referenced - results), "it refers to no source image")
    for item in items:
        if item.ValueType == "UIDREF" and concept(item) == SOURCE_SERIES:
            _require(series_uid == item.UID, "it refers to another source series")
    evidence = []
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        _require(study.StudyInstanceUID == source.first.StudyInstanceUID, "its evidence is of another study")
        evidence += [
            (series.SeriesInstanceUID, instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID)
            for series in study.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ]
    _require(sorted(evidence) == sorted(known), "its evidence is not the source images and the other results")


def _check_predecessors(dataset: Dataset, source: Source, predecessors: Sequence[Predecessor]) -> None:
    named = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, document.ReferencedSOPClassUID, uid)
        for study in dataset.get("PredecessorDocumentsSequence") or []
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
        for uid in [document.ReferencedSOPInstanceUID]
    ]
    study_uid = source.first.StudyInstanceUID
    expected = [
        (study_uid, earlier.series_uid, earlier.sop_class_uid, earlier.sop_instance_uid) for earlier in predecessors
    ]
    _require(sorted(named) == sorted(expected), "it names other predecessors than the reports that it supersedes")
    _require(dataset.SOPInstanceUID not in {uid for *_, uid in named}, "it names itself as its predecessor")
