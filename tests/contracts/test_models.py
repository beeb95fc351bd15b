"""Every registered model, at reduced size, through one battery."""

from __future__ import annotations

import re

import pytest
import torch

from umdseg import registry
from umdseg.backbones import Backbone, load_backbone
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, PROMPT_KINDS, Prompt


@pytest.fixture(params=registry.names("model"))
def backbone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    # the same class table, narrow: what the battery asks does not depend on width
    from monai.networks import nets

    from umdseg.backbones import vista3d

    monkeypatch.setattr(nets, "vista3d132", vista3d.tiny_network)
    torch.manual_seed(0)
    return load_backbone(request.param, "random")


def window(backbone: Backbone) -> tuple[int, int, int]:
    d = backbone.card.divisor
    return d, d, 2 * d


def image(backbone: Backbone, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, *window(backbone), generator=torch.Generator().manual_seed(0))


def ask(backbone: Backbone, kind: str, structure: str) -> Prompt:
    if kind == "auto":
        return Prompt(structure)
    return Prompt(structure, kind, ((10.0, 10.0, 10.0),), (1,))


def test_the_card_is_complete_and_consistent(backbone: Backbone) -> None:
    card = backbone.card
    assert card.name in registry.names("model")
    assert all(edge % card.divisor == 0 for edge in card.window)
    assert set(card.intensity) == set(MODALITIES)
    assert set(card.prompts) <= set(PROMPT_KINDS)
    assert card.weights.licence
    assert card.citation
    assert len(set(card.structures.values())) == len(card.structures)
    assert all(set(members) <= set(card.structures) for members in card.groups.values())
    assert not set(card.groups) & set(card.structures)
    assert not set(card.new_rows) & set(card.structures.values())
    if card.weights.source != "package" and card.weights.sha256 is None:
        assert "not verified" in card.weights.note


def test_the_card_points_at_modules_that_exist(backbone: Backbone) -> None:
    modules = dict(backbone.net.named_modules())
    targets = [m for name, m in modules.items() if re.fullmatch(backbone.card.adapter_targets, name)]
    assert targets
    # peft 0.21 cannot merge LoRA on 1x1x1 convolutions
    assert all(tuple(m.kernel_size) == (3, 3, 3) for m in targets)
    assert modules[backbone.card.stem].in_channels == 1
    assert modules[backbone.card.class_rows].num_embeddings > max(backbone.card.new_rows)


def test_random_weights_say_so(backbone: Backbone) -> None:
    assert backbone.random_weights is True
    assert backbone.weights_sha256 is None
    assert not backbone.training


@torch.no_grad()
def test_every_prompt_kind_gives_one_channel_per_prompt(backbone: Backbone) -> None:
    names = list(backbone.card.structures)[:2]
    for kind in set(backbone.card.prompts) & {"auto", "point", "clicks"}:
        logits = backbone.decode(
            backbone.encode(image(backbone, 2)), [ask(backbone, kind, name) for name in names]
        )
        assert logits.shape == (2, 2, *window(backbone))
        assert torch.isfinite(logits).all()
    for kind in set(PROMPT_KINDS) - set(backbone.card.prompts):
        with pytest.raises(UserError, match="prompts"):
            backbone.decode(backbone.encode(image(backbone)), [Prompt(names[0], kind)])


@torch.no_grad()
def test_a_batch_is_its_samples(backbone: Backbone) -> None:
    x = image(backbone, 2)
    for kind in set(backbone.card.prompts) & {"auto", "point"}:
        prompts = [ask(backbone, kind, name) for name in list(backbone.card.structures)[:2]]
        both = backbone.decode(backbone.encode(x), prompts)
        for i in range(2):
            alone = backbone.decode(backbone.encode(x[i : i + 1]), prompts)
            torch.testing.assert_close(both[i], alone[0], rtol=0, atol=1e-4)
            sliced = backbone.decode(backbone.encode(x).sample(i), prompts)
            torch.testing.assert_close(both[i], sliced[0], rtol=0, atol=1e-4)


@torch.no_grad()
def test_dense_and_class_vectors_give_the_logits(backbone: Backbone) -> None:
    if not backbone.has_dense:
        pytest.skip("no linear last layer")
    names = list(backbone.card.structures)[:3]
    features = backbone.encode(image(backbone))
    logits = torch.einsum("kd,bdxyz->bkxyz", backbone.class_vectors(names), backbone.dense(features))
    expected = backbone.decode(features, [Prompt(name) for name in names])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_new_structures_leave_the_known_ones_alone(backbone: Backbone) -> None:
    known = Prompt(next(iter(backbone.card.structures)))
    x = image(backbone)
    before = backbone.decode(backbone.encode(x), [known])
    rows = backbone.add_structures(["something_new"])
    assert set(rows.values()) <= set(backbone.card.new_rows)
    assert backbone.knows("something_new")
    assert torch.equal(before, backbone.decode(backbone.encode(x), [known]))
    assert backbone.decode(backbone.encode(x), [Prompt("something_new")]).shape[1] == 1
    backbone.forget_structures()
    with pytest.raises(UserError, match="something_new"):
        backbone.decode(backbone.encode(x), [Prompt("something_new")])


def test_wrong_windows_and_names_are_refused(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="multiples"):
        backbone.encode(torch.zeros(1, 1, backbone.card.divisor + 1, *window(backbone)[1:]))
    with pytest.raises(UserError, match="did you mean"):
        backbone.decode(backbone.encode(image(backbone)), [Prompt("livr")])
