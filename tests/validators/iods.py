"""dicom-validator with the standard as the package dicom-standard has it, so that nothing is fetched.

dicom-validator expects the standard as DocBook, which it would download. dicom-standard holds the tables of PS3.3 as
JSON (edition of 2020). Here they are put into the form that dicom-validator reads: for each SOP class its modules and
functional group macros, for each module its attributes, and the conditions, parsed from their text by dicom-validator.
"""

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from dicom_validator.spec_reader.condition_parser import ConditionParser
from dicom_validator.spec_reader.serializer import DefinitionEncoder
from dicom_validator.validator.dicom_file_validator import DicomFileValidator
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.error_handler import NullValidationResultHandler, ValidationResultFormatter
from dicom_validator.validator.validation_result import Status
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag

SEGMENTATION, LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SR_CONTENT, RELATIONSHIP_TYPE, VALUE_TYPE, CONTENT = "sr-document-content", "(0040,A010)", "(0040,A040)", "(0040,A730)"
FUNCTIONAL_GROUPS = ("(5200,9229)", "(5200,9230)")

Row = Mapping[str, Any]
Attributes = dict[str, dict[str, Any]]


def iod_errors(path: Path) -> list[str]:
    """What ``validate_iods`` finds wrong with the modules and attributes of an object, one line each."""
    info = dicom_info()
    [result] = DicomFileValidator(info, error_handler=NullValidationResultHandler()).validate(path).values()
    if result.status not in (Status.Passed, Status.Failed):
        return [f"not validated: {result.status.name}"]
    text = ValidationResultFormatter(info.dictionary)
    return [
        f"{module}: {' / '.join(keyword_for_tag(each) or str(each) for each in (*(tag.parents or ()), tag.tag))}"
        f"{text.error_message(error)}"
        for module, errors in result.module_errors.items()
        for tag, error in errors.items()
    ]


@cache
def dicom_info() -> DicomInfo:
    """The standard as dicom-validator wants it."""
    dictionary = {
        _tag(tag): {"name": name, "vm": vm, "vr": vr, "prop": "RET" if retired else ""}
        for tag, (vr, vm, name, retired, _) in DicomDictionary.items()
        if name
    }
    conditions = ConditionParser(dictionary)
    modules = _attributes(_table("module_to_attributes"), "moduleId", dictionary, conditions)
    macros = _attributes(_table("macro_to_attributes"), "macroId", dictionary, conditions)
    modules |= {f"macro:{name}": macro for name, macro in macros.items()}
    _relax_content_items(modules)
    for module in modules.values():
        for tag in FUNCTIONAL_GROUPS:
            if tag in module:
                module[tag]["items"] = {"include": [{"ref": "FuncGroup"}]}
    iods = _iods(modules, conditions)
    info = json.loads(json.dumps([dictionary, iods, modules], cls=DefinitionEncoder))
    return DicomInfo(*info)


def _table(name: str) -> list[dict[str, Any]]:
    package = distribution("dicom-standard")
    [file] = [file for file in package.files or () if file.name == f"{name}.json"]
    rows: list[dict[str, Any]] = json.loads(Path(str(package.locate_file(file))).read_text())
    return rows


def _tag(number: int) -> str:
    return f"({number >> 16:04X},{number & 0xFFFF:04X})"


def _plain(text: str | None) -> str:
    """The text of an HTML fragment, spaced as in the printed standard."""
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text or ""))).strip()
    return words.replace(" )", ")").replace(" ,", ",")


def _attributes(
    rows: Iterable[Row], owner: str, dictionary: Mapping[str, Row], conditions: ConditionParser
) -> dict[str, Attributes]:
    """The attributes of each module or macro, nested as in sequences."""
    tables: dict[str, Attributes] = defaultdict(dict)
    for row in rows:
        if row["type"] in (None, "None") or re.search("xx|gggg", row["path"], re.IGNORECASE):
            continue
        *parents, last = (f"({step[:4]},{step[4:]})".upper() for step in row["path"].split(":")[1:])
        place = tables[row[owner]]
        for tag in parents:
            sequence = place.setdefault(tag, {"name": _name(tag, dictionary), "type": "3"})
            place = sequence.setdefault("items", {})
        attribute = place.setdefault(last, {})
        attribute |= {"name": _name(last, dictionary), "type": row["type"]}
        if row["type"] in ("1C", "2C"):
            condition = conditions.parse(_plain(row["description"]))
            if condition.type.name != "UserDefined":
                attribute["cond"] = condition
    return tables


def _name(tag: str, dictionary: Mapping[str, Row]) -> str:
    return str(dictionary[tag]["name"]) if tag in dictionary else tag


def _relax_content_items(modules: dict[str, Attributes]) -> None:
    """Content items hold what their value type asks for; dicom-standard has lost which attribute is for which."""

    def relax(attributes: Attributes) -> None:
        for tag, attribute in attributes.items():
            if tag != VALUE_TYPE:
                attribute["type"] = "3"
                attribute.pop("cond", None)
            relax(attribute.get("items", {}))

    relax(modules[SR_CONTENT])
    modules[SR_CONTENT][CONTENT]["items"] = {
        "include": [{"ref": SR_CONTENT}],
        RELATIONSHIP_TYPE: {"name": "Relationship Type", "type": "1"},
    }


def _iods(modules: dict[str, Attributes], conditions: ConditionParser) -> dict[str, dict[str, Any]]:
    """Modules and functional group macros of each SOP class."""
    by_name: dict[str, dict[str, Any]] = defaultdict(lambda: {"modules": {}, "group_macros": {}})
    for tables, key, part, prefix in (
        ("modules", "moduleId", "modules", ""),
        ("macros", "macroId", "group_macros", "macro:"),
    ):
        names = {row["id"]: row["name"] for row in _table(tables)}
        links = "ciod_to_modules" if part == "modules" else "ciod_to_fg_macros"
        for row in _table(links):
            entry = _usage(row, prefix + row[key], conditions)
            modules.setdefault(entry["ref"], {})
            by_name[row["ciodId"]][part][names.get(row[key], row[key])] = entry
    ids = {row["name"]: row["id"] for row in _table("ciods")}
    iods = {
        row["id"]: {"title": f"{row['ciod']} IOD", **by_name[ids[row["ciod"]]]}
        for row in _table("sops")
        if ids.get(row["ciod"]) in by_name
    }
    # newer than the tables (2024); the modules are those of a SEG, but it says which segment in its pixels
    macros = {name: macro for name, macro in iods[SEGMENTATION]["group_macros"].items() if name != "Segmentation"}
    iods[LABEL_MAP_SEGMENTATION] = {**iods[SEGMENTATION], "title": "Label Map Segmentation IOD", "group_macros": macros}
    return iods


def _usage(row: Row, reference: str, conditions: ConditionParser) -> dict[str, Any]:
    condition = _plain(row["conditionalStatement"])
    use = f"{row['usage']} - {condition}" if condition else str(row["usage"])
    parsed = {"cond": conditions.parse(use)} if len(use) > 1 else {}
    return {"ref": reference, "use": use, **parsed}
