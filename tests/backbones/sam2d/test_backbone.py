"""Training patches, adapters' needs, options and cards."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from umdseg import inference
from umdseg.backbones.sam2d import cards, models, networks
from umdseg.backbones.sam2d.kept import Kept
from umdseg.backbones.sam2d.options import Sam2dOptions
from umdseg.backbones.sam2d.stack import pictures
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def patch(batch=1, slices=3, seed=0):
    return 255 * torch.rand(batch, 1, 40, 30, slices, generator=torch.Generator().manual_seed(seed))


def prompt(style):
    if style in ("medsam", "medsam2"):
        return Prompt("liver", "box", box=((-25.0, -20.0, -1.0), (-8.0, -5.0, 5.0)))
    return Prompt("liver", "clicks", ((-12.0, -9.0, 2.0), (-20.0, -15.0, 2.0)), (1, 0))


@pytest.mark.parametrize("style", ["sam", "medsam", "sam2", "medsam2"])
def test_patches_are_batches_and_gradients_reach_what_adapters_train(style, make) -> None:
    backbone = make(style)
    affine = torch.from_numpy(LPS)[None].expand(2, 4, 4)
    both = backbone.decode(backbone.encode(patch(2), affine), [prompt(style)] * 2)
    assert both.shape == (2, 2, 40, 30, 3)
    for i in range(2):
        alone = backbone.decode(backbone.encode(patch(2)[i : i + 1], affine[:1]), [prompt(style)])
        torch.testing.assert_close(both[i, :1], alone[0], rtol=0, atol=1e-3)
    backbone.train()
    backbone.decode(backbone.encode(patch(), affine[:1]), [prompt(style)]).abs().sum().backward()
    targets = {
        n: m for n, m in backbone.net.named_modules() if re.fullmatch(backbone.card.adapter_targets, n)
    }
    assert len(targets) == 2 * (2 if style in ("sam", "medsam") else 5)
    assert all(float(m.weight.grad.abs().sum()) > 0 for m in targets.values())
    modules = dict(backbone.net.named_modules())
    assert modules[backbone.card.stem].in_channels == 3


@torch.no_grad()
@pytest.mark.parametrize("channels", ["repeat", "neighbours"])
def test_a_patch_is_answered_like_the_scan_it_is(channels, make) -> None:
    """A volume in LPS voxels whose values the window leaves as they are: the session sees the same slices."""
    backbone = make("sam", channels=channels)
    image = patch().floor()
    units = image[0, 0].numpy() / 255 * 400 - 160
    session = inference.open(backbone, Volume(units, Grid((40, 30, 3), LPS)), "ct", precision="fp32")
    session.prompt([prompt("sam")])
    whole = torch.cat([part for _, part in session.scores(["liver"])], dim=-1)
    logits = backbone.decode(backbone.encode(image, torch.from_numpy(LPS)[None]), [prompt("sam")])[0]
    torch.testing.assert_close(whole, logits, rtol=0, atol=2e-4)
    if channels == "neighbours":
        other = make("sam").encode(image, torch.from_numpy(LPS)[None]).maps[0]
        assert not torch.allclose(other, backbone.encode(image, torch.from_numpy(LPS)[None]).maps[0])


def test_neighbours_are_the_slices_on_both_sides() -> None:
    image = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert torch.equal(pictures(image, 1, "neighbours")[0], image[..., [0, 1, 2]].permute(2, 1, 0))
    assert torch.equal(pictures(image, 3, "neighbours")[0], image[..., [2, 3, 3]].permute(2, 1, 0))
    assert torch.equal(pictures(image, 3, "repeat")[0, 0], image[..., 3].T)


@torch.no_grad()
def test_sam2_sessions_follow_transformers_own_loop(make) -> None:
    """With everything kept and all frames loaded, as transformers does it; and every slice embedded once."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    backbone = make("medsam2")
    image = torch.rand(40, 30, 9, generator=torch.Generator().manual_seed(1))
    volume = Volume((image * 400 - 160).numpy(), Grid((40, 30, 9), LPS))
    embed, counted = backbone.embed, []
    backbone.embed = lambda pixels: counted.append(len(pixels)) or embed(pixels)
    session = inference.open(backbone, volume, "ct", precision="fp32")
    corners = ((-25.5, -20.5, -1.0), (-7.5, -4.5, 17.0))
    session.prompt([Prompt("liver", "box", box=corners)])
    logits = torch.cat([part for _, part in session.scores(["liver"])], dim=-1)[0]
    assert bool((logits > 0).any(dim=0).any(dim=0).all())
    session.prompt([Prompt("spleen", "box", box=corners)])
    list(session.scores(["spleen"]))
    assert sum(counted) == 9
    stack = session._stacks[0]
    frames = torch.cat([stack.pixels(z) for z in range(9)])
    low = {}
    for reverse in (False, True):
        official = Sam2VideoInferenceSession(frames, 30, 40, dtype=torch.float32)
        index = official.obj_id_to_idx(1)
        # columns 8 to 25 and rows 5 to 20 of a 40 x 30 picture in 128 x 128, on the middle slice
        points = torch.tensor([[[[8 * 128 / 40, 5 * 128 / 30], [25 * 128 / 40, 20 * 128 / 30]]]])
        labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
        official.add_point_inputs(index, 4, {"point_coords": points, "point_labels": labels})
        official.obj_with_new_inputs = [1]
        for out in backbone.net.propagate_in_video_iterator(official, start_frame_idx=4, reverse=reverse):
            low[out.frame_idx] = out.pred_masks[0]
    assert sorted(low) == list(range(9))
    expected = torch.nn.functional.interpolate(
        torch.stack([low[z] for z in range(9)]), size=(30, 40), mode="bilinear"
    )[:, 0].permute(2, 1, 0)
    # the tables of positions and memories are the same, so is everything; logits up to 60
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.05)


def test_embeddings_are_kept_up_to_a_bound() -> None:
    made = []
    kept = Kept(limit=2 * 40)

    def make(key):
        made.append(key)
        return [torch.zeros(10)]

    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"propagate": "boxes"}, "propagate"),
        ({"channels": "rgb"}, "channels"),
        ({"planes": []}, "planes"),
        ({"planes": ["axial", "axial"]}, "planes"),
        ({"planes": ["axail"]}, "axial"),
        ({"cached_mb": -1}, "cached_mb"),
    ],
)
def test_impossible_options_are_refused(changed, named) -> None:
    with pytest.raises(UserError, match=named):
        Sam2dOptions(**changed).validate()


def test_factories_build_what_their_cards_say(make, monkeypatch) -> None:
    small, small2 = make("sam").net, make("sam2").net
    monkeypatch.setattr(networks, "sam", lambda vision: small)
    monkeypatch.setattr(networks, "sam2", lambda edge: small2)
    for name in ("sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam", "sam2_tiny", "medsam2"):
        factory = getattr(models, name)
        backbone = factory(Sam2dOptions(name, "random", channels="neighbours"))
        assert backbone.card.name == name == factory.listing().card.name
        assert backbone.card.window[2] == 3
    with pytest.raises(UserError, match="boxes only"):
        models.medsam(Sam2dOptions("medsam", "random", propagate="point"))
    assert models.medsam(Sam2dOptions("medsam", "random")).card.prompts == ("box",)


def test_parameters_are_those_of_the_published_networks() -> None:
    """Rounded counts of the papers: 93.7 M, 312.3 M and 641.1 M (SAM), 38.9 M (SAM 2.1 tiny)."""
    sizes = {"sam_vit_b": networks.VIT_B, "sam_vit_l": networks.VIT_L, "sam_vit_h": networks.VIT_H}
    with torch.device("meta"):
        for name, size in sizes.items():
            net = networks.sam(size)
            assert sum(p.numel() for p in net.parameters()) == cards.PARAMETERS[name]
        for edge in (1024, 512):
            assert sum(p.numel() for p in networks.sam2(edge).parameters()) == cards.PARAMETERS_SAM2
    rounded = [round(count / 1e6, 1) for count in (*cards.PARAMETERS.values(), cards.PARAMETERS_SAM2)]
    assert rounded == [93.7, 312.3, 641.1, 39.0]
