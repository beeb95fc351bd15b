"""The official networks taken apart into encoder, decoder and head; results are those of their own forward.

Sources: SegResNet (Myronenko, arXiv 1810.11654), Swin UNETR (Hatamizadeh et al., arXiv 2201.01266), nnU-Net's
plain and residual-encoder U-Nets (Isensee et al., Nat Methods 2021; arXiv 2404.09556).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.card import Card
from umdseg.backbones.monai_cnn.backbone import ClassNet, State

# MONAI 0.x: the linear layers of a Swin block's MLP
_SWIN_MLP = {".mlp.fc1.": ".mlp.linear1.", ".mlp.fc2.": ".mlp.linear2."}
# the heads of Swin UNETR's self-supervised pretraining (SSLHead: rotation, contrast, reconstruction)
_SSL_HEADS = ("rotation_head.", "contrastive_head.", "conv.", "norm.")
# SuPreM's text-driven head, not part of Swin UNETR
_TEXT_HEAD = ("organ_embedding", "text_to_vision.", "controller.", "GAP.", "precls_conv.", "backbone.out.")


class SegResNetDS(ClassNet):
    """MONAI's SegResNetDS; only the finest of its deep supervision heads is used."""

    def __init__(self, card: Card, net: nn.Module, pretrained: tuple[str, ...] = ()) -> None:
        super().__init__(card, net, f"up_layers.{len(cast(Any, net).up_layers) - 1}.head", pretrained)

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        return list(self._part("encoder")(image))

    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = maps
        for level, skip in zip(self._part("up_layers"), reversed(skips), strict=True):
            x = level["upsample"](x)
            x = level["blocks"](x + skip)
        return x

    def _rename(self, state: State) -> State:
        """CT-FM: the encoder alone (`conv_init`, `layers`), or under `backbone.` as in its checkpoints."""
        if all(key.startswith("backbone.") for key in state):
            return {f"encoder.{key.removeprefix('backbone.')}": value for key, value in state.items()}
        if all(key.startswith(("conv_init.", "layers.")) for key in state):
            return {f"encoder.{key}": value for key, value in state.items()}
        return dict(state)


class SegResNet(ClassNet):
    """MONAI's SegResNet."""

    def __init__(self, card: Card, net: nn.Module) -> None:
        super().__init__(card, net, "conv_final.2.conv")

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        return list(self._part("encode")(image)[1])

    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = maps
        steps = zip(self._part("up_samples"), self._part("up_layers"), reversed(skips), strict=True)
        for upsample, blocks, skip in steps:
            x = blocks(upsample(x) + skip)
        norm, act, _ = self._part("conv_final")
        return cast(torch.Tensor, act(norm(x)))


class SwinUnetr(ClassNet):
    """MONAI's SwinUNETR."""

    def __init__(self, card: Card, net: nn.Module, pretrained: tuple[str, ...] = ()) -> None:
        super().__init__(card, net, "out.conv.conv", pretrained)

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        hidden = self._part("swinViT")(image, self._part("normalize"))
        return [
            self._part("encoder1")(image),
            self._part("encoder2")(hidden[0]),
            self._part("encoder3")(hidden[1]),
            self._part("encoder4")(hidden[2]),
            hidden[3],
            self._part("encoder10")(hidden[4]),
        ]

    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = maps
        for level, skip in zip((5, 4, 3, 2, 1), reversed(skips), strict=True):
            x = self._part(f"decoder{level}")(x, skip)
        return x

    def _rename(self, state: State) -> State:
        """Swin UNETR's own names, from the layouts of its pretrainings.

        - SuPreM: `backbone.` before all but the text-driven head, which is left out, as is the head of Swin
          UNETR that it stands in for;
        - Disruptive Autoencoders (`ssl_pretrained_weights.pth`): the transformer alone, by MONAI's own rule
          (`filter_swinunetr`);
        - MONAI's first pretraining (`model_swinvit.pt`): the transformer alone, its MLP under older names
          (`SwinUNETR.load_from`).
        """
        if any(key.startswith("backbone.") for key in state):
            if any(key.startswith(_TEXT_HEAD) for key in state):
                state = _without(state, (*_TEXT_HEAD, "backbone.out."))
            state = {key.removeprefix("backbone."): value for key, value in state.items()}
        if any(key.startswith("encoder.") for key in state):
            state = _from_autoencoder(state)
        if "patch_embed.proj.weight" in state:
            state = {f"swinViT.{key}": value for key, value in _without(state, _SSL_HEADS).items()}
        return {_current(key): value for key, value in state.items()}


def _from_autoencoder(state: State) -> State:
    from monai.networks.nets.swin_unetr import filter_swinunetr

    found = (filter_swinunetr(key, value) for key, value in state.items())  # type: ignore[no-untyped-call]
    return dict(item for item in found if item is not None)


def _without(state: State, prefixes: tuple[str, ...]) -> State:
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def _current(key: str) -> str:
    for old, new in _SWIN_MLP.items():
        key = key.replace(old, new)
    return key


class DynUnet(ClassNet):
    """MONAI's DynUNet, nnU-Net's plain U-Net.

    Its forward reaches the blocks under second names (`skip_layers`), which would double every state dict.
    """

    def __init__(self, card: Card, net: nn.Module) -> None:
        super().__init__(card, net, "output_block.conv.conv")
        del net.skip_layers

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        maps = [self._part("input_block")(image)]
        for block in (*self._part("downsamples"), self._part("bottleneck")):
            maps.append(block(maps[-1]))
        return maps

    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = maps
        for block, skip in zip(self._part("upsamples"), reversed(skips), strict=True):
            x = block(x, skip)
        return x

    def _rename(self, state: State) -> State:
        return _without(state, ("skip_layers.",))


class ResEncUnet(ClassNet):
    """nnU-Net's residual-encoder U-Net (dynamic_network_architectures)."""

    def __init__(self, card: Card, net: nn.Module) -> None:
        super().__init__(card, net, f"decoder.seg_layers.{len(cast(Any, net).decoder.seg_layers) - 1}")

    def _encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        return list(self._part("encoder")(image))

    def _decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = maps
        decoder = self._part("decoder")
        for up, stage, skip in zip(decoder.transpconvs, decoder.stages, reversed(skips), strict=True):
            x = stage(torch.cat((up(x), skip), dim=1))
        return x
