"""The probe against networks whose mistake is known: they know one phantom by heart, each in its own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from umdseg import load_backbone
from umdseg.backbones import Backbone, Features, Intensity
from umdseg.backbones.vista3d_cards import vista3d_tiny_card
from umdseg.data.geometry import Grid, Volume
from umdseg.data.preprocess import Preprocessing, prepare_image
from umdseg.inference.sampling import sample
from umdseg.preflight import probe
from umdseg.vocabulary import Origin, Prompt, PromptKind

CUBE = probe.SPACING
WINDOW = Intensity("window", -963.0, 1053.0)
SHAPE = (20, 18, 16)


def body() -> probe.Case:
    """A trunk with a liver to the right and a spleen to the left, behind."""
    label = np.zeros(SHAPE, np.int16)
    label[11:17, 6:14, 5:12] = 1
    label[3:7, 3:8, 8:13] = 2
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    image = np.full(SHAPE, -50.0) + 120.0 * (label == 1) + 190.0 * (label == 2) + noise
    affine = np.diag([CUBE, CUBE, CUBE, 1.0])
    affine[:3, 3] = [-60.0, -50.0, 100.0]
    image[0] = image[-1] = -1000.0
    return probe.Case(
        Volume(image.astype(np.float32), Grid(SHAPE, affine)), label, ("liver", "spleen"), "ct", "auto"
    )


class Memory(Backbone):
    """Says the organs where its input looks as the phantom did in training, in `trained` and `scale`."""

    def __init__(
        self,
        trained: str = "RAS",
        scale: Intensity = WINDOW,
        output: float = 1.0,
        kind: PromptKind = "auto",
    ) -> None:
        super().__init__()
        case = probe.as_stored(body(), trained)
        values = torch.from_numpy(case.image.array).float()
        self.seen = ((values - scale.low) / (scale.high - scale.low)).clamp(0, 1)
        self.label = torch.from_numpy(case.label)
        self.output = output
        self.net = torch.nn.Linear(1, 1)
        self.new_structures = {}
        shape = tuple(self.seen.shape)
        self.card = replace(
            vista3d_tiny_card(), spacing=(CUBE,) * 3, window=shape, divisor=1, crop=None, orientation="RAS",
            intensity={"ct": WINDOW}, structures={"liver": 1, "spleen": 2}, prompts=(kind,),
        )  # fmt: skip
        self.random_weights = False

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        assert affine is not None
        return Features([image], affine, (image.shape[2], image.shape[3], image.shape[4]))

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        image = features.maps[0][:, 0]
        x, y, z = (min(a, b) for a, b in zip(image.shape[1:], self.seen.shape, strict=True))
        planes = torch.full((1, len(prompts), *image.shape[1:]), -10.0)
        familiar = (image[:, :x, :y, :z] - self.seen[:x, :y, :z]).abs() < 0.01
        for channel, prompt in enumerate(prompts):
            organ = self.label[:x, :y, :z] == self.meant(prompt, features)
            planes[:, channel, :x, :y, :z] += 20.0 * self.output * (familiar & organ)
        return planes

    def meant(self, prompt: Prompt, features: Features) -> int:
        """The organ that is asked for: by name, the one clicked on, or the one whose box it is; 0 = none."""
        if prompt.kind == "auto":
            return self.card.structures[prompt.structure]
        to_index = torch.linalg.inv(features.affine[0].double())
        corners = torch.tensor(prompt.box or prompt.points, dtype=torch.float64)
        index = corners @ to_index[:3, :3].T + to_index[:3, 3]
        if prompt.box is None:
            x, y, z = index[0].round().int().tolist()
            within = all(0 <= i < n for i, n in zip((x, y, z), self.label.shape, strict=True))
            return int(self.label[x, y, z]) if within else 0
        low, high = index.min(dim=0).values, index.max(dim=0).values
        for value in (1, 2):
            voxels = torch.argwhere(self.label == value)
            faces = torch.stack([voxels.min(dim=0).values - 0.5, voxels.max(dim=0).values + 0.5])
            if torch.allclose(torch.stack([low, high]), faces.double(), atol=1e-3):
                return value
        return 0


class Boxed(Memory):
    """Takes boxes, which shared windows do not: its session sees the whole scan, turned as its card says."""

    def session(self, volume: Volume, origin: Origin | str, *, overlap: float | None, precision: str) -> Any:
        card = self.card
        numbers = Preprocessing(card.spacing, card.intensity, None, (1, 1, 1), card.orientation)
        prepared = prepare_image(volume, str(Origin.of(origin).modality), numbers)
        return Whole(self, volume.grid, prepared.image, prepared.grid)


class Whole:
    def __init__(self, backbone: Memory, native: Grid, image: torch.Tensor, grid: Grid) -> None:
        self.backbone, self.native, self.image, self.grid = backbone, native, image, grid
        self.asked: dict[str, Prompt] = {}

    def prompt(self, prompts: Sequence[Prompt]) -> None:
        self.asked |= {prompt.structure: prompt for prompt in prompts}

    def scores(self, structures: Sequence[str], grid: Grid | None = None) -> Iterator[Any]:
        features = self.backbone.encode(self.image[None], torch.from_numpy(self.grid.affine)[None])
        logits = self.backbone.decode(features, [self.asked[name] for name in structures])[0]
        yield slice(None), sample(logits, self.grid, grid or self.native, outside=-10.0)


PROMPTED = (("point", Memory), ("clicks", Memory), ("box", Boxed))


@pytest.mark.parametrize(("kind", "model"), PROMPTED, ids=lambda one: str(one))
def test_models_that_are_prompted_are_told_apart_as_well(
    kind: PromptKind, model: type[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "phantom", lambda backbone: replace(body(), kind=kind))
    (right,) = probe.probe(model(kind=kind), "fp32")
    assert (right.level, "1.00, however it is stored" in right.what) == ("pass", True)
    (turned,) = probe.probe(model("LPS", kind=kind), "fp32")
    assert (turned.level, turned.nearest) == ("refuse", "LPS")
    assert "the orientation is wrong" in turned.what
    (scaled,) = probe.probe(model(scale=Intensity("window", -160, 240), kind=kind), "fp32")
    assert scaled.level == "refuse"
    assert "seen through a window of -160 to 240 HU" in scaled.what
    (weak,) = probe.probe(model(output=0.0, kind=kind), "fp32")
    assert weak.level == "warn"
    assert "its card not to blame" in weak.what


def test_random_weights_are_not_judged() -> None:
    backbone = Memory("LPS")
    backbone.random_weights = True
    (found,) = probe.probe(backbone, "fp32")
    assert found.level == "warn"
    assert "asked by class" in found.what
    assert "says nothing about the card" in found.what


@pytest.fixture(autouse=True)
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "phantom", lambda backbone: body())


def test_a_right_card_passes_with_its_number() -> None:
    (found,) = probe.probe(Memory(), "fp32")
    assert found.level == "pass"
    assert ": 1.00, however it is stored" in found.what


@pytest.mark.parametrize("trained", ["LAS", "LPS", "SPL", "ARS", "IAR"])
def test_a_network_trained_in_another_orientation_is_told_with_the_right_one(trained: str) -> None:
    (found,) = probe.probe(Memory(trained), "fp32")
    assert found.level == "refuse"
    assert "the orientation is wrong" in found.what
    assert "1.00 turned to" in found.what
    assert found.nearest == trained
    # and under that orientation there is nothing to say
    right = Memory(trained)
    right.card = replace(right.card, orientation=trained)
    assert probe.probe(right, "fp32")[0].level == "pass"


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (Intensity("window", -160, 240), "seen through a window of -160 to 240 HU"),
        (Intensity("window", -1000, 1000), "seen through a window of -1000 to 1000 HU"),
        # trained on values stored without their offset of 1024
        (Intensity("window", -963 - 1024, 1053 - 1024), "shifted by +1024 HU"),
    ],
)
def test_a_network_trained_on_another_window_is_told_with_that_one(scale: Intensity, said: str) -> None:
    (found,) = probe.probe(Memory(scale=scale), "fp32")
    assert found.level == "refuse"
    assert "the intensity scale is wrong" in found.what
    assert said in found.what


def test_a_weak_model_is_not_taken_for_a_wrong_card() -> None:
    (found,) = probe.probe(Memory(output=0.0), "fp32")
    assert found.level == "warn"
    assert "0.00 as it is, at most 0.00 mirrored" in found.what
    assert "weak" in found.what


class Careless(Memory):
    """Forgets the affine: its session turns nothing."""

    def session(self, volume: Volume, modality: str, *, overlap: float | None, precision: str) -> object:
        from umdseg import inference

        if np.allclose(volume.grid.affine[:3, :3], CUBE * np.eye(3)):
            return None
        plain = np.diag([CUBE, CUBE, CUBE, 1.0])
        other = inference.open(
            Memory(), Volume(volume.array, Grid(volume.grid.shape, plain)), modality, precision="fp32"
        )
        return other


def test_an_answer_that_depends_on_how_a_scan_is_stored_is_refused() -> None:
    (found,) = probe.probe(Careless(), "fp32")
    assert found.level == "refuse"
    assert "stored as RAS, but" in found.what


def test_no_organ_in_common_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "phantom", lambda backbone: replace(body(), names=()))
    (found,) = probe.probe(Memory(), "fp32")
    assert found.level == "warn"
    assert "nothing to probe" in found.what


@pytest.mark.parametrize("codes", ["LAS", "PRI", "SAL", "IPR"])
def test_copies_hold_what_nibabel_says(codes: str) -> None:
    case = body()
    image = nib.Nifti1Image(case.image.array, case.image.grid.affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    )
    expected = image.as_reoriented(turn)
    stored = probe.as_stored(case, codes)
    assert np.array_equal(stored.image.array, expected.get_fdata(dtype=np.float32))
    assert np.allclose(stored.image.grid.affine, expected.affine)
    assert nib.aff2axcodes(probe.as_mistaken(case, codes).image.grid.affine) == ("R", "A", "S")


def test_all_ways_to_mirror_and_the_usual_orders_are_tried_once() -> None:
    tried = list(probe.orientations())
    assert len(set(tried)) == len(tried) == 19
    assert "RAS" not in tried
    assert {"LAS", "LPS", "LPI", "SAR", "IPL", "ARS"} <= set(tried)


@pytest.mark.parametrize("card", ["RAS", "LPS", "SPL"])
def test_the_right_orientation_is_its_own(card: str) -> None:
    assert probe.expected_orientation(card, "RAS") == card
    assert probe.expected_orientation("LPS", "LAS") == "RPS"


def test_the_shipped_weights_pass_on_a_real_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    backbone = load_backbone("vista3d_tiny")
    case = probe.phantom(backbone)
    assert case.names == probe.ORGANS
    assert case.image.array.shape == case.label.shape
    assert probe.dice(backbone, case, "fp32") >= probe.GOOD
    turned = probe.as_mistaken(case, "LAS")
    assert probe.dice(backbone, turned, "fp32") < probe.LEAST
