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
        dropout: probability with which each modality of a training sample is left out; one is always kept.
            0 trains on complete samples only, and says nothing of what happens when a scan is missing.
        subsets: score every subset of the modalities (2^M - 1), not only all of them together.
    """

    name: str = "none"
    path: str | None = None
    dropout: float = 0.25
    subsets: bool = True

    def validate(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a probability outside 0 <= p < 1.
        """
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"modalities cannot be dropped with probability {self.dropout}",
                where="fusion.dropout",
                expected="0 <= dropout < 1",
            )
