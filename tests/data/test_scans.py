"""Few scans open at a time, and those found damaged while training are made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from umdseg.backbones.card import Intensity
from umdseg.data.datamodule import PairedDataModule
from umdseg.data.preprocess import Preprocessing
from umdseg.data.sources.manifest import ManifestOptions, ManifestSource

WINDOW = Intensity("window", -1000.0, 1000.0)
CARD = Preprocessing((4.0, 4.0, 4.0), dict.fromkeys(("ct", "pet"), WINDOW), None, (12, 12, 8))


@pytest.fixture
def module(paired) -> Callable[..., PairedDataModule]:
    made = paired({name: ("ct", "pet") for name in "ABC"}, splits=dict.fromkeys("ABC", "train")).write()

    def build(**options) -> PairedDataModule:
        chosen = ManifestOptions(manifest=str(made), patches_per_epoch=12, **options)
        source = ManifestSource(chosen).load(0)
        return PairedDataModule(source, chosen, CARD, (12, 12, 8), ("liver", "spleen"), 0)

    return build


def images(module: PairedDataModule) -> list[torch.Tensor]:
    return [batch.image for batch in module.train_dataloader()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def stored(cache: Path, name: str) -> list[Path]:
    return sorted((cache / "prepared").rglob(name))


def open_files(cache: Path) -> set[str]:
    """Files of one cache this process has mapped into memory, by what the kernel says."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("no /proc on this system")
    # other tests of this process may have left theirs open
    named = (line.split()[-1] for line in maps.read_text().splitlines() if line.endswith(".b2nd"))
    return {name for name in named if name.startswith(str(cache))}


def test_open_scans_do_not_grow_with_the_number_of_subjects(module, tmp_path, monkeypatch) -> None:
    data = module().train_dataloader().dataset
    whole = [data[i].image for i in range(30)]
    assert len(open_files(tmp_path / "cache")) == 12  # image and label of 3 subjects x 2 modalities
    del data
    monkeypatch.setattr("umdseg.data.scans.MOST_OPEN", 2)
    few = module().train_dataloader().dataset
    assert same([few[i].image for i in range(30)], whole)
    assert 0 < len(open_files(tmp_path / "cache")) <= 4


def test_every_scan_damaged_after_preparation_is_made_again_in_a_worker(module, tmp_path, capfd) -> None:
    """The worker is forked from a process that has resampled with SimpleITK, and must resample itself."""
    made = module(workers=1)
    made.prepare_data()
    plain = images(module())
    damaged = stored(tmp_path / "cache", "image.b2nd")
    assert len(damaged) == 6
    for path in damaged:
        os.truncate(path, 64)
    assert same(images(made), plain)
    assert 0 < capfd.readouterr().err.count("is damaged (image.b2nd has 64 bytes") <= 6


def test_damage_that_only_reading_finds_is_mended_while_training(module, tmp_path, capsys) -> None:
    made = module()
    plain = images(made)
    for path in stored(tmp_path / "cache", "image.b2nd"):
        state = path.stat()
        content = path.read_bytes()
        path.write_bytes(content[:200] + os.urandom(len(content) - 200))
        # as a failing disk does: neither size nor time tell
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert same(images(module()), plain)
    assert "the content of image.b2nd has changed" in capsys.readouterr().err


def test_a_cache_removed_by_hand_comes_back(module, tmp_path) -> None:
    plain = images(module())
    data = module().train_dataloader().dataset
    data[0]
    for path in stored(tmp_path / "cache", "*.*"):
        path.unlink()
    assert torch.equal(torch.stack([data[i].image for i in (0, 1)]), plain[0])


def test_an_error_that_is_no_damage_is_not_hidden(module, monkeypatch) -> None:
    data = module().train_dataloader().dataset

    def broken(*_):
        raise ValueError("a mistake in the code")

    monkeypatch.setattr("umdseg.data.training.sample", broken)
    with pytest.raises(ValueError, match="a mistake in the code"):
        data[0]
