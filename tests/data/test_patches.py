"""Patches: where they lie, what they hold, and that they are read without their volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg.backbones.card import Intensity
from umdseg.data.cache import PreparedCache
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid
from umdseg.data.patches import pick_value, place, read, read_on, sample, window_grid
from umdseg.data.preprocess import Preprocessing, prepare_image
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.data.store import MAX_INDICES, CachedScan
from umdseg.errors import UserError

WINDOW = Intensity("window", -1000.0, 1000.0)
CARD = Preprocessing((3.0, 3.0, 3.0), {"ct": WINDOW, "pet": WINDOW}, None, (16, 16, 12))


@pytest.fixture
def dataset(paired) -> PairedDataset:
    made = paired({"A": ("ct", "pet")}, splits={"A": "train"})
    return ManifestSource(ManifestOptions(manifest=str(made.write()))).load(0)


@pytest.fixture
def scan(dataset: PairedDataset) -> CachedScan:
    return PreparedCache().get(dataset.subjects[0].scans["ct"], "A", CARD, [3, 1], [3, 1])


def test_cache_holds_what_preprocessing_gives(scan: CachedScan, dataset: PairedDataset) -> None:
    from umdseg.data.io.nifti import read_image

    prepared = prepare_image(read_image(dataset.subjects[0].scans["ct"].image), "ct", CARD)
    np.testing.assert_array_equal(scan.image[:], prepared.image[0].numpy())
    np.testing.assert_allclose(scan.grid.affine, prepared.grid.affine)


def test_foreground_indices_point_at_their_structure(scan: CachedScan) -> None:
    label = scan.label[:]
    assert set(scan.foreground) == {1, 2}
    for value, index in scan.foreground.items():
        assert (label[tuple(index.T)] == value).all()
        assert len(np.unique(index, axis=0)) == len(index) == min(int((label == value).sum()), MAX_INDICES)


def test_cache_is_filled_once_and_follows_its_inputs(dataset: PairedDataset, monkeypatch) -> None:
    scan = dataset.subjects[0].scans["ct"]
    cache = PreparedCache()
    first = cache.get(scan, "A", CARD, [3, 1], [3, 1])
    monkeypatch.setattr("umdseg.data.cache.read_image", lambda *_: pytest.fail("prepared a second time"))
    assert cache.get(scan, "A", CARD, [3, 1], [3, 1]).folder == first.folder
    monkeypatch.undo()
    assert cache.get(scan, "A", CARD, [1, 3], [3, 1]).folder != first.folder
    finer = Preprocessing((2.0, 2.0, 2.0), CARD.intensity, None, CARD.min_shape)
    assert cache.get(scan, "A", finer, [3, 1], [3, 1]).folder != first.folder


def test_a_label_that_passed_once_is_read_again_where_fewer_ids_are_allowed(dataset: PairedDataset) -> None:
    scan, cache = dataset.subjects[0].scans["ct"], PreparedCache()
    cache.get(scan, "A", CARD, [3], [3, 1])
    with pytest.raises(UserError, match="ids that no structure has: 1"):
        cache.get(scan, "A", CARD, [3], [3])


def test_failed_preparation_leaves_nothing_behind(
    dataset: PairedDataset, tmp_path: Path, monkeypatch
) -> None:
    cache = PreparedCache(tmp_path / "own")
    scan = dataset.subjects[0].scans["ct"]
    with pytest.raises(Exception, match="holds ids"):
        cache.get(scan, "A", CARD, [3], [3])
    assert not [p for p in (tmp_path / "own" / "prepared").rglob("*") if p.is_file()]


def test_patch_holds_the_structure_asked_for(scan: CachedScan) -> None:
    window = (10, 9, 8)
    starts = []
    for seed in range(40):
        image, label, affine = sample(scan, window, np.random.default_rng(seed), value=2)
        assert image.shape == label.shape == (1, *window)
        assert (label == 2).any()
        # the patch is the volume's own voxels at the place its affine says
        start = np.round(scan.grid.to_index(affine[:3, 3].double().numpy()[None]))[0].astype(int)
        wanted = scan.image[tuple(slice(s, s + n) for s, n in zip(start, window, strict=True))]
        np.testing.assert_array_equal(image[0].numpy(), wanted)
        starts.append(start)
    assert (np.ptp(starts, axis=0) >= 3).all()


def test_every_position_that_holds_the_voxel_is_drawn() -> None:
    voxel = np.array([2, 7, 19], dtype=np.int32)
    drawn = np.array([place((20, 15, 20), (5, 4, 6), voxel, np.random.default_rng(s)) for s in range(2000)])
    # by hand: at most the voxel itself, at least window - 1 before it, clipped to the volume
    assert [sorted(set(axis)) for axis in drawn.T] == [[0, 1, 2], [4, 5, 6, 7], [14]]


def test_structures_are_drawn_alike_however_large(scan: CachedScan) -> None:
    sizes = {value: int((scan.label[:] == value).sum()) for value in (1, 2)}
    assert sizes[1] > 10 * sizes[2]
    rng = np.random.default_rng(0)
    drawn = [pick_value(scan, rng, foreground=0.75) for _ in range(2000)]
    shares = {value: drawn.count(value) / len(drawn) for value in (None, 1, 2)}
    assert shares == pytest.approx({None: 0.25, 1: 0.375, 2: 0.375}, abs=0.04)


def test_reading_beyond_the_volume_gives_zeros() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 1
    patch = read(array, (-1, 1, 2), (3, 4, 4))
    np.testing.assert_array_equal(patch[1:, :2, :2], array[:, 1:, 2:])
    assert patch.sum() == array[:, 1:, 2:].sum()
    assert read(array, (10, 0, 0), (2, 2, 2)).sum() == 0


def test_window_grid_is_centred_on_the_lattice() -> None:
    grid = Grid((30, 30, 30), np.diag([2.0, 2, 2, 1]))
    window = window_grid(grid, (20.7, 21.2, 19.0), (8, 9, 8))
    centre = window.to_world((np.array([window.shape]) - 1) / 2)[0]
    assert (np.abs(centre - [20.7, 21.2, 19.0]) <= 1.0 + 1e-9).all()
    np.testing.assert_allclose(np.round(window.affine[:3, 3] / 2) * 2, window.affine[:3, 3])


def test_reading_on_the_scans_own_lattice_copies(scan: CachedScan) -> None:
    target = scan.grid.crop((2, 3, 1), (10, 9, 9))
    image, label, affine = read_on(scan, target)
    np.testing.assert_allclose(image[0].numpy(), scan.image[2:10, 3:9, 1:9], atol=1e-5)
    np.testing.assert_array_equal(label[0].numpy(), scan.label[2:10, 3:9, 1:9])
    torch.testing.assert_close(affine, torch.from_numpy(target.affine).float())


@pytest.mark.parametrize("shift", [(-4, 0, 0), (0, 0, 500), (-500, 0, 0)])
def test_reading_outside_the_scan_gives_zeros(scan: CachedScan, shift: tuple[int, int, int]) -> None:
    stop = tuple(s + n for s, n in zip(shift, (6, 6, 6), strict=True))
    image, label, _ = read_on(scan, scan.grid.crop(shift, stop))
    assert image.shape == (1, 6, 6, 6)
    if shift == (-4, 0, 0):
        assert image[:, :4].abs().max() == 0
        np.testing.assert_allclose(image[0, 4:].numpy(), scan.image[:2, :6, :6], atol=1e-5)
    else:
        assert image.abs().max() == 0
        assert label.max() == 0
