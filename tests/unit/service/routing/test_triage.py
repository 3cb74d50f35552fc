from datetime import UTC, datetime
from pathlib import Path

import pytest

from engines.packages.package import load_packages
from engines.types import (
    Classification,
    ClassProbability,
    Code,
    Detection,
    Detections,
    EngineIdentity,
    Findings,
    ModelIdentity,
)
from service.routing.triage import is_urgent, labels_of
from tests.small_models import classifier_package, detector_package, xray_package

CODE = Code("1", "99X", "Pneumonia")
FINDINGS = Findings(
    ModelIdentity("m", "1", "d", "2.25.1", "l", "i"),
    EngineIdentity("openvino", "fp32", "CPU"),
    datetime(2026, 1, 1, tzinfo=UTC),
    classification=Classification((ClassProbability("Pneumonia", CODE, 0.8), ClassProbability("Normal", CODE, 0.2))),
    detections=Detections((Detection("Nodule", CODE, 0.6, (0.0,), (0.0,)),), (("Nodule", CODE),)),
)


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        ({"Pneumonia": 0.8}, True),
        ({"pneumonia": 0.5}, True),
        ({"Pneumonia": 0.81}, False),
        ({"Nodule": 0.6}, True),
        ({"Nodule": 0.7, "Normal": 0.1}, True),
        ({"Something else": 0.0}, False),
        ({}, False),
    ],
)
def test_a_finding_is_urgent_from_its_limit_on(least: dict[str, float], expected: bool) -> None:
    assert is_urgent(FINDINGS, least) == expected


def test_a_model_tells_what_triage_can_go_by(tmp_path: Path) -> None:
    xray_package(tmp_path)
    classifier_package(tmp_path)
    detector_package(tmp_path)
    packages = load_packages(tmp_path)
    found = {name: labels_of(package) for name, package in packages.items()}
    assert found["tiny-class"] == ("Dark", "Bright")
    assert found["tiny-cxr"] == ()
    assert len(next(labels for name, labels in found.items() if name not in ("tiny-class", "tiny-cxr"))) > 0
