"""What a header says about a scan: tracer, MR sequence, whether it is a volume at all."""

from __future__ import annotations

import re
from typing import Any

from umdseg.data.io.dicom.instance import numbers, sop_class, text, words
from umdseg.data.io.dicom.series import Series
from umdseg.data.verdict import Finding

SCANS = ("CT", "PT", "MR")
# DICOM PS3.6 table A-1: every secondary capture class begins like this
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"

# first match wins; spellings seen in Radiopharmaceutical (0018,0031) and the meanings of DICOM PS3.16
# CID 4021; two codes stand in for an empty meaning
TRACERS = (
    ("FDG", r"\bf?-?fdg|fluoro-?deoxy-?glucose|fludeoxyglucose|c-b1031\b|\b35321007\b"),
    ("PSMA", r"psma|piflufolastat|dcfpyl|flotufolastat|gozetotide"),
    ("DOTATATE", r"dotatate|oxodotreotide"),
    ("DOTATOC", r"dotatoc|edotreotide"),
    ("DOTANOC", r"dotanoc"),
    ("FAPI", r"fapi"),
    ("FDOPA", r"f-?dopa|fluoro-?(l-)?dopa"),
    ("FET", r"\bf?-?fet\b|fluoro-?ethyl-?(l-)?tyrosine"),
    ("FES", r"\bf?-?fes\b|fluoroestradiol"),
    ("FLT", r"\bf?-?flt\b|fluoro-?(l-)?thymidine"),
    ("FMISO", r"fmiso|fluoromisonidazole"),
    ("FAZA", r"faza\b|azomycin"),
    ("Fluciclovine", r"fluciclovine|facbc"),
    ("Choline", r"choline"),
    ("Methionine", r"methionine"),
    ("Acetate", r"acetate"),
    ("Amyloid", r"florbeta|flutemetamol|\bpib\b|pittsburgh"),
    ("Tau", r"flortaucipir|\bav-?1451\b"),
    ("NaF", r"\bnaf\b|sodium fluoride|fluoride f"),
    ("Ammonia", r"ammonia"),
    ("Rubidium", r"rubidium|\brb-?82\b|\b82-?rb\b"),
    ("Water", r"\bwater\b|\bh2o\b"),
)
CONTRASTS = {
    "T1": "T1",
    "T2": "T2",
    "T2_STAR": "T2*",
    "PROTON_DENSITY": "PD",
    "FLUID_ATTENUATED": "FLAIR",
    "STIR": "STIR",
    "DIFFUSION": "DWI",
    "TOF": "TOF",
}
SEQUENCES = (
    ("ADC", r"(?<![a-z])adc(?![a-z])"),
    ("DWI", r"(?<![a-z])(dwi|diff|diffusion)(?![a-z])"),
    ("FLAIR", r"flair|dark.?fluid"),
    ("STIR", r"(?<![a-z])(stir|tirm)(?![a-z])"),
    ("T2*", r"(?<![a-z])t2(\*|_?star)"),
    ("T2", r"(?<![a-z])t2(?![0-9])"),
    ("T1", r"(?<![a-z])t1(?![0-9])"),
    ("PD", r"(?<![a-z])pdw?(?![a-z])"),
)


def tracer(header: Any) -> str:
    """PET tracer: "FDG", "PSMA", ...; "" when it is not known.

    From Radiopharmaceutical Code Sequence and Radiopharmaceutical, normalised by the table above.
    """
    for item in header.get("RadiopharmaceuticalInformationSequence") or []:
        said = [text(item, "Radiopharmaceutical")]
        for code in item.get("RadiopharmaceuticalCodeSequence") or []:
            said += [text(code, "CodeMeaning"), text(code, "CodeValue")]
        found = _first(TRACERS, " | ".join(said))
        if found:
            return found
    return ""


def sequence(header: Any) -> str:
    """MR sequence: "T1", "T2", "T2*", "PD", "FLAIR", "STIR", "DWI", "ADC" or "TOF"; "" when not known.

    Asked in this order: Acquisition Contrast, Image Type, the words of protocol and description (only
    the table's own words are ever returned), then repetition, echo and inversion times.
    """
    contrast = CONTRASTS.get(text(header, "AcquisitionContrast").upper(), "")
    if contrast:
        return contrast
    kinds = words(header, "ImageType")
    if "ADC" in kinds:
        return "ADC"
    if "DIFFUSION" in kinds or "TRACEW" in kinds:
        return "DWI"
    said = " ".join(text(header, k) for k in ("ProtocolName", "SeriesDescription", "SequenceName"))
    return _first(SEQUENCES, said) or _by_times(header)


def _by_times(header: Any) -> str:
    """Weighting of a spin echo or spoiled gradient echo by its times in milliseconds."""
    repeat, echo = numbers(header, "RepetitionTime"), numbers(header, "EchoTime")
    invert = (numbers(header, "InversionTime") or [0.0])[0]
    kinds = words(header, "ScanningSequence")
    if not repeat or not echo or "EP" in kinds:
        return ""
    tr, te = repeat[0], echo[0]
    if "IR" in kinds and invert >= 1500 and te >= 60:
        return "FLAIR"
    if "IR" in kinds and 80 <= invert <= 260:
        return "STIR"
    if "SE" in kinds and tr >= 1800:
        return "T2" if te >= 60 else "PD" if te <= 40 else ""
    if "SE" in kinds and tr <= 1200 and te <= 30:
        return "T1"
    # steady-state sequences (SS) mix T1 and T2
    spoiled = "SP" in words(header, "SequenceVariant")
    return "T1" if "GR" in kinds and spoiled and tr <= 250 and te <= 10 else ""


def not_a_scan(series: Series) -> Finding | None:
    """Why a series is no scan to segment, from its header; None if it is one.

    Left out are localizers, screen captures, projections and objects other than CT, PET and MR images.
    """
    header = series.header
    kinds = words(header, "ImageType")
    for group in header.get("SharedFunctionalGroupsSequence") or []:
        for name in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence"):
            for item in group.get(name) or []:
                kinds += words(item, "FrameType")
    reason = ""
    if series.modality not in SCANS:
        reason = f"{series.modality or 'no modality'} is no CT, PET or MR image"
    elif sop_class(header).startswith(SECONDARY_CAPTURE):
        reason = "screen capture (Secondary Capture)"
    elif sop_class(header) == RAW_DATA or "Rows" not in header:
        reason = "it holds no images"
    elif {"LOCALIZER", "SCOUT", "TOPOGRAM"} & set(kinds):
        reason = "localizer (Image Type)"
    elif any(
        kind in {"MIP", "MINIP", "MNIP", "RENDERED", "REPROJECTION"} or "PROJECTION" in kind for kind in kinds
    ):
        reason = "projection, not slices (Image Type)"
    elif "REPROJECTION" in words(header, "SeriesType"):
        reason = "projection, not slices (Series Type)"
    elif "DOSE" in kinds or "SCREEN SAVE" in kinds:
        reason = "dose report or screen capture (Image Type)"
    if not reason:
        return None
    return Finding(
        "warn", f"{series.name} left out: {reason}", series.where, "slices of a CT, PET or MR scan"
    )


def _first(table: tuple[tuple[str, str], ...], said: str) -> str:
    return next((name for name, pattern in table if re.search(pattern, said.lower())), "")
