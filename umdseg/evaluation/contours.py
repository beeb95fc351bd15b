"""Lassos and scribbles of one subject, taken from its reference labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.data.geometry import Volume
from umdseg.prompts.outline import lasso_around
from umdseg.prompts.sections import largest_section
from umdseg.prompts.stroke import scribble_inside
from umdseg.seeds import generator
from umdseg.vocabulary import Contour, Modality, PromptKind

CONTOUR_KINDS: tuple[PromptKind, ...] = ("lasso", "scribble")


@dataclass(frozen=True)
class DrawnContour:
    """A lasso or scribble in patient millimetres (RAS+).

    Attributes:
        contour: the line.
        condition: "" when drawn on the reference modality's mask, else on whose (the case table keeps it).
    """

    contour: Contour
    condition: str = ""

    @property
    def place(self) -> Contour:
        """What a prompt of the kind is made of."""
        return self.contour


def drawn_contours(
    references: Mapping[Modality, Volume],
    reference: Modality,
    structures: Mapping[str, int],
    kind: PromptKind,
    margin_mm: float,
    jitter_mm: float,
    seed: int,
    subject: str,
) -> dict[str, DrawnContour]:
    """One lasso or scribble per structure, the same for every scan of the subject.

    It is drawn on the largest axial cross-section of the reference modality's mask or, where that lacks the
    structure, of the first other scan's, and `condition` says so.

    Args:
        references: label map per modality.
        reference: modality whose masks come first.
        structures: name -> label id.
        kind: lasso or scribble.
        margin_mm: how far lassos reach beyond the masks.
        jitter_mm: by how much lassos wander at random at most.
        seed: of the run.
        subject: whose contours; the same subject gets the same jitter.

    Returns:
        Contours by structure; a structure that no scan shows has none.
    """
    order: Sequence[Modality] = sorted(references, key=lambda m: m != reference)
    drawn: dict[str, DrawnContour] = {}
    for name, label in structures.items():
        for modality in order:
            labels = references[modality]
            section = largest_section(labels.array == label, labels.grid)
            if section is None:
                continue
            rng = generator(seed, kind, subject, name)
            scribble = kind == "scribble"
            line = scribble_inside(section) if scribble else lasso_around(section, margin_mm, jitter_mm, rng)
            drawn[name] = DrawnContour(line, "" if modality == reference else f"{kind}_from_{modality}")
            break
    return drawn
