"""Published models made by nnU-Net, with the facts their authors give; what is not verified says so."""

from __future__ import annotations

from umdseg.backbones.nnunet.release import Archive, Release

_TOTAL = "https://github.com/wasserth/TotalSegmentator/releases/download/"
_MOOSE = "https://github.com/ENHANCE-PET/MOOSE/releases/download/moosez-v.3.1.3/"
_CADS = "https://github.com/murong-xu/CADS/releases/download/cads-model_v1.0.0/"
_SIDES = (("L", "left"), ("R", "right"))
_OWN_RESAMPLING = (
    "TotalSegmentator resamples to 1.5 mm before nnU-Net, here nnU-Net itself does; its optional "
    "clean-up of small blobs is not done"
)
_WASSERTHAL = (
    "Wasserthal J, Breit HC, Meyer MT, et al. TotalSegmentator: Robust Segmentation of 104 Anatomic "
    "Structures in CT Images. Radiology: Artificial Intelligence 5(5) (2023)"
)


def _zip(base: str, folder: str, file: str | None = None) -> Archive:
    return Archive(folder, f"{base}{file or folder}.zip")


# classes of part k follow those of part k - 1 in the published numbering 1..117; what a later part finds
# overwrites earlier ones
totalseg_ct = Release(
    trained_on=("ct",),
    archives=tuple(
        _zip(_TOTAL + "v2.0.0-weights/", folder)
        for folder in (
            "Dataset291_TotalSegmentator_part1_organs_1559subj",
            "Dataset292_TotalSegmentator_part2_vertebrae_1532subj",
            "Dataset293_TotalSegmentator_part3_cardiac_1559subj",
            "Dataset294_TotalSegmentator_part4_muscles_1559subj",
            "Dataset295_TotalSegmentator_part5_ribs_1559subj",
        )
    ),
    page="https://github.com/wasserth/TotalSegmentator",
    licence="Apache-2.0",
    commercial=True,
    note=_OWN_RESAMPLING,
    citation=_WASSERTHAL,
    orientation="RAS",
    scheme="totalsegmentator",
    overwrite=True,
)
totalseg_ct_fast = Release(
    trained_on=("ct",),
    archives=(
        _zip(
            _TOTAL + "v2.0.4-weights/",
            "Dataset297_TotalSegmentator_total_3mm_1559subj",
            "Dataset297_TotalSegmentator_total_3mm_1559subj_v204",
        ),
    ),
    page="https://github.com/wasserth/TotalSegmentator",
    licence="Apache-2.0",
    commercial=True,
    note=_OWN_RESAMPLING.replace("1.5", "3"),
    citation=_WASSERTHAL,
    orientation="RAS",
    scheme="totalsegmentator",
)
totalseg_mr = Release(
    trained_on=("mr",),
    archives=tuple(
        _zip(_TOTAL + "v2.5.0-weights/", folder)
        for folder in (
            "Dataset850_TotalSegMRI_part1_organs_1088subj",
            "Dataset851_TotalSegMRI_part2_muscles_1088subj",
        )
    ),
    page="https://github.com/wasserth/TotalSegmentator",
    licence="Apache-2.0",
    commercial=True,
    note=_OWN_RESAMPLING,
    citation="D'Antonoli TA, Berger LK, Indrakanti AK, et al. TotalSegmentator MRI. arXiv 2405.19492",
    orientation="RAS",
    scheme="totalsegmentator_mr",
    overwrite=True,
)
mrsegmentator = Release(
    trained_on=("mr", "ct"),
    archives=(
        Archive(
            "",
            "https://github.com/hhaentze/MRSegmentator/releases/download/v1.2.0/weights.zip",
            "dd26c1b511908a1f2a752b7fe8f5ca9c5603fc3e69fa52f57bf3ccdd52ceb286",
        ),
    ),
    page="https://github.com/hhaentze/MRSegmentator",
    licence="Apache-2.0",
    commercial=True,
    note="sha256 of the archive as the authors publish it",
    citation="Häntze H, Xu L, Dorfner FJ, et al. MRSegmentator: Multi-Modality Segmentation of 40 Classes "
    "in MRI and CT. arXiv 2405.06463",
    orientation="LPS",
    names={
        f"{side}_{muscle}_muscle": f"{muscle.removesuffix('ous')}_{side}"
        for side in ("left", "right")
        for muscle in ("autochthonous", "iliopsoas")
    },
)
moose = Release(
    trained_on=("ct",),
    archives=(_zip(_MOOSE, "Dataset123_Organs", "clin_ct_organs_ras_07052025"),),
    page="https://github.com/ENHANCE-PET/MOOSE",
    licence="CC-BY-4.0",
    commercial=True,
    note="the task clin_ct_organs of release 3.1.3; its other tasks: model.folder=FOLDER",
    citation="Shiyam Sundar LK, Yu J, Muzik O, et al. Fully Automated, Semantic Segmentation of Whole-Body "
    "18F-FDG PET/CT Images Based on Data-Centric Artificial Intelligence. J Nucl Med 63(12) (2022)",
    orientation="RAS",
)
cads = Release(
    trained_on=("ct",),
    archives=tuple(
        _zip(_CADS, f"Dataset{number}_{name}{number - 300}")
        for number, name in (
            *((number, "Totalseg") for number in range(551, 556)),
            (556, "GC"),
            (557, "Brain"),
            (558, "OAR"),
            (559, "Saros"),
        )
    ),
    page="https://github.com/murong-xu/CADS",
    licence="custom (cads-model_v1.0.0), CC-BY-NC-SA-4.0 (-research), CC-BY-SA-4.0 (-open)",
    commercial=None,
    note="the networks are asked one by one; the authors' clean-up of their results is not done",
    citation="Xu M, et al. CADS: A Comprehensive Anatomical Dataset and Segmentation for Whole-Body "
    "Anatomy in Computed Tomography. arXiv 2507.22953",
    orientation="RAS",
    # as the authors themselves rename them
    names={
        "OAR_Brainstem": "brainstem",
        "OAR_Glnd_Thyroid": "thyroid_gland",
        "OAR_OpticChiasm": "optic_chiasm",
        "OAR_Pituitary": "pituitary_gland",
        **{f"OAR_Glnd_Submand_{s}": f"submandibular_gland_{side}" for s, side in _SIDES},
        **{f"OAR_OpticNrv_{s}": f"optic_nerve_{side}" for s, side in _SIDES},
        **{f"OAR_Parotid_{s}": f"parotid_gland_{side}" for s, side in _SIDES},
    },
)
# its network has a second head for organs, which only training uses
lesiontracer = Release(
    trained_on=("ct", "pet"),
    archives=(
        Archive(
            "Dataset222_AutoPETIII_2024",
            "https://zenodo.org/records/14007247/files/autoPET-3-LesionTracer.zip?download=1",
        ),
    ),
    page="https://zenodo.org/records/14007247",
    licence="not verified (third parties report CC-BY-4.0; code Apache-2.0)",
    commercial=None,
    note="takes CT (HU) and PET (SUV) of one person together; third parties report md5 "
    "566016409b0bd14770c0b57c1f2873f1 of the archive",
    citation="Rokuss M, Kovacs B, Kirchhoff Y, et al. From FDG to PSMA: A Hitchhiker's Guide to "
    "Multitracer, Multicenter Lesion Segmentation in PET/CT Imaging. arXiv 2409.09478",
    channels=("ct", "pet"),
    drop="decoder.organ_seg_layers.",
)
