"""Organ label maps that phantoms are painted onto: the folder, the names of its ids, one map."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from umdseg.anatomy import canonical
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError

_ID_FILES = ("label_ids.json", "label_ids.yaml", "label_ids.yml")
_FORM = 'JSON or YAML: {"0": "background", "1": "spleen"} or {spleen: 1}'
_SIDES = ("kidney_left", "kidney_right")
# autoPET names its studies <tracer>_<patient>_<study>
_PERSON = re.compile(r"(?i)(fdg|psma)_[^_]+")


@dataclass(frozen=True)
class LabelMap:
    """One person's organ labels.

    Attributes:
        array: (X, Y, Z) structure ids, axes along RAS+.
        grid: axis-aligned RAS+ grid of the array, patient millimetres.
        structures: canonical structure name -> id.
    """

    array: NDArray[Any]
    grid: Grid
    structures: Mapping[str, int]


def find_maps(folder: Path | str) -> list[Path]:
    """The NIfTI files of a folder, by name.

    Raises:
        UserError: no such folder, no file in it, or two files of one name.
    """
    root = Path(folder).expanduser()
    where = f"data.labels={folder}"
    if not root.is_dir():
        raise UserError("folder of label maps is missing", where=where, expected="a folder of NIfTI files")
    files = sorted(p for p in root.iterdir() if p.is_file() and re.search(r"\.nii(\.gz)?$", p.name))
    if not files:
        inside = next((p.parent for p in sorted(root.rglob("*.nii*"))), None)
        near = str(inside) if inside else None
        raise UserError("no label maps", where=where, expected="*.nii or *.nii.gz in it", nearest=near)
    stems = [stem(p) for p in files]
    twice = next((s for i, s in enumerate(stems) if s in stems[:i]), None)
    if twice:
        raise UserError(f"label map '{twice}' is there twice", where=where, expected=".nii or .nii.gz")
    return files


def stem(path: Path) -> str:
    """File name without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def person(name: str) -> str:
    """Whose map it is: `<tracer>_<patient>` of autoPET's names, else the name itself."""
    hit = _PERSON.match(name)
    return hit.group().lower() if hit else name


def tracer_of(name: str) -> str:
    """PSMA if the file name starts with psma, else FDG."""
    return "PSMA" if name.lower().startswith("psma") else "FDG"


def read_ids(folder: Path | str, given: str | None = None) -> dict[str, int]:
    """Read which structure each id stands for.

    Args:
        folder: folder of the maps.
        given: the file; None means `label_ids.json` (or .yaml, .yml) in the folder.

    Returns:
        Canonical structure name -> id, as in the files. A map of `kidneys` as one structure gives
        two, because models know kidneys by side: the left keeps the id, the right gets a new one.

    Raises:
        UserError: no such file, not readable, an unknown structure, an id or a structure twice.
    """
    path = _id_file(Path(folder).expanduser(), given)
    structures: dict[str, int] = {}
    for key, value in _content(path).items():
        name, number = (value, key) if str(key).isdigit() else (key, value)
        if not isinstance(name, str) or isinstance(number, bool) or not str(number).isdigit():
            raise UserError(f"'{key}: {value}' is not an id with a name", where=path, expected=_FORM)
        if int(number) == 0 and name.lower() == "background":
            continue
        _add(structures, name, int(number), path)
    if not structures:
        raise UserError("no structures are named", where=path, expected=_FORM)
    if "kidney" in structures and not structures.keys() & set(_SIDES):
        left = structures.pop("kidney")
        structures |= {_SIDES[0]: left, _SIDES[1]: max([left, *structures.values()]) + 1}
    return structures


def read_map(path: Path, structures: Mapping[str, int]) -> LabelMap:
    """Read one map and turn it to RAS+.

    Args:
        path: NIfTI file.
        structures: as `read_ids` gives them.

    Raises:
        UserError: anything `umdseg.data.io.nifti.read_label` refuses, oblique axes, or no labelled voxel.
    """
    from umdseg.data.io.nifti import read_label

    volume = read_label(path, None, set(structures.values()), stem(path))
    if not volume.array.any():
        raise UserError("label map is empty", where=path, expected="at least one labelled organ")
    if max(structures.values()) < 256:
        volume = Volume(volume.array.astype(np.uint8), volume.grid)
    array, grid = _upright(volume, path)
    return split_kidneys(LabelMap(array, grid, structures))


def split_kidneys(label: LabelMap) -> LabelMap:
    """Give every piece of kidney that carries the left one's id to its side of the body's midline.

    A map that tells the sides apart already, or has no kidneys, is returned as it is.
    """
    left, right = (label.structures.get(name) for name in _SIDES)
    if left is None or right is None or (label.array == right).any():
        return label
    box = ndimage.find_objects((label.array == left).astype(np.uint8))
    if not box:
        return label
    pieces, count = ndimage.label(label.array[box[0]] == left)
    # +x is the patient's right; the column of labelled organs is centred on the midline
    columns = np.flatnonzero(label.array.any(axis=(1, 2)))
    middle = (columns[0] + columns[-1]) / 2 - box[0][0].start
    centres = ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1))
    table = np.array([0, *(right if c[0] > middle else left for c in centres)], dtype=label.array.dtype)
    array = label.array.copy()
    region = array[box[0]]
    region[pieces > 0] = table[pieces[pieces > 0]]
    return LabelMap(array, label.grid, label.structures)


def _upright(volume: Volume, path: Path) -> tuple[NDArray[Any], Grid]:
    """Permute and flip to RAS+; the voxels stay where they are."""
    matrix = volume.grid.affine[:3, :3] / np.asarray(volume.grid.spacing)
    order = [int(np.argmax(np.abs(matrix[row]))) for row in range(3)]
    signs = [matrix[row, order[row]] for row in range(3)]
    if sorted(order) != [0, 1, 2] or min(abs(s) for s in signs) < 0.99999:
        expected = "axes along the patient's (within 0.25 degrees); resample the map first"
        raise UserError("label map is oblique", where=path, expected=expected)
    flips = tuple(slice(None, None, 1 if s > 0 else -1) for s in signs)
    array = np.ascontiguousarray(np.transpose(volume.array, order)[flips])
    spacing = [volume.grid.spacing[axis] for axis in order]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = volume.grid.to_world(volume.grid.corners()).min(axis=0)
    return array, Grid((array.shape[0], array.shape[1], array.shape[2]), affine)


def _id_file(folder: Path, given: str | None) -> Path:
    if given:
        path = Path(given).expanduser()
    else:
        path = next((folder / n for n in _ID_FILES if (folder / n).is_file()), folder / _ID_FILES[0])
    if not path.is_file():
        what = "the file that names the label ids is missing"
        raise UserError(what, where=path, expected=f"{_FORM}; or data.label_ids=FILE")
    return path


def _content(path: Path) -> Mapping[Any, Any]:
    import yaml

    try:
        # JSON is YAML
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as JSON or YAML: {error}", where=path, expected=_FORM) from error
    inner = content.get("structures", content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping):
        raise UserError("no structures are named", where=path, expected=_FORM)
    return inner


def _add(structures: dict[str, int], name: str, number: int, path: Path) -> None:
    try:
        known = canonical(name)
    except UserError as error:
        raise UserError(error.what, where=path, expected=error.expected, nearest=error.nearest) from error
    if not 0 < number < 2**15:
        raise UserError(f"structure '{name}' has id {number}", where=path, expected="ids from 1 to 32767")
    taken = next((other for other, used in structures.items() if used == number), None)
    if taken or known in structures:
        both = f"id {number} is given to both '{taken}' and '{name}'"
        what = both if taken else f"'{known}' is named twice"
        raise UserError(what, where=path, expected="every structure once, with its own id")
    structures[known] = number
