"""`adapter.per=modality`: every modality its own adapter, the base model for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from umdseg import adapters, inference, load_backbone, registry
from umdseg.adapters import Adapter, AdapterCard
from umdseg.adapters.full import FullTuning
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.adapters.none import NoAdapter
from umdseg.adapters.peft import WEIGHTS
from umdseg.backbones import Backbone
from umdseg.errors import UserError
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.vocabulary import Batch, Origin, Prompt

ROUTES = ("pet", "mr")
ASKED = [Prompt("liver"), Prompt("spleen", "point", ((20.0, 20.0, 20.0),), (1,))]


def base() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random").eval()


def lora(new: tuple[str, ...] = (), routes: tuple[str, ...] = ROUTES) -> tuple[Backbone, Adapter]:
    backbone = base()
    rows = backbone.add_structures(new) if new else {}
    adapter = Lora(LoraOptions(rank=2, per="modality" if routes else None))
    torch.manual_seed(1)
    adapter.inject(backbone, rows, routes)
    return backbone, adapter


def image(samples: int = 1) -> torch.Tensor:
    return torch.rand(samples, 1, 16, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def answer(backbone: Backbone, modality: str | None, prompts: list[Prompt] = ASKED) -> torch.Tensor:
    with backbone.routed(modality):
        return backbone.eval().decode(backbone.encode(image()), prompts)


def move(backbone: Backbone, seed: int) -> None:
    """Give every trained tensor other values, so that no two adapters are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def batch(modality: list[str]) -> Batch:
    label = torch.zeros(len(modality), 1, 16, 16, 24, dtype=torch.int16)
    label[:, :, 3:9, 3:9, 3:9] = 1
    affine = torch.diag(torch.tensor([6.0, 6.0, 6.0, 1.0])).expand(len(modality), 4, 4)
    return Batch(image(len(modality)), label, affine, modality, ["s"] * len(modality), [], ("liver",))


def test_each_modality_answers_as_its_saved_adapter_in_plain_peft(tmp_path: Path) -> None:
    backbone, adapter = lora()
    move(backbone, 2)
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone, ["liver"], list(ROUTES)))
    expected = {}
    for name in ROUTES:
        plain = base()
        plain.net = PeftModel.from_pretrained(plain.net, str(tmp_path / "a" / name))
        expected[name] = answer(plain, None)
        assert torch.equal(answer(backbone, name), expected[name])
    assert not torch.equal(expected["pet"], expected["mr"])

    fresh = base()
    card = adapters.load_adapter(tmp_path / "a", fresh)
    assert card.routes == list(ROUTES)
    assert all(torch.equal(answer(fresh, name), expected[name]) for name in ROUTES)
    adapters.merge(fresh, "mr")
    torch.testing.assert_close(answer(fresh, None), expected["mr"], rtol=0, atol=1e-4)


def test_a_modality_without_adapter_gets_the_base_bit_for_bit() -> None:
    backbone, _ = lora(new=("tumour",))
    move(backbone, 2)
    assert torch.equal(answer(backbone, "ct"), answer(base(), None))
    with backbone.routed("ct"):
        assert not backbone.knows("tumour")
    with backbone.routed("pet"):
        assert backbone.knows("tumour")
    # the one that was at work before is at work again
    with backbone.routed("pet"):
        before = backbone.decode(backbone.encode(image()), ASKED)
        answer(backbone, "ct")
        answer(backbone, "mr")
        assert torch.equal(backbone.decode(backbone.encode(image()), ASKED), before)


def test_outside_any_modality_and_in_nested_ones_nothing_leaks() -> None:
    backbone, adapter = lora(new=("tumour",))
    move(backbone, 2)
    trained = adapter.parameters(backbone)
    plain, pet = answer(base(), None), answer(backbone, "pet")

    def bare() -> torch.Tensor:
        with torch.no_grad():
            return backbone.decode(backbone.encode(image()), ASKED)

    assert torch.equal(bare(), plain)
    with backbone.routed("ct"), backbone.routed("pet"):
        assert torch.equal(bare(), pet)
        assert backbone.knows("tumour")
    for failing in (adapters.disable(backbone), backbone.routed("ct"), backbone.routed("pet")):
        with pytest.raises(ZeroDivisionError), failing:
            _ = 1 / 0
        assert torch.equal(bare(), plain)
        assert adapter.parameters(backbone) == trained
        assert AdapterCard.describe(backbone).new_structures == {"tumour": 256}


def test_switched_off_it_stays_off_whatever_the_modality() -> None:
    backbone, adapter = lora()
    move(backbone, 2)
    with adapters.disable(backbone):
        for name in ("ct", *ROUTES, None):
            assert torch.equal(answer(backbone, name), answer(base(), None))
    assert not torch.equal(answer(backbone, "pet"), answer(base(), None))
    assert adapter.parameters(backbone)[0] == 2 * lora(routes=())[1].parameters(lora(routes=())[0])[0]


def test_a_mixed_batch_trains_each_adapter_on_its_own_samples() -> None:
    """The gradients are those of one-adapter models that saw the same samples alone, weighted by share."""
    backbone, adapter = lora()
    move(backbone, 2)
    task = SegmentTask(backbone, adapter, FitOptions(point_share=0.0), ("liver",))
    mixed = batch(["pet", "mr", "pet"])
    task._step(mixed, 0).backward()  # type: ignore[no-untyped-call]
    for name, share in (("pet", 2 / 3), ("mr", 1 / 3)):
        single, other = lora(routes=())
        mine = {k: p for k, p in backbone.named_parameters() if f".@{name}." in k}
        alone = {k: p for k, p in single.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for key, parameter in alone.items():
                parameter.copy_(mine[key.replace(".default.", f".@{name}.")])
        task = SegmentTask(single, other, FitOptions(point_share=0.0), ("liver",))
        task._step(mixed.of(name), 0).backward()  # type: ignore[no-untyped-call]
        for key, parameter in alone.items():
            got = mine[key.replace(".default.", f".@{name}.")].grad
            if parameter.grad is None:
                assert got is None
            else:
                torch.testing.assert_close(got, share * parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("routes", [("1", "2"), ("conv1", "net", "weight", "lora")])
@pytest.mark.parametrize("method", ["lora", "ia3", "dora"])
def test_a_route_may_be_called_what_modules_are_called(
    method: str, routes: tuple[str, ...], tmp_path: Path
) -> None:
    def adapted(per: str | None, names: Sequence[str]) -> tuple[Backbone, Adapter]:
        backbone = base()
        rows = backbone.add_structures(["tumour"])
        adapter = adapters.build(registry.resolve("adapter", method).Options(name=method, per=per))
        adapter.inject(backbone, rows, names)
        return backbone, adapter

    alone, one = adapted(None, ())
    one.save(tmp_path / "one", alone, AdapterCard.describe(alone))
    wanted = set(load_file(tmp_path / "one" / WEIGHTS))
    backbone, adapter = adapted("site", routes)
    move(backbone, 2)
    folder = tmp_path / "several"
    adapter.save(folder, backbone, AdapterCard.describe(backbone))
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(routes)
    for route in routes:
        assert set(load_file(folder / route / WEIGHTS)) == wanted
    fresh = base()
    adapters.load_adapter(folder, fresh)
    found = dict(fresh.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in backbone.named_parameters())
    # two are enough: the tensors say the rest
    for route in routes[:2]:
        asked, site = [*ASKED, Prompt("tumour")], Origin("ct", site=route)
        with torch.no_grad(), backbone.routed(site), fresh.routed(site):
            logits = [model.decode(model.encode(image()), asked) for model in (backbone, fresh)]
        assert torch.equal(*logits)
        if method == "lora":
            plain = base()
            plain.add_structures(["tumour"])
            plain.net = PeftModel.from_pretrained(plain.net, str(folder / route))
            assert torch.equal(answer(plain, None, asked), logits[0])


def test_a_saved_route_that_lacks_layers_is_refused(tmp_path: Path) -> None:
    backbone, adapter = lora()
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone))
    file = tmp_path / "a" / "mr" / WEIGHTS
    left = {name: value for name, value in load_file(file).items() if ".layers.1." not in name}
    save_file(left, file)
    with pytest.raises(UserError, match=r"(?s)missing .*\.layers\.1\..*mr"):
        adapters.load_adapter(tmp_path / "a", base())


@pytest.mark.parametrize("modality", ["pet", "ct"])
def test_sessions_take_the_adapter_of_their_scan(modality: str) -> None:
    backbone, _ = lora()
    move(backbone, 2)
    volume = torch.rand(1, 1, 16, 16, 24, generator=torch.Generator().manual_seed(3))
    options = {"window": (16, 16, 24), "precision": "fp32", "skip_air": False}
    session = inference.open_tensor(backbone, volume, modality=modality, **options)
    plain = base()
    if modality == "pet":
        adapter = Lora(LoraOptions(rank=2))
        adapter.inject(plain)
        values = {
            k.replace(".@pet.", ".default."): p for k, p in backbone.named_parameters() if ".@pet." in k
        }
        with torch.no_grad():
            for key, parameter in plain.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(values[key])
    other = inference.open_tensor(plain, volume, **options)
    for prompt in ASKED:
        session.prompt([prompt])
        other.prompt([prompt])
        got = torch.cat([part for _, part in session.scores([prompt.structure])], dim=-1)
        want = torch.cat([part for _, part in other.scores([prompt.structure])], dim=-1)
        assert torch.equal(got, want)


def test_learned_rows_are_kept_per_modality(tmp_path: Path) -> None:
    backbone = base()
    rows = backbone.add_structures(["tumour"])
    adapter = NoAdapter(NoAdapter.Options(per="modality"))
    adapter.inject(backbone, rows, ROUTES)
    move(backbone, 2)
    asked = [Prompt("tumour")]
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone, ["tumour"], list(ROUTES)))
    fresh = base()
    adapters.load_adapter(tmp_path / "a", fresh)
    found = {name: answer(backbone, name, asked) for name in ROUTES}
    assert not torch.equal(found["pet"], found["mr"])
    assert all(torch.equal(answer(fresh, name, asked), found[name]) for name in ROUTES)


def test_what_cannot_be_is_refused() -> None:
    backbone, _ = lora()
    with pytest.raises(UserError, match="image's is not known"):
        inference.label_map(inference.open_tensor(backbone, torch.rand(1, 1, 72, 48, 64)), ["liver"])
    with pytest.raises(UserError, match="several modalities"):
        adapters.merge(backbone)
    with pytest.raises(UserError, match=r"adapter\.per"):
        FullTuning(FullTuning.Options(name="full")).inject(base(), {}, ROUTES)
    with pytest.raises(UserError, match=r"adapter\.per"):
        Lora(LoraOptions(per="modality")).inject(base())
