"""Phantoms on real anatomy beside real scans: values per tissue, histograms, pictures.

    python experiments/phantom_realism/compare.py DATA

DATA is the folder of the shared public data (autopet3_organ_labels, totalsegmentator, sts_raw_dicom,
sts_pet_ct_mr). Writes result.json and figure.png beside this file; about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_image, read_label
from umdseg.data.phantom.labelmap import find_maps, read_ids, read_map, stem, tracer_of
from umdseg.data.phantom.mapped import MAP_SCANNER, MapAnatomy, render_map
from umdseg.files import atomic, write_json
from umdseg.progress import track

HERE = Path(__file__).parent
SUV_PER_BQML = 2.429e-4  # of STS_001: MANIFEST of the data
# boxes placed by hand in STS_001's whole-body PET: x, y, z index ranges of the DICOM grid (LPS)
BOXES = {
    "liver": ((44, 56), (56, 72), (146, 154)),
    "spleen": ((84, 92), (67, 76), (148, 153)),
    "heart": ((68, 87), (48, 70), (172, 184)),
    "urinary_bladder": ((63, 68), (64, 74), (61, 65)),
    "lung": ((42, 54), (58, 70), (182, 186)),
    "muscle": ((44, 54), (78, 88), (60, 66)),
}
Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """Values per tissue of one modality, real and phantom, and how they are binned."""

    real: Values
    phantom: Values
    bins: NDArray[np.float64]


def organ_values(
    image: Volume, label: NDArray[Any], ids: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """Voxels of each organ without its outermost layer."""
    out = {}
    for name, number in ids.items():
        inner = binary_erosion(label == number)
        if inner.sum() >= 40:
            out[name] = np.asarray(image.array[inner], dtype=np.float64)
    return out


def real_ct_mr(data: Path) -> tuple[Values, Values, Volume, Volume]:
    """TotalSegmentator's example CT and MR with its labels (model-made)."""
    folder = data / "totalsegmentator"
    tables = json.loads((folder / "class_ids.json").read_text())
    found = []
    for image, label, task in (
        ("example_ct", "example_seg_fast_force_split", "total"),
        ("example_mr_sm", "example_seg_mr", "total_mr"),
    ):
        volume = read_image(folder / f"{image}.nii.gz")
        ids = {name: int(number) for number, name in tables[task].items()}
        values = organ_values(volume, read_label(folder / f"{label}.nii.gz").array, ids)
        values["muscle"] = np.concatenate(
            [v for n, v in values.items() if n.startswith(("autoch", "ilio", "glut"))]
        )
        values["vertebrae"] = np.concatenate([v for n, v in values.items() if n.startswith("vertebrae")])
        found.append((values, volume))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def real_pet(data: Path) -> tuple[Values, NDArray[np.float32], tuple[float, ...]]:
    """Boxes in STS_001's whole-body FDG PET in SUV (Z, Y, X), and its voxel size (mm, x y z)."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    folder = str(data / "sts_raw_dicom" / "STS_001" / "FDG_PET" / "image")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    image = reader.Execute()
    suv = (sitk.GetArrayFromImage(image) * SUV_PER_BQML).astype(np.float32)
    boxes = {n: suv[z[0] : z[1], y[0] : y[1], x[0] : x[1]].ravel() for n, (x, y, z) in BOXES.items()}
    return {n: v.astype(np.float64) for n, v in boxes.items()}, suv, image.GetSpacing()


def background(data: Path) -> NDArray[np.float64]:
    """SUV of the sarcoma patients' cropped PET in the body outside the tumour."""
    parts = []
    for folder in sorted((data / "sts_pet_ct_mr" / "nifti").glob("STS_*")):
        if (folder / "PET_image.nii.gz").is_file():
            pet = np.asarray(read_image(folder / "PET_image.nii.gz").array, dtype=np.float64)
            mask = read_label(folder / "PET_mask.nii.gz").array > 0
            parts.append(pet[~mask & (pet > 0.15)][::7])
    return np.concatenate(parts)


def phantoms(data: Path, seed: int) -> tuple[dict[str, Values], dict[str, Any]]:
    """Values per tissue of unenhanced phantoms on every third map, and pictures of an FDG and a PSMA map."""
    folder = data / "autopet3_organ_labels"
    ids, scanner = read_ids(folder), replace(MAP_SCANNER, contrast=0.0)
    pooled: dict[str, dict[str, list[NDArray[np.float64]]]] = {"ct": {}, "mr": {}, "FDG": {}, "PSMA": {}}
    pictures: dict[str, Any] = {}
    for number, path in enumerate(track(find_maps(folder)[::3], "render phantoms", "map")):
        anatomy, tracer = MapAnatomy(read_map(path, ids)), tracer_of(stem(path))
        for modality in ("ct", "mr", "pet"):
            image, label = render_map(anatomy, seed + number, modality, scanner, tracer)
            values: dict[str, Any] = organ_values(image, label.array, ids)
            values |= tissue_values(anatomy, image, seed + number)
            for name, found in values.items():
                kind = tracer if modality == "pet" else modality
                whole = "kidney" if name.startswith("kidney") else name
                scale = np.median(values["liver"]) if modality == "mr" else 1.0
                pooled[kind].setdefault(whole, []).append(found / scale)
            pictures[f"{tracer} {modality}"] = (image, anatomy)
    return {k: {n: np.concatenate(v) for n, v in own.items()} for k, own in pooled.items()}, pictures


def tissue_values(anatomy: MapAnatomy, image: Volume, seed: int) -> dict[str, NDArray[np.float64]]:
    """Muscle and vertebral bodies, which the maps do not name, from the phantom's tissue codes."""
    from umdseg.data.phantom.tracers import code

    codes, _ = anatomy.scan(image.grid, seed)
    f, grid = anatomy.fit, image.grid
    found = {}
    for name, tissues in (
        ("muscle", ("muscle", "muscle_fat")),
        ("vertebrae", ("spongy_bone", "cortical_bone")),
    ):
        mask = np.isin(codes, [code(t) for t in tissues])
        if name == "vertebrae":
            x = grid.affine[0, 3] + grid.spacing[0] * np.arange(grid.shape[0])
            z = grid.affine[2, 3] + grid.spacing[2] * np.arange(grid.shape[2])
            near = np.abs(x[:, None] - np.interp(z, f.z, f.middle)) < 25
            low = np.interp(z, f.z, f.template_z)
            mask &= (near & (low > -280) & (low < 60))[:, None, :]
        inner = binary_erosion(mask)
        found[name] = np.asarray(image.array[inner], dtype=np.float64)[::5]
    return found


def overlap(a: NDArray[np.float64], b: NDArray[np.float64], bins: NDArray[np.float64]) -> float:
    """Share of two histograms that is common: 1 the same, 0 apart."""
    p, q = (np.histogram(np.clip(v, bins[0], bins[-1]), bins)[0] / len(v) for v in (a, b))
    return float(np.minimum(p, q).sum())


def table(study: Study) -> dict[str, Any]:
    """Mean, standard deviation and percentiles, real and phantom, and the overlap."""
    rows = {}
    for name in sorted(study.real.keys() & study.phantom.keys()):
        row: dict[str, Any] = {}
        for kind, values in (("real", study.real[name]), ("phantom", study.phantom[name])):
            low, middle, high = np.percentile(values, [5, 50, 95])
            row[kind] = {
                **{"mean": round(float(values.mean()), 2), "sd": round(float(values.std()), 2)},
                **{"p5": round(float(low), 2), "p50": round(float(middle), 2), "p95": round(float(high), 2)},
            }
        row["overlap"] = round(overlap(study.real[name], study.phantom[name], study.bins), 2)
        rows[name] = row
    return rows


def merged(values: Values, parts: Mapping[str, Sequence[str]]) -> Values:
    """Values under the maps' coarser names."""
    found = {n: [values[p] for p in own if p in values] for n, own in parts.items()}
    return {n: np.concatenate(v) for n, v in found.items() if v}


def draw(pictures: Mapping[str, Any], real: Mapping[str, Any], studies: Mapping[str, Study]) -> None:
    """Coronal and axial pictures beside real ones, histograms below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 6, figsize=(19, 15))
    for axis in axes.flat:
        axis.axis("off")

    def show(axis: Any, plane: Any, steps: Sequence[float], title: str, **look: Any) -> None:
        axis.imshow(plane.T, origin="lower", aspect=steps[1] / steps[0], **look)
        axis.set_title(title, fontsize=10)

    hu: dict[str, Any] = {"cmap": "gray", "vmin": -180, "vmax": 260}
    suv: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 7}
    ct, mr = real["ct"], real["mr"]
    image, anatomy = pictures["FDG ct"]
    s = ct.grid.spacing
    show(axes[0, 0], ct.array[:, 50], (s[0], s[2]), "real CT (TotalSegmentator)", **hu)
    show(axes[0, 1], *coronal(image, anatomy, 8), "phantom CT", **hu)
    show(axes[0, 2], ct.array[:, :, 95], s[:2], "real CT", **hu)
    show(axes[0, 3], *axial(image, anatomy, -75), "phantom CT", **hu)
    show(axes[0, 4], ct.array[:, :, 20], s[:2], "real CT", **hu)
    show(axes[0, 5], *axial(image, anatomy, -345), "phantom CT", **hu)
    pet, step = real["pet"], real["pet spacing"]
    show(axes[1, 0], pet.max(axis=1).T[::-1], (step[0], step[2]), "real FDG (STS_001), MIP", **suv)
    for column, tracer in ((1, "FDG"), (2, "PSMA")):
        image, anatomy = pictures[f"{tracer} pet"]
        steps = image.grid.spacing
        title = f"phantom {tracer}, MIP" + (" (SUV 0-15)" if tracer == "PSMA" else "")
        look = {**suv, "vmax": 15 if tracer == "PSMA" else 7}
        show(axes[1, column], image.array.max(axis=1), steps[::2], title, **look)
    image, anatomy = pictures["FDG pet"]
    show(axes[1, 3], pet[:, 62].T[::-1], (step[0], step[2]), "real FDG, coronal", **suv)
    show(axes[1, 4], *coronal(image, anatomy, 45), "phantom FDG, coronal", **suv)
    image, anatomy = pictures["FDG mr"]
    s = mr.grid.spacing
    top = {"cmap": "gray", "vmin": 0}
    show(axes[1, 5], *coronal(image, anatomy, 8), "phantom T1", vmax=np.percentile(image.array, 99.7), **top)
    show(axes[2, 4], upright(mr)[:, :, 10], s[:2], "real T1", vmax=np.percentile(mr.array, 99.5), **top)
    show(axes[2, 5], *axial(image, anatomy, -75), "phantom T1", vmax=np.percentile(image.array, 99.7), **top)
    for axis, (name, study) in zip(axes[2, :4], studies.items(), strict=False):
        axis.axis("on")
        histograms(axis, name, study)
    with atomic(HERE / "figure.png") as path:
        figure.tight_layout()
        figure.savefig(path, dpi=70)


def upright(image: Volume) -> Any:
    """The array with its x and y axes to the patient's right and front."""
    signs = [int(np.sign(image.grid.affine[axis, axis])) for axis in range(2)]
    return image.array[:: signs[0], :: signs[1]]


def histograms(axis: Any, name: str, study: Study) -> None:
    """Solid: real; dashed: phantom."""
    shown = [
        n for n in ("lung", "liver", "spleen", "muscle", "vertebrae", "heart", "body") if n in study.real
    ]
    for number, organ in enumerate(n for n in shown if n in study.phantom):
        for values, style in ((study.real[organ], "-"), (study.phantom[organ], "--")):
            share = np.histogram(np.clip(values, study.bins[0], study.bins[-1]), study.bins)[0] / len(values)
            label = organ if style == "-" else None
            axis.plot(study.bins[:-1], share, style, color=f"C{number}", label=label)
    axis.set_title(f"{name} (dashed: phantoms)", fontsize=10)
    axis.legend(fontsize=8)


def coronal(image: Volume, anatomy: MapAnatomy, ahead: float) -> tuple[Any, Sequence[float]]:
    """The coronal plane `ahead` mm in front of the spine at the level of the diaphragm."""
    f, g = anatomy.fit, image.grid
    y = np.interp(np.interp(0, f.template_z, f.z), f.z, f.spine) + ahead
    return image.array[:, round((y - g.affine[1, 3]) / g.spacing[1])], g.spacing[::2]


def axial(image: Volume, anatomy: MapAnatomy, height: float) -> tuple[Any, Sequence[float]]:
    """The axial plane at a height of the template."""
    f, g = anatomy.fit, image.grid
    z = np.interp(height, f.template_z, f.z)
    return image.array[:, :, round((z - g.affine[2, 3]) / g.spacing[2])], g.spacing[:2]


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ct, mr, ct_image, mr_image = real_ct_mr(given.data)
    boxes, pet, spacing = real_pet(given.data)
    own, pictures = phantoms(given.data, given.seed)
    lobes = [n for n in ct if n.startswith("lung_")]
    same = ("liver", "spleen", "stomach", "urinary_bladder", "prostate", "muscle", "vertebrae")
    parts = {n: [n] for n in same} | {"lung": lobes, "kidney": ["kidney_left", "kidney_right"]}
    relative = {n: v / np.median(mr["liver"]) for n, v in mr.items()}
    studies = {
        "CT, HU": Study(merged(ct, parts), own["ct"], np.arange(-1000, 500, 10.0)),
        "FDG PET, SUV": Study(boxes, own["FDG"], np.arange(0, 15, 0.1)),
        "T1 MR, relative to liver": Study(merged(relative, parts), own["mr"], np.arange(0, 3, 0.05)),
    }
    rest = background(given.data)
    fdg = pictures["FDG pet"][0].array.astype(np.float64)
    body = Study({"body": rest}, {"body": fdg[fdg > 0.15]}, np.arange(0, 4, 0.05))
    studies["FDG PET of the body, SUV"] = body
    psma = {n: round(float(v.mean()), 1) for n, v in sorted(own["PSMA"].items())}
    draw(pictures, {"ct": ct_image, "mr": mr_image, "pet": pet, "pet spacing": spacing}, studies)
    tables = {name: table(study) for name, study in studies.items()}
    note = "mean SUV of the PSMA phantoms, nothing real to compare with"
    write_json(HERE / "result.json", {"seed": given.seed, **tables, note: psma})


if __name__ == "__main__":
    main()
