"""Facts of SAM-Med3D (Wang et al., arXiv 2310.15161) and of its PET descendants SegAnyPET."""

from __future__ import annotations

from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.vocabulary import Modality

SAM_MED3D = (
    "Wang H, Guo S, Ye J, et al. SAM-Med3D: A Vision Foundation Model for General-Purpose Segmentation on "
    "Volumetric Medical Images. IEEE TNNLS 2025, doi:10.1109/TNNLS.2025.3586694 (arXiv 2310.15161)"
)
SEGANYPET = (
    "Zhang Y, Xue L, Zhang W, et al. SegAnyPET: Universal Promptable Segmentation from Positron Emission "
    "Tomography Images. ICCV 2025 (arXiv 2502.14351)"
)
SEGANYPET_2 = (
    "Developing Foundation Models for Universal Segmentation from 3D Whole-Body Positron Emission "
    "Tomography. arXiv 2603.11627"
)
# the attention of the image encoder's twelve blocks; the mask decoder keeps its weights
ATTENTION = r"image_encoder\.blocks\.\d+\.attn\.(qkv|proj)"
# of the four masks the decoder can give, the first is asked for
HEAD = r"mask_decoder\.output_hypernetworks_mlps\.0\.layers\.2"
CLICK_EMBEDDINGS = r"prompt_encoder\.(point_embeddings\.[01]|not_a_point_embed)\.weight"
PARAMETERS = 100_509_232


def sam_med3d_turbo_card() -> Card:
    """SAM-Med3D-turbo: fine-tuned on 44 data sets of CT, MR and others."""
    weights = Weights(
        source="blueyo0/SAM-Med3D",
        file="sam_med3d_turbo.pth",
        sha256=None,
        licence="Apache-2.0",
        commercial=True,
        note="hash not verified; terms of the 44 data sets behind the weights not verified; whether PET was "
        "among them not verified",
    )
    return _card("sam_med3d_turbo", weights, ("ct", "mr"), SAM_MED3D)


def seganypet_v1_card() -> Card:
    """SegAnyPET: SAM-Med3D fully fine-tuned on 5,731 PET scans (PETS-5k)."""
    return _card("seganypet_v1", _seganypet("seganypet_v1.pth"), ("pet",), SEGANYPET)


def seganypet_v2_card() -> Card:
    """Its second version: 11,041 whole-body PET scans of several centres (PETWB-Seg11K)."""
    return _card("seganypet_v2", _seganypet("seganypet_v2.pth"), ("pet",), SEGANYPET_2)


def seganypet_lesion_card() -> Card:
    """The second version tuned on lesions."""
    return _card("seganypet_lesion", _seganypet("seganypet_lesion.pth"), ("pet",), SEGANYPET_2)


def _seganypet(file: str) -> Weights:
    return Weights(
        source="YichiZhang98/SegAnyPET",
        file=file,
        sha256=None,
        licence="none stated",
        commercial=None,
        note="hash not verified; neither the repository nor the weights state a licence; units and "
        "preprocessing of the PET not published, taken to be SAM-Med3D's",
    )


def _card(name: str, weights: Weights, trained_on: tuple[Modality, ...], citation: str) -> Card:
    """What all share: 1.5 mm, 128 voxels around the click, scaled inside that window by the backbone."""
    as_is = Intensity("as_is")
    return Card(
        name=name,
        weights=weights,
        spacing=(1.5, 1.5, 1.5),
        window=(128, 128, 128),
        divisor=128,
        intensity={"ct": as_is, "pet": as_is, "mr": as_is},
        structures={},
        trained_on=trained_on,
        prompts=("point", "clicks"),
        prompt_enters="decoder",
        adapter_targets=ATTENTION,
        head=HEAD,
        prompt_parameters=CLICK_EMBEDDINGS,
        stem="image_encoder.patch_embed.proj",
        citation=citation,
        overlap=0.5,
        fixed_window=True,
    )
