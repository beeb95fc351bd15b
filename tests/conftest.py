"""Shared by all tests: real data or a visible skip, one thread per worker, a private cache."""

from __future__ import annotations

import os
from pathlib import Path

# before anything imports these packages: no network, no windows, no accounts
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


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


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path.parent.name}/{path.name} is not beside this checkout")
    return path
