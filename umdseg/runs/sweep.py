"""Run the jobs of a sweep one by one, each as if it were the only one."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from umdseg.config.check import ConfigError
from umdseg.config.compose import hydra_session
from umdseg.config.schema import Settings
from umdseg.config.sweep import Sweep
from umdseg.errors import UserError
from umdseg.files import sha256_value, write_json
from umdseg.runs.provenance import flags
from umdseg.runs.seeds import across_seeds, told

Job = Callable[[Settings], Path]


class JobsFailed(UserError):
    """Some jobs of a sweep failed, the others ran.

    Attributes:
        folders: run folders of those that did not fail, in order.
    """

    def __init__(self, failed: Mapping[str, str], jobs: int, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        listed = [f"{given}: {why.splitlines()[0]}" for given, why in failed.items()]
        super().__init__(f"{len(failed)} of {jobs} jobs failed", where="\n            ".join(listed))


def run_sweep(door: str, sweep: Sweep, job: Job, search: Sequence[str] = ()) -> list[Path]:
    """Give the checked jobs to Hydra's launcher (`launcher=basic`: one after the other).

    A job that fails, for whatever reason, does not keep the others from running; the index of the sweep
    is written in any case.

    Args:
        door: `train` or `evaluate`.
        sweep: from `umdseg.config.sweep.plan`.
        job: what one configuration does; returns its run folder.
        search: further folders of YAML files.

    Returns:
        The run folders, in order.

    Raises:
        JobsFailed: some jobs failed (the others ran).
    """
    results: dict[int, Path | str] = {}

    def task(config: DictConfig) -> None:
        number = int(HydraConfig.get().job.num)
        results[number] = "did not end"
        given = sweep.given[number]
        print(f"[{number + 1}/{len(sweep.jobs)}] {' '.join(given)}", file=sys.stderr, flush=True)
        try:
            results[number] = _run_one(door, sweep, number, job, search)
        except UserError as error:
            results[number] = str(error)
            print(error, file=sys.stderr, flush=True)
        # a defect in one job must not cost the others
        except Exception as error:
            results[number] = f"{type(error).__name__}: {error}"
            traceback.print_exc()

    try:
        _launch(door, sweep, task, search)
    finally:
        _index(sweep, results)
    folders = [result for result in results.values() if isinstance(result, Path)]
    failed = {" ".join(sweep.given[n]): result for n, result in results.items() if isinstance(result, str)}
    if failed:
        raise JobsFailed(failed, len(sweep.jobs), folders)
    return folders


def _run_one(door: str, sweep: Sweep, number: int, job: Job, search: Sequence[str]) -> Path:
    settings = sweep.jobs[number].settings
    if settings is None:
        raise ConfigError(sweep.jobs[number].problems)
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes > 1:
        return _subprocess(door, sweep.given[number], search)
    with isolated(door, [*flags(search), *sweep.given[number]]):
        return job(settings)


@contextmanager
def isolated(door: str, overrides: Sequence[str]) -> Iterator[None]:
    """Give a job its own command line and put environment and command line back afterwards.

    Lightning leaves rank variables in the environment, and processes it starts repeat `sys.argv`: with
    the sweep's they would start the sweep again.
    """
    environment, arguments = dict(os.environ), list(sys.argv)
    sys.argv = [arguments[0] if arguments else f"{door}.py", *overrides]
    try:
        yield
    finally:
        sys.argv = arguments
        _restore(environment)


def _restore(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _subprocess(door: str, overrides: Sequence[str], search: Sequence[str]) -> Path:
    """One process a job: CUDA contexts and process groups end with it."""
    command = [sys.executable, "-m", "umdseg.runs.door", door, *flags(search), *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise UserError(f"the job's process ended with status {done.returncode}", where=" ".join(overrides))
    return Path(lines[-1])


def _launch(door: str, sweep: Sweep, task: TaskFunction, search: Sequence[str]) -> None:
    """Hydra's multirun with the list of jobs already made, in place of its sweeper."""
    jobs = [outcome.overrides for outcome in sweep.jobs]
    shared = [text for text in jobs[0] if _is_hydra(text) or text.startswith("launcher=")] if jobs else []
    shared += [f"++hydra.sweep.dir={_quoted(str(folder))}"] if (folder := _folder(sweep)) else []
    with hydra_session(search):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        setup_globals()
        config = hydra.compose_config(
            config_name=door, overrides=shared, run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        plugins = Plugins.instance()
        launcher = plugins.instantiate_launcher(hydra_context=context, task_function=task, config=config)
        # the launcher adds the options meant for Hydra itself to every job
        own = [[text for text in job if not _is_hydra(text)] for job in jobs]
        for outcome in launcher.launch(own, initial_job_idx=0):
            _ = outcome.return_value  # raises what the job raised


def _quoted(text: str) -> str:
    """A text as one value in Hydra's grammar, where ${...} would be looked up."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def _is_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _index(sweep: Sweep, results: Mapping[int, Path | str]) -> None:
    """`runs_dir/sweeps/<hash of the jobs>.json`: which job went where, and means over seeds."""
    folder = _folder(sweep)
    if folder is None:
        return
    rows = [
        {"overrides": sweep.given[n], **({"run": r.as_posix()} if isinstance(r, Path) else {"error": r})}
        for n, r in results.items()
    ]
    name = sha256_value(sweep.given)[:8]
    finished = [(sweep.given[n], r) for n, r in results.items() if isinstance(r, Path)]
    seeds = across_seeds(finished)
    write_json(folder / f"{name}.json", {"jobs": rows, **({"seeds": seeds} if seeds else {})})
    for line in told(seeds):
        print(line, file=sys.stderr, flush=True)


def _folder(sweep: Sweep) -> Path | None:
    """`runs_dir/sweeps` of the first job."""
    settings = sweep.jobs[0].settings if sweep.jobs else None
    return settings.runs_dir / "sweeps" if settings else None
