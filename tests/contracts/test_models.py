"""Every registered model, at reduced size, through one battery."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from umdseg import registry
from umdseg.adapters.matrix import BY_FOLDER, Traits
from umdseg.backbones import Backbone
from umdseg.backbones.precision import autocast
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, PROMPT_KINDS, Prompt

Shape = tuple[int, int, int]


@pytest.fixture
def shape(models: Any, plain: Backbone, name: str) -> Shape:
    found: Shape = models.window(plain, name)
    return found


@pytest.fixture
def image(models: Any, name: str, shape: Shape, plain: Backbone) -> torch.Tensor:
    """Two windows; what a model scales by itself has the range of pictures."""
    noise = torch.rand(2, models.channels.get(name, 1), *shape, generator=torch.Generator().manual_seed(0))
    pictures = any(i.kind == "as_is" or i.to[1] > 1 for i in plain.card.intensity.values())
    return noise * 255 if pictures else noise


@pytest.fixture
def answer(models: Any, backbone: Backbone) -> Callable[..., torch.Tensor]:
    """answer(image, prompts): logits of windows at a place in the body."""

    def run(image: torch.Tensor, prompts: list[Prompt], model: Backbone | None = None) -> torch.Tensor:
        asked = model or backbone
        return asked.decode(asked.encode(image, models.affine.expand(len(image), 4, 4)), prompts)

    return run


@pytest.fixture
def prompts(models: Any, backbone: Backbone, structures: list[str], shape: Shape) -> list[Prompt]:
    """Each kind that the model takes, of both structures."""
    kinds = backbone.card.prompts
    return [models.ask(kind, one, shape, i) for kind in kinds for i, one in enumerate(structures)]


def test_the_card_is_complete_and_consistent(models: Any, plain: Backbone, name: str) -> None:
    card = plain.card
    assert card.name in (name, "card")  # of a user's own module: its file's name
    assert all(edge % card.divisor == 0 for edge in card.window)
    assert card.intensity
    assert set(card.intensity) <= set(MODALITIES)
    assert set(card.trained_on) <= set(card.intensity)
    assert card.prompts
    assert set(card.prompts) <= set(PROMPT_KINDS)
    assert card.weights.licence
    assert sorted("RAS".find(c) if c in "RAS" else "LPI".find(c) for c in card.orientation) == [0, 1, 2]
    assert 0 <= card.overlap < 1
    assert all(set(members) <= set(card.structures) for members in card.groups.values())
    assert not set(card.groups) & set(card.structures)
    assert not set(card.new_rows) & set(card.structures.values())
    assert all(plain.knows(one) for one in (*card.structures, *card.groups))
    if card.output == "softmax" and card.structures and name not in models.several:
        # several networks of a release count their channels one after the other
        assert min(card.structures.values()) >= 1, "0 is the background"
    if card.weights.source not in ("package", None) and card.weights.sha256 is None:
        assert "not verified" in card.weights.note


def test_the_listing_says_what_the_card_says(plain: Backbone, name: str) -> None:
    listing = registry.resolve("model", name).listing()
    assert not listing.prompts or set(listing.prompts) == set(plain.card.prompts)
    if listing.card is not None:
        assert listing.card.name == name
        assert listing.card.structures == plain.card.structures
        assert listing.card.intensity == plain.card.intensity
        assert listing.card.orientation == plain.card.orientation
        # the matrix of adapters goes by these
        assert Traits.of(listing.card) == Traits.of(plain.card)
    elif listing.family in BY_FOLDER:
        known = Traits.of(plain.card)
        told = vars(BY_FOLDER[listing.family])
        assert all(value in (None, getattr(known, key)) for key, value in told.items())


def test_the_card_points_at_modules_that_exist(plain: Backbone) -> None:
    modules = dict(plain.net.named_modules())
    targets = [m for key, m in modules.items() if re.fullmatch(plain.card.adapter_targets, key)]
    assert targets
    for module in targets:
        assert isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.Linear)
        if isinstance(module, torch.nn.Conv3d):
            # peft 0.21 cannot merge LoRA on 1x1x1 convolutions
            assert tuple(module.kernel_size) != (1, 1, 1)
    assert isinstance(modules[plain.card.stem], torch.nn.Conv2d | torch.nn.Conv3d)
    if plain.card.head:
        last = [m for key, m in modules.items() if re.fullmatch(plain.card.head, key)]
        assert last
        assert all(isinstance(m, torch.nn.Conv3d | torch.nn.Linear) for m in last)
    if plain.card.prompt_parameters:
        names = [key for key, _ in plain.net.named_parameters()]
        assert any(re.fullmatch(plain.card.prompt_parameters, key) for key in names)
    if plain.card.class_rows:
        rows: Any = modules[plain.card.class_rows]
        assert rows.num_embeddings > max(plain.card.new_rows)


def test_random_weights_say_so(plain: Backbone) -> None:
    assert plain.random_weights is True
    assert plain.weights_sha256 is None
    assert not plain.training


@torch.no_grad()
def test_every_prompt_gives_one_channel_on_the_windows_grid(
    backbone: Backbone, answer: Any, image: torch.Tensor, prompts: list[Prompt], shape: Shape
) -> None:
    logits = answer(image, prompts)
    assert logits.shape == (2, len(prompts), *shape)
    assert torch.isfinite(logits).all()
    for kind in set(PROMPT_KINDS) - set(backbone.card.prompts):
        with pytest.raises(UserError, match="prompts"):
            answer(image[:1], [Prompt(prompts[0].structure, kind)])


@torch.no_grad()
def test_a_batch_is_its_samples_and_an_encoding_serves_all_prompts(
    models: Any, backbone: Backbone, answer: Any, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    features = backbone.encode(image, models.affine.expand(2, 4, 4))
    both = backbone.decode(features, prompts)
    spread = float(both.std()) + 1e-6
    for k, prompt in enumerate(prompts):
        again = backbone.decode(features, [prompt])[:, 0]
        torch.testing.assert_close(both[:, k], again, rtol=0, atol=1e-3 * spread)
    for i in range(2):
        alone = answer(image[i : i + 1], prompts)[0]
        torch.testing.assert_close(both[i], alone, rtol=0, atol=1e-3 * spread)
    sliced = backbone.decode(features.sample(1), prompts)[0]
    torch.testing.assert_close(both[1], sliced, rtol=0, atol=1e-3 * spread)


@torch.no_grad()
def test_the_same_question_has_the_same_answer(
    backbone: Backbone, answer: Any, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    first = answer(image[:1], prompts)
    torch.rand(3)
    assert torch.equal(first, answer(image[:1], prompts))


@torch.no_grad()
def test_bfloat16_is_close(
    backbone: Backbone, answer: Any, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    # which of several masks for one click is best is a close call of random weights
    prompts = [p for p in prompts if not p.points] or prompts
    exact = answer(image[:1], prompts).float().flatten(2)[0]
    with autocast("bf16", torch.device("cpu")):
        rough = answer(image[:1], prompts).float().flatten(2)[0]
    for prompt, one, other in zip(prompts, exact, rough, strict=True):
        assert torch.isfinite(other).all()
        allowed = 0.15 * float(one.std()) + 0.02 * float(one.abs().max())
        assert float((one - other).abs().mean()) <= allowed, prompt


@torch.no_grad()
def test_prompts_are_places_of_the_patient(
    models: Any, backbone: Backbone, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    # the patient lies elsewhere: window and prompts move along, the answer stays
    moved, by = models.affine.clone(), torch.tensor([100.0, -40.0, 60.0]).double()
    moved[:3, 3] += by
    before = backbone.decode(backbone.encode(image[:1], models.affine[None]), prompts)
    along = [shifted(prompt, by.tolist()) for prompt in prompts]
    after = backbone.decode(backbone.encode(image[:1], moved[None]), along)
    torch.testing.assert_close(before, after, rtol=0, atol=1e-3 * float(before.std()) + 1e-6)
    clicks = [p for p in prompts if p.points or p.box]
    if clicks:
        left_behind = backbone.decode(backbone.encode(image[:1], moved[None]), clicks[:1])
        which = prompts.index(clicks[0])
        assert not torch.allclose(before[:, which], left_behind[:, 0], atol=1e-3)


def shifted(prompt: Prompt, by: list[float]) -> Prompt:
    from dataclasses import replace

    def move(point: tuple[float, float, float]) -> tuple[float, float, float]:
        return point[0] + by[0], point[1] + by[1], point[2] + by[2]

    box = (move(prompt.box[0]), move(prompt.box[1])) if prompt.box else None
    contours = tuple(replace(c, points=tuple(map(move, c.points))) for c in prompt.contours)
    return replace(prompt, points=tuple(map(move, prompt.points)), box=box, contours=contours)


@torch.no_grad()
def test_dense_and_class_vectors_give_the_logits(
    models: Any, backbone: Backbone, image: torch.Tensor, structures: list[str]
) -> None:
    if not backbone.has_dense or "auto" not in backbone.card.prompts:
        pytest.skip("no linear last layer")
    features = backbone.encode(image, models.affine.expand(2, 4, 4))
    expected = backbone.decode(features, [Prompt(one) for one in structures])
    dense = backbone.dense(features)
    if backbone.card.output == "softmax":
        logits = backbone.class_logits(dense, structures)
    else:
        logits = torch.einsum("kd,bdxyz->bkxyz", backbone.class_vectors(structures), dense)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_new_structures_leave_the_known_ones_alone(
    backbone: Backbone, answer: Any, image: torch.Tensor, structures: list[str]
) -> None:
    if not backbone.card.new_rows:
        with pytest.raises((UserError, NotImplementedError)):
            backbone.add_structures(["something_new"])
        return
    if not backbone.card.structures:
        pytest.skip("knows no structure of its own")
    known = Prompt(structures[0])
    before = answer(image[:1], [known])
    rows = backbone.add_structures(["something_new"])
    assert set(rows.values()) <= set(backbone.card.new_rows)
    assert backbone.knows("something_new")
    assert torch.equal(before, answer(image[:1], [known]))
    assert answer(image[:1], [Prompt("something_new")]).shape[1] == 1
    backbone.forget_structures()
    with pytest.raises(UserError, match="something_new"):
        answer(image[:1], [Prompt("something_new")])


def test_wrong_windows_and_names_are_refused(
    backbone: Backbone, answer: Any, image: torch.Tensor, shape: Shape
) -> None:
    if backbone.card.divisor > 1:
        with pytest.raises(UserError, match="multiples"):
            backbone.encode(torch.zeros(1, 1, backbone.card.divisor + 1, *shape[1:]))
    if "auto" in backbone.card.prompts:
        with pytest.raises(UserError, match="livr"):
            answer(image[:1], [Prompt("livr")])


@torch.no_grad()
def test_a_saved_state_is_the_whole_model(
    models: Any, name: str, plain: Backbone, backbone: Backbone, answer: Any, image: torch.Tensor,
    prompts: list[Prompt], tmp_path: Path,
) -> None:  # fmt: skip
    expected = answer(image[:1], prompts)
    torch.save(backbone.net.state_dict(), tmp_path / "state.pt")
    other = models(name, seed=1)
    if backbone.new_structures:
        other.add_structures(list(backbone.new_structures))
    assert not torch.equal(expected, answer(image[:1], prompts, other))
    other.net.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    assert torch.equal(expected, answer(image[:1], prompts, other))


def test_gradients_reach_what_adapters_replace(
    models: Any, name: str, backbone: Backbone, answer: Any, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    state = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # residual branches that start at 0 would hide what lies in them
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    backbone.requires_grad_(True)
    try:
        backbone.train()
        asked = [Prompt(one) for one in backbone.card.structures] if name in models.several else prompts[:1]
        answer(image[:1], asked).square().mean().backward()
        modules = dict(backbone.net.named_modules())
        targets = [m for key, m in modules.items() if re.fullmatch(backbone.card.adapter_targets, key)]
        reached = [m for m in targets if m.weight.grad is not None and bool(m.weight.grad.abs().sum() > 0)]
        assert len(reached) >= len(targets) / 2
        stem: Any = modules[backbone.card.stem]
        assert stem.weight.grad is not None
    finally:
        backbone.zero_grad(set_to_none=True)
        backbone.requires_grad_(False)
        backbone.net.load_state_dict(state)
        backbone.eval()


def world() -> dict[str, Any]:
    """What a model has no business to change for everybody else."""
    cudnn = torch.backends.cudnn
    return {
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (cudnn.benchmark, cudnn.deterministic, cudnn.enabled, cudnn.allow_tf32),
        "matmul": torch.get_float32_matmul_precision(),
        "warnings": list(warnings.filters),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
    }


@torch.no_grad()
def test_nothing_outside_the_model_changes(
    models: Any, name: str, backbone: Backbone, image: torch.Tensor, prompts: list[Prompt]
) -> None:
    models(name)  # packages are imported by now
    before = world()
    other = models(name)
    assert type(other) is type(backbone)
    if not other.card.structures and "auto" in other.card.prompts:
        other.add_structures(["liver", "spleen"])
    drawn = torch.get_rng_state()
    other.decode(other.encode(image[:1], models.affine[None]), prompts)
    assert torch.equal(drawn, torch.get_rng_state()), "an answer draws from the run's random numbers"
    after = world()
    assert [key for key in before if before[key] != after[key]] == []


def test_no_model_moves_to_a_device_by_itself() -> None:
    source = Path(registry.__file__).parent / "backbones"
    moves = re.compile(r"\.cuda\(|\.to\(\s*[\"']cuda|set_default_device|torch\.set_num_threads\((?!threads)")
    files = sorted(source.rglob("*.py"))
    assert len(files) > 30
    assert [path.name for path in files if moves.search(path.read_text(encoding="utf-8"))] == []
