"""data=umd: the UMD data set, whole-body PET/CT and PET/MR with 13 organs (one mask a pair).

Source: arXiv:2602.07643, github.com/YichiZhang98/UMD: 490 PET/CT and 464 PET/MR scans, 13 organs, about
12,000 organ annotations, which is one mask for both members of a pair.

The data are announced, not released ("Data Structure & Usage: Coming soon"). So nothing about files could
be confirmed: not names, folders, format, label ids, units, tracer, split, nor whether somebody is in both
cohorts. What is read is stated by `data.image` and `data.label`; the defaults are a guess. Label ids are
this project's `umd13` (liver 1, ..., stomach 13) unless `data.structures_file` names others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from umdseg import anatomy
from umdseg.data.dataset import PairedDataset
from umdseg.data.sources.base import Listing, RootOptions, Source
from umdseg.data.sources.layout import root_of, some
from umdseg.data.structures import read_structures
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

_FIELDS = ("cohort", "subject", "modality")
_SPELT: dict[str, Modality] = {"ct": "ct", "pet": "pet", "pt": "pet", "mr": "mr", "mri": "mr"}


@dataclass
class UmdOptions(RootOptions):
    """Options of UMD.

    Attributes:
        image: path of a scan below the root, with {subject} and {modality} and, where there are several,
            {cohort}; the modality may be spelt ct, pet, pt, mr or mri, in any case.
        label: path of the mask shared by a subject's scans, with the same fields but {modality}.
        structures_file: YAML naming the label ids, if they are not 1 to 13 in the order of `umd13`.
        tracer: of all PET scans.
        folds: no split has been announced.
    """

    name: str = "umd"
    image: str = "{cohort}/{subject}/{modality}.nii.gz"
    label: str = "{cohort}/{subject}/mask.nii.gz"
    structures_file: str | None = None
    tracer: str = "FDG"
    folds: int | None = 5

    def validate(self) -> None:
        """As `DataOptions.validate`; also refuses patterns without the fields they need."""
        super().validate()
        for key, needed in (("image", {"subject", "modality"}), ("label", {"subject"})):
            pattern = getattr(self, key)
            held = re.findall(r"\{(\w*)\}", pattern)
            if not needed <= set(held) or not set(held) <= set(_FIELDS) or len(set(held)) < len(held):
                expected = f"a path with {', '.join(f'{{{name}}}' for name in sorted(needed))} once"
                raise UserError(f"pattern '{pattern}'", where=f"data.{key}", expected=expected)


class UmdSource(Source):
    """Lists what fits the patterns."""

    Options = UmdOptions
    options: UmdOptions

    def listing(self, seed: int) -> Listing:
        """As `Source.listing`."""
        del seed
        self.options.validate()
        root = root_of(self.options.root, "umd", f"files like {self.options.image}")
        found: dict[tuple[str, str], dict[Modality, Path]] = {}
        for path, held in _files(root, self.options.image):
            modality = _SPELT.get(held["modality"].lower())
            if modality is None:
                continue
            scans = found.setdefault((held.get("cohort", ""), held["subject"]), {})
            if modality in scans:
                what = f"subject {held['subject']} has two {modality} scans"
                raise UserError(what, where=f"{scans[modality]} and {path}", expected="one of each modality")
            scans[modality] = path
        if not found:
            expected = f"files like {self.options.image}; data.image and data.label say how yours are named"
            raise UserError("no scans found", where=f"data.root={root}", expected=expected)
        subjects = [self._subject(root, *key, scans) for key, scans in sorted(found.items())]
        missing = [s.id for s in subjects for scan in s.scans.values() if not (scan.label or root).is_file()]
        if missing:
            raise some(set(missing), len(subjects), "subjects have no mask", root, self.options.label)
        structures = anatomy.ids("umd13")
        if self.options.structures_file:
            structures = read_structures(Path(self.options.structures_file).expanduser())[1]
        return Listing(PairedDataset("umd", tuple(subjects), structures, root))

    def _subject(self, root: Path, cohort: str, name: str, images: dict[Modality, Path]) -> Subject:
        label = root / self.options.label.format(cohort=cohort, subject=name)
        tracer = {"pet": self.options.tracer}
        scans = {m: Scan(path, m, UNITS[m], label, tracer.get(m)) for m, path in images.items()}
        return Subject(f"{cohort}_{name}" if cohort else name, scans, "", "", "umd")


def _files(root: Path, pattern: str) -> list[tuple[Path, dict[str, str]]]:
    """Files that fit a pattern, with what stands in its fields."""
    exact = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(pattern))
    found = []
    for path in sorted(root.glob(re.sub(r"\{\w+\}", "*", pattern))):
        match = re.fullmatch(exact, path.relative_to(root).as_posix())
        if match and path.is_file():
            found.append((path, match.groupdict()))
    return found
