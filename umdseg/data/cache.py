"""Preprocessed scans on disk: computed once, read a patch at a time, shared by ranks and runs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from umdseg.data.eviction import BUILDING, PREPARED, make_room, remove, room_for, sweep, touch
from umdseg.data.hashes import cache_root, file_hash
from umdseg.data.intensity import verdicts
from umdseg.data.io.nifti import read_grid, read_image, read_label
from umdseg.data.lease import Lease, guard
from umdseg.data.preprocess import Preprocessing, prepare_image, prepare_label
from umdseg.data.store import CachedScan, damage, pack_entry, write_entry
from umdseg.files import sha256_value
from umdseg.vocabulary import Scan

_VERSION = 2


class PreparedCache:
    """Maps (scan content, label content, preprocessing, structure and allowed ids) to a prepared scan.

    What this process has been given stays as long as the process lives; entries beyond `limit_gb` that no
    living process uses make room, and come back when they are asked for again.

    Args:
        cache_dir: folder; None means $UMDSEG_CACHE or ~/.cache/umdseg.
        limit_gb: gigabytes (1e9 bytes) that prepared scans may take; None = no limit.
    """

    def __init__(self, cache_dir: str | Path | None = None, limit_gb: float | None = None) -> None:
        self.root, self.limit_gb = cache_root(cache_dir), limit_gb
        self._lease, self._told = Lease(self.root), False

    def get(
        self,
        scan: Scan,
        subject: str,
        preprocessing: Preprocessing,
        ids: Sequence[int],
        allowed: Sequence[int],
        others: Sequence[Path] = (),
    ) -> CachedScan:
        """Return a prepared scan, preparing it when the cache has none or only a damaged one.

        Args:
            scan: image and, if there is one, label.
            subject: named in errors.
            preprocessing: the card's numbers.
            ids: label ids that become 1, 2, ... in this order.
            allowed: all ids the label may hold.
            others: images of the subject's other scans, on whose grids a shared label may lie.

        Raises:
            UserError: the image or the label cannot be used, see `umdseg.data.io.nifti`; or the disk is full.
        """
        with room_for(self.root):
            folder = self._folder(scan, preprocessing, ids, allowed)
            self._lease.hold(folder.name)
        if folder.exists():
            self.discard_damaged(folder, f"{scan.image} (subject {subject})")
        if folder.exists():
            touch(folder)
        else:
            self._fill(folder, scan, subject, preprocessing, ids, allowed, others)
        return CachedScan(folder)

    def discard_damaged(self, folder: Path, what: str, deep: bool = False) -> bool:
        """Remove an entry that is not whole, and say so.

        Args:
            folder: the entry.
            what: named in the notice.
            deep: compare the contents too.

        Returns:
            Whether the entry is gone.
        """
        if damage(folder, deep) is None:
            return False
        with guard(self.root):
            # another process may have replaced it meanwhile
            wrong = damage(folder, deep)
            if wrong is None or not folder.exists():
                return True
            remove(self.root, folder)
        print(f"prepared scan of {what} is damaged ({wrong}): prepared again", file=sys.stderr, flush=True)
        return True

    def _folder(
        self, scan: Scan, preprocessing: Preprocessing, ids: Sequence[int], allowed: Sequence[int]
    ) -> Path:
        image = file_hash(scan.image, self.root)
        label = file_hash(scan.label, self.root) if scan.label else None
        scan_key = [scan.modality, scan.units, image, label]
        # a label that passed with more ids allowed must not pass unread with fewer
        known = sorted(allowed) if label else []
        key = sha256_value([_VERSION, *scan_key, preprocessing.fingerprint(), list(ids), known])
        return self.root / PREPARED / key[:2] / key

    def _fill(
        self,
        folder: Path,
        scan: Scan,
        subject: str,
        preprocessing: Preprocessing,
        ids: Sequence[int],
        allowed: Sequence[int],
        others: Sequence[Path],
    ) -> None:
        volume = read_image(scan.image, subject)
        # without a place, which may be another when the verdicts are told again
        findings = verdicts(volume, scan.modality, scan.units, "")
        prepared = prepare_image(volume, scan.modality, preprocessing)
        array = None
        if scan.label is not None:
            grids = (read_grid(path, subject) for path in others)
            label = read_label(scan.label, volume.grid, allowed, subject, grids)
            array = prepare_label(label, ids, prepared.grid)[0].numpy()
        entry = pack_entry(prepared.image[0].numpy(), array, prepared.grid, findings, folder.name)
        with room_for(self.root, entry.size), self._building() as temporary:
            write_entry(temporary, entry)
            with guard(self.root):
                # where another process was first, its content is the same
                if damage(folder) is not None:
                    self._publish(temporary, folder, entry.size)

    @contextmanager
    def _building(self) -> Iterator[Path]:
        """A folder beside the entries that is swept away by the next process should this one be killed."""
        with guard(self.root):
            sweep(self.root)
        name = uuid4().hex
        self._lease.hold(name)
        temporary = self.root / BUILDING / name
        temporary.mkdir(parents=True)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path, folder: Path, size: int) -> None:
        if folder.exists():
            remove(self.root, folder)
        told = make_room(self.root, size, self.limit_gb)
        if told and not self._told:
            self._told = True
            print(told, file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(temporary, folder)
