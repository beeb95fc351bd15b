"""Whether the scans and labels of one subject show the same body at the same place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.data.geometry import Grid, Volume
from umdseg.data.verdict import Finding
from umdseg.vocabulary import Modality

Mask = NDArray[np.bool_]
# bodies are compared on a coarse lattice: whether they meet at all does not need millimetres
LATTICE_MM = 8.0
_MOST_POINTS = 200
# HU between air and fat; skin and lung boundary lie there
_BODY_HU = -500.0
_BODY_SUV = 0.1
# of Otsu's kind: MR background is noise far below its bright tissue
_BODY_MR = 0.1
# Dice of bodies in place; 52 pairs of real cropped scans (soft-tissue sarcoma) have 0.81 and more. Moved by
# 100 mm front to back, 9 of 10 of them fall below; smaller shifts of crops full of body cannot be seen
_ALIKE = 0.75
_LABELLED = 0.5
_SAMPLES = 20_000


def compare(volumes: Mapping[Modality, Volume], where: str) -> Iterator[Finding]:
    """The scans of one subject against each other: common field of view, body overlap, distance.

    Args:
        volumes: the subject's scans in HU, SUV or a.u.
        where: subject, named in findings.
    """
    for first, second in combinations(volumes, 2):
        lattice = common_lattice(volumes[first].grid, volumes[second].grid)
        if lattice is None:
            # told from the headers
            continue
        bodies = [body(volumes[m], m, lattice) for m in (first, second)]
        least = min(int(mask.sum()) for mask in bodies)
        if least == 0:
            yield Finding("warn", f"no body where {first} and {second} overlap", where, "one body in both")
            continue
        alike = 2 * int((bodies[0] & bodies[1]).sum()) / sum(int(mask.sum()) for mask in bodies)
        centres = [lattice.to_world(np.argwhere(mask).mean(axis=0)[None])[0] for mask in bodies]
        offset = float(np.linalg.norm(centres[0] - centres[1]))
        if alike < _ALIKE:
            numbers = f"Dice {alike:.2f}, centres {offset:.0f} mm apart"
            what = (
                f"the bodies in {first} and {second} do not overlap ({numbers} in their common field of view)"
            )
            yield Finding(
                "warn", what, where, f"one patient space: Dice {_ALIKE} or more; look at --qc pictures"
            )


def common_share(volumes: Mapping[Modality, Grid]) -> float:
    """Share of the smallest field of view that all scans have in common (boxes in patient space)."""
    boxes = [_box(grid) for grid in volumes.values()]
    low = np.stack([b[0] for b in boxes]).max(axis=0)
    high = np.stack([b[1] for b in boxes]).min(axis=0)
    least = min(float(np.prod(b[1] - b[0])) for b in boxes)
    return float(np.prod(np.maximum(high - low, 0))) / least


def labelled(label: Volume, image: Volume, modality: Modality, where: str) -> Iterator[Finding]:
    """Whether a label lies on the body of its image."""
    index = np.argwhere(np.asarray(label.array, dtype=bool))
    if not len(index):
        return
    index = index[:: max(len(index) // _SAMPLES, 1)]
    lattice = _lattice(*_box(image.grid))
    mask = body(image, modality, lattice)
    at = np.round(lattice.to_index(label.grid.to_world(index.astype(float)))).astype(int)
    inside = ((at >= 0) & (at < lattice.shape)).all(axis=1)
    share = float(mask[tuple(at[inside].T)].sum()) / len(at)
    if share < _LABELLED:
        what = f"only {share:.0%} of the label lies on the body in the {modality} image"
        yield Finding("warn", what, where, "labels drawn on this image, in the same patient space")


def sides(label: Volume, structures: Mapping[str, int], where: str) -> Iterator[Finding]:
    """Whether what is on the right in every usual body is on the right here (RAS+: larger x)."""
    for right, left in (("liver", "spleen"), ("kidney_right", "kidney_left"), ("lung_right", "lung_left")):
        if right not in structures or left not in structures:
            continue
        found = [np.argwhere(label.array == structures[name]) for name in (right, left)]
        if not all(len(index) for index in found):
            continue
        x = [label.grid.to_world(index.mean(axis=0)[None])[0][0] for index in found]
        if x[0] < x[1]:
            what = f"{right} lies {x[1] - x[0]:.0f} mm to the left of {left}: left and right flipped?"
            yield Finding("warn", what, where, "the patient's right at larger x (RAS+), or situs inversus")


def body(volume: Volume, modality: Modality, lattice: Grid) -> Mask:
    """Where the body is on a lattice (X, Y, Z), holes such as lungs filled slice by slice."""
    index = lattice.to_world(np.indices(lattice.shape).reshape(3, -1).T.astype(float))
    at = np.round(volume.grid.to_index(index)).astype(int)
    inside = ((at >= 0) & (at < volume.array.shape)).all(axis=1)
    mask = np.zeros(len(at), dtype=bool)
    mask[inside] = volume.array[tuple(at[inside].T)] > threshold(volume, modality)
    shaped = mask.reshape(lattice.shape)
    filled = [ndimage.binary_fill_holes(shaped[..., k]) for k in range(lattice.shape[2])]
    return np.stack(filled, axis=-1)


def threshold(volume: Volume, modality: Modality) -> float:
    """The value above which a voxel is body."""
    if modality == "ct":
        return _BODY_HU
    if modality == "pet":
        return _BODY_SUV
    sample = volume.array.ravel()[:: max(volume.array.size // 100_000, 1)].astype(float)
    low, high = np.percentile(sample, [1, 99])
    return float(low + _BODY_MR * (high - low))


def common_lattice(first: Grid, second: Grid) -> Grid | None:
    """An axis-aligned lattice over the common field of view of two scans; None where there is none."""
    (a, b), (c, d) = _box(first), _box(second)
    low, high = np.maximum(a, c), np.minimum(b, d)
    return _lattice(low, high) if np.all(high > low) else None


def _lattice(low: NDArray[np.float64], high: NDArray[np.float64]) -> Grid:
    size = high - low
    step = np.maximum(LATTICE_MM, size / _MOST_POINTS)
    count = np.maximum((size / step).astype(int), 1)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = low + (size - (count - 1) * step) / 2
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def _box(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    world = grid.to_world(grid.corners())
    return world.min(axis=0), world.max(axis=0)
