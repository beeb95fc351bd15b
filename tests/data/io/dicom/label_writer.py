"""RTSTRUCT written with pydicom, DICOM-SEG with highdicom, both on a series of files.

Tests reach it by the fixture `dicom_labels` (tests/conftest.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"


def box(x: tuple[float, float], y: tuple[float, float], z: float) -> np.ndarray:
    """An axial rectangle, corner points (4, 3) in LPS mm."""
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def write_rtstruct(
    path: Path,
    files: Sequence[Path],
    rois: Mapping[str, Sequence[np.ndarray]],
    *,
    kind: str = "CLOSED_PLANAR",
    refer: bool = True,
    **tags: Any,
) -> Path:
    """Write contours (points (N, 3), LPS mm) drawn on the series `files`.

    Args:
        path: the file.
        files: the series.
        rois: contours of each ROI.
        kind: Contour Geometric Type.
        refer: name the series and its instances; otherwise only the frame of reference is named.
        tags: further values.
    """
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    plan = Dataset()
    plan.SOPClassUID, plan.SOPInstanceUID, plan.Modality = RTSTRUCT_CLASS, generate_uid(), "RTSTRUCT"
    plan.StudyInstanceUID, plan.SeriesInstanceUID = images[0].StudyInstanceUID, generate_uid()
    plan.PatientID, plan.StructureSetLabel = images[0].PatientID, "label"
    frame = Dataset()
    frame.FrameOfReferenceUID = images[0].get("FrameOfReferenceUID", "")
    if refer:
        series, study = Dataset(), Dataset()
        series.SeriesInstanceUID, series.ContourImageSequence = images[0].SeriesInstanceUID, []
        for image in images:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
                image.SOPClassUID,
                image.SOPInstanceUID,
            )
            series.ContourImageSequence.append(item)
        study.RTReferencedSeriesSequence = [series]
        frame.RTReferencedStudySequence = [study]
    plan.ReferencedFrameOfReferenceSequence = [frame]
    plan.StructureSetROISequence, plan.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.8g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        plan.StructureSetROISequence.append(roi)
        plan.ROIContourSequence.append(drawn)
    for keyword, value in tags.items():
        setattr(plan, keyword, value)
    plan.file_meta = FileMetaDataset()
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plan.file_meta.MediaStorageSOPClassUID = plan.SOPClassUID
    plan.file_meta.MediaStorageSOPInstanceUID = plan.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path: Path,
    files: Sequence[Path],
    masks: Mapping[str, np.ndarray],
    *,
    kind: str = "BINARY",
    types: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write masks (slice, row, column), in the order of `files`, one segment each.

    Args:
        path: the file.
        files: the series, or the part of it that is segmented.
        masks: segment label -> voxels; fractions from 0 to 1 where `kind` is FRACTIONAL.
        kind: BINARY, FRACTIONAL or LABELMAP.
        types: segment label -> Segmented Property Type; organs without one are called "Organ".
        options: for highdicom.
    """
    images = []
    for file in files:
        image = pydicom.dcmread(file)
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            if keyword not in image:
                setattr(image, keyword, "")
        for keyword in ("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"):
            if keyword not in image:
                setattr(image, keyword, "")
        images.append(image)
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=(types or {}).get(name, codes.SCT.Organ),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    pixels = np.stack(list(masks.values()), axis=-1)
    if kind == "LABELMAP":
        pixels = (pixels.astype(np.uint8) * np.arange(1, len(masks) + 1, dtype=np.uint8)).max(axis=-1)
    elif kind == "BINARY":
        pixels = pixels.astype(np.uint8)
    else:
        pixels = pixels.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = hd.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="maker",
            manufacturer_model_name="model",
            software_versions="1",
            device_serial_number="1",
            **options,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path)
    return path
