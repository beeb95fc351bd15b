"""`umdseg prepare`: DICOM or a public dataset -> images, labels and a manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from umdseg import registry
from umdseg.errors import UserError, unknown

_DICOM = """\
Finds the CT, PET and MR series below ROOT, whatever the files are called; makes PET SUV by body weight,
RTSTRUCT and DICOM-SEG label maps; and writes into OUT:

  <subject>/ct.nii.gz, pet.nii.gz, mr.nii.gz, <modality>_label.nii.gz
  subjects.csv, subjects.yaml   the manifest (data.manifest=OUT/subjects.csv)
  qa.csv, qc/<subject>.png      verdict on every series, picture of every subject

Scans of one patient, study and frame of reference become one subject. Subjects are called by a keyed hash
of the patient id; the key is made once and kept in ~/.config/umdseg (or $UMDSEG_KEY_FILE), never in OUT.
Run again after an interruption: finished subjects are kept. Exit status 1 if anything was refused.
The last line on standard output is the manifest."""


def main(arguments: Sequence[str]) -> int:
    """Prepare a source; return the exit status: 0, or 1 if anything was refused."""
    arguments = list(arguments)
    try:
        if arguments[:1] == ["dicom"]:
            return _dicom(_dicom_parser().parse_args(arguments[1:]))
        return _source(_source_parser().parse_intermixed_args(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


def _dicom_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="umdseg prepare dicom",
        description=_DICOM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="ROOT", type=Path, help="folder with DICOM files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write into")
    parser.add_argument(
        "--roi",
        metavar="NAME=STRUCTURE",
        action="append",
        default=[],
        help="structure of a region whose name is not in the table, such as 'GTV_Mass*=tumour'; "
        "'NAME=' leaves a region out; repeatable",
    )
    parser.add_argument(
        "--series",
        metavar="SERIES",
        action="append",
        default=[],
        help="take this series (UID, or a name such as sub-abc/ct2 from a message) where a subject has "
        "several of a modality; repeatable",
    )
    parser.add_argument("--key", metavar="FILE", type=Path, help="key of the pseudonyms")
    parser.add_argument("--keep-ids", action="store_true", help="call subjects by their PatientID")
    return parser


def _source_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="umdseg prepare",
        description="Write the manifest of a dataset. For DICOM see `umdseg prepare dicom --help`.",
    )
    parser.add_argument("source", metavar="SOURCE", help="dicom, or a dataset of `umdseg list data`")
    parser.add_argument("root", metavar="ROOT", type=Path, help="folder of the dataset")
    parser.add_argument(
        "rest", metavar="[OUT] [key=value ...]", nargs="*", help="folder to write into; options"
    )
    parser.add_argument("--qc", action="store_true", help="draw a picture of every subject into OUT/qc")
    return parser


def _dicom(given: argparse.Namespace) -> int:
    from umdseg.data.prepare.dicom import DicomOptions, prepare_dicom
    from umdseg.data.prepare.summary import tell

    options = DicomOptions(given.roi, given.series, given.key, given.keep_ids)
    summary = prepare_dicom(given.root, given.out, options)
    tell(summary, given.out)
    if summary.manifest is not None:
        print(summary.manifest)
    return 1 if summary.refused else 0


def _source(given: argparse.Namespace) -> int:
    known = registry.names("data")
    if given.source not in known:
        raise unknown("source", given.source, ["dicom", *known], where="umdseg prepare")
    from umdseg.data.prepare.source import prepare_source

    out = next((Path(text) for text in given.rest if "=" not in text), None)
    overrides = [text for text in given.rest if "=" in text]
    if len(given.rest) > len(overrides) + (out is not None):
        expected = "umdseg prepare SOURCE ROOT [OUT] [key=value ...]"
        raise UserError(f"more than one OUT: {', '.join(given.rest)}", expected=expected)
    print(prepare_source(given.source, given.root, out, overrides, given.qc))
    return 0
