"""Findings become a Measurement Report, TID 1500, in a Comprehensive 3D SR (PS3.16 A, PS3.3 A.35.13)."""

from collections.abc import Sequence
from pathlib import Path

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import UID, ExplicitVRLittleEndian

from engines.types import Findings
from service import __version__
from service.results.analysis import Analysis
from service.results.files import keep
from service.results.groups import Group, measurement_groups
from service.results.predecessors import as_data_sets, supersedes
from service.results.source import Source
from service.results.stamp import (
    MANUFACTURER,
    RESEARCH,
    contributing_equipment,
    series_description,
    series_number,
    software_versions,
    stamp,
)
from service.results.uids import ResultUIDs
from service.types import ResultObject

SOURCE = PydicomCode("260753009", "SCT", "Source")
QUALITATIVE_EVALUATIONS = PydicomCode("C0034375", "UMLS", "Qualitative Evaluations")


def write_report(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """The report on all that was found (`service.results.kinds.Writer`)."""
    return [keep("SR", report(analysis, made), folder)]


def report(analysis: Analysis, made: Sequence[ResultObject]) -> sr.Comprehensive3DSR:
    """Encode measurements, segments and class probabilities.

    Parameters
    ----------
    made
        The other result objects of the same analysis.
    """
    findings, image, source, uids = analysis.findings, analysis.image, analysis.source, analysis.uids
    segmentations = [reference(entry, source.first.StudyInstanceUID) for entry in made if entry.kind == "SEG"]
    evidence = [*source.headers, *segmentations]
    groups = measurement_groups(findings, image, source, uids)
    result = sr.Comprehensive3DSR(
        evidence=evidence,
        content=_root(groups, findings, source, uids, remarks(analysis)),
        series_instance_uid=uids.series("SR"),
        series_number=series_number(findings, "SR"),
        sop_instance_uid=uids.instance("SR"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=findings.model.name,
        software_versions=software_versions(findings),
        device_serial_number=findings.model.digest[:64],
        series_description=series_description(analysis, "SR"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        previous_versions=as_data_sets(analysis.predecessors, source.first.StudyInstanceUID),
        contributing_equipment=[contributing_equipment(findings)],
        specific_character_set=None,
    )
    stamp(result, analysis)
    return result


def remarks(analysis: Analysis) -> tuple[str, ...]:
    """What a reader must know besides the numbers; the first is that the report is for research only."""
    findings, source = analysis.findings, analysis.source
    statements = [
        f"{RESEARCH}. {findings.model.intended_use}",
        *supersedes("report", analysis.predecessors),
        *findings.notes,
    ]
    if findings.label_map and not findings.label_map.present:
        statements.append(f"{findings.model.name} found nothing to segment.")
    if source.dropped:
        statements.append(f"Not copied from the source, because unreadable or invalid: {', '.join(source.dropped)}.")
    return tuple(statements)


def reference(entry: ResultObject, study_uid: str) -> Dataset:
    """What highdicom asks of an object that a document refers to."""
    data_set = Dataset()
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = UID(study_uid), UID(entry.series_uid)
    data_set.SOPClassUID, data_set.SOPInstanceUID = UID(entry.sop_class_uid), UID(entry.sop_instance_uid)
    return data_set


def _root(
    groups: Sequence[Group], findings: Findings, source: Source, uids: ResultUIDs, statements: Sequence[str]
) -> sr.ContainerContentItem:
    # CID 100 has a code for X-ray only since 2022; the general one is known to every validator
    is_ct = source.first.Modality == "CT"
    procedure = codes.cid100.CTUnspecifiedBodyRegion if is_ct else codes.cid100.ImagingProcedure
    root = sr.ContainerContentItem(name=codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = sr.ContentSequence()
    root.ContentSequence.extend(
        sr.LanguageOfContentItemAndDescendants(sr.CodedConcept("en-US", "RFC5646", "English (United States)"))
    )
    root.ContentSequence.extend(_observation_context(findings, uids))
    root.ContentSequence.append(
        sr.CodeContentItem(codes.DCM.ProcedureReported, procedure, sr.RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    root.ContentSequence.append(_image_library(source))
    measurements = _container(codes.DCM.ImagingMeasurements)
    for group in groups:
        measurements.ContentSequence.extend(group)
    evaluations = _container(QUALITATIVE_EVALUATIONS)
    for statement in statements:
        evaluations.ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, statement, sr.RelationshipTypeValues.CONTAINS)
        )
    root.ContentSequence.extend([measurements, evaluations])
    return root


def _container(name: PydicomCode) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name=name, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence()
    return container


def _observation_context(findings: Findings, uids: ResultUIDs) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uids.device(),
        name=f"{MANUFACTURER} {__version__}",
        manufacturer_name=MANUFACTURER,
        model_name=f"{findings.model.name} {findings.model.version}",
        serial_number=findings.model.digest,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _image_library(source: Source) -> sr.ContainerContentItem:
    """Which images were read, TID 1600; what they have in common is said once for all of them."""
    modality = {
        "CT": codes.cid29.ComputedTomography,
        "CR": codes.cid29.ComputedRadiography,
        "DX": codes.cid29.DigitalRadiography,
    }.get(source.first.Modality, codes.cid29.RadiographicImaging)
    group = _container(codes.DCM.ImageLibraryGroup)
    group.ContentSequence.append(
        sr.CodeContentItem(codes.DCM.Modality, modality, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT)
    )
    for header in source.headers:
        group.ContentSequence.append(
            sr.ImageContentItem(
                name=SOURCE,
                referenced_sop_class_uid=header.SOPClassUID,
                referenced_sop_instance_uid=header.SOPInstanceUID,
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
        )
    library = _container(codes.DCM.ImageLibrary)
    library.ContentSequence.append(group)
    return library
