"""A network trained from scratch: its rows are the supervised reference, before training there is nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from umdseg.evaluation import gap
from umdseg.runs import door

UNET = ["model=unet", "model.width=4", "model.levels=3", "model.spacing=[6,6,6]", "model.window=[32,32,32]"]


def run(which: str, overrides: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    status = door.main(which, overrides)
    out, err = capfd.readouterr()
    assert status == 0, err
    return Path(out.strip()), err


def test_a_network_trained_from_scratch_is_the_supervised_reference(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit.steps=2", "adapter=full"]
    folder, said = run("train", [*small, *UNET, *fit], capfd)
    assert "no zero-shot evaluation: unet starts at random" in said
    cases = pd.read_parquet(folder / "cases.parquet")
    assert set(cases["stage"]) == {"supervised"}
    assert set(cases["status"]) == {"ok"}
    result = json.loads((folder / "gap.json").read_text())
    assert {entry["stage"] for entry in result["gaps"]} == {"supervised"}
    assert result["closure"] == result["forgetting"] == []
    assert "Trained from scratch. The network started from random weights" in " ".join(said.split())
    page = (folder / "report.html").read_text()
    assert "<h1>Modality gap of unet, trained from scratch</h1>" in page
    assert "was not trained" not in page
    assert "of the supervised network" in page
    number = next(e["gap"] for e in result["gaps"] if e["target"] == "pet")
    cell = re.search(r'<td class="supervised">(.*?)</td>', page, re.S)
    assert cell is not None
    assert f"{number:.3f}".replace("-", "−") in cell[1].replace("-", "−")

    # model, its size and its window are those of training, without being named
    again, said = run("evaluate", [*small, f"adapter.path={folder}"], capfd)
    assert "as in training: model.width=4 model.levels=3 model.spacing=[6.0,6.0,6.0]\n" in said
    scored = pd.read_parquet(again / "cases.parquet")
    assert set(scored["stage"]) == {"supervised"}
    keys = ["subject", "modality", "structure", "score_grid"]
    one, other = (t.set_index(keys)["dice"].sort_index() for t in (cases, scored))
    pd.testing.assert_series_equal(one, other)

    # another size is another network, and told as such
    odd = ["model=unet", "model.width=8", f"adapter.path={folder}"]
    assert door.main("evaluate", [*small, *odd]) == 1
    assert "model.width 4, not 8" in capfd.readouterr().err

    # beside another model it is what that is held against
    beside, said = run("evaluate", [*small, f"evaluation.supervised=[{folder}]"], capfd)
    both = pd.read_parquet(beside / "cases.parquet")
    assert both.groupby("stage")["model"].unique().map(list).to_dict() == {
        "supervised": ["unet"],
        "zero_shot": ["vista3d_tiny"],
    }
    (entry,) = [e for e in json.loads((beside / "gap.json").read_text())["excess"] if e["target"] == "pet"]
    means = both[both["score_grid"] == "label"].groupby(["structure", "stage", "modality"])["dice"].mean()
    gaps = means["liver"].unstack()["ct"] - means["liver"].unstack()["pet"]
    assert entry["value"] == pytest.approx(gaps["zero_shot"] - gaps["supervised"])
    assert (entry["supervised"], entry["n_structures"]) == (pytest.approx(gaps["supervised"]), 1)
    page = (beside / "report.html").read_text()
    assert "<h1>Modality gap of vista3d_tiny</h1>" in page
    assert f'<td class="excess-before"><span data-value="{entry["value"]}">' in page
    assert "excess before" in said
    # the same runs by another way are the same run; none of them is another
    assert run("evaluate", [*small, f"evaluation.supervised=[{folder}/]"], capfd)[0] == beside

    # beside a model's own rows it answers as a stage of its own
    model = cases.assign(stage="zero_shot", model="vista3d", adapter="none", dice=0.9)
    merged = gap(pd.concat([model, cases]), n_resamples=100)
    found = {e["stage"]: e["gap"] for e in merged["gaps"] if (e["reference"], e["target"]) == ("ct", "pet")}
    assert found["zero_shot"] == pytest.approx(0)
    own = cases[(cases["score_grid"] == "label") & cases["modality"].isin(["ct", "pet"])]
    alone = own.groupby(["subject", "modality"])["dice"].mean()
    expected = (alone.xs("ct", level="modality") - alone.xs("pet", level="modality")).mean()
    assert found["supervised"] == pytest.approx(expected)


def test_adapters_on_it_and_other_models_in_full_are_adapted(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, said = run("train", [*small, *UNET, "fit.steps=1", "adapter=lora"], capfd)
    assert "no zero-shot evaluation" in said
    assert set(pd.read_parquet(folder / "cases.parquet")["stage"]) == {"adapted"}
