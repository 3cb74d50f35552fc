import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from build_engines.cli import app
from engines.errors import WetreadError
from engines.packages.package import load_package
from tests.small_models import classifier_package, xray_package


@pytest.fixture
def models(tmp_path: Path) -> Path:
    xray_package(tmp_path / "models")
    classifier_package(tmp_path / "models")
    return tmp_path / "models"


def engines(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_shows_shipped_and_further_models_and_where_they_run(models: Path) -> None:
    entries = {entry["name"]: entry for entry in json.loads(engines("list", "--models", models, "--json").stdout)}
    assert {"ct-lung", "tiny-cxr", "tiny-class"} <= entries.keys()
    assert "openvino" in entries["tiny-cxr"]["runs_on"]
    assert entries["tiny-class"]["tasks"] == ["classification"]
    assert "tiny-cxr" in engines("list", "--models", models).stdout


def test_verify_of_good_models_is_ok(models: Path) -> None:
    result = engines("verify", "tiny-cxr", "tiny-class", "--models", models, "--json")
    assert result.exit_code == 0
    assert [(entry["model"], entry["ok"]) for entry in json.loads(result.stdout)] == [
        ("tiny-cxr", True),
        ("tiny-class", True),
    ]


def test_verify_of_a_damaged_model_says_so_and_exits_with_1(models: Path) -> None:
    folder = models / "tiny-cxr"
    golden = load_package(folder).golden()
    np.savez(folder / "golden.npz", image=golden.input, probabilities=golden.outputs["probabilities"][:, ::-1])
    result = engines("verify", "tiny-cxr", "tiny-class", "--models", models)
    assert result.exit_code == 1
    assert result.stdout.count("refused") == 1
    assert result.stdout.count("ok") == 1


def test_build_writes_an_engine_and_prints_its_path(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "engines"
    result = engines(
        "build", "tiny-cxr", "--target", "openvino", "--precision", "fp32", "--models", models, "--out", out
    )
    assert result.exit_code == 0
    (path,) = out.iterdir()
    assert path.name in result.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("verify", "no-such"), "there is no model 'no-such'; choose of "),
        (("verify", "ct-lung", "--runtime", "cuda"), "there is no runtime 'cuda'; choose one of openvino"),
        (("list", "--models", "/no/such/folder"), "/no/such/folder does not exist"),
    ],
)
def test_a_wrong_argument_is_an_error_for_the_operator(arguments: tuple[str, ...], expected: str) -> None:
    result = engines(*arguments)
    assert isinstance(result.exception, WetreadError)
    assert expected in str(result.exception)
