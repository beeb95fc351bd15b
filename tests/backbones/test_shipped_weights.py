"""The weights that ship inside the package: the file the card names, with the record of how it was made."""

from __future__ import annotations

import hashlib
import json

from umdseg import load_backbone
from umdseg.backbones.vista3d_cards import vista3d_tiny_card
from umdseg.backbones.weights import fetch


def test_file_card_and_record_agree() -> None:
    weights = vista3d_tiny_card().weights
    path = fetch(weights)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert weights.sha256 == digest
    assert record["sha256"] == digest
    assert len(content) <= 8_000_000
    assert weights.licence == "Apache-2.0"
    assert weights.commercial is True


def test_they_load_without_being_asked_for() -> None:
    backbone = load_backbone("vista3d_tiny")
    assert backbone.random_weights is False
    assert backbone.weights_sha256 == backbone.card.weights.sha256
