from __future__ import annotations

import hashlib
import json
import os

import pytest

from umdseg import files


def test_atomic_replaces_the_file_only_on_success(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    with files.atomic(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_atomic_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), files.atomic(tmp_path / "a.txt"):
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


def test_atomic_makes_folders_and_keeps_the_suffixes(tmp_path):
    target = tmp_path / "deep" / "er" / "scan.nii.gz"
    with files.atomic(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


def test_a_result_has_the_permissions_of_an_ordinary_file(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "ours", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_round_trip_and_no_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"gap": None, "ci": [0.1, 0.2], "name": "Wörter"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"gap": None, "ci": [0.1, 0.2], "name": "Wörter"}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"gap": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["gap"] is None


def test_sha256_of_a_file_is_the_standard_one(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "weights.bin").write_bytes(content)
    assert files.sha256_file(tmp_path / "weights.bin") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").touch()
    # the published digest of nothing (FIPS 180-4)
    assert files.sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_sha256_of_values_ignores_key_order_but_not_content():
    assert files.sha256_value({"a": 1, "b": [1, 2]}) == files.sha256_value({"b": [1, 2], "a": 1})
    different = [{"a": 1, "b": [2, 1]}, {"a": 1}, {"a": "1", "b": [1, 2]}, {"a": 1.5, "b": [1, 2]}]
    assert len({files.sha256_value(value) for value in [*different, {"a": 1, "b": [1, 2]}]}) == 5
