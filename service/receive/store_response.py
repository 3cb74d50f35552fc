"""The Store Instances Response Module (PS3.18 Annex I): which instances of a STOW-RS request are kept, and why not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
STUDY_DIFFERS = 0xA901  # of the range "data set does not match"
CANNOT_UNDERSTAND = 0xC000
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure reasons (PS3.18 Table I.2-2), beside those of C-STORE (PS3.4 B.2.3)."""

_KEYWORDS = {
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081196": "WarningReason",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
}
_Dataset = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What became of one instance.

    Attributes
    ----------
    status
        As of C-STORE (PS3.4 B.2.3), or a failure reason.
    sop_class_uid, sop_instance_uid
        Empty where it could not be read what it is.
    """

    status: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    @property
    def warned(self) -> bool:
        """Whether it is kept, and the sender should know something about it."""
        return self.status >> 12 == 0xB

    @property
    def kept(self) -> bool:
        """Whether it is stored."""
        return self.status == SUCCESS or self.warned

    @property
    def named(self) -> bool:
        """Whether it is known which instance it is."""
        return bool(self.sop_class_uid and self.sop_instance_uid)


@dataclass
class StoreResponse:
    """The answer to one request, which grows with each instance."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many instances are kept."""
        return sum(outcome.kept for outcome in self.outcomes)

    @property
    def http_status(self) -> int:
        """Of the whole request (PS3.18 Table 10.5.3-1).

        200 where all are kept, 202 where some are or there are warnings, 503 where the node has no room, 409 where it
        takes none of them, and 400 where there was none.
        """
        statuses = {outcome.status for outcome in self.outcomes}
        if self.kept:
            return 200 if statuses == {SUCCESS} else 202
        return 503 if statuses == {OUT_OF_RESOURCES} else 409 if statuses else 400

    def encode(self, accept: str) -> tuple[bytes, str]:
        """The body and its media type: application/dicom+json (PS3.18 F); +xml (PS3.19 A) where only that will do."""
        if "application/dicom+xml" in accept and "json" not in accept:
            return ElementTree.tostring(
                _native(self._dataset()), "utf-8", xml_declaration=True
            ), "application/dicom+xml"
        return json.dumps(self._dataset()).encode(), "application/dicom+json"

    def _dataset(self) -> _Dataset:
        kept = [_item(one, "00081196" if one.warned else "") for one in self.outcomes if one.kept]
        failed = [_item(one, "00081197") for one in self.outcomes if not one.kept and one.named]
        other = [_item(one, "00081197") for one in self.outcomes if not one.kept and not one.named]
        sequences = {"00081198": failed, "00081199": kept, "0008119A": other}
        filled = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
        return {"00081190": {"vr": "UR"}} | filled  # nothing can be retrieved here, so the URL is empty


def _item(outcome: Outcome, reason: str) -> _Dataset:
    item: _Dataset = {}
    if outcome.named:
        item["00081150"] = {"vr": "UI", "Value": [outcome.sop_class_uid]}
        item["00081155"] = {"vr": "UI", "Value": [outcome.sop_instance_uid]}
    if outcome.kept:
        item["00081190"] = {"vr": "UR"}
    if reason:
        item[reason] = {"vr": "US", "Value": [outcome.status]}
    return item


def _native(dataset: Mapping[str, Mapping[str, Any]]) -> ElementTree.Element:
    """The Native DICOM Model (PS3.19 A.1) of what is in the JSON Model."""
    root = ElementTree.Element("NativeDicomModel", {"xmlns": "http://dicom.nema.org/PS3.19/models/NativeDICOM"})
    _fill(root, dataset)
    return root


def _fill(parent: ElementTree.Element, dataset: Mapping[str, Mapping[str, Any]]) -> None:
    for tag, element in dataset.items():
        named = {"tag": tag, "vr": element["vr"], "keyword": _KEYWORDS[tag]}
        attribute = ElementTree.SubElement(parent, "DicomAttribute", named)
        values: Sequence[Any] = element.get("Value", ())
        for number, value in enumerate(values, 1):
            if isinstance(value, dict):
                _fill(ElementTree.SubElement(attribute, "Item", {"number": str(number)}), value)
            else:
                ElementTree.SubElement(attribute, "Value", {"number": str(number)}).text = str(value)
