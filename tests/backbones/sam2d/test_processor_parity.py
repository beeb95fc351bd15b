"""The whole way from a slice and a click to logits equals the authors' own processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import transform as sk

from umdseg.backbones.sam2d.pictures import Layout
from umdseg.vocabulary import Prompt


def slice_of(columns, rows, seed=0):
    """(X, Y) whole numbers from 0 to 255: blobs and noise."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows), indexing="ij")
    values = 90 + 80 * np.sin(4 * x) * np.cos(3 * y) + rng.normal(0, 15, (columns, rows))
    return np.clip(values, 0, 255).astype(np.uint8)


def affine(columns, rows):
    """LPS slices of 2 mm pixels."""
    matrix = np.diag([-2.0, -2.0, 5.0, 1.0])
    matrix[:3, 3] = (columns, rows, 7.0)
    return torch.from_numpy(matrix)


def millimetres(pixel, columns, rows):
    return tuple(float(v) for v in (affine(columns, rows).numpy() @ [*pixel, 0.0, 1.0])[:3])


@torch.no_grad()
@pytest.mark.parametrize(("columns", "rows"), [(100, 100), (90, 57), (40, 52)])
def test_sam_equals_transformers_processor_and_model(columns, rows, make) -> None:
    """`SamImageProcessorPil` and `SamProcessor` of transformers, on a picture (rows, columns, 3)."""
    from transformers import SamProcessor
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    backbone = make("sam")
    pixels = slice_of(columns, rows)
    processor = SamProcessor(
        SamImageProcessorPil(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )
    )
    points, signs = [[23.0, 31.0], [30.0, 12.0]], [1, 0]
    features = backbone.encode(
        torch.from_numpy(pixels.astype(np.float32))[None, None, ..., None], affine(columns, rows)[None]
    )
    picture = np.stack([pixels.T] * 3, axis=-1)
    for count in (1, 2):
        inputs = processor(
            images=picture,
            input_points=[[points[:count]]],
            input_labels=[[signs[:count]]],
            return_tensors="pt",
        )
        layout = backbone.layout((rows, columns), (2.0, 2.0))
        assert layout.filled == tuple(inputs["reshaped_input_sizes"][0].tolist())
        given = layout.pixels(torch.from_numpy(pixels.T.copy())[None, None])
        # a hundredth: Pillow and torch round some pixels to neighbouring grey levels (1/255/0.229 = 0.017)
        assert float((given - inputs["pixel_values"]).abs().mean()) < 2e-4
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
        inputs["input_points"] = inputs["input_points"].float()
        said = backbone.net(**{**inputs, "pixel_values": given}, multimask_output=count == 1)
        masks = torch.nn.functional.interpolate(said.pred_masks[0], (64, 64), mode="bilinear")
        masks = masks[..., : sizes[1][0][0], : sizes[1][0][1]]
        masks = torch.nn.functional.interpolate(masks, (rows, columns), mode="bilinear")
        best = int(said.iou_scores[0, 0].argmax())
        asked = tuple(millimetres(p, columns, rows) for p in points[:count])
        logits = backbone.decode(features, [Prompt("liver", "clicks", asked, tuple(signs[:count]))])
        # float32 sums in another order; logits up to 1
        torch.testing.assert_close(logits[0, 0, ..., 0].T, masks[0, best], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("columns", "rows"), [(100, 80), (40, 52)])
def test_medsam_equals_the_steps_of_its_inference_script(columns, rows, make) -> None:
    """scikit-image's resize, minimum to maximum, the box in pixels, and interpolated probabilities."""
    backbone = make("medsam")
    pixels = slice_of(columns, rows)
    picture = np.stack([pixels.T] * 3, axis=-1)
    small = sk.resize(picture, (64, 64), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    scaled = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
    expected = torch.from_numpy(scaled).float().permute(2, 0, 1)[None]
    layout = Layout.of("medsam", 64, (rows, columns), (1.0, 1.0))
    given = layout.pixels(torch.from_numpy(pixels.T.copy())[None, None])
    # numbers that lie on a whole one may be cut to the one below
    assert float((given != expected).float().mean()) < 1e-3
    box = [10, 14, 33, 40]
    scale = np.array([columns, rows, columns, rows])
    said = backbone.net(
        pixel_values=given,
        input_boxes=torch.tensor(box / scale * 64).float()[None, None],
        multimask_output=False,
    )
    probability = torch.nn.functional.interpolate(
        torch.sigmoid(said.pred_masks[0]), (rows, columns), mode="bilinear", align_corners=False
    )[0, 0]
    features = backbone.encode(
        torch.from_numpy(pixels.astype(np.float32))[None, None, ..., None], affine(columns, rows)[None]
    )
    # the faces of the box's first and last voxel
    corners = [millimetres(p, columns, rows) for p in ((9.5, 13.5), (33.5, 40.5))]
    low, high = (tuple(f(a, b) for a, b in zip(*corners, strict=True)) for f in (min, max))
    logits = backbone.decode(features, [Prompt("liver", "box", box=(low, high))])
    torch.testing.assert_close(torch.sigmoid(logits[0, 0, ..., 0].T), probability, rtol=0, atol=1e-5)


def test_pictures_of_sam2_are_pillows() -> None:
    from PIL import Image

    pixels = slice_of(90, 57).T.copy()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for style, filtering in (("sam2", Image.Resampling.BILINEAR), ("medsam2", Image.Resampling.BICUBIC)):
        resized = np.asarray(Image.fromarray(pixels).convert("RGB").resize((128, 128), filtering)) / 255
        expected = torch.from_numpy((resized - mean) / std).float().permute(2, 0, 1)[None]
        given = Layout.of(style, 128, (57, 90), (1.0, 1.0)).pixels(torch.from_numpy(pixels)[None, None])
        # one grey level, and that rarely
        assert float((given - expected).abs().max()) < 1.01 / 255 / 0.224
        assert float((given - expected).abs().mean()) < 2e-4


def test_medsam_logits_stay_finite_where_probabilities_saturate() -> None:
    low = torch.tensor([[-80.0, -30.0], [30.0, 80.0]])[None]
    logits = Layout.of("medsam", 64, (2, 2), (1.0, 1.0)).enlarge(low)
    torch.testing.assert_close(logits, low)
