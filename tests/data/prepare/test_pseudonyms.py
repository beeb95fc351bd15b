"""Keys are made once, kept private and apart; text is cleared of what identifies."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from umdseg.data.prepare.pseudonyms import Pseudonyms, read_key, scrub
from umdseg.errors import UserError


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path, key_file):
    key = read_key(None, tmp_path / "out")
    assert len(bytes.fromhex(key.decode())) == 32
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert read_key(None, tmp_path / "out") == key
    assert [path.name for path in key_file.parent.iterdir()] == [key_file.name]


def test_without_a_variable_the_key_lies_in_the_users_configuration(tmp_path, monkeypatch):
    monkeypatch.delenv("UMDSEG_KEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    key = read_key(None, tmp_path / "out")
    assert (tmp_path / "home/.config/umdseg/pseudonym.key").read_bytes().strip() == key


def test_a_key_inside_out_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("UMDSEG_KEY_FILE", str(tmp_path / "out" / "my.key"))
    with pytest.raises(UserError, match="inside OUT"):
        read_key(None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_given_key_must_be_there(tmp_path):
    with pytest.raises(UserError, match="the key file is missing") as error:
        read_key(tmp_path / "nope.key", tmp_path / "out")
    assert "nope.key" in str(error.value)


@pytest.mark.parametrize(
    ("content", "mode", "message"), [("", 0o600, "0 bytes"), ("0" * 64, 0o644, "other people")]
)
def test_a_weak_key_is_refused(tmp_path, content, mode, message):
    path = tmp_path / "weak.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(UserError, match=message):
        read_key(path, tmp_path / "out")


def test_people_without_an_id_that_can_be_a_folder_get_a_code():
    plain = Pseudonyms(None)
    assert plain.person("x", "Ann^B/7") == "Ann_B_7"
    assert plain.person("x", "//").startswith("sub-")
    assert plain.person("x", "") != plain.person("y", "")


def test_the_key_does_not_show():
    assert "secret" not in repr(Pseudonyms(b"secret" * 8))


def test_text_loses_what_identifies_and_keeps_its_numbers():
    header = Dataset()
    header.PatientName, header.PatientID, header.SeriesDescription = "Doe^Jane", "4711", "WB FDG late"
    text = (
        "series 1.2.840.113619.2.55 of doe (4711) at 20190807 083000 in /data/clinic/x y: "
        "wb fdg late, 4711.5 kBq, gap of 3.27 mm at slice 47, item 1.2.3, year 2019.1"
    )
    assert scrub(text, [header]) == (
        "series … of … (…) at … in … y: …, ….5 kBq, gap of 3.27 mm at slice 47, item 1.2.3, year 2019.1"
    )
