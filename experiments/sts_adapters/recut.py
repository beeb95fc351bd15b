"""Cut PET and CT of the sarcoma patients anew, so that the cut does not say where the tumour is.

    python experiments/sts_adapters/recut.py SOURCE TARGET

The published volumes end 5 cm from the tumour on every side: its place and size can be read off the borders
of the image. Here every face of the box is moved to a random distance from the tumour, 10 to 50 mm, each by
itself (from the patient's name and a fixed seed); one box in millimetres cuts PET and CT alike. The MR stays
as published: its field of view is the scanner's, nearer to the tumour than 5 cm on most sides.

TARGET gets `STS_*` folders as `data=sts` reads them. What the cuts still give away: `blind.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from umdseg.data.geometry import Grid
from umdseg.data.sources.sts import patient_folders
from umdseg.files import atomic_folder
from umdseg.seeds import generator

LEAST_MM, MOST_MM, SEED = 10.0, 50.0, 0
CUT, STEMS = ("CT", "PET"), ("CT", "PET", "MR_T1")
Corner = NDArray[np.float64]


def main() -> None:
    """Read the arguments and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    for folder in patient_folders(given.source):
        recut(folder, given.target / folder.name)


def recut(source: Path, target: Path) -> None:
    """Cut one patient's scans and their masks."""
    mask: Any = nib.load(source / "PET_mask.nii.gz")
    low, high = box(np.asarray(mask.dataobj) > 0, Grid(mask.shape, mask.affine), source.name)
    with atomic_folder(target) as new:
        # a mask without its image is of no use here
        for stem in (stem for stem in STEMS if (source / f"{stem}_image.nii.gz").is_file()):
            for name in (f"{stem}_image.nii.gz", f"{stem}_mask.nii.gz"):
                image: Any = nib.load(source / name)
                if stem in CUT:
                    image = image.slicer[part(Grid(image.shape, image.affine), low, high)]
                nib.save(image, new / name)


def box(mask: NDArray[np.bool_], grid: Grid, name: str) -> tuple[Corner, Corner]:
    """Corners (mm) of the tumour's box, every face moved out by itself."""
    index = np.argwhere(mask)
    world = grid.to_world(np.stack([index.min(axis=0) - 0.5, index.max(axis=0) + 0.5]))
    out = generator(SEED, "cut", name).uniform(LEAST_MM, MOST_MM, (2, 3))
    return world.min(axis=0) - out[0], world.max(axis=0) + out[1]


def part(grid: Grid, low: Corner, high: Corner) -> tuple[slice, slice, slice]:
    """Voxels whose centres lie in a box (mm); the scans' axes run along the patient's."""
    ends = grid.to_index(np.stack([low, high]))
    first = np.maximum(np.ceil(ends.min(axis=0)).astype(int), 0)
    stop = np.minimum(np.floor(ends.max(axis=0)).astype(int) + 1, grid.shape)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))
    return x, y, z


if __name__ == "__main__":
    main()
