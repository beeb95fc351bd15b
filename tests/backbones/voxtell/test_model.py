"""The folder, the bank of embeddings, the card, and single windows."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip("voxtell.inference.predictor")

from umdseg.backbones import load_backbone
from umdseg.backbones.voxtell.model import VoxtellOptions, voxtell
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt


def load(folder, **options):
    return voxtell(VoxtellOptions(name="voxtell", folder=str(folder), **options)).eval()


def test_the_card_is_the_folders(folder):
    backbone = load(folder)
    card = backbone.card
    assert (card.window, card.divisor, card.spacing, card.orientation) == ((32,) * 3, 32, None, "SAR")
    assert set(card.structures) == {"liver", "spleen", "kidney_left", "kidney_right", "aorta"}
    assert card.groups == {"kidney": ("kidney_left", "kidney_right")}
    # rows of the bank; "kidney left" is the name itself, "left kidney" another spelling
    assert (card.structures["liver"], card.structures["kidney_left"]) == (0, 4)
    assert backbone.bank.text(Prompt("kidney_right")) == "right kidney"
    modules = dict(backbone.net.named_modules())
    assert modules[card.stem].in_channels == 1
    targets = [m for name, m in modules.items() if re.fullmatch(card.adapter_targets, name)]
    # a block of two convolutions at 6 stages, one convolution at 5 decoder stages
    assert len(targets) == 6 * 2 + 5
    assert all(tuple(m.kernel_size) == (3, 3, 3) for m in targets)
    assert not backbone.random_weights
    assert voxtell.listing().prompts == card.prompts == ("auto", "text")


def test_windows_give_the_networks_own_logits_encoded_once(folder):
    from voxtell.model.voxtell_model import VoxTellModel

    backbone = load(folder)
    image = torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts = [Prompt("aorta"), Prompt("x", "text", text="LEFT KIDNEY"), Prompt("kidney")]
    with np.load(folder.parent / "embeddings" / "voxtell_v1.1" / "text_embeddings.npz") as stored:
        rows = torch.from_numpy(stored["embeddings"][[6, 2, 4, 3]].astype(np.float32))
    with torch.no_grad():
        features = backbone.encode(image)
        found = backbone.decode(features, prompts)
        expected = backbone.net(image, rows[None].expand(2, -1, -1))
        assert isinstance(backbone.net, VoxTellModel)
    torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[:, 2], expected[:, 2:].amax(dim=1), rtol=0, atol=1e-4)
    # nothing of the encoder runs again
    backbone.net.encoder = None
    with torch.no_grad():
        assert torch.equal(backbone.decode(features, prompts), found)


def test_gradients_reach_the_encoder_and_the_text_decoder(folder):
    backbone = load(folder)
    backbone.decode(backbone.encode(torch.rand(1, 1, 32, 32, 32)), [Prompt("liver")]).sum().backward()
    names = [name for name, p in backbone.net.named_parameters() if p.grad is not None and bool(p.grad.any())]
    assert any(name.startswith("encoder.stem") for name in names)
    assert any(name.startswith("transformer_decoder") for name in names)


def test_wrong_windows_and_new_structures_are_refused(folder):
    backbone = load(folder)
    with pytest.raises(UserError, match="other multiples"):
        backbone.encode(torch.zeros(1, 1, 32, 32, 16))
    with pytest.raises(UserError, match="cannot learn"):
        backbone.add_structures(["liver", "something_new"])
    assert backbone.add_structures(["liver", "kidney"]) == {"liver": 0}


def test_random_weights_say_so(folder):
    backbone = load_backbone("voxtell", "random", folder=str(folder))
    assert backbone.random_weights
    assert backbone.weights_sha256 is None
    with pytest.raises(UserError, match="none is given"):
        load_backbone("voxtell", "random")


class Code:
    def __reduce__(self):
        return print, ("never",)


def test_files_that_are_wrong_are_refused(folder, write, tmp_path, capsys):
    with pytest.raises(UserError, match="pickled code"):
        load(write(tmp_path / "code", note=Code()))
    assert "never" not in capsys.readouterr().out
    with pytest.raises(UserError, match="another network"):
        load(write(tmp_path / "few", network_weights={"pos_embed": torch.zeros(8, 1, 24)}))
    with pytest.raises(UserError, match="does not exist"):
        load(folder, weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"plans\.json"):
        load(tmp_path)
    other = write(tmp_path / "other")
    changed = write.plans()
    changed["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["surprise"] = 1
    (other / "plans.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="surprise"):
        load(other)


def test_banks_that_are_wrong_are_refused(folder, tmp_path):
    bank = tmp_path / "bank.npz"
    np.savez(bank, labels=np.array(["liver"]), embeddings=np.zeros((1, 7)))
    with pytest.raises(UserError, match="24 numbers"):
        load(folder, embeddings=str(bank))
    np.savez(bank, labels=np.array(["liver", Code()], dtype=object), embeddings=np.zeros((2, 24)))
    with pytest.raises(UserError, match="not a readable embedding bank"):
        load(folder, embeddings=str(bank))
    with pytest.raises(UserError, match="not a readable embedding bank"):
        load(folder, embeddings=str(tmp_path / "none.npz"))


def test_another_bank_is_another_model(folder, tmp_path):
    bank = tmp_path / "bank.npz"
    np.savez(bank, labels=np.array(["liver"]), embeddings=np.ones((1, 24), dtype=np.float16))
    one, other = load(folder), load(folder, embeddings=str(bank))
    assert one.weights_sha256 == other.weights_sha256
    assert one.state_sha256 != other.state_sha256
    assert one.state_sha256 == load(folder).state_sha256


def test_downloads_ask_for_the_terms_first():
    with pytest.raises(UserError, match="terms to accept"):
        voxtell(VoxtellOptions(name="voxtell"))
