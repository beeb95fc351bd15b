"""Every method of adaptation on every family of models: one battery, methods from the registry.

Where a model can learn new structures it learns one here, so that class rows take part. What a method does
not go with, it must refuse with the reason. Networks are the official ones at reduced size (`models_table`).
"""

from __future__ import annotations

import copy
import importlib.util
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from umdseg import registry
from umdseg.adapters import Adapter, AdapterCard, build, disable, load_adapter, merge, unload
from umdseg.adapters.gradient import check_gradients
from umdseg.adapters.matrix import REASONS, applicable
from umdseg.adapters.merging import merged
from umdseg.backbones import Backbone
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

_spec = importlib.util.spec_from_file_location(
    "adapters_table", Path(__file__).with_name("adapters_table.py")
)
assert _spec is not None
assert _spec.loader is not None
table = sys.modules["adapters_table"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

METHODS = registry.names("adapter")
CELLS = [(family, method) for family in table.MODELS for method in METHODS]
CELLS += table.EXTRA_CELLS
MODELS = {**table.MODELS, **table.EXTRA}


def goes(family: str, method: str) -> bool:
    """By what the families are, said here once more: the matrix must not be its own judge."""
    lacking = {
        "depth": ("vista3d", "nnunet", "sam3d", "monai_cnn"),
        "prompt": ("nnunet", "monai_cnn"),
    }
    return family not in lacking.get(method, ())


@dataclass(repr=False)
class Life:
    """What became of one method on one model: injected, trained for two steps, saved.

    Attributes:
        fresh: makes the same plain model again, `seed` another one.
        new: structure it has learned, or none.
        state: of the plain network.
        base: answers of the plain network to what it knows; (B, K, X, Y, Z).
        start: of the adapted one before training.
        tuned: after it, the learned structure's last.
        counted: (trained, total) as the adapter says.
        expected: the same counted by hand.
        reached: names of parameters that had gradients.
        folder: the saved adapter.
    """

    backbone: Backbone
    adapter: Adapter
    card: AdapterCard
    fresh: Callable[..., Backbone]
    ask: Callable[[Backbone, bool], torch.Tensor]
    new: tuple[str, ...]
    state: dict[str, torch.Tensor]
    base: torch.Tensor
    start: torch.Tensor
    tuned: torch.Tensor
    counted: tuple[int, int]
    expected: tuple[int, int]
    reached: set[str]
    folder: Path


@pytest.fixture(
    scope="module",
    params=[cell for cell in CELLS if goes(*cell)],
    ids=[f"{f}-{m}" for f, m in CELLS if goes(f, m)],
)
def life(request: pytest.FixtureRequest, models: Any, tmp_path_factory: pytest.TempPathFactory) -> Life:
    family, method = request.param
    plain = moved(models(MODELS[family]))
    # torch takes other kernels for frozen weights, which round differently
    plain.requires_grad_(method == "full")

    def fresh(seed: int = 0) -> Backbone:
        return moved(models(MODELS[family], seed)) if seed else copy.deepcopy(plain)

    new = ("tumour",) if plain.card.new_rows else ()
    shape = table.WINDOWS.get(family) or models.window(plain, MODELS[family])
    known, learned = prompts(models, plain, shape, new)
    x = 200 * torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))

    def decoded(backbone: Backbone, everything: bool) -> torch.Tensor:
        features = backbone.encode(x, models.affine[None])
        parts = [known, learned] if everything and learned else [known]
        return torch.cat([backbone.decode(features, part) for part in parts], dim=1)

    @torch.no_grad()
    def ask(backbone: Backbone, everything: bool = True) -> torch.Tensor:
        return decoded(backbone.eval(), everything)

    state = {key: value.clone() for key, value in plain.net.state_dict().items()}
    base = ask(plain, False)
    expected = table.COUNTS[method](plain), sum(p.numel() for p in plain.net.parameters())
    if new and method != "full":
        rows: Any = plain.net.get_submodule(plain.card.class_rows)
        expected = expected[0] + rows.embedding_dim, expected[1]

    backbone = fresh()
    added = backbone.add_structures(new) if new else {}
    torch.manual_seed(2)
    adapter = build(registry.resolve("adapter", method).Options(name=method))
    adapter.inject(backbone, added)
    start, counted = ask(backbone, False), adapter.parameters(backbone)
    reached = trained(backbone, lambda: (decoded(backbone, True) - 1).square().mean())
    tuned = ask(backbone)
    folder = tmp_path_factory.mktemp(f"{family}-{method}") / "adapter"
    card = AdapterCard.describe(backbone, new, ["pet"])
    for _ in range(2):  # the second time replaces the first
        adapter.save(folder, backbone, card)
    return Life(
        backbone,
        adapter,
        card,
        fresh,
        ask,
        new,
        state,
        base,
        start,
        tuned,
        counted,
        expected,
        reached,
        folder,
    )


def moved(backbone: Backbone) -> Backbone:
    """Branches that start at zero would hide what lies in them."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
            if re.search(table.PRESENCE, name):
                parameter.fill_(5.0)
    return backbone


def prompts(
    models: Any, plain: Backbone, shape: Any, new: tuple[str, ...]
) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts that together use all of the model, clicks of both signs; and those of what it has learned."""
    kinds, structures = plain.card.prompts, plain.card.structures
    known = next(iter(structures), "liver")
    found = [models.ask(kind, known, shape) for kind in ("auto", "box", "text") if kind in kinds]
    if "point" in kinds:
        # single clicks are ambiguous to models without classes
        found += [] if structures else [models.ask("point", known, shape)]
        special = [name for name, index in structures.items() if index in plain.card.special]
        for name in (known, *special[:1]):
            inside, outside = (models.ask("point", name, shape, shift).points[0] for shift in (0, 3))
            found.append(Prompt(name, "clicks", (inside, outside), (1, 0)))
    learned = [models.ask(kind, name, shape) for name in new for kind in ("auto", "point") if kind in kinds]
    return found, learned


def trained(backbone: Backbone, loss: Callable[[], torch.Tensor]) -> set[str]:
    """Two steps with weight decay and momentum, so that what can move does; names that had gradients."""
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if not parameters:
        return set()
    optimizer = torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)
    backbone.train()
    for _ in range(2):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    backbone.eval()
    return {name for name, p in backbone.named_parameters() if p.grad is not None}


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Bit for bit."""
    assert torch.equal(got, wanted), f"off by {float((got - wanted).abs().max())}"


def close(got: torch.Tensor, wanted: torch.Tensor, share: float) -> None:
    """Within a share of the largest number that is wanted."""
    assert float((got - wanted).abs().max()) <= share * float(wanted.abs().max())


def test_answers_at_the_start_are_the_bases(life: Life) -> None:
    close(life.start, life.base, 1e-6)


def test_as_many_numbers_train_as_the_method_says(life: Life) -> None:
    assert life.counted == life.expected
    assert (life.card.trainable, life.card.total) == life.expected


def test_gradients_go_where_they_are_promised_and_nowhere_else(life: Life) -> None:
    promised = {name for name, p in life.backbone.named_parameters() if p.requires_grad}
    assert life.reached <= promised
    if "targets" in life.adapter.needs:
        assert life.reached == promised
        check_gradients(life.backbone)
    # what no gradient reaches must play no part in the answers
    other = copy.deepcopy(life.backbone)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name in promised - life.reached and not re.search(table.CHOOSING, name):
                parameter.add_(torch.randn(parameter.shape))
    same(life.ask(other, True), life.tuned)


def test_training_changes_answers_and_switching_off_brings_the_bases_back(life: Life) -> None:
    assert torch.isfinite(life.tuned).all()
    assert torch.equal(life.tuned[:, : life.start.shape[1]], life.start) == (
        life.counted[0] == 0 or (life.adapter.method == "none")
    )
    with disable(life.backbone):
        same(life.ask(life.backbone, False), life.base)
        assert not any(life.backbone.knows(name) for name in life.new if life.backbone.card.class_rows)
    same(life.ask(life.backbone, True), life.tuned)


def test_taken_out_it_leaves_the_base_bit_for_bit(life: Life) -> None:
    backbone = copy.deepcopy(life.backbone)
    unload(backbone)
    after = backbone.net.state_dict()
    assert after.keys() == life.state.keys()
    assert [key for key in after if not torch.equal(after[key], life.state[key])] == []
    assert backbone.adapter is None
    close(life.ask(backbone, False), life.base, 1e-6)


def test_rows_of_known_classes_do_not_move(life: Life) -> None:
    if life.adapter.method in ("full", "prompt") or not life.new:
        pytest.skip("the method moves rows of classes, or the model has none to add")
    rows: Any = life.backbone.net.get_submodule(life.backbone.card.class_rows)
    row = life.card.new_structures["tumour"]
    with torch.no_grad():
        now = rows(torch.arange(rows.weight.shape[0]))
    before = life.state[f"{life.backbone.card.class_rows}.weight"]
    assert (now != before).any(dim=1).nonzero().flatten().tolist() == [row]


def test_saved_alone_and_loaded_it_answers_alike(life: Life) -> None:
    backbone = life.fresh()
    assert load_adapter(life.folder, backbone) == life.card
    same(life.ask(backbone, True), life.tuned)
    assert backbone.adapter.parameters(backbone) == life.counted
    size = sum(path.stat().st_size for path in life.folder.rglob("*.safetensors"))
    # numbers of 4 bytes, and at most 160 bytes of name and place a tensor
    assert size <= 4 * life.counted[0] + 160 * (len(life.reached) + 2) + 4 * len(life.state) * 40


def test_plain_peft_reads_the_folder(life: Life) -> None:
    if life.adapter.method not in table.PEFT:
        pytest.skip("not a method of peft's")
    from peft import PeftModel

    backbone = life.fresh()
    if life.new:
        backbone.add_structures(life.new)
    backbone.net = PeftModel.from_pretrained(backbone.net, str(life.folder))
    # peft's configuration of (IA)^3 has no word for class rows
    everything = life.adapter.method != "ia3"
    wanted = life.tuned if everything else life.tuned[:, : life.base.shape[1]]
    close(life.ask(backbone.eval(), everything), wanted, 1e-5)


def test_another_base_is_refused_naming_both(life: Life) -> None:
    other = life.fresh(seed=1)
    before = life.ask(other, False)
    with pytest.raises(UserError) as caught:
        load_adapter(life.folder, other)
    assert str(life.backbone.state_sha256) in str(caught.value)
    assert str(other.state_sha256) in str(caught.value)
    same(life.ask(other, False), before)


def test_folded_it_answers_alike_and_unfolded_it_is_the_same_again(life: Life) -> None:
    backbone = life.fresh()
    load_adapter(life.folder, backbone)
    if why := getattr(life.adapter, "why_not_merged", ""):
        with pytest.raises(UserError, match=why):
            merge(backbone)
        same(life.ask(backbone, True), life.tuned)
        return
    with merged(backbone):
        assert backbone.net.state_dict().keys() == life.state.keys()
        close(life.ask(backbone, True), life.tuned, 1e-4)
    same(life.ask(backbone, True), life.tuned)
    assert backbone.adapter.parameters(backbone) == life.counted

    merge(backbone)
    close(life.ask(backbone, True), life.tuned, 1e-4)
    assert backbone.net.state_dict().keys() == life.state.keys()
    assert backbone.adapter is None
    assert not any(p.requires_grad for p in backbone.parameters())
    # folded weights are another base: what is trained on them must not load onto the old ones
    assert (backbone.state_sha256 == life.backbone.state_sha256) == (life.counted[0] == 0)


def test_a_second_adapter_stands_on_a_folded_one(life: Life) -> None:
    if getattr(life.adapter, "why_not_merged", ""):
        pytest.skip("it cannot be folded")
    backbone = life.fresh()
    load_adapter(life.folder, backbone)
    merge(backbone)
    folded = life.ask(backbone, True)
    build(registry.resolve("adapter", life.adapter.method).Options(name=life.adapter.method)).inject(
        backbone, life.card.new_structures
    )
    close(life.ask(backbone, True), folded, 1e-6)
    shaken(backbone, 3)
    with disable(backbone):
        # full tuning leaves its weights free, for which torch takes other kernels
        close(life.ask(backbone, False), folded[:, : life.base.shape[1]], 1e-6)


def test_two_adapters_of_one_model_do_not_touch_each_other(life: Life, tmp_path: Path) -> None:
    options = registry.resolve("adapter", life.adapter.method).Options
    if life.adapter.method in ("full", "none"):
        pytest.skip("one model each, or nothing to train")
    backbone = life.fresh()
    added = backbone.add_structures(life.new) if life.new else {}
    adapter = build(options(name=life.adapter.method, per="modality"))
    adapter.inject(backbone, added, ["pet", "mr"])
    assert adapter.parameters(backbone)[0] == 2 * life.counted[0]
    shaken(backbone, 3)

    def answer(of: Backbone, modality: str) -> torch.Tensor:
        with of.routed(modality):
            return life.ask(of, modality != "ct")

    found = {name: answer(backbone, name) for name in ("pet", "mr", "ct")}
    assert not torch.equal(found["pet"], found["mr"])
    same(found["ct"], life.base)
    adapter.save(tmp_path / "a", backbone, AdapterCard.describe(backbone, life.new, ["pet", "mr"]))
    other = life.fresh()
    load_adapter(tmp_path / "a", other)
    assert all(torch.equal(answer(other, name), wanted) for name, wanted in found.items())
    if not getattr(adapter, "why_not_merged", ""):
        merge(other, "mr")
        close(life.ask(other, True), found["mr"], 1e-4)


def shaken(backbone: Backbone, seed: int) -> None:
    """Every trained tensor moved, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_damaged_weights_are_refused_by_name(life: Life, tmp_path: Path) -> None:
    if life.adapter.method not in ("lora", "lora_conv", "head", "full") or not life.new:
        pytest.skip("each way of saving once")
    life.adapter.save(tmp_path / "a", life.backbone, life.card)
    (file,) = (tmp_path / "a").glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[: math.ceil(len(content) / 2)])
    with pytest.raises(UserError, match=file.name):
        load_adapter(tmp_path / "a", life.fresh())
    file.unlink()
    with pytest.raises(UserError, match=file.name):
        load_adapter(tmp_path / "a", life.fresh())


@pytest.mark.parametrize(("family", "method"), [cell for cell in CELLS if not goes(*cell)])
def test_what_a_method_does_not_go_with_it_refuses_with_the_reason(
    models: Any, family: str, method: str
) -> None:
    backbone = models(MODELS[family])
    reason = applicable(method, backbone)
    assert reason in REASONS.values()
    with pytest.raises(UserError, match=reason) as caught:
        build(registry.resolve("adapter", method).Options(name=method)).inject(backbone)
    assert "lora" in str(caught.value)
    assert backbone.adapter is None


def test_models_of_finished_masks_take_no_adapter_at_all(models: Any) -> None:
    backbone = models("nninteractive")
    for method in METHODS:
        assert (applicable(method, backbone) == "") == (method == "none")
    with pytest.raises(UserError, match="finished masks"):
        build(registry.resolve("adapter", "lora").Options(name="lora")).inject(backbone)
