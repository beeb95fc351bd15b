"""`adapter.per=tracer|site`: the scan's origin chooses; an unknown one gets the base model, told once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg import adapters, inference, load_backbone
from umdseg.adapters import AdapterCard
from umdseg.adapters.lora import Lora, LoraOptions
from umdseg.adapters.routes import route_of, routes_of
from umdseg.backbones import Backbone
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.vocabulary import Batch, Origin, Prompt, Scan, Subject

FDG, PSMA = Origin("pet", "FDG", "Bern"), Origin("pet", "PSMA", "St. Gallen")
TARGET = r"image_encoder\.encoder\.layers\.0\.blocks\.0\.conv1"


def base() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random").eval()


def routed(per: str, origins: list[Origin]) -> Backbone:
    """Every route's adapter with values of its own."""
    backbone = base()
    adapter = Lora(LoraOptions(rank=2, per=per, targets=TARGET))
    adapter.inject(backbone, {}, routes_of(origins, per))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone


@torch.no_grad()
def answer(backbone: Backbone, origin: Origin | str | None) -> torch.Tensor:
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with backbone.routed(origin):
        return backbone.decode(backbone.encode(image), [Prompt("liver")])


@pytest.mark.parametrize(
    ("per", "origin", "route"),
    [
        ("modality", FDG, "pet"),
        ("tracer", Origin("pet", " 18F-FDG"), "18f-fdg"),
        ("tracer", Origin("ct"), "ct"),
        ("site", PSMA, "st_gallen"),
        ("site", Origin("pet", "FDG"), ""),
        # names that a torch module or a peft folder cannot have
        ("site", Origin("ct", site="default"), "default_"),
        ("site", Origin("ct", site="Training"), "training_"),
        ("site", Origin("ct", site="keys"), "keys_"),
    ],
)
def test_routes_are_names_that_modules_and_folders_can_have(per: str, origin: Origin, route: str) -> None:
    assert route_of(origin, per) == route


def test_routes_of_training_scans_are_complete_and_distinct() -> None:
    assert routes_of([PSMA, FDG, Origin("pet", "fdg"), Origin("ct")], "tracer") == ["psma", "fdg", "ct"]
    with pytest.raises(UserError, match="states no site"):
        routes_of([FDG, Origin("pet", "FDG")], "site")
    with pytest.raises(UserError, match=r"St\. Gallen.*cannot be told apart"):
        routes_of([PSMA, Origin("pet", site="St Gallen"), Origin("pet", site="St_Gallen")], "site")


@pytest.mark.parametrize("per", ["tracer", "site"])
def test_each_origin_gets_its_own_and_an_unknown_one_the_base(
    per: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = routed(per, [FDG, PSMA])
    plain, fdg, psma = answer(base(), None), answer(backbone, FDG), answer(backbone, PSMA)
    assert not torch.equal(fdg, plain)
    assert not torch.equal(psma, plain)
    assert not torch.equal(fdg, psma)
    assert capsys.readouterr().err == ""
    unknown = Origin("pet", "FES", "Basel")
    for _ in range(2):
        assert torch.equal(answer(backbone, unknown), plain)
        assert torch.equal(answer(backbone, "pet"), plain)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert getattr(unknown, per) in told[0]
    assert f"no {per} stated" in told[1]
    with pytest.raises(UserError, match=f"one adapter per {per}"):
        answer(backbone, None)

    card = AdapterCard.describe(backbone, ["liver"], ["pet"])
    backbone.adapter.save(tmp_path / "a", backbone, card)
    fresh = base()
    read = adapters.load_adapter(tmp_path / "a", fresh)
    assert (read.per, read.routes) == (per, routes_of([FDG, PSMA], per))
    assert torch.equal(answer(fresh, FDG), fdg)
    assert torch.equal(answer(fresh, PSMA), psma)


def test_subjects_scans_and_batches_know_where_they_come_from() -> None:
    scan = Scan(Path("x.nii.gz"), "pet", "SUV", tracer_or_sequence="FDG")
    assert Subject("a", {"pet": scan}, site="Bern").origin("pet") == FDG
    empty = torch.zeros(2, 1, 1, 1, 1)
    places = [empty, empty, torch.zeros(2, 4, 4)]
    batch = Batch(*places, ["pet", "ct"], ["a", "b"], ["FDG", ""], site=["Bern", "Basel"])
    assert batch.origins == [FDG, Origin("ct", "", "Basel")]
    assert batch.take([1]).origins == [Origin("ct", "", "Basel")]
    assert Batch(*places, ["pet", "ct"], ["a", "b"]).origins == [Origin("pet"), Origin("ct")]


def test_a_mixed_batch_gives_every_tracers_adapter_its_gradient() -> None:
    backbone = routed("tracer", [FDG, PSMA])
    label = torch.zeros(3, 1, 16, 16, 16, dtype=torch.int16)
    label[:, :, 3:9, 3:9, 3:9] = 1
    image, affine = torch.rand(3, 1, 16, 16, 16), torch.eye(4).expand(3, 4, 4)
    batch = Batch(image, label, affine, ["pet"] * 3, ["s"] * 3, ["FDG", "PSMA", "FDG"], ("liver",))
    task = SegmentTask(backbone, backbone.adapter, FitOptions(point_share=0.0), ("liver",))
    task._step(batch, 0).backward()  # type: ignore[no-untyped-call]
    moved = {route: sum(f".@{route}." in k and p.grad is not None and p.grad.any() for k, p in
                        backbone.named_parameters()) for route in ("fdg", "psma")}  # fmt: skip
    assert moved["fdg"] == moved["psma"] > 0


def test_opening_a_scan_takes_its_tracer_and_the_given_site() -> None:
    backbone = routed("tracer", [FDG, PSMA])
    values = np.random.default_rng(0).uniform(0, 8, (20, 20, 20)).astype(np.float32)
    volume = Volume(values, Grid((20, 20, 20), np.diag([6.0, 6.0, 6.0, 1.0])))

    def found(origin: Origin | str) -> torch.Tensor:
        options = {"window": (16, 16, 16), "precision": "fp32", "skip_air": False}
        session = inference.open(backbone, volume, origin, **options)
        return torch.cat([part for _, part in session.scores(["liver"])], dim=-1)

    assert not torch.equal(found(FDG), found(PSMA))
    with adapters.disable(backbone):
        plain = found(FDG)
    assert torch.equal(found("pet"), plain)
