"""Facts of the pretrained weights. Sources of preprocessing and windows stand at each card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umdseg import anatomy
from umdseg.backbones.card import Card, Crop, Intensity, Weights
from umdseg.backbones.monai_cnn.backbone import NEW_ROWS, ROWS
from umdseg.vocabulary import Modality

CTFM = "Pai S, Hadzic I, Bontempi D, et al. Vision Foundation Models for CT. arXiv 2501.09001"
WHOLE_BODY = (
    "Wasserthal J, Breit H-C, Meyer MT, et al. TotalSegmentator. Radiol Artif Intell 2023. arXiv 2208.05868; "
    "MONAI model zoo, wholeBody_ct_segmentation"
)
SWIN = "Tang Y, Yang D, Li W, et al. Self-Supervised Pre-Training of Swin Transformers. arXiv 2111.14791"
DAE = "Valanarasu JMJ, Tang Y, Yang D, et al. Disruptive Autoencoders. arXiv 2307.16896"
VOCO = "Wu L, Zhuang J, Chen H. VoCo. CVPR 2024; Large-Scale 3D Medical Image Pre-training. arXiv 2410.09890"
SUPREM = "Li W, Yuille A, Zhou Z. How Well Do Supervised 3D Models Transfer? ICLR 2024"

UNVERIFIED = "hash not verified; trained on CT only: the scaling of PET and MR is this project's"
SEGRESNET_DS = r"(encoder\.layers|up_layers)\.\d+\.blocks\.\d+\.conv[12]"
SEGRESNET = r"(down_layers|up_layers)\.\d+\.\d+\.conv[12]\.conv"
SWIN_UNETR = (
    r"swinViT\.layers\d\.0\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear[12])"
    r"|(encoder\d+\.layer|decoder\d\.conv_block)\.conv[12]\.conv"
)
SEGRESNET_DS_HEAD = r"up_layers\.3\.head"
SEGRESNET_HEAD = r"conv_final\.2\.conv"
SWIN_HEAD = r"out\.conv\.conv"
FOREGROUND = Crop(above=0.0, stage="after", margin=0)


def ct_window(low: float, high: float) -> dict[Modality, Intensity]:
    """HU `low` to `high` -> 0 to 1; PET and MR by percentiles."""
    percentiles = Intensity("percentile", 1.0, 99.0)
    return {"ct": Intensity("window", low, high), "pet": percentiles, "mr": percentiles}


def card(name: str, weights: Weights, outputs: int, structures: Mapping[str, int], **facts: Any) -> Card:
    """A card of a network with `outputs` channels, of competing classes unless `facts` say otherwise."""
    defaults: dict[str, Any] = {"prompt_enters": "none", "output": "softmax", "class_rows": ROWS}
    rows = tuple(range(outputs, outputs + NEW_ROWS))
    return Card(name=name, weights=weights, structures=structures, new_rows=rows, **(defaults | facts))


def ctfm_wholebody() -> Card:
    """CT-FM's whole-body model: 117 classes at the scan's own voxels, axes S, P, L.

    Windows and post-processing of the authors' example: overlap 0.625, Gaussian; it also keeps only the
    largest piece of each class, which is not done here.
    """
    repository = "project-lighter/whole_body_segmentation"
    return card(
        "ctfm_wholebody",
        _ctfm_weights(repository),
        118,
        anatomy.direct("totalsegmentator"),
        groups=anatomy.groups("totalsegmentator"),
        **_ctfm(),
    )


def ctfm() -> Card:
    """CT-FM's self-supervised encoder; decoder and head start at random and know no structure."""
    return card("ctfm", _ctfm_weights("project-lighter/ct_fm_feature_extractor"), 1, {}, **_ctfm())


def _ctfm_weights(repository: str) -> Weights:
    return Weights(
        repository,
        "model.safetensors",
        sha256=None,
        licence="MIT (code), of the weights not verified",
        commercial=None,
        note=UNVERIFIED,
    )


def _ctfm() -> dict[str, Any]:
    return {
        "orientation": "SPL", "spacing": None, "window": (96, 160, 160), "divisor": 16,
        "intensity": ct_window(-1024, 2048), "crop": FOREGROUND, "overlap": 0.625,
        "adapter_targets": SEGRESNET_DS, "stem": "encoder.conv_init", "citation": CTFM,
        "head": SEGRESNET_DS_HEAD,
    }  # fmt: skip


def monai_wholebody(fast: bool = False) -> Card:
    """MONAI's wholeBody_ct_segmentation: TotalSegmentator v1's 104 classes at 1.5 mm (`fast`: 3 mm).

    inference.json of the bundle: intensities normalised over the voxels other than 0, then to -1..1;
    overlap 0.25, Gaussian. Volumes below one window are padded with 0 here, there by repeating the border.
    """
    scale = Intensity("nonzero", to=(-1.0, 1.0))
    spacing = (3.0, 3.0, 3.0) if fast else (1.5, 1.5, 1.5)
    file = "models/model_lowres.pt" if fast else "models/model.pt"
    # of the model zoo's file, which may or may not be the one that is downloaded
    told = "the bundle gives md5 only" + ("" if fast else ", aded45dea52f9c00b37922bcd0a98502")
    return card(
        "monai_wholebody_fast" if fast else "monai_wholebody",
        Weights(
            "MONAI/wholeBody_ct_segmentation",
            file,
            sha256=None,
            licence="Apache-2.0",
            commercial=True,
            note=f"hash not verified ({told}); PET and MR were in no training set",
        ),
        105,
        anatomy.direct("totalsegmentator_v1"),
        groups=anatomy.groups("totalsegmentator_v1"),
        spacing=spacing,
        window=(96, 96, 96),
        divisor=8,
        intensity={"ct": scale, "pet": scale, "mr": scale},
        adapter_targets=SEGRESNET,
        head=SEGRESNET_HEAD,
        stem="convInit.conv",
        citation=WHOLE_BODY,
    )


def swinunetr_btcv() -> Card:
    """MONAI's swin_unetr_btcv_segmentation: 13 abdominal organs; overlap 0.5, constant (inference.json)."""
    url = "https://developer.download.nvidia.com/assets/Clara/monai/tutorials/model_zoo/"
    file = "model_swin_unetr_btcv_segmentation_v1.pt"
    return card(
        "swinunetr_btcv",
        Weights(
            url + file,
            file,
            sha256=None,
            licence="Apache-2.0",
            commercial=True,
            note=f"md5 50dd67a01b28a1d5487fd9ac27e682fb; {UNVERIFIED}",
        ),
        14,
        anatomy.direct("btcv"),
        groups=anatomy.groups("btcv"),
        citation=SWIN,
        **_swin((1.5, 1.5, 2.0), 0.5),
    )


def swinunetr_ssl() -> Card:
    """Swin UNETR with a transformer pretrained without labels (Disruptive Autoencoders).

    `model.weights=model_swinvit.pt` loads MONAI's earlier pretraining instead (arXiv 2111.14791).
    """
    url = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    file = "ssl_pretrained_weights.pth"
    return card(
        "swinunetr_ssl",
        Weights(
            url + file,
            file,
            sha256=None,
            licence="not stated",
            commercial=None,
            note=f"{UNVERIFIED}; we found no terms published with the file",
        ),
        1,
        {},
        citation=f"{DAE}; {SWIN}",
        **_swin((1.5, 1.5, 1.5), 0.5),
    )


def swinunetr_voco(size: str = "B", head: bool = True) -> Card:
    """VoComni: Swin UNETR v2 pretrained on pseudo-labels of 20 organs and tumours, 21 outputs.

    The authors' main.py: 1.5 mm, windows of 96, overlap 0.75, constant.

    Args:
        size: B, L or H.
        head: False = the self-supervised encoders alone (`VoCo_*_SSL_head.pt`).
    """
    file = f"VoComni_{size}.pt" if head else f"VoCo_{size}_SSL_head.pt"
    note = f"{UNVERIFIED}; the names of the 20 classes are not verified, none is offered"
    return card(
        "swinunetr_voco" if head else "swinunetr_voco_ssl",
        Weights("Luffy503/VoCo", file, None, "Apache-2.0", True, note if head else UNVERIFIED),
        21 if head else 1,
        {},
        citation=VOCO,
        **_swin((1.5, 1.5, 1.5), 0.75),
    )


def swinunetr_suprem() -> Card:
    """SuPreM's Swin UNETR, encoder and decoder; a fresh head stands in place of its text-driven one."""
    return card(
        "swinunetr_suprem",
        _suprem_weights("supervised_suprem_swinunetr_2100.pth"),
        1,
        {},
        citation=SUPREM,
        **_swin((1.5, 1.5, 1.5), 0.75) | {"blending": "gaussian", "crop": FOREGROUND},
    )


def suprem() -> Card:
    """SuPreM's SegResNet: independent (sigmoid) outputs, of which the first 25 are organs.

    The authors' direct_inference: 1.5 mm, -175..250 HU, foreground, overlap 0.75, Gaussian.
    """
    channels = {name: number - 1 for name, number in anatomy.direct("suprem").items()}
    return card(
        "suprem",
        _suprem_weights("supervised_suprem_segresnet_2100.pth", "; 32 outputs by third parties' account"),
        32,
        channels,
        groups=anatomy.groups("suprem"),
        output="sigmoid",
        spacing=(1.5, 1.5, 1.5),
        window=(96, 96, 96),
        divisor=8,
        intensity=ct_window(-175, 250),
        crop=FOREGROUND,
        overlap=0.75,
        adapter_targets=SEGRESNET,
        head=SEGRESNET_HEAD,
        stem="convInit.conv",
        citation=SUPREM,
    )


def _suprem_weights(file: str, more: str = "") -> Weights:
    note = f"{UNVERIFIED}{more}; no derivatives: adapters may be affected"
    return Weights("MrGiovanni/SuPreM", file, None, "CC BY-NC-ND 4.0", False, note)


def _swin(spacing: tuple[float, float, float], overlap: float) -> dict[str, Any]:
    return {
        "spacing": spacing, "window": (96, 96, 96), "divisor": 32, "intensity": ct_window(-175, 250),
        "overlap": overlap, "blending": "constant", "adapter_targets": SWIN_UNETR,
        "head": SWIN_HEAD, "stem": "swinViT.patch_embed.proj",
    }  # fmt: skip
