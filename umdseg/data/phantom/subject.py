"""Render one phantom subject: three images and three label maps, each on its scanner's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.anatomy import UMD13
from umdseg.data.geometry import Grid, Volume
from umdseg.data.phantom.body import Anatomy, Breathing
from umdseg.data.phantom.imaging import (
    Scanner,
    computed_tomography,
    magnetic_resonance,
    positron_emission,
)
from umdseg.data.phantom.tissues import structure_codes

STRUCTURES = {name: index + 1 for index, name in enumerate(UMD13)}
_SIMULATE: dict[str, Callable[[int, NDArray[np.uint8], Grid, Scanner], NDArray[Any]]] = {
    "ct": computed_tomography,
    "mr": magnetic_resonance,
    "pet": positron_emission,
}


def render(
    seed: int,
    modality: str,
    scanner: Scanner,
    breathing_mm: float = 0.0,
    ids: Mapping[str, int] = STRUCTURES,
) -> tuple[Volume, Volume]:
    """One scan of the subject with this seed.

    Args:
        seed: subject seed.
        modality: ct, mr or pet.
        scanner: physical settings.
        breathing_mm: PET is averaged over free breathing while CT and MR are breath-held; the PET
            organs then lie this many millimetres higher at the diaphragm than its label says,
            because the label is the anatomy of the breath-hold, as in shared-mask data sets.
        ids: structure -> id in the label map.

    Returns:
        The image (HU | a.u. | SUV) and the label map on the same grid.
    """
    grid = scanner.grid(modality)
    anatomy = Anatomy(seed)
    still = anatomy.paint(grid)
    moved = anatomy.paint(grid, Breathing(breathing_mm)) if breathing_mm and modality == "pet" else still
    image = _SIMULATE[modality](seed, moved, grid, scanner)
    return Volume(image, grid), Volume(labels(still, ids), grid)


def labels(codes: NDArray[np.uint8], ids: Mapping[str, int] = STRUCTURES) -> NDArray[np.uint8]:
    """Tissue codes -> structure ids (by default UMD order, 1-13; 0 elsewhere)."""
    table = np.zeros(256, dtype=np.uint8)
    for structure, members in structure_codes().items():
        table[members] = ids[structure]
    return np.asarray(table[codes])
