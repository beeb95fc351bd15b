"""The reference labels of one subject, and the clicks taken from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_grid, read_label
from umdseg.prompts.clicks import first_click
from umdseg.vocabulary import Millimetres, Modality, Subject


@dataclass(frozen=True)
class Click:
    """A first click in patient millimetres (RAS+).

    Attributes:
        point: where.
        condition: "" when it lies in the structure in every scan of the subject, else which
            mask it was taken from (the case table keeps it).
    """

    point: Millimetres
    condition: str = ""


def read_references(subject: Subject, dataset: PairedDataset) -> dict[Modality, Volume]:
    """Label maps of all scans that have one, each on its scan's own grid.

    Raises:
        UserError: a label is unreadable, on another grid than its image, or has unknown ids.
    """
    return {
        modality: read_label(
            scan.label, read_grid(scan.image, subject.id), list(dataset.structures.values()), subject.id
        )
        for modality, scan in subject.scans.items()
        if scan.label is not None
    }


def first_clicks(
    references: Mapping[Modality, Volume], reference: Modality, structures: Mapping[str, int]
) -> dict[str, Click]:
    """One first click per structure, the same for every scan of the subject.

    It is the distance-transform maximum of the intersection of all the subject's masks of the
    structure on the reference grid. Scans without the structure do not take part. Where the
    masks share no voxel, the reference modality's own mask is used and `condition` says so.

    Args:
        references: label map per modality.
        reference: modality whose grid is the reference.
        structures: name -> label id.

    Returns:
        Clicks by structure; a structure that no scan shows has none.
    """
    order: Sequence[Modality] = sorted(references, key=lambda m: m != reference)
    clicks: dict[str, Click] = {}
    for name, label in structures.items():
        masks = [(references[m].array == label, references[m].grid) for m in order]
        shown = [(m, mask) for m, mask in zip(order, masks, strict=True) if mask[0].any()]
        if not shown:
            continue
        first, (own, grid) = shown[0]
        point = first_click([mask for _, mask in shown], grid)
        if point is not None:
            clicks[name] = Click(point)
        elif (fallback := first_click([(own, grid)], grid)) is not None:
            clicks[name] = Click(fallback, f"click_from_{first}")
    return clicks
