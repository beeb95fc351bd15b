"""Downloads from a server on this machine: whole, broken off, resumed, changed, wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones import Weights
from umdseg.backbones.download import cached, fetch, stream
from umdseg.backbones.vista3d import tiny_network
from umdseg.backbones.weights import read_state
from umdseg.errors import UserError

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What is served, how, and what was asked for."""

    url: str = ""
    content: bytes = CONTENT
    etag: str | None = '"one"'
    # bytes after which the connection breaks
    breaks: int | None = None
    lengths: bool = True
    asked: list[str | None] = field(default_factory=list)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
            server.asked.append(wanted)
            start = 0
            if wanted and condition == server.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(server.content):
                    self.send_error(416)
                    return
            body = server.content[start:]
            self.send_response(206 if start else 200)
            if server.etag:
                self.send_header("ETag", server.etag)
            if server.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: server.breaks])

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{http.server_port}/weights/model.pt"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UMDSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(server: Server, sha256: str | None = SHA256, **more: Any) -> Weights:
    return Weights(server.url, "model.pt", sha256, "Apache-2.0", **{"commercial": True, **more})


def left(cache: Path) -> set[str]:
    return {path.suffix for path in cache.rglob("*") if path.is_file()}


def test_a_file_is_downloaded_once_and_then_known(server: Server, own_cache: Path) -> None:
    assert cached(weights(server)) is None
    path = fetch(weights(server))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(own_cache)
    assert fetch(weights(server)) == cached(weights(server)) == path
    assert server.asked == [None]


def test_equal_names_from_two_addresses_do_not_meet(server: Server) -> None:
    first = fetch(weights(server))
    server.url += "?version=2"
    server.content = CONTENT[::-1]
    second = fetch(weights(server, sha256=None))
    assert first.read_bytes() == CONTENT
    assert second.read_bytes() == CONTENT[::-1]


def test_a_broken_download_is_gone_on_with(server: Server, own_cache: Path) -> None:
    server.breaks = 3_000_000
    with pytest.raises(UserError, match="3000000 of 5120000 bytes"):
        fetch(weights(server))
    assert cached(weights(server)) is None
    server.breaks = None
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000000-"]
    assert not {".part", ".tag"} & left(own_cache)


def test_it_is_not_gone_on_with_once_the_file_has_changed(server: Server) -> None:
    server.breaks = 1_000_000
    with pytest.raises(UserError, match="broke"):
        fetch(weights(server, sha256=None))
    server.breaks, server.etag, server.content = None, '"two"', CONTENT[::-1]
    assert fetch(weights(server, sha256=None)).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_version_it_starts_again(server: Server, etag: str | None) -> None:
    server.breaks, server.etag = 1_000_000, etag
    with pytest.raises(UserError, match="broke"):
        fetch(weights(server))
    server.breaks = None
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_complete_part_file_is_complete(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "model.part"
    part.write_bytes(CONTENT)
    (tmp_path / "model.part.tag").write_text('"one"')
    stream(server.url, part)
    assert part.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_another_file_than_the_card_names_is_refused_and_not_kept(server: Server, own_cache: Path) -> None:
    with pytest.raises(UserError, match="not the ones the card names") as caught:
        fetch(weights(server, sha256="0" * 64))
    assert SHA256 in str(caught.value)
    assert not {".pt", ".part"} & left(own_cache)


def test_a_server_that_does_not_say_where_the_file_ends_is_refused(server: Server) -> None:
    server.lengths = False
    with pytest.raises(UserError, match="how long the file is"):
        fetch(weights(server))


def test_what_is_not_there_is_one_error_with_a_remedy(server: Server) -> None:
    gone = Weights("http://127.0.0.1:9/model.pt", "model.pt", None, "Apache-2.0", commercial=True)
    with pytest.raises(UserError, match="could not download") as caught:
        fetch(gone)
    assert "model.weights=FILE" in str(caught.value)


@pytest.mark.parametrize("commercial", [False, None])
def test_terms_are_asked_for_before_anything_is_downloaded(server: Server, commercial: bool | None) -> None:
    restricted = weights(server, commercial=commercial)
    with pytest.raises(UserError, match=r"terms to accept first: Apache-2\.0"):
        fetch(restricted)
    assert server.asked == []
    assert fetch(restricted, accept_licence=True).read_bytes() == CONTENT


def test_downloaded_weights_load(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from umdseg.backbones import vista3d

    torch.manual_seed(1)
    state = tiny_network().state_dict()
    torch.save(state, tmp_path / "m.pt")
    server.content = (tmp_path / "m.pt").read_bytes()
    card = vista3d.vista3d_tiny_card()
    card = replace(card, weights=weights(server, hashlib.sha256(server.content).hexdigest()))
    monkeypatch.setattr(vista3d, "vista3d_tiny_card", lambda: card)
    backbone = load_backbone("vista3d_tiny")
    assert all(torch.equal(backbone.net.state_dict()[key], value) for key, value in state.items())
    assert backbone.weights_sha256 == card.weights.sha256
    assert read_state(str(cached(card.weights))).keys() == state.keys()


def test_the_hubs_cache_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub = Weights("someone/model", "folder/m.pt", None, "MIT", commercial=True)
    assert cached(hub) is None
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    kept = repository / "snapshots" / "abc" / "folder" / "m.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert cached(hub) == kept
    # and is used without asking the network, which tests forbid
    assert fetch(hub) == kept
