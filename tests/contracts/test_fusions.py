"""Every fusion on a model of every family, at reduced size, through one battery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from umdseg import registry
from umdseg.adapters import build as build_adapter
from umdseg.backbones import Backbone
from umdseg.errors import UserError
from umdseg.fusion import Fused, build, load_fusion, save_fusion
from umdseg.inference.plain import plain

BASES = ("vista3d_tiny", "nnunet", "unet", "monai_wholebody", "sam_med3d_turbo", "sam_vit_b")
FUSIONS = tuple(name for name in registry.names("fusion") if name != "none")
# early fusion needs windows at the first convolution; slices are made into pictures first
REFUSED = {("early", "sam_vit_b")}
# whole scans go through their packages, one scan at a time
ALONE = ("voxtell", "nninteractive")
CELLS = [(fusion, base) for fusion in FUSIONS for base in BASES if (fusion, base) not in REFUSED]
MODALITIES = ("ct", "pet", "mr")
# who has what: all, the reference alone, another alone, two without the reference
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.bool)
LEAD = (0, 0, 1, 2)


class Cell:
    """One fusion on one model, its windows and prompts."""

    def __init__(self, models: Any, fusion: str, base: str, inner: Backbone | None = None) -> None:
        self.inner = built(models, base) if inner is None else inner
        self.fusion, self.models = fusion, models
        options = registry.resolve("fusion", fusion).Options(name=fusion)
        self.fused = build(options, self.inner, MODALITIES, "ct", ["liver", "spleen"])
        assert isinstance(self.fused, Fused)
        self.shape = models.window(self.inner, base)
        noise = torch.rand(4, 3, *self.shape, generator=torch.Generator().manual_seed(3))
        pictures = any(i.kind == "as_is" or i.to[1] > 1 for i in self.inner.card.intensity.values())
        self.image = noise * 255 if pictures else noise
        self.affine = models.affine.expand(4, 4, 4)
        kind = "auto" if "auto" in self.inner.card.prompts else "point"
        self.prompts = [models.ask(kind, name, self.shape, i) for i, name in enumerate(("liver", "spleen"))]

    def answer(self, present: torch.Tensor = PRESENT, image: torch.Tensor | None = None) -> torch.Tensor:
        given = self.image if image is None else image
        rows = torch.arange(len(present))
        return self.fused.decode(self.fused.encode(given[rows], self.affine[rows], present), self.prompts)

    def alone(self, row: int, column: int) -> torch.Tensor:
        """The plain model on one scan of one sample."""
        features = self.inner.encode(self.image[row : row + 1, column : column + 1], self.affine[:1])
        return self.inner.decode(features, self.prompts)

    def shake(self, scale: float = 0.3) -> None:
        """Trained values."""
        noise = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.fused.parts.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=noise)


def built(models: Any, base: str) -> Backbone:
    backbone: Backbone = models(base)
    if base == "unet":
        # a network trained from scratch has no class yet
        backbone.add_structures(["liver", "spleen"])
    if base == "sam_vit_b":
        # transformers' start values are so small that every answer is 0 to five digits
        noise = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in backbone.net.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    return backbone


@pytest.fixture(scope="module")
def bases(models: Any) -> dict[str, Backbone]:
    """Plain models, built once: no fusion changes them."""
    return {}


@pytest.fixture(params=CELLS, ids=["-".join(cell) for cell in CELLS])
def cell(request: pytest.FixtureRequest, models: Any, bases: dict[str, Backbone]) -> Iterator[Cell]:
    fusion, base = request.param
    if base not in bases:
        bases[base] = built(models, base).requires_grad_(False).eval()
    sha = bases[base].state_sha256
    made = Cell(models, fusion, base, bases[base])
    yield made
    assert made.fused.release() is bases[base]
    bases[base].state_sha256 = sha


@torch.no_grad()
def test_it_starts_as_the_plain_model_of_the_leading_scan(cell: Cell) -> None:
    got = cell.answer()
    for row, column in enumerate(LEAD):
        torch.testing.assert_close(got[row : row + 1], cell.alone(row, column), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_missing_is_never_looked_at(cell: Cell) -> None:
    cell.shake()
    before = cell.answer()
    broken = torch.where(PRESENT[..., None, None, None], cell.image, torch.nan)
    torch.testing.assert_close(cell.answer(image=broken), before, rtol=0, atol=0)


@torch.no_grad()
def test_every_modality_that_is_there_counts(cell: Cell) -> None:
    cell.shake()
    whole = torch.ones(1, 3, dtype=torch.bool)
    before = cell.answer(whole)
    for column in range(3):
        image = cell.image[:1].clone()
        image[:, column] = image[:, column].flip(2)
        assert not torch.allclose(cell.answer(whole, image), before, atol=1e-5), MODALITIES[column]
        without = whole.clone()
        without[0, column] = False
        assert not torch.allclose(cell.answer(without), before, atol=1e-5), MODALITIES[column]


@torch.no_grad()
def test_a_mixed_batch_is_its_samples_one_by_one(cell: Cell) -> None:
    cell.shake()
    whole = cell.answer()
    for row in range(4):
        one = cell.fused.encode(cell.image[row : row + 1], cell.affine[:1], PRESENT[row : row + 1])
        torch.testing.assert_close(
            cell.fused.decode(one, cell.prompts), whole[row : row + 1], rtol=1e-4, atol=1e-4
        )
        sample = cell.fused.encode(cell.image, cell.affine, PRESENT).sample(row)
        torch.testing.assert_close(
            cell.fused.decode(sample, cell.prompts), whole[row : row + 1], rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_a_part_is_given_only_its_modalities(cell: Cell) -> None:
    cell.shake()
    part = cell.fused.part(["mr", "pet"])
    assert part.given == ("pet", "mr")
    got = part.decode(part.encode(cell.image[3:, 1:], cell.affine[:1]), cell.prompts)
    torch.testing.assert_close(got, cell.answer()[3:], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="one each of pet, mr"):
        part.encode(cell.image[3:], cell.affine[:1])
    with pytest.raises(UserError, match="some of ct, pet, mr"):
        cell.fused.part(["ct", "us"])


def test_training_moves_every_part_and_nothing_of_the_base(cell: Cell) -> None:
    base = {k: v.clone() for k, v in cell.inner.net.state_dict().items()}
    parts = dict(cell.fused.parts.named_parameters())
    start = {k: v.detach().clone() for k, v in parts.items()}
    optimizer = torch.optim.AdamW(parts.values(), lr=0.05, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        (cell.answer() - 1).square().mean().backward()
        optimizer.step()
    assert not {k for k, v in parts.items() if torch.equal(v, start[k])}
    after = cell.inner.net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in base.items())


@torch.no_grad()
def test_inside_it_is_the_plain_model_with_its_own_session(cell: Cell) -> None:
    cell.shake()
    with plain(cell.fused) as base:
        assert base is cell.inner
        features = base.encode(cell.image[:1, 1:2], cell.affine[:1])
        assert torch.equal(base.decode(features, cell.prompts), cell.alone(0, 1))
    assert cell.fused.takes == MODALITIES


@torch.no_grad()
def test_saved_and_loaded_it_answers_alike(cell: Cell, models: Any, tmp_path: Path) -> None:
    cell.shake()
    expected = cell.answer()
    for _ in range(2):  # the second time replaces the first
        card = save_fusion(cell.fused, tmp_path / "fusion")
    assert [p.name for p in tmp_path.iterdir()] == ["fusion"]
    assert card.parameters == sum(p.numel() for p in cell.fused.parts.parameters())
    cell.fused = load_fusion(tmp_path / "fusion", cell.inner)
    torch.testing.assert_close(cell.answer(), expected, rtol=0, atol=0)
    cell.inner.state_sha256 = "0" * 64
    with pytest.raises(UserError, match="was made for weights"):
        load_fusion(tmp_path / "fusion", cell.inner)


@torch.no_grad()
def test_whole_body_inference_may_stitch_what_decode_says(cell: Cell) -> None:
    if not cell.fused.has_dense:
        pytest.skip("answers are stitched themselves")
    cell.shake()
    features = cell.fused.part(["ct", "mr"]).encode(cell.image[:1, ::2], cell.affine[:1])
    names = [prompt.structure for prompt in cell.prompts]
    dense = cell.fused.dense(features)
    if cell.inner.card.output == "softmax":
        got = cell.fused.class_logits(dense, names)
    else:
        got = torch.einsum("kd,bdxyz->bkxyz", cell.fused.class_vectors(names), dense)
    torch.testing.assert_close(got, cell.fused.decode(features, cell.prompts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fusion", "base"), [*sorted(REFUSED), *((f, b) for f in FUSIONS for b in ALONE)])
def test_what_does_not_fit_is_refused_with_the_reason(models: Any, fusion: str, base: str) -> None:
    options = registry.resolve("fusion", fusion).Options(name=fusion)
    with pytest.raises(UserError, match=f"'{fusion}' does not fit model {base}"):
        build(options, models(base), MODALITIES, "ct")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_modality_is_nothing_to_fuse(models: Any, fusion: str) -> None:
    options = registry.resolve("fusion", fusion).Options(name=fusion)
    with pytest.raises(UserError, match="two or three modalities"):
        build(options, models("vista3d_tiny"), ["ct"], "ct")


@pytest.mark.parametrize("fusion", ["gated", "late"])
@torch.no_grad()
def test_each_modality_goes_through_its_own_adapter(models: Any, fusion: str) -> None:
    cell = Cell(models, fusion, "vista3d_tiny")
    adapter = build_adapter(registry.resolve("adapter", "lora").Options(name="lora", per="modality"))
    adapter.inject(cell.inner, {}, ["pet", "mr"])
    cell.inner.eval()
    noise = torch.Generator().manual_seed(1)
    for name, parameter in cell.inner.net.named_parameters():
        if "lora_B" in name:
            parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    got = cell.answer()
    for row, column in enumerate(LEAD):
        with cell.inner.routed(MODALITIES[column]):
            alone = cell.alone(row, column)
        torch.testing.assert_close(got[row : row + 1], alone, rtol=1e-4, atol=1e-4)
        with cell.inner.routed("ct"):
            assert (column == 0) == torch.allclose(got[row : row + 1], cell.alone(row, column), atol=1e-4)


def test_early_fusion_takes_one_adapter_for_all(models: Any) -> None:
    cell = Cell(models, "early", "vista3d_tiny")
    adapter = build_adapter(registry.resolve("adapter", "lora").Options(name="lora", per="modality"))
    adapter.inject(cell.inner, {}, ["pet", "mr"])
    with pytest.raises(UserError, match="one adapter for all"):
        cell.answer()


@pytest.mark.parametrize("method", ["lora", "lora_conv", "full"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_adapter_may_be_there_before_the_fusion(models: Any, fusion: str, method: str) -> None:
    inner = models("vista3d_tiny")
    adapter = build_adapter(registry.resolve("adapter", method).Options(name=method))
    adapter.inject(inner, {})
    before = {k: v.clone() for k, v in inner.net.state_dict().items()}
    cell = Cell(models, fusion, "vista3d_tiny", inner)
    inner.eval()
    torch.testing.assert_close(cell.answer()[:1], cell.alone(0, 0), rtol=1e-4, atol=1e-4)
    trained = [p for p in cell.fused.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (cell.answer() - 1).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in cell.fused.parts.parameters())
    moved = {k for k, v in inner.net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    with torch.no_grad(), plain(cell.fused) as base:
        features = base.encode(cell.image[:1, :1], cell.affine[:1])
        got = base.decode(features, cell.prompts)
        fresh = models("vista3d_tiny").eval()
        expected = fresh.decode(fresh.encode(cell.image[:1, :1], cell.affine[:1]), cell.prompts)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
