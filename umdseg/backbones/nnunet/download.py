"""Release archives: downloaded once, checked, unpacked without leaving the folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from umdseg.backbones.download import stream
from umdseg.errors import UserError
from umdseg.files import sha256_file
from umdseg.progress import track

BY_HAND = "a connection, or the archive unpacked by hand: model.folder=FOLDER"


def fetch_archive(url: str, target: Path, sha256: str | None) -> Path:
    """The folder an archive unpacks to; a second call finds it there.

    An interrupted download goes on where it stopped, if the server can. `target` appears whole or not at all.

    Args:
        url: zip file.
        target: folder to make.
        sha256: of the archive; None where nobody has published one (then only its own checksums hold).

    Raises:
        UserError: no connection, another file than expected, a damaged archive, a member that would be
            written outside the folder.
    """
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    # jobs of a sweep may want the same archive at the same time
    with FileLock(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        part = target.with_name(target.name + ".zip.part")
        stream(url, part, BY_HAND)
        try:
            if sha256 is not None and (found := sha256_file(part)) != sha256:
                raise UserError(
                    f"the downloaded archive is not the one named (sha256 {found})",
                    where=url,
                    expected=f"sha256 {sha256}",
                )
            _unpack(part, target, url)
        finally:
            # what is damaged would still be damaged when gone on with
            part.unlink(missing_ok=True)
    return target


def _unpack(archive: Path, target: Path, url: str) -> None:
    room = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            for member in members:
                path = PurePosixPath(member.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in member.filename:
                    raise UserError(
                        f"the archive would write outside its folder: {member.filename}", where=url
                    )
            for member in track(members, "unpacking", unit="file"):
                # reading a member checks its CRC
                packed.extract(member, room)
        os.replace(room, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise UserError(f"not a readable zip archive: {error}", where=url) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
