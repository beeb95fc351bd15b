"""Facts of SAM (arXiv 2304.02643), MedSAM (2304.12306), SAM 2 (2408.00714) and MedSAM2 (2504.03600)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.vocabulary import Modality

SAM = "Kirillov A, Mintun E, Ravi N, et al. Segment Anything. ICCV 2023 (arXiv 2304.02643)"
MEDSAM = (
    "Ma J, He Y, Li F, Han L, You C, Wang B. Segment anything in medical images. Nature Communications 2024, "
    "15:654, doi:10.1038/s41467-024-44824-z"
)
SAM2 = "Ravi N, Gabeur V, Hu YT, et al. SAM 2: Segment Anything in Images and Videos. arXiv 2408.00714"
MEDSAM2 = (
    "Ma J, Yang Z, Kim S, et al. MedSAM2: Segment Anything in 3D Medical Images and Videos. arXiv 2504.03600"
)

# counted on the meta device
PARAMETERS = {"sam_vit_b": 93_735_728, "sam_vit_l": 312_343_088, "sam_vit_h": 641_090_864}
PARAMETERS_SAM2 = 38_962_498

ATTENTION = r"vision_encoder\.layers\.\d+\.attn\.(qkv|proj)"
ATTENTION_SAM2 = r"vision_encoder\.backbone\.blocks\.\d+\.attn\.(qkv|proj)"
# mask 0 answers boxes and several clicks, the best of the others a single click
HEADS = r"mask_decoder\.output_hypernetworks_mlps\.[0-3]\.proj_out"
BOX_HEAD = r"mask_decoder\.output_hypernetworks_mlps\.0\.proj_out"
# clicks and corners have a table each in SAM, one in SAM 2
PROMPT_EMBEDDINGS = r"prompt_encoder\.(point_embed(\.[0-3])?|not_a_point_embed|no_mask_embed)\.weight"
BOX_EMBEDDINGS = r"prompt_encoder\.(point_embed\.[23]|no_mask_embed)\.weight"

# MedSAM's preprocessing (`pre_CT_MR.py`): the soft tissue window for CT, else percentiles of what is above 0
_PICTURES: Mapping[Modality, Intensity] = {
    "ct": Intensity("window", -160.0, 240.0, to=(0.0, 255.0)),
    "pet": Intensity("percentile", 0.5, 99.5, to=(0.0, 255.0), masked=True),
    "mr": Intensity("percentile", 0.5, 99.5, to=(0.0, 255.0), masked=True),
}


def sam_vit_b_card() -> Card:
    """SAM with the smallest image encoder."""
    return _sam("sam_vit_b", "sam_vit_b_01ec64.pth")


def sam_vit_l_card() -> Card:
    """SAM with the middle image encoder."""
    return _sam("sam_vit_l", "sam_vit_l_0b3195.pth")


def sam_vit_h_card() -> Card:
    """SAM with the largest image encoder."""
    return _sam("sam_vit_h", "sam_vit_h_4b8939.pth")


def medsam_card() -> Card:
    """MedSAM: SAM ViT-B fine-tuned on 1.57 million pairs of medical images and masks, for boxes only."""
    weights = Weights(
        source="wanglab/medsam-vit-base",
        file="pytorch_model.bin",
        sha256=None,
        licence="Apache-2.0",
        commercial=True,
        note="hash not verified; the authors' medsam_vit_b.pth (doi:10.5281/zenodo.10689643, by hand) loads "
        "too; terms of the public data sets behind the weights, and whether PET was among them, not verified",
    )
    card = _card("medsam", weights, MEDSAM)
    card = replace(card, head=BOX_HEAD, prompt_parameters=BOX_EMBEDDINGS)
    return replace(card, trained_on=("ct", "mr"), prompts=("box",))


def sam2_tiny_card() -> Card:
    """SAM 2.1 with the tiny Hiera image encoder."""
    file = "sam2.1_hiera_tiny.pt"
    weights = Weights(
        source=f"https://dl.fbaipublicfiles.com/segment_anything_2/092824/{file}",
        file=file,
        sha256=None,
        licence="Apache-2.0",
        commercial=True,
        note="hash not verified; trained on photographs and videos, no medical images",
    )
    return _hiera(_card("sam2_tiny", weights, SAM2))


def medsam2_card() -> Card:
    """MedSAM2: SAM 2.1 tiny fine-tuned on 455,000 volumes and masks, for boxes."""
    weights = Weights(
        source="wanglab/MedSAM2",
        file="MedSAM2_latest.pt",
        sha256=None,
        licence="CC BY-SA 4.0 (model card)",
        commercial=None,
        note="hash not verified; the code is Apache-2.0, and medsam2-mlx reports conflicting terms of the "
        "weights for CT lesions; whether PET was in training and whether clicks are taken not verified",
    )
    card = _hiera(_card("medsam2", weights, MEDSAM2))
    return replace(card, trained_on=("ct", "mr"), prompts=("box",), head=BOX_HEAD)


def _sam(name: str, file: str) -> Card:
    prefix = file.removesuffix(".pth").rpartition("_")[2]
    weights = Weights(
        source=f"https://dl.fbaipublicfiles.com/segment_anything/{file}",
        file=file,
        sha256=None,
        licence="Apache-2.0",
        commercial=True,
        note=f"hash not verified (by the custom of such names it begins with {prefix}); trained on "
        "photographs, no medical images: the intensities are MedSAM's",
    )
    return _card(name, weights, SAM)


def _hiera(card: Card) -> Card:
    stem = "vision_encoder.backbone.patch_embed.projection"
    return replace(card, adapter_targets=ATTENTION_SAM2, stem=stem)


def _card(name: str, weights: Weights, citation: str) -> Card:
    """What all share: axial slices in their own voxels, one of a CT's size to train on."""
    return Card(
        name=name,
        weights=weights,
        orientation="LPS",
        spacing=None,
        window=(512, 512, 1),
        divisor=1,
        intensity=_PICTURES,
        structures={},
        trained_on=(),
        prompts=("point", "clicks", "box"),
        prompt_enters="decoder",
        adapter_targets=ATTENTION,
        head=HEADS,
        prompt_parameters=PROMPT_EMBEDDINGS,
        slicewise=True,
        stem="vision_encoder.patch_embed.projection",
        citation=citation,
        overlap=0.0,
        fixed_window=True,
    )
