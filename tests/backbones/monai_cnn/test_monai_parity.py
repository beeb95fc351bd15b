"""From the scan to the label map on the scan's grid, against MONAI's transforms and SlidingWindowInferer."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
)

from umdseg import inference
from umdseg.inference.segment import label_map

K = "image"
WINDOW = (32, 32, 64)


def write(
    path: Path, spacing: tuple[float, float, float], codes: str, shape=(40, 36, 70), tilt: float = 0.0
) -> Path:
    """A body of smooth HU noise in air, its axes running along `codes`."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(0, 400, size=(1, 1, 9, 9, 9)))
    hu = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].numpy()
    hu[:3], hu[:, -4:], hu[..., :2] = -1100, -1100, -1100
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ np.diag([*spacing, 1.0])
    affine[:3, 3] = [-40, 25, 300]
    scan = nib.Nifti1Image(hu.astype(np.float32), affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    scan.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)).to_filename(path)
    return path


def preparation(*steps) -> Compose:
    return Compose([LoadImaged(keys=K), EnsureChannelFirstd(keys=K), *steps])


@torch.no_grad()
def monais(model, scan: Path, prepare: Compose, overlap: float, mode: str, **options) -> np.ndarray:
    """MONAI's logits (C, X, Y, Z), taken back to the scan's grid."""
    data = prepare({K: str(scan)})
    inferer = SlidingWindowInferer(WINDOW, sw_batch_size=1, overlap=overlap, mode=mode, **options)
    data["pred"] = inferer(data[K][None], model.net)[0]
    data["pred"].applied_operations = data[K].applied_operations
    back = Invertd("pred", prepare, orig_keys=K, nearest_interp=False, to_tensor=True)(data)
    return back["pred"].numpy()


def ours(model, scan: Path) -> np.ndarray:
    names = sorted(model.card.structures, key=model.card.structures.__getitem__)
    session = inference.open(model, scan, "ct", window=WINDOW, precision="fp32", skip_air=False)
    positions = label_map(session, names)
    return np.array([0, *(model.card.structures[name] for name in names)])[positions]


def agree(found: np.ndarray, logits: np.ndarray) -> None:
    """Equal maps, but where MONAI's two highest logits differ by rounding only."""
    # MONAI's inversion fills what was cropped away with zeros
    inside = np.abs(logits).sum(axis=0) > 0
    assert not found[~inside].any()
    top = np.partition(logits[:, inside], -2, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.99
    assert np.array_equal(found[inside][clear], logits.argmax(axis=0)[inside][clear])
    assert len(np.unique(found)) > 5


SPL = preparation(
    Orientationd(keys=K, axcodes="SPL", labels=None),
    ScaleIntensityRanged(keys=K, a_min=-1024, a_max=2048, b_min=0, b_max=1, clip=True),
    CropForegroundd(keys=K, source_key=K),
)


@pytest.mark.parametrize(("codes", "tilt"), [("LPS", 0.0), ("PIR", 0.0), ("RAS", 0.2)])
def test_ct_fm_on_its_own_axes_and_the_scans_voxels(small, tmp_path: Path, codes: str, tilt: float) -> None:
    scan = write(tmp_path / "ct.nii.gz", (2.0, 1.5, 3.0), codes, (70, 36, 40), tilt)
    model = small("ctfm_wholebody")
    agree(ours(model, scan), monais(model, scan, SPL, 0.625, "gaussian"))


def test_ct_fm_on_a_real_scan(small, shared_data: Path, tmp_path: Path) -> None:
    whole = nib.load(shared_data / "totalsegmentator" / "example_ct_sm.nii.gz")
    scan = tmp_path / "ct.nii.gz"
    whole.slicer[20:90, 30:66].to_filename(scan)
    model = small("ctfm_wholebody")
    agree(ours(model, scan), monais(model, scan, SPL, 0.625, "gaussian"))


def test_monais_whole_body_bundle(small, tmp_path: Path) -> None:
    scan = write(tmp_path / "ct.nii.gz", (1.5, 1.5, 1.5), "LAS")
    prepare = preparation(
        Orientationd(keys=K, axcodes="RAS", labels=None),
        Spacingd(keys=K, pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
        NormalizeIntensityd(keys=K, nonzero=True),
        ScaleIntensityd(keys=K, minv=-1.0, maxv=1.0),
    )
    model = small("monai_wholebody")
    agree(ours(model, scan), monais(model, scan, prepare, 0.25, "gaussian", padding_mode="replicate"))


def test_monais_btcv_bundle(small, tmp_path: Path) -> None:
    scan = write(tmp_path / "ct.nii.gz", (1.5, 1.5, 2.0), "LPS")
    prepare = preparation(
        Orientationd(keys=K, axcodes="RAS", labels=None),
        Spacingd(keys=K, pixdim=(1.5, 1.5, 2.0), mode="bilinear"),
        ScaleIntensityRanged(keys=K, a_min=-175, a_max=250, b_min=0, b_max=1, clip=True),
    )
    model = small("swinunetr_btcv")
    agree(ours(model, scan), monais(model, scan, prepare, 0.5, "constant"))


def test_suprems_independent_masks(small, tmp_path: Path) -> None:
    scan = write(tmp_path / "ct.nii.gz", (1.5, 1.5, 1.5), "RAS")
    prepare = preparation(
        Orientationd(keys=K, axcodes="RAS", labels=None),
        ScaleIntensityRanged(keys=K, a_min=-175, a_max=250, b_min=0, b_max=1, clip=True),
        CropForegroundd(keys=K, source_key=K),
    )
    model = small("suprem")
    logits = monais(model, scan, prepare, 0.75, "gaussian")
    names = ["spleen", "liver", "prostate"]
    session = inference.open(model, scan, "ct", window=WINDOW, precision="fp32", skip_air=False)
    found = torch.cat([part for _, part in session.scores(names)], dim=-1).numpy()
    expected = logits[[model.index(name) for name in names]]
    inside = np.abs(logits).sum(axis=0) > 0
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=1e-4)
    assert (found[:, ~inside] < 0).all()
