"""Odd but right inputs: read as nibabel reads them. And what a killed process leaves behind."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from umdseg.data.io.nifti import read_image
from umdseg.data.manifest import read_manifest

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag([-1.2, 1.3, 2.0])
OBLIQUE[:3, 3] = (3, -4, 5)


def values(dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(6, 5, 4)) * 90 + 100).astype(dtype)


def same_as_nibabel(path: Path) -> None:
    theirs, ours = nib.load(path), read_image(path)
    np.testing.assert_array_equal(ours.array, np.squeeze(theirs.get_fdata(dtype=np.float32)))
    np.testing.assert_allclose(ours.grid.affine, theirs.affine)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_voxel_types(tmp_path: Path, dtype: type, name: str) -> None:
    nib.save(nib.Nifti1Image(values().astype(dtype), OBLIQUE), tmp_path / name)
    same_as_nibabel(tmp_path / name)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_nifti_2_and_big_endian(tmp_path: Path, name: str) -> None:
    nib.save(nib.Nifti2Image(values(), OBLIQUE), tmp_path / name)
    same_as_nibabel(tmp_path / name)
    nib.save(nib.Nifti1Image(values(), OBLIQUE, nib.Nifti1Header(endianness=">")), tmp_path / f"big_{name}")
    same_as_nibabel(tmp_path / f"big_{name}")


@pytest.mark.parametrize("form", ["sform", "qform", "trailing axes", "no unit", "extension", "two members"])
def test_peculiar_headers(tmp_path: Path, form: str) -> None:
    array = values()[..., None, None] if form == "trailing axes" else values()
    image = nib.Nifti1Image(array, OBLIQUE)
    if form in ("sform", "qform"):
        image.set_sform(OBLIQUE, int(form == "sform"))
        image.set_qform(OBLIQUE, int(form == "qform"))
    if form == "no unit":
        image.header["xyzt_units"] = 0
    if form == "extension":
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark of 20 bytes"))
    path = tmp_path / "v.nii.gz"
    nib.save(image, path)
    if form == "two members":
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    same_as_nibabel(path)


def test_a_scan_reached_by_a_link(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values(), OBLIQUE), tmp_path / "v.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "v.nii.gz")
    same_as_nibabel(tmp_path / "link.nii.gz")


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: "\n\n" + text.replace("\n", "\r\n\r\n") + "\n;;;\n".replace(";", ","),
        lambda text: text.replace(",CT", ",ct").replace("subject", "Subject"),
        lambda text: '"' + text.replace("\n", '"\n"').replace(",", '","') + '"',
    ],
    ids=["byte order mark", "semicolons", "tabs", "blank lines", "capitals", "quoted"],
)
def test_manifests_as_spreadsheets_write_them(tmp_path: Path, spell) -> None:
    nib.save(nib.Nifti1Image(values(), OBLIQUE), tmp_path / "v.nii.gz")
    (tmp_path / "m.csv").write_bytes(spell("subject,modality,image\nMüller,CT,v.nii.gz").encode())
    (subject,) = read_manifest(tmp_path / "m.csv").subjects
    assert subject.id == "Müller"
    assert subject.scans["ct"].image.samefile(tmp_path / "v.nii.gz")


def test_absolute_paths_may_lie_anywhere(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values(), OBLIQUE), tmp_path / "v.nii.gz")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "m.csv").write_text(f"subject,modality,image\nP,ct,{tmp_path}/v.nii.gz\n")
    assert read_manifest(tmp_path / "lists" / "m.csv").subjects[0].scans["ct"].image == tmp_path / "v.nii.gz"


WRITERS = {
    "volume": """
import numpy as np
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
noise = np.random.default_rng(0).random((200, 200, 100)).astype(np.float32)
volume = Volume(noise, Grid(noise.shape, np.eye(4)))
print("writing", flush=True)
write_volume(volume, "target.nii.gz")
""",
    "manifest": """
import time
from pathlib import Path
from umdseg.data.dataset import PairedDataset
from umdseg.data.manifest import write_manifest
from umdseg.vocabulary import Scan, Subject
import umdseg.files
rename = umdseg.files.os.replace
def slow(*names):
    print("writing", flush=True)
    time.sleep(60)
umdseg.files.os.replace = slow
scan = Scan(Path("v.nii.gz").absolute(), "ct", "HU")
write_manifest(PairedDataset("m", (Subject("P", {"ct": scan}),), {"liver": 1}), "target.csv")
""",
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_killed_writer_leaves_nothing_that_is_trusted(tmp_path: Path, what: str) -> None:
    command = [sys.executable, "-c", WRITERS[what]]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        # compressing 16 MB of noise goes on for a while after the first bytes
        while process.poll() is None and not any(path.stat().st_size for path in tmp_path.iterdir()):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = [path.name for path in tmp_path.iterdir()]
    assert left, "it was killed while it wrote"
    assert all(name.startswith(".") for name in left), "temporary names only, which nobody reads"
