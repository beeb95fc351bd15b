"""Reading and writing NIfTI: every broken file gives one error that names file and subject."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_grid, read_image, read_label, write_volume
from umdseg.errors import UserError

AFFINE = np.array([[-1.5, 0, 0, 10], [0, -1.5, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])


def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)


def save(folder: Path, array: np.ndarray, affine: np.ndarray = AFFINE, name: str = "scan.nii.gz") -> Path:
    nib.save(nib.Nifti1Image(array, affine), folder / name)
    return folder / name


def refused(path: Path, what: str, expected: str, reader=read_image, **options) -> None:
    with pytest.raises(UserError, match=what) as caught:
        reader(path, subject="P7", **options)
    assert str(path) in str(caught.value)
    assert "P7" in str(caught.value)
    assert re.search(expected, caught.value.expected)


def test_any_orientation_is_read_with_the_files_own_axes(tmp_path: Path) -> None:
    array = image()
    volume = read_image(save(tmp_path, array))
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    # nibabel's world is RAS+ millimetres
    np.testing.assert_allclose(volume.grid.to_world(np.array([[2.0, 1, 3]])), [[7, 18.5, -21]])
    assert volume.grid.voxel_ml == pytest.approx(0.00675)


def test_scaled_integers_are_read_in_their_units(tmp_path: Path) -> None:
    raw = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    path = tmp_path / "ct.nii"
    nib.save(raw, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2.0, -1024.0], np.float32).tobytes()  # scl_slope, scl_inter
    path.write_bytes(bytes(content))
    array = read_image(path).array
    assert (array.min(), array.max()) == (-1024, 2 * 59 - 1024)


def test_trailing_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    assert read_image(save(tmp_path, image()[..., None])).array.shape == (9, 8, 7)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "gone.nii.gz", "missing", "existing NIfTI")


@pytest.mark.parametrize("kept", [0.6, 0.02, -4], ids=["in the voxels", "in the header", "in the checksum"])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path, image())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept < 0 else len(content) * kept)])
    refused(path, "truncated|cannot be read|not a readable", "NIfTI|complete")


def test_damaged_content(tmp_path: Path) -> None:
    path = save(tmp_path, image())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "truncated or damaged", "copy it again")


@pytest.mark.parametrize("content", [b"hello", gzip.compress(b"hello" * 200)], ids=["text", "gzipped text"])
def test_not_nifti(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    refused(path, "not a readable NIfTI|cannot be read", "NIfTI")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_infinity_among_the_voxels(tmp_path: Path, value: float) -> None:
    array = image()
    array[1, 2, 3] = value
    refused(save(tmp_path, array), "1 voxels that are NaN or infinite", "finite")


def test_constant_image(tmp_path: Path) -> None:
    refused(save(tmp_path, np.full((4, 4, 4), 5, np.float32)), "every voxel of the image is 5", "contrast")


@pytest.mark.parametrize("shape", [(4, 4, 4, 2), (4, 4)], ids=["4-D", "2-D"])
def test_not_three_dimensional(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    refused(save(tmp_path, array), "volume has shape", "one 3-D volume")


def test_colours_are_not_an_image(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path, colours), "volume has shape", "3-D volume of real numbers")


def test_zero_spacing_in_the_header(tmp_path: Path) -> None:
    path = save(tmp_path, image(), name="scan.nii")
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(0).tobytes()  # pixdim[1], NIfTI-1 header bytes 76..107
    path.write_bytes(bytes(content))
    refused(path, "voxel spacing", "positive lengths")


def test_singular_affine(tmp_path: Path) -> None:
    path = save(tmp_path, image(), name="scan.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = np.zeros(12, np.float32).tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(bytes(content))
    refused(path, "singular", "non-zero lengths")


def test_affine_with_nan(tmp_path: Path) -> None:
    path = save(tmp_path, image(), name="scan.nii")
    content = bytearray(path.read_bytes())
    content[292:296] = np.float32(np.nan).tobytes()
    path.write_bytes(bytes(content))
    refused(path, "affine holds NaN", "finite")


def test_sheared_affine(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 0.5  # gantry tilt
    refused(save(tmp_path, image(), affine), "sheared", "regular grid")


def test_header_without_orientation(tmp_path: Path) -> None:
    plain = nib.Nifti1Image(image(), None)
    plain.header["sform_code"] = plain.header["qform_code"] = 0
    nib.save(plain, tmp_path / "scan.nii.gz")
    assert int(nib.load(tmp_path / "scan.nii.gz").header["sform_code"]) == 0
    refused(tmp_path / "scan.nii.gz", "left and right are not known", "sform_code or qform_code")


def label() -> np.ndarray:
    array = np.zeros((9, 8, 7), dtype=np.uint8)
    array[2:5, 2:5, 2:5] = 4
    return array


def test_label_is_read_as_whole_numbers_even_when_stored_as_float(tmp_path: Path) -> None:
    volume = read_label(save(tmp_path, label().astype(np.float32)), Grid((9, 8, 7), AFFINE), [4])
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, label())


def test_empty_label_is_a_label(tmp_path: Path) -> None:
    assert read_label(save(tmp_path, np.zeros((9, 8, 7), np.uint8)), allowed_ids=[4]).array.max() == 0


def test_label_with_fractions(tmp_path: Path) -> None:
    soft = label().astype(np.float32) / 8
    refused(save(tmp_path, soft), "not whole numbers", "integer", reader=read_label)


def test_label_with_nan(tmp_path: Path) -> None:
    bad = label().astype(np.float32)
    bad[0, 0, 0] = np.nan
    refused(save(tmp_path, bad), "not whole numbers", "integer", reader=read_label)


def test_label_with_unknown_id_says_what_it_found(tmp_path: Path) -> None:
    path = save(tmp_path, label())
    refused(
        path, "no structure has: 4", r"0 \(background\) and 1, 2; found 0, 4", read_label, allowed_ids=[1, 2]
    )


def test_label_with_negative_id(tmp_path: Path) -> None:
    refused(save(tmp_path, label().astype(np.int16) - 1), "no structure has: -1", "0 to 32767", read_label)


@pytest.mark.parametrize(
    ("change", "size"),
    [((0, 3, 0.2), False), ((0, 0, 1.5), False), (None, True)],
    ids=["shift", "flip", "shape"],
)
def test_label_on_another_grid(tmp_path: Path, change: tuple[int, int, float] | None, size: bool) -> None:
    affine = AFFINE.copy()
    if change:
        affine[change[0], change[1]] = change[2] if change[1] != 3 else affine[0, 3] + change[2]
    path = save(tmp_path, label()[:, :, :6] if size else label(), affine)
    refused(path, "another grid", "same shape and affine", read_label, image_grid=Grid((9, 8, 7), AFFINE))


def test_label_a_hair_off_is_accepted(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.05
    read_label(save(tmp_path, label(), affine), Grid((9, 8, 7), AFFINE))


def test_grid_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = save(tmp_path, np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert read_grid(path).shape == (40, 40, 40)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, bool, np.float64])
def test_written_volumes_are_the_same_for_nibabel_and_simpleitk(tmp_path: Path, dtype: type) -> None:
    sitk = pytest.importorskip("SimpleITK")
    array = (np.random.default_rng(0).normal(size=(5, 6, 7)) > 0).astype(dtype)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag([-1.2, 1.3, 2.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, (3, -4, 5)
    write_volume(Volume(array, Grid((5, 6, 7), affine)), tmp_path / "new" / "v.nii.gz")
    by_nibabel = nib.load(tmp_path / "new" / "v.nii.gz")
    np.testing.assert_allclose(by_nibabel.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(by_nibabel.get_fdata(), array)
    by_sitk = sitk.ReadImage(str(tmp_path / "new" / "v.nii.gz"))
    np.testing.assert_allclose(
        by_sitk.TransformIndexToPhysicalPoint((1, 2, 3)) * np.array([-1, -1, 1]),
        (affine @ [1, 2, 3, 1])[:3],
        atol=1e-4,
    )
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["v.nii.gz"]
