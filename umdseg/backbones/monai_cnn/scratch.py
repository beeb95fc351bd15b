"""U-Nets trained from scratch: the supervised references that pretrained models are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.listing import listed
from umdseg.backbones.monai_cnn.backbone import ClassNet
from umdseg.backbones.monai_cnn.cards import card
from umdseg.backbones.monai_cnn.models import FAMILY, seeded
from umdseg.backbones.monai_cnn.networks import DynUnet, ResEncUnet
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.weights import load_weights
from umdseg.errors import UserError

CITATION = "Isensee F, Jaeger PF, Kohl SAA, et al. nnU-Net. Nat Methods 18, 203-211 (2021)"
RESENC = f"{CITATION}; Isensee F, Wald T, Ulrich C, et al. nnU-Net Revisited. arXiv 2404.09556"
PLAIN_CONVOLUTIONS = r"(input_block|downsamples\.\d+|bottleneck|upsamples\.\d+\.conv_block)\.conv[12]\.conv"
RESENC_CONVOLUTIONS = (
    r"encoder\.stages\.\d+\.blocks\.\d+\.conv[12]\.conv|decoder\.stages\.\d+\.convs\.\d+\.conv"
)
# residual blocks per level of nnU-Net's ResEnc presets
BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
WINDOW = (128, 128, 128)


@dataclass
class UnetOptions(ModelOptions):
    """Size and input of a U-Net trained from scratch; `weights` null is `random` here.

    Attributes:
        width: channels at full resolution; doubled at every level.
        max_width: most channels.
        levels: resolutions; the coarsest has 1/2^(levels - 1) of the voxels along each axis.
        spacing: millimetres of its grid.
        window: voxels of a training patch and of a test window, multiples of 2^(levels - 1); None = WINDOW.
    """

    # the card tells
    FREE: ClassVar[tuple[str, ...]] = ("spacing",)

    name: str = "unet"
    width: int = 32
    max_width: int = 320
    levels: int = 6
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)
    window: tuple[int, int, int] | None = WINDOW

    def validate(self) -> None:
        """Refuse sizes that make no network.

        Raises:
            UserError: naming the option.
        """
        if not 3 <= self.levels <= len(BLOCKS):
            expected = f"3 to {len(BLOCKS)}"
            raise UserError(f"a U-Net of {self.levels} levels", where="model.levels", expected=expected)
        if not 1 <= self.width <= self.max_width:
            where = "model.width"
            raise UserError(f"{self.width} channels", where=where, expected=f"1 to {self.max_width}")
        divisor = 2 ** (self.levels - 1)
        window = self.window or WINDOW
        if len(window) != 3 or any(edge <= 0 or edge % divisor for edge in window):
            expected = f"three multiples of {divisor}, 2^(levels - 1)"
            raise UserError(f"a window of {list(window)}", where="model.window", expected=expected)
        if not all(edge > 0 for edge in self.spacing):
            where = "model.spacing"
            raise UserError(f"a spacing of {list(self.spacing)} mm", where=where, expected="above 0")

    @property
    def widths(self) -> list[int]:
        """Channels per level, finest first."""
        return [min(self.width * 2**level, self.max_width) for level in range(self.levels)]


def unet_card(options: UnetOptions) -> Card:
    """A network that knows no structure until it is trained (`Backbone.add_structures`)."""
    residual = options.name == "resenc_unet"
    percentiles = Intensity("percentile", 0.5, 99.5)
    return card(
        options.name,
        Weights(
            None,
            "",
            None,
            "none: random weights",
            True,
            "trained from scratch: there is no file, not verified",
        ),
        1,
        {},
        spacing=options.spacing,
        window=options.window or WINDOW,
        divisor=2 ** (options.levels - 1),
        intensity={"ct": Intensity("window", -1000.0, 1000.0), "pet": percentiles, "mr": percentiles},
        trained_on=(),
        overlap=0.5,
        adapter_targets=RESENC_CONVOLUTIONS if residual else PLAIN_CONVOLUTIONS,
        head=rf"decoder\.seg_layers\.{options.levels - 2}" if residual else r"output_block\.conv\.conv",
        stem="encoder.stem.convs.0.conv" if residual else "input_block.conv1.conv",
        citation=RESENC if residual else CITATION,
        scratch=True,
    )


@listed(lambda: unet_card(UnetOptions()), family=FAMILY, parameters=31_189_377)
def unet(options: UnetOptions) -> ClassNet:
    """nnU-Net's plain U-Net: two convolutions a level, instance norm, leaky ReLU."""
    options.validate()
    return _started(DynUnet(unet_card(options), seeded(lambda: _plain(options))), options)


@dataclass
class ResEncOptions(UnetOptions):
    """As `UnetOptions`."""

    name: str = "resenc_unet"


@listed(lambda: unet_card(ResEncOptions()), family=FAMILY, parameters=102_348_965)
def resenc_unet(options: ResEncOptions) -> ClassNet:
    """nnU-Net's residual-encoder U-Net, from dynamic_network_architectures.

    Raises:
        UserError: the package is missing.
    """
    options.validate()
    return _started(ResEncUnet(unet_card(options), seeded(lambda: _residual(options))), options)


def _started(model: ClassNet, options: UnetOptions) -> ClassNet:
    return load_weights(model, replace(options, weights=options.weights or "random"))


def _plain(options: UnetOptions) -> Any:
    from monai.networks.nets import DynUNet

    steps = [1] + [2] * (options.levels - 1)
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        kernel_size=[3] * options.levels,
        strides=steps,
        upsample_kernel_size=steps[1:],
        filters=options.widths,
    )


def _residual(options: UnetOptions) -> Any:
    from torch import nn

    from umdseg.backbones.nnunet.network import one_name_each

    try:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    except ImportError as error:
        package = "dynamic-network-architectures"
        what = f"resenc_unet needs the package {package}"
        raise UserError(what, expected="it installed (extra nnunet), or model=unet") from error
    net = ResidualEncoderUNet(
        input_channels=1,
        n_stages=options.levels,
        features_per_stage=options.widths,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * (options.levels - 1),
        n_blocks_per_stage=list(BLOCKS[: options.levels]),
        num_classes=1,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    one_name_each(net)
    return net


unet.Options = UnetOptions  # type: ignore[attr-defined]
resenc_unet.Options = ResEncOptions  # type: ignore[attr-defined]
