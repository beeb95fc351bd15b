"""Tiny volumes with nibabel alone: a warm box in air, labels as blocks of 2 x 2 x 2 voxels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (16, 16, 12)
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])
AFFINE[:3, 3] = (30.0, 30.0, -22.0)
# the same space on another grid
COARSE_SHAPE = (12, 12, 9)
COARSE = np.diag([5.0, 5.0, 5.0, 1.0])
COARSE[:3, 3] = (-28.0, -28.0, -20.0)
_VALUES = {"ct": (-1000.0, 40.0), "pet": (0.02, 3.0), "mr": (5.0, 300.0)}


def image(path: Path, modality: str, seed: int = 0, coarse: bool = False) -> Path:
    """A box of soft tissue, SUV 3 or bright MR in air, with noise."""
    shape = COARSE_SHAPE if coarse else SHAPE
    air, tissue = _VALUES[modality]
    array = np.full(shape, air)
    array[2:-2, 2:-2, 1:-1] = tissue
    noise = np.random.default_rng(seed).normal(scale=abs(tissue) / 20, size=shape)
    array[2:-2, 2:-2, 1:-1] += noise[2:-2, 2:-2, 1:-1]
    return save(path, array.astype(np.float32), coarse)


def label(path: Path, ids: Iterable[int], coarse: bool = False) -> Path:
    """Id n in the n-th block."""
    return save(path, blocks(ids, coarse), coarse)


def mask(path: Path, id: int) -> Path:
    """1 in the block of an id."""
    return save(path, (blocks([id]) > 0).astype(np.uint8), False)


def blocks(ids: Iterable[int], coarse: bool = False) -> np.ndarray:
    """Block n of a grid holds n."""
    shape = COARSE_SHAPE if coarse else SHAPE
    counts = [n // 2 for n in shape]
    array = np.zeros(shape, np.uint8)
    for id in ids:
        x, y, z = (2 * int(i) for i in np.unravel_index(id, counts))
        array[x : x + 2, y : y + 2, z : z + 2] = id
    return array


def save(path: Path, array: np.ndarray, coarse: bool = False) -> Path:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(array, COARSE if coarse else AFFINE)
    made.header.set_xyzt_units("mm")
    nib.save(made, path)
    return path
