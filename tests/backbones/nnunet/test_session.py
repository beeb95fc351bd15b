"""Sessions beyond the decision on the scan's own grid: values, other grids, precision, several channels."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch

from umdseg.backbones import load_backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image
from umdseg.errors import UserError
from umdseg.inference import label_map, open
from umdseg.vocabulary import Prompt

NAMES = ["liver", "spleen", "kidney_left"]
# the plans' own spacing along (x, y, z)
SPACING = (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def folder(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def scan(make):
    """A volume on which nnU-Net neither crops nor resamples."""
    image, _ = make.blobs((20, 22, 18), seed=4)
    return Volume(image, Grid((20, 22, 18), np.diag([*SPACING, 1.0])))


@pytest.fixture(scope="module")
def logits(folder, scan):
    """(C, X, Y, Z) of `nnUNetPredictor`, without mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
        data = scan.array.transpose(2, 1, 0)[None]
        preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
        ready, _, _ = preprocessor.run_case_npy(
            data,
            None,
            {"spacing": list(SPACING[::-1])},
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.dataset_json,
        )
        out = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(ready))
    return out.float().numpy().transpose(0, 3, 2, 1)


def scores(session, names, grid=None):
    return torch.cat([values for _, values in session.scores(names, grid)], dim=-1).numpy()


def leads(logits, channels=(1, 2, 3)):
    """Each class's lead over the best other."""
    return np.stack([logits[c] - np.delete(logits, c, axis=0).max(axis=0) for c in channels])


def opened(folder, scan, **options):
    return open(load_backbone("nnunet", folder=str(folder), mirroring=False), scan, "ct", **options)


def test_values_are_the_class_s_lead(folder, scan, logits):
    found = scores(opened(folder, scan), NAMES)
    np.testing.assert_allclose(found, leads(logits), rtol=0, atol=5e-5)


def test_another_grid_gets_logits_resampled_before_they_are_compared(folder, scan, logits):
    affine = scan.grid.affine.copy()
    affine[:3, 3] = (0, 0, 1.5)
    between = Grid((20, 22, 17), affine)
    expected = leads((logits[..., :-1] + logits[..., 1:]) / 2)
    found = scores(opened(folder, scan), NAMES, between)
    sure = np.abs(expected) > 1e-4
    np.testing.assert_allclose(found[sure], expected[sure], atol=1e-4)


def test_outside_the_scan_is_background(folder, scan):
    affine = scan.grid.affine.copy()
    affine[:3, 3] = (200, 0, 0)
    found = scores(opened(folder, scan), NAMES, Grid((4, 5, 6), affine))
    assert (found == -10).all()


def test_slabs_and_repeated_questions_change_nothing(folder, scan, monkeypatch):
    from umdseg.backbones import slabs

    session = opened(folder, scan)
    whole = scores(session, NAMES)
    monkeypatch.setattr(slabs, "SLAB_NUMBERS", 20 * 22 * 8 * 3)
    pieces = list(session.scores(["spleen"]))
    assert len(pieces) > 1
    np.testing.assert_allclose(torch.cat([v for _, v in pieces], -1)[0].numpy(), whole[1], atol=1e-5)


def test_a_group_is_the_union_of_its_members(make, tmp_path, scan):
    labels = {"background": 0, "right kidney": 2, "kidney_left": 1, "spleen": 3}
    made = make(tmp_path, labels=labels)
    session = opened(made, scan)
    sides = label_map(session, ["kidney_left", "kidney_right"])
    assert set(np.unique(sides)) == {0, 1, 2}
    np.testing.assert_array_equal(label_map(session, ["kidney"]) > 0, sides > 0)


def test_precision(folder, scan):
    exact = scores(opened(folder, scan, precision="fp32"), NAMES)
    np.testing.assert_array_equal(exact, scores(opened(folder, scan), NAMES))
    half = scores(opened(folder, scan, precision="bf16"), NAMES)
    assert 0 < np.abs(half - exact).mean() < 0.05 * np.abs(exact).mean()
    with pytest.raises(UserError, match="unknown precision"):
        scores(opened(folder, scan, precision="fp8"), NAMES)


def test_overlap_is_nnunets_step(folder, scan):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(0.75, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
        data = scan.array.transpose(2, 1, 0)[None]
        expected = predictor.predict_single_npy_array(data, {"spacing": list(SPACING[::-1])})
    found = label_map(opened(folder, scan, overlap=0.25), NAMES)
    expected = np.where(expected == 4, 0, expected).transpose(2, 1, 0)
    np.testing.assert_array_equal(found, expected)


def test_only_classes_can_be_asked_for(folder, scan):
    session = opened(folder, scan)
    session.prompt([Prompt("liver")])
    session.undo()
    with pytest.raises(UserError, match="takes no 'point' prompts"):
        session.prompt([Prompt("liver", "point", ((0.0, 0.0, 0.0),), (1,))])
    with pytest.raises(UserError, match="did you mean"):
        scores(session, ["livr"])


def test_a_person_s_scans_come_together(make, tmp_path, scan):
    made = make(tmp_path / "m", channels=["CT", "PET"])
    backbone = load_backbone("nnunet", folder=str(made), mirroring=False)
    with pytest.raises(UserError, match="takes ct and pet of one person together; only ct was given"):
        open(backbone, scan, "ct")
    with pytest.raises(UserError, match="exactly ct and pet"):
        backbone.session_of({"ct": scan})
    # a coarser PET of the same place: every second voxel, read back by linear interpolation
    ramp = np.broadcast_to(np.arange(20.0)[:, None, None], (20, 22, 18)).astype(np.float32)
    affine = scan.grid.affine.copy()
    affine[0, 0] *= 2
    coarse = Volume(np.ascontiguousarray(ramp[::2]), Grid((10, 22, 18), affine))
    fine = Volume(np.minimum(ramp, 18), scan.grid)
    one, two = (backbone.session_of({"ct": scan, "pet": pet}) for pet in (coarse, fine))
    np.testing.assert_allclose(scores(one, NAMES), scores(two, NAMES), atol=0.02)


def test_channels_without_a_modality_are_asked_for(make, tmp_path, scan):
    made = make(tmp_path / "m", channels=["CT", "CT"])
    with pytest.raises(UserError, match="does not tell the modalities"):
        load_backbone("nnunet", folder=str(made)).session_of({"ct": scan, "pet": scan})
    told = load_backbone("nnunet", folder=str(made), channels=["ct", "pet"], mirroring=False)
    assert label_map(told.session_of({"ct": scan, "pet": scan}), NAMES).shape == scan.grid.shape


def test_forced_orientation_does_not_depend_on_how_the_scan_is_stored(folder, scan, make, tmp_path):
    import nibabel as nib

    stored = nib.Nifti1Image(scan.array, scan.grid.affine)
    turned = stored.as_reoriented(nib.orientations.axcodes2ornt("ILP"))
    assert nib.aff2axcodes(turned.affine) != ("R", "A", "S")
    file = tmp_path / "turned.nii.gz"
    nib.save(turned, file)
    backbone = load_backbone("nnunet", folder=str(folder), mirroring=False, orientation="RAS")
    straight = label_map(open(backbone, scan, "ct"), NAMES)
    other = label_map(open(backbone, read_image(file), "ct"), NAMES)
    back = nib.Nifti1Image(other, turned.affine).as_reoriented(nib.io_orientation(turned.affine))
    np.testing.assert_array_equal(np.asarray(back.dataobj), straight)
    # without it the network sees the axes as stored
    free = load_backbone("nnunet", folder=str(folder), mirroring=False)
    assert (label_map(open(free, read_image(file), "ct"), NAMES) != other).any()
