"""Every registered model at reduced size, as the battery asks for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from umdseg import registry
from umdseg.backbones import Backbone, load_backbone
from umdseg.vocabulary import Contour, Prompt, PromptKind

# tests are no package: the table beside this file is loaded by its path
_spec = importlib.util.spec_from_file_location("models_table", Path(__file__).with_name("models_table.py"))
assert _spec is not None
assert _spec.loader is not None
table = sys.modules["models_table"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

# a place in the body, so that nothing rests on voxel 0 being at 0 mm
AFFINE = torch.tensor([[2.0, 0, 0, -31], [0, 3.0, 0, 17], [0, 0, 4.0, -203], [0, 0, 0, 1]]).double()


class Models:
    """Builds reduced models and asks them."""

    affine = AFFINE
    channels, several = table.CHANNELS, table.SEVERAL

    def __init__(self, root: Callable[[str], Path]) -> None:
        self._root = root

    @contextmanager
    def shrunk(self, name: str) -> Iterator[dict[str, object]]:
        """Inside the block models of the family are narrow; gives the model's further options."""
        row = table.family(name)
        with pytest.MonkeyPatch.context() as patch:
            row.shrink(patch)
            yield row.options(name, self._root(name))

    def __call__(self, name: str, seed: int = 0) -> Backbone:
        """The model with random weights."""
        with self.shrunk(name) as options:
            torch.manual_seed(seed)
            return load_backbone(name, "random", **options)

    def window(self, backbone: Backbone, name: str) -> tuple[int, int, int]:
        """Voxels of a test window."""
        d = max(backbone.card.divisor, 8)
        shape: tuple[int, int, int] = table.family(name).window or (d, d, 2 * d)
        return shape

    def ask(self, kind: PromptKind, structure: str, shape: tuple[int, int, int], shift: int = 0) -> Prompt:
        """A prompt near the middle of a window at `affine`, in millimetres; `shift` moves it by voxels."""
        middle = torch.tensor([n // 2 + shift for n in shape], dtype=torch.float64)
        x, y, z = (AFFINE[:3, :3] @ middle + AFFINE[:3, 3]).tolist()
        if kind in ("auto", "text"):
            return Prompt(structure, kind, text=structure if kind == "text" else None)
        if kind == "box":
            return Prompt(structure, kind, box=((x - 9, y - 9, z - 5), (x + 9, y + 9, z + 5)))
        if kind in ("lasso", "scribble"):
            line = ((x - 9, y - 9, z), (x + 9, y - 9, z), (x, y + 9, z))
            return Prompt(structure, kind, contours=(Contour(line, closed=kind == "lasso"),))
        return Prompt(structure, kind, ((x, y, z),), (1,))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(lambda name: tmp_path_factory.mktemp(name))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All models where cards are looked at; where networks run, those that no other one stands for."""
    # the batteries of other components have a `name` of their own
    if "name" not in metafunc.fixturenames or "models" not in metafunc.fixturenames:
        return
    chosen = registry.names("model")
    if {"backbone", "axes"} & set(metafunc.fixturenames):
        chosen = [one for one in chosen if one not in table.TWINS]
    if "axes" in metafunc.fixturenames:
        chosen = [one for one in chosen if takes_positions(one)]
    metafunc.parametrize("name", chosen, scope="module")


def takes_positions(name: str) -> bool:
    """Whether the model takes clicks or boxes."""
    return bool({"point", "box"} & set(registry.resolve("model", name).listing().prompts))


@pytest.fixture(scope="module")
def plain(models: Models, name: str) -> Backbone:
    """One model for all tests of a file; who changes it puts it back."""
    return models(name)


@pytest.fixture
def structures(plain: Backbone) -> Iterator[list[str]]:
    """Two structures the model can be asked for; those without classes of their own learn them."""
    known = list(plain.card.structures)[:2]
    if not known and "auto" in plain.card.prompts:
        plain.add_structures(["liver", "spleen"])
    yield known or ["liver", "spleen"]
    if plain.new_structures:
        plain.forget_structures()


@pytest.fixture
def backbone(plain: Backbone, structures: list[str]) -> Backbone:
    return plain
