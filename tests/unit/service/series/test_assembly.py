import shutil
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.types import Radiograph, Volume
from service.series.assembly import assemble
from tests.synthetic_ct import Scan, write_scan

NLST = "dicom/ct_nlst101287_toshiba_jpegls_plus_sybil_sr"


def volume_of(files: list[Path]) -> Volume:
    (item,) = assemble(files).items
    assert isinstance(item.image, Volume)
    return item.image


def radiograph_of(file: Path) -> Radiograph:
    (item,) = assemble([file]).items
    assert isinstance(item.image, Radiograph)
    return item.image


def altered(folder: Path, source: Path, **attributes: object) -> Path:
    data_set = pydicom.dcmread(source)
    for name, value in attributes.items():
        if value is None:
            delattr(data_set, name)
        else:
            setattr(data_set, name, value)
    path = folder / source.name
    data_set.save_as(path)
    return path


def test_a_series_gives_the_volume_that_itk_reads(phantom_ct: Path) -> None:
    files = sorted(phantom_ct.iterdir())
    volume = volume_of(list(np.random.default_rng(0).permutation(np.array(files))))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(phantom_ct)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert volume.array.dtype == np.int16
    for index in [(0, 0, 0), (10, 20, 30), (100, 250, 3)]:
        expected = image.TransformIndexToPhysicalPoint(tuple(reversed(index)))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], expected, atol=1e-4)


def test_the_real_jpeg_ls_series_has_the_values_that_gdcm_decodes_in_the_order_of_their_positions(
    shared_data: Path,
) -> None:
    files = sorted((shared_data / NLST).glob("CT*/*"))
    volume = volume_of(files)
    assert volume.array.shape == (143, 512, 512)
    assert volume.spacing == pytest.approx((2.0, *volume.spacing[1:]))
    for index in (0, 71, 142):
        file = next(file for file in files if pydicom.dcmread(file).SOPInstanceUID == volume.sources[index])
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0]
        np.testing.assert_array_equal(volume.array[index], expected)
    positions = {uid: float(z) for uid, z in _positions(files)}
    along = [positions[uid] for uid in volume.sources]
    assert along == sorted(along)


def _positions(files: list[Path]) -> list[tuple[str, float]]:
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    return [(header.SOPInstanceUID, header.ImagePositionPatient[2]) for header in headers]


def test_one_image_in_many_encodings_has_the_same_values(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ct_enhanced_multiframe_2fr"
    lossless = [file for file in sorted(folder.glob("CT0012*")) if ".51." not in file.name and ".81." not in file.name]
    reference = volume_of([folder / "CT0012.explicit_little_endian.dcm"]).array
    assert len(lossless) == 8
    for file in lossless:
        np.testing.assert_array_equal(volume_of([file]).array, reference, err_msg=file.name)


def test_a_lossy_source_is_noted_for_the_reader(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "ct_enhanced_multiframe_2fr"
    (item,) = assemble([folder / "CT0012.fragmented_no_bot_jpeg_ls.81.dcm"]).items
    assert item.notes == ("The source image was compressed with loss.",)


@pytest.mark.parametrize("name", ["wg04_RG3_J2KR.dcm", "wg04_RG3_JLSL.dcm", "wg04_RG3_JPLL.dcm", "wg04_RG3_RLE.dcm"])
def test_one_radiograph_in_many_encodings_has_the_same_values(name: str, shared_data: Path) -> None:
    folder = shared_data / "dicom" / "cr"
    reference = radiograph_of(folder / "wg04_RG3_JPLL.dcm").array
    np.testing.assert_array_equal(radiograph_of(folder / name).array, reference)


def test_monochrome1_is_turned_so_that_bone_is_bright(phantom_xray: Path, tmp_path: Path) -> None:
    (source,) = phantom_xray.iterdir()
    straight = radiograph_of(source).array
    inverse = radiograph_of(altered(tmp_path, source, PhotometricInterpretation="MONOCHROME1")).array
    assert np.corrcoef(straight.ravel(), inverse.ravel())[0, 1] == pytest.approx(-1)
    assert (inverse.min(), inverse.max()) == (straight.min(), straight.max())


def test_an_xray_without_pixel_data_is_left_out_with_the_reason(phantom_xray: Path, tmp_path: Path) -> None:
    (source,) = phantom_xray.iterdir()
    assembly = assemble([altered(tmp_path, source, PixelData=None)])
    assert assembly.items == ()
    assert [(one.reason, one.faulty) for one in assembly.left_out] == [
        ("no pixel data; send the image again from its source", True)
    ]


def test_a_truncated_slice_is_left_out_and_the_gap_is_told(phantom_ct: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    shutil.copytree(phantom_ct, folder)
    files = sorted(folder.iterdir())
    files[50].write_bytes(files[50].read_bytes()[:-1000])
    [item] = assemble(files).items
    assert item.facts.missing_slices == 1
    assert item.notes == (
        "1 slice is missing between the first and the last one; the widest distance is 5.0 mm where 2.5 mm is usual.",
        "1 image of the series could not be used; the volume may be incomplete.",
    )
    files[0].write_bytes(files[0].read_bytes()[:-1000])
    assembly = assemble([files[0], *files[1:50]])
    assert assembly.items[0].facts.slices == 49
    assert assembly.items[0].notes == ("1 image of the series could not be used; the volume may be incomplete.",)
    assert assembly.left_out[0].faulty
    assert "truncated" in assembly.left_out[0].reason


def test_a_localiser_is_left_out_and_nothing_is_wrong_with_it(phantom_ct: Path, tmp_path: Path) -> None:
    files = sorted(phantom_ct.iterdir())
    localiser = altered(tmp_path, files[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assembly = assemble([localiser, *files[1:40]])
    assert assembly.items[0].facts.slices == 39
    assert [(one.file, one.faulty) for one in assembly.left_out] == [(localiser, False)]


def test_a_report_that_travels_along_is_never_processed(shared_data: Path) -> None:
    (report,) = (shared_data / NLST).glob("SR*")
    files = [report] if report.is_file() else sorted(report.iterdir())
    assembly = assemble(files)
    assert assembly.items == ()
    assert not assembly.left_out[0].faulty
    assert "never processed" in assembly.left_out[0].reason


@pytest.mark.parametrize("name", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
def test_a_slice_without_its_place_or_scale_is_left_out(name: str, phantom_ct: Path, tmp_path: Path) -> None:
    files = sorted(phantom_ct.iterdir())
    assembly = assemble([altered(tmp_path, files[0], **{name: None}), *files[1:30]])
    assert name in assembly.left_out[0].reason
    assert assembly.items[0].facts.slices == 29


def test_a_tilted_head_in_blocks_of_two_spacings_is_one_sheared_volume(shared_data: Path) -> None:
    """Worked by hand from the headers: first pixels at one y in the room, 4.22 mm apart, then 1.14, then 7.38 mm."""
    files = sorted((shared_data / "dicom" / "ct_ge_tilt_variable_spacing").iterdir())
    [item] = assemble(files[::-1]).items
    volume = item.image
    assert isinstance(volume, Volume)
    assert item.facts.tilt_degrees == pytest.approx(18.5, abs=1e-3)
    assert item.facts.missing_slices == 0
    assert item.notes == ("The slices are not evenly spaced, up to 7.0 mm apart.",)
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, files)}
    for index, uid in enumerate(volume.sources):
        header = headers[uid]
        origin, axes = np.array(header.ImagePositionPatient, float), np.array(header.ImageOrientationPatient, float)
        expected = origin + 100 * axes[3:] * header.PixelSpacing[0] + 7 * axes[:3] * header.PixelSpacing[1]
        np.testing.assert_allclose((volume.slice_affine(index) @ [0, 100, 7, 1])[:3], expected, atol=1e-4)


def test_one_tilted_stack_without_a_tilt_tag_is_sheared(shared_data: Path) -> None:
    files = real_files(shared_data, "ct_mr_failing_geometry/gantrytilting")
    [item] = assemble(files).items
    assert item.facts.tilt_degrees == pytest.approx(14.0, abs=0.01)
    header = pydicom.dcmread(files[0])
    assert "GantryDetectorTilt" not in header


def test_a_missing_slice_is_found_between_real_ones(shared_data: Path) -> None:
    by_series: dict[str, list[Path]] = {}
    for file in real_files(shared_data, "ct_mr_failing_geometry/sliceincrement"):
        by_series.setdefault(pydicom.dcmread(file).SeriesInstanceUID, []).append(file)
    for files in by_series.values():
        [item] = assemble(files).items
        assert item.facts.missing_slices == 1
        assert isinstance(item.image, Volume)
        assert item.image.at == pytest.approx((0, 1, 2, 4), abs=0.02)


def test_four_images_at_one_position_are_no_volume(shared_data: Path) -> None:
    assembly = assemble(real_files(shared_data, "ct_mr_failing_geometry/notavolume"))
    assert assembly.items == ()
    assert {one.reason[:30] for one in assembly.left_out} == {"4 images at one position: no v"}


def real_files(shared_data: Path, name: str) -> list[Path]:
    return sorted(file for file in (shared_data / "dicom" / name).rglob("*") if file.is_file())


@settings(max_examples=40, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    gap=st.floats(0.5, 6.0),
    spacing=st.tuples(st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    count=st.integers(3, 12),
)
def test_every_voxel_lies_where_itk_and_gdcm_have_it(
    turn: tuple[float, float, float],
    gap: float,
    spacing: tuple[float, float],
    origin: tuple[float, float, float],
    count: int,
) -> None:
    rotation = np.linalg.qr(np.random.default_rng(abs(hash(turn)) % 2**32).normal(size=(3, 3)))[0]
    scan = Scan(
        tuple(gap * index for index in range(count)), tuple(np.round([*rotation[:, 0], *rotation[:, 1]], 13).tolist()),
        shape=(7, 9), spacing=spacing, origin=origin,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        volume = volume_of(write_scan(scan, Path(folder)))
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        image = reader.Execute()
    last = (count - 1, 6, 8)
    for index in [(0, 0, 0), (0, 6, 0), (0, 0, 8), (count - 1, 0, 0), last]:
        theirs = np.array(image.TransformIndexToPhysicalPoint(tuple(reversed(index))))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], theirs, atol=1e-4)
        truth = scan.voxels(index[0])[index[1], index[2]]
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], truth, atol=1e-4)
