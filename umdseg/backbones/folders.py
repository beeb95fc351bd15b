"""Models that are what their folder says: which folder, which weights in it."""

from __future__ import annotations

from pathlib import Path

from umdseg.backbones.options import ModelOptions
from umdseg.errors import UserError


def given_folder(options: ModelOptions, folder: str | None, holds: str) -> Path | None:
    """The folder that the user names; None: the published one, downloaded.

    Args:
        options: of the model.
        folder: as the user wrote it, if at all.
        holds: the files it has to have, for the error.

    Raises:
        UserError: random weights without a folder to say what network they are of.
    """
    if folder is not None:
        return Path(folder).expanduser()
    if options.weights == "random":
        raise UserError(
            f"model '{options.name}' is what its folder says, and none is given",
            where="model.folder",
            expected=f"a folder with {holds}",
        )
    return None


def given_weights(options: ModelOptions) -> Path | None:
    """The weights file that the user names instead of the folder's; None: random, or the folder's."""
    if options.weights in (None, "", "random"):
        return None
    return Path(str(options.weights)).expanduser()
