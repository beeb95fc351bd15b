"""One entry of the cache: exact, read in parts, and known to be whole or not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from umdseg.data.geometry import Grid
from umdseg.data.store import CachedScan, damage, pack_entry, packed, write_entry
from umdseg.data.verdict import Finding

SHAPE = (130, 70, 66)


def smooth(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    x, y, z = np.meshgrid(*[np.linspace(0, 3, n, dtype=np.float32) for n in shape], indexing="ij")
    return (0.5 + 0.4 * np.sin(x) * np.cos(y) * np.sin(z + 1)).astype(np.float32)


def entry(folder: Path, label: np.ndarray | None = None, findings: tuple[Finding, ...] = ()) -> CachedScan:
    folder.mkdir()
    grid = Grid(SHAPE, np.diag([1.5, 1.5, 1.5, 1.0]))
    write_entry(folder, pack_entry(smooth(), label, grid, findings, "key"))
    return CachedScan(folder)


def garble(path: Path, size: int = 4096) -> None:
    """Overwrite bytes in the middle; the size stays."""
    with open(path, "r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(os.urandom(size))


def test_what_is_read_is_bit_for_bit_what_was_written(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, dtype=np.int16)
    label[3:9, 60:, :4] = 2
    found = Finding("warn", "odd", expected="even")
    scan = entry(tmp_path / "e", label, (found,))
    assert scan.image.dtype == np.float32
    np.testing.assert_array_equal(scan.image[:], smooth())
    np.testing.assert_array_equal(scan.image[60:70, 1:66, 5:65], smooth()[60:70, 1:66, 5:65])
    np.testing.assert_array_equal(scan.label[:], label)
    assert scan.label.dtype == np.uint8
    assert set(scan.foreground) == {2}
    assert scan.grid.shape == SHAPE
    assert scan.findings == (found,)
    assert damage(scan.folder) is None
    assert damage(scan.folder, deep=True) is None


def test_more_structures_than_a_byte_counts(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, dtype=np.int16)
    label[5, 5, 5] = 300
    scan = entry(tmp_path / "e", label)
    assert int(scan.label[5, 5, 5]) == 300
    np.testing.assert_array_equal(scan.foreground[300], [[5, 5, 5]])


def test_scans_without_label_or_foreground(tmp_path: Path) -> None:
    assert not entry(tmp_path / "none").has_label
    empty = entry(tmp_path / "empty", np.zeros(SHAPE, dtype=np.int16))
    assert empty.has_label
    assert empty.foreground == {}


def test_a_part_is_read_without_the_rest(tmp_path: Path) -> None:
    """With one place of the file destroyed, windows far from it still read right."""
    import blosc2

    path = tmp_path / "image.b2nd"
    path.write_bytes(packed(smooth()))
    garble(path, 512)
    array = blosc2.open(str(path), mode="r", mmap_mode="r")
    wrong = 0
    corners = [(x, y, z) for x in (0, 98) for y in (0, 38) for z in (0, 34)]
    for x, y, z in corners:
        part = (slice(x, x + 32), slice(y, y + 32), slice(z, z + 32))
        try:
            wrong += not np.array_equal(array[part], smooth()[part])
        except RuntimeError:
            wrong += 1
    assert wrong < len(corners)
    try:
        whole = np.array_equal(array[:], smooth())
    except RuntimeError:
        whole = False
    assert not whole


@pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "foreground.npy", "entry.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "other content"])
def test_damage_of_any_file_is_found(tmp_path: Path, name: str, how: str) -> None:
    label = np.zeros(SHAPE, dtype=np.int16)
    label[::2, ::3] = 1
    path = entry(tmp_path / "e", label).folder / name
    if how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "gone":
        path.unlink()
    else:
        garble(path, 64)
    found = damage(tmp_path / "e")
    assert found is not None
    assert name in found or name == "entry.json"


def test_zeros_in_a_file_that_blosc2_reads_without_complaint_are_found(tmp_path: Path) -> None:
    path = entry(tmp_path / "e").folder / "image.b2nd"
    with open(path, "r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(bytes(20_000))
    assert damage(tmp_path / "e") == "the content of image.b2nd has changed"


def test_a_copied_entry_is_whole_though_its_times_differ(tmp_path: Path) -> None:
    made = entry(tmp_path / "e")
    shutil.copytree(made.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    told = json.loads((tmp_path / "copy" / "entry.json").read_text())
    image = tmp_path / "copy" / "image.b2nd"
    assert image.stat().st_mtime_ns != told["files"]["image.b2nd"][1]
    assert damage(tmp_path / "copy") is None
    # and from then on the cheap test is enough
    assert image.stat().st_mtime_ns == told["files"]["image.b2nd"][1]
