"""How long fitting itself took."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback


class FitClock(Callback):
    """Counts the seconds from the first batch to the end of training, validation included.

    A resumed run goes on counting from its checkpoint, so that the sum is what the kept steps took.
    It stands before the evaluation among the callbacks: scoring does not count.

    Attributes:
        seconds: counted so far.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._start: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Start with the first batch."""
        if self._start is None:
            self._start = time.monotonic()

    def on_train_end(self, *arguments: Any) -> None:
        """Stop."""
        self._before, self._start = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's count."""
        self._before = float(state_dict["seconds"])
