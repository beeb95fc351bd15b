"""The networks taken apart against their own forward pass."""

from __future__ import annotations

import re

import pytest
import torch

from umdseg import adapters, inference, registry
from umdseg.backbones.monai_cnn.backbone import ROWS
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

SOFTMAX = ["ctfm_wholebody", "monai_wholebody", "swinunetr_btcv", "swinunetr_voco", "unet", "resenc_unet"]
ALL = [*SOFTMAX, "suprem"]
TRAINED = ["ctfm_wholebody", "monai_wholebody", "swinunetr_btcv", "suprem"]


def image(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, 32, 32, 64, generator=torch.Generator().manual_seed(2))


def official(name: str, model) -> torch.nn.Module:
    """The network with its own forward; MONAI's DynUNet is built anew around the model's blocks."""
    if name != "unet":
        return model.net
    from umdseg.backbones.monai_cnn import scratch

    net = scratch._plain(scratch.UnetOptions(width=4, levels=3))
    missing = net.load_state_dict(model.net.state_dict(), strict=False)
    assert missing.unexpected_keys == [f"{ROWS}.weight"]
    assert all(key.startswith("skip_layers.") for key in missing.missing_keys)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", SOFTMAX)
def test_dense_is_the_networks_own_output_bit_for_bit(small, name: str) -> None:
    model = small(name)
    x = image(2)
    features = model.encode(x)
    assert torch.equal(model.dense(features), official(name, model)(x))
    edges = [m.shape[2] for m in features.maps]
    assert edges == sorted(edges, reverse=True)


@torch.no_grad()
def test_independent_outputs_are_the_networks_own(small) -> None:
    model = small("suprem")
    x, names = image(2), ["spleen", "liver", "celiac_trunk"]
    found = model.decode(model.encode(x), [Prompt(name) for name in names])
    torch.testing.assert_close(found, model.net(x)[:, [0, 5, 24]], rtol=0, atol=1e-5)
    # a group is the union of its members
    both = model.decode(model.encode(x), [Prompt("kidney")])
    torch.testing.assert_close(both[:, 0], model.net(x)[:, 1:3].amax(dim=1), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", TRAINED)
def test_decode_gives_the_logit_of_the_softmax_probability(small, name: str) -> None:
    model = small(name)
    x = image()
    logits = model.net(x)
    p = logits.sigmoid() if name == "suprem" else logits.softmax(dim=1)
    found = model.decode(model.encode(x), [Prompt("spleen"), Prompt("liver")]).sigmoid()
    torch.testing.assert_close(
        found, p[:, [model.index("spleen"), model.index("liver")]], rtol=1e-4, atol=1e-6
    )


@torch.no_grad()
def test_the_lung_competes_as_its_lobes_together(small) -> None:
    model = small("ctfm_wholebody")
    x = image()
    lobes = model.net(x).softmax(dim=1)[:, 10:15].sum(dim=1)
    torch.testing.assert_close(model.decode(model.encode(x), [Prompt("lung")])[:, 0].sigmoid(), lobes)


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_further_prompts_run_neither_encoder_nor_decoder_again(small, name: str) -> None:
    model = small(name)
    model.add_structures(["first", "second"])
    ran: list[str] = []
    for part in (model.card.stem, model._head):
        model.net.get_submodule(part).register_forward_hook(lambda *_, part=part: ran.append(part))
    features = model.encode(image())
    for structure in ("first", "second"):
        model.decode(features, [Prompt(structure)])
    # a hook could add to what the head says, so with one the head of independent outputs runs as well
    assert ran == [model.card.stem, model._head]


@torch.no_grad()
@pytest.mark.parametrize("name", TRAINED)
def test_new_structures_leave_the_base_bit_for_bit(small, name: str) -> None:
    model = small(name)
    x, known = image(), [Prompt("spleen"), Prompt("liver")]
    before, winner = model.decode(model.encode(x), known), model.net(x).argmax(dim=1)
    state = {key: value.clone() for key, value in model.net.state_dict().items()}
    assert model.add_structures(["node", "spleen"]) == {
        "node": model.card.new_rows[0],
        "spleen": model.index("spleen"),
    }
    assert model.add_structures(["plaque"]) == {"plaque": model.card.new_rows[1]}
    assert torch.equal(model.decode(model.encode(x), known), before)
    after = model.net.state_dict()
    assert [key for key in state if not torch.equal(state[key], after[key])] == [f"{ROWS}.weight"]
    if model.card.output == "softmax":
        # the mean of all logits wins nowhere
        assert torch.equal(model.dense(model.encode(x)).argmax(dim=1), winner)
    with pytest.raises(UserError, match="rows left"):
        model.add_structures([f"structure {n}" for n in range(64)])
    model.forget_structures()
    assert all(torch.equal(state[key], value) for key, value in model.net.state_dict().items())
    with pytest.raises(UserError, match="node"):
        model.decode(model.encode(x), [Prompt("node")])


@torch.no_grad()
@pytest.mark.parametrize("name", ["monai_wholebody", "suprem"])
def test_a_learned_row_is_one_more_output_channel(small, name: str) -> None:
    model = small(name)
    row = model.add_structures(["node"])["node"]
    values = torch.randn(model._last().in_channels + 1, generator=torch.Generator().manual_seed(3))
    model.net.class_rows.weight[row] = values
    seen: list[torch.Tensor] = []
    model.net.get_submodule(model._head).register_forward_hook(
        lambda _, args, out: seen.extend([args[0], out])
    )
    x = image()
    model.net(x)
    body, base = seen[0], seen[1]
    own = torch.einsum("c,bcxyz->bxyz", values[:-1], body) + values[-1]
    expected = own if name == "suprem" else own - torch.logsumexp(base, dim=1)
    found = model.decode(model.encode(x), [Prompt("node")])[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("method", ["lora", "lora_conv", "bottleneck"])
@pytest.mark.parametrize("name", ["monai_wholebody", "suprem"])
def test_an_adapter_on_the_last_convolution_counts_in_whole_scans(small, name: str, method: str) -> None:
    model = small(name).eval()
    rows = model.add_structures(["node"])
    options = registry.resolve("adapter", method).Options(name=method, targets=re.escape(model._head))
    adapters.build(options).inject(model, rows)
    draw = torch.Generator().manual_seed(4)
    for parameter in model.net.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    names, x = ["liver", "spleen", "kidney", "node"], torch.rand(1, 1, 32, 32, 32, generator=draw)

    def whole() -> torch.Tensor:
        settings = {"window": (32, 32, 32), "skip_air": False, "precision": "fp32"}
        session = inference.open_tensor(model, x, modality="ct", **settings)
        return torch.cat([piece for _, piece in session.scores(names)], dim=-1)

    on, features, own = whole(), model.encode(x), model.net(x)
    # the network's own forward pass runs the adapter whoever reads which weights
    logits = model.dense(features)
    torch.testing.assert_close(logits[:, : own.shape[1]], own, rtol=0, atol=1e-3)
    groups = [[model.index(member) for member in model.card.members(n)] for n in names]
    decoded = model.decode(features, [Prompt(n) for n in names])
    expected = torch.stack([logits[0, group].amax(dim=0) for group in groups])
    if model.card.output == "sigmoid":
        torch.testing.assert_close(decoded[0], expected, rtol=0, atol=1e-4)
    else:
        rest = [[c for c in range(logits.shape[1]) if c not in group] for group in groups]
        expected -= torch.stack([logits[0, others].amax(dim=0) for others in rest])
    torch.testing.assert_close(on, expected, rtol=0, atol=1e-3)
    with adapters.disable(model):
        names = names[:3]
        assert float((whole() - on[:3]).abs().max()) > 0.1


def test_statistics_of_batch_norm_do_not_move_in_training(small) -> None:
    model = small("ctfm_wholebody").train()
    norms = [m for m in model.net.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    before = [m.running_mean.clone() for m in norms]
    model.decode(model.encode(image(2)), [Prompt("liver")]).mean().backward()
    assert norms
    assert all(torch.equal(m.running_mean, old) for m, old in zip(norms, before, strict=True))
    assert model.net.training


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_the_stem_the_head_and_a_new_row(small, name: str) -> None:
    model = small(name).train()
    row = model.add_structures(["node"])["node"]
    known = [Prompt("spleen")] if model.card.structures else []
    model.decode(model.encode(image()), [*known, Prompt("node")]).square().mean().backward()
    parts = [f"{model.card.stem}.weight", f"{ROWS}.weight"]
    for key in parts + ([f"{model._head}.weight"] if known else []):
        assert float(model.net.get_parameter(key).grad.abs().sum()) > 0, key
    moved = model.net.class_rows.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert moved == [row]


def test_what_cannot_be_asked_is_refused(small) -> None:
    model = small("monai_wholebody")
    with pytest.raises(UserError, match="multiples of 8"):
        model.encode(torch.zeros(1, 1, 32, 32, 36))
    with pytest.raises(UserError, match="no 'point' prompts"):
        model.decode(model.encode(image()), [Prompt("liver", "point", ((0.0, 0, 0),), (1,))])
    with pytest.raises(UserError, match="did you mean: spleen"):
        model.decode(model.encode(image()), [Prompt("splen")])
