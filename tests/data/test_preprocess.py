"""Preprocessing against MONAI's transforms, where both sample the same grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CropForeground,
    Orientation,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Spacing,
    SpatialPad,
)

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.preprocess import Preprocessing, prepare_image, prepare_label
from umdseg.errors import UserError


@dataclass(frozen=True)
class Intensity:
    kind: str
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    to: tuple[float, float] = (0.0, 1.0)
    masked: bool = False


@dataclass(frozen=True)
class Crop:
    above: float
    stage: str
    margin: int


WINDOW = Intensity("window", -963.8247715525971, 1053.678477684517)
PERCENTILE = Intensity("percentile", 1, 99)


def card(spacing, crop, intensity, min_shape=(1, 1, 1)) -> Preprocessing:
    return Preprocessing(spacing, {"ct": intensity}, crop, min_shape)


def monai(volume: Volume, p: Preprocessing) -> MetaTensor:
    """The same card numbers through MONAI, in the order of the VISTA3D bundle (crop before or after)."""
    image = MetaTensor(
        torch.from_numpy(volume.array.copy())[None], affine=torch.from_numpy(volume.grid.affine)
    )
    image = Orientation(axcodes="RAS", labels=None)(image)
    image = Spacing(pixdim=p.spacing, mode="bilinear", padding_mode="border", scale_extent=True)(image)
    chosen = p.intensity["ct"]
    if chosen.kind == "window":
        scale = ScaleIntensityRange(chosen.low, chosen.high, 0, 1, clip=True)
    else:
        scale = ScaleIntensityRangePercentiles(chosen.low, chosen.high, 0, 1, clip=True)
    crop = CropForeground(lambda x: x > p.crop.above, margin=p.crop.margin, allow_smaller=True)
    image = scale(crop(image)) if p.crop.stage == "before" else crop(scale(image))
    return SpatialPad(p.min_shape)(image)


def agree(volume: Volume, p: Preprocessing, tolerance: float) -> None:
    ours, theirs = prepare_image(volume, "ct", p), monai(volume, p)
    assert tuple(ours.image.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.grid.affine, theirs.affine.numpy(), atol=2e-3)
    np.testing.assert_allclose(ours.image.numpy(), theirs.as_tensor().numpy(), atol=tolerance)
    # the comparison would be empty if everything were clipped away
    assert ours.image.std() > 0.05


@pytest.fixture
def synthetic() -> Volume:
    rng = np.random.default_rng(0)
    array = np.full((32, 28, 20), -1000.0, dtype=np.float32)
    array[5:25, 6:21, 3:17] = rng.normal(100, 300, size=(20, 15, 14))
    affine = np.diag([-1.1, -0.9, 2.0, 1.0])
    affine[:3, 3] = (17.0, 9.0, -30.0)
    return Volume(array, Grid(array.shape, affine))


@pytest.mark.parametrize("factor", [1, 2], ids=["same spacing", "twice the spacing"])
@pytest.mark.parametrize("intensity", [WINDOW, PERCENTILE], ids=["window", "percentile"])
@pytest.mark.parametrize("crop", [Crop(0.0, "before", 3), Crop(0.1, "after", 2)], ids=["before", "after"])
def test_equals_monai_on_a_synthetic_scan(
    synthetic: Volume, crop: Crop, intensity: Intensity, factor: int
) -> None:
    spacing = tuple(factor * s for s in synthetic.grid.spacing)
    agree(synthetic, card(spacing, crop, intensity), 1e-4)


def test_padding_equals_monai(synthetic: Volume) -> None:
    agree(synthetic, card(synthetic.grid.spacing, Crop(0.0, "before", 1), WINDOW, (31, 8, 30)), 1e-4)


@pytest.mark.parametrize("factor", [1, 2])
def test_equals_monai_on_a_real_scan_stored_in_lps(shared_data: Path, factor: int) -> None:
    volume = read_image(shared_data / "sts_pet_ct_mr/nifti/STS_002/CT_image.nii.gz")
    part = Volume(volume.array[20:100, 30:120, 4:40], volume.grid.crop((20, 30, 4), (100, 120, 40)))
    spacing = tuple(factor * s for s in part.grid.spacing)
    agree(part, card(spacing, Crop(0.1, "after", 2), WINDOW), 2e-4)
    agree(part, card(spacing, Crop(0.0, "before", 10), PERCENTILE), 2e-4)


def test_real_label_stays_on_the_bone_it_was_drawn_on(shared_data: Path) -> None:
    """Volume and centre of a mask survive the way onto a prepared grid (tolerance: half a voxel)."""
    folder = shared_data / "sts_pet_ct_mr/nifti/STS_002"
    volume, mask = read_image(folder / "CT_image.nii.gz"), read_label(folder / "CT_mask.nii.gz")
    prepared = prepare_image(volume, "ct", card((1.5, 1.5, 1.5), Crop(0.1, "after", 2), WINDOW))
    label = prepare_label(mask, [1], prepared.grid)[0].numpy()
    before = mask.grid.to_world(np.argwhere(mask.array == 1)).mean(axis=0)
    after = prepared.grid.to_world(np.argwhere(label == 1)).mean(axis=0)
    np.testing.assert_allclose(after, before, atol=0.75)
    assert (label == 1).sum() * prepared.grid.voxel_ml == pytest.approx(
        (mask.array == 1).sum() * mask.grid.voxel_ml, rel=0.03
    )


def test_label_values_follow_the_order_asked_for(synthetic: Volume) -> None:
    ids = np.zeros(synthetic.array.shape, dtype=np.int16)
    ids[8:12], ids[12:16], ids[16:20] = 7, 3, 5
    label = Volume(ids, synthetic.grid)
    grid = prepare_image(synthetic, "ct", card(synthetic.grid.spacing, None, WINDOW)).grid
    mapped = prepare_label(label, [3, 7], grid)[0]
    # the scan runs from right to left: its first index is the last of the RAS grid
    wanted = {0: 0, 10: 2, 13: 1, 17: 0}
    assert {i: int(mapped[31 - i, 5, 5]) for i in wanted} == wanted


def test_nothing_above_the_crop_threshold_keeps_the_whole_scan(synthetic: Volume) -> None:
    prepared = prepare_image(synthetic, "ct", card(synthetic.grid.spacing, Crop(1e9, "before", 2), WINDOW))
    assert prepared.image.shape[1:] == (32, 28, 20)


def test_mostly_empty_scan_is_not_divided_by_zero() -> None:
    array = np.zeros((10, 10, 10), dtype=np.float32)
    array[5, 5, 5] = 3.0
    p = card((1, 1, 1), None, PERCENTILE)
    prepared = prepare_image(Volume(array, Grid((10, 10, 10), np.eye(4))), "ct", p)
    assert bool(torch.isfinite(prepared.image).all())
    assert prepared.image.max() == 1


def test_modality_without_transform_is_refused(synthetic: Volume) -> None:
    with pytest.raises(UserError, match="says nothing about pet"):
        prepare_image(synthetic, "pet", card((1, 1, 1), None, WINDOW))


def test_fingerprint_follows_every_number() -> None:
    crop = Crop(0.1, "after", 2)
    cards = [
        card((1, 1, 1), crop, WINDOW),
        card((1, 1, 2), crop, WINDOW),
        card((1, 1, 1), None, WINDOW),
        card((1, 1, 1), Crop(0.1, "after", 3), WINDOW),
        card((1, 1, 1), crop, PERCENTILE),
        card((1, 1, 1), crop, WINDOW, (8, 8, 8)),
    ]
    assert len({p.fingerprint() for p in cards}) == len(cards)
    assert cards[0].fingerprint() == card((1, 1, 1), crop, WINDOW).fingerprint()
