"""The cache among processes: killed, at the same time, with too little room, with damaged entries."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from umdseg.backbones.card import Intensity
from umdseg.data.cache import PreparedCache
from umdseg.data.dataset import PairedDataset
from umdseg.data.eviction import BUILDING, PREPARED
from umdseg.data.preprocess import Preprocessing, prepare_image
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource
from umdseg.data.store import CachedScan
from umdseg.errors import UserError

WINDOW = Intensity("window", -1000.0, 1000.0)
CARD = Preprocessing((3.0, 3.0, 3.0), {"ct": WINDOW, "pet": WINDOW}, None, (16, 16, 12))

# another process that takes subject A's CT; `before` and `after` are run around it
OTHER = """
import os, sys, time
from pathlib import Path
from umdseg.data import cache, store
from umdseg.data.preprocess import Preprocessing
from umdseg.vocabulary import Scan
from umdseg.backbones.card import Intensity
window = Intensity("window", -1000.0, 1000.0)
card = Preprocessing((3.0, 3.0, 3.0), {{"ct": window, "pet": window}}, None, (16, 16, 12))
scan = Scan(Path({image!r}), "ct", "HU", Path({label!r}))
def said(word):
    print(word, flush=True)
def wait():
    said("waiting")
    sys.stdin.readline()
{before}
mine = cache.PreparedCache({root!r})
got = mine.get(scan, "A", card, [3, 1], [3, 1])
{after}
"""


@pytest.fixture
def dataset(paired) -> PairedDataset:
    made = paired({"A": ("ct", "pet"), "B": ("ct",), "C": ("ct",)})
    return ManifestSource(ManifestOptions(manifest=str(made.write()))).load(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "own"


def get(cache: PreparedCache, dataset: PairedDataset, subject: str) -> CachedScan:
    scan = next(s for s in dataset.subjects if s.id == subject).scans["ct"]
    return cache.get(scan, subject, CARD, [3, 1], [3, 1])


def prepared(dataset: PairedDataset, subject: str) -> np.ndarray:
    from umdseg.data.io.nifti import read_image

    scan = next(s for s in dataset.subjects if s.id == subject).scans["ct"]
    return prepare_image(read_image(scan.image), "ct", CARD).image[0].numpy()


def entries(root: Path) -> set[str]:
    return {path.name for path in (root / PREPARED).glob("*/*")}


def leftovers(root: Path) -> list[Path]:
    return list((root / BUILDING).glob("*")) if (root / BUILDING).is_dir() else []


def other(dataset: PairedDataset, root: Path, before: str = "", after: str = "") -> subprocess.Popen[str]:
    scan = dataset.subjects[0].scans["ct"]
    text = OTHER.format(
        image=str(scan.image), label=str(scan.label), root=str(root), before=before, after=after
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", text], text=True, **pipes)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_fill_one_entry_at_once(dataset: PairedDataset, root: Path) -> None:
    late = "own = store.write_entry\ncache.write_entry = lambda *a: (own(*a), wait())"
    check = "said(str(float(got.image[:].sum(dtype='float64'))))"
    both = [other(dataset, root, late, check) for _ in range(2)]
    assert [said(process) for process in both] == ["waiting", "waiting"]
    assert len(leftovers(root)) == 2
    sums = []
    for process in both:
        out, err = process.communicate("go\n", timeout=60)
        assert process.returncode == 0, err
        sums.append(float(out))
    assert sums == [pytest.approx(prepared(dataset, "A").sum(dtype="float64"))] * 2
    assert len(entries(root)) == 1
    assert not leftovers(root)


@pytest.mark.parametrize("moment", ["written", "half written"])
def test_a_killed_build_leaves_nothing_that_is_trusted(
    dataset: PairedDataset, root: Path, moment: str
) -> None:
    wait = {
        "written": "own = store.write_entry\ncache.write_entry = lambda *a: (own(*a), wait())",
        "half written": "own = store._write\nstore._write = lambda p, c: (own(p, c[: len(c) // 2]), wait())",
    }
    process = other(dataset, root, wait[moment])
    assert said(process) == "waiting"
    assert len(leftovers(root)) == 1
    assert entries(root) == set()
    # while it lives its work is not swept away by others
    get(PreparedCache(root), dataset, "B")
    assert len(leftovers(root)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    scan = get(PreparedCache(root), dataset, "A")
    np.testing.assert_array_equal(scan.image[:], prepared(dataset, "A"))
    assert not leftovers(root)


def test_a_damaged_entry_is_told_and_made_again(dataset: PairedDataset, root: Path, capsys) -> None:
    scan = get(PreparedCache(root), dataset, "A")
    os.truncate(scan.folder / "image.b2nd", 100)
    again = get(PreparedCache(root), dataset, "A")
    np.testing.assert_array_equal(again.image[:], prepared(dataset, "A"))
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "(subject A) is damaged (image.b2nd has 100 bytes" in err
    get(PreparedCache(root), dataset, "A")
    assert capsys.readouterr().err == ""


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / PREPARED).rglob("*") if path.is_file())


def test_least_recently_used_entries_make_room(dataset: PairedDataset, root: Path) -> None:
    phantoms = root / "phantom" / "kind" / "ct.nii"
    phantoms.parent.mkdir(parents=True)
    phantoms.write_bytes(bytes(10_000_000))
    names = {}
    for subject in "ABA":
        # each cache object is given back before the next: a run that has ended
        names[subject] = get(PreparedCache(root), dataset, subject).folder.name
        time.sleep(0.02)
    limit = 1.2 * size_of(root) / 1e9
    names["C"] = get(PreparedCache(root, limit), dataset, "C").folder.name
    assert entries(root) == {names["A"], names["C"]}
    assert size_of(root) <= limit * 1e9
    assert phantoms.is_file()
    back = get(PreparedCache(root, limit), dataset, "B")
    np.testing.assert_array_equal(back.image[:], prepared(dataset, "B"))


def test_what_a_living_process_uses_stays(dataset: PairedDataset, root: Path, capsys) -> None:
    process = other(dataset, root, after="wait()")
    assert said(process) == "waiting"
    (held,) = entries(root)
    second = get(PreparedCache(root, 1e-6), dataset, "B")
    assert entries(root) == {held, second.folder.name}
    assert "data.cache_gb=1e-06 is too small and exceeded" in capsys.readouterr().err
    process.send_signal(signal.SIGKILL)
    process.communicate()
    third = get(PreparedCache(root, 1e-6), dataset, "C")
    assert entries(root) == {third.folder.name}


def test_an_evicted_entry_that_is_open_can_be_read_on(dataset: PairedDataset, root: Path) -> None:
    cache = PreparedCache(root)
    scan = get(cache, dataset, "A")
    image = scan.image
    del cache
    get(PreparedCache(root, 1e-6), dataset, "B")
    assert scan.folder.name not in entries(root)
    np.testing.assert_array_equal(image[:], prepared(dataset, "A"))


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(dataset: PairedDataset, root: Path) -> None:
    """A limit on the size of files is the disk that a test can fill: the kernel stops amid a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(UserError, match="no space left for a prepared scan of") as caught:
            get(PreparedCache(root), dataset, "A")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.where == f"data.cache_dir: {root}"
    assert not leftovers(root)
    assert entries(root) == set()
    needed = int(caught.value.what.split("scan of ")[1].split(" bytes")[0].replace(",", ""))
    entry = get(PreparedCache(root), dataset, "A").folder
    assert needed == sum(p.stat().st_size for p in entry.iterdir() if p.name != "entry.json")
