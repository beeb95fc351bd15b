"""Stitching against MONAI's network and its sliding window inferer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.backbones.vista3d import Vista3d, tiny_network
from umdseg.backbones.vista3d_cards import vista3d_card
from umdseg.data.geometry import Grid, resample
from umdseg.errors import UserError
from umdseg.inference import classes
from umdseg.inference.stitch import importance
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


@pytest.mark.parametrize("turned", [False, True], ids=["parallel", "oblique"])
@pytest.mark.parametrize("kept", [1 << 30, 0], ids=["features", "logits"])
@pytest.mark.parametrize("count", [3, 20])
def test_logits_on_another_grid_are_the_resampled_logits(
    tiny: Backbone, count: int, kept: int, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 classes are more than the 16 channels of F: there resampling comes before the linear layer."""
    from umdseg.backbones import slabs

    monkeypatch.setattr(classes, "DENSE_BYTES", kept)
    monkeypatch.setattr(slabs, "SLAB_NUMBERS", 22 * 18 * 9 * 30)
    names = [*tiny.card.structures][:count]
    names += [f"new_{i}" for i in range(count - len(names))]
    rows = tiny.add_structures(names)
    with torch.no_grad():
        table = tiny.net.get_parameter("class_head.class_embeddings.weight")
        table[256:270] = torch.randn(14, 16, generator=torch.Generator().manual_seed(2))
    x = volume(32, 16, 24)
    x[:, :, 16:] = 0.01  # air: nobody looks there
    affine = np.diag([4.7, 5.1, 4.3, 1.0])
    if turned:
        affine[:2, :2] = [[4.5, -1.1], [1.2, 4.9]]
    target = Grid((22, 18, 31), affine)
    session = inference.open_tensor(tiny, x, window=16, overlap=0.0, precision="fp32")
    found = logits(session, names, target)
    with torch.no_grad():
        parts = [tiny.net(x[:, :, :16, :, z : z + 16], class_vector=torch.tensor([[rows[n]] for n in names]))
                 for z in (0, 8)]  # fmt: skip
    weight = importance((16, 16, 16))
    blended = torch.zeros(2, count, 16, 16, 24)
    for z, part in zip((0, 8), parts, strict=True):
        blended[0, ..., z : z + 16] += part[:, 0] * weight
        blended[1, ..., z : z + 16] += weight
    native = torch.full((count, 32, 16, 24), -10.0)
    native[:, :16] = blended[0] / blended[1]
    tiny.forget_structures()
    source = Grid((32, 16, 24), np.diag([*tiny.card.spacing, 1.0]))
    torch.testing.assert_close(found, resample(native, source, target, outside=-10.0), rtol=0, atol=3e-4)
    assert (found == -10).any()


def test_a_group_is_the_union_of_its_members_on_the_output_grid() -> None:
    torch.manual_seed(0)
    wide = Vista3d(replace(vista3d_card(), spacing=(6.0, 6.0, 6.0)), tiny_network()).eval()
    lobes = wide.card.groups["lung"]
    finer = Grid((20, 18, 31), np.diag([4.0, 5.0, 4.5, 1.0]))
    session = inference.open_tensor(wide, volume(16, 16, 32), window=16, precision="fp32")
    single = logits(session, list(lobes), finer)
    both = logits(session, ["liver", "lung"], finer)
    assert len(lobes) == 5
    torch.testing.assert_close(both[1], single.amax(dim=0), rtol=0, atol=1e-4)
    many = [*list(wide.card.structures)[:20], "lung"]
    torch.testing.assert_close(logits(session, many, finer)[-1], both[1], rtol=0, atol=1e-4)


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
    from umdseg.backbones import slabs

    x = volume(16, 16, 24)
    session = inference.open_tensor(tiny, x, window=16, precision="fp32")
    finer = Grid((20, 18, 31), np.diag([4.0, 5.0, 4.5, 1.0]))
    whole = logits(session, grid=finer)
    monkeypatch.setattr(slabs, "SLAB_NUMBERS", 20 * 18 * 7 * 3)
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


def test_a_text_is_refused_and_not_answered_with_nothing(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = inference.open_tensor(tiny, volume(16, 16, 16), window=16)
    with pytest.raises(UserError, match="takes no 'text' prompts"):
        session.prompt([Prompt("liver", "text", text="liver")])
    monkeypatch.setattr(tiny, "card", replace(tiny.card, prompts=("auto", "text")))
    with pytest.raises(UserError, match="no place for the text prompt of liver"):
        session.prompt([Prompt("liver", "text", text="liver")])


def test_a_click_outside_the_volume_asks_for_nothing(tiny: Backbone) -> None:
    session = inference.open_tensor(tiny, volume(16, 16, 16), window=16)
    session.prompt([Prompt("liver", "point", ((-100.0, 0.0, 0.0),), (1,))])
    assert (logits(session, ["liver"]) == -10).all()


@pytest.mark.parametrize("kind", ["box", "lasso"])
def test_a_box_or_a_contour_is_answered_by_the_window_around_its_middle(tiny: Backbone, kind: str) -> None:
    from umdseg.inference.clicks import ClickWindows
    from umdseg.vocabulary import Contour

    asked: list[tuple[int, int, int]] = []

    class Stub:
        def decode(self, features: object, prompts: list[Prompt]) -> torch.Tensor:
            return torch.ones(1, 1, 16, 16, 16)

    def encode(start: tuple[int, int, int]) -> object:
        asked.append(start)
        return object()

    windows = ClickWindows(Stub(), Grid((48, 48, 48), np.diag([2.0, 2, 2, 1])), (16, 16, 16), encode)  # type: ignore[arg-type]
    corners = ((40.0, 30.0, 50.0), (60.0, 50.0, 50.0))
    # the middle is at (50, 40, 50) mm: voxel (25, 20, 25), eight voxels into its window
    if kind == "box":
        prompt = Prompt("liver", "box", box=corners)
    else:
        ring = ((40.0, 30.0, 50.0), (60.0, 30.0, 50.0), (60.0, 50.0, 50.0), (40.0, 50.0, 50.0))
        prompt = Prompt("liver", "lasso", contours=(Contour(ring, closed=True, sign=1),))
    assert len(windows.decode(prompt)) == 1
    assert asked == [(17, 12, 17)]
