"""`umdseg prepare SOURCE ROOT [OUT]`: the manifest of a public dataset; images stay where they are."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from umdseg.data.dataset import PairedDataset
from umdseg.data.hashes import cache_root
from umdseg.data.manifest import write_manifest
from umdseg.data.options import DataOptions
from umdseg.errors import UserError, unknown
from umdseg.files import atomic
from umdseg.progress import track
from umdseg.registry import resolve
from umdseg.vocabulary import MODALITIES, Modality, Scan, Subject

_MANIFEST = "subjects.csv"
# a dataset's labels that umdseg made, and images it converted, come along: a cache may be cleared
_MADE = "made"


def prepare_source(
    name: str, root: Path, out: Path | None, overrides: Sequence[str] = (), qc: bool = False
) -> Path:
    """Write `subjects.csv` and `subjects.yaml` of a dataset, and tell on standard error what is in it.

    Args:
        name: registered name of the source.
        root: its folder (`data.root`).
        out: folder to write into; None means `root`.
        overrides: options of the source, `key=value` or `data.key=value`; `seed=N` for the folds.
        qc: also draw a picture of every subject into `qc/`.

    Returns:
        The manifest.

    Raises:
        UserError: an option the source lacks, a folder that cannot be written, or anything
            `Source.load` refuses.
    """
    options, seed = _options(name, root, overrides)
    out = (out or root).expanduser()
    _refuse_read_only(out, given=out != root)
    dataset = resolve("data", name)(options).load(seed)
    manifest = out / _MANIFEST
    # an earlier one would speak of files that are being replaced
    manifest.unlink(missing_ok=True)
    dataset = replace(dataset, subjects=_with_own_files(dataset, out, options.cache_dir))
    if qc:
        _draw(dataset, out / "qc")
    write_manifest(dataset, manifest)
    print("\n".join(summary(dataset, manifest)), file=sys.stderr, flush=True)
    return manifest


def summary(dataset: PairedDataset, manifest: Path) -> Iterator[str]:
    """What was found, what is missing, and what to do next, line by line."""
    subjects = dataset.subjects
    patients = len({s.patient or s.id for s in subjects})
    people = f" of {patients} patients" if patients < len(subjects) else ""
    yield f"{dataset.name}: {len(subjects)} subjects{people}, {len(dataset.structures)} structures"
    for title, counts in {
        "split": Counter(s.split or "(none)" for s in subjects),
        "modalities": Counter("+".join(m for m in MODALITIES if m in s.scans) for s in subjects),
        "tracer": Counter(_tracer(s.scans) for s in subjects if "pet" in s.scans),
        "site": Counter(s.site for s in subjects if s.site),
    }.items():
        if counts:
            yield f"  {title + ':':12}" + ", ".join(f"{key} {n}" for key, n in sorted(counts.items()))
    unlabelled = [f"{s.id} {m}" for s in subjects for m, scan in s.scans.items() if scan.label is None]
    if unlabelled:
        yield f"  without label: {len(unlabelled)} scans, such as {unlabelled[0]}"
    held = [m for m in MODALITIES if any(m in s.scans for s in subjects)]
    if not any(len(s.scans) > 1 for s in subjects):
        yield "  no subject has two modalities, so there are no pairs"
    if any(not s.split for s in subjects):
        yield "  no split: data.folds=5 deals one, or fill the column `split` (train, val, test)"
    source = "petmri" if held == ["pet", "mr"] else "petct"
    chosen = ""
    if held not in (["ct", "pet"], ["pet", "mr"]):
        # quoted: shells read brackets and braces
        weights = ", ".join(f"{m}: 1" for m in held)
        chosen = f" 'data.modalities=[{','.join(held)}]' 'data.train_modalities={{{weights}}}'"
    yield f"next:\n  umdseg check data={source} data.manifest={manifest}{chosen}"


def _tracer(scans: Mapping[Modality, Scan]) -> str:
    return scans["pet"].tracer_or_sequence or "(unknown)"


def _options(name: str, root: Path, overrides: Sequence[str]) -> tuple[DataOptions, int]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    cls: type[DataOptions] = resolve("data", name).Options
    known = {option.name for option in fields(cls)}
    if "root" not in known:
        sources = "a manifest already" if "manifest" in known else "made when a run needs it, not read"
        raise UserError(f"data={name} is {sources}", where="umdseg prepare", expected="a dataset in a folder")
    given = [text.removeprefix("data.") for text in overrides]
    seeds = [text.partition("=")[2] for text in given if text.startswith("seed=")]
    given = [text for text in given if not text.startswith("seed=")]
    for text in given:
        key = text.partition("=")[0].partition(".")[0]
        if key not in known or key in ("name", "root"):
            raise unknown(f"option of data={name}", key, known - {"name", "root"}, where=text)
    try:
        config = OmegaConf.merge(OmegaConf.structured(cls), {"name": name, "root": str(root)})
        options = OmegaConf.to_object(OmegaConf.merge(config, OmegaConf.from_dotlist(given)))
        seed = int(seeds[-1]) if seeds else 0
    except (OmegaConfBaseException, ValueError) as error:
        what = str(error).splitlines()[0]
        raise UserError(what, where=" ".join(overrides), expected="options as on the command line") from error
    assert isinstance(options, DataOptions)
    options.validate()
    return options, seed


def _refuse_read_only(out: Path, given: bool) -> None:
    place = out.resolve()
    while not place.exists() and place != place.parent:
        place = place.parent
    # an administrator may write anywhere, but a folder that nobody may write to is meant to stay as it is
    protected = place.stat().st_mode & 0o222 == 0
    if protected or not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        expected = "a folder that can be written: umdseg prepare SOURCE ROOT OUT"
        what = "the manifest cannot be written there" if given else "the dataset's own folder is read-only"
        raise UserError(what, where=out, expected=expected)


def _with_own_files(dataset: PairedDataset, out: Path, cache_dir: str | None) -> tuple[Subject, ...]:
    """The subjects, with copies in OUT of the files that lie in the cache."""
    cache = cache_root(cache_dir)
    files = {p for s in dataset.subjects for scan in s.scans.values() for p in (scan.image, scan.label) if p}
    made = {path: out / _MADE / path.name for path in sorted(files) if path.is_relative_to(cache)}
    for path, copy in track(list(made.items()), "copy made files", "file"):
        with atomic(copy) as temporary:
            shutil.copyfile(path, temporary)

    def own(scan: Scan) -> Scan:
        label = made.get(scan.label, scan.label) if scan.label else None
        return replace(scan, image=made.get(scan.image, scan.image), label=label)

    return tuple(replace(s, scans={m: own(c) for m, c in s.scans.items()}) for s in dataset.subjects)


def _draw(dataset: PairedDataset, folder: Path) -> None:
    from umdseg.data.qc import picture

    for subject in track(dataset.subjects, "draw pictures", "subject"):
        picture(subject, folder / f"{subject.id}.png", dataset.structures)
