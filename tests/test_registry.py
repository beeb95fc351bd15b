from __future__ import annotations

import importlib.metadata
import sys
import types

import pytest

from umdseg import registry
from umdseg.errors import UserError


def _outside(monkeypatch, kind, **points):
    """Pretend an installed package offers components under `umdseg.<kind>`."""
    found = [importlib.metadata.EntryPoint(name, value, f"umdseg.{kind}") for name, value in points.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in found if p.group == group])


def _module(monkeypatch, name, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("kind", ["model", "adapter", "fusion", "data", "prompt"])
def test_every_registered_name_resolves_to_a_factory(kind):
    for name in registry.names(kind):
        assert callable(registry.resolve(kind, name))


def test_the_defaults_of_the_design_are_registered():
    assert "vista3d_tiny" in registry.names("model")
    assert "phantom" in registry.names("data")
    assert "lora" in registry.names("adapter")


def test_unknown_names_raise_with_the_nearest():
    with pytest.raises(UserError) as caught:
        registry.resolve("adapter", "lorra")
    assert caught.value.nearest == "lora"


def test_unknown_kinds_raise_with_the_nearest():
    with pytest.raises(UserError) as caught:
        registry.resolve("adaptor", "lora")
    assert caught.value.nearest == "adapter"


def test_a_component_from_outside_is_listed_and_resolved(monkeypatch):
    factory = object()
    _module(monkeypatch, "outside_package", Factory=factory)
    _outside(monkeypatch, "model", theirs="outside_package:Factory")
    assert "theirs" in registry.names("model")
    assert "theirs" not in registry.names("adapter")
    assert registry.resolve("model", "theirs") is factory


def test_a_missing_package_is_named(monkeypatch):
    _outside(monkeypatch, "model", absent="package_that_is_not_there.inner:Factory")
    with pytest.raises(UserError, match="pip install package_that_is_not_there"):
        registry.resolve("model", "absent")


def test_a_missing_module_of_our_own_is_no_package_to_install(monkeypatch):
    _outside(monkeypatch, "model", gone="umdseg.backbones.not_there:factory")
    with pytest.raises(ModuleNotFoundError, match=r"umdseg\.backbones\.not_there"):
        registry.resolve("model", "gone")
