"""Every mistake in a configuration is named with path, expectation and nearest name, before building."""

from __future__ import annotations

from pathlib import Path

import pytest

from umdseg.config.check import ConfigError, check
from umdseg.config.sweep import plan
from umdseg.registry import names

# overrides, config path named, words of the message, nearest name
MISTAKES = [
    (["model=vista3f"], "model", "vista3d, vista3d_tiny", "vista3d"),
    (["trainer=gpuu"], "trainer", "cpu, ddp, gpu", "gpu"),
    (["experiment=dmo"], "experiment", "demo", "demo"),
    (["debug=fas"], "debug", "fast", "fast"),
    (["adapter=lroa"], "adapter", "head, ia3, lora", "lora"),
    (["adapter.rnak=4"], "adapter.rnak", "rank", "adapter.rank"),
    (["+adapter.rnak=4"], "adapter.rnak", "rank", "adapter.rank"),
    (["fit.stps=4"], "fit.stps", "steps", "fit.steps"),
    (["logger.wandb.mod=online"], "logger.wandb.mod", "mode", "logger.wandb.mode"),
    (["logger.wandb.mode=onlin"], "logger.wandb.mode", "offline, online", "online"),
    (["modle=vista3d"], "modle", "model", "model"),
    (["model.name=vista3"], "model.name", "vista3d_tiny", "vista3d"),
    (["fit.steps=abc"], "fit.steps", "int", None),
    (["fit.steps=1.5"], "fit.steps", "int", None),
    (["fit.lr=fast"], "fit.lr", "float", None),
    (["fit=3"], "fit", "a section", None),
    (["tags=one"], "tags", "list of str", None),
    (["save_predictions=3"], "save_predictions", "true or false", None),
    (["data.train_modalities={pet:x}"], "data.train_modalities", "table of str to float", None),
    (["evaluation.metrics=[dicee]"], "evaluation.metrics", "dice", "dice"),
    (["evaluation.baselines=[intensty]"], "evaluation.baselines", "intensity", "intensity"),
    (["prompt.kinds=[auto,piont]"], "prompt.kinds", "box, lasso, point", "point"),
    (["data.modalities=[ct,pte]"], "data.modalities", "ct, pet, mr", "pet"),
    (["data.modalities=[CT]"], "data.modalities", "ct, pet, mr", "ct"),
    (["adapter.rank=0"], "adapter.rank", "at least 1", None),
    (["adapter=bottleneck", "adapter.reduction=0"], "adapter.reduction", "at least 1", None),
    (["adapter=depth", "adapter.kind=cnov"], "adapter.kind", "conv, attention", "conv"),
    (["data.cache_gb=-1"], "data.cache_gb", "at least 0", None),
    (["data.paired=true"], "data.paired", "a fusion", None),
    (["model.window=[30,32,32]"], "model.window", "multiples of 8", None),
    (["model.window=[32,32]"], "model.window", "list of 3 int or null", None),
    (["model=unet", "model.window=[32,32]"], "model.window", "list of 3 int", None),
    (["model=sam_med3d_turbo", "prompt=point", "model.window=[64,64,64]"], "model.window", "no other", None),
    (["evaluation.label=petct"], "evaluation.label", "own, ct, pet, mr", "pet"),
    (["fit.lr=0"], "fit.lr", "above 0", None),
    (["fit.lr=nan"], "fit.lr", "above 0", None),
    (["fusion=late", "fusion.lr=nan"], "fusion.lr", "above 0", None),
    (["data.augmentation={pet_noise: nan}"], "data.augmentation.pet_noise", "0 (off) or more", None),
    (["adapter.dropout=1"], "adapter.dropout", "at least 0, below 1", None),
    (["fit.point_share=1.5"], "fit.point_share", "at most 1", None),
    (["fit.validate_every=201"], "fit.validate_every", "at most fit.steps (200)", None),
    (["debug=fast", "fit.validate_every=3"], "fit.validate_every", "at most fit.steps (2)", None),
    (["fit.export_weights=x.pth"], "fit.export_weights", ".safetensors", "x.safetensors"),
    (["fit.export_weights=."], "fit.export_weights", ".safetensors", None),
    (["seed=-1"], "seed", "at least 0", None),
    (["trainer.devices=0"], "trainer.devices", "positive", None),
    (["resume=always"], "resume", "auto, never", None),
    (["adapter.rank=4,8"], "adapter.rank", "add -m", None),
    (["adapter=full", "adapter.rank=4"], "adapter.rank", "one of name, path", None),
    (["fit.lr=${nowhere}"], "fit.lr", "", None),
    (["just_words"], "command line", "key=value", None),
    (["fit.steps=[1,"], "command line", "key=value", None),
    (["data=petmri"], "data.manifest", "subject,modality,image,label", None),
    (["data=sts"], "data.root", "", None),
    (["adapter.path=somewhere"], "adapter.path", "evaluate.py", None),
    (["task=pretrain"], "model.weights", "random", None),
    (["task=evaluate"], "task", "train or pretrain", None),
    (["prompt.clicks=2"], "prompt.clicks", "kinds", None),
    (["ckpt_path=nowhere.ckpt"], "ckpt_path", "a file that exists", None),
    (["adapter.targets='image_encoder.(a'"], "adapter.targets", "regular expression", None),
    (["trainer.strategy=dpd"], "trainer.strategy", "auto, ddp", "ddp"),
    (["trainer.precision=64-true", "trainer.strategy=fsdp"], "trainer", "fit together", None),
    (["name=a/b"], "name", "a name without", None),
    (["name=..\\b"], "name", "a name without", None),
    (["name=x..y"], "name", "a name without", None),
]
# the same at the door that scores
EVALUATE = [
    (["adapter=lora"], "adapter", "adapter.path=RUN/adapter"),
    (["task=train"], "task", "evaluate"),
    (["task=pretrain", "model.weights=random", "adapter=full"], "task", "evaluate"),
]


@pytest.mark.parametrize(("overrides", "path", "words", "near"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistake_is_named(overrides: list[str], path: str, words: str, near: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", overrides)
    problems = {problem.path: problem for problem in caught.value.problems}
    assert path in problems, str(caught.value)
    assert words in problems[path].expected
    if near:
        assert problems[path].nearest == near
        assert f"did you mean: {near}" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "prompt.kinds=[auto,auto]",
        "evaluation.metrics=[nsd,dice,nsd]",
        "evaluation.baselines=[intensity,intensity]",
    ],
)
def test_a_list_that_names_something_twice_has_one_mistake(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("train", [given])
    (problem,) = caught.value.problems
    path, _, names = given.partition("=")
    assert (problem.path, problem.expected) == (path, "every name once")
    assert problem.given == f"'{names.strip('[]').split(',')[0]}' named twice"


def test_recipes_that_validate_go_with_the_shortest_run(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    recipe = "# @package _global_\nfit: {steps: 100, validate_every: 50, early_stop: 2}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(recipe)
    asked = check("train", ["experiment=mine"], [str(tmp_path)]).fit
    assert (asked.steps, asked.validate_every, asked.early_stop) == (100, 50, 2)
    short = check("train", ["experiment=mine", "debug=fast"], [str(tmp_path)]).fit
    assert (short.steps, short.validate_every, short.early_stop) == (2, 0, None)
    assert check("train", ["fit.steps=50", "fit.validate_every=50"]).fit.validate_every == 50
    # nothing is fitted, so nothing is missed
    assert check("train", ["fit.steps=0", "fit.validate_every=50"]).fit.steps == 0


@pytest.mark.parametrize(("overrides", "path", "words"), EVALUATE, ids=lambda value: str(value)[:40])
def test_mistake_of_an_evaluation_is_named(overrides: list[str], path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("evaluate", overrides)
    assert words in {problem.path: problem for problem in caught.value.problems}[path].expected
    assert check("evaluate", ["adapter=lora", "adapter.path=somewhere"]).adapter.name == "lora"


@pytest.mark.parametrize("key", ["runs_dir", "data.cache_dir", "fit.export_weights"])
def test_places_that_cannot_be_written_are_named_and_nothing_is_made(key: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        check("train", [f"{key}={tmp_path}/file/deep/x.safetensors"])
    assert [problem.path for problem in caught.value.problems] == [key]
    check("train", [f"{key}={tmp_path}/new/deep/x.safetensors"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_config_dir_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nfit:\n  steps: 7\n")
    given = check("train", ["experiment=mine"], [str(tmp_path)])
    assert given.fit.steps == 7
    assert given.search == (str(tmp_path),)
    for refused in (check, plan):
        with pytest.raises(ConfigError, match="--config-dir"):
            refused("train", [], [str(tmp_path / "missing")])


def test_table_on_the_command_line_replaces_the_one_in_the_files() -> None:
    experiment = "experiment=pretrain_tiny_ct"
    merged = check("train", [experiment]).data.train_modalities
    assert merged == {"ct": 1, "pet": 0, "mr": 0}
    assert check("train", [experiment, "data.train_modalities={pet:2}"]).data.train_modalities == {"pet": 2}
    petct = ["data=petct", "data.manifest=x.csv"]
    assert check("train", petct).data.train_modalities == {"ct": 1, "pet": 1}
    assert check("train", [*petct, "data.train_modalities={pet:1}"]).data.train_modalities == {"pet": 1}
    # a section is no table: what is not named stays
    assert check("train", ["fit={steps: 3}"]).fit.point_share == check("train", []).fit.point_share


def test_learning_rate_is_the_adapters_unless_given() -> None:
    rates = {name: check("train", [f"adapter={name}"]).fit.lr for name in ("lora", "none", "full")}
    assert rates == {"lora": 2e-3, "none": 2e-3, "full": 2e-4}
    assert check("train", ["adapter=full", "fit.lr=0.01"]).fit.lr == 0.01


def test_runs_dir_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check("train", ["runs_dir='~/mine'"]).runs_dir == tmp_path / "mine"
    assert check("train", []).runs_dir == Path.cwd() / "runs"


def test_all_mistakes_at_once() -> None:
    overrides = [
        "model=vista3f",
        "adapter.rnak=4",
        "fit.steps=abc",
        "trainer=gpuu",
        "evaluation.metrics=[dicee]",
        "x",
    ]
    with pytest.raises(ConfigError) as caught:
        check("train", overrides)
    named = {problem.path for problem in caught.value.problems}
    assert named == {"model", "adapter.rnak", "fit.steps", "trainer", "evaluation.metrics", "command line"}
    assert "6 mistakes" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 40, "one screen"


@pytest.mark.parametrize("door", ["train", "evaluate"])
def test_defaults(door: str) -> None:
    settings = check(door, [])
    assert settings.run.task == door
    assert (settings.model.name, settings.data.name) == ("vista3d_tiny", "phantom")
    assert settings.adapter.name == ("lora" if door == "train" else "none")
    assert settings.logger.wandb.mode == "offline"


def test_every_committed_choice_passes() -> None:
    from umdseg.config.compose import conf_dir, groups

    needs = dict.fromkeys(set(names("data")) - {"phantom"}, "data.root=x")
    needs |= dict.fromkeys(("petct", "petmri"), "data.manifest=x.csv")
    needs |= {f"sts_adapters{kind}": "data.root=x" for kind in ("", "_fused", "_unet")}
    for group in groups():
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            extra = [needs[path.stem]] if path.stem in needs else []
            if path.stem == "torch_module":
                extra = ["model.module=nets:Net", "model.card=card.yaml"]
            extra += ["trainer.accelerator=cpu"] if group == "trainer" else []
            # it takes two scans at once, which no adapter is trained on
            extra += ["adapter=none"] if path.stem == "lesiontracer" else []
            # between slices, so for models that see them one by one
            extra += ["model=sam_vit_b", "prompt=point"] if path.stem == "depth" else []
            settings = check("train", [f"{group}={path.stem}", *extra])
            if group in ("model", "adapter", "data"):
                assert getattr(settings, group).name == path.stem


def test_command_line_wins_over_debug_over_experiment() -> None:
    settings = check("train", ["experiment=demo", "debug=fast"])
    fast = settings.fit.steps
    assert settings.run.name == "demo"
    assert fast < check("train", ["experiment=demo"]).fit.steps
    assert check("train", ["experiment=demo", "debug=fast", f"fit.steps={fast + 5}"]).fit.steps == fast + 5


def test_options_missing_in_yaml_need_no_plus() -> None:
    assert check("train", ["fit.structures_per_step=3"]).fit.structures_per_step == 3
    assert check("train", ["data.shots=2"]).data.shots == 2


def test_hydra_state_is_put_back() -> None:
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    check("train", [])
    assert GlobalHydra.instance().hydra is before
