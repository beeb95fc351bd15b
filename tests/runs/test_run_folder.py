"""Run folders: found again by hash, never confused, never shared by two processes."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from umdseg.config.check import check
from umdseg.errors import UserError
from umdseg.files import write_json
from umdseg.runs.folder import NEEDED, RunFolder
from umdseg.runs.identity import run_hash


def _finished(folder: RunFolder) -> None:
    folder.begin({"started": "then"}, "a: 1")
    for name in NEEDED:
        (folder.path / name).touch()
    folder.end("complete")


def test_complete_only_with_all_results(tmp_path: Path) -> None:
    folder = RunFolder.locate(tmp_path, "a", "01234567")
    assert folder.path == tmp_path / "a-01234567"
    assert not folder.complete
    folder.claim()
    _finished(folder)
    assert folder.complete
    (folder.path / "gap.json").unlink()
    assert not folder.complete


def test_renamed_folder_is_found_by_its_hash(tmp_path: Path) -> None:
    folder = RunFolder.locate(tmp_path, "a", "01234567")
    folder.claim()
    _finished(folder)
    folder.release()
    folder.path.rename(tmp_path / "nicer-01234567")
    assert RunFolder.locate(tmp_path, "a", "01234567").complete
    assert not RunFolder.locate(tmp_path, "a", "76543210").complete
    named = RunFolder.locate(tmp_path, "a", "01234567", rename=False)
    assert named.path == tmp_path / "a-01234567", "a name given by the user is kept"


def test_set_aside_keeps_every_earlier_run(tmp_path: Path) -> None:
    for number in range(3):
        folder = RunFolder.locate(tmp_path, "a", "01234567")
        folder.set_aside()
        folder.claim()
        (folder.path / "mark").write_text(str(number))
        folder.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-01234567", "a-01234567.1", "a-01234567.2"]
    assert (tmp_path / "a-01234567" / "mark").read_text() == "2"
    assert (tmp_path / "a-01234567.1" / "mark").read_text() == "0"


def test_second_process_is_kept_out_until_the_first_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from umdseg.runs.folder import RunFolder;"
        "f = RunFolder(Path(sys.argv[1])); f.claim(); print('mine', flush=True); time.sleep(60)"
    )
    path = tmp_path / "a-01234567"
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(UserError, match="another process"):
            RunFolder(path).claim()
    finally:
        other.kill()
        other.wait()
    first, second = RunFolder(path), RunFolder(path)
    first.claim()
    first.release()
    # a third one that opened the lock file before the release must not hold another lock than the second
    with open(path / ".lock", encoding="utf-8") as early:
        second.claim()
        with pytest.raises(BlockingIOError):
            fcntl.flock(early, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_helper_process_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a-01234567", leader=False)
    folder.claim()
    folder.begin({"started": "now"}, "a: 1")
    folder.end("complete")
    assert not folder.path.exists()


def test_resumed_run_keeps_its_start_and_sums_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a-01234567"
    path.mkdir()
    write_json(
        path / "provenance.json", {"started": "yesterday", "seconds": 100.0, "resumed": 0, "status": "failed"}
    )
    folder = RunFolder(path)
    folder.begin({"started": "today", "status": "running"}, "a: 1")
    folder.end("complete")
    record = folder.provenance()
    assert (record["started"], record["resumed"], record["status"]) == ("yesterday", 1, "complete")
    assert record["seconds"] >= 100.0


def test_damaged_provenance_is_an_unfinished_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "provenance.json").write_text('{"status": "comp')
    assert folder.provenance() == {}
    assert not folder.complete


SAME = [
    ["name=other"],
    ["tags=[a]"],
    ["runs_dir=elsewhere"],
    ["logger=wandb"],
    ["data.workers=2"],
    ["callbacks.progress_every=1"],
    ["save_predictions=true"],
    ["evaluation.overlay_subjects=3"],
    ["fit.lr=0.002"],
]
OTHER = [
    ["seed=1"],
    ["fit.steps=5"],
    ["adapter.rank=4"],
    ["adapter=full"],
    ["data.shots=1"],
    ["prompt=auto"],
    ["model.weights=random"],
    ["fit.lr=0.001"],
    ["evaluation.bootstrap=500"],
]


@pytest.mark.parametrize("overrides", SAME, ids=str)
def test_same_run(overrides: list[str]) -> None:
    assert run_hash(check("train", overrides), "data", "weights") == run_hash(
        check("train", []), "data", "weights"
    )


@pytest.mark.parametrize("overrides", OTHER, ids=str)
def test_another_run(overrides: list[str]) -> None:
    assert run_hash(check("train", overrides), "data", "weights") != run_hash(
        check("train", []), "data", "weights"
    )


def test_manifests_are_the_same_run_wherever_they_lie() -> None:
    first, second = (
        check("train", ["data=petct", f"data.manifest={name}.csv", f"data.structures_file={name}.yaml"])
        for name in ("a", "b")
    )
    assert run_hash(first, "data", "weights") == run_hash(second, "data", "weights")


def test_checkpoints_are_told_apart_by_content(tmp_path: Path) -> None:
    def hashed(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return run_hash(check("train", [f"ckpt_path={tmp_path / name}"]), "data", "weights")

    assert hashed("a.ckpt", "same") == hashed("b.ckpt", "same") != hashed("c.ckpt", "other")


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="runs_dir"):
        RunFolder(tmp_path / "file" / "a-01234567").claim()


def test_other_data_weights_code_or_adapter_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = check("train", [])
    base = run_hash(settings, "data", "weights")
    assert run_hash(settings, "other", "weights") != base
    assert run_hash(settings, "data", "other") != base
    assert run_hash(settings, "data", "weights", "adapter") != base
    assert run_hash(replace(settings, overrides=("typed=otherwise",)), "data", "weights") == base
    monkeypatch.setattr("umdseg.runs.identity.code_hash", lambda: "other")
    assert run_hash(settings, "data", "weights") != base


def test_fitting_options_do_not_matter_to_an_evaluation() -> None:
    base = run_hash(check("evaluate", []), "data", "weights")
    assert run_hash(check("evaluate", ["fit.lr=0.5"]), "data", "weights") == base
    assert run_hash(check("evaluate", ["data.split=val"]), "data", "weights") != base
