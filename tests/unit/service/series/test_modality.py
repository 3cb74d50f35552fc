import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from service.errors import Quarantined
from service.series.modality import modality_values, presented, windowed
from service.series.pixels import stored_values


def values(*numbers: float) -> np.ndarray:
    return np.array([numbers], np.float32)


def table(descriptor: list[int], data: bytes | list[int], sequence: str = "VOILUTSequence") -> Dataset:
    """A data set with one lookup table; bytes have the VR OW, numbers US."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [number & 0xFFFF for number in descriptor])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    data_set = Dataset()
    setattr(data_set, sequence, [item])
    return data_set


# ---- windows: values of the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3, worked by hand ------------------------------


@pytest.mark.parametrize(
    ("function", "centre", "width", "value", "seen"),
    [
        ("LINEAR", 2048, 4096, 0, 0),
        ("LINEAR", 2048, 4096, 4095, 1),
        ("LINEAR", 2048, 4096, 2047.5, 0.5),
        ("LINEAR", 2048, 1, 2047, 0),
        ("LINEAR", 2048, 1, 2048, 1),
        ("LINEAR", 0, 100, -50, 0),
        ("LINEAR", 0, 100, 49, 1),
        ("LINEAR", 0, 100, 48, 98 / 99),
        ("LINEAR", 0, 100, 3000, 1),
        ("LINEAR_EXACT", 0, 100, -50, 0),
        ("LINEAR_EXACT", 0, 100, 50, 1),
        ("LINEAR_EXACT", 0, 100, 49, 0.99),
        ("LINEAR_EXACT", 0.5, 0.5, 0.5, 0.5),
        ("SIGMOID", 0, 100, 0, 0.5),
        ("SIGMOID", 0, 100, 50, 0.880797),
        ("SIGMOID", 0, 100, -25, 0.268941),
        ("SIGMOID", 0, 1, 60000, 1),
        ("SIGMOID", 0, 1, -60000, 0),
    ],
)
def test_a_window_maps_as_the_standard_says(
    function: str, centre: float, width: float, value: float, seen: float
) -> None:
    assert windowed(values(value), centre, width, function)[0, 0] == pytest.approx(seen, abs=1e-5)


@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    centre=st.integers(-200, 5000),
    width=st.integers(2, 9000),
)
def test_windows_are_those_of_pydicom(function: str, centre: int, width: int) -> None:
    data_set = Dataset()
    data_set.PhotometricInterpretation, data_set.PixelRepresentation, data_set.BitsStored = "MONOCHROME2", 0, 12
    data_set.WindowCenter, data_set.WindowWidth, data_set.VOILUTFunction = centre, width, function
    array = np.arange(0, 4096, 7, dtype=np.float32)[None]
    seen = presented(array, data_set)
    assert seen is not None
    np.testing.assert_allclose(seen, apply_windowing(array, data_set) / 4095, atol=1e-4)


@pytest.mark.parametrize(
    ("centre", "width", "function"),
    [(0, 0, "LINEAR"), (0, 0.5, "LINEAR"), (0, -5, "SIGMOID"), (0, 0, "LINEAR_EXACT"), (float("nan"), 5, "LINEAR")],
)
def test_a_window_of_no_width_is_an_error(centre: float, width: float, function: str) -> None:
    with pytest.raises(ValueError, match="no window has"):
        windowed(values(1, 2), centre, width, function)


def test_an_unknown_function_is_an_error() -> None:
    with pytest.raises(ValueError, match="no VOI LUT Function"):
        windowed(values(1, 2), 1, 2, "CUBIC")


def test_the_first_of_several_windows_is_taken_and_a_table_goes_before_windows() -> None:
    data_set = Dataset()
    data_set.WindowCenter, data_set.WindowWidth, data_set.VOILUTFunction = [50, 7], [100, 3], "LINEAR_EXACT"
    np.testing.assert_allclose(presented(values(0, 25, 100), data_set), [[0, 0.25, 1]])
    data_set.VOILUTSequence = table([2, 0, 8], [0, 10]).VOILUTSequence
    np.testing.assert_allclose(presented(values(0, 25, 100), data_set), [[0, 1, 1]])


@pytest.mark.parametrize("centre", [None, "", []])
def test_without_table_and_window_nothing_is_presented(centre: object) -> None:
    data_set = Dataset()
    data_set.WindowCenter, data_set.WindowWidth = centre, None
    assert presented(values(1, 2), data_set) is None


# ---- tables (C.11.1.1, C.11.2.1.1) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_values_outside_of_a_table_have_its_first_and_its_last_entry(bits: int) -> None:
    mapped = modality_values(values(-5, 10, 11, 12, 900), table([3, 10, bits], [7, 9, 200], "ModalityLUTSequence"))
    np.testing.assert_array_equal(mapped, [[7, 7, 9, 200, 200]])
    assert mapped.dtype == np.float32


def test_the_first_value_of_a_table_may_be_negative_whatever_its_vr() -> None:
    data_set = table([4, -2, 16], [1, 2, 3, 4], "ModalityLUTSequence")
    stored = np.array([[-3, -2, -1, 0, 1, 2]], np.int16)
    np.testing.assert_array_equal(modality_values(stored, data_set), [[1, 1, 2, 3, 4, 4]])


def test_a_large_first_value_stays_large_where_the_image_reaches_it() -> None:
    data_set = table([2, 40000, 16], [1, 2], "ModalityLUTSequence")
    stored = np.array([[100, 40000, 40001]], np.uint16)
    np.testing.assert_array_equal(modality_values(stored, data_set), [[1, 1, 2]])


def test_a_table_of_8_bits_may_have_more_than_256_entries() -> None:
    # pydicom 3.0's apply_voi_lut wraps the index around here: 300 becomes 44
    data_set = table([400, 0, 8], [min(number, 255) for number in range(400)])
    np.testing.assert_allclose(presented(values(0, 100, 300), data_set), [[0, 100 / 255, 1]])


@pytest.mark.parametrize("data", [struct.pack("<4B", 10, 20, 30, 40), [10 | 20 << 8, 30 | 40 << 8]])
def test_two_entries_of_8_bits_may_lie_in_one_word(data: bytes | list[int]) -> None:
    mapped = modality_values(values(0, 1, 2, 3), table([4, 0, 8], data, "ModalityLUTSequence"))
    np.testing.assert_array_equal(mapped, [[10, 20, 30, 40]])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_words_of_a_table_have_the_byte_order_of_the_file(syntax: str) -> None:
    order = "<" if syntax == ExplicitVRLittleEndian else ">"
    data_set = table([3, 0, 16], struct.pack(f"{order}3H", 1, 256, 40000), "ModalityLUTSequence")
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    file = DicomBytesIO()
    data_set.save_as(file, implicit_vr=False, little_endian=order == "<", enforce_file_format=False)
    file.seek(0)
    read = pydicom.dcmread(file, force=True)
    np.testing.assert_array_equal(modality_values(values(0, 1, 2), read), [[1, 256, 40000]])


def test_no_number_of_entries_means_65536() -> None:
    data_set = table([0, 0, 16], np.arange(65536, dtype="<u2").tobytes(), "ModalityLUTSequence")
    np.testing.assert_array_equal(modality_values(np.array([[5, 65535]], np.uint16), data_set), [[5, 65535]])


def test_a_table_that_contradicts_its_descriptor_is_an_error() -> None:
    with pytest.raises(Quarantined, match="LUT of 2 entries where its descriptor says 4"):
        modality_values(values(1), table([4, 0, 16], [1, 2], "ModalityLUTSequence"))
    with pytest.raises(ValueError, match="LUT of 2 entries"):
        presented(values(1), table([4, 0, 16], [1, 2]))
    with pytest.raises(ValueError, match="one value only"):
        presented(values(1), table([2, 0, 16], [5, 5]))
    broken = table([4, 0, 16], [1, 2])
    del broken.VOILUTSequence[0].LUTDescriptor
    with pytest.raises(ValueError, match="incomplete"):
        presented(values(1), broken)


@pytest.mark.parametrize(
    ("name", "transform"), [("pydicom_mlut_18.dcm", "modality"), ("pydicom_vlut_04.dcm", "VOI")], ids=["mlut", "vlut"]
)
def test_the_tables_of_real_files_map_as_pydicom_maps_them(shared_data: Path, name: str, transform: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = pydicom.dcmread(shared_data / "dicom" / "cr" / name)
        (stored,) = stored_values(data_set)
        if transform == "modality":
            np.testing.assert_array_equal(modality_values(stored, data_set), apply_modality_lut(stored, data_set))
        else:
            seen, expected = presented(stored.astype(np.float32), data_set), apply_voi_lut(stored, data_set)
            data = np.asarray(data_set.VOILUTSequence[0].LUTData)
            np.testing.assert_allclose(seen, (expected - data.min()) / np.ptp(data), atol=1e-6)


# ---- slope and intercept ---------------------------------------------------------------------------------------------


def test_slope_and_intercept_are_applied_and_a_table_replaces_them() -> None:
    data_set = Dataset()
    data_set.RescaleSlope, data_set.RescaleIntercept = "-0.5", "100"
    np.testing.assert_array_equal(modality_values(np.array([[0, 10]], np.uint16), data_set), [[100, 95]])
    data_set.ModalityLUTSequence = table([2, 0, 16], [3, 4], "ModalityLUTSequence").ModalityLUTSequence
    np.testing.assert_array_equal(modality_values(np.array([[0, 10]], np.uint16), data_set), [[3, 4]])


def test_without_a_transform_stored_values_are_the_modality_s() -> None:
    data_set = Dataset()
    data_set.RescaleSlope = "2"
    np.testing.assert_array_equal(modality_values(np.array([[0, 10]], np.uint16), data_set), [[0, 10]])


@pytest.mark.parametrize("slope", ["0", "NaN", "inf"])
def test_a_slope_that_leaves_no_image_is_refused(slope: str) -> None:
    data_set = Dataset()
    data_set.RescaleSlope, data_set.RescaleIntercept = float(slope), "0"
    with pytest.raises(Quarantined, match="no image is left"):
        modality_values(np.array([[0, 10]], np.uint16), data_set)
