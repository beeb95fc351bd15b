"""An nnU-Net result folder on disk: where it is, what it says, which folds it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from umdseg.backbones.weights import read_pickle
from umdseg.errors import UserError, unknown

_FILES = ("plans.json", "dataset.json")
_NEEDED = ("network_weights", "trainer_name", "init_args")


@dataclass(frozen=True)
class Fold:
    """One checkpoint.

    Attributes:
        path: its file.
        state: names (several for one tensor) -> tensors.
        trainer: class that trained it.
        configuration: such as 3d_fullres.
        mirroring: axes along which inputs may be mirrored; None or empty where not.
    """

    path: Path
    state: Mapping[str, torch.Tensor]
    trainer: str
    configuration: str
    mirroring: tuple[int, ...] | None


@dataclass(frozen=True)
class ResultFolder:
    """What a folder `trainer__plans__configuration` holds.

    Attributes:
        path: the folder.
        plans: plans.json.
        dataset: dataset.json.
    """

    path: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]

    @property
    def named(self) -> tuple[str, str]:
        """Trainer and configuration as the folder's name has them; used where there is no checkpoint.

        Raises:
            UserError: the folder is not called `trainer__plans__configuration`.
        """
        parts = self.path.name.split("__")
        if len(parts) != 3:
            raise UserError(
                "the folder's name does not tell the configuration",
                where=self.path,
                expected="trainer__plans__configuration, such as nnUNetTrainer__nnUNetPlans__3d_fullres",
            )
        return parts[0], parts[2]

    def before(self, configuration: str, given: str | None) -> ResultFolder:
        """The result folder of a cascade's stage before.

        Args:
            configuration: its name in the plans, such as 3d_lowres.
            given: the folder, or one above it; None = the one beside this one.

        Raises:
            UserError: it is not there.
        """
        if given is not None:
            return open_folder(given)
        own = self.path.absolute()
        trainer_and_plans = own.name.split("__")[:-1]
        beside = own.with_name("__".join([*trainer_and_plans, configuration]))
        if beside == own or not _is_result(beside):
            raise UserError(
                f"this cascade goes on from an earlier network's result ({configuration}), "
                "and that network's folder is not there",
                where=self.path,
                expected=f"{beside} with plans.json, dataset.json and fold_0/, or model.previous=FOLDER",
            )
        return open_folder(beside)

    def checkpoints(self, folds: Sequence[int | str] | None, name: str) -> list[Path]:
        """The checkpoint files of the chosen folds, None = every numbered fold (as nnU-Net does).

        Raises:
            UserError: a fold is not there or has no such checkpoint.
        """
        there = {path.parent.name.removeprefix("fold_"): path for path in self.path.glob(f"fold_*/{name}")}
        if not there:
            others = sorted({path.name for path in self.path.glob("fold_*/*.pth")})
            raise UserError(
                f"no fold of this nnU-Net model has a {name}",
                where=self.path,
                expected="fold_0/" + name + ", or model.weights=random",
                nearest=f"model.checkpoint={others[0]}" if others else None,
            )
        numbered = sorted((fold for fold in there if fold.isdigit()), key=int)
        chosen = [str(fold) for fold in folds] if folds is not None else numbered or sorted(there)
        for fold in chosen:
            if fold not in there:
                raise unknown("fold", fold, there, where=self.path)
        if not chosen:
            raise UserError("no folds are chosen", where="model.folds", expected="[0] or null for all")
        return [there[fold] for fold in chosen]


def open_folder(path: Path | str) -> ResultFolder:
    """Read a result folder, given itself or up to two levels above, where there is exactly one.

    Raises:
        UserError: there is none or there are several; a file is damaged.
    """
    root = Path(path).expanduser()
    found = find_folders(root)
    if len(found) != 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found[:5])
        what = f"holds {len(found)} nnU-Net models: {names}" if found else "holds no nnU-Net model"
        raise UserError(
            f"the folder {what}",
            where=root,
            expected="a folder trainer__plans__configuration with plans.json, dataset.json and fold_0/",
            nearest=str(found[0]) if found else None,
        )
    plans, dataset = (_json(found[0] / name) for name in _FILES)
    return ResultFolder(found[0], plans, dataset)


def find_folders(root: Path) -> list[Path]:
    """Every result folder at `root` or up to two levels below, the nearest level that has any."""
    for level in ([root], root.glob("*"), root.glob("*/*")):
        found = sorted(folder for folder in level if _is_result(folder))
        if found:
            return found
    return []


def read_fold(path: Path) -> Fold:
    """Read a checkpoint: tensors, numpy scalars and plain values, never code.

    Raises:
        UserError: missing, damaged, or not written by nnU-Net v2.
    """
    raw = read_pickle(path)
    if not isinstance(raw, Mapping) or any(key not in raw for key in _NEEDED):
        shown = ", ".join(map(str, list(raw)[:6])) if isinstance(raw, Mapping) else type(raw).__name__
        raise UserError(
            f"not a checkpoint of nnU-Net v2 but: {shown}", where=path, expected=f"with {', '.join(_NEEDED)}"
        )
    axes = raw.get("inference_allowed_mirroring_axes")
    return Fold(
        path=path,
        state={_plain(str(key)): value for key, value in raw["network_weights"].items()},
        trainer=str(raw["trainer_name"]),
        configuration=str(raw["init_args"]["configuration"]),
        mirroring=None if axes is None else tuple(int(axis) for axis in axes),
    )


def _plain(key: str) -> str:
    # prefixes of torch.compile and DistributedDataParallel
    return key.removeprefix("module.").removeprefix("_orig_mod.")


def _is_result(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"not a readable JSON file: {error}", where=path) from error
    if not isinstance(value, dict):
        raise UserError("not a JSON object", where=path, expected="as nnU-Net writes it")
    return value
