"""Options of every nnU-Net model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from umdseg.backbones.options import ModelOptions
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES

CHECKPOINT = "checkpoint_final.pth"


@dataclass
class NnunetOptions(ModelOptions):
    """Which result folder, and what to use of it.

    Attributes:
        folder: a result folder `trainer__plans__configuration`, or one above it; of a release with several
            networks, the folder that holds them. None downloads the release (not for `nnunet`).
        folds: numbers of the folds that are averaged, `[all]` for `fold_all`, or None for every numbered one.
        checkpoint: file inside each fold: checkpoint_final.pth or checkpoint_best.pth.
        mirroring: average over mirrored inputs where the training allows it (8 passes a window instead of 1).
        orientation: axis codes of the images the network was trained on, such as RAS. None: as the release
            says; for a folder of one's own, the image's own axes, as nnU-Net itself does.
        channels: modality of each input channel, where dataset.json does not tell.
        names: label in dataset.json -> structure, where they differ.
        previous: of a cascade, the result folder of the stage before, or one above it. None: the folder
            beside `folder` with its trainer and plans, such as nnUNetTrainer__nnUNetPlans__3d_lowres.
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = (*ModelOptions.ELSEWHERE, "folder", "previous")
    # orientation and channels are on the card, the tensors of folds and checkpoint are hashed
    FREE: ClassVar[tuple[str, ...]] = ("folds", "checkpoint", "mirroring", "orientation", "channels", "names")

    folder: str | None = None
    folds: list[int | str] | None = None
    checkpoint: str = CHECKPOINT
    mirroring: bool = True
    orientation: str | None = None
    channels: list[str] | None = None
    names: dict[str, str] = field(default_factory=dict)
    previous: str | None = None

    def validate(self) -> None:
        """Check what can be checked without the folder.

        Raises:
            UserError: an orientation that is none, an unknown modality.
        """
        axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
        codes = self.orientation
        if codes is not None and sorted(axes.get(code, -1) for code in codes) != [0, 1, 2]:
            raise UserError(
                f"'{codes}' is no orientation",
                where="model.orientation",
                expected="three axis codes, such as RAS or LPS",
            )
        for name in self.channels or ():
            if name not in MODALITIES:
                raise UserError(
                    f"unknown modality '{name}'", where="model.channels", expected=" | ".join(MODALITIES)
                )
