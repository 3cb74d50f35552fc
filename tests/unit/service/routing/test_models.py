import pytest

from engines.package import SHIPPED_MODELS, load_packages
from service.routing.models import route
from service.series.facts import ImageFacts


@pytest.mark.parametrize(
    ("facts", "models"),
    [
        (ImageFacts("CT", "CHEST", "", 143), ["ct-lung"]),
        (ImageFacts("CT", "", "", 143), ["ct-lung"]),
        (ImageFacts("CT", "HEAD", "", 143), []),
        (ImageFacts("CT", "CHEST", "", 3), []),
        (ImageFacts("DX", "CHEST", "PA", 1), ["cxr-lung", "cxr-pneumonia"]),
        (ImageFacts("CR", "", "", 1), ["cxr-lung", "cxr-pneumonia"]),
        (ImageFacts("DX", "CHEST", "LATERAL", 1), []),
        (ImageFacts("DX", "HAND", "PA", 1), []),
        (ImageFacts("MR", "CHEST", "", 30), []),
        (ImageFacts("", "", "", 1), []),
    ],
)
def test_each_image_goes_to_the_models_that_want_it_and_the_others_say_why_not(
    facts: ImageFacts, models: list[str]
) -> None:
    packages = load_packages(SHIPPED_MODELS)
    chosen, reasons = route(facts, packages)
    assert chosen == models
    assert set(reasons) == set(packages) - set(models)
    assert all(reasons.values())
