"""prompt=lasso: one lasso per structure, at the same place in every modality of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umdseg.prompts.options import PromptOptions
from umdseg.vocabulary import Contour, Prompt, PromptKind


@dataclass
class LassoOptions(PromptOptions):
    """Lassos have no options of their own; how loose they are is `evaluation.box_margin_mm` and the like."""

    name: str = "lasso"


class LassoPrompts:
    """One lasso per structure, around its largest axial cross-section.

    Lassos come from the reference label, so the model is told the structure's outline on one slice: scores
    are those of (nearly) perfect drawing, not comparable with clicks or classes.
    """

    Options = LassoOptions
    kind: PromptKind = "lasso"

    def __init__(self, options: LassoOptions | None = None) -> None:
        self.options = options or LassoOptions()

    def for_subject(self, structures: Sequence[str], lassos: Mapping[str, Contour]) -> list[Prompt]:
        """Prompts for one subject; structures without a lasso (nothing to draw it around) get none.

        Args:
            structures: canonical names.
            lassos: structure -> closed contour in patient millimetres (RAS+).
        """
        return [Prompt(name, "lasso", contours=(lassos[name],)) for name in structures if name in lassos]
