"""Release archives from a server of our own: resumed, checked, unpacked inside their folder only."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from umdseg.backbones.nnunet.download import fetch_archive
from umdseg.errors import UserError


@pytest.fixture
def server(tmp_path):
    """Serves the bytes put into `server.files`; notes the ranges asked for, and can break off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.server.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            self.server.asked.append(asked)
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
            if first >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body) - first))
            self.send_header("ETag", '"one"')
            self.end_headers()
            stop = first + self.server.breaks if self.server.breaks else len(body)
            self.wfile.write(body[first:stop])

        def log_message(self, *args):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.asked, made.ranges, made.breaks = {}, [], True, None
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def packed(tmp_path, members):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path):
    return packed(tmp_path, {"Dataset1/plans.json": "{}" * 4000, "Dataset1/fold_0/x.pth": "y"})


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server, tmp_path, archive, ranges):
    server.files["/a.zip"] = archive
    server.breaks = len(archive) // 3
    target = tmp_path / "got" / "a"
    with pytest.raises(UserError, match=r"the connection broke|could not download"):
        fetch_archive(f"{server.url}/a.zip", target, None)
    assert not target.exists()
    server.breaks, server.ranges = None, ranges
    fetch_archive(f"{server.url}/a.zip", target, hashlib.sha256(archive).hexdigest())
    assert (target / "Dataset1" / "plans.json").read_text() == "{}" * 4000
    assert server.asked[-1] == f"bytes={len(archive) // 3}-"
    # nothing else is left, and a second call asks nobody
    assert {path.name for path in target.parent.iterdir()} <= {"a", "a.lock"}
    count = len(server.asked)
    fetch_archive(f"{server.url}/a.zip", target, None)
    assert len(server.asked) == count


def test_another_file_than_named_is_refused_and_not_kept(server, tmp_path, archive):
    server.files["/a.zip"] = archive
    with pytest.raises(UserError, match="not the one named"):
        fetch_archive(f"{server.url}/a.zip", tmp_path / "a", "0" * 64)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.zip.part").exists()


def test_a_damaged_archive_leaves_nothing(server, tmp_path, archive):
    at = archive.index(b"{}{}")
    server.files["/a.zip"] = archive[:at] + b"[]" + archive[at + 2 :]
    server.files["/b.zip"] = b"no zip at all"
    for name in ("a", "b"):
        with pytest.raises(UserError, match="not a readable zip"):
            fetch_archive(f"{server.url}/{name}.zip", tmp_path / name, None)
    assert {path.name for path in tmp_path.iterdir()} <= {"made.zip", "a.lock", "b.lock"}


@pytest.mark.parametrize("name", ["../evil", "Dataset1/../../evil", "/etc/evil", "..\\evil", "C:/evil"])
def test_members_stay_inside(server, tmp_path, name):
    server.files["/a.zip"] = packed(tmp_path, {"Dataset1/plans.json": "{}", name: "x"})
    with pytest.raises(UserError, match="outside its folder"):
        fetch_archive(f"{server.url}/a.zip", tmp_path / "got" / "a", None)
    assert not list(tmp_path.rglob("evil*"))


def test_no_server_and_no_file_are_one_message(server, tmp_path):
    for url in (f"{server.url}/missing.zip", "http://127.0.0.1:9/a.zip", (tmp_path / "no.zip").as_uri()):
        with pytest.raises(UserError, match=r"model\.folder=FOLDER"):
            fetch_archive(url, tmp_path / "a", None)


def test_a_release_is_fetched_once_and_built(make, tmp_path, monkeypatch):
    from umdseg.backbones.nnunet.options import NnunetOptions
    from umdseg.backbones.nnunet.release import Archive, Release

    make(tmp_path / "Dataset7_Made")
    file = tmp_path / "made.zip"
    with zipfile.ZipFile(file, "w") as packed_release:
        for path in (tmp_path / "Dataset7_Made").rglob("*.*"):
            if path.is_file():
                packed_release.write(path, path.relative_to(tmp_path))
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    release = Release(archives=(Archive("Dataset7_Made", file.as_uri()),), licence="MIT", commercial=True)
    assert release.listing().cached() is None
    first = release(NnunetOptions(name="made"))
    assert release.listing().cached() is not None
    file.unlink()
    assert release(NnunetOptions(name="made")).state_sha256 == first.state_sha256
    assert "hash not verified" in first.card.weights.note
