"""The table of methods against families, and its reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from umdseg import load_backbone, registry
from umdseg.adapters import build
from umdseg.adapters.lora import LoraOptions
from umdseg.adapters.matrix import BY_FOLDER, REASONS, Traits, applicable, families, needs, table
from umdseg.cli import main
from umdseg.errors import UserError

README = Path(__file__).resolve().parents[2] / "README.md"


def test_every_method_says_what_it_needs_in_known_words() -> None:
    for method in registry.names("adapter"):
        assert set(needs(method)) <= set(REASONS)
        assert ("logits" in needs(method)) == (method != "none")


def test_the_table_has_a_cell_for_every_method_and_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "adapters", "--matrix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")
    ]
    assert head == ["method", *sorted(families())]
    assert [row[0] for row in rows] == registry.names("adapter")
    cells: Any = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert cells["depth"]["sam2d"] == "yes"
    assert {cells["depth"][name] for name in head[1:] if name != "sam2d"} == {"–"}
    assert [m for m, row in cells.items() if row["nninteractive"] == "yes"] == ["none"]
    assert cells["lora"]["torch_module"] == "card"
    assert cells["prompt"]["monai_cnn"] == "–"
    reasons = [line for line in lines if line.startswith("- ")]
    assert any("depth" in line and REASONS["slices"] in line for line in reasons)


def test_the_readme_shows_the_table() -> None:
    shown = [line for line in table().splitlines() if line.startswith("|")]
    assert "\n".join(shown) in README.read_text(encoding="utf-8")


def test_families_known_by_folder_are_those_without_a_card() -> None:
    without = {
        factory.listing().family
        for name in registry.names("model")
        if hasattr(factory := registry.resolve("model", name), "listing") and factory.listing().card is None
    }
    assert without == set(BY_FOLDER)


def test_the_users_own_pattern_stands_in_for_the_cards() -> None:
    backbone = load_backbone("vista3d_tiny", "random")
    card = replace(backbone.card, adapter_targets="")
    assert applicable("lora", card) == REASONS["targets"]
    assert applicable("lora", card, targets="x") == ""
    backbone.card = card
    with pytest.raises(UserError, match="names no layers") as caught:
        build(LoraOptions()).inject(backbone)
    assert "bitfit" in str(caught.value)
    build(LoraOptions(targets=r"class_head\.mlp\.\d")).inject(backbone)


def test_traits_of_a_card() -> None:
    card = load_backbone("vista3d_tiny", "random").card
    assert Traits.of(card) == Traits(True, True, False, True, True)
    assert Traits.of(replace(card, output="mask")).logits is False
