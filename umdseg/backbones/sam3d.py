"""SAM-Med3D and SegAnyPET: one network (package `medim`), prompted by clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from umdseg.backbones.base import BACKGROUND, Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.guards import check_size
from umdseg.backbones.listing import listed
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.sam3d_cards import (
    PARAMETERS,
    sam_med3d_turbo_card,
    seganypet_lesion_card,
    seganypet_v1_card,
    seganypet_v2_card,
)
from umdseg.backbones.sam3d_session import Sam3dSession
from umdseg.backbones.vista3d_points import inside
from umdseg.backbones.weights import load_weights
from umdseg.data.geometry import Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Modality, Origin, Prompt


@dataclass
class Sam3dOptions(ModelOptions):
    """Options of the family.

    Attributes:
        windows: most windows looked at per structure. A window whose answer touches its border gets a
            neighbour that overlaps it by half (the SAM-Med3D paper's protocol); 1 = only the windows around
            clicks, as the published inference scripts do.
    """

    FREE: ClassVar[tuple[str, ...]] = ("windows",)

    windows: int = 8

    def validate(self) -> None:
        """Refuse a number of windows that is none.

        Raises:
            UserError: fewer than one.
        """
        if self.windows < 1:
            raise UserError(
                f"{self.windows} windows look at nothing", where="model.windows", expected="1 or more"
            )


@listed(sam_med3d_turbo_card, family="sam3d", parameters=PARAMETERS, options=Sam3dOptions)
def sam_med3d_turbo(options: Sam3dOptions) -> Sam3d:
    """SAM-Med3D-turbo."""
    return _built(sam_med3d_turbo_card(), options)


@listed(seganypet_v1_card, family="sam3d", parameters=PARAMETERS, options=Sam3dOptions)
def seganypet_v1(options: Sam3dOptions) -> Sam3d:
    """SegAnyPET, first version."""
    return _built(seganypet_v1_card(), options)


@listed(seganypet_v2_card, family="sam3d", parameters=PARAMETERS, options=Sam3dOptions)
def seganypet_v2(options: Sam3dOptions) -> Sam3d:
    """SegAnyPET, second version."""
    return _built(seganypet_v2_card(), options)


@listed(seganypet_lesion_card, family="sam3d", parameters=PARAMETERS, options=Sam3dOptions)
def seganypet_lesion(options: Sam3dOptions) -> Sam3d:
    """SegAnyPET for lesions."""
    return _built(seganypet_lesion_card(), options)


def build_network() -> nn.Module:
    """The official ViT-B/16 of `medim` (`create_model` would print, and load without strictness)."""
    from medim.models.sam_med3d import build_sam3D_vit_b_ori

    return cast(nn.Module, build_sam3D_vit_b_ori())


def _built(card: Card, options: Sam3dOptions) -> Sam3d:
    options.validate()
    net: Any = build_network()
    # it has learned positions for windows of one size
    edge = int(net.image_encoder.img_size)
    card = replace(card, window=(edge, edge, edge), divisor=edge)
    return load_weights(Sam3d(card, net, windows=options.windows), options)


class Sam3d(Backbone):
    """Image encoder once per window; every click runs the prompt encoder and the mask decoder only.

    Clicks go through one after the other as in the authors' `validation.py`: each step sees the newest click
    and the low-resolution logits of the step before (zeros at first), not the earlier clicks. Click
    coordinates are voxel indices of the window, axis by axis in array order. The network's own encoding of
    image positions swaps the first two axes while that of clicks does not; it was trained so and stays so.

    Attributes:
        windows: most windows a session looks at per structure.
    """

    def __init__(self, card: Card, net: nn.Module, *, windows: int = 8) -> None:
        super().__init__()
        self.card, self.net, self.windows = card, net, windows
        self.new_structures = {}

    def knows(self, structure: str) -> bool:
        """Anything can be clicked on; there are no classes."""
        del structure
        return True

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows (B, 1, X, Y, Z) of unscaled voxels.

        Each is brought to mean 0 and standard deviation 1 of its own voxels above 0 (torchio's
        `ZNormalization(masking_method=lambda x: x > 0)` in the authors' scripts). Without `affine`, voxel 0
        is at 0 mm and axes are RAS.
        """
        shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[4]))
        check_size(self.card, shape)
        if affine is None:
            spacing = self.card.spacing or (1.0, 1.0, 1.0)
            affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
            affine = affine.expand(image.shape[0], 4, 4)
        scaled = torch.stack([standardised(sample) for sample in image.float()])
        return Features([self._part("image_encoder")(scaled)], affine, shape)

    def stem_input(self, image: torch.Tensor) -> torch.Tensor:
        """Every channel standardised by itself, as in `encode`."""
        scaled = [
            torch.cat([standardised(channel) for channel in sample[:, None]]) for sample in image.float()
        ]
        return torch.stack(scaled)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z), each prompt by itself."""
        self.check_prompts(prompts)
        samples = [features.sample(i) for i in range(features.maps[0].shape[0])]
        return torch.stack([torch.stack([self._clicked(one, p) for p in prompts]) for one in samples])

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        """Windows centred on clicks, padded beyond the scan, that grow where the answer does."""
        del overlap
        told = Origin.of(origin)
        return Sam3dSession(self, {told.modality: volume}, told, precision)  # type: ignore[dict-item]

    def fused_session(
        self, fused: Any, volumes: Mapping[Modality, Volume], *, origin: Origin | str, precision: str
    ) -> Any:
        """The same windows and growth, every window encoded and decoded by the fusion."""
        return Sam3dSession(self, volumes, origin, precision, fused)

    def refine(
        self, embedding: torch.Tensor, coords: torch.Tensor, signs: torch.Tensor, low: torch.Tensor | None
    ) -> torch.Tensor:
        """Low-resolution logits (1, 1, X / 4, Y / 4, Z / 4) after some clicks.

        Args:
            embedding: (1, C, X / 16, Y / 16, Z / 16) of one window.
            coords: (N, 3) voxel coordinates in the window.
            signs: (N,) 1 inside the structure, 0 outside.
            low: logits to start from; None = zeros, as the authors start.
        """
        device = embedding.device
        if low is None:
            low = torch.zeros(1, 1, *(edge // 4 for edge in self.card.window), device=device)
        # trained on voxel indices; a click between the last two centres is still the last voxel's
        last = torch.tensor(self.card.window) - 1
        index = torch.minimum(coords.round().clamp(min=0), last).to(device, torch.float32)
        encoder, decoder = self._part("prompt_encoder"), self._part("mask_decoder")
        for point, sign in zip(index, signs.to(device, torch.float32), strict=True):
            # positions in bfloat16 would be off by voxels, and the official code mixes types there
            with torch.autocast(device.type, enabled=False):
                click = (point[None, None], sign[None, None])
                sparse, dense = encoder(points=click, boxes=None, masks=low.float())
                positions = encoder.get_dense_pe()
            low, _ = decoder(
                image_embeddings=embedding,
                image_pe=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
        return low

    def enlarge(self, low: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits -> (X, Y, Z) float32."""
        full = functional.interpolate(
            low.float(), size=self.card.window, mode="trilinear", align_corners=False
        )
        return full[0, 0]

    def _clicked(self, one: Features, prompt: Prompt) -> torch.Tensor:
        coords, signs = inside(prompt, one.affine[0], one.shape)
        if not len(signs):
            return torch.full(one.shape, BACKGROUND, device=one.maps[0].device)
        return self.enlarge(self.refine(one.maps[0], coords, signs, None))

    def _part(self, name: str) -> Any:
        # an adapter may have wrapped the network; its wrapper passes attributes through
        return getattr(self.net, name)


def standardised(image: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 of the voxels above 0; zeros where there is no spread to divide by."""
    seen = image[image > 0]
    if seen.numel() < 2 or float(seen.std()) == 0:
        return torch.zeros_like(image)
    return (image - seen.mean()) / seen.std()
