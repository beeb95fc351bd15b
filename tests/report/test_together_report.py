"""Scans given together in page, pictures and terminal: a column of their own, and no gap of theirs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.evaluation import gap, summarise, write_cases
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.predictions import JointScan, prediction_path, save_prediction, write_index
from umdseg.files import write_json
from umdseg.report import build_report, print_result
from umdseg.report.content import organ_table
from umdseg.report.overlays import overlay
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

GRIDS: dict[Modality, Grid] = {
    "ct": Grid((30, 20, 40), np.diag([3.0, 3, 3, 1])),
    "pet": Grid((22, 15, 30), np.diag([4.0, 4, 4, 1])),
}


Row = dict[str, Any]


def rows(modality: str, dice: float, stage: str = "adapted", subset: str = "", **more: Any) -> list[Row]:
    head = {"dataset": "d", "structure": "liver", "prompt": "auto", "status": "ok", "model": "m"}
    found = {**head, "fusion": "none", "modality": modality, "subset": subset, "stage": stage, **more}
    return [{**found, "subject": f"s{n}", "dice": dice + 0.01 * n} for n in range(3)]


def single() -> list[Row]:
    dice = {"ct": 0.9, "pet": 0.5}
    return [r for s in ("zero_shot", "adapted") for m, d in dice.items() for r in rows(m, d, s)]


def joint() -> list[Row]:
    more = {"fusion": "late"}
    return rows("ct+pet", 0.7, subset="ct+pet", **more) + rows("ct+pet", 0.3, subset="ct", **more)


def written(folder: Path, table: Any) -> Path:
    write_cases(table, folder)
    write_json(folder / "gap.json", {**gap(table, 200), "adapter": {"trainable": 0, "total": 10}})
    return folder


def shown(table: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_result(table, gap(table, 200), console=console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_each_subset_has_its_own_mean_and_stands_after_the_single_scans() -> None:
    table = case_table([*joint(), *single()])
    summary = summarise(table, n_resamples=200)
    macro = summary[summary["structure"] == "macro"]
    means = macro.set_index(["modality", "stage"])["mean"]
    assert means["ct+pet", "adapted"] == pytest.approx(0.71)
    assert means["ct+pet given ct", "adapted"] == pytest.approx(0.31)
    assert means["ct", "adapted"] == pytest.approx(0.91)
    columns = organ_table(summary, "auto")["columns"]
    assert list(dict.fromkeys(m for m, _ in columns)) == ["ct", "pet", "ct+pet", "ct+pet given ct"]


def test_the_terminal_lists_them_beside_the_gap_of_single_scans() -> None:
    lines = shown(case_table([*joint(), *single()]), width=80).splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    heads = [row for row in cells if row[-1] in ("PET", "CT+PET given CT")]
    assert heads == [["CT", "PET"], ["CT+PET", "CT+PET given CT"]]
    adapted = [row[1:] for row in cells if row[0] == "adapted"]
    assert adapted == [["0.910", "0.510"], ["0.710", "0.310"]]
    assert len([row for row in cells if row[0] == "gap before"]) == 1
    assert "…" not in "".join(lines)
    assert any(line.startswith("CT+PET, CT+PET given CT: the model was given") for line in lines)


def test_a_table_of_scans_given_together_alone_speaks_of_no_gap(tmp_path: Path) -> None:
    table = case_table(rows("ct+pet", 0.4, "zero_shot", "ct+pet"))
    said = shown(table)
    assert "0.410" in said
    assert "gap = " not in said
    assert "no gap" not in said
    page = build_report(written(tmp_path, table)).read_text()
    assert "Scores of m" in page
    assert "Modality gap of" not in page
    assert "3 subjects (3 CT+PET)" in page
    card = page[page.index('data-together="ct+pet"') :]
    assert float(re.search(r'data-value="([^"]+)"', card)[1]) == pytest.approx(0.41)  # type: ignore[index]
    assert "No subject has two modalities" not in page
    assert 'data-reference="' not in page


def test_gaps_on_the_page_are_those_of_the_single_scans(tmp_path: Path) -> None:
    alone = written(tmp_path / "a", case_table(single()))
    both = written(tmp_path / "b", case_table([*single(), *joint()]))
    pages = [build_report(folder).read_text() for folder in (alone, both)]
    tables = [re.findall(r"<tr data-reference=.*?</tr>", page, re.DOTALL) for page in pages]
    assert tables[0] == tables[1] != []
    assert "CT+PET given CT" in pages[1]
    assert "CT+PET" not in pages[0]
    assert json.loads((alone / "gap.json").read_text()) == json.loads((both / "gap.json").read_text())


def test_baselines_stay_in_the_columns_of_single_scans(tmp_path: Path) -> None:
    baseline = {"model": "intensity", "stage": "supervised"}
    table = case_table([*rows("ct+pet", 0.4, "zero_shot", "ct+pet"), *rows("pet", 0.2, **baseline)])
    page = build_report(written(tmp_path, table)).read_text()
    body = page[page.index('data-model="m"') :]
    cells = re.findall(r"<td>([^<]*)</td>", body)
    assert cells[:5] == ["m", "–", "–", "–", "0.410"]
    assert cells[5:10] == ["intensity", "–", "0.210", "–", "–"]


def test_the_picture_shows_the_reference_scan_with_the_other_over_it(tmp_path: Path) -> None:
    scans: dict[Modality, Scan] = {}
    for m, grid in GRIDS.items():
        image = np.full(grid.shape, -100.0 if m == "ct" else 0.1, np.float32)
        image[0, 0, 0] += 1
        if m == "pet":
            image[: grid.shape[0] // 2] = 4.5
        label = np.zeros(grid.shape, np.int16)
        label[5:15, 5:12, 8:20] = 1
        write_volume(Volume(image, grid), tmp_path / f"{m}.nii.gz")
        write_volume(Volume(label, grid), tmp_path / f"{m}_label.nii.gz")
        given = tmp_path / f"{m}_label.nii.gz" if m == "ct" else None
        scans[m] = Scan(tmp_path / f"{m}.nii.gz", m, UNITS[m], given)
    one, folder = Subject("s0", scans), tmp_path / "predictions"
    path = prediction_path(folder, "s0", "ct+pet", "zero_shot", "auto")
    assert path.name == "ct+pet__zero_shot__auto.nii.gz"
    save_prediction(np.ones(GRIDS["ct"].shape, np.int16), GRIDS["ct"], path)
    write_index(folder, one, {"liver": 1}, {"ct+pet": JointScan(("ct", "pet"), "ct", "ct")})
    table = case_table(rows("ct+pet", 0.4, "zero_shot", "ct+pet"))
    drawn = overlay(folder, "s0", table)
    assert drawn is not None
    pixels = np.asarray(Image.open(io.BytesIO(drawn[0])))
    # uptake is coloured over the grey CT on its own side only: x grows to the patient's right, left here
    colour = np.ptp(pixels[..., :3].astype(int), axis=-1) > 60
    height, width = colour.shape
    inner = colour[height // 3 : 2 * height // 3]
    assert inner[:, width // 2 + 10 :].mean() > 0.25 > inner[:, : width // 2 - 10].mean()
