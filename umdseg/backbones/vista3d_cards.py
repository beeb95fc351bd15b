"""Facts of the VISTA3D weights (He et al., VISTA3D, arXiv 2406.05285) and of the small one that ships."""

from __future__ import annotations

from typing import Any

from umdseg import anatomy
from umdseg.backbones.card import Card, Crop, Intensity, Weights

CITATION = (
    "He Y, Guo P, Tang Y, et al. VISTA3D: A Unified Segmentation Foundation Model For 3D Medical Imaging. "
    "arXiv 2406.05285"
)
CT_WINDOW = Intensity("window", -963.8247715525971, 1053.678477684517)
PERCENTILES = Intensity("percentile", 1.0, 99.0)
# tumours, vessels, airway: what a click means there is ambiguous, the network marks such clicks
# (MONAI's VISTA3D.convert_point_label)
SPECIAL = (23, 24, 25, 26, 27, 57, 128)
# what the authors' bundle marks instead: VistaPreTransformd's default is of an obsolete numbering, and no
# configuration of the bundle sets another; it holds two lung lobes, and lacks lung and pancreas tumours
BUNDLE_SPECIAL = (25, 26, 27, 28, 29, 117)
# classes 133-254 ask for zero-shot segmentation by point, 255 marks "unknown" in the bundle's files
NEW_ROWS = tuple(range(256, 512))
# NV-Segment-CTMR uses the class table up to 345
NEW_ROWS_CTMR = tuple(range(346, 512))
LAST_SUPPORTED = 132
# the 3x3x3 convolutions of the residual blocks: encoder, both decoders, the class head's mapping
BLOCK_CONVOLUTIONS = (
    r"image_encoder\.(encoder\.layers|up_layers|up_layers_auto)\.\d+\.blocks\.\d+\.conv[12]"
    r"|class_head\.image_post_mapping\.\d+\.layer\.conv[12]\.conv"
)
# what makes the vectors that features are multiplied with: by class, by click
CLASS_HEAD = r"class_head\.mlp\.3"
HEADS = rf"{CLASS_HEAD}|point_head\.output_hypernetworks_mlps\.layers\.2"
CLASS_EMBEDDINGS = r"class_head\.class_embeddings\.weight"
# `not_a_point_embed` and the point head's own class table take no part in an answer
PROMPT_EMBEDDINGS = (
    rf"{CLASS_EMBEDDINGS}|point_head\.(point_embeddings\.[01]|special_class_embed|zeroshot_embed"
    r"|supported_embed)\.weight"
)
# modules of the network, the same in all sizes
_NETWORK: dict[str, Any] = {
    "class_rows": "class_head.class_embeddings",
    "adapter_targets": BLOCK_CONVOLUTIONS,
    "stem": "image_encoder.encoder.conv_init",
    "citation": CITATION,
}
# what the authors' two models share: grid, crop, and windows as MONAI's defaults have them
_OFFICIAL: dict[str, Any] = {
    **_NETWORK,
    "spacing": (1.5, 1.5, 1.5),
    "divisor": 16,
    "crop": Crop(above=0.0, stage="before", margin=10),
    "overlap": 0.25,
    "blending": "constant",
}


def vista3d_card(bundle_parity: bool = False) -> Card:
    """The official CT model (NV-Segment-CT): 1.5 mm, 128 voxel windows, 127 usable classes.

    Windows overlap and blend as in the authors' MONAI bundle: its configuration says 0.3, but its inferer
    passes neither overlap nor mode on, so MONAI's defaults run (0.25, constant). Their research code has
    0.625 with Gaussian weights.

    Args:
        bundle_parity: clicks get "special" labels on the classes the bundle gives them to, instead of on
            those the network was trained with.
    """
    return Card(
        name="vista3d",
        weights=Weights(
            source="nvidia/NV-Segment-CT",
            file="vista3d_pretrained_model/model.pt",
            sha256=None,
            licence="NVIDIA Open Model License (model card) / non-commercial (licence file)",
            commercial=None,
            note="hash not verified; the published sources disagree on commercial use: "
            "research only until you have read them",
        ),
        window=(128, 128, 128),
        intensity={"ct": CT_WINDOW, "pet": PERCENTILES, "mr": PERCENTILES},
        structures=anatomy.direct("vista3d"),
        groups=anatomy.groups("vista3d"),
        new_rows=NEW_ROWS,
        head=HEADS,
        prompt_parameters=PROMPT_EMBEDDINGS,
        **_OFFICIAL,
        **_clicked(BUNDLE_SPECIAL if bundle_parity else SPECIAL),
    )


def nv_segment_ctmr_card() -> Card:
    """The successor for CT and MR (NV-Segment-CTMR): the same network, 192 x 192 x 128 windows.

    345 class indices, the undefined ones left out. Only the class branch was trained, so it takes no clicks.
    Percentiles scale CT too; they are of the cropped scan, as in the bundle. Windows as in `vista3d_card`.
    """
    return Card(
        name="nv_segment_ctmr",
        weights=Weights(
            source="nvidia/NV-Segment-CTMR",
            file="vista3d_pretrained_model/model.pt",
            sha256=None,
            licence="NVIDIA OneWay Noncommercial License (22 March 2022)",
            commercial=False,
            note="hash not verified; brain MR needs the authors' own preprocessing first (skull stripped, "
            "bias corrected, aligned to MNI space); PET was in no training set",
        ),
        window=(192, 192, 128),
        intensity={"ct": PERCENTILES, "pet": PERCENTILES, "mr": PERCENTILES},
        structures=anatomy.direct("nv_segment_ctmr"),
        groups=anatomy.groups("nv_segment_ctmr"),
        trained_on=("ct", "mr"),
        prompts=("auto",),
        new_rows=NEW_ROWS_CTMR,
        head=CLASS_HEAD,
        prompt_parameters=CLASS_EMBEDDINGS,
        **_OFFICIAL,
    )


def vista3d_tiny_card() -> Card:
    """The small VISTA3D whose weights ship with the package: 13 organs, pretrained on CT phantoms."""
    return Card(
        name="vista3d_tiny",
        weights=Weights(
            source="package",
            file="vista3d_tiny.safetensors",
            sha256="08b4c23982c3abe5812b332d5ad6cc16c54a33accd2d7f0c174c5283b2a6d987",
            licence="Apache-2.0",
            commercial=True,
            note="pretrained on CT phantoms only (procedural anatomy and real organ maps), not on patients",
        ),
        spacing=(6.0, 6.0, 6.0),
        window=(72, 48, 64),
        divisor=8,
        intensity={"ct": CT_WINDOW, "pet": PERCENTILES, "mr": PERCENTILES},
        crop=Crop(above=0.1, stage="after", margin=2),
        structures=_umd_organs(),
        new_rows=NEW_ROWS,
        head=HEADS,
        prompt_parameters=PROMPT_EMBEDDINGS,
        **_NETWORK,
        **_clicked(SPECIAL),
    )


def _clicked(special: tuple[int, ...]) -> dict[str, Any]:
    """Of models whose point branch is trained, too; `special` as on the card."""
    kinds = ("auto", "point", "clicks", "auto_point")
    return {"prompts": kinds, "special": special, "last_supported": LAST_SUPPORTED}


def _umd_organs() -> dict[str, int]:
    # VISTA3D's own index 20 means "lung"; here it was trained as one class, so it is no group
    indices = anatomy.ids("vista3d")
    return {name: indices[name] for name in anatomy.UMD13}
