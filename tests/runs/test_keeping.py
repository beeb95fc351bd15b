"""What was trained is on disk before it is scored, and whom it was trained on is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umdseg.adapters.card import FILE
from umdseg.evaluation.callback import EvaluationCallback
from umdseg.runs import door


def _run(kind: str, overrides: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    assert door.main(kind, overrides) == 0
    out, err = capfd.readouterr()
    return Path(out.strip()), err


@pytest.mark.parametrize("more", [["adapter.rank=2"], ["adapter=full", "trainer.channels_last=true"]])
def test_scores_that_cannot_be_made_cost_no_adapter(
    more: list[str], small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no room for the prediction")

    monkeypatch.setattr(EvaluationCallback, "on_train_end", broken)
    wanted = [*small, *more, "fit.steps=1", "data.structures=[liver]", "callbacks.evaluate_before=false"]
    with pytest.raises(RuntimeError, match="no room"):
        door.main("train", wanted)
    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert (run / "adapter" / FILE).is_file()
    assert json.loads((run / "provenance.json").read_text())["status"] == "failed"


def test_people_who_were_trained_on_are_told_whatever_they_are_called_now(
    small: list[str], manifest: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = [*small, "data.structures=[liver]"]
    run, err = _run("train", [*base, "fit.steps=1", "callbacks.evaluate_before=false"], capfd)
    assert "trained or validated on" not in err
    path = f"adapter.path={run / 'adapter'}"
    told = (run / "adapter" / FILE).read_text()
    assert len(json.loads(told)["seen"]) == 6, "three scans of two people"
    assert "s0" not in told, "the folder of an adapter names nobody"

    new, err = _run("evaluate", [*base, path], capfd)
    assert "trained or validated on" not in err
    assert 'id="seen"' not in (new / "report.html").read_text()

    # the same files under other names, all of them to be tested
    rows = manifest.read_text().splitlines()
    renamed = [rows[0], *(row.replace("s0,", "x0,", 1).replace(",train,", ",test,") for row in rows[1:])]
    other = manifest.with_name("renamed.csv")
    other.write_text("\n".join(renamed) + "\n")
    other.with_suffix(".yaml").write_text("structures: {liver: 1, tumour: 2}\n")
    every = [text for text in base if not text.startswith(("limit_subjects", "data.manifest"))]
    old, err = _run("evaluate", [*every, path, f"data.manifest={other}"], capfd)
    assert "2 of 4 scored subjects were trained or validated on (s1, x0)" in err.replace("x0, s1", "s1, x0")
    assert sorted(json.loads((old / "provenance.json").read_text())["seen"]) == ["s1", "x0"]
    assert "2 of 4 scored subjects" in (old / "report.html").read_text()
