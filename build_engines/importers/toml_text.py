"""``model.toml`` as a person would write it: tables in order, a comment where something is to be known."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from build_engines.importers.draft import MEASURED, TENSOR, Classification, Detection, Draft, Segmentation, concepts
from build_engines.terminology.labels import Concept
from engines.types import Code

LIMITS = {"max_probability_error": 0.02, "min_dice": 0.995, "max_place_error": 0.5}

COMMENTS = {
    "uid_root": "a number that no other model has; part of derived UIDs",
    "axes": "where the tensor's axes point to",
    "spacing_mm": "of the network's grid, along those axes",
    "window": "values are clipped to it",
    "range": "what the window is mapped to",
    "standardise": "with the mean and deviation of each image itself",
    "patch": "of the sliding window, along the tensor's axes",
    "overlap": "least part of a patch that its neighbour sees too",
    "flips": "test-time augmentation: each axis doubles the time",
    "size": "rows and columns of the tensor",
    "percentiles": "of the image, mapped to 0..1",
    "keep_largest": "of each segment, only the largest connected component",
    "overlapping": "each channel is a sigmoid: a voxel may belong to several segments",
    "exclusive": "the probabilities sum to 1",
    "order": "axes: coordinates in the order of the tensor's axes; reversed: x first",
    "least_score": "what has less is dropped",
}


def model_toml(draft: Draft, uid_root: str) -> str:
    """Write the description of a package; `engines.packages.description` reads it."""
    lines = [
        f"# Imported from {_line(draft.source)}. Every key: docs/model-package.md.",
        *_remarks(draft),
        "",
        "[identity]",
        *_pairs(
            {
                "name": draft.name,
                "version": draft.version,
                "uid_root": uid_root,
                "licence": _line(draft.licence),
                "intended_use": _line(draft.intended_use),
            }
        ),
    ]
    if tuple(draft.networks) != ("model.onnx",):
        lines += ["", "[network]", "# an ensemble: the answers are averaged", *_pairs({"files": list(draft.networks)})]
    lines += ["", "[input]", *_pairs({"tensor": TENSOR, **draft.input})]
    coded = concepts(draft)
    for head in draft.heads:
        lines += ["", *_head(head, coded[type(head).__name__.lower()], draft.is_volume)]
    if draft.training:
        lines += ["", "[training.ranges]     # in the images that it was trained on; others are noted in the results"]
        lines += [
            f"{name} = {{ least = {_value(least)}, largest = {_value(largest)} }}"
            for name, (least, largest) in draft.training.items()
        ]
    lines += ["", "[verify]     # how far an engine may be from golden.npz before it is not served", *_limits(draft)]
    return "\n".join(lines) + "\n"


def _remarks(draft: Draft) -> list[str]:
    told = [remark for remark in draft.remarks if remark.kind in ("assumed", "left out", "to check")]
    return [f"# {remark.kind}: {remark.what}: {_line(remark.text)}" for remark in told]


def _head(head: Segmentation | Classification | Detection, coded: Sequence[Concept], volume: bool) -> list[str]:
    match head:
        case Segmentation():
            table, entries = {"tensor": head.outputs[0].name}, "segments"
            flags = {"overlapping": head.overlapping, "keep_largest": head.keep_largest}
            lines = ["[segmentation]", *_pairs({**table, **{name: flag for name, flag in flags.items() if flag}})]
        case Classification():
            entries = "classes"
            lines = ["[classification]", *_pairs({"tensor": head.outputs[0].name, "exclusive": head.exclusive})]
        case Detection():
            entries = "classes"
            keys = {"places": "places", "scores": "scores", "format": head.format, "order": head.order}
            lines = ["[detection]", *_pairs({**keys, "least_score": head.least_score})]
    name = type(head).__name__.lower()
    for concept in coded:
        lines += ["", f"[[{name}.{entries}]]", f"label = {_value(concept.label)}"]
        lines += _segment(concept, volume) if entries == "segments" else [_code("code", concept.type, concept.known)]
    return lines


def _segment(concept: Concept, volume: bool) -> list[str]:
    lines = [_code("category", concept.category), _code("type", concept.type, concept.known)]
    if concept.laterality is not None:
        lines.append(_code("laterality", concept.laterality))
    lines.append(f"colour = {_value(list(concept.colour))}")
    lines.append(f"measurements = {_value(list(MEASURED) if volume else [])}")
    return lines


def _code(key: str, code: Code, known: bool = True) -> str:
    entry = f"value = {_value(code.value)}, scheme = {_value(code.scheme)}, meaning = {_value(code.meaning)}"
    return f"{key} = {{ {entry} }}" + ("" if known else "     # TODO: no code is known for this label")


def _limits(draft: Draft) -> list[str]:
    kinds = {type(head) for head in draft.heads}
    keys = ["max_probability_error"]
    keys += ["min_dice"] if Segmentation in kinds else []
    keys += ["max_place_error"] if Detection in kinds else []
    return _pairs({key: LIMITS[key] for key in keys})


def _pairs(values: Mapping[str, Any]) -> list[str]:
    lines = [(key, f"{key} = {_value(value)}") for key, value in values.items()]
    return [f"{line:<34}# {COMMENTS[key]}" if key in COMMENTS else line for key, line in lines]


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's strings are TOML's, but for this one character
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case int():
            return str(value)
        case float():
            return repr(round(value, 6))
        case _:
            return f"[{', '.join(_value(each) for each in value)}]"


def _line(text: str) -> str:
    """What a stranger wrote, as a package may hold it (`engines.packages.selection.Text`)."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:1024]
