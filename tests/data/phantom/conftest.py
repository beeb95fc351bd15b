"""A label map with known anatomy: the procedural phantom's own labels, written as a data set would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import write_volume
from umdseg.data.phantom.body import FIELD_OF_VIEW, Anatomy, grid_over
from umdseg.data.phantom.subject import STRUCTURES, labels

# as in the autoPET organ maps: kidneys and lungs are one structure each
NAMES = {
    **{1: "spleen", 2: "kidneys", 3: "liver", 4: "urinary_bladder"},
    **{5: "lungs", 6: "brain", 7: "heart", 8: "stomach"},
}
_SOURCE = {
    **{"spleen": 1, "kidney_left": 2, "kidney_right": 2, "liver": 3, "urinary_bladder": 4},
    **{"lung": 5, "brain": 6, "heart": 7, "stomach": 8},
}


@pytest.fixture(scope="session")
def sides() -> Volume:
    """Labels in the numbering of the procedural phantom (kidneys by side), 6 mm."""
    grid = grid_over(FIELD_OF_VIEW, (6.0, 6.0, 6.0))
    return Volume(labels(Anatomy(3).paint(grid)), grid)


@pytest.fixture(scope="session")
def organs(sides: Volume) -> Volume:
    """The same with the ids of `NAMES`."""
    table = np.zeros(256, dtype=np.uint8)
    for name, number in _SOURCE.items():
        table[STRUCTURES[name]] = number
    return Volume(table[np.asarray(sides.array, dtype=int)], sides.grid)


@pytest.fixture
def folder(organs: Volume, tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of maps under the given names; each map differs in one voxel of air."""

    def write(*names: str) -> Path:
        root = tmp_path / "maps"
        root.mkdir(exist_ok=True)
        (root / "label_ids.json").write_text(json.dumps({"0": "background", **NAMES}))
        for number, name in enumerate(names):
            array = np.array(organs.array)
            array.flat[number] = 1
            write_volume(Volume(array, organs.grid), root / f"{name}.nii.gz")
        return root

    return write
