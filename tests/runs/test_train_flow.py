"""train.py and evaluate.py from end to end, on a data set of boxes and an untrained small model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from safetensors import safe_open

from umdseg.backbones.vista3d_tiny import tiny_network
from umdseg.runs import door

ROOT = Path(__file__).parents[2]


def _run(kind: str, overrides: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    assert door.main(kind, overrides) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 1, "standard output is the run folder alone"
    return Path(lines[0]), err


def _on_labels(folder: Path) -> pd.DataFrame:
    """The rows scored on each label's grid; as many are scored on the common grid."""
    cases = pd.read_parquet(folder / "cases.parquet")
    common = cases[cases["score_grid"] == "common"]
    assert len(common) == len(cases) / 2
    return cases[cases["score_grid"] == "label"]


def test_train_again_and_evaluate(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, err = _run("train", [*small, "fit.steps=1"], capfd)
    assert folder.parent == tmp_path / "runs" / "train"
    results = ("cases.parquet", "cases.csv", "gap.json", "scans.csv", "report.html")
    for name in ("config.yaml", "provenance.json", *results):
        assert (folder / name).stat().st_size > 0, name
    assert {path.name for path in folder.iterdir()} >= {"adapter", "checkpoints", "logs"}
    assert "learned by class: tumour" in err

    cases = _on_labels(folder)
    before, after = (
        cases[cases["stage"] == stage].set_index(["modality", "structure"])
        for stage in ("zero_shot", "adapted")
    )
    assert set(before.index) == {(m, s) for m in ("ct", "pet") for s in ("liver", "tumour")}
    assert set(before.xs("tumour", level=1)["status"]) == {"class_unknown"}
    assert set(after["status"]) == {"ok"}
    assert OmegaConf.load(folder / "config.yaml").fit.lr == 2e-3, "the adapter's own, by name"
    record = json.loads((folder / "provenance.json").read_text())
    assert record["status"] == "complete"
    assert record["weights"]["random"] is True
    assert record["learned"] == ["tumour"]
    assert json.loads((folder / "gap.json").read_text())["adapter"]["trainable"] > 0
    metrics = pd.read_csv(folder / "logs" / "metrics.csv")
    assert {"zero_shot/dice/pet", "adapted/dice/pet", "gap/dice/ct-pet/zero_shot"} <= set(metrics.columns)

    stamp = (folder / "cases.parquet").stat().st_mtime_ns
    again, err = _run("train", [*small, "fit.steps=1"], capfd)
    assert again == folder
    assert "already done" in err
    assert (folder / "cases.parquet").stat().st_mtime_ns == stamp

    _scores_of_a_saved_adapter(small, folder, after, capfd)


def _scores_of_a_saved_adapter(
    small: list[str], folder: Path, after: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    """evaluate.py must find again what train.py measured, with method and class rows from the card alone."""
    scored, _ = _run("evaluate", [*small, f"adapter.path={folder / 'adapter'}"], capfd)
    assert scored.parent.name == "evaluate"
    cases = _on_labels(scored).set_index(["modality", "structure"])
    assert set(cases["stage"]) == {"adapted"}
    assert set(cases["adapter"]) == {"lora"}
    assert cases["dice"].to_dict() == pytest.approx(after["dice"].to_dict(), abs=1e-6)

    # structures are the card's unless asked for, and never silently none
    part, _ = _run("evaluate", [*small, f"adapter.path={_card(folder, ['tumour', 'brain'])}"], capfd)
    assert set(pd.read_parquet(part / "cases.parquet")["structure"]) == {"tumour"}
    assert door.main("evaluate", [*small, f"adapter.path={_card(folder, ['brain', 'aorta'])}"]) == 1
    err = capfd.readouterr().err
    assert "brain, aorta" in err
    assert "liver, tumour" in err

    for wrong in ("model=vista3d", "adapter=full"):
        assert door.main("evaluate", [*small, f"adapter.path={folder}", wrong]) == 1
        assert "adapter's card" in capfd.readouterr().err


def test_one_adapter_per_modality_leaves_the_others_alone(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    routed = [*small, "adapter.per=modality", "data.train_modalities={ct: 0, pet: 1}", "fit.steps=2"]
    folder, _ = _run("train", routed, capfd)
    cases = _on_labels(folder).set_index(["stage", "modality", "structure"]).sort_index()
    # nothing was trained for CT: the same answers as before, and tumour stays unknown there
    answers = cases[["dice", "volume_pred_ml"]]
    assert (
        answers.loc[("adapted", "ct", "liver")].to_dict()
        == answers.loc[("zero_shot", "ct", "liver")].to_dict()
    )
    assert cases.loc[("adapted", "ct", "tumour"), "status"] == "class_unknown"
    assert cases.loc[("adapted", "pet"), "status"].eq("ok").all()
    assert json.loads((folder / "gap.json").read_text())["adapter"]["routes"] == ["pet"]
    assert "One adapter for each of PET" in (folder / "report.html").read_text()

    scored, _ = _run("evaluate", [*small, f"adapter.path={folder / 'adapter'}"], capfd)
    again = _on_labels(scored).set_index(["stage", "modality", "structure"])
    assert again["dice"].to_dict() == pytest.approx(
        cases.loc[["adapted"], "dice"].to_dict(), abs=1e-6, nan_ok=True
    )
    for refused in (["adapter=full"], ["fit.export_weights=x.safetensors"]):
        assert door.main("train", [*small, "adapter.per=modality", *refused]) == 2
        assert "nothing was run" in capfd.readouterr().err
    idle, _ = _run("train", [*routed, "fit.steps=0"], capfd)
    assert json.loads((idle / "gap.json").read_text())["adapter"]["trainable"] == 0
    assert "One adapter for each" not in (idle / "report.html").read_text()


def _card(folder: Path, structures: list[str]) -> Path:
    """A copy of a saved adapter whose card names other structures."""
    copy = folder.parent / "-".join(structures)
    shutil.copytree(folder / "adapter", copy)
    card = json.loads((copy / "umdseg_adapter.json").read_text())
    assert set(card["structures"]) == {"liver", "tumour"}
    assert card["modalities"] == ["ct", "pet"]
    (copy / "umdseg_adapter.json").write_text(json.dumps(card | {"structures": dict.fromkeys(structures)}))
    return copy


def test_killed_run_goes_on_where_it_was(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = [*small, "fit.steps=3", "callbacks.evaluate_before=false", "callbacks.progress_every=0.001"]
    child = subprocess.Popen(
        [sys.executable, "train.py", *overrides], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    wanted = ("checkpoints/last.ckpt", "logs/metrics.csv")
    while not all(list(tmp_path.glob(f"runs/train/*/{name}")) for name in wanted):
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.kill()
    child.communicate()

    folder, err = _run("train", overrides, capfd)
    assert "continuing from the last checkpoint" in err
    assert "fit 1/3" not in err
    assert "fit 3/3" in err
    assert len(list(folder.parent.iterdir())) == 1
    record = json.loads((folder / "provenance.json").read_text())
    assert (record["status"], record["resumed"]) == ("complete", 1)
    assert (folder / "logs" / "metrics.1.csv").is_file(), "the first part's numbers are kept"


def test_adapter_none_is_an_evaluation(small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    folder, err = _run("train", [*small, "adapter=none", "data.structures=[liver]"], capfd)
    assert "zero-shot evaluation only" in err
    assert set(pd.read_parquet(folder / "cases.parquet")["stage"]) == {"zero_shot"}
    assert not (folder / "adapter").exists()


def test_weights_fitted_in_channels_last_order_are_exported(
    small: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.safetensors"
    faster = ["adapter=full", "trainer.channels_last=true", "fit.steps=1", "callbacks.evaluate_before=false"]
    folder, _ = _run("train", [*small, *faster, "fit.point_share=0", f"fit.export_weights={made}"], capfd)
    with safe_open(made, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert shapes == {name: tuple(v.shape) for name, v in tiny_network().state_dict().items()}
    record = json.loads((folder / "provenance.json").read_text())
    assert 0 < record["fit_seconds"] < record["seconds"]


def test_missing_scan_is_one_clear_message(
    small: list[str], manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(manifest.parent, broken)
    (broken / "s2_pet_image.nii.gz").unlink()
    assert door.main("train", [*small, f"data.manifest={broken / 'subjects.csv'}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "s2_pet_image.nii.gz" in err
    assert "Traceback" not in err
