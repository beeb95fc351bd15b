"""Recipes go with every method: what a method has no use for is dropped with a line, what is typed is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from umdseg.adapters.matrix import applicable
from umdseg.config.check import ConfigError, check, examine
from umdseg.config.compose import conf_dir, hydra_session
from umdseg.config.sweep import plan
from umdseg.registry import names, resolve
from umdseg.runs import door

RECIPES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
METHODS = names("adapter")


def read(group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    return found


def asked(recipe: str) -> dict[str, Any]:
    """The adapter options in a recipe's file and in those that it starts from."""
    content = read("experiment", recipe)
    starts = [name for name in content.get("defaults", []) if isinstance(name, str) and name != "_self_"]
    return {key: v for name in starts for key, v in asked(name).items()} | content.get("adapter", {})


def useless(recipe: str, method: str) -> set[str]:
    """What of a recipe the method's own file does not have; the plain model has nothing to route."""
    own = set(read("adapter", method)) | ({"targets"} if method == "full" else set())
    wanted = {key for key, value in asked(recipe).items() if key not in own}
    return wanted | ({"per"} if method == "none" and asked(recipe).get("per") else set())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_goes_with_every_method(recipe: str) -> None:
    with hydra_session():
        for method in METHODS:
            outcome = examine("train", [f"experiment={recipe}", f"adapter={method}"])
            settings = outcome.settings
            assert settings is not None, (method, outcome.problems)
            assert not [p for p in outcome.problems if p.path.startswith("adapter.")], method
            # a method the model has nothing for, or no pretraining: that is what the user asked for
            card = resolve("model", settings.model.name).listing().card
            refused = applicable(method, card, targets=getattr(settings.adapter, "targets", None)) != ""
            refused |= settings.run.task == "pretrain" and method != "full"
            assert ("adapter" in {p.path for p in outcome.problems}) == refused, method
            dropped = useless(recipe, method)
            for key, value in asked(recipe).items():
                if key not in dropped:
                    assert getattr(settings.adapter, key) == value, (method, key)
            if "per" in dropped:
                assert getattr(settings.adapter, "per", None) is None, method
            told = {part for line in settings.notices for part in line.split() if part.startswith("adapter.")}
            assert told == {f"adapter.{key}" for key in dropped}, method
            assert len(settings.notices) == bool(dropped)


def test_the_line_names_recipe_options_and_method(capfd: pytest.CaptureFixture[str]) -> None:
    assert door.main("train", ["experiment=few_shot_5", "adapter=full", "--cfg", "job"]) == 0
    out, err = capfd.readouterr()
    dropped = "adapter.rank and adapter.per dropped"
    assert err == f"experiment=few_shot_5: {dropped}, which adapter 'full' has no use for\n"
    assert yaml.safe_load(out)["adapter"] == {"name": "full", "path": None, "targets": None}
    assert door.main("train", ["experiment=few_shot_5", "--cfg", "job"]) == 0
    assert capfd.readouterr().err == ""


def test_what_the_user_types_stays_or_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", ["experiment=few_shot_5", "adapter=bottleneck", "adapter.rank=4"])
    assert [problem.path for problem in caught.value.problems] == ["adapter.rank"]
    with pytest.raises(ConfigError) as caught:
        check("train", ["experiment=few_shot_5", "adapter=full", "adapter.per=modality"])
    assert [problem.path for problem in caught.value.problems] == ["adapter.per"]
    # rows of learned structures can be routed without an adapter, where that is asked for
    settings = check("train", ["experiment=few_shot_5", "adapter=none", "adapter.per=modality"])
    assert getattr(settings.adapter, "per") == "modality"  # noqa: B009
    (line,) = settings.notices
    assert line == "experiment=few_shot_5: adapter.rank dropped, which adapter 'none' has no use for"


def test_mistakes_in_files_of_ones_own_stay_mistakes(tmp_path: Path) -> None:
    files = {
        "experiment/typo": "# @package _global_\nadapter: {rnak: 4}\n",
        "experiment/mine": "# @package _global_\nadapter: {rank: 4}\n",
        "adapter/wide": "name: full\nrank: 8\n",
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for overrides, path in (
        (["experiment=typo"], "adapter.rnak"),
        (["experiment=typo", "adapter=full"], "adapter.rnak"),
        (["adapter=wide"], "adapter.rank"),
        (["experiment=mine", "adapter=wide"], "adapter.rank"),
    ):
        with pytest.raises(ConfigError) as caught:
            check("train", overrides, [str(tmp_path)])
        assert [problem.path for problem in caught.value.problems] == [path]
    assert check("train", ["experiment=mine", "adapter=ia3"], [str(tmp_path)]).adapter.name == "ia3"


def test_one_method_does_not_refuse_the_sweep() -> None:
    sweep = plan("train", ["experiment=few_shot_5", "adapter=lora,bottleneck,full", "seed=0,1"])
    got = [
        (s.adapter.name, getattr(s.adapter, "rank", None), getattr(s.adapter, "per", None), s.run.seed)
        for s in (job.settings for job in sweep.jobs)
        if s
    ]
    assert got == [
        *(("lora", 4, "modality", seed) for seed in (0, 1)),
        *(("bottleneck", None, "modality", seed) for seed in (0, 1)),
        *(("full", None, None, seed) for seed in (0, 1)),
    ]
    start = "experiment=few_shot_5: adapter.rank"
    assert sweep.notices == [
        f"{start} dropped, which adapter 'bottleneck' has no use for",
        f"{start} and adapter.per dropped, which adapter 'full' has no use for",
    ]
    # typed options are dropped job by job, as without a recipe; the recipe's goes with them
    sweep = plan("train", ["experiment=few_shot_5", "adapter=lora,full", "adapter.rank=2,8"])
    assert [getattr(j.settings.adapter, "rank", None) for j in sweep.jobs if j.settings] == [2, 8, None]
    assert any("adapter=full: has no adapter.rank, dropped" in line for line in sweep.notices)
    assert sweep.notices[-1] == "1 duplicate job collapsed"
