"""Averages and arithmetic of adapters: the merged weights are the weighted sum, whatever is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from umdseg import registry
from umdseg.adapters import AdapterCard, build, load_adapter, merge, sums
from umdseg.adapters.combine import combine
from umdseg.backbones import Backbone, load_backbone
from umdseg.cli import main
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

TARGETS = r"image_encoder\.encoder\.layers\.[01]\.blocks\.0\.conv1"


def base(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return load_backbone("vista3d_tiny", "random").eval()


def made(
    folder: Path, method: str, seed: int, new=(), routes=(), model: int = 0, structures=("liver",), **options
) -> Path:
    """A saved adapter whose tensors have all been moved at random."""
    backbone = base(model)
    rows = backbone.add_structures(new) if new else {}
    adapter = build(registry.resolve("adapter", method).Options(name=method, **options))
    adapter.inject(backbone, rows, routes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapter.save(folder, backbone, AdapterCard.describe(backbone, [*structures, *new], ["pet"]))
    return folder


def weights(folder: Path | None) -> dict[str, torch.Tensor]:
    """The network with an adapter folded in."""
    backbone = base()
    if folder is not None:
        load_adapter(folder, backbone)
        merge(backbone)
    return backbone.net.state_dict()


CASES = [
    ("lora", {"rank": 2, "alpha": 6, "targets": TARGETS}, {"rank": 3, "alpha": 3, "targets": TARGETS}),
    ("lora_conv", {"rank": 2, "alpha": 6, "targets": TARGETS}, {"rank": 4, "alpha": 3, "targets": TARGETS}),
    ("ia3", {"targets": TARGETS}, {"targets": TARGETS}),
    ("bitfit", {}, {}),
    ("norm", {}, {}),
    ("head", {}, {}),
    ("full", {}, {}),
]


@pytest.mark.parametrize(("method", "one", "other"), CASES, ids=[case[0] for case in CASES])
def test_the_sum_is_of_what_the_adapters_do_to_the_base(method: str, one, other, tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", method, 1, **one), made(tmp_path / "b", method, 2, **other)
    plain, first, second = weights(None), weights(a), weights(b)
    for number, (u, v) in enumerate([(0.25, 0.75), (1.0, -1.0)]):
        if method == "full" and u + v != 1:
            with pytest.raises(UserError, match="add up to 0"):
                combine([a, b], [u, v], tmp_path / "c")
            continue
        card = combine([a, b], [u, v], tmp_path / f"c{number}")
        found = weights(tmp_path / f"c{number}")
        moved = 0
        for key, value in plain.items():
            wanted = value + u * (first[key] - value) + v * (second[key] - value)
            torch.testing.assert_close(found[key], wanted, rtol=1e-4, atol=2e-6)
            moved += int(not torch.equal(first[key], value))
        assert moved
        backbone = base()
        load_adapter(tmp_path / f"c{number}", backbone)
        assert backbone.adapter.parameters(backbone)[0] == card.trainable


def test_one_minus_itself_is_the_base_and_negation_undoes(tmp_path: Path) -> None:
    a = made(tmp_path / "a", "lora", 1, rank=2, targets=TARGETS)
    combine([a, a], [1.0, -1.0], tmp_path / "nothing")
    combine([a], [-1.0], tmp_path / "minus")
    plain, first, none, minus = (weights(f) for f in (None, a, tmp_path / "nothing", tmp_path / "minus"))
    for key, value in plain.items():
        torch.testing.assert_close(none[key], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(minus[key] + first[key], 2 * value, rtol=0, atol=1e-5)


def test_averaged_factors_are_another_update_and_keep_the_rank(tmp_path: Path) -> None:
    options = {"rank": 2, "targets": TARGETS}
    a, b = made(tmp_path / "a", "lora", 1, **options), made(tmp_path / "b", "lora", 2, **options)
    exact = combine([a, b], [0.5, 0.5], tmp_path / "exact")
    rough = combine([a, b], [0.5, 0.5], tmp_path / "rough", "parameters")
    assert (exact.options["rank"], rough.options["rank"]) == (4, 2)
    assert rough.trainable == AdapterCard.read(a).trainable
    one, two = weights(tmp_path / "exact"), weights(tmp_path / "rough")
    assert any(not torch.allclose(one[key], two[key], atol=1e-4) for key in one)


@pytest.mark.parametrize("groups", [1, 3])
def test_grouped_factors_stay_with_their_groups(groups: int) -> None:
    """Convolutions one after the other, as peft and lora_conv run them, against the sum of their outputs."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9)

    def factors(rank: int) -> dict[str, torch.Tensor]:
        return {"l.down": torch.randn(rank, 6 // groups, 3), "l.up": torch.randn(12, rank // groups, 1)}

    def run(state: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.conv1d(
            functional.conv1d(x, state["l.down"], groups=groups), state["l.up"], groups=groups
        )

    one, two = factors(3), factors(6)
    both = sums.low_rank([one, two], [0.5, -2.0], [3.0, 1.0])
    torch.testing.assert_close(run(both), 1.5 * run(one) - 2 * run(two), rtol=1e-4, atol=1e-4)


def test_the_folder_is_one_to_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its card tells where it comes from; plain peft reads it; learned rows are averaged."""
    options = {"rank": 2, "targets": TARGETS, "new": ("tumour",)}
    a, b = made(tmp_path / "a", "lora", 1, **options), made(tmp_path / "b", "lora", 2, **options)
    out = tmp_path / "c"
    assert main(["combine", str(a), str(b), "--weights", "0.25", "0.75", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    card = AdapterCard.read(out)
    assert card.combined == "exact"
    assert [(p["folder"], p["weight"], p["modalities"]) for p in card.parts] == [
        ("a", 0.25, ["pet"]), ("b", 0.75, ["pet"]),
    ]  # fmt: skip
    assert len({p["sha256"] for p in card.parts}) == 2
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 4

    def rows(folder: Path) -> torch.Tensor:
        return weights(folder)["class_head.class_embeddings.weight"][256]

    torch.testing.assert_close(rows(out), 0.25 * rows(a) + 0.75 * rows(b))
    backbone, plain = base(), base()
    load_adapter(out, backbone)
    plain.add_structures(["tumour"])
    plain.net = PeftModel.from_pretrained(plain.net, str(out))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        answers = [m.decode(m.encode(image), [Prompt("liver"), Prompt("tumour")]) for m in (backbone, plain)]
    torch.testing.assert_close(*answers)
    with pytest.raises(UserError, match="rows of learned structures"):
        combine([a, b], [1.0, 1.0], tmp_path / "d")


@pytest.mark.parametrize("method", ["lora", "lora_conv"])
def test_routes_of_one_run_become_one_adapter(method: str, tmp_path: Path) -> None:
    options = {"rank": 2, "targets": TARGETS, "per": "modality", "routes": ("pet", "mr")}
    folder = made(tmp_path / "a", method, 1, **options)
    with pytest.raises(UserError, match="one for each of pet, mr"):
        combine([folder], [1.0], tmp_path / "c")
    (folder / "ct").mkdir()
    with pytest.raises(UserError, match="unknown route"):
        combine([folder / "ct"], [1.0], tmp_path / "c")
    card = combine([folder / "pet", folder / "mr"], [0.5, 0.5], tmp_path / "c")
    assert (card.routes, card.per, card.options["per"]) == ([], "", None)
    assert [part["route"] for part in card.parts] == ["pet", "mr"]
    found, plain, each = weights(tmp_path / "c"), weights(None), []
    for route in ("pet", "mr"):
        backbone = base()
        load_adapter(folder, backbone)
        merge(backbone, route)
        each.append(backbone.net.state_dict())
    for key in plain:
        torch.testing.assert_close(found[key], (each[0][key] + each[1][key]) / 2, rtol=1e-4, atol=2e-6)


def test_what_cannot_be_summed_is_refused(tmp_path: Path) -> None:
    options = {"rank": 2, "targets": TARGETS}
    a = made(tmp_path / "a", "lora", 1, **options)
    for name, how, match in (
        (made(tmp_path / "base", "lora", 2, model=1, **options), "exact", "base weights"),
        (made(tmp_path / "method", "lora_conv", 2, **options), "exact", "method"),
        (made(tmp_path / "names", "lora", 2, structures=("spleen",), **options), "exact", "structures"),
        (made(tmp_path / "learned", "lora", 2, new=("tumour",), **options), "exact", "structures"),
        (made(tmp_path / "rank", "lora", 2, rank=4, targets=TARGETS), "parameters", "option rank"),
        (made(tmp_path / "place", "lora", 2, rank=2), "exact", "option targets"),
    ):
        with pytest.raises(UserError, match=match):
            combine([a, name], [0.5, 0.5], tmp_path / "c", how)
    dora = made(tmp_path / "dora", "dora", 1, **options)
    with pytest.raises(UserError, match="is no sum"):
        combine([dora, dora], [0.5, 0.5], tmp_path / "c")
    combine([dora, dora], [0.5, 0.5], tmp_path / "c", "parameters")
    got, wanted = weights(tmp_path / "c"), weights(dora)
    assert all(torch.allclose(got[key], wanted[key], atol=1e-6) for key in wanted)
    for given, match in (
        ([1.0], "1 weights for 2"),
        ([0.0, 0.0], "not all 0"),
        ([float("nan"), 1], "finite"),
    ):
        with pytest.raises(UserError, match=match):
            combine([a, a], given, tmp_path / "d")
    (a / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="damaged"):
        combine([a], [1.0], tmp_path / "d")
    assert not (tmp_path / "d").exists()
    assert main(["combine", str(a), "--out", str(tmp_path / "d")]) == 1
