"""The doors: what goes to which stream, and the exit status."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umdseg.config.check import check
from umdseg.config.schema import Settings
from umdseg.errors import UserError
from umdseg.runs import door
from umdseg.runs.provenance import command

ROOT = Path(__file__).parents[1]


def test_doors_are_thin() -> None:
    for name in ("train.py", "evaluate.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 15


def test_run_folder_is_all_of_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(settings: Settings) -> Path:
        print("a library that prints")
        return tmp_path / "run"

    monkeypatch.setattr(door, "_job", job)
    assert door.main("train", ["fit.steps=1"]) == 0
    out, err = capfd.readouterr()
    assert out == f"{tmp_path / 'run'}\n"
    assert "a library that prints" in err


def test_flags_may_stand_before_between_and_after_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(door, "_job", lambda settings: tmp_path / str(settings.run.seed))
    runs = f"runs_dir={tmp_path}"
    for arguments in (["-m", "seed=0,1", runs], ["seed=0,1", "-m", runs], ["seed=0,1", runs, "--multirun"]):
        assert door.main("train", arguments) == 0
        assert capfd.readouterr().out == f"{tmp_path / '0'}\n{tmp_path / '1'}\n"


def test_mistakes_have_no_traceback_and_their_own_status(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert door.main("train", ["model=vista3f"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "did you mean: vista3d" in err
    assert "Traceback" not in err

    def job(settings: Settings) -> Path:
        raise UserError("scan is missing", where="P001")

    monkeypatch.setattr(door, "_job", job)
    assert door.main("train", []) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "P001" in err


def test_sweep_prints_the_folders_of_its_good_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(settings: Settings) -> Path:
        if settings.run.seed == 0:
            raise RuntimeError("a defect")
        return tmp_path / str(settings.run.seed)

    monkeypatch.setattr(door, "_job", job)
    assert door.main("train", ["-m", "seed=0,1", f"runs_dir={tmp_path}"]) == 1
    out, err = capfd.readouterr()
    assert out == f"{tmp_path / '1'}\n"
    assert "RuntimeError: a defect" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_full_or_closed_disk_is_no_traceback(
    number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(settings: Settings) -> Path:
        raise OSError(number, os.strerror(number), "cases.csv")

    monkeypatch.setattr(door, "_job", job)
    assert door.main("train", []) == 1
    err = capfd.readouterr().err
    assert "cases.csv" in err
    assert os.strerror(number) in err


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_doors_are_commands_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from umdseg.cli import main

    monkeypatch.setattr(door, "_job", lambda settings: tmp_path / settings.run.task / str(settings.run.seed))
    assert main([name, "-m", "seed=3,4", f"runs_dir={tmp_path}"]) == 0
    assert capfd.readouterr().out == "".join(f"{tmp_path / name / seed}\n" for seed in ("3", "4"))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"usage: umdseg {name} " in capfd.readouterr().out


def test_recorded_command_is_the_one_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = check("evaluate", ["seed=3"], [str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    assert command("evaluate", settings) == f"python evaluate.py --config-dir {tmp_path} seed=3"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/umdseg", "evaluate"])
    assert command("evaluate", settings) == f"umdseg evaluate --config-dir {tmp_path} seed=3"


def test_checked_configuration_can_be_printed(capfd: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    assert door.main("train", ["--cfg", "job", "adapter.rank=4"]) == 0
    assert OmegaConf.create(capfd.readouterr().out).adapter.rank == 4


def test_help_names_every_choice(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        door.main("train", ["--help"])
    assert caught.value.code == 0
    out = capfd.readouterr().out
    assert re.search(r"model=\S*\|vista3d\|vista3d_tiny", out)
    assert "data=amos|autopet|enhance_pet|petct|petmri|phantom|sts|synthrad|totalsegmentator|umd" in out


@pytest.mark.parametrize("arguments", [["list", "models"], ["list"], ["list", "fusion"]])
def test_list(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "umdseg", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    # models come as a table, the name first
    lines = [line.split()[0] for line in done.stdout.splitlines()]
    assert ("vista3d_tiny" in lines) == (arguments[-1] != "fusion")
    assert ("none" in lines) == (arguments[-1] != "models")
    assert ("liver" in lines) == (len(arguments) == 1)


def test_report_of_no_run_is_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from umdseg.cli import main

    assert main(["report", str(tmp_path)]) == 1
    assert str(tmp_path) in capfd.readouterr().err
