import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSLossless

from service.errors import Quarantined
from service.series.pixels import stored_values


def image(stored: np.ndarray, *, bits: int, high: int, signed: int, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.Rows, data_set.Columns = stored.shape
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = stored.dtype.itemsize * 8, bits, high
    data_set.PixelRepresentation = signed
    data_set.PixelData = stored.tobytes()
    return data_set


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"Rows": 100}, "truncated"),
        ({"Rows": 0}, "no such image"),
        ({"BitsStored": 17}, "no such image"),
        ({"BitsAllocated": 12}, "no such image"),
    ],
)
def test_a_header_that_does_not_fit_its_pixels_is_refused(change: dict[str, object], message: str) -> None:
    data_set = image(np.zeros((4, 4), "<u2"), bits=12, high=11, signed=0)
    for name, value in change.items():
        setattr(data_set, name, value)
    with pytest.raises(Quarantined, match=message):
        stored_values(data_set)


@pytest.mark.parametrize("content", [b"", b"\xfe\xff\x00\xe0\x00\x00\x00\x00", b"nonsense" * 10])
def test_compressed_nonsense_is_refused(content: bytes) -> None:
    data_set = image(np.zeros((4, 4), "<u2"), bits=12, high=11, signed=0, syntax=JPEGLSLossless)
    data_set.PixelData = content
    with pytest.raises(Quarantined):
        stored_values(data_set)


def test_every_file_of_the_awkward_sets_is_decoded_or_refused_with_a_reason(shared_data: Path) -> None:
    outcomes = {"decoded": 0, "refused": 0}
    for file in sorted((shared_data / "dicom").glob("awkward_*/*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data_set = pydicom.dcmread(file, force=True)
            if "TransferSyntaxUID" not in data_set.file_meta:
                continue
            try:
                frames = stored_values(data_set)
            except Quarantined:
                outcomes["refused"] += 1
            else:
                assert frames[0].shape == (data_set.Rows, data_set.Columns)
                outcomes["decoded"] += 1
    assert outcomes["decoded"] >= 20
    assert outcomes["refused"] >= 20
