import pytest

from engines.packages.package import SHIPPED_MODELS, load_packages
from service.errors import ConfigurationError
from service.routing.narrowing import check_narrowing
from service.settings import parse

SENDERS = {"senders": {"CT1": {"archive": "a"}}, "archives": {"a": {"ae_title": "A", "host": "h", "port": 104}}}


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"ct-lunq": {}}, r"routing\.ct-lunq: no such model; there are ct-lung, ct-nodule, cxr-lung"),
        ({"ct-lung": {"senders": ["CT2"]}}, r"routing\.ct-lung\.senders: CT2 is no sender \(known: CT1\)"),
        ({"cxr-lung": {"minimum_slices": 2}}, r"routing\.cxr-lung\.minimum_slices: .*remove the key"),
        (
            {"cxr-pneumonia": {"stat": {"Pneumonja": 0.5}}},
            r"routing\.cxr-pneumonia\.stat: .*finds no 'Pneumonja'.*Pneumonia",
        ),
        ({"ct-lung": {"stat": {"Lung": 0.5}}}, r"routing\.ct-lung\.stat: ct-lung finds no 'Lung'; it tells of none"),
        ({"ct-lung": {"presentation": ["FOR PROCESSING"]}}, r"routing\.ct-lung\.presentation: .*remove the key"),
    ],
)
def test_what_would_narrow_nothing_or_everything_is_an_error(routing: dict[str, object], message: str) -> None:
    settings = parse({**SENDERS, "routing": routing}, "wetread.toml")
    with pytest.raises(ConfigurationError, match=message):
        check_narrowing(settings, load_packages(SHIPPED_MODELS))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"minimum_slides": 2}, r"routing\.ct-lung\.minimum_slides = 2: no such key.*minimum_slices.*senders"),
        ({"contrast": "yes"}, r"routing\.ct-lung\.contrast = 'yes'"),
        ({"kernel": ["!"]}, r"routing\.ct-lung\.kernel\.0 = '!'"),
        ({"slice_thickness_mm": [3.0, 1.0]}, r"routing\.ct-lung: .*slice_thickness_mm must be \[least, largest\]"),
    ],
)
def test_a_wrong_key_or_value_is_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse({"routing": {"ct-lung": keys}}, "wetread.toml")


def test_what_fits_is_accepted() -> None:
    routing = {
        "ct-lung": {"senders": ["CT1"], "minimum_slices": 40, "kernel": ["!*H"]},
        "cxr-lung": {"enabled": False, "view": ["PA"]},
    }
    check_narrowing(parse({**SENDERS, "routing": routing}, "wetread.toml"), load_packages(SHIPPED_MODELS))
