from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from service.routing.models import matches, route
from service.series.facts import ImageFacts
from service.settings import RoutingSettings
from tests.small_models import volume_package

CHEST = ImageFacts("CT", "CHEST", "", 143, ("ORIGINAL", "PRIMARY", "AXIAL"), plane="axial", largest_gap_mm=2.0)
XRAY = ImageFacts("DX", "CHEST", "PA", 1, ("ORIGINAL", "PRIMARY", ""), presentation="FOR PRESENTATION")
CT_MODELS = ["ct-lung", "ct-nodule"]
XRAY_MODELS = ["cxr-lung", "cxr-pneumonia"]


@pytest.fixture(scope="module")
def packages() -> Mapping[str, ModelPackage]:
    return load_packages(SHIPPED_MODELS)


@pytest.fixture
def selective(tmp_path: Path) -> Mapping[str, ModelPackage]:
    """A model for CT that asks for much."""
    folder = volume_package(tmp_path)
    description = (folder / "model.toml").read_text()
    keys = """
maximum_slices = 400
slice_thickness_mm = [0.5, 3.0]
kernel = ["B?0f", "!B80*"]
protocol = ["*thorax*"]
series_description = ["!*lung cad*"]
contrast = "without"
"""
    (folder / "model.toml").write_text(description.replace("minimum_slices = 4\n", "minimum_slices = 4" + keys))
    return load_packages(tmp_path)


@pytest.mark.parametrize(
    ("facts", "models"),
    [
        (ImageFacts("CT", "CHEST", "", 143), CT_MODELS),
        (ImageFacts("CT", "", "", 143), CT_MODELS),
        (ImageFacts("CT", "HEAD", "", 143), []),
        (ImageFacts("CT", "CHEST", "", 3), []),
        (ImageFacts("DX", "CHEST", "PA", 1), XRAY_MODELS),
        (ImageFacts("CR", "", "", 1), XRAY_MODELS),
        (ImageFacts("DX", "CHEST", "LATERAL", 1), []),
        (ImageFacts("DX", "HAND", "PA", 1), []),
        (ImageFacts("MR", "CHEST", "", 30), []),
        (ImageFacts("", "", "", 1), []),
        (CHEST, CT_MODELS),
        (replace(CHEST, plane="coronal"), []),
        (replace(CHEST, largest_gap_mm=10.1, missing_slices=4), ["ct-lung"]),
        (replace(CHEST, largest_gap_mm=5.0), ["ct-lung"]),
        (replace(CHEST, partial=True), CT_MODELS),
        (XRAY, XRAY_MODELS),
        (replace(XRAY, presentation="FOR PROCESSING"), []),
        (replace(XRAY, image_type=("DERIVED", "SECONDARY")), []),
    ],
)
def test_each_image_goes_to_the_models_that_want_it_and_the_others_say_why_not(
    facts: ImageFacts, models: list[str], packages: Mapping[str, ModelPackage]
) -> None:
    chosen, reasons = route(facts, packages)
    assert chosen == models
    assert set(reasons) == set(packages) - set(models)
    faulty = {"ct-nodule"} if facts.missing_slices else set()
    assert all(refusal.reason and refusal.faulty == (name in faulty) for name, refusal in reasons.items())


@pytest.mark.parametrize(
    ("image_type", "primary"),
    [
        ("", True),
        (r"ORIGINAL\PRIMARY\AXIAL", True),
        (r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI", True),
        (r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 MPR", True),
        (r"DERIVED\PRIMARY\AXIAL", True),
        (r"DERIVED\PRIMARY\VOLUME\NONE", True),
        (r"DERIVED\PRIMARY\AXIAL\CT_SOM7 SPI DUAL\STD\SNRG", True),
        (r"ORIGINAL\PRIMARY\LOCALIZER", False),
        (r"ORIGINAL\PRIMARY\LOCALIZER\CT_SOM5 TOP", False),
        (r"ORIGINAL\SECONDARY\AXIAL", False),
        (r"DERIVED\SECONDARY\MPR\CSA MPR", False),
        (r"DERIVED\SECONDARY\REFORMATTED\AVERAGE", False),
        (r"DERIVED\SECONDARY\PROJECTION IMAGE\MIP", False),
        (r"DERIVED\PRIMARY\AXIAL\MIP", False),
        (r"DERIVED\PRIMARY\PERFUSION\RCBF", False),
    ],
)
def test_only_primary_images_go_to_a_model_that_wants_no_others(
    image_type: str, primary: bool, packages: Mapping[str, ModelPackage]
) -> None:
    facts = replace(CHEST, image_type=tuple(image_type.split("\\")) if image_type else ())
    chosen, reasons = route(facts, packages)
    assert chosen == (CT_MODELS if primary else [])
    assert primary or "not a primary image but" in reasons["ct-lung"].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"kernel": "", "protocol": "", "slice_thickness_mm": None}, None),
        ({"slices": 401}, "401 slices, more than 400"),
        ({"slice_thickness_mm": 5.0}, "slice thickness 5 mm is not from 0.5 to 3 mm"),
        ({"kernel": "B80F"}, "kernel B80F is not one of B?0f, !B80*"),
        ({"kernel": "FC51"}, "kernel FC51 is not"),
        ({"protocol": "HEAD OF A PERSON"}, "its protocol name is not *thorax*"),
        ({"series_description": "LUNG CAD OF A PERSON"}, "its series description is not !*lung cad*"),
        ({"contrast": True}, "with contrast agent, not without"),
        ({"largest_gap_mm": 6.5}, "slices 6.5 mm apart, more than the 6 mm that it bridges"),
    ],
)
def test_every_key_of_a_package_is_asked(
    change: dict[str, object], reason: str | None, selective: Mapping[str, ModelPackage]
) -> None:
    facts = replace(CHEST, kernel="B30F", protocol="CT THORAX NATIVE", slice_thickness_mm=1.0)
    chosen, reasons = route(replace(facts, **change), selective)
    if reason is None:
        assert chosen == ["tiny-ct"]
    else:
        assert reason in reasons["tiny-ct"].reason
        assert not reasons["tiny-ct"].faulty
    assert "PERSON" not in str(reasons), "free text is not repeated"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"largest_gap_mm": 6.2, "missing_slices": 2}, "2 slices are missing: slices 6.2 mm apart"),
        ({"partial": True}, "the series may be incomplete"),
    ],
)
def test_an_image_that_lacks_something_is_refused_as_faulty_and_one_of_another_kind_is_not(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    volume_package(tmp_path)
    packages = load_packages(tmp_path)
    facts = replace(CHEST, **change)
    assert reason in route(facts, packages)[1]["tiny-ct"].reason
    assert route(facts, packages)[1]["tiny-ct"].faulty
    assert not route(replace(facts, body_part="HEAD"), packages)[1]["tiny-ct"].faulty


@pytest.mark.parametrize(
    ("keys", "sender", "runs"),
    [
        ({}, "CT1", True),
        ({"enabled": False}, "CT1", False),
        ({"senders": ("CT1", "CT2")}, "CT1", True),
        ({"senders": ("CT2",)}, "CT1", False),
        ({"minimum_slices": 200}, "CT1", False),
        ({"minimum_slices": 10}, "CT1", True),
        ({"max_gap_mm": 1.5}, "CT1", False),
    ],
)
def test_the_configuration_narrows_one_model(
    keys: dict[str, object], sender: str, runs: bool, packages: Mapping[str, ModelPackage]
) -> None:
    narrowing = {"ct-lung": RoutingSettings.model_validate(keys)}
    chosen, reasons = route(CHEST, packages, sender, narrowing)
    assert chosen == (CT_MODELS if runs else CT_MODELS[1:])
    assert runs or "routing.ct-lung" in reasons["ct-lung"].reason
    assert route(XRAY, packages, sender, narrowing)[0] == XRAY_MODELS


def test_the_configuration_brings_nothing_back_that_the_package_excludes(packages: Mapping[str, ModelPackage]) -> None:
    narrowing = {"ct-lung": RoutingSettings(body_part=("HEAD",), minimum_slices=1)}
    for facts in (CHEST, replace(CHEST, body_part="HEAD"), replace(CHEST, slices=3)):
        assert "ct-lung" not in route(facts, packages, "CT1", narrowing)[0]


@pytest.mark.parametrize(
    ("text", "patterns", "matched"),
    [
        ("CHEST", ("chest",), True),
        ("CHEST", ("CHES",), False),
        ("THORAX 1MM", ("*1mm",), True),
        ("BR38F\\3", ("br38f",), True),
        ("BR38F\\3", ("!br38f",), False),
        ("ANYTHING", ("!MIP*",), True),
        ("MIP THIN", ("M*", "!mip*"), False),
        ("ANYTHING", (), True),
    ],
)
def test_patterns_know_wildcards_exclusions_and_no_letter_case(
    text: str, patterns: tuple[str, ...], matched: bool
) -> None:
    assert matches(text, patterns) is matched
