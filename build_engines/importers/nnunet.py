"""nnU-Net v2: the folder of a trained configuration, as ``nnUNetv2_train`` leaves it.

``plans.json`` and ``dataset.json`` with one folder ``fold_N`` for each network (Isensee et al., nnU-Net, Nature Methods
2021; https://github.com/MIC-DKFZ/nnUNet). nnU-Net itself is not needed, only the library that its networks are made
with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from build_engines.importers.choices import Choices, terms_remark
from build_engines.importers.draft import UNCLIPPED, Draft, Remark, Segmentation
from build_engines.importers.mistakes import told_as
from build_engines.importers.package_writer import slug
from engines.errors import ModelPackageError

Values = Mapping[str, Any]

READ_AXES = {"SimpleITKIO": "HPL", "SimpleITKIOWithReorient": "HAR", "NibabelIO": "HPL", "NibabelIOWithReorient": "HAR"}
"""Where the axes of what nnU-Net's readers give point to, for an axial CT as scanners make it.

nnU-Net turns nothing: SimpleITK gives slices, rows, columns as they are stored. Only the readers that reorient to RAS
say where the axes point to.
"""

OVERLAP = 0.5
"""nnU-Net's default step is half a patch."""


def read_nnunet(
    source: Path, choices: Choices, configuration: str | None = None, checkpoint: str = "checkpoint_final.pth"
) -> Draft:
    """Read a trained configuration.

    Parameters
    ----------
    source
        Such as ``nnUNet_results/Dataset003_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres``.
    configuration
        Of ``plans.json``; that of the checkpoint, or of the folder's name, if None.

    Raises
    ------
    ModelPackageError
        A file is missing, the configuration is a cascade's or 2D, or it is not for CT.
    """
    plans, dataset = _read(source / "plans.json"), _read(source / "dataset.json")
    with told_as("plans.json or dataset.json"):
        return _draft(source, plans, dataset, choices, configuration or source.name.rpartition("__")[2], checkpoint)


def _draft(source: Path, plans: Values, dataset: Values, choices: Choices, name: str, checkpoint: str) -> Draft:
    from build_engines.importers.nnunet_network import export_folds

    plan = resolve_configuration(plans, name)
    _require_supported(plan, dataset, name)
    labels, overlapping = _labels(dataset)
    chosen, remarks = _input(plans, plan, dataset, choices)
    seen = _training(source / "dataset_fingerprint.json")
    folds = sorted(path.parent for path in source.glob(f"fold_*/{checkpoint}"))
    if not folds:
        raise ModelPackageError(f"{source} has no fold_*/{checkpoint}; name the file with --checkpoint")
    # the one that was trained on everything is not one of the folds
    folds = [fold for fold in folds if fold.name != "fold_all"] or folds
    channels = len(labels) + (0 if overlapping else 1)
    trained = export_folds(
        [fold / checkpoint for fold in folds], plan, (1, 1, *chosen["patch"]), channels, trust=choices.trust
    )
    if trained.mirrored:
        chosen["flips"] = list(trained.mirrored)
        runs = 2 ** len(trained.mirrored) * len(folds)
        remarks.append(
            Remark(
                "to check",
                "flips",
                f"nnU-Net mirrors by default: {runs} runs a window; without the line in model.toml, {len(folds)}",
            )
        )
    names = ["model.onnx"] if len(folds) == 1 else [f"{fold.name}.onnx" for fold in folds]
    if len(folds) > 1:
        remarks.append(
            Remark("taken over", "folds", f"{len(folds)}, whose probabilities are averaged (nnU-Net averages logits)")
        )
    dataset_name = str(plans.get("dataset_name") or dataset.get("name") or source.parent.name)
    licence = choices.licensed(_text(dataset, "licence") or _text(dataset, "license"))
    return Draft(
        name=choices.name or slug(f"{dataset_name}-{name}"),
        version=choices.version or _text(dataset, "release") or "0.1.0",
        licence=licence,
        intended_use=choices.intended(_text(dataset, "description")),
        source=f"the nnU-Net v2 training {dataset_name}, {name}, {trained.trainer}, {len(folds)} fold(s)",
        networks=dict(zip(names, trained.networks, strict=True)),
        input=chosen,
        heads=(
            Segmentation(
                choices.labels or labels,
                overlapping=overlapping,
                activation="sigmoid" if overlapping else "softmax",
            ),
        ),
        training=seen,
        remarks=(*remarks, *trained.remarks, *terms_remark(licence)),
        card=_card(dataset),
    )


def resolve_configuration(plans: Values, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Give a configuration of ``plans.json`` with what it inherits.

    Raises
    ------
    ModelPackageError
        There is none of that name, or they inherit in a circle.
    """
    known = plans.get("configurations")
    known = known if isinstance(known, dict) else {}
    if name not in known:
        raise ModelPackageError(
            f"plans.json has no configuration {name!r}; name one of {', '.join(known) or '(none)'} with --configuration"
        )
    if name in seen:
        raise ModelPackageError(f"plans.json: the configuration {name} inherits from itself; correct it")
    own = dict(known[name])
    parent = own.pop("inherits_from", None)
    return {**resolve_configuration(plans, str(parent), (*seen, name)), **own} if parent else own


def _require_supported(plan: Values, dataset: Values, name: str) -> None:
    if plan.get("previous_stage"):
        raise ModelPackageError(
            f"{name} is the second stage of a cascade, which needs the first one's segmentation as a further input; "
            "import 3d_fullres or 3d_lowres"
        )
    if len(plan.get("patch_size", ())) != 3:
        raise ModelPackageError(
            f"{name} is a 2D configuration, which sees a volume slice by slice; Wetread has 3D networks for volumes: "
            "import 3d_fullres or 3d_lowres"
        )
    channels = dataset.get("channel_names") or dataset.get("modality") or {"0": "CT"}
    if len(channels) > 1:
        raise ModelPackageError(
            f"dataset.json: the network takes {', '.join(map(str, channels.values()))}; a package has one image, a CT"
        )
    (channel,) = channels.values()
    if str(channel).upper() not in ("CT", "NOT_CT_BUT_HU"):
        raise ModelPackageError(
            f"dataset.json: channel_names says {channel!r}; Wetread takes volumes of CT only. If it is CT under "
            "another name, say so in dataset.json"
        )


def _input(plans: Values, plan: Values, dataset: Values, choices: Choices) -> tuple[dict[str, Any], list[Remark]]:
    remarks: list[Remark] = []
    order = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    if choices.axes is not None:
        axes = choices.axes
        remarks.append(Remark("taken over", "axes", f"{axes}, as you say"))
    else:
        read = READ_AXES.get(reader, "HPL")
        axes = "".join(read[axis] for axis in order)
        if not reader.endswith("WithReorient"):
            remarks.append(
                Remark(
                    "to check",
                    "axes",
                    f"{axes} is assumed: nnU-Net does not say how its images lay; this is how {reader} reads an axial "
                    "CT as scanners make it. If they were turned to RAS first (TotalSegmentator does), give --set axes="
                    f"{''.join('HAR'[axis] for axis in order)}",
                )
            )
    window: tuple[float, float] = UNCLIPPED
    keys: dict[str, Any] = {
        "modality": ["CT"],
        "minimum_slices": 10,
        **choices.selection,
        "spacing_mm": [float(length) for length in choices.spacing_mm or plan["spacing"]],
        "axes": axes,
    }
    (scheme,) = plan.get("normalization_schemes", ["CTNormalization"])
    if choices.intensities:
        keys |= {"window": list(window), **choices.intensities}
    elif scheme == "CTNormalization":
        found = _intensities(plans)
        keys |= {
            "window": [float(found["percentile_00_5"]), float(found["percentile_99_5"])],
            "mean": [float(found["mean"])],
            "deviation": [max(float(found["std"]), 1e-8)],
        }
        remarks.append(Remark("taken over", "intensities", "CTNormalization: window, mean and deviation of the plans"))
    elif scheme == "ZScoreNormalization":
        keys |= {"window": list(window), "standardise": True}
        if any(plan.get("use_mask_for_norm", ())):
            remarks.append(Remark("to check", "intensities", "nnU-Net standardised within a mask, Wetread does whole"))
        remarks.append(Remark("taken over", "intensities", "ZScoreNormalization: standardised, nothing clipped"))
    elif scheme == "NoNormalization":
        keys |= {"window": list(window), "mean": [0.0], "deviation": [1.0]}
        remarks.append(Remark("taken over", "intensities", "NoNormalization: the network is given HU"))
    else:
        raise ModelPackageError(
            f"plans.json: {scheme} scales every image by its own values, which a package cannot describe; give "
            "--set window=LOW,HIGH and --set range=LOW,HIGH that come near it, and check the results"
        )
    keys |= {"patch": [int(length) for length in choices.patch or plan["patch_size"]], "overlap": OVERLAP}
    remarks.append(
        Remark(
            "left out",
            "resampling",
            "nnU-Net interpolates by third order and crops to what is not 0; Wetread interpolates linearly and crops "
            "nothing",
        )
    )
    return keys, remarks


def _intensities(plans: Values) -> Values:
    for key in ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"):
        found = plans.get(key)
        if isinstance(found, dict) and isinstance(found.get("0"), dict):
            needed = ("mean", "std", "percentile_00_5", "percentile_99_5")
            if missing := [name for name in needed if name not in found["0"]]:
                raise ModelPackageError(f"plans.json: {key}.0 lacks {', '.join(missing)}; plan the data set again")
            return dict(found["0"])
    raise ModelPackageError("plans.json has no foreground_intensity_properties_per_channel; plan the data set again")


def _labels(dataset: Values) -> tuple[tuple[str, ...], bool]:
    """Give the labels in channel order, without background and 'ignore', and whether they are regions that overlap."""
    found = dataset.get("labels")
    if not isinstance(found, dict) or not found:
        raise ModelPackageError("dataset.json has no labels; it is no file of nnU-Net v2")
    regions = any(isinstance(value, list) and len(value) > 1 for value in found.values())
    kept = {name: value for name, value in found.items() if name != "ignore" and not _is_background(value)}
    if regions:
        return tuple(kept), True
    numbers = {name: int(value[0] if isinstance(value, list) else value) for name, value in kept.items()}
    ordered = sorted(numbers, key=lambda name: numbers[name])
    if sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
        raise ModelPackageError(f"dataset.json: the labels' numbers are {sorted(numbers.values())}, not 1, 2, 3, …")
    return tuple(ordered), False


def _is_background(value: Any) -> bool:
    return set(value if isinstance(value, list) else [value]) == {0}


def _training(path: Path) -> dict[str, tuple[float, float]]:
    """Between what the training images lay, as far as the fingerprint tells."""
    if not path.is_file():
        return {}
    spacings = _read(path).get("spacings")
    if not isinstance(spacings, list) or not spacings:
        return {}
    steps, pixels = [float(each[0]) for each in spacings], [float(each[-1]) for each in spacings]
    return {"slice_step_mm": (min(steps), max(steps)), "pixel_mm": (min(pixels), max(pixels))}


def _card(dataset: Values) -> dict[str, str]:
    told = []
    if dataset.get("numTraining"):
        told.append(f"{dataset['numTraining']} images.")
    if dataset.get("reference"):
        told.append(str(dataset["reference"]))
    return {"Training data": " ".join(told)} if told else {}


def _text(values: Values, key: str) -> str | None:
    return str(values[key]) if values.get(key) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelPackageError(
            f"there is no {path}; name the folder of one trained configuration, "
            "with plans.json, dataset.json and fold_*"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelPackageError(f"{path} is not valid JSON: {error}; correct that place") from error
    if not isinstance(found, dict):
        raise ModelPackageError(f"{path} holds no table of keys; it is no file of nnU-Net")
    return found
