"""What stands behind train.py and evaluate.py: check, run, print the run folder."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from umdseg.config.check import ConfigError, check
from umdseg.config.compose import conf_dir, groups
from umdseg.config.schema import Settings
from umdseg.config.sweep import plan
from umdseg.errors import UserError
from umdseg.runs.sweep import JobsFailed, run_sweep

EXAMPLES = {
    "train": "model=vista3d data=petmri data.manifest=subjects.csv adapter=lora",
    "evaluate": "adapter.path=RUN/adapter data=sts data.root=FOLDER data.split=all",
}


# what the disk says when the user, not the code, can mend it
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def main(door: str, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a door.

    Args:
        door: `train` or `evaluate`.
        arguments: command line without the program's name; None takes the process's.
        program: how the door was called, for the help; None = `python <door>.py`.

    Returns:
        Exit status: 0 done, 1 a mistake in data, weights or files, 2 a mistake in the configuration
        (nothing was run), 130 stopped.
    """
    given = _parser(door, program or f"python {door}.py").parse_intermixed_args(arguments)
    text, folders, status = "", list[Path](), 0
    try:
        # standard output is for the run folder alone, whatever libraries print
        with redirect_stdout(sys.stderr):
            if given.cfg:
                text = _config_text(door, given)
            else:
                folders = _run(door, given)
    except JobsFailed as error:
        print(error, file=sys.stderr)
        folders, status = error.folders, 1
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(_disk_error(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    from umdseg.runs.job import is_leader

    if is_leader():
        sys.stdout.write(text + "".join(f"{folder}\n" for folder in folders))
        sys.stdout.flush()
    return status


def _disk_error(error: OSError) -> UserError:
    expected = "room and permission to write; the same command continues"
    what = f"a file could not be written or read: {error.strerror}"
    return UserError(what, where=error.filename, expected=expected)


def _run(door: str, given: argparse.Namespace) -> list[Path]:
    search = given.config_dir
    if not given.multirun:
        return [_job(_checked(door, given))]
    sweep = plan(door, given.overrides, search)
    for notice in sweep.notices:
        print(notice, file=sys.stderr)
    return run_sweep(door, sweep, _job, search)


def _checked(door: str, given: argparse.Namespace) -> Settings:
    """The configuration of one run; what was left out of it is told."""
    from umdseg.runs.job import say

    settings = check(door, given.overrides, given.config_dir)
    for notice in settings.notices:
        say(notice)
    return settings


def _job(settings: Settings) -> Path:
    from umdseg.runs.trainer import silence

    silence()
    if settings.run.task == "evaluate":
        from umdseg.runs.evaluate import run_evaluate

        return run_evaluate(settings)
    from umdseg.runs.train import run_train

    return run_train(settings)


def _config_text(door: str, given: argparse.Namespace) -> str:
    from umdseg.runs.job import config_text

    return config_text(_checked(door, given))


def _parser(door: str, program: str) -> argparse.ArgumentParser:
    choices = [f"  {name}={'|'.join(_choices(name))}" for name in groups()]
    parser = argparse.ArgumentParser(
        prog=program,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{program} [-m] [group=choice ...] [section.option=value ...]",
        epilog="\n".join(["groups:", *choices, "", "example:", f"  {program} {EXAMPLES[door]}"]),
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as model=vista3d fit.steps=500")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep: values separated by commas are tried all"
    )
    parser.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="further folder of YAML files"
    )
    parser.add_argument("--cfg", choices=["job"], help="print the checked configuration and stop")
    return parser


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
