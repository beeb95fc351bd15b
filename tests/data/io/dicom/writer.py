"""Synthetic DICOM series, written with pydicom alone, sound or with one thing wrong.

Tests reach it by the fixture `dicom` (tests/conftest.py): `dicom.write_series(tmp_path / "ct", "CT")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY, FRAME = "1.2.3.4.1", "1.2.3.4.2"


def radiopharmaceutical(**changes: Any) -> Dataset:
    """FDG, 350 MBq at 10:00:00; a value of None leaves the tag out."""
    item = Dataset()
    values = {
        "Radiopharmaceutical": "Fluorodeoxyglucose",
        "RadiopharmaceuticalStartTime": "100000.00",
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": "6586.2",
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    return item


def pet_header(**changes: Any) -> Dataset:
    """A PET header of 70 kg, Bq/ml, decay corrected to 11:00:00; None leaves a tag out.

    Keywords that `radiopharmaceutical` knows go into its item.
    """
    inner = {
        k: changes.pop(k) for k in list(changes) if k.startswith(("Radiopharmaceutical", "Radionuclide"))
    }
    header = Dataset()
    values = {
        "Modality": "PT",
        "SOPClassUID": CLASSES["PT"],
        "SeriesDate": "20200102",
        "SeriesTime": "110000.00",
        "AcquisitionDate": "20200102",
        "AcquisitionTime": "110000.00",
        "PatientWeight": "70",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY"],
        "ActualFrameDuration": "120000",
        "FrameReferenceTime": "0",
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(header, keyword, value)
    header.RadiopharmaceuticalInformationSequence = [radiopharmaceutical(**inner)]
    return header


def stored_values(count: int, rows: int, columns: int) -> np.ndarray:
    """(slice, row, column) int16: every voxel of its own value."""
    return np.arange(count * rows * columns, dtype=np.int16).reshape(count, rows, columns)


def write_series(
    folder: Path,
    modality: str = "CT",
    *,
    count: int = 6,
    stored: np.ndarray | None = None,
    spacing: tuple[float, float] = (1.5, 2.0),
    step: float = 3.0,
    origin: Sequence[float] = (-10.0, -20.0, -30.0),
    orientation: Sequence[float] = AXIAL,
    positions: np.ndarray | None = None,
    slope: float = 1.0,
    intercept: float | None = None,
    uid: str | None = None,
    patient: str = "P1",
    change: Callable[[Dataset, int], None] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write a series and return its files, the lowest place along the normal first.

    Args:
        folder: made if absent; files are named in an order unlike that of the slices.
        modality: CT, MR or PT.
        count: slices.
        stored: (slice, row, column) int16; `stored_values` if None.
        spacing: Pixel Spacing, between rows and between columns, mm.
        step: between slices along the normal, mm; also Slice Thickness.
        origin: Image Position (Patient) of the first slice, LPS.
        orientation: Image Orientation (Patient).
        positions: (slice, 3) instead of `origin` and `step`.
        slope: Rescale Slope (CT, PT).
        intercept: Rescale Intercept; None is -1024 for CT and 0 for PT.
        uid: Series Instance UID; a new one if None.
        patient: Patient ID.
        change: called with each data set and its number before it is written.
        tags: further values for every data set; None deletes a tag.
    """
    stored = stored_values(count, 8, 10) if stored is None else stored
    count, rows, columns = stored.shape
    normal = np.cross(orientation[:3], orientation[3:])
    if positions is None:
        positions = np.array(origin) + np.arange(count)[:, None] * step * normal
    uid = uid or generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        header = pet_header() if modality == "PT" else Dataset()
        header.SOPClassUID, header.SOPInstanceUID = CLASSES[modality], generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = STUDY, uid, FRAME
        header.Modality, header.PatientID, header.SeriesNumber = modality, patient, "7"
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        # against the order of the places, as reconstruction often numbers them
        header.InstanceNumber = str(count - number)
        header.ImagePositionPatient = [f"{v:.10g}" for v in positions[number]]
        header.ImageOrientationPatient = [f"{v:.10g}" for v in orientation]
        header.PixelSpacing, header.SliceThickness = [str(s) for s in spacing], str(step)
        header.Rows, header.Columns, header.SamplesPerPixel = rows, columns, 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        if modality != "MR":
            offset = (-1024.0 if modality == "CT" else 0.0) if intercept is None else intercept
            header.RescaleSlope, header.RescaleIntercept = f"{slope:.10g}", f"{offset:.10g}"
        header.PixelData = stored[number].astype("<i2").tobytes()
        for keyword, value in tags.items():
            if value is None:
                delattr(header, keyword)
            else:
                setattr(header, keyword, value)
        if change is not None:
            change(header, number)
        path = folder / f"{(number * 7919) % 997:03d}-{number}.dcm"
        save(header, path)
        files.append(path)
    return files


def save(header: Dataset, path: Path) -> None:
    """Write one data set as a DICOM file, little endian with explicit VR."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", "")
    header.file_meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", "") or generate_uid()
    header.save_as(path, enforce_file_format=True)
