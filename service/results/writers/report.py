"""Findings become a Measurement Report, TID 1500 (PS3.16 A), in the SR that the archive knows (PS3.3 A.35)."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian

from service.results.analysis import Analysis
from service.results.files import keep
from service.results.profile import ReportForm
from service.results.references import result_reference
from service.results.remarks import input_statistics, remarks
from service.results.source import Source
from service.results.stamp import general_attributes, observer, stamp
from service.results.writers.report_evaluations import evaluations
from service.results.writers.report_groups import measurement_groups
from service.types import ResultObject

SOURCE = PydicomCode("260753009", "SCT", "Source")
QUALITATIVE_EVALUATIONS = PydicomCode("C0034375", "UMLS", "Qualitative Evaluations")
ILLUSTRATION = PydicomCode("121200", "DCM", "Illustration of ROI")

FORMS: Mapping[ReportForm, type[sr.EnhancedSR | sr.ComprehensiveSR | sr.Comprehensive3DSR]] = {
    "comprehensive-3d": sr.Comprehensive3DSR,
    "comprehensive": sr.ComprehensiveSR,
    "enhanced": sr.EnhancedSR,
}
"""They hold the same content: its coordinates are all of images, none of the patient."""
SUPPORTING: Mapping[str, tuple[PydicomCode, type[sr.ImageContentItem | sr.CompositeContentItem]]] = {
    "SC": (ILLUSTRATION, sr.ImageContentItem),
    "HEATMAP": (ILLUSTRATION, sr.ImageContentItem),
    "HEATMAP-SEG": (PydicomCode("SEG", "DCM", "Segmentation"), sr.ImageContentItem),
    "PDF": (PydicomCode("DOC", "DCM", "Document"), sr.CompositeContentItem),
    "RTSTRUCT": (PydicomCode("RTSTRUCT", "DCM", "RT Structure Set"), sr.CompositeContentItem),
    "GSPS": (PydicomCode("PR", "DCM", "Presentation State"), sr.CompositeContentItem),
    "KO": (PydicomCode("KO", "DCM", "Key Object Selection"), sr.CompositeContentItem),
}
"""What the report calls the objects beside it, and how it refers to them; groups refer to the SEG themselves."""


def write_report(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """The report on all that was found (`service.results.kinds.Writer`)."""
    return [keep("SR", report(analysis, made), folder)]


def report(
    analysis: Analysis, made: Sequence[ResultObject]
) -> sr.EnhancedSR | sr.ComprehensiveSR | sr.Comprehensive3DSR:
    """Encode measurements, segments and class probabilities.

    Every source image is evidence (PS3.3 C.17.2.3: all that was made for the procedure), so that the image library need
    not list them.

    Parameters
    ----------
    made
        The other result objects of the same analysis; the report refers to each (IHE AIR).
    """
    source = analysis.source
    root = sr.ContainerContentItem(name=codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = sr.ContentSequence()
    result = FORMS[analysis.profile.report](
        evidence=[*source.headers, *(result_reference(entry, source) for entry in made)],
        content=root,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        previous_versions=[result_reference(entry, source) for entry in analysis.predecessors] or None,
        **general_attributes(analysis, "SR"),
    )
    # set afterwards: highdicom copies all that it is given, and searches it twice
    result.ContentSequence = _content(analysis, made)
    stamp(result, analysis)
    return result


def _content(analysis: Analysis, made: Sequence[ResultObject]) -> sr.ContentSequence:
    """All below the root."""
    # CID 100 has a code for X-ray only since 2022; the general one is known to every validator
    is_ct = analysis.source.first.Modality == "CT"
    procedure = codes.cid100.CTUnspecifiedBodyRegion if is_ct else codes.cid100.ImagingProcedure
    measurements = _container(codes.DCM.ImagingMeasurements)
    for group in measurement_groups(analysis, made):
        measurements.ContentSequence.extend(group)
    qualitative = _container(QUALITATIVE_EVALUATIONS)
    qualitative.ContentSequence.extend(evaluations(analysis))
    for statement in (*remarks(analysis), *input_statistics(analysis.findings)):
        qualitative.ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, statement, sr.RelationshipTypeValues.CONTAINS)
        )
    language = sr.CodedConcept("en-US", "RFC5646", "English (United States)")
    content = sr.ContentSequence(sr.LanguageOfContentItemAndDescendants(language))
    content.extend(sr.ObservationContext(observer_device_context=observer(analysis)))
    content.append(
        sr.CodeContentItem(codes.DCM.ProcedureReported, procedure, sr.RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    content.extend([_image_library(analysis.source, images_of(measurements)), measurements, qualitative])
    if supporting := [entry for entry in made if entry.kind in SUPPORTING]:
        content.append(_supporting_information(supporting))
    return content


def _supporting_information(made: Sequence[ResultObject]) -> sr.ContainerContentItem:
    """The objects that show the same findings in other ways; TID 1500 is extensible, and has no place for them."""
    container = _container(codes.DCM.SupportingInformation)
    for entry in made:
        name, item = SUPPORTING[entry.kind]
        container.ContentSequence.append(
            item(
                name,
                entry.sop_class_uid,
                entry.sop_instance_uid,
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
        )
    return container


def images_of(item: Dataset) -> frozenset[str]:
    """The SOP instances that a content item and those below it refer to."""
    children = item.get("ContentSequence") or []
    own = {reference.ReferencedSOPInstanceUID for reference in item.get("ReferencedSOPSequence") or []}
    return frozenset(own.union(*map(images_of, children)))


def _container(name: PydicomCode) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name=name, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence()
    return container


def _image_library(source: Source, pointed_at: Collection[str]) -> sr.ContainerContentItem:
    """The images that coordinates lie on, TID 1600; what they have in common is said once for all of them."""
    modality = {
        "CT": codes.cid29.ComputedTomography,
        "CR": codes.cid29.ComputedRadiography,
        "DX": codes.cid29.DigitalRadiography,
    }.get(source.first.Modality, codes.cid29.RadiographicImaging)
    group = _container(codes.DCM.ImageLibraryGroup)
    group.ContentSequence.append(
        sr.CodeContentItem(codes.DCM.Modality, modality, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT)
    )
    for header in (entry for entry in source.headers if entry.SOPInstanceUID in pointed_at):
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
