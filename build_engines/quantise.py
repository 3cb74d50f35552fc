"""A network in INT8: quantised after training, with images to calibrate it (Jacob et al., CVPR 2018).

What comes out is plain ONNX, ``QuantizeLinear`` and ``DequantizeLinear`` around what computes in integers: weights with
a scale for each output channel, activations with one for each tensor.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from build_engines.errors import BuildError
from build_engines.graph import KEPT_IN_FP32, load_graph
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.engine_file import write_whole

TELEMETRY = "openvino_telemetry"

Told = Callable[[float], None]
"""Takes the part that is done, 0 to 1."""


def quantise(package: ModelPackage, inputs: Sequence[NDArray[np.float32]], told: Told | None = None) -> list[Path]:
    """Write ``NAME.int8.onnx`` beside each file of a package's network.

    Softmax and normalisations stay in floating point. NNCF's bias correction is left out: with few images it made both
    segmentations worse (``engines/models/ct-lung/CARD.md``).

    Parameters
    ----------
    package
        The model.
    inputs
        What it is given for images like those that it was trained on (`build_engines.calibration.record_inputs`), each
        ``[1, channel, …grid]``. Never those that it is judged by.
    told
        Told about the progress.

    Returns
    -------
    list of Path
        The files, each there whole or not at all.

    Raises
    ------
    RuntimeUnavailable
        NNCF is not installed.
    ModelPackageError
        The network is no valid ONNX model.
    BuildError
        There are no inputs, or NNCF refuses the network.
    """
    if not inputs:
        raise BuildError(f"nothing to calibrate {package.name} with; name images")
    nncf, count, paths = load_nncf(), len(inputs) * len(package.networks), list[Path]()
    for network in package.networks:
        model = load_graph(package, network)
        float_types = sorted(KEPT_IN_FP32 & {node.op_type for node in model.graph.node})
        asked = iter(range(len(paths) * len(inputs) + 1, count + 1))

        def feed(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
            if told is not None:
                told(next(asked, count) / count)  # noqa: B023  called before the loop goes on
            return {package.input.tensor: tensor}

        try:
            with _quiet():
                quantised = nncf.quantize(
                    model,
                    nncf.Dataset(inputs, feed),
                    preset=nncf.QuantizationPreset.PERFORMANCE,
                    subset_size=len(inputs),
                    ignored_scope=nncf.IgnoredScope(types=float_types) if float_types else None,
                    advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
                )
            onnx.checker.check_model(quantised)
        except (RuntimeError, ValueError, onnx.checker.ValidationError, nncf.ValidationError) as error:
            raise BuildError(f"{network} cannot be quantised: {error}") from error
        paths.append(network.with_suffix(".int8.onnx"))
        write_whole(paths[-1], quantised.SerializeToString())
    return paths


def load_nncf() -> Any:
    """Import NNCF without its telemetry, which would tell Google Analytics of each use.

    Raises
    ------
    RuntimeUnavailable
        It is not installed.
    """
    known = sys.modules.get(TELEMETRY)
    # With None in its place, importing the telemetry fails, which NNCF takes for "not installed".
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return import_module("nncf")
    except ImportError as error:
        raise RuntimeUnavailable(f"{error.name} is not installed; pip install 'wetread[quantise]'") from error
    finally:
        del sys.modules[TELEMETRY]
        if known is not None:
            sys.modules[TELEMETRY] = known


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's own progress bars and remarks off standard output, which is for programs."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
