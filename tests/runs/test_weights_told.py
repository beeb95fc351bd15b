"""What a weights file filled is said by the doors, kept in the provenance, and shown by a check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umdseg import load_backbone
from umdseg.preflight.look import look
from umdseg.runs import door


def test_the_share_that_was_loaded_is_told(small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    count = len(load_backbone("vista3d_tiny", "random").net.state_dict())
    told = f"vista3d_tiny.safetensors, {count} of {count} tensors (100 %), sha256 verified"
    shipped = [text for text in small if text != "model.weights=random"]
    assert door.main("evaluate", shipped) == 0
    out, err = capfd.readouterr()
    assert f"weights: {told}\n" in err
    weights = json.loads((Path(out.strip()) / "provenance.json").read_text())["weights"]
    assert (weights["file"], weights["tensors"], weights["pretrained"]) == (
        "vista3d_tiny.safetensors",
        count,
        count,
    )
    assert weights["random_tensors"] == []
    assert weights["sha256_verified"] is True
    (checked,) = [check for check in look("evaluate", shipped) if check.name == "weights"]
    assert checked.numbers.endswith(told)

    assert door.main("evaluate", small) == 0
    out, err = capfd.readouterr()
    assert "weights: " not in err
    assert "file" not in json.loads((Path(out.strip()) / "provenance.json").read_text())["weights"]
