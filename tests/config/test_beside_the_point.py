"""What is typed takes effect, or is refused or told: nothing is passed over in silence."""

from __future__ import annotations

import pytest

from umdseg.config.check import ConfigError, check
from umdseg.config.sweep import plan


def refused(door: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(door, overrides)
    return str(caught.value)


def test_one_entry_of_a_table_changes_that_entry() -> None:
    one = check("train", ["data.train_modalities.ct=3"]).data
    assert one.train_modalities == {"ct": 3, "pet": 1, "mr": 1}
    # a recipe's table, and a whole one
    recipe = check("train", ["experiment=modality_routed", "data.train_modalities.ct=2"]).data
    assert recipe.train_modalities == {"ct": 2, "pet": 1, "mr": 1}
    assert check("train", ["data.train_modalities={ct:3}"]).data.train_modalities == {"ct": 3}
    both = check("train", ["data.train_modalities={pet:2}", "data.train_modalities.ct=1"]).data
    assert both.train_modalities == {"pet": 2, "ct": 1}


def test_the_prompt_that_is_asked_for_is_used_in_a_quick_run() -> None:
    assert check("train", ["debug=fast", "prompt=point"]).prompt.kinds == ["point"]
    assert check("train", ["debug=fast"]).prompt.kinds == check("train", []).prompt.kinds


@pytest.mark.parametrize("group", ["adapter=[lora,full]", "prompt=[auto,point]", "data=[petct,phantom]"])
def test_several_choices_of_a_group_are_a_sweep(group: str) -> None:
    name, values = group.split("=")
    assert f"-m {name}={values.strip('[]')}" in refused("train", group)


def test_options_of_a_fusion_want_a_fusion() -> None:
    assert "fusion.dropout" in refused("train", "fusion.dropout=0.5")
    assert check("train", ["fusion=gated", "fusion.dropout=0.5"]).fusion.dropout == 0.5


def test_a_sweep_over_fusions_drops_them_where_there_is_none() -> None:
    sweep = plan("train", ["fusion=none,gated", "fusion.dropout=0.1,0.5"])
    found = [(job.settings.fusion.name, job.settings.fusion.dropout) for job in sweep.jobs if job.settings]
    assert sorted(found)[:2] == [("gated", 0.1), ("gated", 0.5)]
    assert len(found) == 3


def test_evaluate_takes_no_checkpoint_and_says_what_it_does_not_read() -> None:
    assert "adapter.path=RUN/adapter" in refused("evaluate", "ckpt_path=last.ckpt")
    assert "overfit" in refused("evaluate", "overfit=true")
    settings = check("evaluate", ["fit.steps=5", "trainer.devices=2"])
    assert any("fit.steps" in line for line in settings.notices)
    assert any("one device" in line for line in settings.notices)
    assert not check("evaluate", ["trainer.devices=auto"]).notices


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["fit.copy_parts={a: b}"], "task=pretrain"),
        (["fit.export_weights=w.safetensors", "fit.steps=0"], "steps"),
        (["fit.export_weights=w.safetensors", "adapter=bottleneck"], "cannot be folded"),
    ],
)
def test_what_would_fail_after_training_is_refused_before(given: list[str], word: str) -> None:
    assert word in refused("train", *given)
    check("train", ["fit.export_weights=w.safetensors", "adapter=lora"])
