"""What `umdseg list` says of the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from umdseg import registry
from umdseg.backbones.card import Card, Crop, Intensity, Weights
from umdseg.backbones.listing import Listing, listed
from umdseg.backbones.options import ModelOptions
from umdseg.cli import listing, main
from umdseg.errors import UserError


def lines(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["list", *arguments]) == 0
    return capfd.readouterr().out.splitlines()


def offer(monkeypatch: pytest.MonkeyPatch, **factories: Any) -> None:
    monkeypatch.setattr(registry, "names", lambda kind: sorted(factories))
    monkeypatch.setattr(registry, "resolve", lambda kind, name: factories[name])


def card(**more: Any) -> Card:
    facts: dict[str, Any] = {
        "name": "theirs",
        "weights": Weights("someone/model", "m.pt", None, "CC-BY-NC-4.0", False, "hash not verified"),
        "spacing": None,
        "window": (64, 64, 32),
        "divisor": 16,
        "intensity": {
            "ct": Intensity("standardise", -100, 200, 50, 25),
            "mr": Intensity("zscore", masked=True),
        },
        "structures": {"liver": 1, "spleen": 2},
        "adapter_targets": "conv",
        "stem": "first",
        "citation": "Someone (2026)",
    }
    return Card(**{**facts, **more})


def test_every_registered_model_says_what_it_is_without_being_built(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def built(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr(torch.nn.Module, "__init__", built)
    head, *rows = lines(capfd, "models")
    assert [row.split()[0] for row in rows] == registry.names("model")
    assert head.split("  ")[0] == "model"
    for name in registry.names("model"):
        found = registry.resolve("model", name).listing()
        assert found.family
        assert found.weights.licence, name
        assert found.prompts, name
        if found.card is not None:
            assert found.card.name == name


def test_one_row_has_everything_a_choice_needs() -> None:
    shown = dict(zip(listing.COLUMNS, listing.row("nv_segment_ctmr"), strict=True))
    assert shown == {
        "model": "nv_segment_ctmr",
        "family": "vista3d",
        "parameters": "218.0 M",
        "trained on": "ct, mr",
        "prompts": "auto",
        "output": "sigmoid",
        "status": "to download",
        "commercial use": "no",
        "licence": "NVIDIA OneWay Noncommercial License (22 March 2022)",
        "weights": "nvidia/NV-Segment-CTMR",
    }
    assert listing.row("vista3d_tiny")[6:8] == ("shipped", "yes")
    assert listing.row("vista3d")[7] == "unclear"


@pytest.mark.parametrize(
    ("weights", "cached", "status"),
    [
        (Weights("package", "m.pt", None, "MIT", True), None, "shipped"),
        (Weights("https://example.org/m.pt", "m.pt", None, "MIT", True), None, "to download"),
        (Weights("https://example.org/m.pt", "m.pt", None, "MIT", True), lambda: Path("here"), "cached"),
        (Weights(None, "m.pt", None, "MIT", True), None, "by hand"),
        (Weights(None, "m.pt", None, "MIT", True), lambda: Path("here"), "cached"),
    ],
)
def test_status_is_where_the_weights_are(weights: Weights, cached: Any, status: str) -> None:
    found = Listing("family", None, weights, (), ("auto",), "", cached=cached)
    assert listing.status(found) == status


def test_networks_to_be_trained_here_are_from_scratch() -> None:
    column = listing.COLUMNS.index("status")
    trained_here = [name for name in registry.names("model") if listing.row(name)[column] == "from scratch"]
    assert trained_here == ["resenc_unet", "unet"]
    # these come with a folder or a module of the user's own
    assert {listing.row(name)[column] for name in ("nnunet", "torch_module")} == {"by hand"}


def test_one_card_in_full_says_what_is_not_verified(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    crop, groups = Crop(0.0, "before", 10), {"abdomen": ("liver", "spleen")}

    @listed(lambda: card(crop=crop, groups=groups), family="mine", parameters=1_234_567)
    def theirs(options: ModelOptions) -> None: ...

    offer(monkeypatch, theirs=theirs)
    text = "\n".join(lines(capfd, "models", "theirs"))
    for expected in (
        "1,234,567",
        "someone/model, m.pt",
        "sha256:          not verified",
        "hash not verified",
        "commercial use:  no",
        "the scan's own",
        "64 × 64 × 32 voxels, edges are multiples of 16",
        "clipped to -100 ... 200, mean 50, standard deviation 25",
        "z-score of voxels above 0",
        "above 0, before scaling, margin 10",
        "liver (1), spleen (2)",
        "abdomen =:       liver + spleen",
        "Someone (2026)",
    ):
        assert expected in text


def test_a_card_from_a_folder_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def folder(options: ModelOptions) -> None: ...

    weights = Weights("https://example.org/m.zip", "m.pt", "0" * 64, "MIT", True)
    vars(folder)["listing"] = lambda: Listing("nnunet", None, weights, (), ("auto",), "")
    offer(monkeypatch, folder=folder)
    assert lines(capfd, "models", "folder").count("structures:      as its folder says") == 1
    assert listing.row("folder")[2:4] == ("as its folder says", "as its folder says")


def test_models_that_say_nothing_or_lack_their_package_are_listed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def silent(options: ModelOptions) -> None: ...

    def resolve(kind: str, name: str) -> Any:
        if name == "absent":
            raise UserError("model 'absent' needs the package 'xyz', which is not installed")
        return silent

    monkeypatch.setattr(registry, "names", lambda kind: ["absent", "silent"])
    monkeypatch.setattr(registry, "resolve", resolve)
    _, absent, quiet = lines(capfd, "models")
    assert "needs the package 'xyz'" in absent
    assert quiet.split() == ["silent", *["–"] * 9]
    assert main(["list", "models", "silent"]) == 1
    assert "says nothing about itself" in capfd.readouterr().err


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    out = "\n".join(lines(capfd, "models"))
    assert "vista3d_tiny" in out
    assert "shipped, umdseg" in out
    assert "yes, Apache-2.0" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "vista3d_tny"], "did you mean: vista3d_tiny"),
        (["adapters", "lora"], "umdseg list models NAME"),
    ],
)
def test_mistakes_are_one_message(arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *arguments]) == 1
    assert said in capfd.readouterr().err
