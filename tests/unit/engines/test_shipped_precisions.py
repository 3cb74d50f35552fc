"""The limits of the shipped models in each precision: a good engine keeps them, a wrong one does not."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package, load_packages
from engines.runtimes.base import Engine, Outputs, Precision, RuntimeSettings, create_engine
from engines.types import EngineIdentity
from engines.verify import verify

MODELS = load_packages(SHIPPED_MODELS)
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

SERVED: list[tuple[str, Precision]] = [
    *((name, "bf16") for name in MODELS if BF16),
    *((name, "int8") for name in MODELS if (SHIPPED_MODELS / name / "model.int8.onnx").is_file()),
]
"""What OpenVINO runs here beside FP32, which `open_engines` verifies."""


@pytest.mark.parametrize(("name", "precision"), SERVED)
def test_a_shipped_model_keeps_its_limits(name: str, precision: Precision) -> None:
    package = MODELS[name]
    with create_engine(package, RuntimeSettings(precision=precision)) as engine:
        assert verify(package, engine).require().ok


class Wrong(Engine):
    """Answers as the reference does, but for one mistake."""

    def __init__(self, package: ModelPackage, precision: Precision, mistake: str) -> None:
        self._outputs = {name: array.copy() for name, array in package.golden().outputs.items()}
        self._precision, self._mistake = precision, mistake

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity("wrong", self._precision, "none")

    def activate(self) -> None:
        pass

    def infer(self, tensor: NDArray[np.float32]) -> Outputs:
        return {name: self._spoilt(array) for name, array in self._outputs.items()}

    def deactivate(self) -> None:
        pass

    def _spoilt(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        match self._mistake:
            case "channels shuffled":
                return np.roll(array, 1, axis=1)
            case "nothing":
                return np.zeros_like(array)
            case "shifted":
                return np.roll(array, 2, axis=-1)
            case _:
                return np.full_like(array, np.nan)


@pytest.mark.parametrize("mistake", ["channels shuffled", "nothing", "shifted", "NaN"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_answer_is_refused_in_every_precision(name: str, precision: Precision, mistake: str) -> None:
    package = MODELS[name]
    assert not verify(package, Wrong(package, precision, mistake)).ok


@pytest.mark.parametrize(("name", "precision"), SERVED)
def test_a_network_with_one_layer_zeroed_is_refused(name: str, precision: Precision, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(SHIPPED_MODELS / name, folder)
    package = load_package(folder)
    path = package.network_for(package.networks[0], precision)
    model = onnx.load(path)
    kinds = (TensorProto.INT8, TensorProto.FLOAT16)
    largest = max(
        (each for each in model.graph.initializer if each.data_type in kinds), key=lambda each: each.ByteSize()
    )
    largest.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(largest)), largest.name))
    onnx.save_model(model, path)
    with create_engine(package, RuntimeSettings(precision=precision)) as engine:
        assert not verify(package, engine).ok
