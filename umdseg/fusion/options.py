"""Options every fusion takes."""

from __future__ import annotations

from dataclasses import dataclass

from umdseg.errors import UserError


@dataclass
class FusionOptions:
    """Options every fusion takes.

    Attributes:
        name: registered name.
        path: folder of a saved fusion (RUN/fusion); then kind, modalities and weights come from it.
        lr: peak learning rate of the fusion's own values; None = its default (with adapter=none: fit.lr).
        dropout: probability with which each modality of a training sample is left out; one is kept where all
            would be. 0 trains on complete samples only and says nothing of missing scans.
        subsets: score every subset of the modalities (2^M - 1), not only all of them together.
    """

    name: str = "none"
    path: str | None = None
    lr: float | None = None
    dropout: float = 0.25
    subsets: bool = True

    def validate(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a probability outside 0 <= p < 1, or a learning rate that is not above 0.
        """
        if self.lr is not None and not self.lr > 0:
            raise UserError(f"a learning rate of {self.lr}", where="fusion.lr", expected="above 0, or null")
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"modalities cannot be dropped with probability {self.dropout}",
                where="fusion.dropout",
                expected="0 <= dropout < 1",
            )
