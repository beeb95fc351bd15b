"""Shared by all tests: real data or a visible skip, one thread per worker, a private cache."""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

# before anything imports these packages: no network, no windows, no accounts
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: files go to workers one by one, and a long one at the end leaves the others idle."""
    items.sort(key=lambda item: "/tests/runs/" not in item.path.as_posix())


@pytest.fixture(autouse=True, scope="session")
def _session(tmp_path_factory):
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMDSEG_CACHE", str(tmp_path_factory.mktemp("umdseg-cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout (../shared/data)."""
    return _folder(SHARED / "data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Published facts beside the checkout (../shared/reference)."""
    return _folder(SHARED / "reference")


@pytest.fixture(scope="session")
def dicom() -> ModuleType:
    """The writer of synthetic DICOM series, tests/data/io/dicom/writer.py."""
    return _helper("data/io/dicom/writer.py")


@pytest.fixture(scope="session")
def dicom_labels() -> ModuleType:
    """The writer of RTSTRUCT and DICOM-SEG, tests/data/io/dicom/label_writer.py."""
    return _helper("data/io/dicom/label_writer.py")


@pytest.fixture(scope="session")
def run_folders() -> ModuleType:
    """The writer of run folders, tests/runs/folder_writer.py."""
    return _helper("runs/folder_writer.py")


def _helper(name: str) -> ModuleType:
    path = Path(__file__).parent / name
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def layouts() -> Layouts:
    """Writers of public datasets' layouts, tests/data/sources/layouts/<name>.py: `layouts("amos", root)`."""
    return Layouts()


class Layouts:
    """Each writer's functions take the folder to write into and the module that writes volumes."""

    def __init__(self) -> None:
        self.volumes = self.module("writer")

    def __call__(self, name: str, root: Path, how: str = "make", **options) -> dict:
        """Write a dataset; returns the options that read it."""
        return getattr(self.module(name), how)(root, self.volumes, **options)

    def module(self, name: str) -> ModuleType:
        """A writer, for its tables."""
        path = Path(__file__).parent / "data" / "sources" / "layouts" / f"{name}.py"
        spec = spec_from_file_location(f"layout_{name}", path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path.parent.name}/{path.name} is not beside this checkout")
    return path
