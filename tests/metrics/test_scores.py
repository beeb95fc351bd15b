"""Label scores against closed forms, MONAI, SimpleITK and surface-distance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from umdseg.errors import UserError
from umdseg.metrics import dice, lesion_errors, score_labels, score_masks, surface_scores

SPACING = (0.9, 1.7, 4.1)


def blobs(seed: int, shape: tuple[int, int, int] = (40, 30, 20)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 3) > 0.02


def ball(centre: float, radius: float, edge: int = 64) -> np.ndarray:
    grid = np.indices((edge,) * 3).astype(float)
    return sum((grid[i] - (centre if i == 0 else edge / 2)) ** 2 for i in range(3)) <= radius**2


def test_overlapping_cubes_have_the_dice_of_their_volumes() -> None:
    a, b = np.zeros((20, 20, 20), int), np.zeros((20, 20, 20), int)
    a[2:12, 2:12, 2:12] = 1  # 1000 voxels
    b[7:17, 2:12, 2:12] = 1  # 500 of them shared
    row = score_labels(a, b, (2.0, 1.0, 1.0), {1: "cube"}).iloc[0]
    assert row.dice == pytest.approx(0.5)
    assert row.volume_ref_ml == pytest.approx(2.0)
    assert row.volume_pred_ml == pytest.approx(2.0)
    # the far face is off by 5 voxels of 2 mm for a fifth of the surface: the 95th percentile sees it
    assert row.hd95 == pytest.approx(10.0)
    assert row.status == "ok"


def test_shifted_spheres_have_the_closed_form_dice() -> None:
    radius, shift = 20.0, 10.0
    # volume of the lens of two spheres at distance d, over the volume of one
    lens = math.pi * (4 * radius + shift) * (2 * radius - shift) ** 2 / 12
    expected = lens / (4 / 3 * math.pi * radius**3)
    assert dice(ball(27.0, radius), ball(37.0, radius)) == pytest.approx(expected, abs=0.01)


def test_concentric_spheres_are_their_radius_difference_apart() -> None:
    scores = surface_scores(ball(32.0, 20.0), ball(32.0, 15.0), (1.0, 1.0, 1.0), tolerance_mm=6.0)
    assert scores["assd"] == pytest.approx(5.0, abs=0.3)
    assert scores["hd95"] == pytest.approx(5.0, abs=1.0)
    assert scores["nsd"] == 1.0
    assert surface_scores(ball(32.0, 20.0), ball(32.0, 15.0), (1.0, 1.0, 1.0), tolerance_mm=3.0)["nsd"] == 0.0


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_voxel_convention_is_monai(seed: int) -> None:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    reference, prediction = blobs(seed), blobs(seed + 1)
    found = surface_scores(reference, prediction, SPACING, tolerance_mm=2.0)
    y, p = torch.from_numpy(reference)[None, None], torch.from_numpy(prediction)[None, None]
    options = {"include_background": True, "spacing": list(SPACING)}
    assert found["nsd"] == pytest.approx(compute_surface_dice(p, y, [2.0], **options).item(), abs=1e-6)
    assert found["hd95"] == pytest.approx(
        compute_hausdorff_distance(p, y, percentile=95, **options).item(), abs=1e-5
    )
    assert found["assd"] == pytest.approx(
        compute_average_surface_distance(p, y, symmetric=True, **options).item(), abs=1e-5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_surfel_convention_is_surface_distance(seed: int) -> None:
    peer = pytest.importorskip("surface_distance", reason="peer package of the extra `dev`")
    reference, prediction = blobs(seed), blobs(seed + 1)
    found = surface_scores(reference, prediction, SPACING, tolerance_mm=2.0, convention="surfel")
    theirs = peer.compute_surface_distances(reference, prediction, SPACING)
    assert found["nsd"] == pytest.approx(peer.compute_surface_dice_at_tolerance(theirs, 2.0), abs=1e-6)
    assert found["hd95"] == pytest.approx(peer.compute_robust_hausdorff(theirs, 95), abs=1e-5)
    assert found["assd"] == pytest.approx(np.mean(peer.compute_average_surface_distance(theirs)), abs=1e-5)


def test_surfel_nsd_is_monai_with_subvoxels() -> None:
    from monai.metrics import compute_surface_dice

    reference, prediction = blobs(0), blobs(1)
    found = surface_scores(reference, prediction, SPACING, convention="surfel")["nsd"]
    y, p = torch.from_numpy(reference)[None, None], torch.from_numpy(prediction)[None, None]
    theirs = compute_surface_dice(
        p, y, [2.0], include_background=True, spacing=list(SPACING), use_subvoxels=True
    )
    assert found == pytest.approx(theirs.item(), abs=1e-6)
    assert found != surface_scores(reference, prediction, SPACING)["nsd"]


def test_scores_agree_with_simpleitk_for_several_labels() -> None:
    import SimpleITK as sitk

    rng = np.random.default_rng(3)
    reference, prediction = (ndimage.zoom(rng.integers(0, 4, (5, 5, 5)), 4, order=0) for _ in range(2))
    table = score_labels(reference, prediction, (1, 1, 1), {3: "c", 1: "a", 2: "b"})
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(reference), sitk.GetImageFromArray(prediction))
    assert list(table.structure) == ["c", "a", "b"]
    for label, name in {1: "a", 2: "b", 3: "c"}.items():
        assert table.set_index("structure").dice[name] == pytest.approx(measures.GetDiceCoefficient(label))


def test_empty_reference_is_a_status_not_a_zero() -> None:
    reference, prediction = np.zeros((9, 9, 9), int), np.zeros((9, 9, 9), int)
    prediction[2:5, 2:5, 2:5] = 7
    row = score_labels(reference, prediction, (1, 1, 1), {7: "tumour"}).iloc[0]
    assert row.status == "empty_reference"
    assert row[["dice", "nsd", "hd95", "assd"]].isna().all()
    assert (row.volume_ref_ml, row.volume_pred_ml) == pytest.approx((0.0, 0.027))


def test_empty_prediction_scores_zero_and_has_no_distance() -> None:
    reference = np.zeros((9, 9, 9), int)
    reference[2:5, 2:5, 2:5] = 7
    row = score_labels(reference, np.zeros_like(reference), (1, 1, 1), {7: "tumour"}).iloc[0]
    assert (row.status, row.dice, row.nsd) == ("ok", 0.0, 0.0)
    assert math.isnan(row.hd95)
    assert math.isnan(row.assd)


def test_mask_hides_what_lies_outside() -> None:
    reference, prediction = np.zeros((10, 10, 10), int), np.zeros((10, 10, 10), int)
    reference[1:5, 1:5, 1:5] = 1
    prediction[1:5, 1:5, 1:9] = 1
    region = np.zeros(reference.shape, bool)
    region[..., :5] = True
    assert score_labels(reference, prediction, (1, 1, 1), {1: "a"}).dice[0] == pytest.approx(
        2 * 64 / (64 + 128)
    )
    assert score_labels(reference, prediction, (1, 1, 1), {1: "a"}, mask=region).dice[0] == 1.0


def test_lesion_errors_count_whole_components() -> None:
    reference, prediction = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    reference[1:3, 1:3, 1:3] = True  # missed, 8 voxels
    reference[8:12, 8:12, 8:12] = True  # touched by one voxel, so not missed
    prediction[11:13, 11:13, 11:13] = True
    prediction[17, 17, 17] = True  # invented
    prediction[18, 18, 17] = True  # edge-connected to it
    assert lesion_errors(reference, prediction, voxel_ml=0.5) == (4.0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_lesion_errors_are_those_of_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # components at the faces, and a mask that is all background
    masks = [rng.uniform(size=(7, 8, 9)) < share for share in (0.12, 0.08 * (seed > 0))]

    def untouched(mask: np.ndarray, other: np.ndarray) -> int:
        left, missed = set(map(tuple, np.argwhere(mask))), 0
        while left:
            component, todo = set(), [left.pop()]
            while todo:
                voxel = todo.pop()
                component.add(voxel)
                near = [v for v in left if 1 <= sum((a - b) ** 2 for a, b in zip(v, voxel, strict=True)) <= 2]
                left.difference_update(near)
                todo += near
            missed += 0 if any(other[v] for v in component) else len(component)
        return missed

    expected = untouched(*masks), untouched(*masks[::-1])
    assert lesion_errors(*masks, voxel_ml=1.0) == expected
    assert expected[0] > 0


def test_unasked_metrics_are_not_computed() -> None:
    row = score_masks(blobs(0), blobs(1), SPACING, metrics=["dice"])
    assert row["dice"] > 0
    assert math.isnan(row["nsd"])
    assert math.isnan(row["hd95"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prediction": np.zeros((3, 3, 3), int)}, "shape"),
        ({"convention": "pixel"}, "voxel"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"reference": np.full((4, 4, 4), 0.5)}, "integer"),
        ({"mask": np.ones((3, 4, 4), bool)}, "mask"),
    ],
)
def test_impossible_inputs_are_named(change: dict[str, object], word: str) -> None:
    arguments: dict[str, object] = {
        "reference": np.ones((4, 4, 4), int),
        "prediction": np.ones((4, 4, 4), int),
        "spacing": (1.0, 1.0, 1.0),
        "structures": {1: "a"},
    }
    with pytest.raises(UserError, match=word):
        score_labels(**{**arguments, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["nnunet", "datacentric"])
def test_real_lesion_predictions_agree_with_simpleitk(shared_data: Path, model: str) -> None:
    import SimpleITK as sitk

    folder = shared_data / "autopet3_organ_labels" / "lesions"
    study = "psma_95b833d46f153cd2_2018-04-16.nii.gz"
    images = [sitk.ReadImage(str(folder / name)) for name in (study, f"prediction_{model}_{study}")]
    images = [sitk.Cast(image > 0, sitk.sitkUInt8) for image in images]
    images[1].CopyInformation(images[0])
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    arrays = [sitk.GetArrayFromImage(image) for image in images]
    row = score_labels(*arrays, images[0].GetSpacing()[::-1], {1: "lesion"}).iloc[0]
    assert row.dice == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-9)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(images[0])
    assert row.volume_ref_ml == pytest.approx(shape.GetPhysicalSize(1) / 1000, rel=1e-6)
