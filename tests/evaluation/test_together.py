"""Models that take CT and PET of one person together, from the scans to the case table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.torch_module.backbone import TorchModule
from umdseg.data.dataset import PairedDataset
from umdseg.data.fov import Reference
from umdseg.data.geometry import Grid, Volume
from umdseg.data.io.nifti import read_image, read_label, write_volume
from umdseg.errors import UserError
from umdseg.evaluation import EvaluationOptions, gap
from umdseg.evaluation.cases import case_table, on_grid
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.scans import read_scans
from umdseg.inference.together import open_together
from umdseg.metrics import score_labels
from umdseg.vocabulary import UNITS, Modality, Scan, Subject

GRIDS: dict[Modality, Grid] = {
    "ct": Grid((24, 20, 16), np.array([[2.0, 0, 0, -23], [0, 2, 0, -19], [0, 0, 2, -15], [0, 0, 0, 1]])),
    # coarser, stored left-posterior
    "pet": Grid((12, 10, 8), np.array([[-4.0, 0, 0, 22], [0, -4, 0, 18], [0, 0, 4, -14], [0, 0, 0, 1]])),
    "mr": Grid((12, 10, 8), np.array([[4.0, 0, 0, -22], [0, 4, 0, -18], [0, 0, 4, -14], [0, 0, 0, 1]])),
}
LESION = ((-12.0, -10.0, -8.0), (6.0, 8.0, 6.0))
IDS = {"tumour": 7, "spleen": 3}


class Sum(nn.Module):
    """Logit of the lesion: CT / 100 + 2 PET - 5, so each scan alone is not enough."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.01, 2.0]).view(1, 2, 1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image * self.weights).sum(1, keepdim=True) - 5


def model(*channels: Modality) -> Backbone:
    card = Card(
        name="sum",
        weights=Weights(None, "", None, "MIT", True),
        spacing=None,
        window=(16, 16, 16),
        divisor=1,
        intensity={m: Intensity("as_is") for m in channels},
        structures={"tumour": 0},
        adapter_targets="",
        stem="",
        citation="",
        overlap=0.0,
    )
    return TorchModule(card, Sum(), channels).eval()


PAIR: tuple[Modality, ...] = ("ct", "pet")


def person(folder: Path, name: str, modalities: Any = PAIR, labelled: Any = PAIR) -> Subject:
    scans = {}
    for number, m in enumerate(modalities):
        grid = GRIDS[m]
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
        world = grid.to_world(index)
        inside = ((world > LESION[0]) & (world < LESION[1])).all(1).reshape(grid.shape)
        noise = np.random.default_rng(number + len(name)).normal(0, 1, grid.shape)
        image = np.abs(2 * inside + 0.3 * noise) if m == "pet" else 200.0 * inside + 60 * noise
        paths = folder / f"{name}_{m}.nii.gz", folder / f"{name}_{m}_label.nii.gz"
        write_volume(Volume(image.astype(np.float32), grid), paths[0])
        write_volume(Volume((IDS["tumour"] * inside).astype(np.int16), grid), paths[1])
        label, tracer = paths[1] if m in labelled else None, "FDG" if m == "pet" else None
        scans[m] = Scan(paths[0], m, UNITS[m], label, tracer)
    return Subject(name, scans)


def run(backbone: Backbone, *people: Subject, **more: Any) -> Any:
    arguments = {"modalities": ("ct", "pet"), "bad_intensity": "warn", "progress": False, **more}
    return evaluate(
        backbone,
        PairedDataset("pairs", people, IDS),
        people,
        options=EvaluationOptions(metrics=["dice", "nsd"]),
        stage="zero_shot",
        model="sum",
        **arguments,
    )


def answer(backbone: Backbone, one: Subject, grid: Grid) -> np.ndarray:
    """What the model says of a person on a grid, without the evaluation."""
    volumes = {m: read_image(scan.image) for m, scan in one.scans.items() if m in ("ct", "pet")}
    session = open_together(backbone, volumes)
    return np.asarray(inference.label_map(session, ["tumour"], grid))


@pytest.mark.parametrize(("policy", "scored"), [("ct", "ct"), ("pet", "pet"), ("mr", "ct"), ("card", "ct")])
def test_rows_are_what_a_direct_call_scores_against_the_reference_scans_label(
    tmp_path: Path, policy: str, scored: Modality
) -> None:
    backbone, one = model("ct", "pet"), person(tmp_path, "a")
    reference = Reference(policy, (3.0, 3.0, 3.0))
    saved = tmp_path / "predictions"
    cases = run(backbone, one, reference=reference, save_to=saved)
    assert set(cases.modality) == set(cases.subset) == set(cases.pair) == {"ct+pet"}
    assert set(cases.tracer) == {"FDG"}
    assert cases.groupby("score_grid").size().to_dict() == {"label": 2, "common": 2}
    label = read_label(tmp_path / f"a_{scored}_label.nii.gz")
    found = answer(backbone, one, GRIDS[scored])
    assert 0 < found.sum() < found.size
    expected = score_labels(label.array == IDS["tumour"], found, label.grid.spacing, {1: "tumour"}).iloc[0]
    row = on_grid(cases).set_index("structure").loc["tumour"]
    for column in ("dice", "nsd", "volume_ref_ml", "volume_pred_ml"):
        assert row[column] == pytest.approx(expected[column])
    assert 0.3 < row.dice < 0.99
    written = read_label(saved / "a" / "ct+pet__zero_shot__auto.nii.gz", GRIDS[scored])
    np.testing.assert_array_equal(written.array, IDS["tumour"] * found)
    assert set(cases[cases.structure == "spleen"].status) == {"class_unknown"}


def test_the_order_of_the_channels_is_the_models(tmp_path: Path) -> None:
    one = person(tmp_path, "a")
    right, wrong = model("ct", "pet"), model("pet", "ct")
    dice = {name: on_grid(run(net, one)).dice.max() for name, net in (("right", right), ("wrong", wrong))}
    assert dice["wrong"] < dice["right"] - 0.2
    assert set(run(wrong, one).modality) == {"pet+ct"}
    # its first channel, whose grid the session opens on, is the PET; the CT's label is scored all the same
    assert on_grid(run(wrong, one)).volume_ref_ml.dropna().tolist() == pytest.approx(
        on_grid(run(right, one)).volume_ref_ml.dropna().tolist()
    )


def test_who_lacks_a_scan_has_rows_that_say_so(tmp_path: Path) -> None:
    people = person(tmp_path, "a"), person(tmp_path, "bb", ("ct",)), person(tmp_path, "ccc", ("mr",))
    cases = run(model("ct", "pet"), *people, prompts=("auto", "point"))
    status = cases.groupby("subject").status.agg(set).to_dict()
    assert status["bb"] == status["ccc"] == {"modality_absent"}
    assert status["a"] == {"ok", "class_unknown", "prompt_unsupported"}
    lacking = cases[cases.subject == "bb"]
    assert (set(lacking.modality), set(lacking.subset), len(lacking)) == ({"ct+pet"}, {"ct+pet"}, 4)
    assert lacking.dice.isna().all()


def test_where_only_one_scan_has_a_label_it_is_scored_and_the_rows_say_so(tmp_path: Path) -> None:
    backbone, one = model("ct", "pet"), person(tmp_path, "a", labelled=("pet",))
    cases = run(backbone, one, save_to=tmp_path / "predictions")
    scored = cases[cases.structure == "tumour"]
    assert set(scored.status) == {"ok"}
    assert set(scored.condition) == {"label_from_pet"}
    label = read_label(tmp_path / "a_pet_label.nii.gz")
    overlap = answer(backbone, one, GRIDS["pet"]).astype(bool), label.array > 0
    dice = 2 * np.logical_and(*overlap).sum() / (overlap[0].sum() + overlap[1].sum())
    assert on_grid(scored).dice.item() == pytest.approx(dice)
    # shown on the reference's grid all the same
    read_label(tmp_path / "predictions" / "a" / "ct+pet__zero_shot__auto.nii.gz", GRIDS["ct"])
    bare = run(backbone, person(tmp_path, "b", labelled=()))
    assert set(zip(bare.status, bare.condition, strict=True)) == {("empty_reference", "no_label")}


def test_a_scan_the_model_does_not_take_changes_nothing(tmp_path: Path) -> None:
    backbone, three = model("ct", "pet"), person(tmp_path, "a", ("ct", "pet", "mr"))
    two = replace(three, scans={m: three.scans[m] for m in ("ct", "pet")})
    scans = tmp_path / "scans.csv"
    wide, narrow = run(backbone, three, modalities=("ct", "pet", "mr"), scans_to=scans), run(backbone, two)
    columns = ["modality", "structure", "score_grid", "dice", "nsd", "status"]
    assert wide[columns].equals(narrow[columns])
    assert [row["modality"] for row in read_scans(scans)] == ["ct", "pet"]


@pytest.mark.parametrize("modalities", [("ct",), ("pet", "mr")])
def test_a_model_is_not_asked_without_a_scan_it_takes(tmp_path: Path, modalities: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="ct and pet of one person together") as caught:
        run(model("ct", "pet"), person(tmp_path, "a"), modalities=modalities)
    assert caught.value.where == "data.modalities"
    assert "[ct,pet]" in str(caught.value.expected)


def test_rows_of_scans_given_together_have_no_part_in_any_gap() -> None:
    head = {"dataset": "d", "prompt": "auto", "structure": "liver", "score_grid": "label", "status": "ok"}
    rng = np.random.default_rng(0)
    single = [
        {**head, "subject": f"s{n}", "modality": m, "stage": stage, "model": "one", "dice": base + noise}
        for n in range(6)
        for stage, scores in (("zero_shot", (0.9, 0.4)), ("adapted", (0.88, 0.7)))
        for m, base, noise in zip(PAIR, scores, rng.normal(0, 0.02, 2), strict=True)
    ]
    more = {**head, "modality": "ct+pet", "stage": "adapted", "model": "both", "fusion": "late", "dice": 0.95}
    joint = [{**more, "subject": f"s{n}", "subset": given} for n in range(6) for given in ("ct+pet", "ct")]
    alone = gap(case_table(single), 200)
    assert alone["gaps"][0]["gap"] == pytest.approx(0.5, abs=0.05)
    assert gap(case_table([*single, *joint]), 200) == alone
    nothing = gap(case_table(joint), 200)
    assert nothing["gaps"] == nothing["closure"] == nothing["common"]["gaps"] == []


def test_a_published_network_of_ct_and_pet_is_evaluated(shared_data: Path, tmp_path: Path) -> None:
    """P-Net of pet-ct-annotate on a corner of a real patient, against a direct call."""
    study = Path(__file__).resolve().parents[2] / "experiments/small_nets"
    weights = shared_data / "weights/petct_deepigeos/PNet_model.pt"
    options = {"module": f"{study}/nets.py:PNet", "card": f"{study}/pnet_petct.yaml"}
    backbone = load_backbone("torch_module", str(weights), **options)
    backbone.card = replace(backbone.card, window=(32, 32, 16))
    assert backbone.takes == ("ct", "pet")
    folder = shared_data / "sts_pet_ct_mr/nifti/STS_001"
    mask = read_label(folder / "CT_mask.nii.gz")
    # 32 x 32 x 16 voxels around a voxel of the lesion, deep enough in the scan
    spot = np.argwhere(mask.array > 0)[int((mask.array > 0).sum()) // 2]
    low = np.clip(spot - (16, 16, 8), 0, np.array(mask.array.shape) - (32, 32, 16))
    start, stop = tuple(map(int, low)), tuple(map(int, low + np.array([32, 32, 16])))
    part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    ct = read_image(folder / "CT_image.nii.gz")
    grid = ct.grid.crop(start, stop)  # type: ignore[arg-type]
    write_volume(Volume(ct.array[part].astype(np.float32), grid), tmp_path / "ct.nii.gz")
    lesion = IDS["tumour"] * (mask.array[part] > 0).astype(np.int16)
    write_volume(Volume(lesion, grid), tmp_path / "label.nii.gz")
    scans: dict[Modality, Scan] = {
        "ct": Scan(tmp_path / "ct.nii.gz", "ct", "HU", tmp_path / "label.nii.gz"),
        "pet": Scan(folder / "PET_image.nii.gz", "pet", "SUV"),
    }
    one = Subject("STS_001", scans)
    cases = run(backbone, one)
    found = answer(backbone, one, grid)
    expected = score_labels(mask.array[part] > 0, found, grid.spacing, {1: "tumour"}).iloc[0]
    row = on_grid(cases).set_index("structure").loc["tumour"]
    assert row.modality == "ct+pet"
    assert (row.dice, row.volume_pred_ml) == pytest.approx((expected.dice, expected.volume_pred_ml))
    # the uptake of the sarcoma is seen
    assert row.volume_pred_ml > 0


def test_a_fused_model_given_one_scan_is_compared_with_the_base_on_that_scan() -> None:
    """Of rows made by hand: the base loses 0.1 on CT; on PET it wins 0.3 of a gap of 0.6."""
    from umdseg.evaluation import gap
    from umdseg.evaluation.cases import case_table

    rows = []
    for number in range(6):
        head = {"dataset": "d", "subject": f"s{number}", "structure": "liver", "model": "m", "prompt": "auto"}
        head |= {"status": "ok", "score_grid": "label"}
        base, fused = {**head, "stage": "zero_shot"}, {**head, "stage": "adapted", "fusion": "gated"}
        rows += [
            {**base, "modality": "ct", "dice": 0.9},
            {**base, "modality": "pet", "dice": 0.3 + 0.001 * number},
        ]
        for subset, dice in (("ct", 0.8), ("pet", 0.6 + 0.001 * number), ("ct+pet", 0.95)):
            rows.append({**fused, "modality": "ct+pet", "subset": subset, "dice": dice})
    found = gap(case_table(rows))
    (closure,), (lost,) = (
        [e for e in found[kind] if e["metric"] == "dice"] for kind in ("closure", "forgetting")
    )
    assert lost["value"] == pytest.approx(0.1)
    # every subject: 0.3 won, of 0.9 less what PET had
    assert closure["value"] == pytest.approx(0.3 / (0.6 - 0.0025), rel=1e-6)
    assert {entry["stage"] for entry in found["gaps"]} == {"zero_shot", "adapted"}


def test_a_baseline_of_its_stage_takes_no_gap_from_a_fused_network_trained_from_scratch() -> None:
    """Of rows made by hand: 0.8 on CT alone, 0.3 and a little on PET alone, beside a baseline."""
    rows = []
    for number in range(6):
        head = {"dataset": "d", "subject": f"s{number}", "structure": "liver", "prompt": "auto"}
        head |= {"status": "ok", "score_grid": "label", "stage": "supervised"}
        for subset, dice in (("ct", 0.8), ("pet", 0.3 + 0.001 * number), ("ct+pet", 0.95)):
            fused = {"model": "unet", "fusion": "early", "modality": "ct+pet", "subset": subset}
            rows.append({**head, **fused, "dice": dice})
        rows += [{**head, "model": "intensity", "modality": m, "dice": 0.1} for m in PAIR]
    (entry,) = gap(case_table(rows), 200)["gaps"]
    assert entry["gap"] == pytest.approx(0.8 - 0.3025)
    assert (entry["stage"], entry["n_subjects"]) == ("supervised", 6)


def test_one_label_for_all_inputs_makes_different_inputs_answer_for_the_same_voxels(tmp_path: Path) -> None:
    one = person(tmp_path, "a", ("ct", "pet", "mr"), ("ct", "pet", "mr"))
    # a label of another size on the MR, so that a score against the wrong one would differ
    grid = GRIDS["mr"]
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    larger = (np.abs(grid.to_world(index)) < 14).all(1).reshape(grid.shape)
    write_volume(Volume((IDS["tumour"] * larger).astype(np.int16), grid), tmp_path / "a_mr_label.nii.gz")
    other = person(tmp_path, "b", ("ct", "pet"))
    people = PairedDataset("pairs", (one, other), IDS)
    asked = {"stage": "zero_shot", "model": "x", "bad_intensity": "warn", "progress": False}
    volumes = {}
    for label in ("own", "mr"):
        options = EvaluationOptions(label=label)
        for name, given in (("pair", PAIR), ("single", ("ct",))):
            scored = {"options": options, "modalities": given, **asked}
            cases = evaluate(model(*given), people, people.subjects, **scored)
            rows = on_grid(cases[cases.structure == "tumour"]).set_index("subject")
            volumes[label, name] = rows.volume_ref_ml.to_dict()
            told = "label_from_mr" if label == "mr" else ""
            assert rows.condition.to_dict() == {"a": told, "b": ""}
    count = {m: int((read_label(tmp_path / f"a_{m}_label.nii.gz").array > 0).sum()) for m in ("ct", "mr")}
    ml = {m: count[m] * GRIDS[m].voxel_ml for m in count}
    assert ml["ct"] != pytest.approx(ml["mr"], rel=0.1)
    for name in ("pair", "single"):
        assert volumes["own", name]["a"] == pytest.approx(ml["ct"])
        assert volumes["mr", name]["a"] == pytest.approx(ml["mr"])
        # without such a label, its own
        assert volumes["mr", name]["b"] == volumes["own", name]["b"]
    with pytest.raises(UserError, match=r"evaluation\.label"):
        EvaluationOptions(label="petct").validate()
