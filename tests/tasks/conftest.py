"""Models at reduced size, from the table of the contract tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones import Backbone

# test folders are no packages
_PATH = Path(__file__).parents[1] / "contracts" / "models_table.py"


@pytest.fixture(scope="session")
def table() -> ModuleType:
    """`models_table.py`."""
    spec = importlib.util.spec_from_file_location("tasks_models_table", _PATH)
    assert spec is not None
    assert spec.loader is not None
    # dataclasses look their module up
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def narrow(table: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Backbone]:
    """Makes a registered model, narrow and with random weights."""

    def made(name: str) -> Backbone:
        row = table.family(name)
        row.shrink(monkeypatch)
        torch.manual_seed(0)
        return load_backbone(name, "random", **row.options(name, tmp_path))

    return made
