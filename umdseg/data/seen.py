"""Whom something was trained on, told by marks that name nobody: so that they are not scored as if unseen.

A mark is the beginning of the SHA-256 of an image file's content. It holds under another name, split, seed
or manifest, and nobody can guess it, as a hash of a patient's number can be guessed. A file written anew
(resampled, compressed again) has another mark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from umdseg.data.hashes import file_hash
from umdseg.vocabulary import Subject

# a chance hit among a million marks is one in 10^13
_DIGITS = 16
_SHOWN = 6


def marks(subjects: Iterable[Subject], cache_dir: str | Path | None = None) -> list[str]:
    """Marks of all images of some subjects, sorted; files are read once (see `file_hash`)."""
    images = {scan.image for subject in subjects for scan in subject.scans.values()}
    return sorted({file_hash(image, cache_dir)[:_DIGITS] for image in images})


def seen(
    subjects: Sequence[Subject], known: Collection[str], cache_dir: str | Path | None = None
) -> list[str]:
    """Ids of the subjects with an image that has one of the known marks."""
    held = set(known)
    return [s.id for s in subjects if held and held.intersection(marks([s], cache_dir))]


def seen_told(ids: Sequence[str], scored: int) -> str:
    """One sentence about scored subjects that were trained on; "" where there are none."""
    if not ids:
        return ""
    shown = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    return (
        f"{len(ids)} of {scored} scored subjects were trained or validated on ({shown}): "
        "their scores say nothing about new patients"
    )
