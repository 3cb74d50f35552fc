from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid

from engines.types import Volume
from service.errors import Quarantined
from service.series.assembly import assemble
from service.series.ct_header import _parsed
from service.series.slab import MemorySlab, Slab
from service.series.slices import SLICES, Image, NotMeant, Slice, _frames, in_modality_units, open_image
from tests.ct_slice import VALUES, ct_slice
from tests.synthetic_ct import Scan, write_enhanced, write_scan


def read(image: Image, index: int = 0) -> Slice:
    return image.slice(index, slabs(), counted=0)


def slabs() -> Any:
    made: dict[tuple[tuple[int, int], np.dtype[Any]], Slab] = {}
    return lambda shape, dtype: made.setdefault((shape, dtype), MemorySlab(shape, dtype))


def values_of(file: Path, index: int = 0) -> NDArray[Any]:
    """Of one frame in modality units, the same whichever way the header is read."""
    one = read(open_image(file), index)
    parsed = _parsed(file, SLICES)
    assert not isinstance(parsed, str)
    header, pixel_data = parsed
    other = read(Image(file, header, _frames(file, header.storage.description, pixel_data)), index)
    ours, theirs = (each.slot.slab.read(each.slot.index) for each in (one, other))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    return ours


def true_values(file: Path) -> NDArray[np.float64]:
    """As pydicom decodes and rescales them."""
    data_set = pydicom.dcmread(file)
    true: NDArray[np.float64] = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
    return true


# ---- stored values ---------------------------------------------------------------------------------------------------

EDGES = [
    # stored values, intercept, whether int16 holds them
    (np.array([[0, 65535]], np.uint16), "-1024", False),
    (np.array([[0, 33791]], np.uint16), "-1024", True),
    (np.array([[0, 33792]], np.uint16), "-1024", False),
    (np.array([[32768, 65535]], np.uint16), "-32768", True),
    (np.array([[0, 65535]], np.uint16), "-32768", True),
    (np.array([[40000, 65535]], np.uint16), "-40000", True),
    (np.array([[39999, 0]], np.uint16), "-40000", False),
    (np.array([[-32768, 32767]], np.int16), "0", True),
    (np.array([[-32768, 32767]], np.int16), "1", False),
    (np.array([[-32768, 32766]], np.int16), "1", True),
    (np.array([[-32767, 32767]], np.int16), "-1", True),
    (np.array([[-32768, 32767]], np.int16), "-1", False),
    (np.array([[0, 0]], np.int16), "-32769", False),
    (np.array([[1, 1]], np.int16), "-32769", True),
    (np.array([[7, 8]], np.uint16), "1000000", False),
    (np.array([[7, 8]], np.uint16), "-0.5", False),
]


@pytest.mark.parametrize(("stored", "intercept", "exact"), EDGES)
def test_values_are_int16_exactly_where_int16_holds_them(
    stored: NDArray[Any], intercept: str, exact: bool, tmp_path: Path
) -> None:
    file = ct_slice(tmp_path / "one.dcm", stored, RescaleIntercept=intercept)
    values = values_of(file)
    assert values.dtype == (np.int16 if exact else np.float32)
    np.testing.assert_array_equal(values, true_values(file))


@pytest.mark.parametrize(
    ("stored", "high_bit", "signed"), [(12, 11, 0), (12, 11, 1), (12, 13, 1), (10, 15, 0), (10, 15, 1), (16, 15, 1)]
)
def test_bits_beside_the_stored_ones_are_dropped_and_the_sign_is_extended(
    stored: int, high_bit: int, signed: int, tmp_path: Path
) -> None:
    low = -(1 << stored - 1) if signed else 0
    meant = np.linspace(low, low + (1 << stored) - 1, 24).astype(int).reshape(4, 6)
    shift = high_bit + 1 - stored
    cells = (meant & ((1 << stored) - 1)) << shift
    noise = np.random.default_rng(0).integers(0, 1 << 16, cells.shape)
    cells |= noise & ~(((1 << stored) - 1) << shift)
    file = ct_slice(
        tmp_path / "one.dcm",
        cells.astype(np.uint16),
        BitsStored=stored,
        HighBit=high_bit,
        PixelRepresentation=signed,
        RescaleIntercept="-24",
    )
    expected = meant - 24
    values = values_of(file)
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == (np.int16 if expected.min() >= -32768 else np.float32)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint32, np.int32])
def test_cells_of_8_and_32_bits_are_read_and_lie_in_a_row(kind: type[np.integer[Any]], tmp_path: Path) -> None:
    stored = VALUES.astype(kind)
    files = [ct_slice(tmp_path / f"{index}.dcm", stored, z=index, number=index) for index in range(6)]
    np.testing.assert_array_equal(values_of(files[0]), stored)
    made = slabs()
    images = [open_image(file).slice(0, made, counted=0) for file in files]
    assert np.ptp([one.slot.index for one in images]) == 5


def test_wide_32_bit_values_become_float(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", np.array([[0, 100000]], np.uint32))
    assert values_of(file).dtype == np.float32
    np.testing.assert_array_equal(values_of(file), [[0, 100000]])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("slope", ["1", "2", "-3", "0.5"])
def test_slope_intercept_and_padding_are_applied(slope: str, padded: bool, tmp_path: Path) -> None:
    stored = VALUES.astype(np.int16)
    attributes = {}
    if padded:
        stored = stored.copy()
        stored[0, 0] = stored[2, 0] = -2000
        attributes = {"PixelPaddingValue": -2000}
    file = ct_slice(tmp_path / "one.dcm", stored, RescaleSlope=slope, RescaleIntercept="-10", **attributes)
    expected = np.where(stored == -2000, -1024, true_values(file))
    np.testing.assert_array_equal(values_of(file), expected)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(b"0", b"0"), (b"nan", b"0"), (b"inf", b"0"), (b"1", b"nan"), (b"1", b"-inf"), (b"1e39", b"0"), (b"1", b"1e300")],
)
def test_a_rescale_that_leaves_no_image_is_refused(slope: bytes, intercept: bytes, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", RescaleSlope=slope, RescaleIntercept=intercept)
    image = open_image(file)
    with pytest.raises(Quarantined, match="no image is left; repair the header"):
        read(image)


def test_an_empty_image_with_an_enormous_slope_is_empty() -> None:
    assert in_modality_units(np.zeros((2, 2), np.int16), 1e30, 0.0).tolist() == [[0, 0], [0, 0]]


def test_slices_with_scales_of_their_own_make_one_volume_of_true_values(tmp_path: Path) -> None:
    scales = [("1", "-1024"), ("2", "0"), ("0.5", "-3"), ("1", "0"), ("1", "40000"), ("1", "-1024")]
    files = [
        ct_slice(tmp_path / f"{z}.dcm", VALUES + z, z, z, RescaleSlope=slope, RescaleIntercept=intercept)
        for z, (slope, intercept) in enumerate(scales)
    ]
    [item] = assemble(files).items
    assert isinstance(item.image, Volume)
    assert item.image.array.dtype == np.float32
    np.testing.assert_array_equal(item.image.array, [true_values(file) for file in files])


# ---- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless])
def test_the_values_are_the_same_in_every_encoding(syntax: uid.UID, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    data_set = pydicom.dcmread(file)
    if syntax == uid.RLELossless:
        data_set.compress(uid.RLELossless)
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)
    np.testing.assert_array_equal(values_of(file), VALUES)


def test_the_values_are_the_same_in_big_endian(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    data_set = pydicom.dcmread(file)
    data_set.PixelData = VALUES.byteswap().tobytes()
    data_set.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    list(data_set)  # values that were never looked at would be written as they were read
    pydicom.dcmwrite(file, data_set, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(values_of(file), VALUES)


def test_pixels_of_another_place_are_not_held_by_the_slice(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", np.zeros((400, 400), np.uint16))
    data_set = pydicom.dcmread(file)
    data_set.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data_set.save_as(file, enforce_file_format=True)
    held = read(open_image(file)).header
    assert "content" not in vars(held)
    assert not any(isinstance(value, bytes) and len(value) > 1000 for value in vars(held).values())


@pytest.mark.parametrize("extra", [0, 4096])
def test_pixel_data_end_where_their_element_ends_whatever_follows(extra: int, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", Rows=8)  # twice as many as there are
    data_set = pydicom.dcmread(file)
    if extra:
        data_set.add_new(0xFFFCFFFC, "OB", bytes(extra))
    data_set.save_as(file)
    with pytest.raises(Quarantined, match="truncated: 48 bytes of pixel data where 96 are needed"):
        open_image(file)


def test_what_follows_the_pixel_data_is_no_part_of_the_image(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    data_set = pydicom.dcmread(file)
    data_set.add_new(0xFFFCFFFC, "OB", bytes(100))
    data_set.save_as(file)
    np.testing.assert_array_equal(values_of(file), VALUES)


def test_items_in_uncompressed_pixel_data_are_refused(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    content = file.read_bytes()
    place = content.index(b"\xe0\x7f\x10\0OW\0\0") + 8
    file.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])
    with pytest.raises(Quarantined, match="compressed pixel data that is announced as uncompressed"):
        open_image(file)


def test_compressed_pixel_data_without_items_are_refused(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    explicit, rle = b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2.5\0"
    file.write_bytes(file.read_bytes().replace(explicit, rle))
    with pytest.raises(Quarantined, match="the frames of the pixel data cannot be told apart"):
        open_image(file)


# ---- what is meant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_type", [["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "LOCALIZER"]])
def test_a_localiser_is_not_meant_even_without_a_place(image_type: list[str], tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", ImageType=image_type, ImagePositionPatient=None)
    image = open_image(file)
    with pytest.raises(NotMeant, match="a localiser"):
        read(image)


def test_a_localiser_frame_of_a_multi_frame_image_is_left_out_and_the_others_are_read(tmp_path: Path) -> None:
    file = write_enhanced([Scan(places=(0.0, 1.0, 2.0, 3.0))], tmp_path / "enhanced.dcm")
    data_set = pydicom.dcmread(file)
    kind = pydicom.Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    data_set.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [kind]
    data_set.save_as(file)
    image = open_image(file)
    with pytest.raises(NotMeant, match="a localiser"):
        read(image, 0)
    assert [read(image, index).frame for index in (1, 2, 3)] == [2, 3, 4]


def test_a_frame_that_is_not_described_is_refused(tmp_path: Path) -> None:
    file = write_enhanced([Scan(places=(0.0, 1.0, 2.0))], tmp_path / "enhanced.dcm")
    data_set = pydicom.dcmread(file)
    data_set.PerFrameFunctionalGroupsSequence = data_set.PerFrameFunctionalGroupsSequence[:2]
    data_set.save_as(file)
    image = open_image(file)
    assert read(image, 1).frame == 2
    with pytest.raises(Quarantined, match="frame 3 is not described"):
        read(image, 2)


def test_a_file_that_is_cut_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    [file] = write_scan(Scan(places=(0.0,)), tmp_path)
    image = open_image(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Quarantined, match="truncated: the file ends within"):
        read(image)
