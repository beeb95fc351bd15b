"""The house rules a linter cannot hold: import order, file length, light imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "umdseg").rglob("*.py"))


def test_rooms_import_only_from_rooms_before_them():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(module):
    lines = module.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300, f"{len(lines)} lines; split it by role"


@pytest.mark.parametrize("module", ["umdseg", "umdseg.errors", "umdseg.anatomy", "umdseg.registry"])
def test_importing_the_ground_floor_is_light(module):
    heavy = ["torch", "monai", "matplotlib", "lightning", "pandas", "transformers", "peft", "wandb", "hydra"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torchvision_is_neither_installed_for_us_nor_imported():
    # a torchvision built for another torch breaks half of the packages above it
    metadata = (ROOT / "pyproject.toml").read_text() + (ROOT / "constraints.txt").read_text()
    assert "\ntorchvision" not in metadata
    assert '"torchvision>' not in metadata
    assert [m for m in MODULES if "import torchvision" in m.read_text(encoding="utf-8")] == []


def test_the_package_finds_its_own_table_from_anywhere(tmp_path):
    code = "from umdseg import anatomy; print(anatomy.ids('vista3d')['liver'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
