"""Studies of autoPET in either published layout; see `umdseg.data.sources.autopet`."""

from __future__ import annotations

from pathlib import Path

from umdseg.data.sources.layout import matched, niftis, some
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Scan, Subject

HOLDS = "imagesTr and labelsTr, or PETCT_*/*/SUV.nii.gz"
_CASE = r"(?P<tracer>fdg|psma)_(?P<patient>[0-9a-f]+)_.+"
_TRACERS = {"fdg": "FDG", "psma": "PSMA"}
# Tübingen scanned all FDG, Munich all PSMA studies
_SITES = {"fdg": "UKT", "psma": "LMU"}


def fits(root: Path) -> bool:
    """Whether a folder holds one of the layouts."""
    return _is_nnunet(root) or any(root.glob("PETCT_*/*/SUV.nii.gz"))


def studies(root: Path, ct: str) -> list[Subject]:
    """All studies with lesion labels, not yet in a split.

    Args:
        root: folder that `fits`.
        ct: name of the CT file in the per-study layout, CTres (on the PET grid) or CT.

    Raises:
        UserError: a missing image or label, or an unexpected name.
    """
    return _nnunet(root) if _is_nnunet(root) else _per_study(root, ct)


def _is_nnunet(root: Path) -> bool:
    return (root / "imagesTr").is_dir() and any((root / "imagesTr").glob("*_0001.nii*"))


def _nnunet(root: Path) -> list[Subject]:
    images, labels = niftis(root / "imagesTr"), niftis(root / "labelsTr")
    parts = matched(images, r"(.+)_(000[01])", root / "imagesTr", "<case>_0000.nii.gz and <case>_0001.nii.gz")
    cases = sorted({match[1] for match in parts.values()})
    for ending, what in (("_0000", "cases have no CT"), ("_0001", "cases have no PET")):
        missing = [case for case in cases if case + ending not in images]
        if missing:
            raise some(missing, len(cases), what, root / "imagesTr", f"<case>{ending}.nii.gz for each")
    unlabelled = set(cases) - set(labels)
    if unlabelled:
        raise some(unlabelled, len(cases), "cases have no label", root / "labelsTr", "<case>.nii.gz for each")
    named = matched(cases, _CASE, root / "imagesTr", "fdg_<patient>_<study> or psma_<patient>_<study>")
    subjects = []
    for case, match in named.items():
        ct, pet, label = images[f"{case}_0000"], images[f"{case}_0001"], labels[case]
        subjects.append(_subject(case, match["tracer"], match["patient"], ct, pet, label))
    return subjects


def _per_study(root: Path, ct: str) -> list[Subject]:
    subjects = []
    for suv in sorted(root.glob("PETCT_*/*/SUV.nii.gz")):
        study, patient = suv.parent, suv.parent.parent.name
        files = [study / f"{ct}.nii.gz", study / "SEG.nii.gz"]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            what = f"study {patient}/{study.name} lacks {' and '.join(missing)}"
            raise UserError(what, where=study, expected=f"{ct}.nii.gz, SUV.nii.gz and SEG.nii.gz")
        name = f"{patient}_{study.name}"
        subjects.append(_subject(name, "fdg", patient.removeprefix("PETCT_"), files[0], suv, files[1]))
    return subjects


def _subject(name: str, tracer: str, patient: str, ct: Path, pet: Path, label: Path) -> Subject:
    return Subject(
        id=name,
        scans={
            "ct": Scan(ct, "ct", UNITS["ct"], label),
            "pet": Scan(pet, "pet", UNITS["pet"], label, _TRACERS[tracer]),
        },
        split="",
        site=_SITES[tracer],
        dataset="autopet",
        patient=f"{tracer}_{patient}",
    )
