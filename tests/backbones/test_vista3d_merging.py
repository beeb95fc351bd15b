"""Class and clicks together, and windows around clicks, against MONAI's own network and inferers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from monai.apps.vista3d.inferer import point_based_window_inferer
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInfererAdapt

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.backbones.vista3d import Vista3d, tiny_network
from umdseg.backbones.vista3d_cards import vista3d_card
from umdseg.data.geometry import Grid
from umdseg.data.phantom.imaging import Scanner
from umdseg.data.phantom.subject import STRUCTURES, render
from umdseg.data.preprocess import prepare_image, prepare_label
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

# the card's own: the small network knows clicks in windows of this size only
WINDOW = (72, 48, 64)
# for what does not depend on what the network knows
SMALL = (32, 16, 16)
Voxel = tuple[int, int, int]


@dataclass
class Body:
    """A phantom's CT under the weights that ship, and where its organs are."""

    model: Backbone
    image: torch.Tensor
    grid: Grid
    label: torch.Tensor
    window: tuple[int, int, int] = WINDOW

    def session(self, model: Backbone | None = None) -> inference.VolumeSession:
        model = model or self.model
        return inference.open_tensor(
            model, self.image, self.window, precision="fp32", skip_air=False, grid=self.grid
        )

    def mm(self, *voxels: Voxel) -> tuple[tuple[float, float, float], ...]:
        return tuple(tuple(row) for row in self.grid.to_world(np.array(voxels, dtype=float)).tolist())

    def middle(self, organ: str) -> Voxel:
        where = torch.nonzero(self.label == STRUCTURES[organ]).float()
        inside = torch.nonzero(self.label == STRUCTURES[organ])
        x, y, z = inside[(where - where.mean(0)).norm(dim=1).argmin()].tolist()
        return x, y, z


@pytest.fixture(scope="module")
def body() -> Body:
    model = load_backbone("vista3d_tiny")
    image, label = render(5, "ct", Scanner(ct_spacing=(6.0, 6.0, 6.0)))
    prepared = prepare_image(image, "ct", inference.preprocessing(model.card, WINDOW))
    mask = prepare_label(label, sorted(STRUCTURES.values()), prepared.grid)[0]
    # the upper abdomen: two windows
    x, y, z = torch.nonzero(mask == STRUCTURES["liver"]).float().mean(0).round().int().tolist()
    size = (WINDOW[0], WINDOW[1], WINDOW[2] + 16)
    start = [max(min(c - n // 2, m - n), 0) for c, n, m in zip((x, y, z), size, mask.shape, strict=True)]
    part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    image_part, mask = prepared.image[(slice(None), *part)], mask[part]
    stop = [a + n for a, n in zip(start, image_part.shape[1:], strict=True)]
    return Body(model, image_part[None], prepared.grid.crop(tuple(start), tuple(stop)), mask)


@pytest.fixture(scope="module")
def small(body: Body) -> Body:
    """A corner of the body, in small windows."""
    size = (40, 24, 24)
    image, label = body.image[..., :40, :24, :24], body.label[:40, :24, :24]
    return Body(body.model, image, body.grid.crop((0, 0, 0), size), label, SMALL)


def first(body: Body) -> torch.Tensor:
    """The first small window (1, 1, X, Y, Z)."""
    return body.image[..., : SMALL[0], : SMALL[1], : SMALL[2]]


def scores(session: inference.VolumeSession, name: str) -> torch.Tensor:
    return torch.cat([part for _, part in session.scores([name])], dim=-1)[0]


def automatic(body: Body, index: int, mode: str) -> torch.Tensor:
    """MONAI's sliding window for one class: raw logits (1, 1, X, Y, Z)."""
    inferer = SlidingWindowInfererAdapt(roi_size=body.window, overlap=0.25, mode=mode, with_coord=True)
    with torch.no_grad():
        return inferer(body.image, body.model.net, transpose=True, class_vector=torch.tensor([[index]]))


def around_clicks(
    body: Body, index: int, points: list[Voxel], signs: list[int], before: torch.Tensor | None
) -> torch.Tensor:
    """MONAI's windows around clicks, with an earlier answer to correct or without."""
    with torch.no_grad():
        return point_based_window_inferer(
            MetaTensor(body.image, affine=torch.eye(4)),
            body.window,
            body.model.net,
            point_coords=torch.tensor([points], dtype=torch.float32),
            point_labels=torch.tensor([signs]),
            prompt_class=torch.tensor([[index]]),
            prev_mask=before,
            transpose=True,
        ).as_tensor()[0, 0]


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_a_click_on_the_automatic_answer_is_monais_prev_mask(body: Body, mode: str) -> None:
    # asked for the liver, and shown the spleen as a part of it that is missing
    card, point = body.model.card, body.middle("spleen")
    model = Vista3d(replace(card, blending=mode), body.model.net).eval()
    before = automatic(body, card.index("liver"), mode)
    expected = around_clicks(body, card.index("liver"), [point], [1], before)
    session = body.session(model)
    session.prompt([Prompt("liver", "auto_point", body.mm(point), (1,))])
    found = scores(session, "liver")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    # the comparison would be empty if the click changed nothing, or everything
    changed = (found - before[0, 0]).abs() > 1e-3
    assert 0 < int(changed.sum()) < changed.numel() // 2


def test_a_negative_click_takes_its_component_away(body: Body) -> None:
    # asked for the liver, then told that its middle is none
    point, index = body.middle("liver"), body.model.card.index("liver")
    before = automatic(body, index, "gaussian")
    assert before[(0, 0, *point)] > 0
    expected = around_clicks(body, index, [point], [0], before)
    session = body.session()
    session.prompt([Prompt("liver", "auto_point", body.mm(point), (0,))])
    torch.testing.assert_close(scores(session, "liver"), expected, rtol=0, atol=1e-4)
    assert expected[point] < 0
    session.undo()
    torch.testing.assert_close(scores(session, "liver"), before[0, 0], rtol=0, atol=1e-4)


def test_one_question_may_mix_all_three_ways(small: Body) -> None:
    click = {"spleen": small.mm((30, 12, 8)), "liver": small.mm((8, 6, 20))}
    prompts = {
        "spleen": Prompt("spleen", "auto_point", click["spleen"], (1,)),
        "liver": Prompt("liver", "point", click["liver"], (1,)),
        "stomach": Prompt("stomach"),
    }
    session = small.session()
    session.prompt(list(prompts.values()))
    together = torch.cat([part for _, part in session.scores(list(prompts))], dim=-1)
    for plane, (name, prompt) in zip(together, prompts.items(), strict=True):
        alone = small.session()
        alone.prompt([prompt])
        torch.testing.assert_close(plane, scores(alone, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["middle", "corner", "edge"])
def test_a_window_lies_around_its_click_as_monais_does(small: Body, where: str) -> None:
    x, y, z = (int(n) for n in small.label.shape)
    point = {"middle": (20, 11, 13), "corner": (1, 1, 1), "edge": (x // 2, y - 2, z - 3)}[where]
    expected = around_clicks(small, 1, [point], [1], None)
    session = small.session()
    session.prompt([Prompt("liver", "point", small.mm(point), (1,))])
    # MONAI says NaN where it did not look
    torch.testing.assert_close(scores(session, "liver"), expected.nan_to_num(-10.0), rtol=0, atol=1e-4)
    assert expected.isnan().any()


@torch.no_grad()
@pytest.mark.parametrize("signs", [(1, 0), (0, 0)])
def test_one_window_is_merged_as_in_monais_forward(small: Body, signs: tuple[int, int]) -> None:
    points = [(20, 10, 9), (30, 14, 12)]
    x = first(small)
    place = [(slice(None), slice(None), *(slice(0, n) for n in SMALL))]
    expected = small.model.net(
        x,
        patch_coords=place,
        point_coords=torch.tensor([points], dtype=torch.float32),
        point_labels=torch.tensor([signs]),
        class_vector=torch.tensor([[1]]),
        prompt_class=torch.tensor([[1]]),
    )
    features = small.model.encode(x, torch.from_numpy(small.grid.affine)[None])
    found = small.model.decode(features, [Prompt("liver", "auto_point", small.mm(*points), signs)])
    assert torch.equal(found, expected)


@torch.no_grad()
def test_special_labels_reach_the_merging() -> None:
    torch.manual_seed(0)
    model = Vista3d(vista3d_card(), tiny_network()).eval()
    x = torch.rand(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    place = [(slice(None), slice(None), slice(0, 16), slice(0, 32), slice(0, 32))]
    expected = model.net(
        x,
        patch_coords=place,
        point_coords=torch.tensor([[[4.0, 5, 6], [10, 2, 30]]]),
        point_labels=torch.tensor([[3, 2]]),
        class_vector=torch.tensor([[23]]),
        prompt_class=torch.tensor([[23]]),
    )
    prompt = Prompt("lung_tumour", "auto_point", ((4.0, 5.0, 6.0), (10.0, 2.0, 30.0)), (1, 0))
    found = model.decode(model.encode(x, torch.eye(4)[None]), [prompt])
    assert torch.equal(found, expected)


@torch.no_grad()
def test_of_a_structure_without_a_class_only_the_clicks_are_asked(small: Body) -> None:
    point = small.mm((20, 11, 13))
    sessions = []
    for kind in ("auto_point", "point"):
        session = small.session()
        session.prompt([Prompt("gallstone", kind, point, (1,))])
        sessions.append(scores(session, "gallstone"))
    assert torch.equal(*sessions)
    features = small.model.encode(first(small), torch.from_numpy(small.grid.affine)[None])
    both = small.model.decode(
        features, [Prompt("gallstone", k, point, (1,)) for k in ("auto_point", "point")]
    )
    torch.testing.assert_close(both[:, 0], both[:, 1], rtol=0, atol=1e-4)


@torch.no_grad()
def test_each_sample_of_a_batch_is_merged_by_itself(small: Body) -> None:
    x = torch.cat([first(small), small.image[..., -SMALL[0] :, : SMALL[1], : SMALL[2]]])
    affines = torch.from_numpy(np.stack([small.grid.affine] * 2))
    prompt = Prompt("liver", "auto_point", small.mm((20, 10, 8)), (1,))
    both = small.model.decode(small.model.encode(x, affines), [prompt, Prompt("spleen")])
    for i in range(2):
        alone = small.model.decode(
            small.model.encode(x[i : i + 1], affines[i : i + 1]), [prompt, Prompt("spleen")]
        )
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_half_a_voxel_beyond_the_last_centre_is_still_inside(small: Body) -> None:
    x = first(small)
    features = small.model.encode(x, torch.eye(4)[None])
    for corner in ((31.5, 15.5, 15.5), (-0.5, -0.5, -0.5)):
        logits = small.model.decode(features, [Prompt("liver", "auto_point", (corner,), (1,))])
        assert torch.isfinite(logits).all()


@torch.no_grad()
def test_merging_works_in_half_precision(small: Body) -> None:
    features = small.model.encode(first(small), torch.from_numpy(small.grid.affine)[None])
    prompt = Prompt("liver", "auto_point", small.mm((20, 10, 8)), (1,))
    exact = small.model.decode(features, [prompt])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features.state.clear()
        rough = small.model.decode(features, [prompt])
    assert ((rough > 0) == (exact > 0)).float().mean() > 0.98


def test_without_the_package_that_finds_components_there_is_one_clear_error(
    small: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.transforms import utils

    monkeypatch.setattr(utils, "has_measure", False)
    session = small.session()
    session.prompt([Prompt("liver", "auto_point", small.mm((20, 11, 13)), (1,))])
    with pytest.raises(UserError, match="scikit-image"):
        scores(session, "liver")
