"""What every result object says about its maker, and when it was made."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import highdicom as hd
from highdicom import sr
from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from engines.types import Findings
from service import __version__
from service.results.analysis import Analysis
from service.results.uids import IMPLEMENTATION_CLASS_UID, MANUFACTURER

RESEARCH = "Research use only"
DESCRIBED = {
    "SEG": "segmentation",
    "SR": "report",
    "SC": "overlay",
    "HEATMAP": "heat map",
    "HEATMAP-SEG": "heat map segmentation",
    "PDF": "PDF report",
    "RTSTRUCT": "contours",
    "GSPS": "outlines",
    "KO": "key images",
}
"""What the kinds of objects are called in their descriptions; their order is that of their series numbers."""
SERIES_NUMBERS = 20
"""Series numbers for each model."""


def software_versions(findings: Findings) -> list[str]:
    """Value of Software Versions: the node, the model, the engine (each LO, at most 64 characters)."""
    engine = findings.engine
    return [
        f"wetread {__version__}",
        entitled(findings, 64),
        f"{engine.runtime} {engine.precision} {engine.device}"[:64],
    ]


def entitled(findings: Findings, room: int) -> str:
    """Name and version of the model in so many characters: a long name is cut before the version is."""
    model = findings.model
    return f"{model.name[: max(room - 1 - len(model.version), 1)]} {model.version}"[:room].rstrip()


def purpose(findings: Findings) -> str:
    """What the model is for, in its own words, which begin by saying that it is for research."""
    words = findings.model.intended_use
    return words if words.lower().startswith(RESEARCH.lower()) else f"{RESEARCH}. {words}"


def contributing_equipment(findings: Findings) -> hd.ContributingEquipment:
    """The item of Contributing Equipment Sequence for node and model (PS3.3 C.12.1)."""
    return hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=findings.model.name,
        software_versions=software_versions(findings),
        contribution_description=purpose(findings)[:1024],
    )


def series_number(findings: Findings, kind: str) -> int:
    """A series number for each model and kind, above what a scanner gives."""
    return 9000 + SERIES_NUMBERS * int(findings.model.uid_root) + list(DESCRIBED).index(kind)


def series_description(analysis: Analysis, kind: str) -> str:
    """Series Description (LO, at most 64 characters) that says RESEARCH, then which version it is after the first.

    Viewers show the beginning only: OHIF some 22 characters.
    """
    which = f" v{analysis.version}" if analysis.version > 1 else ""
    room = 64 - len(f"RESEARCH{which}  {DESCRIBED[kind]}")
    return f"RESEARCH{which} {entitled(analysis.findings, room)} {DESCRIBED[kind]}"


def observer(analysis: Analysis) -> sr.ObserverContext:
    """Who observed: the model, and nobody else (TID 1002, 1004 of PS3.16)."""
    model = analysis.findings.model
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=analysis.uids.device(),
        name=f"{MANUFACTURER} {__version__}",
        manufacturer_name=MANUFACTURER,
        model_name=f"{model.name} {model.version}",
        serial_number=model.digest,
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def general_attributes(analysis: Analysis, kind: str, part: int = 1) -> dict[str, Any]:
    """What the constructors of highdicom ask of an object of any kind: its series, its instance, and who made it.

    Parameters
    ----------
    kind, part
        Which object it is of the analysis (`service.results.uids.ResultUIDs`).
    """
    findings, uids = analysis.findings, analysis.uids
    return {
        "series_instance_uid": uids.series(kind, part),
        "series_number": series_number(findings, kind),
        "series_description": series_description(analysis, kind),
        "sop_instance_uid": uids.instance(kind, part),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": findings.model.name,
        "device_serial_number": findings.model.digest[:64],
        "software_versions": software_versions(findings),
        "contributing_equipment": [contributing_equipment(findings)],
        "specific_character_set": None,  # that of the source, from `stamp`
    }


def new_object(analysis: Analysis, kind: str, sop_class_uid: str, modality: str, number: int = 1) -> Dataset:
    """Begin an object that highdicom has no class for: SOP common, general series and equipment (PS3.3 C.12.1, C.7).

    Patient, study, dates and file meta information come with `stamp`.

    Parameters
    ----------
    number
        Of the instance within its series.
    """
    findings, uids = analysis.findings, analysis.uids
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class_uid), UID(uids.instance(kind, number))
    dataset.StudyInstanceUID = UID(str(analysis.source.first.StudyInstanceUID))
    dataset.SeriesInstanceUID = UID(uids.series(kind))
    dataset.Modality = modality
    dataset.SeriesNumber, dataset.InstanceNumber = series_number(findings, kind), number
    dataset.SeriesDescription = series_description(analysis, kind)
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, findings.model.name
    dataset.DeviceSerialNumber = findings.model.digest[:64]
    dataset.SoftwareVersions = software_versions(findings)
    dataset.ContributingEquipmentSequence = [contributing_equipment(findings)]
    return dataset


def stamp(dataset: Dataset, analysis: Analysis) -> None:
    """Give an object its patient and study, and the moment of its making, in place.

    Every date and time becomes ``findings.analysed_at``, in the time zone that the source names, if it names one, so
    that a repeat gives the same bytes. An object without file meta information gets it, as Explicit VR Little Endian.
    """
    attributes = analysis.source.attributes
    moment = moment_of(analysis)
    for prefix in ("Content", "InstanceCreation", "Series"):
        setattr(dataset, f"{prefix}Date", DA(moment.date()))
        setattr(dataset, f"{prefix}Time", TM(moment.time()))
    for equipment in dataset.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(moment.replace(tzinfo=None))
    correct_ambiguous_vr(dataset, is_little_endian=True)
    dataset.update(attributes)
    # in the encoding of its attributes already, so that they are written as they are
    character_set = convert_encodings(dataset.get("SpecificCharacterSet", default_encoding))
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=character_set)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset.file_meta.ImplementationVersionName = f"WETREAD_{__version__}"[:16]


def moment_of(analysis: Analysis) -> datetime:
    """The start of the analysis, in the time zone that the source names, if it names one."""
    analysed_at = analysis.findings.analysed_at
    named = str(analysis.source.attributes.get("TimezoneOffsetFromUTC") or "").strip()
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", named)
    if offset is None or analysed_at.tzinfo is None:
        return analysed_at
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return analysed_at.astimezone(timezone(ahead if offset[1] == "+" else -ahead))
