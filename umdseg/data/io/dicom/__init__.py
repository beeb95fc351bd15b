"""DICOM in: series found, slices made volumes, quality verdicts (needs the extra `umdseg[dicom]`)."""
