"""What tissues look like in CT, T1 MR and FDG PET: one table, with sources.

Every entry is (mean, between-subject standard deviation). Ranges overlap between organs on purpose:
they do in people, and a model must then know anatomy rather than a threshold.

Sources
    HU: unenhanced ranges of Prokop, Spiral and Multislice CT of the Body (Thieme 2003) and Buzug,
        Computed Tomography (Springer 2008): lung -850 ... -910, fat -50 ... -100, kidney 20 ... 40,
        spleen 35 ... 55, blood and liver 45 ... 65, grey matter 37 ... 45, white matter 20 ... 30.
        Liver 58.3 +- 8.9: doi:10.1007/s00414-019-02016-1. `enhanced` is the portal venous rise,
        a representative value.
    T1 at 3 T in ms: de Bazelaire et al., Radiology 2004;230:652 (liver 809 +- 71, spleen 1328 +- 31,
        pancreas 725 +- 71, kidney cortex 1142 +- 154, medulla 1545 +- 142, muscle 898 +- 33,
        marrow 586 +- 73, fat 382 +- 13); Stanisz et al., Magn Reson Med 2005;54:507 (heart 1471,
        blood 1932, grey matter 1820, white matter 1084). Fluids about 4000.
    SUV of FDG: Wang et al., Mol Imaging Biol 2007;9:83 (98 normal subjects; cerebellum 8.0 +- 2.2);
        doi:10.1186/s13550-022-00884-0 (126 patients). Only the cerebellum was checked cell by cell;
        the others are rounded representatives of the published normal ranges.
    Proton density: relative to water, representative values.
"""

from __future__ import annotations

from dataclasses import dataclass

Spread = tuple[float, float]


@dataclass(frozen=True)
class Tissue:
    """One tissue: its code in tissue maps, the structure it belongs to and its physics.

    Attributes:
        code: value in a tissue map.
        structure: UMD organ it is part of, or None.
        hu: CT number in HU.
        enhanced: added HU when the CT was taken in the portal venous phase.
        t1: longitudinal relaxation time in ms.
        density: relative proton density.
        suv: FDG uptake, SUV (body weight).
        texture: relative smooth variation inside the tissue.
    """

    code: int
    structure: str | None
    hu: Spread
    enhanced: float
    t1: Spread
    density: float
    suv: Spread
    texture: float = 0.06


TISSUES: dict[str, Tissue] = {
    "air": Tissue(0, None, (-1000, 0), 0, (1000, 0), 0.0, (0.0, 0.0), 0.0),
    "fat": Tissue(1, None, (-100, 8), 0, (382, 13), 0.90, (0.25, 0.06)),
    "muscle": Tissue(2, None, (55, 6), 12, (898, 60), 0.80, (0.70, 0.12)),
    "visceral_fat": Tissue(3, None, (-95, 10), 4, (400, 20), 0.88, (0.40, 0.10), 0.15),
    "soft": Tissue(4, None, (40, 8), 25, (1000, 100), 0.80, (1.10, 0.25), 0.15),
    "spongy_bone": Tissue(5, None, (210, 50), 10, (586, 73), 0.55, (1.30, 0.35), 0.12),
    "cortical_bone": Tissue(6, None, (750, 120), 0, (600, 80), 0.10, (0.60, 0.15), 0.10),
    "airway": Tissue(7, None, (-980, 8), 0, (1000, 0), 0.01, (0.20, 0.05), 0.0),
    "bowel": Tissue(8, None, (32, 10), 30, (1150, 180), 0.85, (1.50, 0.45), 0.20),
    "bowel_gas": Tissue(9, None, (-850, 60), 0, (1000, 0), 0.02, (0.30, 0.10), 0.05),
    "vein": Tissue(10, None, (45, 5), 95, (1932, 85), 0.90, (1.60, 0.25)),
    "gallbladder": Tissue(11, None, (10, 6), 0, (2600, 500), 0.95, (0.80, 0.25)),
    "skin": Tissue(12, None, (20, 10), 15, (950, 60), 0.70, (0.55, 0.12)),
    "liver": Tissue(20, "liver", (57, 8), 50, (809, 71), 0.80, (2.20, 0.40)),
    "kidney_left": Tissue(21, "kidney_left", (33, 5), 125, (1142, 120), 0.85, (2.60, 0.60)),
    "kidney_right": Tissue(22, "kidney_right", (33, 5), 125, (1142, 120), 0.85, (2.60, 0.60)),
    "pelvis_left": Tissue(23, "kidney_left", (15, 6), 70, (2200, 500), 0.92, (7.0, 3.5)),
    "pelvis_right": Tissue(24, "kidney_right", (15, 6), 70, (2200, 500), 0.92, (7.0, 3.5)),
    "grey_matter": Tissue(25, "brain", (40, 3), 4, (1820, 114), 0.82, (8.5, 2.2)),
    "white_matter": Tissue(26, "brain", (27, 3), 2, (1084, 45), 0.70, (3.6, 0.9)),
    "myocardium": Tissue(27, "heart", (46, 6), 75, (1471, 60), 0.80, (3.8, 2.4)),
    "heart_blood": Tissue(28, "heart", (45, 5), 100, (1932, 85), 0.90, (1.70, 0.30)),
    "spleen": Tissue(29, "spleen", (48, 6), 65, (1328, 60), 0.85, (1.90, 0.40)),
    "aorta": Tissue(30, "aorta", (46, 5), 105, (1932, 85), 0.90, (1.70, 0.30)),
    "lung": Tissue(31, "lung", (-840, 40), 15, (1100, 100), 0.12, (0.50, 0.12), 0.15),
    "colon": Tissue(32, "colon", (38, 12), 15, (1200, 250), 0.75, (1.70, 0.70), 0.25),
    "colon_gas": Tissue(33, "colon", (-850, 60), 0, (1000, 0), 0.02, (0.45, 0.15), 0.05),
    "urine": Tissue(34, "urinary_bladder", (6, 5), 10, (3800, 300), 0.97, (14.0, 8.0)),
    "bladder_wall": Tissue(35, "urinary_bladder", (32, 6), 25, (1100, 120), 0.80, (2.50, 0.80)),
    "pancreas": Tissue(36, "pancreas", (38, 8), 55, (725, 71), 0.78, (1.60, 0.35)),
    "esophagus": Tissue(37, "esophagus", (38, 7), 30, (1050, 100), 0.80, (1.80, 0.45)),
    "stomach_wall": Tissue(38, "stomach", (38, 7), 45, (1000, 100), 0.82, (2.30, 0.70)),
    "stomach_content": Tissue(39, "stomach", (20, 14), 0, (1900, 700), 0.92, (1.10, 0.40), 0.20),
}


def structure_codes() -> dict[str, list[int]]:
    """Structure -> the tissue codes it is made of."""
    table: dict[str, list[int]] = {}
    for tissue in TISSUES.values():
        if tissue.structure:
            table.setdefault(tissue.structure, []).append(tissue.code)
    return table
