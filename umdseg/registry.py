"""Names -> factories, imported only when asked for; components from outside join by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from umdseg.errors import UserError, unknown

_TABLES: dict[str, dict[str, str]] = {
    "model": {
        "vista3d": "umdseg.backbones.vista3d:vista3d",
        "vista3d_tiny": "umdseg.backbones.vista3d:vista3d_tiny",
        "nv_segment_ctmr": "umdseg.backbones.vista3d:nv_segment_ctmr",
        "nnunet": "umdseg.backbones.nnunet.release:nnunet",
        "totalseg_ct": "umdseg.backbones.nnunet.releases:totalseg_ct",
        "totalseg_ct_fast": "umdseg.backbones.nnunet.releases:totalseg_ct_fast",
        "totalseg_mr": "umdseg.backbones.nnunet.releases:totalseg_mr",
        "mrsegmentator": "umdseg.backbones.nnunet.releases:mrsegmentator",
        "moose": "umdseg.backbones.nnunet.releases:moose",
        "cads": "umdseg.backbones.nnunet.releases:cads",
        "lesiontracer": "umdseg.backbones.nnunet.releases:lesiontracer",
        "ctfm_wholebody": "umdseg.backbones.monai_cnn.models:ctfm_wholebody",
        "ctfm": "umdseg.backbones.monai_cnn.models:ctfm",
        "monai_wholebody": "umdseg.backbones.monai_cnn.models:monai_wholebody",
        "monai_wholebody_fast": "umdseg.backbones.monai_cnn.models:monai_wholebody_fast",
        "suprem": "umdseg.backbones.monai_cnn.models:suprem",
        "swinunetr_btcv": "umdseg.backbones.monai_cnn.models:swinunetr_btcv",
        "swinunetr_ssl": "umdseg.backbones.monai_cnn.models:swinunetr_ssl",
        "swinunetr_suprem": "umdseg.backbones.monai_cnn.models:swinunetr_suprem",
        "swinunetr_voco": "umdseg.backbones.monai_cnn.models:swinunetr_voco",
        "swinunetr_voco_ssl": "umdseg.backbones.monai_cnn.models:swinunetr_voco_ssl",
        "unet": "umdseg.backbones.monai_cnn.scratch:unet",
        "resenc_unet": "umdseg.backbones.monai_cnn.scratch:resenc_unet",
        "sam_med3d_turbo": "umdseg.backbones.sam3d:sam_med3d_turbo",
        "seganypet_v1": "umdseg.backbones.sam3d:seganypet_v1",
        "seganypet_v2": "umdseg.backbones.sam3d:seganypet_v2",
        "seganypet_lesion": "umdseg.backbones.sam3d:seganypet_lesion",
        "sam_vit_b": "umdseg.backbones.sam2d.models:sam_vit_b",
        "sam_vit_l": "umdseg.backbones.sam2d.models:sam_vit_l",
        "sam_vit_h": "umdseg.backbones.sam2d.models:sam_vit_h",
        "medsam": "umdseg.backbones.sam2d.models:medsam",
        "sam2_tiny": "umdseg.backbones.sam2d.models:sam2_tiny",
        "medsam2": "umdseg.backbones.sam2d.models:medsam2",
        "nninteractive": "umdseg.backbones.nninteractive.model:nninteractive",
        "voxtell": "umdseg.backbones.voxtell.model:voxtell",
        "torch_module": "umdseg.backbones.torch_module.factory:torch_module",
    },
    "adapter": {
        "none": "umdseg.adapters.none:NoAdapter",
        "full": "umdseg.adapters.full:FullTuning",
        "lora": "umdseg.adapters.lora:Lora",
        "dora": "umdseg.adapters.dora:Dora",
        "ia3": "umdseg.adapters.ia3:Ia3",
        "lora_conv": "umdseg.adapters.lora_conv:LoraConv",
        "bottleneck": "umdseg.adapters.bottleneck:Bottleneck",
        "depth": "umdseg.adapters.depth:Depth",
        "bitfit": "umdseg.adapters.bitfit:BitFit",
        "norm": "umdseg.adapters.norm:NormTuning",
        "head": "umdseg.adapters.head:HeadTuning",
        "prompt": "umdseg.adapters.prompt:PromptTuning",
    },
    "fusion": {
        "none": "umdseg.fusion.none:NoFusion",
        "early": "umdseg.fusion.early:EarlyFusion",
        "gated": "umdseg.fusion.gated:GatedFusion",
        "late": "umdseg.fusion.late:LateFusion",
    },
    "data": {
        "phantom": "umdseg.data.sources.phantom:PhantomSource",
        "petct": "umdseg.data.sources.manifest:ManifestSource",
        "petmri": "umdseg.data.sources.manifest:ManifestSource",
        "sts": "umdseg.data.sources.sts:StsSource",
        "umd": "umdseg.data.sources.umd:UmdSource",
        "autopet": "umdseg.data.sources.autopet:AutopetSource",
        "enhance_pet": "umdseg.data.sources.enhance_pet:EnhancePetSource",
        "amos": "umdseg.data.sources.amos:AmosSource",
        "totalsegmentator": "umdseg.data.sources.totalsegmentator:TotalSegmentatorSource",
        "synthrad": "umdseg.data.sources.synthrad:SynthradSource",
    },
    "prompt": {
        "auto": "umdseg.prompts.auto:AutoPrompts",
        "point": "umdseg.prompts.point:PointPrompts",
        "box": "umdseg.prompts.box:BoxPrompts",
        "auto_point": "umdseg.prompts.auto_point:AutoPointPrompts",
        "text": "umdseg.prompts.text:TextPrompts",
        "lasso": "umdseg.prompts.lasso:LassoPrompts",
        "scribble": "umdseg.prompts.scribble:ScribblePrompts",
    },
}


def names(kind: str) -> list[str]:
    """All registered names of a kind, own and from entry points (group `umdseg.<kind>`)."""
    return sorted({**_TABLES[kind], **_outside(kind)})


def resolve(kind: str, name: str) -> Any:
    """Import and return the factory registered as `name`.

    Raises:
        UserError: no such kind or name (with the nearest one), or a package it needs is not installed.
    """
    if kind not in _TABLES:
        raise unknown("kind of component", kind, _TABLES)
    table = {**_TABLES[kind], **_outside(kind)}
    if name not in table:
        raise unknown(kind, name, table)
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        # a module of ours that is not there is a defect, and nothing to install
        if error.name is None or error.name.partition(".")[0] == "umdseg":
            raise
        raise UserError(
            f"{kind} '{name}' needs the package '{error.name}', which is not installed",
            expected=f"pip install {error.name}",
        ) from error


def _outside(kind: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"umdseg.{kind}")}
