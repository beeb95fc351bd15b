"""Models without classes go through the whole of train.py, and what they learned is found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from umdseg.backbones import sam3d
from umdseg.runs import door


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM-Med3D as its package builds it, but narrow and for windows of 32 voxels."""
    from medim.models.sam_med3d import build_sam3D_vit_b_ori

    sizes: dict[str, Any] = {"encoder_embed_dim": 24, "encoder_depth": 2, "encoder_num_heads": 2}
    sizes |= {"encoder_global_attn_indexes": [1], "prompt_embed_dim": 48, "image_size": 32}
    built = sam3d._built
    monkeypatch.setattr(sam3d, "build_network", lambda: build_sam3D_vit_b_ori(**sizes))
    small = lambda card, options: built(replace(card, window=(32,) * 3, divisor=32), options)  # noqa: E731
    monkeypatch.setattr(sam3d, "_built", small)


def test_an_adapter_of_a_model_asked_by_clicks_is_trained_saved_and_scored_again(
    small: list[str], narrow: None, capfd: pytest.CaptureFixture[str]
) -> None:
    base = [text for text in small if not text.startswith("prompt=")]
    base += ["prompt=point", "evaluation.precision=fp32", "data.modalities=[ct,pet]"]
    wanted = [*base, "model=sam_med3d_turbo", "adapter=lora", "adapter.rank=2", "fit.steps=1"]
    assert door.main("train", wanted) == 0
    run = Path(capfd.readouterr().out.strip())
    card = json.loads((run / "adapter" / "umdseg_adapter.json").read_text())
    # it has no classes, so no row of any
    assert card["structures"] == {"liver": None, "tumour": None}
    assert (run / "report.html").is_file()
    trained = pd.read_parquet(run / "cases.parquet")
    trained = trained[trained["stage"] == "adapted"]
    assert set(trained["status"]) == {"ok"}
    assert door.main("evaluate", [*base, f"adapter.path={run / 'adapter'}"]) == 0
    again = pd.read_parquet(Path(capfd.readouterr().out.strip()) / "cases.parquet")
    keys = ["subject", "modality", "structure", "score_grid"]
    both = trained.merge(again, on=keys, suffixes=("", "_again"))
    assert len(both) == len(trained) > 0
    pd.testing.assert_series_equal(both["dice"], both["dice_again"], check_names=False, atol=1e-6)
