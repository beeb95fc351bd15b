"""What one subject is scored against, on each label's grid and on the common grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import CommonField, Reference, common_field, scan_grids
from umdseg.data.geometry import Grid, Volume
from umdseg.data.resampling import resample_labels
from umdseg.evaluation.contours import CONTOUR_KINDS, DrawnContour, drawn_contours
from umdseg.evaluation.options import EvaluationOptions
from umdseg.evaluation.references import Click, DrawnBox, drawn_boxes, first_clicks, read_references
from umdseg.metrics import score_masks
from umdseg.vocabulary import MODALITIES, Modality, PromptKind, Subject


@dataclass(frozen=True)
class Target:
    """A grid that one scan is scored on.

    Attributes:
        name: the case table's `score_grid`.
        grid: where predictions are wanted.
        truth: (X, Y, Z) labels on it; None: the scan has no label.
        inside: (X, Y, Z) voxels that count; None: all.
    """

    name: str
    grid: Grid
    truth: NDArray[Any] | None
    inside: NDArray[np.bool_] | None = None

    def scores(self, label: int, mask: NDArray[np.bool_], options: EvaluationOptions) -> dict[str, Any]:
        """Scores of one structure's predicted mask (X, Y, Z); there must be a label."""
        truth = np.asarray(self.truth == label)
        if self.inside is not None:
            truth, mask = truth & self.inside, mask & self.inside
        return score_masks(truth, mask, self.grid.spacing, options.metrics, options.tolerance_mm)


@dataclass(frozen=True)
class Truth:
    """Labels, reference grid and common field of view of one subject.

    Attributes:
        subject: whose.
        reference: policy of the reference grid.
        grids: grids of the scans that are scored.
        labels: label map per labelled scan, each on its file's grid.
        grid: the reference grid.
        common: what all of these saw; None where there is one alone or they share no voxel.
    """

    subject: Subject
    reference: Reference
    grids: Mapping[Modality, Grid]
    labels: Mapping[Modality, Volume]
    grid: Grid
    common: CommonField | None
    _moved: dict[int, NDArray[np.int16]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        subject: Subject,
        dataset: PairedDataset,
        reference: Reference,
        modalities: Sequence[Modality] = MODALITIES,
    ) -> Truth:
        """Read the headers of all scans and the labels.

        Args:
            subject: whose.
            dataset: names the ids of the labels.
            reference: the reference grid.
            modalities: scans that are scored; others, such as a small MR beside a whole-body PET/CT, do not
                narrow the common field of view.

        Raises:
            UserError: a header or a label cannot be used.
        """
        grids = scan_grids(subject)
        labels = read_references(subject, dataset, grids)
        scored = {m: grid for m, grid in grids.items() if m in modalities} or grids
        grid = reference.grid(subject, scored if reference.policy == "card" else grids)
        common = common_field(grid, scored.values()) if len(scored) > 1 else None
        return cls(subject, reference, scored, labels, grid, common)

    def clicks(self, structures: Mapping[str, int]) -> dict[str, Click]:
        """First clicks, taken on the reference grid."""
        return first_clicks(self.labels, self.reference.modality(self.subject), structures, self.grid)

    def boxes(
        self, structures: Mapping[str, int], options: EvaluationOptions, seed: int
    ) -> dict[str, DrawnBox]:
        """Boxes around the structures, as loose as the options say."""
        loose = options.box_margin_mm, options.box_jitter_mm
        first = self.reference.modality(self.subject)
        return drawn_boxes(self.labels, first, structures, *loose, seed=seed, subject=self.subject.id)

    def contours(
        self,
        kinds: Sequence[PromptKind],
        structures: Mapping[str, int],
        options: EvaluationOptions,
        seed: int,
    ) -> dict[PromptKind, dict[str, DrawnContour]]:
        """Of the kinds asked for: lassos, as loose as the options say, and scribbles, by structure."""
        loose = options.box_margin_mm, options.box_jitter_mm
        first, subject = self.reference.modality(self.subject), self.subject.id
        return {
            kind: drawn_contours(self.labels, first, structures, kind, *loose, seed=seed, subject=subject)
            for kind in CONTOUR_KINDS
            if kind in kinds
        }

    def targets(self, modality: Modality, score_grids: Sequence[str]) -> list[Target]:
        """What a label is compared with: on its own grid first, on the common one where there is one.

        Args:
            modality: of the scan whose label it is; without one there is only the scan's grid.
            score_grids: those wanted.
        """
        label = self.labels.get(modality)
        if label is not None:
            own = Target("label", label.grid, label.array)
        else:
            own = Target("label", self.grids[modality], None)
        if "common" not in score_grids or self.common is None:
            return [own]
        moved = None if label is None else self._on_common(label, self.common.grid)
        return [own, Target("common", self.common.grid, moved, self.common.inside)]

    def share(self, modality: Modality) -> float | None:
        """Share of a scan's field of view that all scored scans saw; None for a single one."""
        if len(self.grids) < 2:
            return None
        return 0.0 if self.common is None else self.common.share_of(self.grids[modality])

    def _on_common(self, label: Volume, grid: Grid) -> NDArray[np.int16]:
        # scans that share a label share its resampled map
        if id(label) not in self._moved:
            place = grid.within(label.grid)
            part = None if place is None else Volume(label.array[place], grid)
            self._moved[id(label)] = resample_labels(part or label, grid)
        return self._moved[id(label)]
