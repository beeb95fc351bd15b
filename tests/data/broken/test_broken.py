"""The corpus of broken inputs: each gives one clear error on one screen that names file and subject.

Every row breaks one thing in a good dataset of one subject, P7, with CT and PET (and their labels). It is
then opened by `use`, as a run does, and by the checks behind `umdseg check --deep`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.checks import check_subjects, read_all
from umdseg.data.io.nifti import read_grid, read_image, read_label
from umdseg.data.manifest import ManifestError, read_manifest
from umdseg.errors import UserError
from umdseg.preflight.deep import voxels

HEADER = "subject,modality,image,label,units,tracer_or_sequence,split,site"
ROWS = ("P7,ct,ct.nii,ct_label.nii,HU,,test,here", "P7,pet,pet.nii.gz,pet_label.nii.gz,SUV,FDG,test,here")
SHAPE, AFFINE = (12, 11, 10), np.diag([-4.0, -4, 5, 1])
CSV, YAML = "subjects.csv", "subjects.yaml"


def good(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[3:8, 3:8, 3:7] = 1
    label[8:10, 3:8, 3:7] = 2
    for name, low in (("ct.nii", -800.0), ("pet.nii.gz", 0.5)):
        image = low + label * np.float32(400.0 if low < 0 else 2.0) + noise.random(SHAPE, np.float32) * 0.1
        image[:2] = -1000 if low < 0 else 0.01
        save(folder / name, image.astype(np.float32))
    save(folder / "ct_label.nii", label)
    save(folder / "pet_label.nii.gz", label)
    (folder / CSV).write_text("\n".join([HEADER, *ROWS]) + "\n")
    (folder / YAML).write_text("structures: {liver: 1, spleen: 2}\n")
    return folder


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def use(csv: Path) -> None:
    """What a run does with a manifest: list, check headers, read every scan and label."""
    dataset = read_manifest(csv)
    check_subjects(dataset.subjects)
    for subject in dataset.subjects:
        for scan in subject.scans.values():
            read_image(scan.image, subject.id)
            if scan.label:
                others = [read_grid(p) for p in subject.other_images(scan.modality)]
                ids = dataset.structures.values()
                read_label(scan.label, read_grid(scan.image), ids, subject.id, others)


Break = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """name, how it is broken, the file at fault, what the message says; `subject`: whether P7 is named."""

    name: str
    broken: Break
    file: str
    says: tuple[str, ...]
    subject: bool = True


def poke(name: str, offset: int, value: np.ndarray | np.generic) -> Break:
    """Overwrite bytes of an uncompressed file; offsets are the NIfTI-1 standard's."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        raw = value.tobytes()
        content[offset : offset + len(raw)] = raw
        (folder / name).write_bytes(bytes(content))

    return change


def cut(name: str, keep: float) -> Break:
    """Keep a share of a file, or all but some bytes."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep if keep < 0 else len(content) * keep)])

    return change


def content(name: str, raw: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(raw)


def array(name: str, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Break:
    """Save other voxels (or the same on another affine) under the name."""

    def rewrite(folder: Path) -> None:
        image = nib.load(folder / name)
        values = change(np.asarray(image.dataobj).copy())
        made = nib.Nifti1Image(values, image.affine if affine is None else affine)
        (folder / name).unlink()
        nib.save(made, folder / name)

    return rewrite


def moved(name: str, shift: tuple[float, float, float], flip: bool = False) -> Break:
    def change(folder: Path) -> None:
        image = nib.load(folder / name)
        affine = image.affine @ np.diag([-1.0, 1, 1, 1]) if flip else image.affine.copy()
        affine[:3, 3] += shift
        made = nib.Nifti1Image(np.asarray(image.dataobj).copy(), affine)
        (folder / name).unlink()
        nib.save(made, folder / name)

    return change


def csv(old: str, new: str) -> Break:
    return text(CSV, old, new)


def text(name: str, old: str, new: str) -> Break:
    def change(folder: Path) -> None:
        before = (folder / name).read_text()
        assert old in before
        (folder / name).write_bytes(before.replace(old, new).encode())

    return change


def recoded(encoding: str) -> Break:
    def change(folder: Path) -> None:
        (folder / CSV).write_bytes((folder / CSV).read_text().replace("here", "Süd").encode(encoding))

    return change


def renamed(folder: Path, name: str) -> Path:
    """Move the file aside, so that something else takes its place."""
    aside = folder / f"aside_{name}"
    (folder / name).rename(aside)
    return aside


def loop(folder: Path) -> None:
    renamed(folder, "ct.nii")
    (folder / "ct.nii").symlink_to(folder / "other.nii")
    (folder / "other.nii").symlink_to(folder / "ct.nii")


def dangling(folder: Path) -> None:
    renamed(folder, "ct.nii")
    (folder / "ct.nii").symlink_to(folder / "gone.nii")


def as_folder(folder: Path) -> None:
    renamed(folder, "ct.nii")
    (folder / "ct.nii").mkdir()


def outside(folder: Path) -> None:
    (folder / "study").mkdir()
    for name in (CSV, YAML):
        (folder / name).rename(folder / "study" / name)
    listed = (
        (folder / "study" / CSV)
        .read_text()
        .replace(",ct.nii", ",../ct.nii")
        .replace(",pet.nii", ",../pet.nii")
    )
    (folder / "study" / CSV).write_text(listed.replace(",ct_label", ",../ct_label"))


def no_forms(folder: Path) -> None:
    poke("ct.nii", 252, np.zeros(2, np.int16))(folder)


def two_spaces(folder: Path) -> None:
    """The qform mirrored against the sform: half of all readers see left as right."""
    image = nib.load(folder / "ct.nii")
    made = nib.Nifti1Image(np.asarray(image.dataobj).copy(), image.affine)
    made.set_sform(image.affine, 1)
    made.set_qform(np.diag([-1.0, 1, 1, 1]) @ image.affine, 1)
    (folder / "ct.nii").unlink()
    nib.save(made, folder / "ct.nii")


def other_format(kind: type, name: str) -> Break:
    def change(folder: Path) -> None:
        values = np.asarray(nib.load(folder / "ct.nii").dataobj).astype(np.float32)
        nib.save(kind(values, AFFINE), folder / "tmp.mgz" if kind is nib.MGHImage else folder / "tmp.img")
        if kind is nib.MGHImage:
            (folder / "tmp.mgz").rename(folder / name)
        else:
            csv("ct.nii", "tmp.img")(folder)

    return change


def second_subject(row: str) -> Break:
    return lambda folder: (folder / CSV).write_text((folder / CSV).read_text() + row + "\n")


def bomb(name: str) -> Break:
    """A header of 10^12 voxels over a small file."""

    def change(folder: Path) -> None:
        raw = bytearray((folder / "ct.nii").read_bytes())
        raw[40:56] = np.array([3, 10_000, 10_000, 10_000, 1, 1, 1, 1], np.int16).tobytes()
        (folder / name).write_bytes(gzip.compress(bytes(raw)) if name.endswith(".gz") else bytes(raw))

    return change


def nan(values: np.ndarray) -> np.ndarray:
    values[3, 3, 3] = np.nan
    return values


F32, I16 = np.float32, np.int16
SHEAR = AFFINE + np.eye(4)[[1]].T @ np.eye(4)[[2]]
COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

TABLE = [
    # the file
    Row("missing image", lambda f: (f / "ct.nii").unlink(), "ct.nii", ("image", "is missing")),
    Row("missing label", lambda f: (f / "ct_label.nii").unlink(), "ct_label.nii", ("label", "is missing")),
    Row("a folder", as_folder, "ct.nii", ("a folder",)),
    Row("symlink loop", loop, "ct.nii", ("link that leads nowhere",)),
    Row("dangling symlink", dangling, "ct.nii", ("link that leads nowhere",)),
    Row("empty file", content("ct.nii", b""), "ct.nii", ("it is empty",)),
    Row("empty gz", content("pet.nii.gz", b""), "pet.nii.gz", ("it is empty",)),
    Row("text", content("ct.nii", b"hello" * 200), "ct.nii", ("not a readable NIfTI",)),
    Row(
        "gz that is not gzip",
        lambda f: (f / "pet.nii.gz").write_bytes((f / "ct.nii").read_bytes()),
        "pet.nii.gz",
        ("cannot be read", "gzip"),
    ),
    Row(
        "gzip named nii",
        lambda f: (f / "ct.nii").write_bytes((f / "pet.nii.gz").read_bytes()),
        "ct.nii",
        ("not a readable NIfTI",),
    ),
    Row(
        "gzip of text",
        content("pet.nii.gz", gzip.compress(b"hello" * 200)),
        "pet.nii.gz",
        ("not a readable",),
    ),
    Row("truncated nii", cut("ct.nii", 0.6), "ct.nii", ("truncated", "promises")),
    Row("truncated gzip", cut("pet.nii.gz", 0.6), "pet.nii.gz", ("truncated or damaged",)),
    Row("gzip cut in the header", cut("pet.nii.gz", 0.01), "pet.nii.gz", ("cannot be read",)),
    Row("gzip cut in the checksum", cut("pet.nii.gz", -6), "pet.nii.gz", ("truncated or damaged",)),
    Row(
        "gzip with a bad checksum",
        lambda f: (f / "pet.nii.gz").write_bytes(
            (b := (f / "pet.nii.gz").read_bytes())[:-8] + b"\1\2\3\4" + b[-4:]
        ),
        "pet.nii.gz",
        ("damaged", "CRC"),
    ),
    Row("half a header", cut("ct.nii", 0.02), "ct.nii", ("not a readable NIfTI",)),
    Row("wrong magic", poke("ct.nii", 344, np.frombuffer(b"abc\0", np.uint8)), "ct.nii", ("not a readable",)),
    Row(
        "mgz named nii.gz", other_format(nib.MGHImage, "pet.nii.gz"), "pet.nii.gz", ("not a readable NIfTI",)
    ),
    Row("Analyze pair", other_format(nib.AnalyzeImage, ""), "tmp.img", ("it is Spm2AnalyzeImage",)),
    Row(
        "NIfTI pair",
        other_format(nib.Nifti1Pair, ""),
        "tmp.img",
        ("it is Nifti1Pair",),
    ),
    Row("10^12 voxels", bomb("ct.nii"), "ct.nii", ("promises 4,000,000,000,352 bytes",)),
    Row("10^12 voxels, compressed", bomb("pet.nii.gz"), "pet.nii.gz", ("promises", "no compression")),
    # the header
    Row("zero spacing", poke("ct.nii", 80, F32(0)), "ct.nii", ("voxel spacing", "positive lengths")),
    Row("negative spacing", poke("ct.nii", 84, F32(-4)), "ct.nii", ("voxel spacing", "-4.0")),
    Row("NaN spacing", poke("ct.nii", 80, F32(np.nan)), "ct.nii", ("voxel spacing", "nan")),
    Row("infinite spacing", poke("ct.nii", 88, F32(np.inf)), "ct.nii", ("voxel spacing", "inf")),
    Row("spacing unlike the affine", poke("ct.nii", 88, F32(1.5)), "ct.nii", ("by pixdim but 4 x 4 x 5 mm",)),
    Row("metres", poke("ct.nii", 123, np.uint8(1)), "ct.nii", ("are metres", "millimetres")),
    Row("micrometres", poke("ct.nii", 123, np.uint8(3)), "ct.nii", ("are micrometres",)),
    Row("unit of no code", poke("ct.nii", 123, np.uint8(6)), "ct.nii", ("unknown code 6",)),
    Row("NaN affine", poke("ct.nii", 292, F32(np.nan)), "ct.nii", ("affine holds NaN",)),
    Row("singular affine", poke("ct.nii", 280, np.zeros(12, F32)), "ct.nii", ("affine is singular",)),
    Row("sheared affine", array("ct.nii", np.copy, SHEAR), "ct.nii", ("sheared", "right angles")),
    Row("no affine", no_forms, "ct.nii", ("neither sform nor qform",)),
    Row("mirrored qform", two_spaces, "ct.nii", ("sform and qform place", "LPS", "RPS")),
    Row("unknown voxel type", poke("ct.nii", 70, I16(999)), "ct.nii", ("header is invalid",)),
    Row("intercept NaN", poke("ct.nii", 112, np.array([1, np.nan], F32)), "ct.nii", ("header is invalid",)),
    Row(
        "4-D", array("ct.nii", lambda a: np.stack([a, a], -1)), "ct.nii", ("12, 11, 10, 2", "one 3-D volume")
    ),
    Row(
        "5-D", array("ct.nii", lambda a: np.stack([a[..., None]] * 3, -1)), "ct.nii", ("10, 1, 3", "one 3-D")
    ),
    Row("2-D", array("ct.nii", lambda a: a[..., 0]), "ct.nii", ("(12, 11)", "one 3-D volume")),
    Row("one slice", array("ct.nii", lambda a: a[..., :1]), "ct.nii", ("(12, 11, 1)", "one 3-D volume")),
    Row(
        "colours", array("ct.nii", lambda a: np.zeros(a.shape, COLOUR)), "ct.nii", ("colours", "real numbers")
    ),
    Row(
        "complex", array("ct.nii", lambda a: a.astype(np.complex64)), "ct.nii", ("complex64", "real numbers")
    ),
    # the voxels
    Row("NaN voxel", array("ct.nii", nan), "ct.nii", ("1 voxels that are NaN or infinite",)),
    Row(
        "infinite voxels", array("ct.nii", lambda a: a.astype(float) * 1e300), "ct.nii", ("NaN or infinite",)
    ),
    Row("constant", array("ct.nii", lambda a: a * 0 + 7), "ct.nii", ("every voxel of the image is 7",)),
    Row(
        "beyond float32",
        array("ct.nii", lambda a: (a * 1e4).astype(np.int32) * 100),
        "ct.nii",
        ("cannot hold",),
    ),
    Row(
        "label with fractions",
        array("ct_label.nii", lambda a: a * F32(0.5)),
        "ct_label.nii",
        ("whole numbers",),
    ),
    Row(
        "label with NaN", array("ct_label.nii", lambda a: nan(a * F32(1))), "ct_label.nii", ("whole numbers",)
    ),
    Row(
        "label id unknown",
        array("ct_label.nii", lambda a: a * 3),
        "ct_label.nii",
        ("no structure has: 3, 6",),
    ),
    Row(
        "negative label id", array("ct_label.nii", lambda a: a.astype(I16) - 1), "ct_label.nii", ("has: -1",)
    ),
    Row(
        "giant label id",
        array("ct_label.nii", lambda a: a.astype(np.int32) * 70_000),
        "ct_label.nii",
        ("has: 70000",),
    ),
    Row("label on another grid", array("ct_label.nii", lambda a: a[:-1]), "ct_label.nii", ("another grid",)),
    Row("label shifted 1 mm", moved("ct_label.nii", (1, 0, 0)), "ct_label.nii", ("another grid", "0.1 mm")),
    Row(
        "label flipped", moved("ct_label.nii", (0, 0, 0), flip=True), "ct_label.nii", ("another grid", "RPS")
    ),
    # the subject
    Row(
        "label is the image", csv("ct_label.nii", "ct.nii"), "ct.nii", ("one file is ct image and ct label",)
    ),
    Row(
        "no common place",
        lambda f: [moved(n, (0, 0, 900))(f) for n in ("pet.nii.gz", "pet_label.nii.gz")],
        "pet.nii.gz",
        ("share no place in patient space",),
    ),
    Row("PET row called CT", csv("P7,pet,", "P7,ct,"), CSV, ("units 'SUV' for ct",)),
    Row("the same row twice", second_subject(ROWS[0]), CSV, ("two ct scans", "lines 2 and 4")),
    Row("two splits", csv("FDG,test", "FDG,train"), CSV, ("two splits: 'test' and 'train'",)),
    Row(
        "shared image across splits",
        second_subject("P8,ct,ct.nii,,HU,,train,"),
        "ct.nii",
        ("P7 and P8 share an image across splits",),
    ),
    Row(
        "link to an image of another split",
        lambda f: [
            (f / "link.nii").symlink_to(f / "ct.nii"),
            second_subject("P8,ct,link.nii,,HU,,train,")(f),
        ],
        "link.nii",
        ("P7 and P8 share an image across splits",),
    ),
    Row(
        "one patient in two splits",
        lambda f: [
            csv("site", "site,patient")(f),
            csv("here", "here,X")(f),
            second_subject("P8,ct,aside.nii,,HU,,train,,X")(f),
            save(f / "aside.nii", np.eye(12, dtype=F32)[..., None] + np.zeros(2, F32)),
        ],
        "",
        ("P7 and P8 are one patient",),
    ),
    # the manifest
    Row("CT in SUV", csv(",HU,", ",SUV,"), CSV, ("units 'SUV' for ct", "HU; convert")),
    Row("PET in Bq/ml", csv(",SUV,", ",Bq/ml,"), CSV, ("units 'Bq/ml' for pet", "line 3")),
    Row(
        "unknown modality", csv("P7,pet,", "P7,pett,"), CSV, ("unknown modality 'pett'", "did you mean: pet")
    ),
    Row("unknown split", csv("FDG,test", "FDG,tset"), CSV, ("unknown split 'tset'", "did you mean: test")),
    Row("path outside the root", outside, CSV, ("outside the manifest's folder", "an absolute path")),
    Row("subject with a slash", csv("P7,pet", "P7/1,pet"), CSV, ("cannot be a folder's name",)),
    Row("empty image", csv("P7,ct,ct.nii,", "P7,ct,,"), CSV, ("'image' is empty", "line 2"), False),
    Row("UTF-16", recoded("utf-16"), CSV, ("not UTF-8", "UTF-16"), False),
    Row("latin-1", recoded("latin-1"), CSV, ("not UTF-8",), False),
    Row("NUL bytes", csv("here", "he\0re"), CSV, ("NUL bytes",), False),
    Row("quoted newline", csv("FDG", '"FD\nG"'), CSV, ("'tracer_or_sequence' holds a line break",), False),
    Row("open quotation mark", csv("FDG", '"FDG'), CSV, ("not readable as CSV",), False),
    Row("duplicate columns", csv("site", "split"), CSV, ("a column appears twice",), False),
    Row("missing column", csv("modality,", ""), CSV, ("column 'modality' is missing",), False),
    Row(
        "unknown column", csv("modality", "modalty"), CSV, ("unknown column", "did you mean: modality"), False
    ),
    Row("too many cells", csv("FDG,test,here", "FDG,test,here,1,2"), CSV, ("line has 10 cells",), False),
    Row("only a header", content(CSV, HEADER.encode()), CSV, ("no rows",), False),
    Row("empty CSV", content(CSV, b"\n\n"), CSV, ("no rows",), False),
    Row("missing CSV", lambda f: (f / CSV).unlink(), CSV, ("manifest is missing",), False),
    # the structures
    Row("missing YAML", lambda f: (f / YAML).unlink(), YAML, ("naming the structures",), False),
    Row("broken YAML", content(YAML, b"structures: {liver: ["), YAML, ("not readable as YAML",), False),
    Row("YAML in latin-1", content(YAML, "structures: {lebér: 1}".encode("latin-1")), YAML, ("YAML",), False),
    Row("no structures", content(YAML, b"organs: {liver: 1}"), YAML, ("no structures are named",), False),
    Row("a list", content(YAML, b"structures: [liver, spleen]"), YAML, ("no structures are named",), False),
    Row("unknown structure", text(YAML, "liver", "livver"), YAML, ("'livver'", "did you mean: liver"), False),
    Row("id twice", text(YAML, "2", "1"), YAML, ("id 1 is given to both",), False),
    Row("name twice", text(YAML, "spleen: 2", "liver: 2"), YAML, ("'liver' stands twice",), False),
    Row(
        "one structure, two spellings",
        text(YAML, "{liver: 1, spleen: 2}", "{left kidney: 1, kidney_left: 2}"),
        YAML,
        ("named twice",),
        False,
    ),
    Row("id 0", text(YAML, "1", "0"), YAML, ("has id 0",), False),
    Row("id true", text(YAML, "1", "true"), YAML, ("not a name with an id",), False),
    Row("id 1.5", text(YAML, "1", "1.5"), YAML, ("not a name with an id",), False),
    Row("id as text", text(YAML, "1", "'1'"), YAML, ("not a name with an id",), False),
    Row("id too large", text(YAML, "1", "40000"), YAML, ("has id 40000",), False),
]


def test_the_good_dataset_is_good(tmp_path: Path) -> None:
    use(good(tmp_path) / CSV)
    assert problems(tmp_path / CSV) == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_one_clear_error(row: Row, tmp_path: Path) -> None:
    row.broken(good(tmp_path))
    listed = next(tmp_path.rglob(CSV), tmp_path / CSV)
    with pytest.raises(UserError) as caught:
        use(listed)
    said = str(caught.value)
    for part in (row.file, *row.says):
        assert part in said
    assert not row.subject or "P7" in said
    assert caught.value.expected, "what would have been right"
    assert len(said.splitlines()) <= 24, "one screen"
    assert max(map(len, said.splitlines())) <= 400
    assert "Traceback" not in said


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_check_refuses_it_too(row: Row, tmp_path: Path) -> None:
    row.broken(good(tmp_path))
    said = problems(next(tmp_path.rglob(CSV), tmp_path / CSV))
    assert any(all(part in one for part in row.says) for one in said)


def problems(csv_file: Path) -> list[str]:
    """What the checks behind `umdseg check --deep` refuse."""
    from umdseg.data.checks import find_repeats

    found, dataset = [], None
    try:
        dataset = read_manifest(csv_file)
    except ManifestError as error:
        found += [str(one) for one in error.errors]
    except UserError as error:
        found.append(str(error))
    if dataset is not None:
        headers = list(read_all(dataset.subjects))
        findings = [*find_repeats(dataset.subjects), *(f for one in headers for f in one.findings)]
        findings += [f for check in voxels(dataset, headers) for f in check.findings]
        found += [str(finding.error()) for finding in findings if finding.level == "refuse"]
    return found


def test_the_corpus_is_large_and_every_row_its_own() -> None:
    assert len(TABLE) >= 60
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    (good(tmp_path) / "ct.nii").chmod(0)
    with pytest.raises(UserError, match="Permission denied") as caught:
        use(tmp_path / CSV)
    assert "P7" in str(caught.value)


def test_several_mistakes_are_told_together(tmp_path: Path) -> None:
    csv(",HU,", ",SUV,")(good(tmp_path))
    csv("FDG,test", "FDG,tset")(tmp_path)
    text(YAML, "spleen", "spleeen")(tmp_path)
    with pytest.raises(UserError) as caught:
        read_manifest(tmp_path / CSV)
    for part in ("3 mistakes", "line 2", "units 'SUV'", "line 3", "did you mean test", "did you mean spleen"):
        assert part in str(caught.value)


def test_many_mistakes_fit_one_screen(tmp_path: Path) -> None:
    lines = [f"S{i},ct,gone_{i}.nii,,HU,,test," for i in range(200)]
    (tmp_path / CSV).write_text("\n".join([HEADER, *lines]))
    with pytest.raises(UserError, match="200 mistakes") as caught:
        read_manifest(tmp_path / CSV)
    assert "and 190 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 24


def test_of_several_broken_files_the_first_is_told_with_the_number_of_others(tmp_path: Path) -> None:
    for name in ("ct.nii", "ct_label.nii", "pet.nii.gz"):
        cut(name, 0.5)(tmp_path if (tmp_path / name).exists() else good(tmp_path))
    with pytest.raises(UserError, match="and 2 more problems: umdseg check") as caught:
        check_subjects(read_manifest(tmp_path / CSV).subjects)
    assert "ct.nii" in str(caught.value)
