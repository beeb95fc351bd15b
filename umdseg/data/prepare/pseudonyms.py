"""Subject ids that name nobody: a keyed hash of the patient id, and text cleared of what identifies.

HMAC-SHA256 (RFC 2104): without the key nobody can try patient ids until one fits. The key stays on the
machine, outside the data it was used for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umdseg.errors import UserError

KEY_BYTES = 32
_LENGTH = 10
_SESSION_LENGTH = 4


@dataclass(frozen=True)
class Pseudonyms:
    """Names for people and their sessions.

    Attributes:
        key: secret of the keyed hash; None keeps the patient ids as they are.
    """

    key: bytes | None = field(repr=False)

    def person(self, patient: str, patient_id: str) -> str:
        """The id of a person, the same whenever the key is the same.

        Args:
            patient: PatientID with its issuer: what the pseudonym is made of.
            patient_id: PatientID, what the person is called when ids are kept.
        """
        if self.key is None:
            # results are filed under the subject's name
            return re.sub(r"[^\w.-]+", "_", patient_id).strip("._") or f"sub-{_code(b'', patient, _LENGTH)}"
        return f"sub-{_code(self.key, patient, _LENGTH)}"

    def session(self, study: str, frame: str) -> str:
        """A short name of one study and frame of reference, where a person has several."""
        return _code(self.key or b"", f"{study}\x1f{frame}", _SESSION_LENGTH)


def read_key(given: Path | None, out: Path) -> bytes:
    """The key: a given file, $UMDSEG_KEY_FILE, or the one of this user, made when it is first needed.

    Raises:
        UserError: a given file is missing, the file holds no key, or it lies inside `out`.
    """
    named = os.environ.get("UMDSEG_KEY_FILE")
    path = given or Path(named or Path.home() / ".config" / "umdseg" / "pseudonym.key")
    path = path.expanduser()
    if path.resolve().is_relative_to(out.resolve()):
        expected = "a key kept apart from the data it protects"
        raise UserError("the key of the pseudonyms lies inside OUT", where=path, expected=expected)
    if given and not path.is_file():
        expected = "an existing key file; without --key one is made in ~/.config/umdseg or $UMDSEG_KEY_FILE"
        raise UserError("the key file is missing", where=path, expected=expected)
    if not path.exists():
        _make_key(path)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        what = f"the key file cannot be read ({error.strerror})"
        raise UserError(what, where=path, expected="a file this user may read") from error
    if len(key) < KEY_BYTES:
        expected = f"at least {KEY_BYTES} bytes, such as 64 hexadecimal digits"
        raise UserError(f"the key file holds {len(key)} bytes", where=path, expected=expected)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        expected = f"a key only its owner can read: chmod 600 {path}"
        raise UserError("other people can read the key of the pseudonyms", where=path, expected=expected)
    return key


def _make_key(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp makes a file that only its owner can read
        handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        try:
            # unlike a rename, a link never replaces the key another process made meanwhile
            os.link(name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    except OSError as error:
        expected = "a place this user may write to: set UMDSEG_KEY_FILE"
        what = f"the key of the pseudonyms cannot be made ({error.strerror})"
        raise UserError(what, where=path, expected=expected) from error


def _code(key: bytes, text: str, length: int) -> str:
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode().lower()[:length]


_PERSONAL = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "AccessionNumber",
    "InstitutionName",
    "StationName",
    "ReferringPhysicianName",
    "OperatorsName",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "StudyID",
)
_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")
_DATE = re.compile(r"\b(?:19|20)\d\d-?(?:0\d|1[0-2])-?[0-3]\d(?:[ T]?\d\d:?\d\d(?::?\d\d(?:\.\d+)?)?)?\b")
_PATH = re.compile(r"(?:^|(?<=[\s'\"(]))(?:/|[A-Za-z]:\\)[^\s'\",;)]+")


def scrub(text: str, headers: Iterable[Any]) -> str:
    """A message without UIDs, dates, paths, and without what the headers say about person and place.

    Messages that are written are made without any of these; this is the second fence.
    """
    for header in headers:
        for tag in _PERSONAL:
            for part in re.split(r"[\^\\=]", str(header.get(tag) or "")):
                if len(part.strip()) > 2:
                    text = re.sub(rf"(?<!\w){re.escape(part.strip())}(?!\w)", "…", text, flags=re.IGNORECASE)
    for pattern in (_UID, _DATE, _PATH):
        text = pattern.sub("…", text)
    return text
