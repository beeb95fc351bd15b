"""VISTA3D against MONAI's own forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones import Backbone
from umdseg.backbones.vista3d import Vista3d, tiny_network
from umdseg.backbones.vista3d_cards import vista3d_card
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

SHAPE = (16, 32, 32)


@pytest.fixture
def tiny() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random")


@pytest.fixture
def full_card() -> Vista3d:
    torch.manual_seed(0)
    return Vista3d(vista3d_card(), tiny_network()).eval()


def image(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, *SHAPE, generator=torch.Generator().manual_seed(1))


def spacing(*mm: float) -> torch.Tensor:
    return torch.diag(torch.tensor([*mm, 1.0]))[None]


@torch.no_grad()
@pytest.mark.parametrize("names", [["liver"], ["spleen", "lung", "brain"]])
def test_class_logits_are_monais_bit_for_bit(tiny: Backbone, names: list[str]) -> None:
    x = image(2)
    classes = torch.tensor([[tiny.card.structures[name]] for name in names])
    expected = tiny.net(x, class_vector=classes).transpose(0, 1)
    assert torch.equal(tiny.decode(tiny.encode(x), [Prompt(name) for name in names]), expected)


@torch.no_grad()
def test_point_logits_are_monais_bit_for_bit(tiny: Backbone) -> None:
    x = image()
    points = (((4, 5, 6), (10, 2, 30)), ((0, 0, 0), (15, 23, 31)))
    prompts = [
        Prompt(name, "point", tuple((2.0 * a, 3.0 * b, 4.0 * c) for a, b, c in where), (1, 0))
        for name, where in zip(("liver", "spleen"), points, strict=True)
    ]
    expected = tiny.net(
        x,
        point_coords=torch.tensor(points, dtype=torch.float32),
        point_labels=torch.tensor([[1, 0], [1, 0]]),
        prompt_class=torch.tensor([[1], [3]]),
    )
    assert torch.equal(tiny.decode(tiny.encode(x, spacing(2, 3, 4)), prompts)[0], expected[:, 0])


@torch.no_grad()
def test_prompts_of_both_kinds_and_of_any_number_of_points_do_not_disturb_each_other(tiny: Backbone) -> None:
    prompts = [
        Prompt("liver", "clicks", ((5.0, 5.0, 5.0), (9.0, 9.0, 9.0)), (1, 0)),
        Prompt("brain"),
        Prompt("spleen", "point", ((7.0, 7.0, 7.0),), (1,)),
    ]
    features = tiny.encode(image(), spacing(1, 1, 1))
    together = tiny.decode(features, prompts)
    for k, prompt in enumerate(prompts):
        alone = tiny.decode(features, [prompt])
        torch.testing.assert_close(together[:, k], alone[:, 0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_each_sample_of_a_batch_uses_its_own_affine(tiny: Backbone) -> None:
    x = image().expand(2, -1, -1, -1, -1)
    shifted = spacing(1, 1, 1)[0].clone()
    shifted[:3, 3] = torch.tensor([-3.0, -4.0, -5.0])
    prompt = Prompt("liver", "point", ((5.0, 6.0, 7.0),), (1,))
    both = tiny.decode(tiny.encode(x, torch.stack([spacing(1, 1, 1)[0], shifted])), [prompt])
    moved = Prompt("liver", "point", ((8.0, 10.0, 12.0),), (1,))
    second = tiny.decode(tiny.encode(x[:1], spacing(1, 1, 1)), [moved])
    torch.testing.assert_close(both[1], second[0], rtol=0, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


@torch.no_grad()
def test_one_click_in_millimetres_is_one_place_under_flips_and_anisotropy(tiny: Backbone) -> None:
    x = image()
    affine = np.array([[-2.0, 0, 0, 40], [0, -3.0, 0, 10], [0, 0, 5.0, -70], [0, 0, 0, 1]])
    voxel = np.array([3.0, 20.0, 11.0])
    world = affine[:3, :3] @ voxel + affine[:3, 3]
    prompt = Prompt("liver", "point", (tuple(world),), (1,))
    found = tiny.decode(tiny.encode(x, torch.from_numpy(affine)[None]), [prompt])
    expected = tiny.net(
        x,
        point_coords=torch.tensor([[voxel.tolist()]]),
        point_labels=torch.tensor([[1]]),
        prompt_class=torch.tensor([[1]]),
    )
    assert torch.equal(found[0, 0], expected[0, 0])


@torch.no_grad()
def test_points_outside_the_window_are_ignored(tiny: Backbone) -> None:
    features = tiny.encode(image(), spacing(1, 1, 1))
    inside = Prompt("liver", "point", ((5.0, 5.0, 5.0),), (1,))
    mixed = Prompt("liver", "clicks", ((5.0, 5.0, 5.0), (5.0, 5.0, 32.0), (-0.6, 5.0, 5.0)), (1, 1, 0))
    nowhere = Prompt("liver", "point", ((500.0, 5.0, 5.0),), (1,))
    assert torch.equal(tiny.decode(features, [inside]), tiny.decode(features, [mixed]))
    assert (tiny.decode(features, [nowhere]) == -10).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "index", "labels"),
    [
        ("lung_tumour", 23, [3, 2]),
        ("liver", 1, [1, 0]),
        ("something_new", 133, [1, 0]),
        ("lung", 133, [1, 0]),
    ],
)
def test_clicks_carry_special_labels_or_the_zero_shot_class(
    full_card: Vista3d, name: str, index: int, labels: list[int]
) -> None:
    x, points = image(), torch.tensor([[[4.0, 5, 6], [10, 2, 30]]])
    prompt = Prompt(name, "point", ((4.0, 5.0, 6.0), (10.0, 2.0, 30.0)), (1, 0))
    found = full_card.decode(full_card.encode(x, spacing(1, 1, 1)), [prompt])
    expected = full_card.net(
        x, point_coords=points, point_labels=torch.tensor([labels]), prompt_class=torch.tensor([[index]])
    )
    assert torch.equal(found[0, 0], expected[0, 0])


@torch.no_grad()
def test_the_lung_of_the_full_model_is_its_five_lobes(full_card: Vista3d) -> None:
    x = image()
    lobes = full_card.net(x, class_vector=torch.tensor([[28], [29], [30], [31], [32]]))
    found = full_card.decode(full_card.encode(x), [Prompt("lung")])
    assert torch.equal(found[0, 0], lobes[:, 0].amax(dim=0))


@torch.no_grad()
def test_dense_times_class_vectors_are_the_logits(tiny: Backbone) -> None:
    features = tiny.encode(image(2))
    logits = torch.einsum("kd,bdxyz->bkxyz", tiny.class_vectors(["brain", "colon"]), tiny.dense(features))
    expected = tiny.decode(features, [Prompt("brain"), Prompt("colon")])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_further_prompts_run_neither_the_encoder_nor_a_decoder_again(tiny: Backbone) -> None:
    ran: list[str] = []
    parts = {"encoder": "encoder", "auto": "up_layers_auto.0.upsample", "point": "up_layers.0.upsample"}
    for name, path in parts.items():
        module = tiny.net.get_submodule(f"image_encoder.{path}")
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    features = tiny.encode(image(), spacing(1, 1, 1))
    for where in (3.0, 4.0):
        tiny.decode(features, [Prompt("liver"), Prompt("liver", "point", ((where, where, where),), (1,))])
    assert sorted(ran) == ["auto", "encoder", "point"]


def test_gradients_reach_encoder_class_rows_and_points(tiny: Backbone) -> None:
    tiny.train()
    prompts = [Prompt("liver"), Prompt("liver", "point", ((3.0, 3.0, 3.0),), (1,))]
    tiny.decode(tiny.encode(image(2), spacing(1, 1, 1).expand(2, 4, 4)), prompts).square().mean().backward()
    stems = ["image_encoder.encoder.conv_init.weight", "class_head.class_embeddings.weight",
             "point_head.supported_embed.weight", "image_encoder.up_layers.0.upsample.deconv.weight",
             "image_encoder.up_layers_auto.0.upsample.deconv.weight"]  # fmt: skip
    for name in stems:
        grad = tiny.net.get_parameter(name).grad
        assert grad is not None
        assert float(grad.abs().sum()) > 0, name


def test_what_cannot_be_asked_is_refused_by_name(tiny: Backbone) -> None:
    features = tiny.encode(image())
    with pytest.raises(UserError, match="did you mean: spleen"):
        tiny.decode(features, [Prompt("splen")])
    with pytest.raises(UserError, match="no 'box' prompts"):
        tiny.decode(features, [Prompt("liver", "box")])
    with pytest.raises(UserError, match="multiples of 8"):
        tiny.encode(torch.zeros(1, 1, 16, 16, 20))


@torch.no_grad()
def test_a_new_structure_starts_from_the_mean_row_and_disturbs_no_other(tiny: Backbone) -> None:
    before = tiny.net.class_head.class_embeddings.weight.clone()
    y = tiny.decode(tiny.encode(image()), [Prompt("liver"), Prompt("brain")])
    assert tiny.add_structures(["tumour", "liver"]) == {"tumour": 256, "liver": 1}
    assert tiny.add_structures(["tumour", "node"]) == {"tumour": 256, "node": 257}
    after = tiny.net.class_head.class_embeddings.weight
    rows = sorted(tiny.card.structures.values())
    torch.testing.assert_close(after[256], before[rows].mean(dim=0))
    assert torch.equal(after[:256], before[:256])
    assert torch.equal(y, tiny.decode(tiny.encode(image()), [Prompt("liver"), Prompt("brain")]))
    assert tiny.decode(tiny.encode(image()), [Prompt("tumour")]).shape == (1, 1, *SHAPE)
    tiny.forget_structures()
    assert torch.equal(tiny.net.class_head.class_embeddings.weight, before)
    assert not tiny.knows("tumour")


def test_class_rows_run_out_with_an_error(tiny: Backbone) -> None:
    with pytest.raises(UserError, match="at most 256"):
        tiny.add_structures([f"structure_{i}" for i in range(257)])


def test_official_class_facts(full_card: Vista3d) -> None:
    card = full_card.card
    published = {"liver": 1, "kidney_right": 5, "kidney_left": 14, "heart": 115, "colon": 62}
    assert {name: card.index(name) for name in published} == published
    # super-classes are never fed to the network, undefined indices never named
    assert not {0, 2, 16, 18, 20, 21, 129, 130, 131} & set(card.structures.values())
    assert len(card.structures) == 124
    assert card.weights.commercial is None
