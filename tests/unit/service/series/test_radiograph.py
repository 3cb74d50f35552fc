import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset

from engines.inference.analyse import analyse
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Radiograph
from service.errors import Quarantined
from service.series.radiograph import radiograph
from tests.conftest import REPO_ROOT
from tests.unit.engines.test_inference import EIGHT_WAYS

RAMP = np.arange(4096, dtype="<u2").reshape(64, 64)


def xray(stored: np.ndarray, **attributes: object) -> Dataset:
    """A digital X-ray for presentation, MONOCHROME2, of 12 bits."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    data_set.SOPClassUID, data_set.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    data_set.PresentationIntentType = "FOR PRESENTATION"
    data_set.Rows, data_set.Columns = stored.shape[-2:]
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 16, 12, 11, 0
    data_set.PixelData = stored.astype("<u2").tobytes()
    data_set.ImagerPixelSpacing = [0.2, 0.1]
    for name, value in attributes.items():
        setattr(data_set, name, value)
    return data_set


def made(data_set: Dataset) -> tuple[np.ndarray, str]:
    image, notes = radiograph(Path("unused"), data_set)
    assert image.array.dtype == np.float32
    assert image.array.flags.c_contiguous
    return image.array, " ".join(notes)


def test_an_image_keeps_its_values_where_no_transform_is_given() -> None:
    image, notes = radiograph(Path("unused"), xray(RAMP, PatientOrientation=["R", "F"]))
    np.testing.assert_array_equal(image.array, RAMP)
    assert (image.spacing, image.orientation, image.source) == ((0.2, 0.1), ("R", "F"), "1.2.3")
    assert len(notes) == 1


def test_the_window_is_applied_and_monochrome1_inverted_after_it() -> None:
    window = {"WindowCenter": 1000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}
    expected = np.clip((RAMP - 500.0) / 1000, 0, 1)
    np.testing.assert_allclose(made(xray(RAMP, **window))[0], expected, atol=1e-5)
    inverted, _ = made(xray(RAMP, **window, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted, 1 - expected, atol=1e-5)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "noted"),
    [
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME2", "INVERSE", False, True),
        ("MONOCHROME1", None, True, False),
    ],
)
def test_the_presentation_lut_shape_inverts_nothing_a_second_time(
    photometric: str, shape: str | None, inverted: bool, noted: bool
) -> None:
    values, notes = made(xray(RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert (values[0, 0] > values[-1, -1]) == inverted
    assert ("contradicts" in notes) == noted


@pytest.mark.parametrize(
    "attributes",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": uid.DigitalXRayImageStorageForProcessing, "PresentationIntentType": None},
    ],
)
def test_an_image_for_processing_is_not_windowed_and_the_reader_is_told(attributes: dict[str, object]) -> None:
    values, notes = made(xray(RAMP, WindowCenter=1000, WindowWidth=1000, **attributes))
    np.testing.assert_array_equal(values, RAMP)
    assert "FOR PROCESSING" in notes


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ({"WindowCenter": 9000, "WindowWidth": 100}, "almost nothing"),
        ({"WindowCenter": 2000, "WindowWidth": 2}, "almost nothing"),
        ({"WindowCenter": 2000, "WindowWidth": 1e7}, "almost nothing"),
        ({"WindowCenter": 2000, "WindowWidth": 0}, "no window"),
        ({"WindowCenter": 2000, "WindowWidth": 400, "VOILUTFunction": "OTHER"}, "no VOI LUT Function"),
    ],
)
def test_a_window_that_shows_nothing_is_ignored_with_a_note(attributes: dict[str, object], note: str) -> None:
    values, notes = made(xray(RAMP, **attributes))
    np.testing.assert_array_equal(values, RAMP)
    assert "window was ignored" in notes
    assert note in notes


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("surround", [0, 4095])
def test_padding_becomes_the_darkest_and_is_not_counted_as_seen(photometric: str, surround: int) -> None:
    stored = np.full((64, 64), surround)
    stored[20:40, 20:40] = np.linspace(1000, 2000, 400).reshape(20, 20)
    values, notes = made(
        xray(
            stored,
            PhotometricInterpretation=photometric,
            PixelPaddingValue=surround,
            WindowCenter=1500,
            WindowWidth=1001,
            VOILUTFunction="LINEAR_EXACT",
        )
    )
    assert "ignored" not in notes
    assert np.ptp(values[20:40, 20:40]) > 0.9
    outside = np.ones(values.shape, bool)
    outside[20:40, 20:40] = False
    assert (values[outside] == values[20:40, 20:40].min()).all()


def test_an_image_that_is_nothing_but_padding_is_even() -> None:
    values, _ = made(xray(np.zeros((8, 8)), PixelPaddingValue=0))
    assert np.ptp(values) == 0


def test_loss_in_any_compression_is_told_to_the_reader(shared_data: Path) -> None:
    assert "with loss" not in made(xray(RAMP))[1]
    assert "with loss" in made(xray(RAMP, LossyImageCompression="01"))[1]
    for name, lossy in (("RG2_JPLY", True), ("RG2_JPLL", False), ("RG1_JLSN", True)):
        _, notes = radiograph(Path("unused"), pydicom.dcmread(shared_data / "dicom" / "cr" / f"wg04_{name}.dcm"))
        assert ("The source image was compressed with loss." in notes) == lossy


def test_several_frames_are_refused() -> None:
    with pytest.raises(Quarantined, match="2 frames"):
        radiograph(Path("unused"), xray(RAMP, Rows=32, NumberOfFrames=2))


def test_pixels_of_unknown_size_and_known_shape_have_an_aspect() -> None:
    data_set = xray(RAMP, PixelAspectRatio=[2, 1])
    assert radiograph(Path("unused"), data_set)[0].pixel == (0.2, 0.1)
    del data_set.ImagerPixelSpacing
    image, _ = radiograph(Path("unused"), data_set)
    assert (image.spacing, image.pixel) == (None, (2.0, 1.0))


# ---- real files ------------------------------------------------------------------------------------------------------


def real(file: Path) -> tuple[Radiograph, Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in data_set.file_meta:  # the receiver writes what the association negotiated
            implicit, _ = data_set.original_encoding
            data_set.file_meta.TransferSyntaxUID = (
                uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
            )
        return radiograph(file, data_set)[0], data_set


def test_no_real_image_becomes_black_or_posterised(shared_data: Path) -> None:
    files = [file for file in sorted((shared_data / "dicom" / "cr").iterdir()) if file.suffix != ".txt"]
    assert len(files) >= 14
    for file in files:
        image, _ = real(file)
        low, high = np.percentile(image.array, (0.5, 99.5))
        counts = np.histogram(image.array, 64, (low, high))[0]
        assert high > low, file.name
        assert np.count_nonzero(counts) > 12, file.name


@pytest.mark.parametrize(
    "name",
    ["fo_CR-MONO1-10-chest_nopreamble", "txv_1.2.276.0.7230010.3..dcm", "wg04_RG1_J2KI.dcm", "wg04_RG1_JLSN.dcm"],
)
def test_the_spine_is_brighter_than_the_lungs_in_every_real_chest(shared_data: Path, name: str) -> None:
    image, _ = real(shared_data / "dicom" / "cr" / name)
    rows, columns = image.array.shape
    band = image.array[int(0.35 * rows) : int(0.5 * rows)]
    middle, left, right = (
        np.median(band[:, int(low * columns) : int(high * columns)])
        for low, high in ((0.45, 0.55), (0.2, 0.3), (0.72, 0.82))
    )
    assert middle > left
    assert middle > right


def test_lossless_encodings_of_one_image_give_one_image(shared_data: Path) -> None:
    first, *others = (
        real(shared_data / "dicom" / "cr" / f"wg04_RG3_{name}.dcm")[0].array for name in ("JPLL", "J2KR", "JLSL", "RLE")
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_the_lungs_of_a_real_chest_are_found_whichever_way_it_was_stored(shared_data: Path) -> None:
    upright, data_set = real(shared_data / "dicom" / "cr" / "wg04_RG1_JLSN.dcm")
    package = load_package(REPO_ROOT / "engines" / "models" / "cxr-lung")
    stored = np.round(upright.array * 30000).astype("<u2")
    with create_engine(package, RuntimeSettings()) as engine:

        def lungs(image: Radiograph) -> np.ndarray:
            found = analyse(package, engine, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)).label_map
            assert found is not None
            return found.array

        expected = lungs(upright)
        assert 0.1 < (expected > 0).mean() < 0.5
        for orientation, turn in EIGHT_WAYS.items():
            turned = turn(stored)
            data_set = xray(turned, BitsStored=16, HighBit=15, PatientOrientation=list(orientation))
            data_set.ImagerPixelSpacing = [0.2, 0.2]
            image, _ = radiograph(Path("unused"), data_set)
            found, wanted = lungs(image), turn(expected)
            for segment in package.segments:
                one, other = found == segment.number, wanted == segment.number
                assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.98, (orientation, segment.label)
