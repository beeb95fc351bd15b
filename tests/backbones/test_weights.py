"""Weights in every published layout, and the refusals."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from umdseg import load_backbone
from umdseg.backbones import Weights
from umdseg.backbones.loaded import Loaded
from umdseg.backbones.vista3d import tiny_network
from umdseg.backbones.weights import fetch, load_strict, read_state, state_hash
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

State = dict[str, torch.Tensor]


@pytest.fixture
def official() -> State:
    torch.manual_seed(3)
    return tiny_network().state_dict()


def to_monai_1_3(state: State) -> State:
    """The names the research code used, with the modules that were dropped since."""
    renamed = {
        k.replace(".mlp.linear", ".mlp.lin") if k.startswith("point_head.transformer.layers.") else k: v
        for k, v in state.items()
    }
    extra = [f"weight_mapper.{i}" for i in range(4)]
    extra += [f"point_head.output_add_hypernetworks_mlps.{i}" for i in range(12)]
    return {**renamed, **{name: torch.zeros(2) for name in extra}}


def write(layout: str, state: State, folder: Path) -> Path:
    path = folder / ("model.safetensors" if "safetensors" in layout else "model.pt")
    prefixed = {f"network.{k}": v.contiguous() for k, v in state.items()}
    layouts: dict[str, Any] = {
        "plain": state,
        "state_dict with module.": {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
        "model": {"model": state},
        "network": {"network": {f"model.{k}": v for k, v in state.items()}},
        "model_state_dict": {"model_state_dict": state, "epoch": 3},
        "network_weights": {"network_weights": state, "trainer_name": "nnUNetTrainer"},
        "net": {"net": state},
        "monai 1.3": to_monai_1_3(state),
    }
    if layout == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    elif layout == "safetensors with network.":
        save_file(prefixed, path)
    else:
        torch.save(layouts[layout], path)
    return path


LAYOUTS = ["plain", "state_dict with module.", "model", "network", "model_state_dict", "network_weights",
           "net", "monai 1.3", "safetensors", "safetensors with network."]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_loads_bit_for_bit(layout: str, official: State, tmp_path: Path) -> None:
    backbone = load_backbone("vista3d_tiny", str(write(layout, official, tmp_path)))
    loaded = backbone.net.state_dict()
    assert loaded.keys() == official.keys()
    assert all(torch.equal(loaded[key], official[key]) for key in official)
    assert backbone.random_weights is False
    assert backbone.weights_sha256 is not None
    assert backbone.state_sha256 == state_hash(official)
    share = backbone.loaded
    assert share is not None
    assert (share.total, share.pretrained, share.fresh) == (len(official), len(official), ())
    # another network's values under the shipped one's name are not the shipped file
    assert share.told().endswith("sha256 not verified")
    expected = {"plain": "", "safetensors": "", "monai 1.3": "names converted", "net": "under 'net'",
                "state_dict with module.": "under 'state_dict', prefix 'module.'",
                "safetensors with network.": "prefix 'network.'"}  # fmt: skip
    if layout in expected:
        assert share.layout == expected[layout]


def test_the_shipped_weights_are_complete_and_verified() -> None:
    backbone = load_backbone("vista3d_tiny")
    count = len(backbone.net.state_dict())
    assert backbone.loaded is not None
    assert backbone.loaded.told() == (
        f"vista3d_tiny.safetensors, {count} of {count} tensors (100 %), sha256 verified"
    )
    assert backbone.loaded.record()["random_tensors"] == []
    assert load_backbone("vista3d_tiny", "random").loaded is None


def test_a_share_is_never_rounded_up_to_all() -> None:
    told = Loaded("a.pt", 1000, ("decoder1.a", "decoder1.b", "out.c", "x.y", "z.w")).told()
    assert "995 of 1000 tensors pretrained (99 %); 5 start at random (decoder1, out, x, ...)" in told


def test_a_prefix_of_the_networks_own_names_stays(tmp_path: Path) -> None:
    from monai.networks.nets import UNet

    net = UNet(3, 1, 2, (4, 8), (2,))
    assert all(key.startswith("model.") for key in net.state_dict())
    for prefix in ("", "module.", "network.model."):
        path = tmp_path / "unet.pt"
        torch.save({prefix + key: value for key, value in net.state_dict().items()}, path)
        assert read_state(path, net.state_dict()).keys() == net.state_dict().keys()


def test_a_family_renames_what_it_published_and_drops_only_what_it_names(official: State) -> None:
    tiny = load_backbone("vista3d_tiny", "random")
    renamed = tiny.convert(to_monai_1_3(official))
    assert renamed.keys() == official.keys()
    assert all(renamed[key] is value for key, value in official.items())
    assert tiny.convert(official) is official, "names of today stay"
    more = {**to_monai_1_3(official), "something_else": torch.zeros(1)}
    with pytest.raises(UserError, match="unexpected something_else"):
        load_strict(tiny.net, tiny.convert(more), "m.pt")


def test_numpy_scalars_beside_the_weights_are_read(official: State, tmp_path: Path) -> None:
    import numpy as np

    best = {"best": np.float64(0.9), "curve": np.arange(3.0), "step": np.int64(7)}
    torch.save({"state_dict": official, **best}, tmp_path / "m.pt")
    assert read_state(tmp_path / "m.pt").keys() == official.keys()


def test_numpy_scalars_written_by_numpy_1_are_read(official: State, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "m.pt"
    best = {"best": np.float64(0.9), "curve": np.arange(3.0)}
    torch.save({"state_dict": official, **best}, path, _use_new_zipfile_serialization=False)
    # the only difference is the module's name, which stands in the file as a line of text
    written = path.read_bytes()
    assert b"cnumpy._core.multiarray\nscalar\n" in written
    assert b"cnumpy._core.multiarray\n_reconstruct\n" in written
    path.write_bytes(written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    loaded = read_state(path)
    assert all(torch.equal(loaded[key], value) for key, value in official.items())


def test_half_precision_is_cast_to_the_networks_own(official: State, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({k: v.half().contiguous() for k, v in official.items()}, path)
    loaded = load_backbone("vista3d_tiny", str(path)).net.state_dict()
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in official.items())


def refused(path: Path) -> str:
    backbone = load_backbone("vista3d_tiny", "random")
    before = backbone.state_sha256
    with pytest.raises(UserError) as caught:
        load_strict(backbone.net, read_state(path), where=path)
    assert state_hash(backbone.net.state_dict()) == before, "a refused file must change nothing"
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_left_over_and_misshaped_tensors_are_named(official: State, tmp_path: Path) -> None:
    first = "image_encoder.encoder.conv_init.weight"
    path = tmp_path / "m.pt"
    torch.save({k: v for k, v in official.items() if k != first}, path)
    message = refused(path)
    assert f"missing {first}" in message
    assert f"99% of the {len(official)} tensors are in the file" in message
    torch.save({**official, "extra.weight": torch.zeros(1)}, path)
    assert "unexpected extra.weight" in refused(path)
    torch.save({**official, first: torch.zeros(8, 1, 3, 3, 3)}, path)
    assert f"{first} (8, 1, 3, 3, 3) instead of (16, 1, 3, 3, 3)" in refused(path)


def test_a_prefix_only_some_keys_have_is_not_stripped(official: State, tmp_path: Path) -> None:
    keys = list(official)
    path = tmp_path / "m.pt"
    torch.save({(f"module.{k}" if k != keys[0] else k): v for k, v in official.items()}, path)
    assert f"unexpected module.{keys[1]}" in refused(path)


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    from monai.networks.nets import UNet

    path = tmp_path / "unet.pt"
    torch.save(UNet(3, 1, 2, (4, 8), (2,)).state_dict(), path)
    message = refused(path)
    assert "0% of" in message
    assert "unexpected model.0" in message or "unexpected 0." in message


class Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("pickled code ran",)


@pytest.mark.parametrize(
    "kind", ["code", "torch code", "truncated", "truncated safetensors", "text", "empty"]
)
def test_what_is_no_state_dict_is_refused_with_one_error(
    kind: str, official: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("m.safetensors" if "safetensors" in kind else "m.pt")
    if kind == "code":
        path.write_bytes(pickle.dumps(Payload()))
    elif kind == "torch code":
        torch.save({"state_dict": official, "hook": Payload()}, path)
    elif "truncated" in kind:
        whole = write("safetensors" if "safetensors" in kind else "plain", official, tmp_path)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    else:
        path.write_text("not weights" if kind == "text" else "")
    with pytest.raises(UserError, match=path.name):
        read_state(path)
    assert "pickled code ran" not in capsys.readouterr().out


def test_a_missing_file_and_a_foreign_content_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_backbone("vista3d_tiny", str(tmp_path / "nowhere.pt"))
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
    with pytest.raises(UserError, match="epoch, loss"):
        read_state(tmp_path / "log.pt")


RESTRICTED = Weights("someone/model", "m.pt", None, "CC-BY-NC-4.0", commercial=False)


def test_restricted_terms_are_asked_for_before_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def download(repo_id: str, filename: str) -> str:
        asked.append(f"{repo_id}/{filename}")
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match="accept_licence=true"):
        fetch(RESTRICTED)
    assert asked == []
    with pytest.raises(UserError, match="no route to host") as caught:
        fetch(RESTRICTED, accept_licence=True)
    assert "model.weights=FILE" in str(caught.value)
    assert asked == ["someone/model/m.pt"]
    with pytest.raises(UserError, match="licence"):
        load_backbone("vista3d")


def test_a_download_with_the_wrong_hash_is_refused(
    official: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from umdseg.backbones import ModelOptions, vista3d_cards, weights
    from umdseg.backbones.vista3d import Vista3d

    path = write("plain", official, tmp_path)
    card = vista3d_cards.vista3d_tiny_card()
    card = replace(card, weights=replace(card.weights, sha256="0" * 64))
    monkeypatch.setattr(weights, "fetch", lambda *_: path)
    with pytest.raises(UserError, match="not the one the card names"):
        weights.load_weights(Vista3d(card, tiny_network()), ModelOptions("vista3d_tiny"))


@torch.no_grad()
def test_full_size_loads_the_official_architecture_exactly(tmp_path: Path) -> None:
    from monai.networks.nets import vista3d132

    from umdseg.inference import open_tensor

    net = vista3d132().eval()
    path = tmp_path / "vista3d132.pt"
    torch.save(net.state_dict(), path)
    backbone = load_backbone("vista3d", str(path))
    path.unlink()
    own = backbone.net.state_dict()
    assert own.keys() == net.state_dict().keys()
    assert all(torch.equal(own[key], value) for key, value in net.state_dict().items())
    with pytest.raises(UserError, match="another network"):
        load_strict(backbone.net, tiny_network().state_dict(), where="vista3d_tiny.safetensors")

    x = torch.rand(1, 1, 32, 32, 32)
    expected = net(x, class_vector=torch.tensor([[1], [5], [115]]))[:, 0]
    session = open_tensor(backbone, x, window=32, precision="fp32")
    windowed = torch.cat([part for _, part in session.scores(["liver", "kidney_right", "heart"])], dim=-1)
    torch.testing.assert_close(windowed, expected, rtol=0, atol=1e-5)
    prompt = Prompt("liver", "point", ((15.0, 21.0, 30.0),), (1,))
    clicked = net(
        x,
        point_coords=torch.tensor([[[10.0, 14.0, 20.0]]]),
        point_labels=torch.tensor([[1]]),
        prompt_class=torch.tensor([[1]]),
    )
    assert torch.equal(backbone.decode(backbone.encode(x), [prompt])[0], clicked[:, 0])
