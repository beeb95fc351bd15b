"""The clock of a fit counts training only, and goes on after a stop."""

from __future__ import annotations

import pytest

from umdseg.runs import clock
from umdseg.runs.clock import FitClock


def test_counts_from_the_first_batch_to_the_end_and_on_from_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    fit = FitClock()
    now[0] = 150.0
    assert fit.seconds == 0
    fit.on_train_batch_start()
    now[0] = 157.0
    fit.on_train_batch_start()
    stored = fit.state_dict()
    now[0] = 160.0
    fit.on_train_end()
    now[0] = 500.0
    assert fit.seconds == 10
    resumed = FitClock()
    resumed.load_state_dict(stored)
    resumed.on_train_batch_start()
    now[0] = 503.0
    assert resumed.seconds == 7 + 3
