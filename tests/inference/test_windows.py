"""Stitching against MONAI's network and its sliding window inferer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.data.geometry import Grid
from umdseg.errors import UserError
from umdseg.inference import classes
from umdseg.vocabulary import Prompt

NAMES = ["liver", "spleen", "lung"]
CLASSES = torch.tensor([[1], [3], [20]])


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random")


def volume(*shape: int) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def logits(
    session: inference.VolumeSession, names: list[str] = NAMES, grid: Grid | None = None
) -> torch.Tensor:
    return torch.cat([part for _, part in session.scores(names, grid)], dim=-1)


def reference(tiny: Backbone, x: torch.Tensor, window: tuple[int, ...], overlap: float) -> torch.Tensor:
    with torch.no_grad():
        return sliding_window_inference(
            x,
            window,
            1,
            lambda part: tiny.net(part, class_vector=CLASSES).transpose(0, 1),
            overlap=overlap,
            mode="gaussian",
        )[0]


def test_one_window_is_the_network_itself(tiny: Backbone) -> None:
    x = volume(16, 16, 24)
    session = inference.open_tensor(tiny, x, window=(16, 16, 24), precision="fp32")
    with torch.no_grad():
        expected = tiny.net(x, class_vector=CLASSES)[:, 0]
    torch.testing.assert_close(logits(session), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_many_windows_are_monais_sliding_windows(tiny: Backbone, overlap: float) -> None:
    x = volume(30, 16, 37)
    session = inference.open_tensor(tiny, x, window=16, overlap=overlap, precision="fp32")
    torch.testing.assert_close(logits(session), reference(tiny, x, (16, 16, 16), overlap), rtol=0, atol=1e-4)


def test_a_volume_smaller_than_the_window_is_padded(tiny: Backbone) -> None:
    x = volume(10, 16, 13)
    session = inference.open_tensor(tiny, x, window=16, precision="fp32")
    torch.testing.assert_close(logits(session), reference(tiny, x, (16, 16, 16), 0.25), rtol=0, atol=1e-4)


def test_logits_are_stitched_where_features_would_not_fit(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = volume(24, 16, 16)
    monkeypatch.setattr(classes, "DENSE_BYTES", 0)
    session = inference.open_tensor(tiny, x, window=16, precision="fp32")
    expected = reference(tiny, x, (16, 16, 16), 0.25)
    torch.testing.assert_close(logits(session), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(session, ["spleen"])[0], expected[1], rtol=0, atol=1e-4)


def test_every_class_set_is_served_by_one_pass(tiny: Backbone) -> None:
    ran: list[int] = []
    hook = tiny.net.image_encoder.encoder.register_forward_hook(lambda *_: ran.append(1))
    session = inference.open_tensor(tiny, volume(24, 16, 16), window=16, precision="fp32")
    for names in (["liver"], NAMES, ["brain"]):
        logits(session, names)
    hook.remove()
    assert len(ran) == 2


def test_windows_of_air_are_background_and_never_run(tiny: Backbone) -> None:
    x = volume(16, 16, 48)
    x[..., 16:] = 0.01
    ran: list[int] = []
    hook = tiny.net.image_encoder.encoder.register_forward_hook(lambda *_: ran.append(1))
    found = logits(inference.open_tensor(tiny, x, window=16, overlap=0.0, precision="fp32"))
    assert len(ran) == 1
    assert (found[..., 16:] == -10).all()
    full = logits(inference.open_tensor(tiny, x, window=16, overlap=0.0, precision="fp32", skip_air=False))
    hook.remove()
    assert torch.equal(found[..., :16], full[..., :16])
    assert not (full[..., 16:] == -10).any()
    nothing = logits(inference.open_tensor(tiny, torch.zeros(1, 1, 16, 16, 32), window=16))
    assert (nothing == -10).all()


def test_the_label_map_is_the_best_positive_logit(tiny: Backbone) -> None:
    x = volume(24, 16, 16)
    found = inference.segment(tiny, x, NAMES, window=16, precision="fp32")
    expected = reference(tiny, x, (16, 16, 16), 0.25).numpy()
    labels = np.where(expected.max(axis=0) > 0, expected.argmax(axis=0) + 1, 0)
    assert found.shape == (24, 16, 16)
    assert found.dtype == np.int16
    close = np.sort(np.vstack([expected, np.zeros_like(expected[:1])]), axis=0)
    sure = close[-1] - close[-2] > 1e-4  # beyond rounding
    assert sure.mean() > 0.99
    assert (found == labels)[sure].all()
    assert not inference.segment(tiny, x, [], window=16).any()


def test_slabs_do_not_change_the_result(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    from umdseg.inference import window

    x = volume(16, 16, 24)
    session = inference.open_tensor(tiny, x, window=16, precision="fp32")
    finer = Grid((20, 18, 31), np.diag([4.0, 5.0, 4.5, 1.0]))
    whole = logits(session, grid=finer)
    monkeypatch.setattr(window, "SLAB_NUMBERS", 20 * 18 * 7 * 3)
    slabs = [part.shape[-1] for _, part in session.scores(NAMES, finer)]
    assert len(slabs) > 5
    assert sum(slabs) == 31
    torch.testing.assert_close(logits(session, grid=finer), whole, rtol=0, atol=1e-5)


def test_bfloat16_labels_agree_with_float32(tiny: Backbone) -> None:
    x = volume(32, 16, 16)
    maps = [inference.segment(tiny, x, NAMES, window=16, precision=p) for p in ("bf16", "fp32")]
    assert (maps[0] == maps[1]).mean() > 0.95
    session = inference.open_tensor(tiny, x, window=16, precision="bf16")
    assert logits(session).dtype == torch.float32


def test_mistaken_requests_are_refused(tiny: Backbone) -> None:
    x = volume(16, 16, 16)
    with pytest.raises(UserError, match="did you mean: fp32"):
        inference.open_tensor(tiny, x, window=16, precision="fp23")
    with pytest.raises(UserError, match="multiples of 8"):
        inference.open_tensor(tiny, x, window=12)
    with pytest.raises(UserError, match="overlap"):
        inference.open_tensor(tiny, x, window=16, overlap=1.0)
    with pytest.raises(UserError, match=r"\(1, 1, X, Y, Z\)"):
        inference.open_tensor(tiny, x[0], window=16)
    with pytest.raises(UserError, match="did you mean: spleen"):
        inference.segment(tiny, x, ["spleeen"], window=16)
    with pytest.raises(UserError, match="modality"):
        inference.open(tiny, "scan.nii.gz")


@torch.no_grad()
def test_a_click_is_answered_by_the_window_around_it(tiny: Backbone) -> None:
    x = volume(16, 16, 64)
    mm = tiny.card.spacing
    prompt = Prompt("liver", "point", ((8 * mm[0], 8 * mm[1], 40 * mm[2]),), (1,))
    session = inference.open_tensor(tiny, x, window=16, precision="fp32")
    session.prompt([prompt])
    found = logits(session, ["liver"])[0]
    part = x[..., 32:48]
    expected = tiny.net(
        part,
        point_coords=torch.tensor([[[8.0, 8.0, 8.0]]]),
        point_labels=torch.tensor([[1]]),
        prompt_class=torch.tensor([[1]]),
    )[0, 0]
    torch.testing.assert_close(found[..., 32:48], expected, rtol=0, atol=1e-4)
    assert (found[..., :32] == -10).all()
    assert (found[..., 48:] == -10).all()


def test_further_clicks_decode_only_and_undo_goes_back(tiny: Backbone) -> None:
    ran: list[int] = []
    hook = tiny.net.image_encoder.encoder.register_forward_hook(lambda *_: ran.append(1))
    session = inference.open_tensor(tiny, volume(16, 16, 64), window=16, precision="fp32")
    mm = tiny.card.spacing
    points = [(8 * mm[0], 8 * mm[1], z * mm[2]) for z in (40.0, 42.0, 36.0, 10.0)]
    session.prompt([Prompt("liver", "clicks", tuple(points[:1]), (1,))])
    first = logits(session, ["liver"])
    session.prompt([Prompt("liver", "clicks", tuple(points[:3]), (1, 0, 1))])
    third = logits(session, ["liver"])
    assert len(ran) == 1
    assert not torch.equal(first, third)
    session.undo()
    assert torch.equal(logits(session, ["liver"]), first)
    # a click far away opens a second window; the first window's answer has not changed
    session.prompt([Prompt("liver", "clicks", (points[0], points[3]), (1, 1))])
    both = logits(session, ["liver"])
    hook.remove()
    assert len(ran) == 2
    assert (both[0, ..., 2:18] != -10).all()
    torch.testing.assert_close(both[..., 32:48], first[..., 32:48], rtol=0, atol=1e-4)
    session.undo()
    session.undo()
    session.undo()
    torch.testing.assert_close(
        logits(session), logits(inference.open_tensor(tiny, volume(16, 16, 64), window=16, precision="fp32"))
    )


def test_a_click_outside_the_volume_asks_for_nothing(tiny: Backbone) -> None:
    session = inference.open_tensor(tiny, volume(16, 16, 16), window=16)
    session.prompt([Prompt("liver", "point", ((-100.0, 0.0, 0.0),), (1,))])
    assert (logits(session, ["liver"]) == -10).all()
