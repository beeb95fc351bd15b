"""Tissues of phantoms on real anatomy: further organs, and the uptake of FDG and of PSMA ligands.

The physics of `tissues.py` holds; this table adds what organ maps name and the procedural anatomy
lacks, and the PSMA column. Entries are (mean, between-subject standard deviation).

Sources
    PSMA (68Ga-PSMA-11, SUVmean): Kurash et al., Sci Rep 2020;10:3109 (80 scans): kidneys 41.7,
        parotid 14.5, submandibular 13.0, normal prostate 2.4. Spread of the liver, 22 %: Ferreira et
        al., Cancer Imaging 2019;19:23. High uptake of small bowel, spleen and bladder, low of blood,
        muscle and brain: Prasad et al., Mol Imaging Biol 2016;18:428; Demirci et al., Clin Nucl Med
        2016;41:e169. The other PSMA numbers are representative values in the order these give.
        Only the abstracts of Kurash and Ferreira were checked.
        One glands tissue stands for parotid and submandibular; kidney is split so that its mean
        stays near 41.7.
    FDG of the further tissues: representative values. The kidney's mean stays that of `tissues.py`.
    T1 at 3 T: prostate 1597 ms (de Bazelaire et al., Radiology 2004;230:652); others representative.
    HU of the further tissues, lesions included: representative values.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from umdseg.data.phantom.tissues import TISSUES, Spread, Tissue
from umdseg.errors import unknown

TRACERS = ("FDG", "PSMA")

# codes 50 and up: the procedural tissues and their random draws stay as they are
_FURTHER: dict[str, Tissue] = {
    "renal_cortex": Tissue(50, "kidney", (33, 5), 135, (1142, 120), 0.85, (2.50, 0.55)),
    "renal_medulla": Tissue(51, "kidney", (30, 5), 105, (1545, 120), 0.88, (2.80, 0.65)),
    "renal_pelvis": Tissue(52, "kidney", (10, 5), 30, (2600, 500), 0.92, (7.0, 3.5)),
    "fluid": Tissue(53, "brain", (8, 3), 0, (3800, 300), 0.97, (1.60, 0.40)),
    "gland": Tissue(54, "gland", (30, 18), 45, (750, 90), 0.82, (1.90, 0.50)),
    "prostate": Tissue(55, "prostate", (40, 6), 40, (1597, 60), 0.86, (1.90, 0.50)),
    "lung_dependent": Tissue(56, "lung", (-790, 40), 20, (1100, 100), 0.17, (0.65, 0.15), 0.20),
    "lung_vessel": Tissue(57, "lung", (-480, 50), 40, (1700, 100), 0.42, (0.90, 0.15), 0.10),
    "small_bowel": Tissue(58, None, (32, 10), 35, (1150, 180), 0.85, (1.70, 0.50), 0.20),
    "adrenal": Tissue(59, None, (18, 10), 45, (800, 90), 0.80, (1.50, 0.35)),
    "thyroid": Tissue(60, None, (95, 18), 60, (1000, 100), 0.82, (1.40, 0.40)),
    "lesion": Tissue(61, "tumour", (40, 8), 40, (1250, 200), 0.86, (8.0, 4.0), 0.20),
    "liver_vessel": Tissue(62, "liver", (44, 5), 85, (1932, 85), 0.88, (1.90, 0.30)),
    # skin is thinner than a voxel: a shell of one voxel, mixed with the fat below it
    "skin_line": Tissue(64, None, (-35, 10), 6, (650, 50), 0.78, (0.45, 0.10)),
    "muscle_fat": Tissue(63, None, (-25, 15), 6, (600, 60), 0.85, (0.50, 0.10), 0.10),
}

# procedural values that looked wrong beside real scans (experiments/phantom_realism): muscle too dense,
# marrow too dense in CT and too dark in T1, where adults' marrow is half fat
_ADJUSTED: dict[str, dict[str, Spread | float]] = {
    "muscle": {"hu": (44, 8)},
    "spongy_bone": {"hu": (125, 35), "t1": (450, 60), "density": 0.75},
}

_PSMA: dict[str, Spread] = {
    "fat": (0.25, 0.06),
    "muscle": (0.65, 0.15),
    "muscle_fat": (0.45, 0.10),
    "visceral_fat": (0.40, 0.10),
    "soft": (1.00, 0.25),
    "skin_line": (0.40, 0.10),
    "spongy_bone": (0.90, 0.25),
    "cortical_bone": (0.50, 0.12),
    "bowel": (4.00, 1.60),
    "small_bowel": (7.00, 2.80),
    "vein": (1.50, 0.35),
    "aorta": (1.50, 0.35),
    "heart_blood": (1.50, 0.35),
    "myocardium": (1.60, 0.35),
    "gallbladder": (3.00, 2.00),
    "liver": (5.00, 1.10),
    "liver_vessel": (2.20, 0.50),
    "spleen": (8.00, 3.20),
    "pancreas": (2.40, 0.60),
    "stomach_wall": (3.20, 1.00),
    "stomach_content": (1.20, 0.40),
    "colon": (2.40, 0.80),
    "esophagus": (1.70, 0.40),
    "renal_cortex": (46.0, 12.0),
    "renal_medulla": (36.0, 10.0),
    "renal_pelvis": (32.0, 14.0),
    "urine": (28.0, 18.0),
    "bladder_wall": (3.00, 1.00),
    "grey_matter": (0.40, 0.10),
    "white_matter": (0.25, 0.06),
    "fluid": (0.25, 0.08),
    "gland": (13.7, 4.0),
    "prostate": (2.40, 0.70),
    "adrenal": (3.50, 1.00),
    "thyroid": (1.40, 0.40),
    "lesion": (12.0, 7.0),
}


@cache
def tissue_table(tracer: str) -> dict[str, Tissue]:
    """Every tissue of phantoms on real anatomy, with the uptake of one tracer as its SUV.

    What the PSMA column does not name (air, gas, lung) keeps its FDG value: both are background.

    Raises:
        UserError: another tracer than FDG or PSMA.
    """
    if tracer not in TRACERS:
        raise unknown("tracer", tracer, TRACERS, where="data.tracer")
    table = {**TISSUES, **_FURTHER}
    table |= {name: replace(table[name], **values) for name, values in _ADJUSTED.items()}  # type: ignore[arg-type]
    if tracer == "PSMA":
        table = {name: replace(t, suv=_PSMA.get(name, t.suv)) for name, t in table.items()}
    return table


def code(name: str) -> int:
    """Code of a tissue in tissue maps, the same for every tracer."""
    return tissue_table("FDG")[name].code
