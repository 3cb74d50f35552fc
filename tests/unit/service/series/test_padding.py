import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from service.series.padding import PADDING_HU, Padding, padding, without_padding
from service.series.pixel_description import PixelDescription


def description(*, signed: bool, allocated: int = 16) -> PixelDescription:
    return PixelDescription(4, 4, 1, allocated, allocated, allocated - 1, signed, ExplicitVRLittleEndian)


def header(value: object, limit: object = None) -> Dataset:
    data_set = Dataset()
    signed = isinstance(value, int) and value < 0
    data_set.add_new("PixelPaddingValue", "SS" if signed else "US", value)
    if limit is not None:
        data_set.add_new("PixelPaddingRangeLimit", "SS" if isinstance(limit, int) and limit < 0 else "US", limit)
    return data_set


@pytest.mark.parametrize(
    ("value", "limit", "signed", "found"),
    [
        (-2000, None, True, Padding(-2000, -2000)),
        (63536, None, True, Padding(-2000, -2000)),
        (63536, None, False, Padding(63536, 63536)),
        (-2000, None, False, Padding(63536, 63536)),
        (-2000, -1500, True, Padding(-2000, -1500)),
        (0, 10, False, Padding(0, 10)),
        (10, 0, False, Padding(0, 10)),
        (None, None, False, None),
        ([1, 2], None, False, None),
    ],
)
def test_padding_has_the_sign_of_the_pixels(value: object, limit: object, signed: bool, found: Padding | None) -> None:
    assert padding(header(value, limit), description(signed=signed)) == found


def test_a_value_that_no_pixel_can_have_is_not_padding() -> None:
    assert padding(header(300), description(signed=False, allocated=8)) is None
    assert padding(Dataset(), description(signed=False)) is None


def framed(surround: int, inside: list[int]) -> np.ndarray:
    array = np.full((6, 6), surround, np.int16)
    array[1:5, 1:5] = np.resize(inside, (4, 4))
    return array


def test_what_surrounds_the_image_is_padding_and_nothing_else() -> None:
    stored = framed(-2000, [-1000, 40, 900])
    mask = Padding(-2000, -2000).mask(stored)
    np.testing.assert_array_equal(mask, stored == -2000)
    mask = Padding(-2000, -1500).mask(framed(-1700, [-1000, 40, 900]))
    assert mask is not None
    assert mask.sum() == 20


def test_padding_may_be_brighter_than_all_else() -> None:
    mask = Padding(4095, 4095).mask(framed(4095, [10, 20]))
    assert mask is not None
    assert mask.sum() == 20


def test_a_value_inside_the_range_of_the_image_is_not_padding() -> None:
    # 0 in signed pixels of a CT without an intercept is water
    assert Padding(0, 0).mask(framed(0, [-1000, 40, 0, 900])) is None


def test_a_value_that_does_not_reach_the_edge_is_not_padding() -> None:
    assert Padding(900, 900).mask(framed(-1000, [900, 40])) is None
    assert Padding(-5000, -5000).mask(framed(-1000, [900, 40])) is None


def test_an_empty_frame_is_padding_altogether() -> None:
    mask = Padding(-2000, -2000).mask(np.full((4, 4), -2000, np.int16))
    assert mask is not None
    assert mask.all()


def test_padding_of_a_ct_becomes_air() -> None:
    stored = framed(-2000, [24, 1064])
    hounsfield = (stored - 1024).astype(np.int16)
    filled = without_padding(hounsfield, Padding(-2000, -2000).mask(stored))
    np.testing.assert_array_equal(filled, framed(PADDING_HU, [-1000, 40]))
    assert filled.dtype == np.int16
    assert without_padding(hounsfield, None) is hounsfield
