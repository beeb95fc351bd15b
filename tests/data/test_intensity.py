"""Verdicts on values: every real scan passes, and its corruption is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from umdseg.data import intensity
from umdseg.data.geometry import Grid, Volume
from umdseg.data.intensity import check_intensity, verdicts
from umdseg.data.io.nifti import read_image
from umdseg.data.options import DataOptions
from umdseg.data.verdict import worst
from umdseg.errors import UserError
from umdseg.vocabulary import UNITS, Scan, Subject

Change = Callable[[np.ndarray], np.ndarray]


def unit(a: np.ndarray) -> np.ndarray:
    return (a - a.min()) / (a.max() - a.min())


def z_score(a: np.ndarray) -> np.ndarray:
    return (a - a.mean()) / a.std()


def window(a: np.ndarray) -> np.ndarray:
    return np.clip((a + 160) / 400, 0, 1)


# modality, what was done to the values, the verdict at least, a phrase of the finding
CORRUPTIONS: list[tuple[str, str, Change, str, str]] = [
    ("ct", "0-1", unit, "refuse", "rescaled"),
    ("ct", "0-255", lambda a: 255 * unit(a), "refuse", "0-255"),
    ("ct", "0-255 rounded", lambda a: np.round(255 * unit(a)), "refuse", "0-255"),
    ("ct", "window to 0-1", window, "refuse", "rescaled"),
    ("ct", "window to 0-255", lambda a: 255 * window(a), "refuse", "0-255"),
    ("ct", "z-score", z_score, "refuse", "z-score"),
    ("ct", "no intercept -1024", lambda a: np.maximum(a, -1024) + 1024, "refuse", "intercept"),
    ("ct", "no intercept -1000", lambda a: np.maximum(a, -1000) + 1000, "refuse", "intercept"),
    ("ct", "sign lost", lambda a: np.where(a < 0, a + 65536, a), "refuse", "sign"),
    ("ct", "slope wrong", lambda a: 10 * a + 4000, "refuse", ""),
    ("ct", "clipped", lambda a: np.clip(a, -160, 240), "warn", "clipped"),
    ("ct", "empty", lambda a: 0 * a, "refuse", "100.0%"),
    ("pet", "Bq/ml", lambda a: a / 2.429e-4, "refuse", "Bq/ml"),
    ("pet", "0-1", unit, "refuse", "exactly 1"),
    ("pet", "0-255", lambda a: 255 * unit(a), "refuse", ""),
    ("pet", "z-score", z_score, "refuse", "below -0.1"),
    ("pet", "sign", lambda a: -a, "refuse", "below -0.1"),
    ("pet", "empty", lambda a: 0 * a, "refuse", "100.0%"),
    ("pet", "saturated", lambda a: np.minimum(a, np.percentile(a, 98)), "warn", "saturated"),
    ("mr", "empty", lambda a: 0 * a, "refuse", "100.0%"),
    ("mr", "constant", lambda a: 0 * a + 7, "refuse", "100.0%"),
    (
        "mr",
        "mostly empty",
        lambda a: np.where(np.arange(a.size).reshape(a.shape) % 400, 0, a),
        "refuse",
        "99.",
    ),
    ("mr", "sign", lambda a: -a - 1, "refuse", "negative"),
    ("mr", "z-score", z_score, "warn", "negative"),
    ("mr", "saturated", lambda a: np.minimum(a, np.percentile(a, 98)), "warn", "saturated"),
]


def real(folder: Path, every: int) -> list[tuple[str, str, Volume]]:
    names = {"CT": "ct", "PET": "pet", "MR_T1": "mr"}
    sts = sorted((folder / "sts_pet_ct_mr/nifti").glob("STS_*"))
    files = [
        (p, m) for s in sts[::every] for n, m in names.items() if (p := s / f"{n}_image.nii.gz").exists()
    ]
    total = folder / "totalsegmentator"
    files += [(total / f"example_{m}_sm.nii.gz", m) for m in ("ct", "mr")]
    files += [(total / "example_ct.nii.gz", "ct"), (total / "pulmonary_crop/ct_cropped.nii.gz", "ct")]
    files += [(p, "ct") for p in (folder / "tptbox_spine").glob("sample_ct/*_ct.nii.gz")]
    files += [(p, "mr") for p in (folder / "tptbox_spine").glob("sample_mri/*_T2w.nii.gz")]
    return [("/".join(path.parts[-2:]), m, read_image(path)) for path, m in files]


def verdict(array: np.ndarray, grid: Grid, modality: str):
    return verdicts(Volume(array.astype(np.float32), grid), modality, UNITS[modality], "x")


def test_every_real_scan_passes(shared_data: Path) -> None:
    scans = real(shared_data, every=1)
    assert len(scans) == 58
    told = {name: f for name, m, v in scans if (f := verdicts(v, m, UNITS[m], name))}
    assert told == {}


def test_every_corruption_of_real_scans_is_caught(shared_data: Path) -> None:
    missed = []
    for name, modality, volume in real(shared_data, every=9):
        for wanted, what, change, level, phrase in CORRUPTIONS:
            if wanted != modality:
                continue
            found = verdict(change(volume.array), volume.grid, modality)
            if worst(found) != level or phrase not in found[0].what:
                missed.append((name, what, found))
    assert missed == []


def phantom(modality: str) -> Volume:
    from umdseg.data.phantom.imaging import Scanner
    from umdseg.data.phantom.subject import render

    coarse = (8.0, 8.0, 8.0)
    return render(5, modality, Scanner(ct_spacing=coarse, mr_spacing=coarse, pet_spacing=coarse))[0]


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Volume]:
    return {modality: phantom(modality) for modality in ("ct", "pet", "mr")}


def test_whole_body_phantoms_pass_and_their_corruptions_are_caught(phantoms: dict[str, Volume]) -> None:
    for modality, volume in phantoms.items():
        assert verdict(volume.array, volume.grid, modality) == ()
    for modality, what, change, level, _ in CORRUPTIONS:
        volume = phantoms[modality]
        found = worst(verdict(change(np.asarray(volume.array, dtype=np.float64)), volume.grid, modality))
        # most of a whole-body field is air: a z-score of MR has the body alone above 0
        assert found in ({"warn", "refuse"} if level == "warn" else {"refuse"}), (modality, what)


@pytest.mark.parametrize("part", ["liver", "lung", "bone"])
def test_a_crop_without_air_or_of_one_tissue_is_not_refused(part: str) -> None:
    """Published HU (mean, spread): liver 55 +- 20, lung -800 +- 120 with vessels, spongy bone 250 +- 150."""
    mean, spread = {"liver": (55, 20), "lung": (-800, 120), "bone": (250, 150)}[part]
    array = np.random.default_rng(0).normal(mean, spread, (30, 30, 30))
    if part == "lung":
        array[:4] = np.random.default_rng(1).normal(40, 15, array[:4].shape)
    assert worst(verdict(array, Grid((30, 30, 30), np.eye(4)), "ct")) == "pass"


def test_findings_name_modality_units_file_and_what_was_expected(phantoms: dict[str, Volume]) -> None:
    volume = phantoms["ct"]
    (found,) = verdicts(Volume(unit(volume.array), volume.grid), "ct", "HU", "a.nii (subject p1)")
    assert found.what.startswith("ct in HU: values lie within 0 and 1")
    assert found.where == "a.nii (subject p1)"
    assert "air -1000" in found.expected


def test_the_policy_decides_and_a_warning_is_told_once(
    phantoms: dict[str, Volume], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intensity, "_told", set())
    scan = Scan(Path("ct.nii.gz"), "ct", "HU")
    subject = Subject("p1", {"ct": scan})
    wrong = Volume(unit(phantoms["ct"].array), phantoms["ct"].grid)
    with pytest.raises(UserError, match="rescaled") as caught:
        check_intensity(wrong, scan, subject, "refuse")
    assert all(word in str(caught.value) for word in ("ct.nii.gz", "subject p1", "data.bad_intensity=warn"))
    for _ in range(2):
        assert worst(check_intensity(wrong, scan, subject, "warn")) == "refuse"
    assert capsys.readouterr().err.count("rescaled") == 1
    assert check_intensity(phantoms["ct"], scan, subject, "refuse") == ()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("key", "value"), [("bad_intensity", "ignore"), ("reference", "cat")])
def test_unknown_choices_are_refused(key: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        DataOptions(**{key: value}).validate()
    assert caught.value.where == f"data.{key}"
