"""Every registered component has its YAML, every YAML its component, and their names and options agree."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from umdseg import registry
from umdseg.backbones import ModelOptions

CONF = Path(__file__).resolve().parents[2] / "conf"
# a prompt section names kinds, so it may also ask for several
KINDS = ("model", "adapter", "fusion", "data")


def read(kind: str, name: str) -> dict[str, Any]:
    values = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_registry_and_configuration_know_the_same_names(kind: str) -> None:
    assert sorted(path.stem for path in (CONF / kind).glob("*.yaml")) == registry.names(kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in registry.names(kind)])
def test_a_file_names_its_component_and_only_options_it_takes(kind: str, name: str) -> None:
    values = read(kind, name)
    options = getattr(registry.resolve(kind, name), "Options", ModelOptions)
    assert values["name"] == name
    assert set(values) <= {option.name for option in fields(options)}


@pytest.mark.parametrize("name", registry.names("prompt"))
def test_every_prompt_can_be_chosen_alone(name: str) -> None:
    assert read("prompt", name)["kinds"] == [name]


def test_prompt_files_ask_for_registered_prompts() -> None:
    for path in (CONF / "prompt").glob("*.yaml"):
        assert set(read("prompt", path.stem)["kinds"]) <= set(registry.names("prompt")), path.stem
