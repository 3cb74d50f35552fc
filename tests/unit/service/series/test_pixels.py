import io
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSLossless

from service.errors import Quarantined
from service.receive.contexts import DECODABLE
from service.series.pixel_description import PixelDescription, describe
from service.series.pixels import coded_frames, decode_frame, native_frame, stored_values
from tests.validators import require_tool


def image(
    stored: np.ndarray, *, bits: int, high: int, signed: int, syntax: str = ExplicitVRLittleEndian, frames: int = 0
) -> Dataset:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.Rows, data_set.Columns = stored.shape[-2:]
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = stored.dtype.itemsize * 8, bits, high
    data_set.PixelRepresentation = signed
    if frames:
        data_set.NumberOfFrames = frames
    data_set.PixelData = stored.tobytes()
    return data_set


def compressed(frames: list[bytes], like: np.ndarray, syntax: str, *, bits: int, signed: int = 0) -> Dataset:
    data_set = image(like, bits=bits, high=bits - 1, signed=signed, syntax=syntax, frames=len(frames))
    data_set.PixelData = encapsulate(frames)
    return data_set


# ---- uncompressed ----------------------------------------------------------------------------------------------------


def test_overlay_bits_above_the_high_bit_are_dropped() -> None:
    stored = np.array([[0x0FFF, 0x1FFF, 0xF001]], "<u2")
    (values,) = stored_values(image(stored, bits=12, high=11, signed=0))
    np.testing.assert_array_equal(values, [[4095, 4095, 1]])


def test_the_sign_is_that_of_the_high_bit() -> None:
    stored = np.array([[0x0FFF, 0x0800, 0x07FF]], "<u2")
    (values,) = stored_values(image(stored, bits=12, high=11, signed=1))
    np.testing.assert_array_equal(values, [[-1, -2048, 2047]])


def test_values_that_sit_high_in_the_word_are_shifted() -> None:
    stored = np.array([[0xFFF0, 0x0010]], "<u2")
    (values,) = stored_values(image(stored, bits=12, high=15, signed=0))
    np.testing.assert_array_equal(values, [[4095, 1]])


def test_big_endian_is_read_as_such() -> None:
    stored = np.array([[1, 256]], ">u2")
    (values,) = stored_values(image(stored, bits=16, high=15, signed=0, syntax=ExplicitVRBigEndian))
    np.testing.assert_array_equal(values, [[1, 256]])
    assert values.dtype == np.dtype("u2")


@st.composite
def cells(draw: st.DrawFn) -> tuple[int, int, int, bool, int]:
    """BitsAllocated, BitsStored, HighBit, PixelRepresentation, and one cell with anything in its unused bits."""
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(1, allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    return allocated, stored, high, draw(st.booleans()), draw(st.integers(0, (1 << allocated) - 1))


@given(cell=cells(), order=st.sampled_from("<>"))
def test_any_cell_gives_the_value_between_its_high_and_its_low_bit(
    cell: tuple[int, int, int, bool, int], order: str
) -> None:
    allocated, stored, high, signed, content = cell
    expected = (content >> (high + 1 - stored)) & ((1 << stored) - 1)
    if signed and expected >> (stored - 1):
        expected -= 1 << stored
    array = np.array([[content]], f"{order}u{allocated // 8}")
    syntax = ExplicitVRLittleEndian if order == "<" else ExplicitVRBigEndian
    (values,) = stored_values(image(array, bits=stored, high=high, signed=signed, syntax=syntax))
    assert values.dtype == np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    assert int(values[0, 0]) == expected


def test_the_smallest_and_the_largest_value_of_the_header_change_nothing() -> None:
    data_set = image(np.array([[5, 900]], "<u2"), bits=12, high=11, signed=0)
    data_set.SmallestImagePixelValue, data_set.LargestImagePixelValue = 100, 200
    np.testing.assert_array_equal(stored_values(data_set)[0], [[5, 900]])


def test_an_odd_length_is_padded_and_one_frame_is_taken_where_their_number_is_missing() -> None:
    stored = np.arange(9, dtype="u1").reshape(3, 3)
    data_set = image(stored, bits=8, high=7, signed=0)
    data_set.PixelData += b"\0"
    (values,) = stored_values(data_set)
    np.testing.assert_array_equal(values, stored)


def test_frames_of_odd_length_follow_each_other_without_a_gap() -> None:
    stored = np.arange(27, dtype="u1").reshape(3, 3, 3)
    data_set = image(stored, bits=8, high=7, signed=0, frames=3)
    data_set.PixelData += b"\0"
    np.testing.assert_array_equal(np.stack(stored_values(data_set)), stored)


def test_bytes_in_big_endian_words_change_places() -> None:
    stored = np.arange(18, dtype="u1").reshape(2, 3, 3)
    data_set = image(stored, bits=8, high=7, signed=0, syntax=ExplicitVRBigEndian, frames=2)
    swapped = stored.ravel().reshape(-1, 2)[:, ::-1].tobytes()
    data_set.add_new("PixelData", "OW", swapped)
    np.testing.assert_array_equal(np.stack(stored_values(data_set)), stored)
    data_set.add_new("PixelData", "OB", stored.tobytes())
    np.testing.assert_array_equal(np.stack(stored_values(data_set)), stored)


def test_uncompressed_frames_are_views_of_the_buffer_where_nothing_has_to_be_changed() -> None:
    stored = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    buffer = memoryview(stored.tobytes() + b"what follows in the file")
    description = describe(image(stored, bits=16, high=15, signed=1, frames=2))
    frame = native_frame(buffer, description, 1)
    np.testing.assert_array_equal(frame, stored[1])
    assert np.shares_memory(frame, np.frombuffer(buffer, "u1"))


# ---- compressed ------------------------------------------------------------------------------------------------------

RAMP = np.arange(1024, dtype="u2").reshape(32, 32) * 4 + 3
"""12-bit values that fill their range."""


def htj2k(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.htj2k_encode(array, reversible=True))


def jpeg2k(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, bitspersample=12))


LOSSLESS: list[tuple[str, Callable[[np.ndarray], bytes]]] = [
    (uid.JPEGLosslessSV1, imagecodecs.ljpeg_encode),
    (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    (uid.JPEG2000Lossless, jpeg2k),
    (uid.HTJ2KLossless, htj2k),
    (uid.HTJ2KLosslessRPCL, htj2k),
]
IDS = [syntax.name for syntax, _ in LOSSLESS]


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS, ids=IDS)
def test_a_lossless_frame_comes_back_exactly(syntax: str, encode: Callable[[np.ndarray], bytes]) -> None:
    (values,) = stored_values(compressed([encode(RAMP)], RAMP, syntax, bits=12))
    np.testing.assert_array_equal(values, RAMP)
    assert values.dtype == np.dtype("u2")


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS, ids=IDS)
def test_an_unsigned_code_stream_in_a_signed_image_is_twos_complement(
    syntax: str, encode: Callable[[np.ndarray], bytes]
) -> None:
    (values,) = stored_values(compressed([encode(RAMP)], RAMP, syntax, bits=12, signed=1))
    np.testing.assert_array_equal(values, np.where(RAMP >= 2048, RAMP.astype(int) - 4096, RAMP))
    assert values.dtype == np.dtype("i2")


@pytest.mark.parametrize("encode", [jpeg2k, htj2k])
def test_a_signed_code_stream_gives_its_bits_to_an_unsigned_image(encode: Callable[[np.ndarray], bytes]) -> None:
    signed = (RAMP.astype("i2") - 2048).astype("i2")
    syntax = uid.JPEG2000Lossless if encode is jpeg2k else uid.HTJ2KLossless
    (as_signed,) = stored_values(compressed([encode(signed)], RAMP, syntax, bits=12, signed=1))
    np.testing.assert_array_equal(as_signed, signed)
    (as_unsigned,) = stored_values(compressed([encode(signed)], RAMP, syntax, bits=12, signed=0))
    np.testing.assert_array_equal(as_unsigned, signed.view("u2") & 0x0FFF)


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS[:2], ids=IDS[:2])
def test_overlays_in_the_unused_bits_of_a_compressed_image_are_dropped(
    syntax: str, encode: Callable[[np.ndarray], bytes]
) -> None:
    (values,) = stored_values(compressed([encode(RAMP | 0x9000)], RAMP, syntax, bits=12))
    np.testing.assert_array_equal(values, RAMP)


def test_htj2k_is_decoded_as_another_decoder_does() -> None:
    data_set = compressed([htj2k(RAMP)], RAMP, uid.HTJ2KLossless, bits=12)
    (coded,) = coded_frames(data_set.PixelData, describe(data_set))
    np.testing.assert_array_equal(stored_values(data_set)[0], np.asarray(PIL.Image.open(io.BytesIO(coded))))


@pytest.mark.parametrize("table", [True, False], ids=["offset table", "no offset table"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_in_fragments_are_put_together(table: bool, fragments: int) -> None:
    frames = [bytes(imagecodecs.jpegls_encode(RAMP + number)) for number in range(3)]
    data_set = compressed(frames, RAMP, JPEGLSLossless, bits=13)
    data_set.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=table)
    for number, values in enumerate(stored_values(data_set)):
        np.testing.assert_array_equal(values, RAMP + number)


def test_a_narrow_code_stream_fits_in_a_wide_cell_and_not_the_other_way_round() -> None:
    narrow = (RAMP >> 4).astype("u1")
    coded = bytes(imagecodecs.jpegls_encode(narrow))
    (values,) = stored_values(compressed([coded], RAMP, JPEGLSLossless, bits=12))
    np.testing.assert_array_equal(values, narrow)
    with pytest.raises(Quarantined, match=r"16 bits where .* of 8 are announced"):
        stored_values(compressed([bytes(imagecodecs.jpegls_encode(RAMP))], narrow, JPEGLSLossless, bits=8))


@pytest.mark.parametrize("shape", [(16, 64), (32, 32, 3)])
def test_a_code_stream_of_another_size_or_in_colour_is_refused(shape: tuple[int, ...]) -> None:
    coded = bytes(imagecodecs.jpegls_encode(np.zeros(shape, "u1")))
    with pytest.raises(Quarantined, match=r"where \(32, 32\) of 16 are announced"):
        stored_values(compressed([coded], RAMP, JPEGLSLossless, bits=12))


@pytest.mark.parametrize("content", [b"", b"\xfe\xff\x00\xe0\x00\x00\x00\x00", b"nonsense" * 10])
def test_compressed_nonsense_is_refused(content: bytes) -> None:
    data_set = image(np.zeros((4, 4), "<u2"), bits=12, high=11, signed=0, syntax=JPEGLSLossless)
    data_set.PixelData = content
    with pytest.raises(Quarantined):
        stored_values(data_set)


def test_too_few_compressed_frames_are_refused() -> None:
    data_set = compressed([bytes(imagecodecs.jpegls_encode(RAMP))], RAMP, JPEGLSLossless, bits=12)
    data_set.NumberOfFrames = 2
    with pytest.raises(Quarantined, match="frame"):
        stored_values(data_set)


@pytest.mark.parametrize("syntax", DECODABLE, ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_that_is_accepted_can_be_read(syntax: uid.UID) -> None:
    description = describe(image(RAMP, bits=12, high=11, signed=0, syntax=syntax))
    assert description.encapsulated == syntax.is_encapsulated
    if description.encapsulated:
        with pytest.raises(Quarantined, match="cannot be decoded"):
            decode_frame(b"no frame", description)


# ---- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette"),
        ({"PhotometricInterpretation": None}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"Rows": 100}, "truncated"),
        ({"NumberOfFrames": 2}, "truncated"),
        ({"Rows": 0}, "no such image"),
        ({"NumberOfFrames": -1}, "no such image"),
        ({"BitsStored": 17}, "no such image"),
        ({"BitsStored": 0}, "no such image"),
        ({"HighBit": 10}, "no such image"),
        ({"HighBit": 16}, "no such image"),
        ({"BitsAllocated": 64}, "no such image"),
        ({"Rows": 65535, "Columns": 65535}, "no CT slice or X-ray is that large"),
        ({"BitsAllocated": 12}, "12-bit pixels packed"),
        ({"BitsAllocated": 1}, "one bit per pixel"),
        ({"BitsStored": None}, "incomplete"),
    ],
)
def test_a_header_that_does_not_fit_its_pixels_is_refused(change: dict[str, object], message: str) -> None:
    data_set = image(np.zeros((4, 4), "<u2"), bits=12, high=11, signed=0)
    for name, value in change.items():
        setattr(data_set, name, value)
    with pytest.raises(Quarantined, match=message):
        stored_values(data_set)


def test_pixels_that_are_not_there_and_syntaxes_that_are_not_read_are_refused_with_a_reason() -> None:
    data_set = image(RAMP, bits=12, high=11, signed=0)
    data_set.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    with pytest.raises(Quarantined, match="MPEG2"):
        stored_values(data_set)
    del data_set.PixelData
    with pytest.raises(Quarantined, match="no pixel data"):
        stored_values(data_set)


def test_a_description_needs_no_pixels_and_the_high_bit_may_be_missing() -> None:
    data_set = image(RAMP, bits=12, high=11, signed=0)
    del data_set.PixelData, data_set.HighBit
    assert describe(data_set) == PixelDescription(32, 32, 1, 16, 12, 11, False, ExplicitVRLittleEndian)


# ---- real files ------------------------------------------------------------------------------------------------------

REFUSED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "cannot be decoded",  # a code stream of 250 bytes, made for parsers
    "MR_truncated.dcm": "truncated",
    "badVR.dcm": "incomplete",  # NumberOfFrames is "1A"
}
"""Greyscale files with pixels that are refused, and why."""

DCT = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
"""Decoders may round differently here, by 1 (ITU-T T.83); everything else has to be equal."""


def other_decoder(file: Path, data_set: Dataset, folder: Path) -> np.ndarray:
    """The stored values as DCMTK (JPEG), pyjpegls, Pillow (JPEG 2000) or pydicom (RLE, uncompressed) read them."""
    syntax = data_set.file_meta.TransferSyntaxUID
    if syntax in (*DCT, uid.JPEGLossless, uid.JPEGLosslessSV1):
        plain = folder / "plain.dcm"
        subprocess.run([require_tool("dcmdjpeg"), file, plain], check=True, capture_output=True)
        data_set = pydicom.dcmread(plain)
        syntax = data_set.file_meta.TransferSyntaxUID
    values: np.ndarray = get_decoder(syntax).as_array(data_set, raw=True)[0]
    return values


def greyscale(folder: Path) -> list[tuple[Path, Dataset]]:
    """Every file with greyscale pixels of 8 bits and more and a transfer syntax."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        data_set = pydicom.dcmread(file, force=True)
        if (
            "PixelData" in data_set
            and "TransferSyntaxUID" in data_set.file_meta
            and data_set.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
            and data_set.BitsAllocated > 1
        ):
            found.append((file, data_set))
    return found


FOLDERS = {
    "awkward_pydicom": 27,
    "cr": 13,
    "ct_cip64_79slices": 79,
    "ct_enhanced_multiframe_2fr": 10,
    "ct_ge_tilt_variable_spacing": 28,
    "ct_mr_failing_geometry": 16,
    "ct_nlst101287_toshiba_jpegls_plus_sybil_sr": 143,
    "ct_siemens_j2k_totalseg": 20,
    "seg_dcmqi": 13,
    "seg_sr_highdicom": 4,
}
"""How many such files there are at least."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLDERS)
def test_every_real_file_has_the_values_that_another_decoder_gives_it(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    files = greyscale(shared_data / "dicom" / name)
    assert len(files) >= FOLDERS[name]
    for file, data_set in files:
        if file.name in REFUSED:
            with pytest.raises(Quarantined, match=REFUSED[file.name]):
                stored_values(data_set)
            continue
        values, expected = np.stack(stored_values(data_set)), other_decoder(file, data_set, tmp_path)
        apart = np.abs(values.astype(np.int64) - expected.astype(np.int64).reshape(values.shape)).max()
        assert apart <= (1 if data_set.file_meta.TransferSyntaxUID in DCT else 0), file.name


def outcome(data_set: Dataset) -> Any:
    try:
        return stored_values(data_set)[0].shape
    except Quarantined as error:
        return str(error)


def test_every_file_of_the_awkward_sets_is_decoded_or_refused_with_a_reason(shared_data: Path) -> None:
    outcomes = []
    for file in sorted((shared_data / "dicom").glob("awkward_*/*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = pydicom.dcmread(file, force=True)
            if "TransferSyntaxUID" in data_set.file_meta:
                outcomes.append((outcome(data_set), (data_set.get("Rows"), data_set.get("Columns"))))
    decoded = [found == announced for found, announced in outcomes if not isinstance(found, str)]
    refused = [found for found, _ in outcomes if isinstance(found, str)]
    assert all(decoded)
    assert len(decoded) >= 20
    assert sum("colour image" in reason for reason in refused) >= 15
    assert sum("palette" in reason for reason in refused) == 1
    assert sum("one bit" in reason for reason in refused) == 2
