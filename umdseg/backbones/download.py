"""Published weights brought to this machine: once, resumed, checked, under terms the user accepted."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from umdseg.backbones.card import Weights
from umdseg.data.hashes import cache_root
from umdseg.errors import UserError
from umdseg.files import sha256_file
from umdseg.progress import track

CHUNK = 1 << 20
PARTIAL, RANGE_BEYOND_END = 206, 416
SECONDS = 60
BY_HAND = "a connection, or the file fetched by other means: model.weights=FILE"


def fetch(weights: Weights, accept_licence: bool = False) -> Path:
    """The local path of a card's weights: from the package, from the cache, or downloaded now.

    Files of Hugging Face repositories lie in the Hugging Face cache, those of plain URLs in
    `$UMDSEG_CACHE/weights`.

    Args:
        weights: of the card.
        accept_licence: the user has read terms that restrict use, or on which the sources disagree.

    Raises:
        UserError: nothing published, terms not accepted, the download failed, or brought another file than
            the card names.
    """
    if weights.source is None:
        raise UserError("no weights are published for this model", expected="model.weights=FILE or random")
    if weights.source == "package":
        path = _shipped(weights)
        if not path.is_file():
            expected = "model.weights=FILE or random"
            raise UserError("the weights that ship with umdseg are missing", where=path, expected=expected)
        return path
    if weights.commercial is not True and not accept_licence:
        raise UserError(
            f"the weights of {weights.source} have terms to accept first: {weights.licence}",
            where=page(weights),
            expected="model.accept_licence=true once you have read them, or model.weights=FILE",
        )
    return _from_url(weights) if _is_url(weights) else _from_hub(weights)


def cached(weights: Weights) -> Path | None:
    """Where the weights are on this machine, None when they are not."""
    if weights.source is None:
        return None
    if weights.source == "package":
        place = _shipped(weights)
    elif _is_url(weights):
        place = _place(weights)
    else:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(weights.source, weights.file)
        return Path(found) if isinstance(found, str) else None
    return place if place.is_file() else None


def page(weights: Weights) -> str:
    """The address a person reads about the weights at."""
    if weights.source is None or weights.source == "package" or _is_url(weights):
        return str(weights.source)
    return f"https://huggingface.co/{weights.source}"


def stream(url: str, part: Path, expected: str = BY_HAND) -> None:
    """Download `url` into `part`, going on where an earlier call stopped.

    A server that says how to tell versions apart (ETag, Last-Modified) is asked to go on only with the
    version that was begun; otherwise, and where it cannot go on, the download starts again.

    Args:
        url: http(s) address of a file.
        part: unfinished file, complete on return; the caller renames it.
        expected: what the user can do when it fails.

    Raises:
        UserError: no connection, refused, or broken off (what has come stays for the next call).
    """
    tag = part.with_name(part.name + ".tag")
    begun = tag.read_text(encoding="utf-8") if tag.is_file() else ""
    have = part.stat().st_size if part.is_file() and begun else 0
    headers = {"Range": f"bytes={have}-", "If-Range": begun} if have else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
            resumed = have > 0 and answer.status == PARTIAL
            length = int(answer.headers.get("Content-Length") or 0)
            if not length and "chunked" not in str(answer.headers.get("Transfer-Encoding")):
                raise ValueError("the server does not say how long the file is, so its end cannot be known")
            if not resumed:
                # the tag first: a part file without one is never gone on with
                tag.unlink(missing_ok=True)
                part.unlink(missing_ok=True)
                tag.write_text(_version(answer), encoding="utf-8")
            with part.open("ab") as file:
                pieces = max(-(-length // CHUNK), 1)
                what = f"downloading {PurePosixPath(url.partition('?')[0]).name}"
                for piece in track(_pieces(answer), what, "MiB", total=pieces):
                    file.write(piece)
    except urllib.error.HTTPError as error:
        # asked to go on behind the end: it is complete
        if not (have and error.code == RANGE_BEYOND_END):
            raise _failed(url, error, expected) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _failed(url, error, expected) from error
    else:
        got, wanted = part.stat().st_size, length + (have if resumed else 0)
        if length and got != wanted:
            reason = f"the connection broke after {got} of {wanted} bytes; asked again it goes on there"
            raise _failed(url, reason, expected)
    tag.unlink(missing_ok=True)


def _from_url(weights: Weights) -> Path:
    from filelock import FileLock

    place, url = _place(weights), str(weights.source)
    place.parent.mkdir(parents=True, exist_ok=True)
    # jobs of a sweep may want the same file at the same time
    with FileLock(place.with_name(place.name + ".lock")):
        if place.is_file():
            return place
        part = place.with_name(place.name + ".part")
        stream(url, part)
        if weights.sha256 is not None and (found := sha256_file(part)) != weights.sha256:
            # going on with a wrong file would never make it right
            part.unlink()
            raise UserError(
                f"the downloaded weights are not the ones the card names (sha256 {found})",
                where=url,
                expected=f"sha256 {weights.sha256}",
            )
        part.replace(place)
    return place


def _from_hub(weights: Weights) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id=str(weights.source), filename=weights.file))
    # offline, proxy, gated repository, full disk: the library raises many kinds, the remedy is one
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"could not download {weights.file}: {type(error).__name__}: {reason[0]}",
            where=page(weights),
            expected=BY_HAND,
        ) from error


def _shipped(weights: Weights) -> Path:
    return Path(str(resources.files("umdseg.backbones") / "assets" / weights.file))


def _is_url(weights: Weights) -> bool:
    return str(weights.source).startswith(("https://", "http://"))


def _place(weights: Weights) -> Path:
    # files of equal names from different addresses must not meet
    key = hashlib.sha256(str(weights.source).encode()).hexdigest()[:12]
    return cache_root() / "weights" / key / PurePosixPath(weights.file).name


def _version(answer: Any) -> str:
    etag = str(answer.headers.get("ETag") or "")
    # a weak tag promises equal meaning, not equal bytes (RFC 9110, 13.1.5)
    return str(answer.headers.get("Last-Modified") or "") if not etag or etag.startswith("W/") else etag


def _pieces(answer: Any) -> Iterator[bytes]:
    while piece := answer.read(CHUNK):
        yield piece


def _failed(url: str, reason: object, expected: str) -> UserError:
    return UserError(f"could not download the weights: {reason}", where=url, expected=expected)
