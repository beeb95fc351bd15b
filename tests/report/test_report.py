"""The page, the table and the pictures, read back."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.errors import UserError
from umdseg.evaluation import gap, write_cases
from umdseg.evaluation.cases import case_table
from umdseg.evaluation.predictions import median_subjects, prediction_path, save_prediction, write_index
from umdseg.evaluation.scans import SCANS, write_scans
from umdseg.evaluation.summary import main_metric
from umdseg.files import write_json
from umdseg.report import build_report, print_result
from umdseg.report.figures import gap_forest, organ_dots
from umdseg.report.overlays import choose_plane, overlay
from umdseg.report.words import metric, terms_notice
from umdseg.vocabulary import UNITS, Scan, Subject

ORGANS = {"liver": 1, "spleen": 2, "left_kidney": 3}
MEANS = {"zero_shot": {"ct": 0.9, "pet": 0.4, "mr": 0.5}, "adapted": {"ct": 0.89, "pet": 0.8, "mr": 0.75}}


def table(stages=("zero_shot", "adapted"), baselines: bool = True):
    rng = np.random.default_rng(0)
    rows = []
    for s in range(5):
        for organ in ORGANS:
            for m in ("ct", "pet", "mr"):
                head = {
                    "dataset": "phantom",
                    "subject": f"p{s}",
                    "split": "test",
                    "modality": m,
                    "structure": organ,
                }
                head |= {"prompt": "auto", "clicks": 0, "model": "tiny", "adapter": "none", "fusion": "none"}
                for stage in stages:
                    row = {**head, "stage": stage, "adapter": "lora" if stage == "adapted" else "none"}
                    absent = (m, s) == ("mr", 4)
                    score = {} if absent else {"dice": MEANS[stage][m] + rng.normal(0, 0.02)}
                    rows.append({**row, **score, "status": "modality_absent" if absent else "ok"})
                if baselines:
                    rows.append(
                        {**head, "model": "intensity", "stage": "supervised", "dice": 0.2, "status": "ok"}
                    )
    return case_table(rows)


def run_folder(folder: Path, **more) -> Path:
    return written(folder, table(**more))


def written(folder: Path, cases: pd.DataFrame) -> Path:
    write_cases(cases, folder)
    result = {**gap(cases, 300), "adapter": {"trainable": 500, "total": 10000}}
    write_json(folder / "gap.json", result)
    weights = {"model": "tiny", "random": True, "licence": "Apache-2.0"}
    write_json(
        folder / "provenance.json", {"command": "python train.py <x>&", "weights": weights, "git": None}
    )
    (folder / "config.yaml").write_text("model:\n  name: tiny\n")
    return folder


def scans(folder: Path, subject: str) -> None:
    found = {}
    for i, m in enumerate(("ct", "pet", "mr")):
        step = (3.0, 4.0, 5.0)[i]
        grid = Grid((int(90 / step), int(60 / step), int(120 / step)), np.diag([step, step, step, 1.0]))
        label = np.zeros(grid.shape, np.int16)
        for k, organ in enumerate(ORGANS.values()):
            z = int((20 + 30 * k) / step)
            label[
                int(20 / step) : int(60 / step), int(20 / step) : int(40 / step), z : z + int(20 / step)
            ] = organ
        image, truth = folder / f"{m}.nii.gz", folder / f"{m}_label.nii.gz"
        write_volume(Volume(label.astype(np.float32) * 50, grid), image)
        write_volume(Volume(label, grid), truth)
        found[m] = Scan(image, m, UNITS[m], truth)
        for stage in ("zero_shot", "adapted"):
            save_prediction(label, grid, prediction_path(folder / "predictions", subject, m, stage, "auto"))
    write_index(folder / "predictions", Subject(subject, found), ORGANS)


class Page(HTMLParser):
    """Tags in order, and the text of the elements that carry a class or an id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data) -> None:
        self.text.append(data)

    def images(self) -> list[str]:
        return [a["src"] for tag, a in self.tags if tag == "img"]

    def ids(self) -> set[str]:
        return {a["id"] for _, a in self.tags if "id" in a}

    def cells(self, **row: str) -> dict[str, tuple[str, str]]:
        """Class of each number cell in the row -> (exact value, shown text)."""
        wanted = {f"data-{k}": v for k, v in row.items()}
        start = next(i for i, (t, a) in enumerate(self.tags) if t == "tr" and wanted.items() <= a.items())
        found, name = {}, ""
        for tag, attributes in self.tags[start + 1 :]:
            if tag == "tr":
                break
            name = attributes.get("class", name) if tag == "td" else name
            if "data-value" in attributes:
                exact = attributes["data-value"]
                shown = re.search(rf'data-value="{re.escape(exact)}">([^<]*)<', self.source)
                found[name] = (exact, shown.group(1) if shown else "")
        return found


def test_page_is_one_file_that_needs_nothing_else(tmp_path) -> None:
    scans(run_folder(tmp_path), "p0")
    page = Page(build_report(tmp_path))
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "@import" not in page.source
    assert "http" not in re.sub(r"base64,[^\"]*", "", page.source)
    for source in page.images():
        Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).verify()


def test_numbers_on_the_page_are_those_of_gap_json(tmp_path) -> None:
    run_folder(tmp_path)
    result = json.loads((tmp_path / "gap.json").read_text())
    page = Page(build_report(tmp_path))
    for target in ("pet", "mr"):
        cells = page.cells(reference="ct", target=target, metric="dice", prompt="auto")
        expected = {
            "before": next(
                e["gap"] for e in result["gaps"] if (e["target"], e["stage"]) == (target, "zero_shot")
            ),
            "after": next(
                e["gap"] for e in result["gaps"] if (e["target"], e["stage"]) == (target, "adapted")
            ),
            "closure": next(e["value"] for e in result["closure"] if e["target"] == target),
            "forgetting": next(e["value"] for e in result["forgetting"] if e["target"] == target),
        }
        for name, value in expected.items():
            exact, shown = cells[name]
            assert float(exact) == value
            assert float(shown) == pytest.approx(value, abs=5.1e-4)
    assert "500" in page.text
    assert any("5.00 %" in text for text in page.text)


def test_random_weights_are_named_as_what_they_are(tmp_path) -> None:
    trained, bare = (
        " ".join(Page(build_report(run_folder(tmp_path / str(len(stages)), stages=stages))).text)
        for stages in (("zero_shot", "adapted"), ("zero_shot",))
    )
    assert "Started from random weights" in trained
    assert "not trained" not in trained
    assert "not trained" in bare
    for stages, words in ((("zero_shot", "adapted"), "Started from random"), (("zero_shot",), "not trained")):
        for weights in (True, False):
            console = Console(file=io.StringIO(), width=200)
            cases = table(stages=stages)
            print_result(cases, gap(cases, 300), console=console, random_weights=weights)
            assert (words in console.file.getvalue()) == weights


@pytest.mark.parametrize(
    ("commercial", "words"),
    [(True, None), (False, "CC-BY-NC-4.0; no commercial use"), (None, "unclear whether commercial use")],
)
def test_terms_of_the_weights_stand_beside_the_numbers(tmp_path, commercial, words) -> None:
    weights = {"model": "tiny", "random": False, "licence": "CC-BY-NC-4.0", "commercial": commercial}
    write_json(run_folder(tmp_path) / "provenance.json", {"weights": weights})
    page = Page(build_report(tmp_path))
    assert ("licence" in page.ids()) == (words is not None)
    console = Console(file=io.StringIO(), width=200)
    cases = table(stages=("zero_shot",))
    print_result(cases, gap(cases, 300), console=console, terms=terms_notice("CC-BY-NC-4.0", commercial))
    assert ("Licence of the weights" in console.file.getvalue()) == (words is not None)
    if words:
        assert words in "".join(page.text)
        assert words in console.file.getvalue()


def test_scan_without_a_label_is_told_from_an_empty_one(tmp_path) -> None:
    head = {"model": "tiny", "stage": "zero_shot", "prompt": "auto", "modality": "pet", "structure": "liver"}
    rows = [
        {**head, "subject": "a", "status": "empty_reference", "condition": "no_label"},
        {**head, "subject": "b", "status": "empty_reference"},
        {**head, "subject": "c", "status": "ok", "dice": 0.5},
    ]
    write_cases(case_table(rows), tmp_path)
    page = Page(build_report(tmp_path))
    assert [tag for tag, a in page.tags if a.get("data-status") == "empty_reference"] == ["tr", "tr"]
    assert {"the scan has no label", "the reference holds no voxel of the structure"} <= set(page.text)


def test_page_says_what_was_not_scored_and_that_weights_are_random(tmp_path) -> None:
    page = Page(build_report(run_folder(tmp_path)))
    assert "random-weights" in page.ids()
    assert ("tr", {"data-status": "modality_absent"}) in page.tags
    assert "python train.py <x>&" in "".join(page.text), "escaped, and read back as it was"
    assert "<x>" not in page.source


def test_baselines_stand_beside_the_model_with_the_reason(tmp_path) -> None:
    page = Page(build_report(run_folder(tmp_path)))
    models = [a["data-model"] for t, a in page.tags if t == "tr" and "data-model" in a]
    assert models == ["tiny", "tiny", "intensity"]
    assert any("single voxels" in text for text in page.text)


def test_sections_that_have_nothing_to_show_are_left_out(tmp_path) -> None:
    write_cases(table(stages=("zero_shot",), baselines=False), tmp_path)
    page = Page(build_report(tmp_path))
    assert {"gap", "structures", "statuses"} <= page.ids()
    assert not {"overlays", "baselines", "adapter", "random-weights"} & page.ids()


def test_overlays_need_their_scans(tmp_path) -> None:
    scans(run_folder(tmp_path), "p0")
    cases = table()
    chosen = cases[(cases.stage == "adapted") & (cases.status == "ok")].groupby("subject").dice.mean()
    typical = (chosen - chosen.median()).abs().idxmin()
    (tmp_path / "predictions" / "p0").rename(tmp_path / "predictions" / typical)
    with_scans = Page(build_report(tmp_path))
    assert "overlays" in with_scans.ids()
    assert any(
        f"Subject {typical}, coronal" in t or f"Subject {typical}, axial" in t for t in with_scans.text
    )
    (tmp_path / "ct.nii.gz").unlink()
    assert "overlays" in Page(build_report(tmp_path)).ids(), "PET and MR are still there"
    for m in ("pet", "mr"):
        (tmp_path / f"{m}.nii.gz").unlink()
    assert "overlays" not in Page(build_report(tmp_path)).ids()


def test_a_folder_without_cases_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        build_report(tmp_path)


def test_the_plane_shows_as_many_structures_as_any_plane_can() -> None:
    label = np.zeros((20, 16, 30), np.int16)
    label[5:8, 4, 3:6], label[5:8, 4, 12:15], label[5:8, 9, 20:25] = 1, 2, 3
    label[1:12, 12, 1:3] = 1  # larger, alone
    grid = Grid((20, 16, 30), np.array([[2.0, 0, 0, 5], [0, 2, 0, -7], [0, 0, 2, 100], [0, 0, 0, 1]]))
    plane = choose_plane(Volume(label, grid), [1, 2, 3])
    assert plane.name == f"coronal, y = {-7 + 2 * 4} mm"
    cut = plane.cut(Volume(label, grid), nearest=True)
    assert set(np.unique(cut)) == {0, 1, 2}
    # another grid of the same person, twice as fine and flipped, gives the same picture
    fine = Grid((40, 32, 60), np.array([[-1.0, 0, 0, 43.5], [0, 1, 0, -7.5], [0, 0, 1, 99.5], [0, 0, 0, 1]]))
    again = np.repeat(np.repeat(np.repeat(label, 2, 0), 2, 1), 2, 2)[::-1]
    np.testing.assert_array_equal(plane.cut(Volume(again, fine), nearest=True), cut)


def test_terminal_table_fits_80_columns_and_shows_the_gap() -> None:
    cases = table()
    result = gap(cases, 300)
    console = Console(file=io.StringIO(), width=80)
    print_result(cases, result, console=console)
    text = console.file.getvalue()
    assert "…" not in text
    for entry in result["gaps"]:
        assert f"{entry['gap']:.3f} [{entry['ci'][0]:.3f}, {entry['ci'][1]:.3f}]" in text
    assert re.search(r"intensity\s+0\.200\s+0\.200\s+0\.200", text)


def of_distances():
    """The table in millimetres, without Dice: PET is worse by more; one prediction of it is empty."""
    cases = table(baselines=False)
    near = cases.assign(hd95=30 * (1 - cases.dice), volume_pred_ml=50.0, dice=np.nan)
    empty = (near.subject == "p0") & (near.structure == "liver") & (near.modality == "pet")
    empty &= near.stage == "adapted"
    return near.assign(hd95=near.hd95.mask(empty), volume_pred_ml=near.volume_pred_ml.mask(empty, 0.0))


def test_page_without_dice_shows_what_was_computed(tmp_path) -> None:
    cases = table().assign(nsd=lambda t: t.dice / 2, dice=np.nan)
    scans(written(tmp_path, cases), "p0")
    own = cases[(cases.stage == "adapted") & (cases.status == "ok")].groupby("subject").nsd.mean()
    typical = (own - own.median()).abs().idxmin()
    assert median_subjects(cases, 1) == [typical]
    (tmp_path / "predictions" / "p0").rename(tmp_path / "predictions" / typical)
    page = Page(build_report(tmp_path))
    text = " ".join(page.text)
    assert {"headlines", "overlays", "structures", "baselines"} <= page.ids()
    assert "No structure" not in text
    assert "gap in NSD, before → after adaptation" in text
    assert "The subject whose NSD is nearest the median" in text
    assert "Mean NSD in numbers" in text
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert "NSD per structure, prompt auto" in alts
    assert "Gap with confidence intervals, before and after" in alts
    liver = cases[(cases.structure == "liver") & (cases.modality == "ct") & (cases.model == "tiny")]
    means = liver.groupby("stage").nsd.mean()
    row = page.source.partition("<td>liver</td>")[2].partition("</tr>")[0]
    assert re.findall(r"<td>([0-9.]+)</td>", row)[:2] == [f"{means[s]:.3f}" for s in ("zero_shot", "adapted")]
    # Dice is what the baseline's threshold is chosen by, whatever is scored
    assert "Dice" not in text.replace("the best Dice", "")


def test_page_of_distances_says_which_way_is_better_and_what_has_none(tmp_path) -> None:
    page = Page(build_report(written(tmp_path, of_distances())))
    text = " ".join(page.text)
    assert "gap in HD95 (mm), negative where the target is worse" in text
    assert "1 row with an empty prediction has no HD95 (mm), and no part in its means." in text
    zero_shot = {e["target"]: e["gap"] for e in gap(of_distances(), 300)["gaps"] if e["stage"] == "zero_shot"}
    assert zero_shot["pet"] == pytest.approx(-15, abs=1)
    assert metric("hd95") == "HD95 (mm), lower is better"
    assert metric("dice") == "Dice"


def test_where_dice_was_computed_it_is_shown() -> None:
    cases = table()
    assert main_metric(cases.assign(nsd=0.5)) == "dice"
    assert main_metric(cases.assign(nsd=0.5, dice=np.nan, hd95=1.0)) == "nsd"
    # a baseline or a network beside the model may have it, and does not decide
    beside = cases.assign(model="unet", stage="supervised")
    assert main_metric(pd.concat([beside, cases.assign(hd95=1.0, dice=np.nan)])) == "hd95"
    assert main_metric(beside) == "dice"
    assert main_metric(cases.assign(dice=np.nan)) == "dice"


def test_nothing_to_draw_gives_no_figure() -> None:
    from umdseg.evaluation import summarise

    cases = table()
    assert gap_forest([]) is None
    assert organ_dots(summarise(cases, n_resamples=100), prompt="point") is None
    assert organ_dots(summarise(cases, n_resamples=100)).startswith(b"\x89PNG")


def test_overlays_show_the_prompt_the_model_could_answer(tmp_path) -> None:
    scans(tmp_path, "p0")
    for path in (tmp_path / "predictions" / "p0").glob("*__auto.nii.gz"):
        path.rename(path.with_name(path.name.replace("auto", "point")))
    head = {"subject": "p0", "modality": "pet", "structure": "liver", "stage": "zero_shot"}
    asked = [
        {**head, "model": "tiny", "prompt": "auto", "status": "class_unknown"},
        {**head, "model": "tiny", "prompt": "point", "status": "ok", "dice": 0.5},
        {**head, "model": "pet_threshold_41", "prompt": "auto", "status": "ok", "dice": 0.3},
    ]
    found = overlay(tmp_path / "predictions", "p0", case_table(asked))
    assert found is not None
    assert found[1].endswith("prompt point")


def test_overlays_take_each_stages_own_prompt(tmp_path) -> None:
    scans(tmp_path, "p0")
    for path in (tmp_path / "predictions" / "p0").glob("*__zero_shot__auto.nii.gz"):
        path.rename(path.with_name(path.name.replace("auto", "point")))
    head = {"subject": "p0", "modality": "pet", "structure": "liver", "model": "tiny"}
    asked = [
        {**head, "stage": "zero_shot", "prompt": "auto", "status": "class_unknown"},
        {**head, "stage": "zero_shot", "prompt": "point", "status": "ok", "dice": 0.1},
        {**head, "stage": "adapted", "prompt": "auto", "status": "ok", "dice": 0.5},
        {**head, "stage": "adapted", "prompt": "point", "status": "ok", "dice": 0.2},
    ]
    found = overlay(tmp_path / "predictions", "p0", case_table(asked))
    assert found is not None
    assert found[1].endswith("prompt point and auto")


def both_grids():
    """The table with a common grid on which PET is better by 0.1."""
    label = table(baselines=False).assign(score_grid="label")
    common = label.assign(score_grid="common", dice=label.dice + 0.1 * (label.modality == "pet"))
    return case_table(pd.concat([label, common]))


def test_the_table_of_gaps_shows_both_grids_and_all_else_the_labels(tmp_path) -> None:
    for folder, cases in ((tmp_path, both_grids()), (tmp_path / "one", table(baselines=False))):
        write_cases(cases, folder)
        write_json(folder / "gap.json", gap(cases, 300))
    page, plain = Page(build_report(tmp_path)), Page(build_report(tmp_path / "one"))
    pair = {"reference": "ct", "target": "pet", "metric": "dice", "prompt": "auto"}
    label, common = (page.cells(**pair, grid=g)["before"] for g in ("label", "common"))
    assert float(common[0]) == pytest.approx(float(label[0]) - 0.1)
    assert not [a for _, a in plain.tags if a.get("data-grid") == "common"]
    # figures, organ tables and counts are those of a run without the common grid
    assert page.images() == plain.images()
    rows = len(table(baselines=False).query("status == 'ok'"))
    assert any(f"{rows} rows of the case table were scored" in text for text in page.text)
    texts = [io.StringIO(), io.StringIO()]
    for cases, text in zip((both_grids(), table(baselines=False)), texts, strict=True):
        print_result(cases, gap(cases, 300), console=Console(file=text, width=80))
    assert texts[0].getvalue() == texts[1].getvalue()


def test_scans_with_doubtful_values_are_shown_and_the_others_counted(tmp_path) -> None:
    run_folder(tmp_path)
    assert "scans" not in Page(build_report(tmp_path)).ids()
    head = {"shape": "9 x 9 x 9", "spacing": "1.00 x 1.00 x 1.00", "min": "0", "median": "1", "max": "2"}
    rows = [
        {**head, "subject": f"p{i}", "modality": "ct", "units": "HU", "verdict": "pass", "common_fov": "0.9"}
        for i in range(4)
    ]
    rows[2] |= {
        "verdict": "warn",
        "reason": "5.0% of the voxels have <the largest> value",
        "common_fov": "0.5",
    }
    write_scans(rows, tmp_path / SCANS)
    page = Page(build_report(tmp_path))
    text = " ".join(" ".join(page.text).split())
    assert "The values of 3 of 4 scans can be what their units say; the others:" in text
    assert "at least 50 % of its field of view" in text
    assert text.count("have <the largest> value") == 1
    shown = [a["data-scan"] for _, a in page.tags if "data-scan" in a]
    assert shown == ["p2/ct", "p0/ct", "p1/ct", "p2/ct", "p3/ct"]


def test_subjects_that_are_studies_of_fewer_people_are_counted_as_such(tmp_path) -> None:
    cases = table()
    write_cases(cases.assign(patient=cases.subject.replace({"p1": "p0"})), tmp_path)
    page = " ".join(Page(build_report(tmp_path)).text)
    assert "of the 5 subjects of 4 patients and 3 structures" in page
    assert "5 (4 patients) × 3" in page
    write_cases(cases, tmp_path)
    plain = " ".join(Page(build_report(tmp_path)).text)
    assert "of the 5 subjects and 3 structures" in plain
    assert "5 × 3" in plain


def test_page_says_what_labels_do_not_tell_about(tmp_path) -> None:
    cases = table()
    unknown = (cases.subject == "p0") & (cases.structure == "spleen")
    write_cases(
        cases.assign(dice=cases.dice.mask(unknown), status=cases.status.mask(unknown, "not_annotated")),
        tmp_path,
    )
    page = Page(build_report(tmp_path))
    assert ("tr", {"data-status": "not_annotated"}) in page.tags
    assert "the labels of the subject do not tell about the structure" in " ".join(page.text)
