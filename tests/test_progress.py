"""Progress: silent when short, plain lines with rate and time left when not on a terminal."""

from __future__ import annotations

import itertools

from umdseg import progress


def run(monkeypatch, seconds_per_item: float) -> None:
    clock = itertools.count(0, seconds_per_item)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(range(10), "evaluate", "subject")) == list(range(10))


def test_short_work_says_nothing(monkeypatch, capsys) -> None:
    run(monkeypatch, 0.05)
    assert capsys.readouterr() == ("", "")


def test_long_work_tells_rate_and_time_left_on_standard_error(monkeypatch, capsys) -> None:
    run(monkeypatch, 4.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "evaluate: 1/10 subjects, 4.0 s per subject, 0:36 left"
    assert err.splitlines()[-1].startswith("evaluate: 10/10 subjects")
    assert len(err.splitlines()) < 8


def test_items_without_a_length_are_counted_against_the_given_total(monkeypatch, capsys) -> None:
    clock = itertools.count(0, 4.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(iter("abc"), "render", "scan", total=3)) == list("abc")
    assert capsys.readouterr().err.splitlines()[0].startswith("render: 1/3 scans")
