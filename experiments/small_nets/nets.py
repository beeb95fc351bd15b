"""Published small networks, written anew from their papers and the names and shapes in their weights files.

Examples of modules a user brings: nothing here knows umdseg, and umdseg nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


class _Blocks(nn.Module):
    """Convolution `conv<name>` and normalisation `batch<name>` side by side, as in the weights files."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def add(self, name: str, inputs: int, outputs: int, stride: int = 1) -> None:
        """Register one block."""
        self.add_module(f"conv{name}", nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1))
        self.add_module(f"batch{name}", nn.BatchNorm3d(outputs))

    def block(self, name: str, x: Tensor) -> Tensor:
        """Convolve, normalise, leak."""
        x = self.get_submodule(f"batch{name}")(self.get_submodule(f"conv{name}")(x))
        return functional.leaky_relu(x, self.slope)


class AllConvUNet(_Blocks):
    """The all-convolutional U-Net (0.9 M weights) that Heinrich et al. compare OBELISK with.

    Heinrich MP, Oktay O, Bouteldja N. OBELISK-Net. Medical Image Analysis 54 (2019), 1-9.

    Args:
        classes: output channels, background first.
        scale, shift: what turns the input into the values the network was trained on (here HU).
    """

    def __init__(self, classes: int = 9, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(slope=0.1)
        self.scale, self.shift = scale, shift
        widths = (5, 14, 28, 42, 56, 70)
        self.add("0", 1, widths[0])
        for level in range(1, 6):
            self.add(f"{level}", widths[level - 1], widths[level], stride=2)
            self.add(f"{level}{level}", widths[level], widths[level])
        self.ups = ("6dU", "6cU", "6bU", "6U", "7U")
        for name, level in zip(self.ups, range(4, -1, -1), strict=True):
            below = widths[level + 1]
            self.add(name, below + widths[level], widths[level] if level else classes)
        self.conv77U = nn.Conv3d(classes, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, classes, X, Y, Z)."""
        skips = [self.block("0", x * self.scale + self.shift)]
        for level in range(1, 6):
            skips.append(self.block(f"{level}{level}", self.block(f"{level}", skips[-1])))
        x = skips.pop()
        for name in self.ups:
            skip = skips.pop()
            x = self.block(name, torch.cat((_resized(x, skip), skip), 1))
        return self.conv77U(x)


class _Obelisk(_Blocks):
    """What both OBELISK hybrids share: layers that look at learned places far away."""

    def add_layer(self, number: int, places: int, inputs: int, groups: int, outputs: int) -> None:
        """`places` learned offsets, then 1x1x1 convolutions in dense-net manner."""
        self.register_parameter(f"offset{number}", nn.Parameter(0.05 * torch.randn(1, places, 1, 1, 3)))
        self.add_module(f"linear{number}a", nn.Conv3d(inputs, 128, 1, groups=groups, bias=False))
        for step, width in zip("bcde", (128, 160, 192, 224), strict=True):
            self.add_module(f"batch{number}{'abcd'['bcde'.index(step)]}", nn.BatchNorm3d(width))
            last = outputs if step == "e" else 32
            self.add_module(f"linear{number}{step}", nn.Conv3d(width, last, 1, bias=False))

    def look(self, number: int, x: Tensor, size: tuple[int, ...], act: Callable[[Tensor], Tensor]) -> Tensor:
        """Sample (B, C, X, Y, Z) at every learned offset around a grid of `size`, and combine."""
        axes = [torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in size]
        # grid_sample counts axes from the last; older than its `align_corners`, the networks have it true
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1).reshape(1, 1, -1, 1, 3)
        places = (grid + self.get_parameter(f"offset{number}").to(x.dtype)).expand(x.shape[0], -1, -1, -1, -1)
        found = functional.grid_sample(x, places, align_corners=True)
        out = act(self.get_submodule(f"linear{number}a")(found.reshape(x.shape[0], -1, *size)))
        for step, before in (("b", "a"), ("c", "b"), ("d", "c")):
            normal = self.get_submodule(f"batch{number}{before}")(out)
            out = torch.cat((out, act(self.get_submodule(f"linear{number}{step}")(normal))), 1)
        normal = self.get_submodule(f"batch{number}d")(out)
        return act(self.get_submodule(f"linear{number}e")(normal))


def _half(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((n + 1) // 2 for n in size)


class ObeliskHybridTcia(_Obelisk):
    """OBELISK-CNN hybrid of the TCIA study (0.23 M weights, 640 offsets). Source as `AllConvUNet`."""

    def __init__(self, classes: int = 9) -> None:
        super().__init__(slope=0.025)
        for name, inputs, outputs, stride in (("0", 1, 4, 1), ("1", 4, 16, 2), ("11", 16, 16, 1)):
            self.add(name, inputs, outputs, stride)
        for name, inputs, stride in (("2", 16, 2), ("22", 32, 1), ("3", 32, 1)):
            self.add(name, inputs, 32, stride)
        self.add_layer(1, 128, 128, 2, 16)
        self.add_layer(2, 512, 512, 4, 32)
        self.add("6bU", 64, 32)
        self.add("6U", 64, 12)
        self.add("7U", 16, classes)
        self.conv77U = nn.Conv3d(classes, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, classes, X, Y, Z)."""
        smooth = functional.avg_pool3d(x, 3, padding=1, stride=1)
        smoother = functional.avg_pool3d(smooth, 3, padding=1, stride=1)
        act = lambda value: functional.leaky_relu(value, self.slope)  # noqa: E731
        full = self.block("0", x)
        half = self.block("11", self.block("1", full))
        x = self.block("3", self.block("22", self.block("2", half)))
        quarter = tuple(x.shape[2:])
        # the published network halves two of the three axes once more
        first, _, last = _half(quarter)
        near = _resized(self.look(1, smooth, quarter, act), half)
        far = _resized(self.look(2, smoother, (first, quarter[1], last), act), x)
        x = self.block("6bU", torch.cat((x, far), 1))
        x = self.block("6U", torch.cat((_resized(x, half), near, half), 1))
        x = self.block("7U", torch.cat((_resized(x, full), full), 1))
        return self.conv77U(x)


class ObeliskHybridVisceral(_Obelisk):
    """OBELISK-CNN hybrid of the VISCERAL study: looks at feature maps, decides at half resolution.

    Args:
        classes: output channels, background first.
        scale, shift: what turns the input into HU / 1000.
    """

    def __init__(self, classes: int = 8, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(slope=0.05)
        self.scale, self.shift = scale, shift
        for name, inputs, outputs, stride in (
            ("0", 1, 4, 1),
            ("1", 4, 16, 2),
            ("11", 16, 16, 1),
            ("2", 16, 32, 2),
        ):
            self.add(name, inputs, outputs, stride)
        self.add_layer(1, 128, 4 * 128, 4, 32)
        self.add_layer(2, 512, 512, 4, 32)
        self.add("6bU", 64, 32)
        self.add("6U", 80, 32)
        self.conv8 = nn.Conv3d(32, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, classes, X, Y, Z)."""
        image = x * self.scale + self.shift
        smooth = functional.avg_pool3d(image, 3, padding=1, stride=1)
        full = self.block("0", image)
        half = self.block("11", self.block("1", full))
        x = self.block("2", half)
        quarter = tuple(x.shape[2:])
        near = _resized(self.look(1, full, quarter, functional.relu), half)
        far = _resized(self.look(2, smooth, _half(quarter), functional.relu), x)
        x = self.block("6bU", torch.cat((x, far), 1))
        x = self.block("6U", torch.cat((_resized(x, half), near, half), 1))
        return _resized(self.conv8(x), image)


class PNet(nn.Module):
    """P-Net of DeepIGeoS with two channels, CT and PET.

    Wang G, Zuluaga MA, Li W, et al. DeepIGeoS. IEEE TPAMI 41 (2019), 1559-1572: five blocks of dilated
    convolutions at full resolution, their outputs side by side. Every further convolution of a block stays
    within the slice (3 x 3 x 1).
    """

    def __init__(self, inputs: int = 2, width: int = 8) -> None:
        super().__init__()
        for number, (dilation, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (16, 3)), start=1):
            layers: list[nn.Module] = []
            for position in range(count):
                deep = position == 0
                source = inputs if number == 1 and deep else width
                kernel, spread = (
                    ((3, 3, 3), (dilation,) * 3) if deep else ((3, 3, 1), (dilation, dilation, 1))
                )
                padding = (dilation, dilation, dilation if deep else 0)
                layers += [nn.Conv3d(source, width, kernel, padding=padding, dilation=spread), nn.ReLU()]
            self.add_module(f"block{number}", nn.Sequential(*layers))
            narrow = nn.Sequential(nn.Conv3d(width, width // 4, 1), nn.ReLU())
            self.add_module(f"block{number}_downsample", narrow)
        last = nn.Conv3d(width, 1, 3, padding=1)
        self.block6 = nn.Sequential(
            nn.Dropout(0.5), nn.Conv3d(5 * (width // 4), width, 1), nn.ReLU(), nn.Dropout(0.5), last
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, X, Y, Z), CT and PET -> (B, 1, X, Y, Z) logits of lesion."""
        found = []
        for number in range(1, 6):
            x = self.get_submodule(f"block{number}")(x)
            found.append(self.get_submodule(f"block{number}_downsample")(x))
        return self.block6(torch.cat(found, 1))
