"""Scores on the common grid: balls in patient space, seen by scanners of different voxels and fields."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from umdseg import inference
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import Reference
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import write_volume
from umdseg.errors import UserError
from umdseg.evaluation import EvaluationOptions, gap
from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.scans import read_scans, write_scans
from umdseg.evaluation.targets import Truth
from umdseg.vocabulary import UNITS, Origin, Scan, Subject

STRUCTURES = {"liver": 3, "spleen": 1}
# patient millimetres and radius; the spleen lies below the PET's field of view
BALLS = {"liver": ((4.0, -3.0, 20.0), 16.0), "spleen": ((0.0, 0.0, -45.0), 9.0)}
GRIDS = {
    # x, y -40..40, z -60..60
    "ct": Grid((40, 40, 60), np.array([[2.0, 0, 0, -39], [0, 2, 0, -39], [0, 0, 2, -59], [0, 0, 0, 1]])),
    # x, y -40..40, z -20..60, stored left-posterior
    "pet": Grid((20, 20, 20), np.array([[-4.0, 0, 0, 38], [0, -4, 0, 38], [0, 0, 4, -18], [0, 0, 0, 1]])),
}
SHIFT = 3.0  # mm by which every answer lies too far up, in every modality


def distance(grid: Grid, name: str, up: float = 0.0) -> np.ndarray:
    """Distance to the ball's surface in mm, negative inside."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    centre, radius = BALLS[name]
    away = np.linalg.norm(grid.to_world(index) - np.array(centre) - (0, 0, up), axis=1)
    return away.reshape(grid.shape) - radius


def subject(folder: Path, name: str, modalities=("ct", "pet"), labelled=("ct", "pet")) -> Subject:
    scans = {}
    for m in modalities:
        grid = GRIDS[m]
        label = np.zeros(grid.shape, np.int16)
        for structure, number in STRUCTURES.items():
            label[distance(grid, structure) <= 0] = number
        noise = np.random.default_rng(0).normal(0, 30, grid.shape)
        image = np.abs(noise) / 20 if m == "pet" else np.where(label > 0, 50.0, -90.0) + noise
        paths = folder / f"{name}_{m}.nii.gz", folder / f"{name}_{m}_label.nii.gz"
        write_volume(Volume(image.astype(np.float32), grid), paths[0])
        write_volume(Volume(label, grid), paths[1])
        scans[m] = Scan(paths[0], m, UNITS[m], paths[1] if m in labelled else None)
    return Subject(name, scans)


class Ball(nn.Module):
    """A model whose answer is one and the same body in millimetres, whatever the scan."""

    adapter = None
    takes = ()

    def __init__(self) -> None:
        super().__init__()
        self.card = SimpleNamespace(prompts=("auto", "point"))
        self.asked: list[tuple[str, Grid]] = []

    def knows(self, structure: str) -> bool:
        return True

    def routed(self, modality: str) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def ball(monkeypatch: pytest.MonkeyPatch) -> Ball:
    model = Ball()

    def open_session(backbone: Ball, volume: Volume, modality: str, **_: object) -> SimpleNamespace:
        def scores(structures, grid=None):
            grid = grid or volume.grid
            backbone.asked.append((Origin.of(modality).modality, grid))
            planes = [torch.from_numpy(-distance(grid, s, SHIFT).astype(np.float32)) for s in structures]
            yield slice(0, grid.shape[2]), torch.stack(planes)

        return SimpleNamespace(native=volume.grid, prompt=lambda prompts: None, scores=scores)

    monkeypatch.setattr(inference, "open", open_session)
    return model


def run(model: Ball, *people: Subject, prompts=("auto",), reference: Reference | None = None, **options):
    more = {"metrics": ["dice", "nsd"], "tolerance_mm": 2.0, **options}
    return evaluate(
        model,  # type: ignore[arg-type]
        PairedDataset("balls", people, STRUCTURES),
        people,
        options=EvaluationOptions(**more),
        stage="zero_shot",
        model="ball",
        prompts=prompts,
        modalities=("ct", "pet"),
        reference=reference or Reference(),
        progress=False,
    )


def cells(cases, grid: str, structure: str = "liver", prompt: str = "auto"):
    rows = cases[(cases.score_grid == grid) & (cases.structure == structure) & (cases.prompt == prompt)]
    return rows.set_index("modality")


def test_one_answer_scores_alike_in_every_modality_on_the_common_grid(ball: Ball, tmp_path: Path) -> None:
    """3 mm too far up with a tolerance of 2 mm: 4 mm voxels forgive what 2 mm voxels do not."""
    cases = run(ball, subject(tmp_path, "a"), prompts=("auto", "point"))
    for prompt in ("auto", "point"):
        own, common = (cells(cases, g, prompt=prompt) for g in ("label", "common"))
        assert abs(own.nsd["ct"] - own.nsd["pet"]) > 0.1
        assert common.nsd["pet"] == pytest.approx(common.nsd["ct"], abs=0.03)
        # two balls of radius r, d apart: Dice = 1 - 3 d / (4 r) + d^3 / (16 r^3)
        r, d = BALLS["liver"][1], SHIFT
        assert common.dice.to_dict() == pytest.approx(
            dict.fromkeys(("ct", "pet"), 1 - 3 * d / (4 * r) + d**3 / (16 * r**3)), abs=0.02
        )
        # the same voxels of the same prediction, in the CT's 2 mm
        assert common.volume_pred_ml["ct"] == common.volume_pred_ml["pet"]
        assert set(cells(cases, "common", prompt=prompt).clicks) == ({0} if prompt == "auto" else {1})


def test_only_what_all_scans_saw_counts(ball: Ball, tmp_path: Path) -> None:
    cases = run(ball, subject(tmp_path, "a"))
    # the CT saw the spleen, the PET's field ends above it
    assert cells(cases, "label", "spleen").status.to_dict() == {"ct": "ok", "pet": "empty_reference"}
    assert set(cells(cases, "common", "spleen").status) == {"empty_reference"}
    # of 120 mm the PET saw 80
    assert {grid.shape for m, grid in ball.asked if m == "pet"} == {GRIDS["pet"].shape, (40, 40, 40)}


@pytest.mark.parametrize("policy", ["ct", "card"])
def test_a_scan_that_is_not_scored_does_not_narrow_the_pair(tmp_path: Path, policy: str) -> None:
    pair, small = subject(tmp_path, "a"), tmp_path / "mr.nii.gz"
    # x, y -10..10, z 0..20
    place = Grid((10, 10, 10), np.array([[2.0, 0, 0, -9], [0, 2, 0, -9], [0, 0, 2, 1], [0, 0, 0, 1]]))
    write_volume(Volume(np.random.default_rng(0).random(place.shape).astype(np.float32), place), small)
    three = Subject("a", {**pair.scans, "mr": Scan(small, "mr", UNITS["mr"])})
    data, reference = PairedDataset("balls", (three,), STRUCTURES), Reference(policy, (2.0, 2.0, 2.0))
    shares = {
        names: Truth.read(three, data, reference, names).share("ct")
        for names in (("ct", "pet"), ("ct", "mr"))
    }
    # of 80 x 80 x 120 mm
    assert shares[("ct", "pet")] == pytest.approx(80 / 120, abs=0.01)
    assert shares[("ct", "mr")] == pytest.approx(20**3 / (80 * 80 * 120), rel=0.01)
    assert Truth.read(three, data, reference).share("ct") == pytest.approx(shares[("ct", "mr")])


def test_the_reference_scans_own_answer_is_cut_not_computed_again(ball: Ball, tmp_path: Path) -> None:
    cases = run(ball, subject(tmp_path, "a"))
    assert [grid.shape for m, grid in ball.asked if m == "ct"] == [GRIDS["ct"].shape]
    own, common = cells(cases, "label"), cells(cases, "common")
    # the liver lies wholly inside the common field: for the CT both grids are the same lattice
    assert own.dice["ct"] == common.dice["ct"]
    assert own.volume_ref_ml["ct"] == common.volume_ref_ml["ct"]


@pytest.mark.parametrize(
    ("reference", "spacing"),
    [(Reference("ct"), 2.0), (Reference("pet"), 4.0), (Reference("card", (3.0, 3.0, 3.0)), 3.0)],
    ids=["ct", "pet", "card"],
)
def test_the_policy_chooses_the_grid(
    ball: Ball, tmp_path: Path, reference: Reference, spacing: float
) -> None:
    cases = run(ball, subject(tmp_path, "a"), reference=reference)
    voxels = cells(cases, "common").volume_pred_ml / (spacing**3 / 1000)
    np.testing.assert_allclose(voxels, voxels.round(), atol=1e-6)
    assert voxels.iloc[0] == voxels.iloc[1]


def test_single_scans_have_no_common_rows_and_the_option_switches_them_off(
    ball: Ball, tmp_path: Path
) -> None:
    pair, alone = subject(tmp_path, "a"), subject(tmp_path, "b", ("pet",))
    cases = run(ball, pair, alone)
    assert set(on_grid(cases, "common").subject) == {"a"}
    assert set(on_grid(cases).subject) == {"a", "b"}
    assert set(run(ball, pair, score_grids=["label"]).score_grid) == {"label"}


def test_a_scan_without_a_label_says_so_on_both_grids(ball: Ball, tmp_path: Path) -> None:
    cases = run(ball, subject(tmp_path, "a", labelled=("ct",)), prompts=("auto", "point"))
    pet = cases[cases.modality == "pet"]
    assert pet.groupby("score_grid").size().to_dict() == {"label": 4, "common": 4}
    assert set(pet.condition) == {"no_label"}
    assert {m for m, _ in ball.asked} == {"ct"}


def test_the_gap_of_one_answer_is_nothing_on_the_common_grid(ball: Ball, tmp_path: Path) -> None:
    cases = run(ball, *(subject(tmp_path, name) for name in "abc"))
    found = gap(cases, 100)
    own, common = ({e["metric"]: e["gap"] for e in part["gaps"]} for part in (found, found["common"]))
    assert abs(own["nsd"]) > 0.1
    assert abs(common["nsd"]) < 0.03


@pytest.mark.parametrize("grids", [[], ["common"], ["label", "label"], ["label", "scan"]])
def test_score_grids_that_make_no_sense_are_refused(grids: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        EvaluationOptions(score_grids=grids).validate()
    assert caught.value.where == "evaluation.score_grids"


def test_baselines_are_scored_on_both_grids(tmp_path: Path) -> None:
    from umdseg.evaluation.baselines import evaluate_baselines

    train, test = subject(tmp_path, "t"), subject(tmp_path, "v")
    data = PairedDataset("balls", (train, test), STRUCTURES)
    options = EvaluationOptions(baselines=["intensity"])
    cases = evaluate_baselines(
        data, [train], [test], options=options, modalities=("ct", "pet"), structures=["liver"], progress=False
    )
    assert cases.groupby("score_grid").size().to_dict() == {"label": 2, "common": 2}
    ct = cells(cases, "label"), cells(cases, "common")
    # the CT's intensity tells the liver apart; above the PET's lower edge there is nothing else
    assert ct[0].dice["ct"] > 0.75
    assert ct[1].dice["ct"] >= ct[0].dice["ct"]


def test_scans_are_listed_with_their_share_of_the_common_field(ball: Ball, tmp_path: Path) -> None:
    one = subject(tmp_path, "a")
    data, path = PairedDataset("balls", (one,), STRUCTURES), tmp_path / "run" / "scans.csv"
    for _ in range(2):
        evaluate(
            ball,  # type: ignore[arg-type]
            data,
            [one],
            options=EvaluationOptions(),
            stage="zero_shot",
            model="ball",
            modalities=("ct", "pet"),
            scans_to=path,
            progress=False,
        )
    ct, pet = read_scans(path)
    assert (ct["shape"], ct["spacing"], ct["units"]) == ("40 x 40 x 60", "2.00 x 2.00 x 2.00", "HU")
    assert (ct["verdict"], ct["reason"]) == ("pass", "")
    assert float(ct["common_fov"]) == pytest.approx(40 / 60, abs=1e-3)
    assert float(pet["common_fov"]) == pytest.approx(1.0, abs=1e-3)
    assert float(ct["min"]) < float(ct["median"]) < float(ct["max"])
    assert str(tmp_path) not in path.read_text()


def test_a_scan_looked_at_again_replaces_its_row(tmp_path: Path) -> None:
    head = {"shape": "1 x 1 x 1", "units": "HU", "reason": ""}
    write_scans(
        [{**head, "subject": s, "modality": "ct", "verdict": "pass"} for s in "ab"], tmp_path / "s.csv"
    )
    write_scans([{**head, "subject": "a", "modality": "ct", "verdict": "warn"}], tmp_path / "s.csv")
    found = {row["subject"]: row["verdict"] for row in read_scans(tmp_path / "s.csv")}
    assert found == {"a": "warn", "b": "pass"}


def test_refused_values_stop_the_evaluation_and_name_scan_and_way_out(ball: Ball, tmp_path: Path) -> None:
    one = subject(tmp_path, "a")
    volume = np.random.default_rng(0).uniform(0, 1, GRIDS["ct"].shape).astype(np.float32)
    write_volume(Volume(volume, GRIDS["ct"]), one.scans["ct"].image)
    with pytest.raises(UserError, match="rescaled") as caught:
        run(ball, one)
    assert all(w in str(caught.value) for w in ("a_ct.nii.gz", "subject a", "data.bad_intensity=warn"))
