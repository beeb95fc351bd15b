"""What a step of a fused model says it was given, against what its encoder was."""

from __future__ import annotations

import pytest
import torch

from umdseg import load_backbone
from umdseg.adapters.none import NoAdapter
from umdseg.data.paired import PairedBatch
from umdseg.fusion import Fused, build
from umdseg.fusion.late import LateOptions
from umdseg.tasks import FitOptions, SegmentTask
from umdseg.vocabulary import Modality

MODALITIES: tuple[Modality, ...] = ("ct", "pet")


def _pairs() -> PairedBatch:
    """Two cubes with a box of liver; the second subject never had PET."""
    generator = torch.Generator().manual_seed(0)
    image = {m: 0.1 * torch.rand(2, 1, 16, 16, 16, generator=generator) for m in MODALITIES}
    image["pet"][1] = 0
    label = torch.zeros(2, 1, 16, 16, 16, dtype=torch.int16)
    label[:, :, 3:11, 4:12, 4:12] = 1
    affine = torch.diag(torch.tensor([6.0, 6.0, 6.0, 1.0])).expand(2, 4, 4).clone()
    present, told = torch.tensor([[True, True], [True, False]]), torch.ones(2, 1, dtype=torch.bool)
    tracer = {"ct": ["", ""], "pet": ["FDG", ""]}
    subjects, asked = ["a", "b"], ["liver", "liver"]
    return PairedBatch(image, present, label, affine, subjects, tracer, ("liver",), asked, told, ["", ""])  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["class", "points"])
def test_prompts_name_the_scans_that_the_model_was_given(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    backbone = load_backbone("vista3d_tiny", "random").requires_grad_(False)
    fused = build(LateOptions(dropout=0.5), backbone, MODALITIES, "ct", ["liver"])
    assert isinstance(fused, Fused)
    task = SegmentTask(
        fused, NoAdapter(NoAdapter.Options(name="none")), FitOptions(point_share=share), ["liver"]
    )
    seen: list[torch.Tensor] = []
    encode = fused.encode

    def spy(image: torch.Tensor, affine: torch.Tensor, present: torch.Tensor) -> object:
        seen.append(present)
        return encode(image, affine, present)

    monkeypatch.setattr(fused, "encode", spy)
    found = {"a": set(), "b": set()}  # type: dict[str, set[str]]
    for index in range(8):
        monkeypatch.setattr(type(task), "global_step", index, raising=False)
        task.training_step(_pairs(), 0)
        wanted = ["+".join(m for m, there in zip(MODALITIES, row, strict=True) if there) for row in seen[-1]]
        assert [(asked.subject, asked.subset) for asked in task.prompted] == list(
            zip("ab", wanted, strict=True)
        )
        assert {asked.modality for asked in task.prompted} == {"ct+pet"}
        for asked in task.prompted:
            found[asked.subject].add(asked.subset)
    assert found == {"a": {"ct", "pet", "ct+pet"}, "b": {"ct"}}


@pytest.mark.parametrize(("given", "wanted"), [(None, 2e-2), (1e-3, 1e-3)])
def test_a_fusion_without_an_adapter_learns_at_its_own_rate(given: float | None, wanted: float) -> None:
    fused = build(LateOptions(), load_backbone("vista3d_tiny", "random").requires_grad_(False), MODALITIES)
    adapter = NoAdapter(NoAdapter.Options(name="none"))
    optimizer = SegmentTask(fused, adapter, FitOptions(lr=given), ["liver"]).configure_optimizers()
    # late fusion's few weights, by the number; of the warm-up's end
    assert [group["initial_lr"] for group in optimizer["optimizer"].param_groups] == [wanted]
