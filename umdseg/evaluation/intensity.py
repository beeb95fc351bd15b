"""The best classifier that sees one voxel's intensity and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.dataset import PairedDataset
from umdseg.data.io.nifti import read_image
from umdseg.data.resampling import resample_labels
from umdseg.evaluation.references import read_references
from umdseg.progress import track
from umdseg.vocabulary import MODALITIES, Modality, Subject

# bin edges: HU; SUV; for MR (no unit) shares of the scan's 99th percentile
_EDGES: dict[Modality, NDArray[np.float64]] = {
    "ct": np.arange(-1050.0, 1550.0, 4.0),
    "pet": np.concatenate([np.arange(0.0, 5.0, 0.02), np.geomspace(5.0, 60.0, 200)]),
    "mr": np.arange(0.0, 2.0, 0.005),
}


@dataclass(frozen=True)
class IntensityClassifier:
    """The best classifier that sees one voxel's intensity.

    Attributes:
        positive: per modality and structure, which intensity bins are called positive.
    """

    positive: Mapping[tuple[Modality, str], NDArray[np.bool_]]

    def predict(
        self, bins: NDArray[np.int16], modality: Modality, structure: str
    ) -> NDArray[np.bool_] | None:
        """Mask of one structure, None when training never showed it in this modality.

        Args:
            bins: (X, Y, Z) from `intensity_bins`, the same for all structures of a scan.
            modality: of the scan.
            structure: asked for.
        """
        positive = self.positive.get((modality, structure))
        return None if positive is None else positive[bins]


def fit_intensity(
    dataset: PairedDataset,
    subjects: Sequence[Subject],
    modalities: Sequence[Modality] = MODALITIES,
    structures: Sequence[str] | None = None,
    progress: bool = True,
) -> IntensityClassifier:
    """Fit on whole training scans.

    Among all sets of intensity bins, the set with the best Dice is a superlevel set of the
    posterior p(structure | bin) (Lipton et al., ECML 2014), so sorting bins by it and cutting at
    the best place is optimal, not a heuristic. Each structure is learned from the subjects whose labels
    tell about it (`Subject.annotated`): in the others, its voxels would stand in as background.

    Args:
        dataset: names and ids of the structures.
        subjects: training subjects.
        modalities: fitted one by one.
        structures: None means all of the dataset.
        progress: tell progress on standard error.
    """
    names = dataset.select(structures)
    inside: dict[tuple[Modality, str], NDArray[np.float64]] = {}
    total: dict[tuple[Modality, str], NDArray[np.float64]] = {}
    for subject in track(subjects, "fit the intensity baseline", "subject", progress):
        for modality, reference in read_references(subject, dataset).items():
            if modality not in modalities:
                continue
            image = read_image(subject.scans[modality].image, subject.id)
            truth = resample_labels(reference, image.grid)
            size = len(_EDGES[modality]) + 1
            counts = _counts(intensity_bins(image.array, modality), size, truth)
            for name in filter(subject.tells, names):
                key, label = (modality, name), dataset.structures[name]
                own = counts[label] if label < len(counts) else np.zeros(size)
                inside[key] = inside.get(key, np.zeros(size)) + own
                total[key] = total.get(key, np.zeros(size)) + counts.sum(axis=0)
    return IntensityClassifier(
        {key: best_bins(counts, total[key]) for key, counts in inside.items() if counts.any()}
    )


def intensity_bins(values: NDArray[Any], modality: Modality) -> NDArray[np.int16]:
    """Bin number of every voxel (X, Y, Z); MR, which has no unit, is scaled by its 99th percentile."""
    if modality == "mr":
        values = values / max(float(np.percentile(values, 99)), 1e-6)
    bins = np.empty(values.shape, dtype=np.int16)
    # a slice at a time: numpy looks up whole scans in copies four times their size
    for x, plane in enumerate(values):
        bins[x] = np.searchsorted(_EDGES[modality], plane, side="right")
    return bins


def _counts(bins: NDArray[np.int16], size: int, truth: NDArray[np.int16]) -> NDArray[np.float64]:
    """(ids, size) voxels per label id, 0 included, and intensity bin, counted in one pass."""
    ids = int(truth.max()) + 1
    both = truth.astype(np.intp).ravel() * size + bins.ravel()
    return np.bincount(both, minlength=ids * size).reshape(ids, size).astype(float)


def best_bins(inside: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The bins whose union has the best Dice with the structure.

    Args:
        inside: (bins,) voxels of the structure per bin.
        total: (bins,) all voxels per bin.
    """
    posterior = np.divide(inside, total, out=np.zeros_like(inside), where=total > 0)
    order = np.argsort(-posterior, kind="stable")
    dice = 2 * np.cumsum(inside[order]) / (np.cumsum(total[order]) + inside.sum())
    positive = np.zeros(len(total), dtype=bool)
    positive[order[: int(np.argmax(dice)) + 1]] = True
    return positive
