"""Contours to masks: real structure sets against their published masks, rules against closed forms."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.geometry import Grid
from umdseg.data.io.dicom.regions import inspect, read_regions
from umdseg.data.io.dicom.rtstruct import Roi, read_rois
from umdseg.data.io.dicom.series import find_series
from umdseg.data.io.dicom.volume import read_series
from umdseg.errors import UserError

# 40 x 30 x 8 voxels of 1 x 2 x 3 mm, no rotation: index (i, j, k) is at (i, 2 j, 3 k) mm, RAS+
GRID = Grid((40, 30, 8), np.diag([1.0, 2.0, 3.0, 1.0]))


def ring(x: tuple[float, float], y: tuple[float, float], z: float) -> np.ndarray:
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def full(mask, shape):
    array = np.zeros(shape, dtype=bool)
    if mask is not None:
        array[mask.box] = mask.array
    return array


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def on_grid_of_dicom(nifti, grid):
    """A mask of a NIfTI file (perhaps cropped, same voxels) on the grid of a DICOM series."""
    image = nib.load(nifti)
    found = np.argwhere(np.asarray(image.dataobj) > 0)
    index = grid.to_index(found @ image.affine[:3, :3].T + image.affine[:3, 3])
    assert np.abs(index - np.round(index)).max() < 1e-3
    array = np.zeros(grid.shape, dtype=bool)
    array[tuple(np.round(index).astype(int).T)] = True
    return array


def scan_and_rois(folder):
    series, _ = find_series(folder)
    scan = next(one for one in series if one.modality != "RTSTRUCT")
    plan = next(one for one in series if one.modality == "RTSTRUCT")
    grid = read_series(scan).volume.grid
    return grid, {roi.name: roi for roi in read_rois(plan.files[0])}


@pytest.mark.parametrize(("modality", "voxels"), [("CT", 17090), ("PET", 555), ("MR_T1", 17090)])
def test_real_contours_give_the_published_mask(shared_data, modality, voxels):
    base = shared_data / "sts_pet_ct_mr"
    grid, rois = scan_and_rois(base / "dicom" / "STS_002" / modality)
    mask, findings = rois[f"GTV_Mass_{modality}"].mask(grid)
    published = on_grid_of_dicom(base / "nifti" / "STS_002" / f"{modality}_mask.nii.gz", grid)
    assert published.sum() == voxels
    # voxel for voxel; half a voxel off, the Dice would be 0.97 (CT) and 0.86 (PET)
    assert dice(full(mask, grid.shape), published) == 1
    assert findings == ()


def test_real_contours_on_a_whole_body_scan(shared_data):
    grid, rois = scan_and_rois(shared_data / "sts_raw_dicom" / "STS_001" / "FDG_PET")
    published = shared_data / "sts_pet_ct_mr" / "nifti" / "STS_001" / "PET_mask.nii.gz"
    mass = full(rois["GTV_Mass"].mask(grid)[0], grid.shape)
    assert dice(mass, on_grid_of_dicom(published, grid)) == 1
    # no published mask of the edema; its volume by the contours' areas (shoelace) and slice distance
    x, y = [[c[:, axis] for c in rois["GTV_Edema"].contours] for axis in (0, 1)]
    area = sum(
        abs(np.dot(a, np.roll(b, 1)) - np.dot(b, np.roll(a, 1))) / 2 for a, b in zip(x, y, strict=True)
    )
    edema = full(rois["GTV_Edema"].mask(grid)[0], grid.shape)
    assert edema.sum() * grid.voxel_ml == pytest.approx(area * grid.spacing[2] / 1000, rel=0.01)


def test_a_voxel_belongs_when_its_centre_is_inside():
    mask, findings = Roi("a", (ring((9.6, 14.4), (19.0, 27.0), 6.0),)).mask(GRID)
    truth = np.zeros(GRID.shape, dtype=bool)
    truth[10:15, 10:14, 2] = True
    assert (full(mask, GRID.shape) == truth).all()
    assert findings == ()


def test_an_inner_contour_is_a_hole_and_an_island_in_it_is_not():
    nested = tuple(ring((5.5 + d, 34.5 - d), (11 + 2 * d, 49 - 2 * d), 6.0) for d in (0, 4, 8))
    mask, _ = Roi("a", nested).mask(GRID)
    truth = np.zeros(GRID.shape[:2], dtype=bool)
    truth[6:35, 6:25], truth[10:31, 10:21], truth[14:27, 14:17] = True, False, True
    assert (full(mask, GRID.shape)[:, :, 2] == truth).all()


def test_a_keyhole_is_the_same_as_two_contours():
    outer = ring((5.5, 34.5), (11, 49), 6.0)
    inner = ring((15.5, 24.5), (21, 39), 6.0)
    # out along the rim, over the channel (through voxel centres), around the hole, and back
    channel = np.array([[5.5, 30.0, 6.0], [15.5, 30.0, 6.0]])
    hole = np.array([[15.5, 21, 6.0], [24.5, 21, 6.0], [24.5, 39, 6.0], [15.5, 39, 6.0]])
    rim = [outer[3], channel[0], channel[1], hole[0], hole[1], hole[2], hole[3], channel[1], channel[0]]
    one = np.array([outer[0], outer[1], outer[2], *rim])
    keyhole = full(Roi("a", (one,)).mask(GRID)[0], GRID.shape)
    two = full(Roi("a", (outer, inner)).mask(GRID)[0], GRID.shape)
    assert two.sum() == 29 * 19 - 9 * 9
    assert (keyhole == two).all()


def test_scans_of_any_direction(tmp_path, dicom, dicom_labels):
    # sagittal: columns run along +y, rows along -z, slices along the normal (-x)
    files = dicom.write_series(
        tmp_path / "mr", "MR", count=5, orientation=(0, 1, 0, 0, 0, -1), spacing=(2.0, 2.0), step=4.0
    )
    series, _ = find_series(tmp_path / "mr")
    grid = read_series(series[0]).volume.grid
    # a rectangle in the plane of the middle slice, x = -10 - 2 * 4 (LPS)
    y, z = (-15.0, -7.0), (-41.0, -33.0)
    points = np.array([[-18.0, y[0], z[0]], [-18.0, y[1], z[0]], [-18.0, y[1], z[1]], [-18.0, y[0], z[1]]])
    plan = dicom_labels.write_rtstruct(tmp_path / "rt.dcm", files, {"a": [points]})
    mask, findings = read_rois(plan)[0].mask(grid)
    centres = grid.to_world(np.argwhere(full(mask, grid.shape)).astype(float)) * (-1, -1, 1)
    truth = {(-18.0, b, c) for b in (-14, -12, -10, -8) for c in (-40, -38, -36, -34)}
    assert {tuple(np.round(centre, 6)) for centre in centres} == truth
    assert findings == ()


def warning(roi, grid=GRID):
    mask, findings = roi.mask(grid)
    assert [finding.level for finding in findings] == ["warn"]
    assert roi.name not in findings[0].what
    return full(mask, grid.shape), findings[0].what


def test_contours_a_little_off_their_slice_go_to_the_nearest_with_a_warning():
    array, told = warning(Roi("Smith", (ring((9.5, 14.5), (19, 27), 6.5), ring((9.5, 14.5), (19, 27), 9.0))))
    assert array.any(axis=(0, 1)).nonzero()[0].tolist() == [2, 3]
    assert "1 of 2 planes lie up to 0.50 mm between slices that are 3.00 mm apart" in told


def test_contours_between_slices_are_refused_with_numbers():
    with pytest.raises(
        UserError, match=r"1 of 1 planes lie up to 1\.20 mm between slices that are 3\.00 mm"
    ) as e:
        Roi("a", (ring((9.5, 14.5), (19, 27), 7.2),)).mask(GRID)
    assert "ROI 'a'" in str(e.value)


def test_of_two_planes_on_one_slice_the_nearer_counts():
    near, far = ring((9.5, 14.5), (19, 27), 6.0), ring((9.5, 34.5), (19, 27), 6.6)
    mask, findings = Roi("a", (far, near)).mask(GRID)
    assert full(mask, GRID.shape).sum() == 5 * 4
    assert [f.what for f in findings][-1] == "1 contour planes share a slice with a nearer one; left out"


def test_a_repeated_contour_does_not_undo_itself():
    one = ring((9.5, 14.5), (19, 27), 6.0)
    array, told = warning(Roi("Smith", (one, one)))
    assert array.sum() == 5 * 4
    assert told == "1 contours are repetitions; each is counted once"


def test_contours_outside_are_told():
    inside, above = ring((9.5, 14.5), (19, 27), 6.0), ring((9.5, 14.5), (19, 27), 30.0)
    beside = ring((99.5, 104.5), (19, 27), 6.0)
    array, told = warning(Roi("Smith", (inside, above, beside)))
    assert array.sum() == 5 * 4
    assert told == "2 of 3 contours lie outside the scan"


def test_a_contour_over_the_edge_is_cut_off_there():
    mask, _ = Roi("a", (ring((35.5, 99), (19, 27), 6.0),)).mask(GRID)
    assert full(mask, GRID.shape).sum() == 4 * 4


def test_contours_on_every_second_slice_are_told():
    _, told = warning(Roi("Smith", tuple(ring((9.5, 14.5), (19, 27), z) for z in (0.0, 6.0, 12.0))))
    assert told == "contours lie on one of 2 slices; those between stay empty"


def test_a_region_without_a_voxel_centre_is_told():
    array, told = warning(Roi("Smith", (ring((9.6, 9.9), (20.1, 20.4), 6.0),)))
    assert not array.any()
    assert told == "ROI holds no voxel centre of the scan"


def test_contours_with_too_few_points_are_told():
    array, told = warning(Roi("Smith", (ring((9.5, 14.5), (19, 27), 6.0),), degenerate=2))
    assert array.sum() == 5 * 4
    assert told == "2 contours have fewer than three points; left out"


def test_a_leaning_contour_is_refused():
    leaning = ring((9.5, 14.5), (19, 27), 6.0)
    leaning[:2, 2] += 1.0
    with pytest.raises(UserError, match=r"not parallel to the slices \(depth varies by 1\.00 mm\)"):
        Roi("a", (leaning,)).mask(GRID)


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_other_kinds_of_contours_are_refused_by_name(tmp_path, dicom, dicom_labels, kind):
    files = dicom.write_series(tmp_path / "ct", "CT")
    square = [dicom_labels.box((0, 5), (-15, -10), -27.0)]
    plan = dicom_labels.write_rtstruct(tmp_path / "rt.dcm", files, {"a": square}, kind=kind)
    with pytest.raises(UserError, match=f"ROI has contours of the kind 1 {kind}") as error:
        read_rois(plan)[0].mask(GRID)
    assert "CLOSED_PLANAR" in str(error.value)


def test_contour_data_that_are_no_points_are_refused_with_the_file(tmp_path, dicom, dicom_labels):
    import pydicom

    files = dicom.write_series(tmp_path / "ct", "CT")
    square = [dicom_labels.box((0, 5), (-15, -10), -27.0)]
    plan = dicom_labels.write_rtstruct(tmp_path / "rt.dcm", files, {"a": square})
    broken = pydicom.dcmread(plan)
    broken.ROIContourSequence[0].ContourSequence[0].ContourData = [1, 2, 3, 4]
    broken.save_as(plan)
    with pytest.raises(UserError, match="contour data are no list of points") as error:
        read_rois(plan)
    assert "rt.dcm" in str(error.value)


def test_what_a_structure_set_is_about_is_known_before_its_contours(tmp_path, dicom, dicom_labels):
    files = dicom.write_series(tmp_path / "ct", "CT", uid="1.2.9")
    rois = {"Liver": [dicom_labels.box((0, 5), (-15, -10), -27.0)], "Point": []}
    told = inspect(dicom_labels.write_rtstruct(tmp_path / "rt.dcm", files, rois))
    assert told.kind == "RTSTRUCT"
    assert told.names == (("Liver",), ("Point",))
    assert told.series == {"1.2.9"}
    assert len(told.instances) == len(files)
    assert told.frames == {dicom.FRAME}
    assert [region.names for region in read_regions(told.path, told.kind, GRID)] == [("Liver",), ("Point",)]


def test_a_file_that_holds_no_labels_is_refused(tmp_path, dicom):
    with pytest.raises(UserError, match="file holds no labels"):
        inspect(dicom.write_series(tmp_path, "CT", count=1)[0])
