"""``configs/metadata.json`` of a MONAI bundle: what goes in, what comes out, and what it says of itself."""

from collections.abc import Mapping
from typing import Any

from build_engines.importers.bundle_files import METADATA
from build_engines.importers.choices import Choices
from build_engines.importers.draft import Activation, Classification, Head, Remark, Segmentation
from build_engines.importers.monai_transforms import Completion
from engines.errors import ModelPackageError

Values = Mapping[str, Any]


def head_of(prediction: Values, done: Completion, choices: Choices) -> tuple[Head, tuple[Remark, ...]]:
    """Say what a bundle's output is, by its description and by what follows the network.

    Raises
    ------
    ModelPackageError
        The channels have no names, or it is a detection.
    """
    kind = " ".join(str(prediction.get(key, "")) for key in ("type", "format")).lower()
    if {"object", "dict", "box", "boxes", "detection"} & set(kind.split()):
        raise ModelPackageError(
            f"{METADATA}: the output is {kind!r}, as a detection's: such a network gives anchors, which the bundle's "
            "own code turns into boxes; export one that gives boxes and scores, and import it with 'wetread engines "
            "import onnx'"
        )
    names = prediction.get("channel_def")
    channels = prediction.get("num_channels")
    if isinstance(names, dict) and names:
        listed = [str(names[key]) for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else 0)]
    elif isinstance(channels, int) and channels > 0:
        listed = [f"class {number}" for number in range(channels)]
    else:
        raise ModelPackageError(f"{METADATA}: outputs.pred.channel_def does not name the channels; write it")
    activation: Activation = "sigmoid" if done.activation == "sigmoid" else "softmax" if _is_softmax(done) else "guess"
    remarks = (Remark("taken over", "labels", ", ".join(listed)),)
    of_the_image = "class" in kind or "probabilit" in kind or len(prediction.get("spatial_shape") or ()) in (0, 1)
    if of_the_image and "segmentation" not in kind:
        labels = choices.labels or tuple(listed)
        return Classification(labels, exclusive=activation != "sigmoid", activation=activation), remarks
    with_background = listed[0].strip().lower() in ("background", "bg") or (activation == "softmax")
    labels = choices.labels or tuple(listed[1:] if with_background else listed)
    overlapping = activation == "sigmoid" or not with_background
    return (
        Segmentation(
            labels,
            overlapping=overlapping,
            keep_largest=done.keep_largest,
            activation="sigmoid" if overlapping and activation == "guess" else activation,
            drops_background=overlapping and with_background,
        ),
        remarks,
    )


def _is_softmax(done: Completion) -> bool:
    return done.activation == "softmax" or (done.activation == "none" and done.arg_max)


def tensors_of(metadata: Values) -> tuple[Values, Values]:
    """Give the descriptions of the image and of the prediction."""
    formats = metadata.get("network_data_format")
    formats = formats if isinstance(formats, dict) else {}
    found = []
    for section in ("inputs", "outputs"):
        entries = formats.get(section)
        if not isinstance(entries, dict) or not entries:
            raise ModelPackageError(f"{METADATA}: network_data_format.{section} is missing; write it")
        if len(entries) > 1:
            raise ModelPackageError(
                f"{METADATA}: network_data_format.{section} has {', '.join(entries)}; only one of each is understood"
            )
        found.append(as_mapping(next(iter(entries.values())), METADATA))
    return found[0], found[1]


def require_modality(image: Values, volume: bool) -> None:
    """Refuse volumes of other modalities than CT."""
    modality = str(image.get("modality", "")).upper()
    if volume and modality not in ("CT", "", "N/A"):
        raise ModelPackageError(f"{METADATA}: inputs.image.modality is {modality}; Wetread takes volumes of CT only")


def card_of(metadata: Values) -> dict[str, str]:
    """Give what the bundle says of itself, by heading of ``CARD.md``."""
    told: dict[str, str] = {}
    if metadata.get("data_source"):
        told["Training data"] = str(metadata["data_source"])
    figures = metadata.get("eval_metrics")
    if isinstance(figures, dict) and figures:
        told["Figures"] = "As the source states them:\n\n" + "\n".join(
            f"- {name}: {value}" for name, value in figures.items()
        )
    for key, heading in (("description", "Description"), ("authors", "Authors"), ("copyright", "Copyright")):
        if metadata.get(key):
            told[heading] = str(metadata[key])
    references = metadata.get("references")
    if isinstance(references, list) and references:
        told["References"] = "\n".join(f"- {reference}" for reference in references)
    return told


def as_mapping(value: Any, name: str) -> Values:
    """Give a table of keys, or refuse what is none."""
    if not isinstance(value, dict):
        raise ModelPackageError(f"{name} holds no table of keys; it is no file of a MONAI bundle")
    return value
