"""`evaluate.py model=<each>` from the command line to the case table, and a model of another package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from umdseg import registry
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import write_volume
from umdseg.data.phantom.body import FIELD_OF_VIEW, Anatomy, grid_over
from umdseg.data.phantom.subject import STRUCTURES, labels
from umdseg.runs import door

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides: the CT of one phantom of 10 cm around the liver, rendered once."""
    root = tmp_path_factory.mktemp("body")
    grid = grid_over(FIELD_OF_VIEW, (6.0, 6.0, 6.0))
    codes = labels(Anatomy(3).paint(grid))
    told = np.zeros(256, dtype=np.uint8)
    # without what lies above them the field of view begins at these
    told[STRUCTURES["liver"]], told[STRUCTURES["spleen"]] = 1, 2
    write_volume(Volume(told[np.asarray(codes, dtype=int)], grid), root / "person.nii.gz")
    (root / "label_ids.json").write_text(json.dumps({"liver": 1, "spleen": 2}))
    data = ["data=phantom", f"data.labels={root}", "data.extent_mm=[100,100,100]", "data.train=0"]
    data += ["data.test=1", "data.modalities=[ct]", "data.structures=[liver]", f"data.cache_dir={root}/cache"]
    data += ["data.train_modalities={ct: 1, pet: 0, mr: 0}"]
    return [*data, "evaluation.bootstrap=100", "evaluation.precision=fp32"]


def written(value: Any) -> str:
    """As Hydra reads it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(one)}" for key, one in value.items()) + "}"
    return str(value).replace(" ", "")


def test_every_model_is_evaluated_with_random_weights_and_says_so(
    models: Any, name: str, body: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    backbone = models(name)
    assert backbone.takes == registry.resolve("model", name).listing().takes
    kind = next(k for k in ("auto", "point", "box") if k in backbone.card.prompts)
    with models.shrunk(name) as options:
        own = [f"model.{key}={written(value)}" for key, value in options.items()]
        chosen = [f"model={name}", "model.weights=random", f"prompt={kind}", f"runs_dir={tmp_path}/runs"]
        status = door.main("evaluate", [*chosen, *own, *body])
    out, err = capfd.readouterr()
    if backbone.takes:
        # two scans of one person at once: one alone is a mistake of the configuration
        assert status == 2
        assert "data.modalities: ['ct'], without pet" in err
        return
    assert status == 0, err
    said = " ".join(err.split())
    assert "andom weights" in said
    cases = pd.read_parquet(Path(out.strip()) / "cases.parquet")
    row = cases[cases["model"] == name].iloc[0]
    assert row["prompt"] == kind
    assert row["structure"] == "liver"
    if kind != "auto" or backbone.knows("liver"):
        assert row["status"] == "ok"
        assert 0 <= row["dice"] <= 1
    else:
        assert row["status"] == "class_unknown"
        assert np.isnan(row["dice"])


def test_a_model_of_ct_and_pet_is_evaluated_on_both_scans_of_a_phantom(
    models: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    data = ["data=phantom", "data.train=0", "data.test=1", "data.structures=[liver,spleen]", "prompt=auto"]
    quick = [
        "model.mirroring=false",
        "evaluation.overlap=0",
        "evaluation.metrics=[dice]",
        "evaluation.bootstrap=100",
    ]
    with models.shrunk("lesiontracer") as options:
        # phantoms have no lesions
        facts = next(Path(options["folder"]).rglob("dataset.json"))
        told = {**json.loads(facts.read_text()), "labels": {"background": 0, "liver": 1}}
        facts.write_text(json.dumps(told))
        own = [f"model.{key}={written(value)}" for key, value in options.items()]
        chosen = ["model=lesiontracer", "model.weights=random", f"runs_dir={tmp_path}/runs"]
        status = door.main("evaluate", [*chosen, *own, *data, *quick])
    out, err = capfd.readouterr()
    assert status == 0, err
    run = Path(out.strip())
    cases = pd.read_parquet(run / "cases.parquet")
    assert set(cases["modality"]) == set(cases["subset"]) == {"ct+pet"}
    liver = cases[cases["structure"] == "liver"].set_index("score_grid")
    assert list(liver["status"]) == ["ok", "ok"]
    # the CT's label is what it is scored against
    (subject,) = set(cases["subject"])
    drawn = json.loads((run / "predictions" / subject / "overlays.json").read_text())
    truth = nib.load(drawn["scans"]["ct"]["label"])
    voxels = (np.asanyarray(truth.dataobj) == drawn["structures"]["liver"]).sum()
    volume = voxels * abs(np.linalg.det(truth.affine[:3, :3])) / 1000
    assert liver.loc["label", "volume_ref_ml"] == pytest.approx(volume, rel=1e-3)
    saved = nib.load(run / "predictions" / subject / "ct+pet__zero_shot__auto.nii.gz")
    assert saved.shape == truth.shape
    assert json.loads((run / "gap.json").read_text())["gaps"] == []
    assert "CT+PET" in (run / "report.html").read_text()
    assert "CT+PET" in err
    unknown = cases[cases["structure"] == "spleen"]
    assert set(unknown["status"]) == {"class_unknown"}


OUTSIDE = """
from umdseg.backbones.listing import listed
from umdseg.backbones.vista3d import Vista3d
from umdseg.backbones.vista3d_cards import vista3d_tiny_card
from umdseg.backbones.vista3d_tiny import tiny_network
from umdseg.backbones.weights import load_weights
from dataclasses import replace


def card():
    return replace(vista3d_tiny_card(), name="theirs")


@listed(card, family="theirs", parameters=None)
def theirs(options):
    return load_weights(Vista3d(card(), tiny_network()), options)
"""


def test_a_model_of_another_package_needs_one_file_and_one_yaml(body: list[str], tmp_path: Path) -> None:
    site, conf = tmp_path / "site", tmp_path / "conf" / "model"
    conf.mkdir(parents=True)
    facts = site / "their_package-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "their_package.py").write_text(OUTSIDE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[umdseg.model]\ntheirs = their_package:theirs\n")
    (conf / "theirs.yaml").write_text("name: theirs\nweights: random\n")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        # as a user has it: found by its metadata on the path, nothing of ours changed
        code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(site)!r}]; sys.argv[0] = 'umdseg'; "
        code += "from umdseg.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False, cwd=tmp_path
        )

    done = run("evaluate", "--config-dir", str(tmp_path / "conf"), "model=theirs", "prompt=auto", *body)
    assert done.returncode == 0, done.stderr
    cases = pd.read_parquet(tmp_path / done.stdout.strip() / "cases.parquet")
    assert set(cases["model"]) == {"theirs"}
    assert set(cases["status"]) == {"ok"}
    listed = run("list", "models")
    assert "theirs" in {line.split()[0] for line in listed.stdout.splitlines() if line.strip()}, listed.stderr
