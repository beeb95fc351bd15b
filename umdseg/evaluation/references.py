"""The reference labels of one subject, and the clicks and boxes taken from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import scan_grids
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_label
from umdseg.prompts.boxes import Box, loosened, tight_box
from umdseg.prompts.clicks import first_click
from umdseg.seeds import generator
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

    @property
    def place(self) -> Millimetres:
        """What a prompt of the kind is made of."""
        return self.point


@dataclass(frozen=True)
class DrawnBox:
    """A box in patient millimetres (RAS+).

    Attributes:
        box: lower and upper corner.
        condition: "" when drawn around the reference modality's mask, else around whose (the case table
            keeps it).
    """

    box: Box
    condition: str = ""

    @property
    def place(self) -> Box:
        """What a prompt of the kind is made of."""
        return self.box


def read_references(
    subject: Subject, dataset: PairedDataset, grids: Mapping[Modality, Grid] | None = None
) -> dict[Modality, Volume]:
    """Label maps of all scans that have one, each on its file's grid.

    That is the scan's own grid or, where the subject's scans share a label, another scan's. A file
    that several scans name is read once.

    Raises:
        UserError: a label is unreadable, on a grid of none of the scans, or has unknown ids.
    """
    grids = scan_grids(subject) if grids is None else grids
    allowed = list(dataset.structures.values())
    read: dict[Path, Volume] = {}
    references: dict[Modality, Volume] = {}
    for modality, scan in subject.scans.items():
        if scan.label is None:
            continue
        if scan.label not in read:
            read[scan.label] = read_label(
                scan.label, grids[modality], allowed, subject.id, others=grids.values()
            )
        references[modality] = read[scan.label]
    return references


def first_clicks(
    references: Mapping[Modality, Volume],
    reference: Modality,
    structures: Mapping[str, int],
    grid: Grid | None = None,
) -> dict[str, Click]:
    """One first click per structure, the same for every scan of the subject.

    It is the distance-transform maximum of the intersection of all the subject's masks of the
    structure on the reference grid. Scans without the structure do not take part. Where the
    masks share no voxel, the reference modality's own mask is used and `condition` says so.

    Args:
        references: label map per modality.
        reference: modality whose label is the reference.
        structures: name -> label id.
        grid: the reference grid; None takes that of the reference's label.

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
        first, own = shown[0]
        point = first_click([mask for _, mask in shown], own[1] if grid is None else grid)
        if point is not None:
            clicks[name] = Click(point)
        elif (fallback := first_click([own], own[1])) is not None:
            clicks[name] = Click(fallback, f"click_from_{first}")
    return clicks


def drawn_boxes(
    references: Mapping[Modality, Volume],
    reference: Modality,
    structures: Mapping[str, int],
    margin_mm: float,
    jitter_mm: float,
    seed: int,
    subject: str,
) -> dict[str, DrawnBox]:
    """One box per structure, the same for every scan of the subject.

    It is drawn around the reference modality's mask or, where that lacks the structure, around the first
    other scan's, and `condition` says so.

    Args:
        references: label map per modality.
        reference: modality whose masks come first.
        structures: name -> label id.
        margin_mm: how far boxes reach beyond the masks.
        jitter_mm: by how much each face moves at random.
        seed: of the run.
        subject: whose boxes; the same subject gets the same jitter.

    Returns:
        Boxes by structure; a structure that no scan shows has none.
    """
    boxes: dict[str, DrawnBox] = {}
    for name, label in structures.items():
        for modality in sorted(references, key=lambda m: m != reference):
            labels = references[modality]
            box = tight_box(labels.array == label, labels.grid)
            if box is not None:
                rng = generator(seed, "box", subject, name)
                condition = "" if modality == reference else f"box_from_{modality}"
                boxes[name] = DrawnBox(loosened(box, margin_mm, jitter_mm, rng), condition)
                break
    return boxes
