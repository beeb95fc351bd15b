"""umdseg compare: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from umdseg.cli import main

CT = [0.90, 0.86, 0.92, 0.88, 0.84, 0.87]
PET = [0.30, 0.22, 0.41, 0.35, 0.28, 0.33]
WON = [0.42, 0.47, 0.33, 0.39, 0.44, 0.40]


def scores(more: float = 0.0) -> dict[tuple[str, str], list[float]]:
    after = [a + b + more * (1 + i / 10) for i, (a, b) in enumerate(zip(PET, WON, strict=True))]
    before = {("zero_shot", "ct"): CT, ("zero_shot", "pet"): PET}
    return {**before, ("adapted", "ct"): CT, ("adapted", "pet"): after}


@pytest.fixture
def sweep(run_folders: ModuleType, tmp_path: Path) -> list[str]:
    """Three ranks of LoRA."""
    found = []
    for rank, more in ((4, -0.1), (8, 0.0), (16, 0.02)):
        routes = {"trainable": 2000 * rank, "total": 1_000_000, "routes": ["pet", "mr"]}
        table, settings = run_folders.rows(scores(more)), {"adapter.rank": rank}
        made = run_folders.folder(
            tmp_path / f"lora{rank}", table, settings, adapter=routes, fit_seconds=10.0 + rank
        )
        found.append(str(made))
    return found


@pytest.fixture
def goal(run_folders: ModuleType, tmp_path: Path) -> str:
    """A network trained on PET from scratch."""
    table = run_folders.rows(
        {("supervised", "pet"): [value + 0.5 for value in PET]}, model="resenc_unet", adapter="full"
    )
    settings = {"model.name": "resenc_unet", "adapter.name": "full", "adapter.rank": None}
    return str(run_folders.folder(tmp_path / "goal", table, settings))


def test_table_files_and_figure(sweep: list[str], goal: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "deep" / "out"
    assert (
        main(["compare", *sweep, "--against", goal, "--pairs", "--out", str(out), "--bootstrap", "300"]) == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("PET, prompt auto: Dice; 6 patients × 1 structure")
    assert printed[3].split()[:6] == ["2", "lora", "8", "8,000", "of", "16,000"]
    assert printed[-1] == str(out)
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "comparison.json", "pareto.png"]
    told = json.loads((out / "comparison.json").read_text())
    assert [row["won_back"]["value"] for row in told["rows"]][1] == pytest.approx(sum(WON) / 6 / 0.5)
    assert [entry["first_line"] for entry in told["against_first"]] == [2, 3]
    assert str(tmp_path) not in (out / "comparison.json").read_text()
    with (out / "comparison.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["label"], row["fit_seconds"]) for row in rows] == [
        ("lora 4", "14.0"),
        ("lora 8", "18.0"),
        ("lora 16", "26.0"),
    ]
    assert float(rows[1]["won_back"]) == pytest.approx(sum(WON) / 6 / 0.5)
    Image.open(out / "pareto.png").verify()


def test_no_figure_where_nothing_is_defined(run_folders: ModuleType, tmp_path: Path, capsys: Any) -> None:
    run = run_folders.folder(tmp_path / "r", run_folders.rows({("adapted", "pet"): PET}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "pareto.png").write_bytes(b"of an earlier call")
    assert main(["compare", str(run), "--out", str(out)]) == 0
    assert "no pareto.png: closure is not defined" in capsys.readouterr().err
    assert not (out / "pareto.png").exists()


def test_fused_beats_alone_by_so_much(run_folders: ModuleType, tmp_path: Path, capsys: Any) -> None:
    """The sentence a researcher wants, from two cross-validations of three folds."""
    folders = {"fused": [], "alone": []}
    for k in range(3):
        names = [f"p{2 * k}", f"p{2 * k + 1}"]
        pet = [a + b for a, b in zip(PET, WON, strict=True)][2 * k : 2 * k + 2]
        both = [value + 0.05 + 0.01 * (-1) ** i for i, value in enumerate(pet)]
        tables = {
            "fused": run_folders.rows(
                {("adapted", "ct+pet"): both, ("adapted", "ct+pet/pet"): pet}, names, ("tumour",), fold=k
            ),
            "alone": run_folders.rows({("adapted", "pet"): pet}, names, ("tumour",), fold=k),
        }
        for name, table in tables.items():
            settings = {"data.fold": k, **({"fusion.name": "late"} if name == "fused" else {})}
            folders[name].append(str(run_folders.folder(tmp_path / f"{name}-{k}", table, settings)))
    asked = ["compare", *folders["alone"], *folders["fused"]]
    assert main([*asked, "--pair", "2:ct+pet", f"{folders['alone'][1]}:pet"]) == 0
    out = capsys.readouterr().out
    assert "CT+PET (2: lora 8 + late) beats PET (1: lora 8) by 0.050 [" in out
    assert "n = 6 patients × 1 structure" in out
    assert "scored on the CT label and on the PET label" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--pair", "1:pet", "9:pet"], "'9' is no line of this comparison"),
        (["--pair", "1:ct+pet", "2:pet"], "unknown scans 'ct+pet'"),
        (["--modality", "mr"], "unknown scans 'mr'"),
        (["--metric", "nsd"], "'nsd' was not computed"),
        (["--grid", "common"], "no zero_shot row of pet is on the common grid"),
        (["--against", "nowhere"], "no provenance.json there"),
    ],
)
def test_mistakes_are_one_screen(sweep: list[str], more: list[str], said: str, capsys: Any) -> None:
    assert main(["compare", *sweep, *more]) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) < 8
    assert told.out == ""


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(
    sweep: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import umdseg.cli.compare as command

    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(command, "_compare", lambda given: pytest.fail("computed"))
        for out in (tmp_path / "file", tmp_path / "file" / "deep"):
            assert main(["compare", *sweep, "--out", str(out)]) == 1
            told = capsys.readouterr()
            assert f"where:    {out}" in told.err
            assert told.out == ""
    # what only shows when writing is a sentence, too
    (tmp_path / "taken" / "comparison.json").mkdir(parents=True)
    assert main(["compare", *sweep, "--out", str(tmp_path / "taken")]) == 1
    told = capsys.readouterr()
    assert "the results cannot be written there: Is a directory" in told.err
    assert f"where:    {tmp_path / 'taken'}" in told.err


def test_a_run_without_the_metric_is_named_with_those_it_has(
    sweep: list[str], run_folders: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    table = run_folders.rows(scores())
    for row in table:
        row["nsd"], row["hd95"], row["dice"] = row["dice"], 3.0, None
    bare = str(run_folders.folder(tmp_path / "bare", table, {"adapter.rank": 2}))
    assert main(["compare", *sweep, bare]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "'dice' was not computed in a run",
        f"  where:    {bare}",
        "  expected: --metric nsd or hd95; or a run with evaluation.metrics=[nsd,hd95,dice]",
        "  did you mean: --metric nsd",
    ]
    assert main(["compare", bare, "--metric", "nsd"]) == 0
    assert "PET, prompt auto: NSD" in capsys.readouterr().out


def test_empty_predictions_without_a_distance_are_counted(
    run_folders: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    """Six people; of one PET before and of two after nothing was predicted."""
    table = run_folders.rows(scores())
    empty = [("s0", "zero_shot"), ("s1", "adapted"), ("s2", "adapted")]
    for row in table:
        gone = row["modality"] == "pet" and (row["subject"], row["stage"]) in empty
        row |= {"hd95": None if gone else 10 * (1 - row["dice"]), "volume_pred_ml": 0.0 if gone else 90.0}
    run = run_folders.folder(tmp_path / "r", table)
    assert main(["compare", str(run), "--metric", "hd95"]) == 0
    why = "no hd95 (empty prediction) and no part in its means"
    told = [line for line in capsys.readouterr().out.splitlines() if "(empty prediction)" in line]
    assert told == [
        f"note: line 1, pet auto, zero_shot: 1 of 6 rows has {why}",
        f"note: line 1, pet auto, adapted: 2 of 6 rows have {why}",
    ]
    assert main(["compare", str(run)]) == 0
    assert "(empty prediction)" not in capsys.readouterr().out


def test_prompts_that_nothing_has_are_a_mistake(sweep: list[str], capsys: Any) -> None:
    assert main(["compare", *sweep, "--prompt", "auot"]) == 1
    assert "did you mean: auto" in capsys.readouterr().err


def test_it_is_listed_with_the_other_commands(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "compare" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "--against" in capsys.readouterr().out
