"""Real small networks, as a user brings them, on real scans.

    python experiments/small_nets/run.py ../shared/data

Writes result.json and figure.png beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.data.geometry import Volume
from umdseg.data.io.nifti import read_image
from umdseg.files import atomic, write_json
from umdseg.inference.together import open_together
from umdseg.metrics import score_labels
from umdseg.progress import track

HERE = Path(__file__).parent
CT_NETS: dict[str, tuple[str, str, dict[str, float]]] = {
    "allconvunet_tcia": ("AllConvUNet", "allconvunet_tcia_fold1.pth", {"scale": 4096, "shift": -1024}),
    "obeliskhybrid_tcia": ("ObeliskHybridTcia", "obeliskhybrid_tcia_fold1.pth", {}),
    "obeliskhybrid_visceral": (
        "ObeliskHybridVisceral",
        "obeliskhybrid_visceral_fold1.pth",
        {"scale": 4.096, "shift": -1.024},
    ),
}
# first axis to the right or left, third up or down
ORIENTATIONS = ("LAI", "LAS", "RAI", "RAS")
# one network of each study tells how its scans were stored
PROBED = ("allconvunet_tcia", "obeliskhybrid_visceral")


def main() -> None:
    """Read the argument, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with weights/, totalsegmentator/, sts_pet_ct_mr/")
    data = parser.parse_args().data
    image = read_image(data / "totalsegmentator/example_ct.nii.gz")
    label = read_image(data / "totalsegmentator/example_seg_fast_force_split.nii.gz")
    ids = json.loads((data / "totalsegmentator/class_ids.json").read_text())["total"]
    numbers = {name: int(number) for number, name in ids.items()}
    result: dict[str, Any] = {"ct": {}, "orientations": {}, "petct": {}}
    maps: dict[str, np.ndarray] = {}
    for name in track(CT_NETS, "CT networks"):
        backbone = bring(data, name)
        result["ct"][name], maps[name] = scored(backbone, image, label, numbers)
        if name in PROBED:
            card = backbone.card
            for codes in ORIENTATIONS:
                backbone.card = replace(card, orientation=codes, overlap=0.0)
                rows, _ = scored(backbone, image, label, numbers)
                dice = {row["structure"]: row["dice"] for row in rows}
                result["orientations"].setdefault(name, {})[codes] = dice
    result["petct"] = lesions(data)
    result["command"] = "python experiments/small_nets/run.py ../shared/data"
    write_json(HERE / "result.json", result)
    figure(image, label, maps, numbers)


def bring(data: Path, name: str) -> Backbone:
    """A network of `nets.py` under its card, with its published weights."""
    maker, file, arguments = CT_NETS[name]
    return load_backbone(
        "torch_module",
        str(data / "weights/obelisk" / file),
        module=f"{HERE / 'nets.py'}:{maker}",
        arguments=arguments,
        card=str(HERE / f"{name}.yaml"),
    )


def scored(
    backbone: Backbone, image: Volume, label: Volume, numbers: Mapping[str, int]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Scores of the structures that both the network and the reference have; the map in reference ids."""
    names = list(backbone.card.structures)
    found = inference.segment(backbone, image, names, modality="ct")
    table = np.array([0, *(numbers.get(name, 0) for name in names)], dtype=np.int16)
    known = {numbers[name]: name for name in names if (label.array == numbers.get(name, -1)).any()}
    scores = score_labels(label.array, table[found], label.grid.spacing, known)
    columns = ["structure", "dice", "nsd", "volume_ref_ml", "volume_pred_ml"]
    return _rounded(scores[columns].to_dict("records")), table[found]


def lesions(data: Path) -> list[dict[str, Any]]:
    """P-Net, trained on lung cancer in whole bodies, on sarcomas; scored on the CT's grid."""
    backbone = load_backbone(
        "torch_module",
        str(data / "weights/petct_deepigeos/PNet_model.pt"),
        module=f"{HERE / 'nets.py'}:PNet",
        card=str(HERE / "pnet_petct.yaml"),
    )
    folders = sorted((data / "sts_pet_ct_mr/nifti").glob("STS_*"))
    rows = []
    for folder in track([f for f in folders if (f / "CT_image.nii.gz").is_file()], "PET/CT patients"):
        ct, pet = (read_image(folder / f"{kind}_image.nii.gz") for kind in ("CT", "PET"))
        reference = read_image(folder / "CT_mask.nii.gz").array > 0
        found = inference.label_map(open_together(backbone, {"ct": ct, "pet": pet}), ["tumour"])
        scores = score_labels(reference.astype(np.int16), found, ct.grid.spacing, {1: "tumour"})
        columns = ["dice", "volume_ref_ml", "volume_pred_ml"]
        rows += [{"subject": folder.name, **row} for row in _rounded(scores[columns].to_dict("records"))]
    return rows


def _rounded(rows: list[dict[Any, Any]]) -> list[dict[str, Any]]:
    return [{str(k): round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def figure(image: Volume, label: Volume, maps: Mapping[str, np.ndarray], numbers: Mapping[str, int]) -> None:
    """One coronal slice, through the middle of the left kidney: reference and each network."""
    shown = ("liver", "spleen", "kidney_left", "kidney_right", "stomach", "gallbladder", "urinary_bladder")
    places = np.argwhere(label.array == numbers["kidney_left"])
    cut = int(np.median(places[:, 1]))
    panels = {"reference (TotalSegmentator)": label.array, **maps}
    drawn, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.6), constrained_layout=True)
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.imshow(image.array[:, cut].T, cmap="gray", vmin=-160, vmax=240, origin="lower")
        colours = np.zeros(values[:, cut].shape, dtype=float)
        for position, name in enumerate(shown, start=1):
            colours[values[:, cut] == numbers[name]] = position
        masked = np.ma.masked_equal(colours.T, 0)
        axis.imshow(masked, cmap="tab10", vmin=0.5, vmax=10.5, alpha=0.6, origin="lower")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    patches = [plt.Rectangle((0, 0), 1, 1, color=plt.get_cmap("tab10")(i)) for i in range(len(shown))]
    drawn.legend(patches, [name.replace("_", " ") for name in shown], loc="outside lower center", ncols=7)
    with atomic(HERE / "figure.png") as temporary:
        drawn.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
