"""The run folder: one place per run, found again by its hash."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from umdseg.errors import UserError
from umdseg.files import write_json, write_text

NEEDED = ("config.yaml", "cases.parquet", "cases.csv", "gap.json", "report.html")


@dataclass
class RunFolder:
    """A folder `runs/<task>/<name>-<hash>/`.

    Attributes:
        path: the folder.
        leader: False in the helper processes of distributed training, which write nothing.
    """

    path: Path
    leader: bool = True
    _lock: IO[str] | None = field(default=None, repr=False)
    _start: float = field(default_factory=time.monotonic, repr=False)

    @classmethod
    def locate(
        cls, parent: Path, name: str, run_hash: str, *, rename: bool = True, leader: bool = True
    ) -> RunFolder:
        """The folder of a run; it need not exist yet.

        Args:
            parent: `runs/<task>`.
            name: the run's name.
            run_hash: the run's hash.
            rename: take a folder of another name with the same hash for this run's (a user renamed it).
            leader: see the class.
        """
        exact = parent / f"{name}-{run_hash}"
        if rename and not exact.exists():
            same = sorted(path for path in parent.glob(f"*-{run_hash}") if path.is_dir())
            exact = same[0] if same else exact
        return cls(exact, leader)

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint, or None."""
        last = self.path / "checkpoints" / "last.ckpt"
        return last if last.is_file() else None

    @property
    def complete(self) -> bool:
        """Whether the run ended and all its results are there."""
        whole = all((self.path / name).is_file() for name in NEEDED)
        return whole and self.provenance().get("status") == "complete"

    def provenance(self) -> dict[str, Any]:
        """The content of provenance.json; empty when there is none that can be read."""
        try:
            value = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def set_aside(self) -> Path | None:
        """Move an earlier folder out of the way (resume=never); return where it went."""
        if not self.leader or not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        return aside

    def claim(self) -> None:
        """Make the folder and keep other processes out of it until this one ends, however it ends.

        Raises:
            UserError: another process is working in it, or it cannot be written.
        """
        if not self.leader:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a", encoding="utf-8")  # noqa: SIM115 - held until release
        except OSError as error:
            raise UserError(
                f"the run folder cannot be made: {error.strerror}",
                where=self.path,
                expected="runs_dir=FOLDER, a folder that can be written",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            raise UserError(
                "another process is working on this very run",
                where=self.path,
                expected="one process a run; wait for it",
            ) from error

    def release(self) -> None:
        """Let others in again."""
        if self._lock is not None:
            # the file stays: without it a process that opened it and one that makes it anew both hold a lock
            self._lock.close()
            self._lock = None

    def begin(self, record: dict[str, Any], config: str) -> None:
        """Write config.yaml and provenance.json; an unfinished run's first start time is kept."""
        if not self.leader:
            return
        earlier = self.provenance()
        write_text(self.path / "config.yaml", config)
        record["started"] = earlier.get("started", record["started"])
        record["seconds"] = earlier.get("seconds", 0.0)
        record["resumed"] = earlier.get("resumed", -1) + 1
        write_json(self.path / "provenance.json", record)

    def end(self, status: str, **facts: Any) -> None:
        """Write how the run ended (complete, stopped or failed) and how long it took in all."""
        if not self.leader or not self.path.exists():
            return
        record = self.provenance()
        seconds = record.get("seconds", 0.0) + time.monotonic() - self._start
        self._start = time.monotonic()
        record |= {**facts, "status": status, "seconds": round(seconds, 1)}
        write_json(self.path / "provenance.json", record)
