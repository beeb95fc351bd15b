"""Training patches per second, and the memory it takes, against MONAI's datasets and nnU-Net's loader.

Every contender gets the same whole-body volumes, already on the network's grid, prepares them in its own way
(not timed), and then serves random 96^3 patches, three in four on foreground, without augmentation. Each
runs in a process of its own, whose memory is watched from outside; contenders take turns.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SHAPE, SPACING, WINDOW = (200, 200, 450), 2.0, 96
HU = (-963.0, 1053.0)
SUBJECTS, FEW = 24, 6
BATCH, SECONDS, ROUNDS = 2, 3.0, 2
ORGANS = [
    *["liver", "spleen", "kidney_left", "kidney_right", "pancreas", "stomach", "heart", "aorta", "brain"],
    *["lung", "colon", "esophagus", "urinary_bladder"],
]
WORKERS = (0, 2)
NAMES = {
    "umdseg": "umdseg",
    "persistent1": "MONAI PersistentDataset, 1 crop per volume read",
    "persistent4": "MONAI PersistentDataset, 4 crops per volume read",
    "cache1": "MONAI CacheDataset (all in RAM), 1 crop per volume",
    "nnunet": "nnU-Net 2 (nnUNetDatasetBlosc2)",
}


def make(folder: Path) -> None:
    """Write the subjects: a noisy body in air with ellipsoids of different sizes as organs."""
    import nibabel as nib
    from scipy.ndimage import zoom

    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE], indexing="ij", sparse=True)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=[n // 25 for n in SHAPE]).astype(np.float32)
    tissue = 60 * zoom(coarse, 25, order=1) + 25 * rng.standard_normal(SHAPE, dtype=np.float32)
    air = np.broadcast_to((axes[0] / 0.8) ** 2 + (axes[1] / 0.55) ** 2 > 1, SHAPE)
    rows = []
    for number in range(SUBJECTS):
        label = np.zeros(SHAPE, dtype=np.uint8)
        for value in range(1, len(ORGANS) + 1):
            centre, radius = rng.uniform(-0.45, 0.45, 3), rng.uniform(0.03, 0.25, 3)
            label[sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius, strict=True)) < 1] = value
        image = np.where(
            air, np.float32(-1024), np.roll(tissue, 10 * number, axis=2) + np.float32(15) * label
        )
        name = f"s{number:02d}"
        nib.save(nib.Nifti1Image(image, affine), folder / f"{name}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_label.nii")
        rows.append(f"{name},ct,{name}.nii,{name}_label.nii,HU,,train,here")
    for count in (FEW, SUBJECTS):
        head = "subject,modality,image,label,units,tracer_or_sequence,split,site"
        (folder / f"{count}.csv").write_text("\n".join([head, *rows[:count]]) + "\n")
        names = ", ".join(f"{organ}: {value}" for value, organ in enumerate(ORGANS, start=1))
        (folder / f"{count}.yaml").write_text(f"structures: {{{names}}}\n")


def umdseg(folder: Path, subjects: int, workers: int) -> Iterator[int]:
    """Patches from the prepared cache; 0 once it is filled."""
    from umdseg.backbones.card import Intensity
    from umdseg.data.datamodule import PairedDataModule
    from umdseg.data.preprocess import Preprocessing
    from umdseg.data.sources.manifest import ManifestOptions, ManifestSource

    serving: Any = {"batch_size": BATCH, "workers": workers, "augment": False, "patches_per_epoch": 100_000}
    files = {"manifest": str(folder / f"{subjects}.csv"), "cache_dir": str(folder / "umdseg")}
    options = ManifestOptions(modalities=["ct"], train_modalities={"ct": 1.0}, **files, **serving)
    card = Preprocessing((SPACING,) * 3, {"ct": Intensity("window", *HU)}, None, (WINDOW,) * 3)
    data = ManifestSource(options).load(0)
    module = PairedDataModule(data, options, card, (WINDOW,) * 3, list(data.structures), 0)
    module.prepare_data()
    yield 0
    for batch in module.train_dataloader():
        yield len(batch.image)


def monai(kind: str, crops: int) -> Callable[[Path, int, int], Iterator[int]]:
    """Patches as in MONAI's tutorials: deterministic transforms cached, then RandCropByPosNegLabeld."""
    made: dict[int, Any] = {}

    def dataset(folder: Path, subjects: int) -> Any:
        from monai import transforms as t
        from monai.data import CacheDataset, PersistentDataset

        keys = ["image", "label"]
        chain = t.Compose(
            [
                t.LoadImaged(keys),
                t.EnsureChannelFirstd(keys),
                t.ScaleIntensityRanged("image", *HU, 0.0, 1.0, clip=True),
                t.Orientationd(keys, "RAS", labels=None),
                t.Spacingd(keys, (SPACING,) * 3, mode=("bilinear", "nearest")),
                t.RandCropByPosNegLabeld(
                    keys, "label", (WINDOW,) * 3, pos=3, neg=1, num_samples=crops, image_key="image"
                ),
            ]
        )
        named = [(folder / f"s{n:02d}.nii", folder / f"s{n:02d}_label.nii") for n in range(subjects)]
        items = [dict(zip(keys, files, strict=True)) for files in named]
        if kind == "cache":
            return CacheDataset(items, chain, progress=False, num_workers=2)
        found = PersistentDataset(items, chain, cache_dir=folder / "persistent")
        if not any((folder / "persistent").glob("*.pt")):
            for item in items:
                found._cachecheck(item)
        return found

    def patches(folder: Path, subjects: int, workers: int) -> Iterator[int]:
        from monai.data import DataLoader

        if subjects not in made:
            made[subjects] = dataset(folder, subjects)
        yield 0
        size = max(BATCH // crops, 1)
        while True:
            for batch in DataLoader(made[subjects], batch_size=size, shuffle=True, num_workers=workers):
                yield len(batch["image"])

    return patches


def nnunet(folder: Path, subjects: int, workers: int) -> Iterator[int]:
    """Patches from nnU-Net's own files, dataset, loader and worker pool."""
    import nibabel as nib
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2 as Dataset

    own, values = folder / "nnunet", list(range(1, len(ORGANS) + 1))
    own.mkdir(exist_ok=True)
    names = [f"s{number:02d}" for number in range(subjects)]
    blocks, chunks = comp_blosc2_params((1, *SHAPE), (WINDOW,) * 3)
    for name in names:
        if not (own / f"{name}.pkl").is_file():
            raw = np.asarray(nib.load(folder / f"{name}.nii").dataobj, dtype=np.float32)
            image = np.clip((raw - HU[0]) / (HU[1] - HU[0]), 0, 1)[None]
            label = np.asarray(nib.load(folder / f"{name}_label.nii").dataobj).astype(np.int8)[None]
            told = {"class_locations": DefaultPreprocessor._sample_foreground_locations(label, values)}
            Dataset.save_case(image, label, told, str(own / name), chunks, blocks, chunks, blocks)
    yield 0
    labels = SimpleNamespace(all_labels=values, has_ignore_label=False)
    size = (WINDOW,) * 3
    loader = nnUNetDataLoader(
        Dataset(str(own), names), BATCH, size, size, labels, 0.75, probabilistic_oversampling=True
    )
    if workers:
        loader = NonDetMultiThreadedAugmenter(loader, None, workers, 2, pin_memory=False)
    try:
        while True:
            yield len(next(loader)["data"])
    finally:
        if workers:
            loader._finish()


CONTENDERS: dict[str, Callable[[Path, int, int], Iterator[int]]] = {
    "umdseg": umdseg,
    "persistent1": monai("persistent", 1),
    "persistent4": monai("persistent", 4),
    "cache1": monai("cache", 1),
    "nnunet": nnunet,
}


def speed(patches: Iterator[int]) -> tuple[float, float]:
    """Patches per second, and this process's CPU seconds per patch, after some that fill queues."""
    for _ in range(5):
        next(patches)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < SECONDS:
        count += next(patches)
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count


def serve(name: str, folder: Path, subjects: int) -> None:
    """In a process of its own: prepare if that is not done, then serve patches; print what each mode gave."""
    for workers in WORKERS if subjects == SUBJECTS else WORKERS[-1:]:
        patches = CONTENDERS[name](folder, subjects, workers)
        print(json.dumps([workers, *speed(patches)]), flush=True)
        patches.close()  # type: ignore[attr-defined]


def memory(process: int) -> tuple[float, float]:
    """Gigabytes of a process and its children, shared pages counted once: all, and without the page cache.

    PSS of /proc/PID/smaps_rollup (Linux 5.10 or newer).
    """
    total, own, todo = 0.0, 0.0, [process]
    while todo:
        root = Path("/proc") / str(todo.pop())
        try:
            for thread in root.glob("task/*/children"):
                todo += [int(child) for child in thread.read_text().split()]
            lines = [line.split() for line in (root / "smaps_rollup").read_text().splitlines()[1:]]
        except OSError:
            continue  # ended meanwhile
        found = {line[0]: float(line[1]) / 1e6 for line in lines}
        total += found["Pss:"]
        own += found["Pss_Anon:"] + found["Pss_Shmem:"]
    return total, own


def run(name: str, folder: Path, subjects: int) -> dict[str, Any]:
    """Run one contender and watch its memory."""
    command, peak = [sys.executable, __file__, name, str(folder), str(subjects)], (0.0, 0.0)
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while process.poll() is None:
            total, own = memory(process.pid)
            peak = max(peak[0], total), max(peak[1], own)
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        told = [json.loads(line) for line in out.read().splitlines() if line.startswith("[")]
    print(name, subjects, told, peak, file=sys.stderr)
    rates = {workers: rate for workers, rate, _ in told}
    return {"rates": rates, "cpu": {w: cpu for w, _, cpu in told}, "total": peak[0], "own": peak[1]}


def main(folder: Path) -> None:
    """Run all contenders in turns and print the section; what the folder holds already is used."""
    names = [n for n in CONTENDERS if n != "nnunet" or importlib.util.find_spec("nnunetv2")]
    if not (folder / f"{SUBJECTS}.csv").is_file():
        make(folder)
    for name in set(names) - {"persistent4", "cache1"}:  # the one shares a cache, the other has none
        run(name, folder, SUBJECTS)
    few = {name: run(name, folder, FEW) for name in names}
    rounds = [{name: run(name, folder, SUBJECTS) for name in names} for _ in range(ROUNDS)]
    print(section(names, few, rounds))


def section(names: list[str], few: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    """The Markdown of RESULTS.md."""

    def middle(name: str, what: str, workers: int) -> float:
        return statistics.median(one[name][what][workers] for one in rounds)

    def peak(name: str, what: str) -> float:
        return max(one[name][what] for one in rounds)

    lines = []
    for name in names:
        row = [NAMES[name]]
        for workers in WORKERS:
            own, its = middle("umdseg", "rates", workers), middle(name, "rates", workers)
            row.append(f"{its:.1f} ({own / its:.1f})")
        own, its = middle("umdseg", "cpu", 0), middle(name, "cpu", 0)
        row.append(f"{1000 * its:.1f} ({its / own:.1f})")
        row += [f"{few[name]['own']:.2f}", f"{peak(name, 'own'):.2f}", f"{peak(name, 'total'):.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    if "nnunet" not in names:
        lines.append("\nnnunetv2 was not installed, so nnU-Net's loader was not measured.")
    head = ["", *(f"patches/s, {w} workers (umdseg / it)" for w in WORKERS)]
    head += ["CPU ms per patch, 0 workers (it / umdseg)"]
    head += [f"own memory, {FEW} subjects", f"{SUBJECTS} subjects", "with file pages"]
    return f"""## Training patches

`python benchmarks/run.py data`: {SUBJECTS} whole-body volumes of {SHAPE} voxels ({len(ORGANS)} structures,
float32), random patches of {WINDOW}^3, three in four on foreground, batches of {BATCH}, no augmentation.
Preparation is not timed, and what was prepared lies in the page cache. Median of {ROUNDS} interleaved rounds
of {SECONDS:g} s, one thread per process, {os.cpu_count()} cores. CPU time depends less than patches per
second on what else the machine does. Memory is the peak in GB of the process and its workers, shared pages
counted once (PSS): its own (anonymous and shared memory), then with mapped file pages, which the system takes
back when it needs them.

| {" | ".join(head)} |
|{"---|" * len(head)}
""" + "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    elif len(sys.argv) == 2:  # a folder to keep
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
