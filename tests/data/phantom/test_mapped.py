"""Phantoms on label maps against the maps themselves, closed forms and published uptake."""

from __future__ import annotations

import dataclasses
from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, binary_erosion

from umdseg.data.geometry import Grid, Volume
from umdseg.data.phantom.imaging import FWHM, Scanner, computed_tomography, positron_emission
from umdseg.data.phantom.labelmap import LabelMap, split_kidneys
from umdseg.data.phantom.mapped import MapAnatomy, render_map
from umdseg.data.phantom.tracers import TRACERS, code, tissue_table
from umdseg.errors import UserError

IDS = {
    **{"spleen": 1, "kidney_left": 2, "kidney_right": 9, "liver": 3, "urinary_bladder": 4},
    **{"lung": 5, "brain": 6, "heart": 7, "stomach": 8},
}
COARSE = Scanner(ct_spacing=(6, 6, 7), mr_spacing=(7, 7, 7), pet_spacing=(6, 6, 6))


@pytest.fixture(scope="module")
def label(organs: Volume) -> LabelMap:
    return split_kidneys(LabelMap(np.asarray(organs.array), organs.grid, IDS))


@pytest.fixture(scope="module")
def anatomy(label: LabelMap) -> MapAnatomy:
    return MapAnatomy(label)


def _codes(*names: str) -> list[int]:
    return [code(name) for name in names]


def test_labels_are_the_map_on_the_scanners_grid(anatomy: MapAnatomy, label: LabelMap) -> None:
    _, found = render_map(anatomy, 1, "mr", COARSE)
    # SimpleITK's own nearest neighbour; both images are written with the same axes, so LPS does not matter
    source = sitk.GetImageFromArray(label.array.transpose(2, 1, 0))
    source.SetSpacing(label.grid.spacing)
    source.SetOrigin(label.grid.affine[:3, 3].tolist())
    frame = sitk.Image([int(n) for n in found.grid.shape], sitk.sitkUInt8)
    frame.SetSpacing(found.grid.spacing)
    frame.SetOrigin(found.grid.affine[:3, 3].tolist())
    expected = sitk.GetArrayFromImage(
        sitk.Resample(source, frame, sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    # positions half way between two voxels may be rounded either way
    assert (expected.transpose(2, 1, 0) == found.array).mean() > 0.999
    assert set(np.unique(found.array)) == {0, *IDS.values()}


def test_organs_are_painted_exactly_where_the_label_is(anatomy: MapAnatomy) -> None:
    codes, ids = anatomy.scan(COARSE.grid("ct", anatomy.box), 1)
    for name, tissues in (
        ("liver", ("liver", "liver_vessel")),
        ("spleen", ("spleen",)),
        ("heart", ("heart_blood", "myocardium")),
        ("urinary_bladder", ("urine", "bladder_wall")),
        ("stomach", ("stomach_wall", "stomach_content", "bowel_gas")),
        ("brain", ("grey_matter", "white_matter", "fluid")),
        ("lung", ("lung", "lung_dependent", "lung_vessel", "vein")),
    ):
        inside = np.isin(codes, _codes(*tissues))
        assert inside[ids == IDS[name]].all(), name
        own = [t for t in tissues if t not in ("bowel_gas", "vein", "fluid")]
        assert not np.isin(codes, _codes(*own))[ids != IDS[name]].any(), name


def test_every_organ_lies_inside_the_body(anatomy: MapAnatomy) -> None:
    codes, ids = anatomy.scan(COARSE.grid("ct", anatomy.box), 1)
    around = binary_dilation(ids > 0)
    assert not (codes[around] == code("air")).any()


def test_what_a_map_lacks_is_neither_labelled_nor_painted(label: LabelMap) -> None:
    array = label.array.copy()
    array[np.isin(array, [IDS["brain"], IDS["spleen"]])] = 0
    partial = MapAnatomy(LabelMap(array, label.grid, IDS))
    codes, ids = partial.scan(COARSE.grid("ct", partial.box), 1)
    assert not np.isin(ids, [IDS["brain"], IDS["spleen"]]).any()
    assert not np.isin(codes, _codes("grey_matter", "white_matter", "spleen")).any()


def test_bones_of_the_map_replace_the_template_s(label: LabelMap) -> None:
    array = label.array.copy()
    array[30:34, 10:14, 60:80] = 10
    own = MapAnatomy(LabelMap(array, label.grid, {**IDS, "vertebrae_L1": 10}))
    codes, ids = own.scan(COARSE.grid("ct", own.box), 1)
    bone = np.isin(codes, _codes("cortical_bone", "spongy_bone"))
    assert np.array_equal(bone, ids == 10)
    inner = binary_erosion(ids == 10)
    assert (codes[inner] == code("spongy_bone")).any()


def test_hounsfield_units_inside_organs_are_the_table_s(anatomy: MapAnatomy) -> None:
    grid = COARSE.grid("ct", anatomy.box)
    codes, ids = anatomy.scan(grid, 1)
    # nobody differs and nothing varies, so that what is left is the table and partial volume
    table = {
        n: dataclasses.replace(t, hu=(t.hu[0], 0.0), texture=0.0) for n, t in tissue_table("FDG").items()
    }
    scanner = dataclasses.replace(COARSE, contrast=0.0, ct_noise=(1.0, 1.0))
    image = computed_tomography(1, codes, grid, scanner, table, anatomy.box)
    for name, tissue in (("spleen", "spleen"), ("urinary_bladder", "urine"), ("heart", "heart_blood")):
        deep = binary_erosion(codes == code(tissue), iterations=2) & (ids == IDS[name])
        assert deep.sum() > 20
        assert image[deep].mean() == pytest.approx(table[tissue].hu[0], abs=1.0), name


def test_pet_recovers_a_small_organ_as_far_as_its_resolution_lets_it() -> None:
    grid = Grid((41, 41, 41), np.diag([2.0, 2.0, 2.0, 1.0]))
    axes = np.meshgrid(*[np.arange(-40.0, 41.0, 2.0)] * 3, indexing="ij")
    radius = 8.0
    codes = np.where(np.sqrt(sum(a**2 for a in axes)) <= radius, code("gland"), code("air")).astype(np.uint8)
    scanner = dataclasses.replace(Scanner(), psf=(6.0, 6.0), pet_counts=(1e7, 1e7))
    table = tissue_table("PSMA")
    table = {**table, "gland": dataclasses.replace(table["gland"], suv=(10.0, 0.0), texture=0.0)}
    image = positron_emission(1, codes, grid, scanner, table)
    # a Gaussian over a ball: Kessler et al., J Comput Assist Tomogr 1984;8:514
    s = sqrt(6.0**2 + 4.0**2) / FWHM
    recovery = erf(radius / (sqrt(2) * s)) - sqrt(2 / pi) * (radius / s) * exp(-(radius**2) / (2 * s**2))
    assert image[20, 20, 20] / 10.0 == pytest.approx(recovery, rel=0.03)


def test_tracers_light_up_other_organs(anatomy: MapAnatomy) -> None:
    means = {}
    for tracer in TRACERS:
        parts: dict[str, list[float]] = {"kidney_left": [], "liver": [], "brain": []}
        for seed in (1, 2, 3):
            image, ids = render_map(anatomy, seed, "pet", COARSE, tracer)
            for name, values in parts.items():
                values.append(float(image.array[ids.array == IDS[name]].mean()))
        means[tracer] = {name: np.mean(values) for name, values in parts.items()}
    fdg, psma = means["FDG"], means["PSMA"]
    # PSMA kidneys 41.7 (Kurash 2020) over a liver of about 5; FDG kidneys are near the liver
    assert psma["kidney_left"] / psma["liver"] > 4
    assert fdg["kidney_left"] / fdg["liver"] < 2.5
    assert fdg["brain"] > 1.5 * fdg["liver"]
    assert psma["brain"] < 0.3 * psma["liver"]


def test_every_tissue_of_the_kidney_follows_the_published_mean() -> None:
    kidney = [tissue_table("PSMA")[n].suv[0] for n in ("renal_cortex", "renal_medulla", "renal_pelvis")]
    assert min(kidney) < 41.7 < max(kidney)
    assert tissue_table("PSMA")["prostate"].suv[0] == pytest.approx(2.4)
    assert 13.0 <= tissue_table("PSMA")["gland"].suv[0] <= 14.5


def test_tables_share_codes_and_refuse_other_tracers() -> None:
    fdg, psma = ({name: t.code for name, t in tissue_table(tracer).items()} for tracer in TRACERS)
    assert fdg == psma
    assert len(set(fdg.values())) == len(fdg)
    with pytest.raises(UserError, match="did you mean: PSMA"):
        tissue_table("PSMAA")


def test_a_seed_is_one_subject_and_modalities_share_the_anatomy(anatomy: MapAnatomy) -> None:
    first, ids = render_map(anatomy, 5, "pet", COARSE, deform=1.0)
    again, same = render_map(anatomy, 5, "pet", COARSE, deform=1.0)
    _, moved = render_map(anatomy, 6, "pet", COARSE, deform=1.0)
    assert np.array_equal(first.array, again.array)
    assert np.array_equal(ids.array, same.array)
    assert (ids.array != moved.array).mean() > 0.005
    _, on_ct = render_map(anatomy, 5, "ct", COARSE, deform=1.0)
    for name in ("liver", "heart"):
        centres = [
            v.grid.to_world(np.argwhere(v.array == IDS[name]).astype(float)).mean(axis=0)
            for v in (ids, on_ct)
        ]
        assert np.abs(centres[0] - centres[1]).max() < 1.5


def test_deformed_copies_stay_people(anatomy: MapAnatomy, label: LabelMap) -> None:
    volume = float((label.array == IDS["liver"]).sum()) * label.grid.voxel_ml
    seen = []
    for seed in range(3):
        _, ids = render_map(anatomy, seed, "mr", COARSE, deform=1.0)
        seen.append(float((ids.array == IDS["liver"]).sum()) * ids.grid.voxel_ml / volume)
    # three axes of 4 % and a smooth warp
    assert 0.7 < min(seen) < max(seen) < 1.4
    assert max(seen) - min(seen) > 0.01


def test_a_strong_deformation_tears_nothing(anatomy: MapAnatomy) -> None:
    grid = COARSE.grid("mr", anatomy.box)
    for seed in (1, 2):
        codes, ids = anatomy.scan(grid, seed, deform=2.0)
        z = np.flatnonzero((ids == IDS["lung"]).any(axis=(0, 1)))
        bone = np.isin(codes, _codes("cortical_bone", "spongy_bone"))
        # from the pelvis to the head there is bone, but for the discs between lumbar vertebrae
        top = np.flatnonzero((ids == IDS["brain"]).any(axis=(0, 1)))[-1]
        bottom = np.flatnonzero((ids == IDS["urinary_bladder"]).any(axis=(0, 1)))[0]
        assert bottom < z[0] < z[-1] < top
        bare = ~bone[:, :, bottom:top].any(axis=(0, 1))
        assert not (bare[:-2] & bare[1:-1] & bare[2:]).any()


def test_breathing_moves_the_pet_and_not_its_label(anatomy: MapAnatomy) -> None:
    grid = COARSE.grid("pet", anatomy.box)
    still, ids = anatomy.scan(grid, 1)
    moved, same = anatomy.scan(grid, 1, breathing_mm=12.0)
    assert np.array_equal(ids, same)
    height = {
        (name, key): np.argwhere(np.isin(codes, _codes(*tissues)))[:, 2].mean() * grid.spacing[2]
        for key, codes in (("still", still), ("moved", moved))
        for name, tissues in (("liver", ("liver", "liver_vessel")), ("bladder", ("urine", "bladder_wall")))
    }
    assert 3.0 < height["liver", "moved"] - height["liver", "still"] < 12.5
    assert abs(height["bladder", "moved"] - height["bladder", "still"]) < 0.5


def test_the_field_of_view_never_leaves_the_map(anatomy: MapAnatomy, label: LabelMap) -> None:
    low, high = np.array(anatomy.box)
    half = np.array(label.grid.spacing) / 2
    corners = label.grid.to_world(label.grid.corners())
    assert (low >= corners.min(axis=0) - half - 1e-6).all()
    assert (high <= corners.max(axis=0) + half + 1e-6).all()
    small = MapAnatomy(label, extent_mm=(300.0, 250.0, 500.0))
    assert (np.diff(np.array(small.box), axis=0)[0] <= np.array([300.0, 250.0, 500.0]) + 1e-6).all()


def test_a_map_that_does_not_say_where_the_body_is_is_refused() -> None:
    array = np.zeros((20, 20, 20), dtype=np.uint8)
    array[8:12, 8:12, 8:12] = 1
    grid = Grid((20, 20, 20), np.diag([6.0, 6.0, 6.0, 1.0]))
    with pytest.raises(UserError, match="where the body is"):
        MapAnatomy(LabelMap(array, grid, {"gallbladder": 1}))
