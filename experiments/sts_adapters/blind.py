"""What the cut of the scans gives away: an ellipsoid put into it without looking at the image.

    python experiments/sts_adapters/blind.py ROOT OUT.csv

The ellipsoid ends a fixed distance from the faces of a box: of the PET's (and CT's) field of view, of the
MR's, and of what both share. The distance is the one that is best on the training patients of the fold.
Scored as everything else: against the PET's label, on its grid.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.io.nifti import read_grid, read_image
from umdseg.data.sources.sts import StsOptions, StsSource
from umdseg.files import atomic
from umdseg.vocabulary import Subject

FOLDS = 4
DISTANCES_MM = tuple(range(0, 51, 5))
FIELDS = {"pet": ("pet",), "mr": ("mr",), "pet+mr": ("pet", "mr")}
Corner = NDArray[np.float64]


def main() -> None:
    """Read the arguments and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    rows = [row for fold in range(FOLDS) for row in scored(str(given.root), fold)]
    table = pd.DataFrame(rows)
    with atomic(given.out) as path:
        table.to_csv(path, index=False)
    print(table.groupby("field")["dice"].agg(["mean", "count"]).round(3), file=sys.stderr)


def scored(root: str, fold: int) -> list[dict[str, object]]:
    """Test patients of a fold under the distance that was best on its training patients."""
    people = StsSource(StsOptions(root=root, folds=FOLDS, fold=fold)).load(0).subjects
    rows: list[dict[str, object]] = []
    for field, scans in FIELDS.items():
        found = {s.id: [dice(s, scans, mm) for mm in DISTANCES_MM] for s in people}
        mean = np.mean([found[s.id] for s in people if s.split == "train"], axis=0)
        best = int(mean.argmax())
        tested = [s.id for s in people if s.split == "test"]
        rows += [
            {
                "subject": name,
                "fold": fold,
                "field": field,
                "mm": DISTANCES_MM[best],
                "dice": found[name][best],
            }
            for name in tested
        ]
    return rows


def dice(subject: Subject, scans: tuple[str, ...], distance_mm: float) -> float:
    """Dice of the ellipsoid in the box that some scans of a subject share."""
    pet = subject.scans["pet"]
    assert pet.label is not None
    truth = read_image(pet.label)
    boxes = [corners(read_grid(subject.scans[m].image)) for m in scans]  # type: ignore[index]
    low = np.max([box[0] for box in boxes], axis=0)
    high = np.min([box[1] for box in boxes], axis=0)
    half = np.maximum((high - low) / 2 - distance_mm, 1.0)
    index = np.indices(truth.grid.shape).reshape(3, -1).T
    far = (truth.grid.to_world(index) - (low + high) / 2) / half
    inside = ((far**2).sum(axis=1) <= 1).reshape(truth.grid.shape)
    mask = truth.array > 0
    return float(2 * (inside & mask).sum() / (inside.sum() + mask.sum()))


def corners(grid: Grid) -> tuple[Corner, Corner]:
    """Lower and upper corner (mm) of a field of view."""
    faces = np.stack([np.full(3, -0.5), np.array(grid.shape) - 0.5])
    world = grid.to_world(faces)
    return world.min(axis=0), world.max(axis=0)


if __name__ == "__main__":
    main()
