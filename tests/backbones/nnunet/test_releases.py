"""Releases: parts merged, images turned and heads left out as their authors do."""

from __future__ import annotations

import contextlib
import io

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from umdseg import anatomy, registry
from umdseg.backbones import load_backbone
from umdseg.backbones.nnunet import releases
from umdseg.backbones.nnunet.part import name_labels
from umdseg.data.io.nifti import read_image
from umdseg.errors import UserError
from umdseg.inference import label_map, open
from umdseg.vocabulary import Prompt

ORGANS = {"background": 0, "spleen": 1, "liver": 2}
MUSCLES = {"background": 0, "humerus_left": 1, "brain": 2, "femur_left": 3}
PARTS = [archive.folder for archive in releases.totalseg_mr.archives]


def theirs(folder, file):
    """(X, Y, Z) label map of one network by nnU-Net's own reader and predictor."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        made = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        made.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
        data, properties = made.plans_manager.image_reader_writer_class().read_images([str(file)])
        return made.predict_single_npy_array(data, properties).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def two_parts(make, tmp_path_factory):
    root = tmp_path_factory.mktemp("total_mr")
    return root, [
        make(root / PARTS[0], labels=ORGANS, seed=1),
        make(root / PARTS[1], labels=MUSCLES, seed=2, edit=shifted),
    ]


def shifted(plans, configuration):
    # each part network has its own statistics of the same images
    facts = plans["foreground_intensity_properties_per_channel"]["0"]
    facts["mean"] += 40


@pytest.fixture(scope="module")
def scan(make, tmp_path_factory):
    """Axes run to left, posterior, superior, as DICOM has them."""
    image, _ = make.blobs((26, 24, 22), seed=8)
    affine = np.diag([-2.5, -2.2, 2.6, 1.0])
    affine[:3, 3] = (40, 30, -9)
    return make.save(tmp_path_factory.mktemp("scan") / "scan_0000.nii.gz", image, affine)


def test_later_parts_overwrite_earlier_ones_in_published_numbers(two_parts, scan, tmp_path):
    root, folders = two_parts
    backbone = load_backbone("totalseg_mr", folder=str(root), mirroring=False)
    ids = anatomy.ids("totalsegmentator_mr")
    names = [*list(ORGANS)[1:], *list(MUSCLES)[1:]]
    assert backbone.card.structures == {name: ids[name] for name in names}
    canonical = nib.as_closest_canonical(nib.load(scan))
    nib.save(canonical, tmp_path / "ras_0000.nii.gz")
    # TotalSegmentator: for each part, for each of its classes, write the class's published number
    merged = np.zeros(canonical.shape, np.uint8)
    for folder, labels in zip(folders, (ORGANS, MUSCLES), strict=True):
        part = theirs(folder, tmp_path / "ras_0000.nii.gz")
        for name, value in list(labels.items())[1:]:
            merged[part == value] = ids[name]
    found = label_map(open(backbone, scan, "mr"), names)
    numbers = np.array([0, *(ids[name] for name in names)], np.uint8)
    in_ras = nib.as_closest_canonical(nib.Nifti1Image(numbers[found], nib.load(scan).affine))
    assert len(np.unique(merged)) > 3
    np.testing.assert_array_equal(np.asarray(in_ras.dataobj), merged)


def test_only_the_networks_asked_for_run(two_parts, scan, monkeypatch):
    from umdseg.backbones.nnunet import session as module

    ran = []
    real = module.predict
    monkeypatch.setattr(module, "predict", lambda part, *a, **k: ran.append(part) or real(part, *a, **k))
    backbone = load_backbone("totalseg_mr", folder=str(two_parts[0]), mirroring=False)
    session = open(backbone, scan, "mr")
    label_map(session, ["brain"])
    label_map(session, ["brain", "femur_left"])
    assert ran == [backbone.parts[1]]


def test_parts_keep_their_own_scale_in_windows(two_parts):
    """The card leaves values as they are; each network's logits are those of its own normalisation."""
    backbone = load_backbone("totalseg_mr", folder=str(two_parts[0]))
    assert backbone.card.intensity["mr"].kind == "as_is"
    assert (backbone.has_dense, backbone.card.output) == (False, "sigmoid")
    x = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 200
    with torch.no_grad():
        logits = backbone.decode(backbone.encode(x), [Prompt("liver"), Prompt("brain")])
        for number, (part, net, name) in enumerate(
            zip(backbone.parts, backbone.networks, ("liver", "brain"), strict=True)
        ):
            facts = part.plans.plans["foreground_intensity_properties_per_channel"]["0"]
            own = x.clamp(facts["percentile_00_5"], facts["percentile_99_5"])
            heads = net((own - facts["mean"]) / facts["std"]).double()
            odds = torch.logit(torch.softmax(heads, 1)[:, 2])
            torch.testing.assert_close(logits[:, number].double(), odds, rtol=0, atol=1e-3)
            assert part.structures[name] == 2


def test_a_release_may_be_there_in_part(two_parts):
    root, _ = two_parts
    alone = load_backbone("totalseg_mr", folder=str(root / PARTS[0]))
    assert set(alone.card.structures) == {"spleen", "liver"}
    assert f"not in the folder: {PARTS[1]}" in alone.card.weights.note
    with pytest.raises(UserError, match="holds none of the 5 networks"):
        load_backbone("totalseg_ct", folder=str(root))


def test_mrsegmentator_sees_images_in_lps(make, tmp_path):
    image, _ = make.blobs((22, 26, 24), seed=9)
    turned = np.array([[0, 0, 2.5, -30], [2.2, 0, 0, -12], [0, -2.4, 0, 44], [0, 0, 0, 1.0]])
    scan = make.save(tmp_path / "scan_0000.nii.gz", image, turned)
    folder = make(tmp_path / "m", labels={"background": 0, "liver": 1, "left_iliopsoas_muscle": 2})
    stored = sitk.ReadImage(str(scan))
    sitk.WriteImage(sitk.DICOMOrient(stored, "LPS"), str(tmp_path / "lps_0000.nii.gz"))
    expected = theirs(folder, tmp_path / "lps_0000.nii.gz")
    backbone = load_backbone("mrsegmentator", folder=str(folder), mirroring=False)
    names = ["liver", "iliopsoas_left"]
    found = label_map(open(backbone, scan, "mr"), names)
    out = sitk.GetImageFromArray(found.astype(np.uint8).transpose(2, 1, 0))
    out.CopyInformation(stored)
    in_lps = sitk.GetArrayFromImage(sitk.DICOMOrient(out, "LPS")).transpose(2, 1, 0)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(in_lps, expected)
    # in training windows too: (z, y, x) of LPS
    assert backbone.card.orientation == "SPL"


def test_lesiontracer_s_second_head_is_left_out(make, tmp_path, scan):
    folder = make(tmp_path / "m", channels=["CT", "CT"], labels={"background": 0, "tumor": 1})
    file = folder / "fold_0" / "checkpoint_final.pth"
    raw = torch.load(file, weights_only=False)
    raw["trainer_name"] = "autoPET3_Trainer"
    raw["network_weights"]["decoder.organ_seg_layers.1.weight"] = torch.zeros(11, 4, 1, 1, 1)
    torch.save(raw, file)
    with pytest.raises(UserError, match="organ_seg_layers"):
        load_backbone("nnunet", folder=str(folder))
    backbone = load_backbone("lesiontracer", folder=str(folder), mirroring=False)
    assert (list(backbone.card.structures), backbone.card.trained_on) == (["tumour"], ("ct", "pet"))
    assert "built from the plans" in backbone.card.weights.note
    volume = read_image(scan)
    assert label_map(backbone.session_of({"ct": volume, "pet": volume}), ["tumour"]).any()


class Labels:
    has_regions = False

    def __init__(self, names):
        self.label_dict = {"background": 0, **{name: k for k, name in enumerate(names, start=1)}}
        self.all_labels = list(self.label_dict.values())


# class table of MRSegmentator's README
MR40 = [
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "liver", "stomach", "pancreas"),
    *("right_adrenal_gland", "left_adrenal_gland", "left_lung", "right_lung", "heart", "aorta"),
    *("inferior_vena_cava", "portal_vein_and_splenic_vein", "left_iliac_artery", "right_iliac_artery"),
    *("left_iliac_vena", "right_iliac_vena", "esophagus", "small_bowel", "duodenum", "colon"),
    *("urinary_bladder", "spine", "sacrum", "left_hip", "right_hip", "left_femur", "right_femur"),
    *("left_autochthonous_muscle", "right_autochthonous_muscle", "left_iliopsoas_muscle"),
    *("right_iliopsoas_muscle", "left_gluteus_maximus", "right_gluteus_maximus", "left_gluteus_medius"),
    *("right_gluteus_medius", "left_gluteus_minimus", "right_gluteus_minimus"),
]


def test_published_names_become_canonical_ones(tmp_path):
    known, unknown = name_labels(Labels(MR40), releases.mrsegmentator.names, tmp_path)
    # vertebrae without their discs elsewhere: not the same structure
    assert list(unknown) == ["spine"]
    assert (known["kidney_right"], known["lung_left"], known["autochthon_right"]) == (2, 10, 32)
    assert len(known) == 39


def test_terms_are_accepted_before_anything_is_downloaded(monkeypatch):
    from umdseg.backbones.nnunet import release

    monkeypatch.setattr(release, "fetch_archive", lambda *a: pytest.fail("downloaded"))
    for name in ("cads", "lesiontracer"):
        with pytest.raises(UserError, match=r"model\.accept_licence=true"):
            load_backbone(name)
    with pytest.raises(UserError, match=r"model\.folder"):
        load_backbone("totalseg_ct", "random")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    with pytest.raises(UserError, match=r"pip install umdseg\[nnunet\]"):
        registry.resolve("model", "nnunet")(releases.totalseg_ct.Options(name="nnunet", folder=str(tmp_path)))
