"""nnU-Net's networks: built as ``plans.json`` says, with the weights of the folds, and converted to ONNX.

Both files come from strangers. The plans may only name the architectures of ``dynamic-network-architectures`` and the
layers of PyTorch, and a checkpoint is read without running the code that a pickle may hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from build_engines.importers.draft import Remark
from build_engines.importers.mistakes import told_as
from build_engines.importers.torch_export import export_network, import_torch
from engines.errors import ModelPackageError, RuntimeUnavailable

LIBRARY = "dynamic_network_architectures"

ARCHITECTURES = {
    "PlainConvUNet": "PlainConvUNet",
    "ResidualEncoderUNet": "ResidualEncoderUNet",
    "ResidualUNet": "ResidualUNet",
}
"""Networks that are known to give one output, the segmentation in full resolution."""

WRAPPERS = ("_orig_mod.", "module.")
"""What compiling and training on several GPUs put before the names of weights."""

MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError)
"""What building a network with wrong settings can raise."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """The networks of the folds, which axes may be mirrored, and by which trainer."""

    networks: tuple[onnx.ModelProto, ...]
    mirrored: tuple[int, ...]
    trainer: str
    remarks: tuple[Remark, ...]


def export_folds(
    checkpoints: Sequence[Path], plan: Values, shape: Sequence[int], channels: int, *, trust: bool = False
) -> Trained:
    """Convert the network of every fold.

    Parameters
    ----------
    plan
        A configuration of ``plans.json``.
    shape
        Of the input.
    channels
        Of the output.
    trust
        Whether a checkpoint may run code while it is read.

    Raises
    ------
    ModelPackageError
        The architecture is not known, the weights are not its, or a checkpoint can only be read by running code.
    RuntimeUnavailable
        PyTorch or the library of the architectures is not installed.
    """
    import_torch()
    networks, mirrored, trainers = [], dict[tuple[int, ...], None](), dict[str, None]()
    for path in checkpoints:
        checkpoint = read_checkpoint(path, trust)
        network = build_network(plan, int(shape[1]), channels)
        weights = {_unwrapped(name): value for name, value in checkpoint["network_weights"].items()}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            lines = str(error).splitlines()
            raise ModelPackageError(
                f"{path}: the weights are not those of the network that plans.json describes "
                f"({lines[1].strip() if len(lines) > 1 else lines[0]}); a trainer of one's own may build another"
            ) from error
        networks.append(export_network(network.eval(), shape))
        mirrored[tuple(int(axis) for axis in checkpoint.get("inference_allowed_mirroring_axes") or ())] = None
        trainers[str(checkpoint.get("trainer_name", "a trainer that is not named"))] = None
    common = set.intersection(*(set(axes) for axes in mirrored))
    remarks = (Remark("taken over", "network", f"{_architecture(plan)[0]}, {len(networks)} fold(s)"),)
    return Trained(tuple(networks), tuple(sorted(common)), ", ".join(trainers), remarks)


def read_checkpoint(path: Path, trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint, without running code unless it is trusted.

    nnU-Net stores NumPy scalars and the device beside the weights; those are data and allowed.

    Raises
    ------
    ModelPackageError
        It holds other objects and is not trusted, or is no checkpoint of nnU-Net.
    """
    torch = import_torch()
    import numpy as np
    from numpy._core import multiarray

    harmless = [
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u1", "bool")),
        torch.device,
    ]
    try:
        with torch.serialization.safe_globals(harmless):
            found = torch.load(str(path), map_location="cpu", weights_only=not trust)
    except Exception as error:  # UnpicklingError, and whatever the file's bytes lead to
        if trust:
            raise ModelPackageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        raise ModelPackageError(
            f"{path} cannot be read as weights alone: it is damaged, or a pickle with other objects, which is code "
            "that reading runs. If you know and trust where it is from, add --trust"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("network_weights"), dict):
        raise ModelPackageError(f"{path} has no network_weights; it is no checkpoint of nnU-Net v2")
    return found


def build_network(plan: Values, inputs: int, outputs: int) -> Any:
    """Build the network of a configuration, without the heads of deep supervision.

    Raises
    ------
    ModelPackageError
        The architecture or a layer is not known.
    """
    with told_as("plans.json"):
        name, settings = _architecture(plan)
    try:
        module = import_module(f"{LIBRARY}.architectures.unet")
    except ImportError as error:
        raise RuntimeUnavailable(f"{error.name} is not installed; pip install 'wetread[train]'") from error
    network = getattr(module, name)
    try:
        return network(input_channels=inputs, num_classes=outputs, deep_supervision=False, **settings)
    except MISTAKES as error:
        raise ModelPackageError(f"plans.json: {name} cannot be built as described: {error}") from error


def _architecture(plan: Values) -> tuple[str, dict[str, Any]]:
    """Give the class and its arguments, from plans of nnU-Net 2.2 and later or from older ones."""
    described = plan.get("architecture")
    if not isinstance(described, dict):
        return _older(plan)
    name = str(described.get("network_class_name", "")).rpartition(".")[2]
    if name not in ARCHITECTURES:
        raise ModelPackageError(
            f"plans.json: the architecture {described.get('network_class_name')} is not known; "
            f"choose one of {', '.join(ARCHITECTURES)}, or export the network to ONNX yourself and import that"
        )
    settings = dict(described.get("arch_kwargs") or {})
    for key in described.get("_kw_requires_import") or ():
        settings[key] = _layer(settings.get(key))
    return ARCHITECTURES[name], settings


def _older(plan: Values) -> tuple[str, dict[str, Any]]:
    name = str(plan.get("UNet_class_name", ""))
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelPackageError(
            f"plans.json: UNet_class_name is {name!r}; PlainConvUNet and ResidualEncoderUNet are known"
        )
    stages = len(plan["n_conv_per_stage_encoder"])
    dimension = len(plan["patch_size"])
    base, most = int(plan["UNet_base_num_features"]), int(plan["unet_max_num_features"])
    encoder = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return name, {
        "n_stages": stages,
        "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
        "conv_op": _layer(f"torch.nn.Conv{dimension}d"),
        "kernel_sizes": plan["conv_kernel_sizes"],
        "strides": plan["pool_op_kernel_sizes"],
        encoder: plan["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": plan["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": _layer(f"torch.nn.InstanceNorm{dimension}d"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": _layer("torch.nn.LeakyReLU"),
        "nonlin_kwargs": {"inplace": True},
    }


def _layer(path: Any) -> Any:
    """Give a layer of PyTorch by its name; nothing else is imported, whatever the file says."""
    if path is None:
        return None
    torch = import_torch()
    name = str(path).rpartition(".")[2]
    layer = getattr(torch.nn, name, None)
    if not str(path).startswith("torch.nn.") or not isinstance(layer, type):
        raise ModelPackageError(f"plans.json: {path} is no layer of PyTorch; only torch.nn is imported")
    return layer


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name
