"""One self-contained HTML page from a run folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg.data.seen import seen_told
from umdseg.evaluation.cases import on_grid, read_cases
from umdseg.evaluation.gap import gap
from umdseg.evaluation.inputs import columns_of, in_order
from umdseg.evaluation.options import BASELINES
from umdseg.evaluation.predictions import median_subjects
from umdseg.evaluation.scans import SCANS, read_scans
from umdseg.evaluation.summary import main_metric, summarise, without_distance
from umdseg.files import write_text
from umdseg.report import words
from umdseg.report.content import (
    baseline_rows,
    gap_rows,
    headlines,
    organ_table,
    scan_rows,
    together_cards,
    unscored_rows,
)
from umdseg.report.figures import gap_forest, organ_dots
from umdseg.report.overlays import overlay

if TYPE_CHECKING:
    import pandas as pd


def build_report(run_folder: Path, overlay_subjects: int = 1) -> Path:
    """Write `report.html` into a run folder from what lies in it.

    Reads cases.parquet, gap.json, scans.csv, provenance.json, config.yaml, and for the pictures
    predictions/ with the scans their `overlays.json` names. Without gap.json the gap is computed anew;
    whatever else is missing leaves its section out. Tables and figures show scores on the labels' grids,
    the table of gaps those on the common grid, too. Scores are the Dice, or what was computed in its place.

    Args:
        run_folder: folder of a run.
        overlay_subjects: how many subjects to picture.

    Returns:
        Path of the report.

    Raises:
        UserError: the folder has no case table.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    run_folder = Path(run_folder)
    cases = read_cases(run_folder)
    result = _json(run_folder / "gap.json") or gap(cases)
    environment = Environment(
        loader=PackageLoader("umdseg.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=words.number,
        structure=words.structure,
        interval=words.interval,
        with_interval=words.with_interval,
    )
    config, provenance = run_folder / "config.yaml", _json(run_folder / "provenance.json")
    page = environment.get_template("template.html.j2").render(
        name=run_folder.resolve().name,
        words=words,
        provenance=provenance,
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        result=result,
        overlays=_overlays(run_folder, cases, overlay_subjects),
        scans=scan_rows(read_scans(run_folder / SCANS)),
        seen_notice=_seen(provenance),
        **_tables(on_grid(cases), result),
    )
    path = run_folder / "report.html"
    write_text(path, page)
    return path


def _seen(provenance: Mapping[str, Any]) -> str:
    """What the record of a run says about scored people that were trained on."""
    ids, data = provenance.get("seen") or [], provenance.get("data") or {}
    return seen_told(ids, len(data.get("scored", ids))) if isinstance(ids, list) else ""


def _tables(cases: pd.DataFrame, result: Mapping[str, Any]) -> dict[str, Any]:
    own = cases[~cases["model"].isin(BASELINES)]
    metric = main_metric(cases)
    summary = summarise(cases, metric)
    model = summary[~summary["model"].isin(BASELINES)]
    prompts = [str(p) for p in dict.fromkeys(own["prompt"])]
    return {
        "what": _what(own),
        "metric": metric,
        "blank": int(without_distance(own, metric).sum()),
        "headlines": headlines(result, model, metric),
        "together": together_cards(model),
        "together_notice": words.together_notice(in_order(columns_of(own))),
        "gaps": gap_rows(result),
        "forest": _embed(gap_forest(result["gaps"], metric)),
        "organs": [
            {"prompt": p, "figure": _embed(organ_dots(model, p, metric)), "table": organ_table(model, p)}
            for p in prompts
        ],
        "baselines": baseline_rows(summary),
        "scored": int((cases["status"] == "ok").sum()),
        "unscored": unscored_rows(cases),
        "random_notice": words.random_notice(own["stage"]),
    }


def _what(own: pd.DataFrame) -> dict[str, Any]:
    def joined(column: str) -> str:
        return ", ".join(str(v) for v in dict.fromkeys(own[column]) if str(v))

    # supervised networks from other runs stand beside a model; alone they are what the page is about
    beside = own["stage"] == "supervised"
    own = own if beside.all() else own[~beside]
    seen = own[own["status"] != "modality_absent"]
    counts = seen.groupby(columns_of(seen))["subject"].nunique()
    scans = ", ".join(f"{counts[m]} {words.modality(m)}" for m in in_order(counts.index))
    adapters = [a for a in dict.fromkeys(own["adapter"]) if a != "none"]
    fusions = [f"{f} fusion" for f in dict.fromkeys(own["fusion"]) if f not in ("none", "")]
    return {
        "model": joined("model"),
        "adapter": " and ".join([*map(str, adapters), *fusions]) or "none",
        "stages": list(dict.fromkeys(own["stage"])),
        "dataset": joined("dataset"),
        "subjects": f"{words.count(own['subject'].nunique(), 'subject')} ({scans})",
        "structures": words.count(own["structure"].nunique(), "structure"),
        "prompts": joined("prompt"),
        "split": joined("split"),
    }


def _overlays(run_folder: Path, cases: pd.DataFrame, count: int) -> list[dict[str, str]]:
    folder = run_folder / "predictions"
    pictures = []
    for subject in median_subjects(cases, count):
        found = overlay(folder, subject, cases)
        if found is not None:
            pictures.append({"image": _embed(found[0]) or "", "caption": found[1]})
    return pictures


def _embed(image: bytes | None) -> str | None:
    return None if image is None else "data:image/png;base64," + base64.b64encode(image).decode()


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
