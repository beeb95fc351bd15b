"""Published key layouts of CT-FM, MONAI's pretrainings and SuPreM, against MONAI's own loaders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from umdseg.backbones.monai_cnn.backbone import ROWS
from umdseg.errors import UserError

State = dict[str, torch.Tensor]
TEXT_HEAD = (
    "organ_embedding",
    "text_to_vision.weight",
    "controller.bias",
    "GAP.3.weight",
    "precls_conv.0.bias",
)


def other(state: State) -> State:
    """Other values under the same names."""
    noise = torch.Generator().manual_seed(5)
    return {
        key: torch.randn(value.shape, generator=noise) if value.is_floating_point() else value
        for key, value in state.items()
    }


def saved(content: object, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def body(model) -> State:
    return {key: value for key, value in model.net.state_dict().items() if not key.startswith(ROWS)}


@pytest.mark.parametrize("prefix", ["encoder.", "backbone.", "", "model.backbone."])
def test_ct_fms_encoder_loads_whole_and_says_what_is_random(small, tmp_path: Path, prefix: str) -> None:
    encoder = other(small("ctfm").net.encoder.state_dict())
    file = saved({f"{prefix}{key}": value for key, value in encoder.items()}, tmp_path / "ctfm.pt")
    model = small("ctfm", file)
    for key, value in model.net.encoder.state_dict().items():
        if "running" not in key:
            assert torch.equal(value, encoder[key]), key
    whole = len(body(model))
    assert (model.loaded.pretrained, model.loaded.total) == (len(encoder), whole)
    assert set(model.loaded.fresh) == {key for key in body(model) if not key.startswith("encoder.")}
    told = model.loaded.told()
    assert told.startswith(f"ctfm.pt, {len(encoder)} of {whole} tensors pretrained")
    assert f"{whole - len(encoder)} start at random (up_layers)" in told
    assert ("prefix 'model.'" in told) == prefix.startswith("model.")
    assert ("names converted" in told) == (prefix != "encoder.")
    assert not model.random_weights
    assert not model.card.structures


def test_an_encoder_short_of_one_tensor_is_refused(small, tmp_path: Path) -> None:
    encoder = small("ctfm").net.encoder.state_dict()
    del encoder["layers.2.blocks.0.conv1.weight"]
    file = saved({f"encoder.{key}": value for key, value in encoder.items()}, tmp_path / "short.pt")
    with pytest.raises(UserError, match=r"missing encoder\.layers\.2\.blocks\.0\.conv1\.weight"):
        small("ctfm", file)


def test_an_encoder_alone_is_no_whole_body_model(small, tmp_path: Path) -> None:
    encoder = small("ctfm").net.encoder.state_dict()
    file = saved({f"encoder.{key}": value for key, value in encoder.items()}, tmp_path / "encoder.pt")
    with pytest.raises(UserError, match=r"missing up_layers"):
        small("ctfm_wholebody", file)


@pytest.mark.parametrize("name", ["ctfm_wholebody", "monai_wholebody", "swinunetr_btcv", "suprem", "unet"])
def test_the_official_state_dict_loads_plain_and_wrapped(small, tmp_path: Path, name: str) -> None:
    state = other(body(small(name)))
    for number, content in enumerate([state, {"state_dict": {f"module.{k}": v for k, v in state.items()}}]):
        model = small(name, saved(content, tmp_path / f"{number}.pt"))
        last = f"{model._head}.weight"  # the test double scales the head's weights
        assert all(
            torch.equal(v, state[k]) for k, v in body(model).items() if k != last and "running" not in k
        )
        assert not model.net.class_rows.weight.any()


def test_the_transformer_loads_as_monais_load_from(small, tmp_path: Path) -> None:
    oracle = small("swinunetr_ssl").net
    state = other(oracle.swinViT.state_dict())
    published = {
        "module." + k.replace("mlp.linear1", "mlp.fc1").replace("mlp.linear2", "mlp.fc2"): v
        for k, v in state.items()
    }
    oracle.load_from({"state_dict": published})
    heads = {
        f"module.{key}": torch.zeros(2)
        for key in ("rotation_head.weight", "contrastive_head.bias", "conv.0.weight")
    }
    model = small("swinunetr_ssl", saved({"state_dict": published | heads}, tmp_path / "model_swinvit.pt"))
    found = model.net.swinViT.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in oracle.swinViT.state_dict().items())
    assert torch.equal(
        found["layers1.0.blocks.0.mlp.linear1.weight"], state["layers1.0.blocks.0.mlp.linear1.weight"]
    )


def test_disruptive_autoencoders_load_as_by_monais_filter(small, tmp_path: Path) -> None:
    from monai.networks import copy_model_state
    from monai.networks.nets.swin_unetr import filter_swinunetr

    oracle = small("swinunetr_ssl").net
    state = other(oracle.swinViT.state_dict())
    # the rule backwards: layers1.0.blocks... was layers1.0.0.blocks...
    published = {
        "encoder." + (k if k.startswith("patch_embed") else f"{k[:9]}.0{k[9:]}"): v for k, v in state.items()
    }
    published |= {"encoder.mask_token": torch.zeros(1), "encoder.norm.weight": torch.zeros(2)}
    published |= {"out.conv.conv.bias": torch.zeros(1), "encoder1.layer.conv1.conv.weight": torch.zeros(3)}
    copy_model_state(oracle, dict(published), filter_func=filter_swinunetr)
    assert torch.equal(
        oracle.state_dict()["swinViT.patch_embed.proj.weight"], state["patch_embed.proj.weight"]
    )
    model = small("swinunetr_ssl", saved({"model": published}, tmp_path / "ssl.pth"))
    found = model.net.swinViT.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in oracle.swinViT.state_dict().items())


def test_suprems_body_loads_without_its_text_driven_head(small, tmp_path: Path) -> None:
    state = other(body(small("swinunetr_suprem")))
    published = {
        f"module.backbone.{key}": value for key, value in state.items() if not key.startswith("out.")
    }
    published |= {f"module.{key}": torch.zeros(2) for key in TEXT_HEAD}
    published["module.backbone.out.conv.conv.weight"] = torch.zeros(25, 12, 1, 1, 1)
    model = small("swinunetr_suprem", saved({"net": published, "epoch": 1}, tmp_path / "suprem.pth"))
    found = body(model)
    assert all(torch.equal(found[key], value) for key, value in state.items() if not key.startswith("out."))
    del published["module.backbone.decoder1.conv_block.conv1.conv.weight"]
    with pytest.raises(UserError, match="decoder1"):
        small("swinunetr_suprem", saved({"net": published}, tmp_path / "short.pth"))


def test_learned_rows_come_back_from_a_file(small, tmp_path: Path) -> None:
    model = small("monai_wholebody")
    row = model.add_structures(["node"])["node"]
    again = small("monai_wholebody", saved(model.net.state_dict(), tmp_path / "own.pt"))
    assert torch.equal(again.net.class_rows.weight[row], model.net.class_rows.weight[row])


def test_random_parts_depend_on_the_seed_alone() -> None:
    from umdseg.backbones.monai_cnn.models import seeded

    torch.manual_seed(7)
    first = seeded(lambda: torch.rand(3))
    torch.rand(11)
    assert torch.equal(seeded(lambda: torch.rand(3)), first)
    torch.manual_seed(8)
    assert not torch.equal(seeded(lambda: torch.rand(3)), first)
