"""Sweeps: what a method lacks is dropped with a notice, duplicates collapse, typos stay mistakes."""

from __future__ import annotations

import pytest

from umdseg.config.check import ConfigError
from umdseg.config.sweep import plan


def test_four_jobs_of_six() -> None:
    sweep = plan("train", ["adapter=lora,full,none", "adapter.rank=4,8"])
    got = [
        (job.settings.adapter.name, getattr(job.settings.adapter, "rank", None))
        for job in sweep.jobs
        if job.settings
    ]
    assert got == [("lora", 4), ("lora", 8), ("full", None), ("none", None)]
    assert any("adapter=full" in note and "adapter.rank" in note for note in sweep.notices)
    assert any("2 duplicate jobs" in note for note in sweep.notices)


def test_full_product_in_order() -> None:
    sweep = plan("train", ["seed=0,1", "fit.lr=0.1,0.01", "name=x"])
    assert sweep.given == [
        ["seed=0", "fit.lr=0.1", "name=x"],
        ["seed=0", "fit.lr=0.01", "name=x"],
        ["seed=1", "fit.lr=0.1", "name=x"],
        ["seed=1", "fit.lr=0.01", "name=x"],
    ]
    assert sweep.notices == []


def test_range_and_repeated_value() -> None:
    assert len(plan("train", ["seed=range(0,3)"]).jobs) == 3
    assert len(plan("train", ["seed=1,1,2"]).jobs) == 2


def test_option_no_job_has_is_a_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        plan("train", ["adapter=lora,full", "adapter.rnak=4,8"])
    assert [problem.path for problem in caught.value.problems] == ["adapter.rnak"]


def test_mistakes_of_all_jobs_before_the_first_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        plan("train", ["seed=0,one", "model=vista3d_tiny,vista3x"])
    assert {problem.path for problem in caught.value.problems} == {"seed", "model"}
