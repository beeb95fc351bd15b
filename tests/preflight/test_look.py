"""`umdseg check` behind the command: every problem is a finding, the others are still looked for."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.backbones.sam3d_cards import sam_med3d_turbo_card
from umdseg.backbones.vista3d_cards import vista3d_tiny_card
from umdseg.backbones.windows import windowed
from umdseg.data.checks import check_subjects, read_all
from umdseg.data.geometry import Grid
from umdseg.data.io.nifti import read_image
from umdseg.data.manifest import read_manifest
from umdseg.data.verdict import Finding
from umdseg.preflight import estimate
from umdseg.preflight.check import Check
from umdseg.preflight.deep import voxels
from umdseg.preflight.look import look
from umdseg.preflight.table import grouped, table
from umdseg.preflight.windows import window


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known pace, so that the estimate can be computed by hand."""
    monkeypatch.setattr(estimate, "throughput", lambda *_: 1e12)
    monkeypatch.setattr(estimate, "product_throughput", lambda *_: 1e12)
    monkeypatch.setattr(estimate, "writing", lambda *_: math.inf)


def checks(csv: Path, *overrides: str, door: str = "train", read: bool = False) -> dict[str, Check]:
    found = look(door, ["data=petct", f"data.manifest={csv}", *overrides], deep=read)
    return {check.name: check for check in found}


def told(found: dict[str, Check], level: str | None = None) -> list[str]:
    return [f.what for check in found.values() for f in check.findings if level in (None, f.level)]


def test_clean_data_pass_every_check(bodies: Callable) -> None:
    found = checks(bodies(12), read=True)
    assert told(found) == []
    assert list(found) == [
        *("configuration", "data", "files", "splits", "weights", "structures", "prompts", "window"),
        *("adapter", "memory", "time", "disk", "voxels", "labels", "space"),
    ]
    assert found["data"].numbers == "mine: 12 subjects, 12 ct, 12 pet"
    assert found["splits"].numbers == "6 to train on, 6 scored"
    assert "48 usable files" in found["files"].numbers


def test_problems_of_all_kinds_are_collected_at_once(bodies: Callable) -> None:
    csv = bodies(4)
    path = csv.parent / "P1x" / "pet.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    (csv.parent / "P0" / "ct.nii.gz").unlink()
    found = checks(csv, "model=vista3d", "prompt.kinds=[point]", "fit.steps=0")
    said = "\n".join(told(found, "refuse"))
    assert "image of subject P0 is missing" in said
    assert "truncated or damaged" in said, "the headers of the good rows are still read"
    assert "terms to accept first" in said, "the model is still looked at"
    assert any("2 of 2 scored subjects with labelled scans of two" in what for what in told(found, "warn"))


def test_configuration_mistakes_do_not_hide_those_of_the_data(bodies: Callable) -> None:
    found = checks(bodies(2), "data.batch_size=0", "data.manifest=gone.csv")
    assert {"configuration", "data"} <= {name for name, check in found.items() if check.level == "refuse"}


def test_a_source_without_its_files_is_told_once() -> None:
    found = {check.name: check for check in look("train", ["data=petct"])}
    assert len([what for what in told(found) if "manifest" in what]) == 1


def test_structures_and_prompts_of_both_doors(bodies: Callable) -> None:
    csv = bodies(2)
    csv.with_suffix(".yaml").write_text("structures: {liver: 1, tumour: 2}\n")
    trained, scored = checks(csv), checks(csv, "data.split=all", door="evaluate")
    assert trained["structures"].numbers == "2 structures: 1 known by class, 1 learned as new"
    assert trained["structures"].level == "pass"
    assert scored["structures"].level == "warn"
    assert "does not know tumour by class; point remains" in scored["structures"].findings[0].what
    assert scored["adapter"].numbers == "none"


def test_a_reference_that_nobody_to_be_fused_has_is_refused(bodies: Callable) -> None:
    csv = bodies(4, ("pet", "mr"))
    wanted = ["fusion=gated", "data.modalities=[pet,mr]", "data.train_modalities={ct: 1, pet: 1, mr: 1}"]
    (finding,) = (f for f in checks(csv, *wanted)["splits"].findings if f.level == "refuse")
    assert (finding.where, "pet or mr" in (finding.expected or "")) == ("data.reference", True)
    for reference in ("mr", "card"):
        found = checks(csv, *wanted, f"data.reference={reference}")["splits"].findings
        assert "refuse" not in [f.level for f in found]


def test_an_empty_split_is_refused(bodies: Callable) -> None:
    csv = bodies(1)
    assert "no subject of dataset 'mine' is in split 'test'" in told(checks(csv), "refuse")


def test_the_estimate_follows_from_its_numbers(bodies: Callable) -> None:
    import re

    found = checks(bodies(4), "fit.steps=1000", "prompt=auto")
    flops = float(re.search(r"([\d,.]+) GFLOP a window", found["time"].numbers)[1].replace(",", ""))
    # windows are 432 x 288 x 384 mm: one holds a CT of 384 x 288 x 240 mm, two a PET of 400 x 300 x 240
    assert "2 x predicting 6 windows" in found["time"].numbers
    minutes = float(re.search(r"fitting (\d+) min", found["time"].numbers)[1])
    # forward and backward of two samples cost between 2 x 2 and 2 x 4 forward passes (the base is frozen)
    assert 4 * flops <= minutes * 60 * 1e12 / 1e9 / 1000 <= 8 * flops


def test_too_little_memory_is_refused(bodies: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_free_memory", lambda: 100_000_000)
    found = checks(bodies(2))
    assert found["memory"].level == "refuse"
    assert "a smaller data.batch_size" in found["memory"].findings[0].expected


def test_a_model_from_scratch_needs_no_weights(bodies: Callable) -> None:
    small = ["model=unet", "model.width=4", "model.levels=3", "model.window=[32,32,32]", "prompt=auto"]
    found = checks(bodies(4), *small, door="evaluate")
    assert told(found, "refuse") == []
    assert any("scores mean nothing before training" in what for what in told(found, "warn"))
    assert "RAM" in found["memory"].numbers


NET = """
import torch

class Net(torch.nn.Conv3d):
    def __init__(self):
        super().__init__(1, 2, 1)

    def forward(self, x):
        return super().forward(x / max(float(x.max()), 1.0))
"""
CARD = """
spacing: [8, 8, 8]
window: [48, 48, 48]
divisor: 1
intensity: {ct: {kind: window, low: -160, high: 240}, pet: {kind: percentile, low: 1, high: 99}}
output: softmax
structures: {liver: 1}
weights: {licence: MIT, commercial: true}
"""


def test_a_model_that_looks_at_values_is_tried_on_a_small_window(bodies: Callable, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "card.yaml").write_text(CARD)
    own = [f"model.module={tmp_path}/net.py:Net", f"model.card={tmp_path}/card.yaml", "model.weights=random"]
    found = checks(bodies(4), "model=torch_module", *own, "prompt=auto", door="evaluate")
    assert told(found, "refuse") == []
    assert "RAM" in found["memory"].numbers
    # two products for each of 48^3 voxels and two outputs, multiplied and added
    assert "tried on 32 x 32 x 32 voxels and scaled up" in found["time"].numbers
    assert f"{2 * 2 * 48**3 / 1e9:.2g} GFLOP a window" in found["time"].numbers


def test_a_model_that_cannot_be_tried_is_not_estimated_but_checked(bodies: Callable, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        NET.replace("return super", 'raise ValueError("not today")\n        return super')
    )
    (tmp_path / "card.yaml").write_text(CARD)
    own = [f"model.module={tmp_path}/net.py:Net", f"model.card={tmp_path}/card.yaml", "model.weights=random"]
    found = checks(bodies(4), "model=torch_module", *own, "prompt=auto", door="evaluate")
    assert told(found, "refuse") == []
    for name in ("memory", "time"):
        assert (
            "not estimated: one pass of torch_module cannot be tried (ValueError: not today)"
            in found[name].numbers
        )


def deep(csv: Path) -> dict[str, Check]:
    """The checks that read voxels, without the rest."""
    dataset = read_manifest(csv)
    return {check.name: check for check in voxels(dataset, list(read_all(dataset.subjects)))}


def test_voxels_are_looked_at_only_when_asked(bodies: Callable) -> None:
    csv = bodies(3)
    rewrite(csv.parent / "P0" / "ct.nii.gz", lambda a: np.where(a > 0, np.nan, a))
    rewrite(csv.parent / "P1x" / "ct_label.nii.gz", lambda a: a * 0)
    rewrite(csv.parent / "P2xx" / "pet.nii.gz", lambda a: a * 30_000)
    check_subjects(read_manifest(csv).subjects)
    found = deep(csv)
    assert any("NaN" in what for what in told(found, "refuse"))
    assert [(f.level, f.what) for f in found["labels"].findings] == [("warn", "label map has no foreground")]
    assert any("P2xx" in f.where for f in found["voxels"].findings), "PET in counts"


def test_bodies_apart(bodies: Callable) -> None:
    found = deep(bodies(3, shift=(150.0, 0, 0)))
    assert ["do not overlap" in f.what for f in found["space"].findings] == [True] * 3


def test_mirrored_labels(bodies: Callable) -> None:
    found = deep(bodies(3, mirrored=True))
    assert ["flipped?" in f.what and "pet_label" in f.where for f in found["labels"].findings] == [True] * 3


def test_a_copied_scan_and_a_structure_that_is_nowhere(bodies: Callable) -> None:
    csv = bodies(2)
    csv.with_suffix(".yaml").write_text("structures: {liver: 1, spleen: 2, brain: 3}\n")
    copied = csv.parent / "P1x" / "ct.nii.gz"
    copied.write_bytes((csv.parent / "P0" / "ct.nii.gz").read_bytes())
    assert told(deep(csv), "warn") == ["subjects P0 and P1x have the same voxels", "no label holds brain"]


def test_what_is_not_made_yet_is_not_said_to_be_read(layouts, tmp_path: Path) -> None:
    root = layouts("synthrad", tmp_path / "data", "make_2025")["root"]
    given = ["data=synthrad", f"data.root={root}", "data.modalities=[ct,mr]"]
    found = {check.name: check for check in look("train", given, deep=True)}
    assert told({"voxels": found["voxels"]}, "warn") == ["12 files not made yet, so not read"]
    assert "prepare SOURCE" in found["voxels"].findings[0].expected


@pytest.mark.parametrize(("slices", "share"), [(30, None), (16, "53%")])
def test_a_shared_label_of_a_smaller_scan_is_told(bodies: Callable, slices: int, share: str | None) -> None:
    csv = bodies(2, modalities=("ct", "mr"))
    for folder in (csv.parent / "P0", csv.parent / "P1x"):
        for name in ("mr.nii.gz", "mr_label.nii.gz"):
            image = nib.load(folder / name)
            array = np.asarray(image.dataobj)[..., :slices]
            # on a grid of its own
            affine = image.affine.copy()
            affine[0, 3] += 1
            nib.save(nib.Nifti1Image(array, affine), folder / name)
    csv.write_text(csv.read_text().replace("ct_label", "mr_label"))
    found = checks(csv, "data.modalities=[ct,mr]")["files"].findings
    assert [f.level for f in found] == ["warn"] * (2 if share else 0)
    assert all(f"covers {share} of the ct" in f.what and "mr_label" in f.where for f in found)


def test_generated_data_are_not_rendered(tmp_path: Path) -> None:
    found = {check.name: check for check in look("train", ["data.train=2", "data.test=2"])}
    assert told(found, "refuse") == []
    assert "24 files made by the run, not by a check" in found["files"].numbers
    assert not list(tmp_path.rglob("*.nii*"))


def test_one_problem_in_many_files_is_one_line() -> None:
    many = tuple(
        Finding("refuse", f"file has {i} voxels that are NaN", f"/d/{i}.nii (subject P{i})")
        for i in range(300)
    )
    out = io.StringIO()
    table([Check("files", "300 files", many)], "umdseg train", out)
    text = out.getvalue()
    assert text.count("voxels that are NaN") == 1
    assert "(300 times, for example)" in text
    assert text.count("where:") == 3
    assert "... and 297 more" in text
    assert "Mend what is refused (300 problems), then check again." in text
    loud = io.StringIO()
    table([Check("files", "300 files", many)], "umdseg train", loud, verbose=True)
    assert loud.getvalue().count("where:") == 300


def test_problems_that_differ_stay_apart_and_the_worst_comes_first() -> None:
    findings = [
        Finding("warn", "a"),
        Finding("refuse", "subject P1 is odd"),
        Finding("refuse", "subject Q is odd"),
    ]
    findings += [Finding("refuse", "another"), Finding("pass", "fine")]
    assert [len(group) for group in grouped(findings)] == [2, 1, 1]
    assert [group[0].level for group in grouped(findings)] == ["refuse", "refuse", "warn"]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = read_image(path) if "label" not in path.name else None
    image = nib.load(path)
    array = volume.array if volume else np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(change(array).astype(array.dtype), image.affine), path)


def test_the_share_of_a_window_that_scans_fill_is_told_with_the_window_that_would_do() -> None:
    card = vista3d_tiny_card()
    # 6 mm voxels: 20, 40 and 22 along each axis of the model's grid
    cubes = [Grid((n, n, n), np.diag([mm, mm, mm, 1.0])) for n, mm in ((60, 2.0), (40, 6.0), (44, 3.0))]
    filled = 22**3 / (72 * 48 * 64)
    told = window(card, cubes).numbers
    assert f"median scan fills {filled:.0%}" in told
    assert "model.window=[40,40,40] holds every scan" in told
    assert "model.window" not in window(windowed(card, (24, 24, 24)), cubes).numbers
    assert window(card, []).numbers == "72 x 48 x 64 voxels"
    assert "the only one it takes" in window(sam_med3d_turbo_card(), cubes).numbers


def test_a_window_that_does_not_fit_is_refused_once(bodies: Callable) -> None:
    found = checks(bodies(2), "model.window=[30,32,32]")
    assert [f.where for c in found.values() for f in c.findings if f.level == "refuse"] == ["model.window"]
