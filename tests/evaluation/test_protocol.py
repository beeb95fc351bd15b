"""Whole-case evaluation of a model whose answers are known: it reads the structure off the intensity."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from umdseg import inference
from umdseg.data.dataset import PairedDataset
from umdseg.data.geometry import Grid, Volume, resample
from umdseg.data.io.nifti import read_label, write_volume
from umdseg.errors import UserError
from umdseg.evaluation import EvaluationOptions, gap, read_cases, summarise
from umdseg.evaluation.baselines import evaluate_baselines
from umdseg.evaluation.callback import EvaluationCallback
from umdseg.evaluation.cases import on_grid
from umdseg.evaluation.predictions import keep_predictions, median_subjects
from umdseg.evaluation.protocol import evaluate
from umdseg.evaluation.references import first_clicks, read_references
from umdseg.evaluation.scans import SCANS, read_scans
from umdseg.vocabulary import UNITS, Origin, Scan, Subject

STRUCTURES = {"liver": 5, "tumour": 2}
BOXES = {"liver": ((-30, -20, -20), (10, 20, 20)), "tumour": ((16, -8, -12), (32, 8, 4))}
GRIDS = {
    "ct": Grid((40, 30, 30), np.array([[2.0, 0, 0, -39], [0, 2, 0, -29], [0, 0, 2, -29], [0, 0, 0, 1]])),
    # stored left-posterior, coarser and shifted: only millimetres can match it with the CT
    "pet": Grid((20, 15, 15), np.array([[-4.0, 0, 0, 38], [0, -4, 0, 28], [0, 0, 4, -28], [0, 0, 0, 1]])),
}


def labels(grid: Grid, without: tuple[str, ...] = ()) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1).reshape(-1, 3)
    world = grid.to_world(index)
    array = np.zeros(grid.shape, np.int16)
    for name, (low, high) in BOXES.items():
        if name not in without:
            array[((world >= low) & (world <= high)).all(axis=1).reshape(grid.shape)] = STRUCTURES[name]
    return array


def subject(folder: Path, name: str, modalities=("ct", "pet"), without=(), split="test") -> Subject:
    scans = {}
    for m in modalities:
        truth = labels(GRIDS[m], without)
        noise = np.random.default_rng(len(name)).normal(0, 0.1, truth.shape)
        image, label = folder / f"{name}_{m}.nii.gz", folder / f"{name}_{m}_label.nii.gz"
        write_volume(Volume((truth * 10 + noise).astype(np.float32), GRIDS[m]), image)
        write_volume(Volume(truth, GRIDS[m]), label)
        scans[m] = Scan(image, m, UNITS[m], label)
    return Subject(name, scans, split=split, site="A")


class Reader(nn.Module):
    """Stands in for a backbone; `pet_share` of PET slices are seen, the CT fully."""

    adapter = None
    takes = ()
    new_structures: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, known=("liver", "tumour"), prompts=("auto", "point")) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.card = SimpleNamespace(prompts=prompts)
        self.known = known
        self.pet_share = 0.5

    def knows(self, structure: str) -> bool:
        return structure in self.known

    def routed(self, modality: str) -> AbstractContextManager[None]:
        return nullcontext()


class Session:
    """Positive logits where the intensity is the structure's; a click must hit it."""

    def __init__(self, backbone: Reader, volume: Volume, modality: str) -> None:
        assert not backbone.training
        self.volume, self.native, self.prompts = volume, volume.grid, {}
        keep = 1.0 if Origin.of(modality).modality == "ct" else backbone.pet_share
        self.seen = np.arange(volume.grid.shape[2]) < round(keep * volume.grid.shape[2])

    def prompt(self, prompts) -> None:
        self.prompts.update({p.structure: p for p in prompts})

    def undo(self) -> None: ...

    def scores(self, structures, grid=None):
        grid = grid or self.native
        planes = []
        for name in structures:
            mask = np.abs(self.volume.array - 10 * STRUCTURES[name]) < 2
            prompt = self.prompts[name]
            if prompt.kind == "point":
                index = np.round(self.volume.grid.to_index(np.array(prompt.points))[0]).astype(int)
                mask = mask if mask[tuple(index)] else np.zeros_like(mask)
            planes.append(np.where(mask & self.seen, 4.0, -4.0).astype(np.float32))
        logits = resample(torch.from_numpy(np.stack(planes)), self.volume.grid, grid)
        for start in range(0, grid.shape[2], 7):
            part = slice(start, min(start + 7, grid.shape[2]))
            yield part, logits[..., part]


@pytest.fixture
def reader(monkeypatch) -> Reader:
    monkeypatch.setattr(inference, "open", lambda b, scan, modality=None, **_: Session(b, scan, modality))
    return Reader()


def run(reader, dataset, **more):
    options = more.pop("options", EvaluationOptions())
    arguments = {
        "stage": "zero_shot",
        "model": "reader",
        "modalities": ("ct", "pet", "mr"),
        "progress": False,
        # intensities here are ids times ten, no HU and no SUV
        "bad_intensity": "warn",
    }
    return evaluate(reader, dataset, dataset.subjects, options=options, **{**arguments, **more})


def dataset(*subjects: Subject) -> PairedDataset:
    return PairedDataset("cubes", subjects, STRUCTURES)


def by(cases, *keys):
    """The rows on the labels' grids; tests/evaluation/test_common_grid.py looks at the others."""
    return on_grid(cases).set_index(list(keys)).sort_index()


def test_known_answers_get_their_known_scores(reader, tmp_path) -> None:
    cases = run(reader, dataset(subject(tmp_path, "a")), prompts=("auto", "point"))
    found = by(cases, "modality", "prompt", "structure")
    for prompt in ("auto", "point"):
        assert found.dice["ct", prompt, "liver"] == 1.0
        # the lower 7 or 8 of 15 slices (4 mm from -28 mm) are seen: z up to 0 mm
        truth = labels(GRIDS["pet"]) == STRUCTURES["liver"]
        seen = truth[..., :8].sum()
        assert found.dice["pet", prompt, "liver"] == pytest.approx(2 * seen / (truth.sum() + seen))
    # PET voxel centres in the tumour's box: x 18, 22, 26, 30; y -8 ... 8; z -12 ... 4, at 4 mm each
    assert found.volume_ref_ml["pet", "auto", "tumour"] == pytest.approx(4 * 5 * 5 * 4**3 / 1000)
    # CT, at 2 mm: x 17 ... 31, y -7 ... 7, z -11 ... 3
    assert found.volume_ref_ml["ct", "auto", "tumour"] == pytest.approx(8 * 8 * 8 * 2**3 / 1000)
    assert set(cases[cases.modality != "mr"].status) == {"ok"}
    assert (cases.loc[cases.status == "ok", ["seconds", "peak_gb"]] > 0).all(axis=None)


def test_what_cannot_be_scored_says_why(reader, tmp_path) -> None:
    reader.known = ("liver",)
    a, b = subject(tmp_path, "a", ("ct",)), subject(tmp_path, "bb", without=("tumour",))
    cases = run(reader, dataset(a, b), prompts=("auto", "point"), modalities=("ct", "pet"))
    status = by(cases, "subject", "modality", "prompt", "structure").status
    assert status["a", "pet", "auto", "liver"] == "modality_absent"
    assert status["a", "ct", "auto", "tumour"] == "class_unknown"
    assert status["a", "ct", "point", "tumour"] == "ok"
    assert status["bb", "ct", "point", "tumour"] == "empty_reference"
    assert cases.loc[cases.status != "ok", ["dice", "nsd", "hd95", "assd"]].isna().all(axis=None)
    reader.card.prompts = ("auto",)
    assert set(run(reader, dataset(b), prompts=("point",), modalities=("ct",)).status) == {
        "prompt_unsupported"
    }


def test_words_are_asked_like_classes_and_need_no_click(reader, tmp_path) -> None:
    reader.card.prompts = ("text",)
    cases = run(reader, dataset(subject(tmp_path, "a")), prompts=("text",), modalities=("ct",))
    assert list(cases.dice) == [1.0, 1.0]
    assert list(cases.clicks) == [0, 0]


def test_the_same_click_lies_inside_the_structure_in_every_scan(tmp_path) -> None:
    one = subject(tmp_path, "a")
    references = read_references(one, dataset(one))
    clicks = first_clicks(references, one.reference(), STRUCTURES)
    for name, label in STRUCTURES.items():
        for reference in references.values():
            index = np.round(reference.grid.to_index(np.array([clicks[name].point]))[0]).astype(int)
            assert reference.array[tuple(index)] == label
        assert clicks[name].condition == ""
    # the deepest place of a box is its middle
    assert clicks["liver"].point == pytest.approx((-10, 0, 0), abs=2.1)


def test_masks_that_do_not_meet_fall_back_to_the_reference_and_say_so(tmp_path) -> None:
    one = subject(tmp_path, "a")
    references = read_references(one, dataset(one))
    moved = np.zeros_like(references["pet"].array)
    moved[0, 0, 0] = STRUCTURES["tumour"]
    clicks = first_clicks({**references, "pet": Volume(moved, GRIDS["pet"])}, "ct", STRUCTURES)
    assert clicks["tumour"].condition == "click_from_ct"


def test_predictions_are_saved_on_the_scans_own_grid_with_the_datasets_ids(reader, tmp_path) -> None:
    people = [subject(tmp_path, n) for n in ("a", "bb", "ccc")]
    cases = run(reader, dataset(*people), prompts=("auto", "point"), save_to=tmp_path / "predictions")
    for prompt in ("auto", "point"):
        saved = read_label(tmp_path / "predictions" / "a" / f"ct__zero_shot__{prompt}.nii.gz", GRIDS["ct"])
        np.testing.assert_array_equal(saved.array, labels(GRIDS["ct"]))
    chosen = median_subjects(cases, 1)
    keep_predictions(tmp_path / "predictions", chosen)
    assert [p.name for p in (tmp_path / "predictions").iterdir()] == chosen


def shared(one: Subject) -> Subject:
    """The same subject with the CT's label on the PET row, too."""
    pet = replace(one.scans["pet"], label=one.scans["ct"].label)
    return replace(one, scans={**one.scans, "pet": pet})


def test_a_label_shared_by_the_pair_scores_pet_on_the_cts_grid(reader, tmp_path) -> None:
    reader.pet_share = 1.0
    one = shared(subject(tmp_path, "a"))
    cases = run(reader, dataset(one), prompts=("auto", "point"), save_to=tmp_path / "predictions")
    found = by(cases[cases.modality == "pet"], "prompt", "structure")
    assert set(found.status) == {"ok"}
    for prompt in ("auto", "point"):
        # the volume of the CT's voxels, not of the PET's (6.4 ml)
        assert found.volume_ref_ml[prompt, "tumour"] == pytest.approx(8 * 8 * 8 * 2**3 / 1000)
        assert found.dice[prompt, "liver"] > 0.85
        saved = tmp_path / "predictions" / "a" / f"pet__zero_shot__{prompt}.nii.gz"
        np.testing.assert_array_equal(read_label(saved, GRIDS["pet"]).array, labels(GRIDS["pet"]))


def test_baselines_take_a_label_shared_by_the_pair(tmp_path) -> None:
    train, test = shared(subject(tmp_path, "t", split="train")), shared(subject(tmp_path, "vv"))
    options = EvaluationOptions(baselines=["intensity", "pet_threshold_41"])
    arguments = {"options": options, "modalities": ("pet",), "prompts": ("auto", "point"), "progress": False}
    cases = evaluate_baselines(dataset(train, test), [train], [test], fold=1, shots=4, **arguments)
    assert cases.loc[cases.model == "intensity", "dice"].min() > 0.7
    assert set(cases.volume_ref_ml[cases.structure == "tumour"].round(6)) == {4.096}
    assert (set(cases.fold), set(cases.shots)) == ({1}, {4})


def test_a_flipped_label_is_not_taken_for_a_shared_one(tmp_path) -> None:
    one = subject(tmp_path, "a")
    label = one.scans["pet"].label
    flipped = GRIDS["pet"].affine @ np.diag([-1.0, 1, 1, 1])
    write_volume(Volume(labels(GRIDS["pet"]), Grid(GRIDS["pet"].shape, flipped)), label)
    with pytest.raises(UserError, match="another grid than its image") as caught:
        read_references(one, dataset(one))
    assert str(label) in str(caught.value)


def test_a_scan_without_a_label_is_predicted_and_its_rows_say_so(reader, tmp_path) -> None:
    one = subject(tmp_path, "a")
    bare = replace(one, scans={**one.scans, "pet": replace(one.scans["pet"], label=None)})
    cases = run(reader, dataset(bare), prompts=("auto", "point"), save_to=tmp_path / "predictions")
    pet = cases[cases.modality == "pet"]
    assert set(pet.score_grid) == {"label", "common"}
    assert set(zip(pet.status, pet.condition, strict=True)) == {("empty_reference", "no_label")}
    assert len(on_grid(pet)) == 4
    assert pet.dice.isna().all()
    for prompt in ("auto", "point"):
        saved = tmp_path / "predictions" / "a" / f"pet__zero_shot__{prompt}.nii.gz"
        array, truth = read_label(saved, GRIDS["pet"]).array, labels(GRIDS["pet"])
        np.testing.assert_array_equal(array[..., :8], truth[..., :8])
        assert not array[..., 8:].any()


def partly(one: Subject, *told: str) -> Subject:
    """The same scans, with labels that hold and tell about some of the structures only."""
    for m, scan in one.scans.items():
        without = tuple(name for name in STRUCTURES if name not in told)
        write_volume(Volume(labels(GRIDS[m], without), GRIDS[m]), scan.label)
    return replace(one, annotated=told)


def test_what_labels_do_not_tell_about_is_neither_right_nor_wrong(reader, tmp_path) -> None:
    full, one = subject(tmp_path, "bb"), partly(subject(tmp_path, "a"), "liver")
    told = {"prompts": ("auto", "point"), "modalities": ("ct", "pet"), "save_to": tmp_path / "predictions"}
    cases = run(reader, dataset(one, full), **told)
    found = cases[(cases.subject == "a") & (cases.structure == "tumour")]
    assert set(found.status) == {"not_annotated"}
    assert found.groupby(["modality", "prompt", "score_grid"]).size().tolist() == [1] * 8
    numbers = ["dice", "volume_ref_ml", "volume_pred_ml", "fp_ml", "fn_ml"]
    assert found[numbers].isna().all(axis=None), "a tumour found there is no false positive"
    # the model was asked as ever, so the saved map holds what it found; the picture shows what was scored
    saved = read_label(tmp_path / "predictions" / "a" / "ct__zero_shot__auto.nii.gz", GRIDS["ct"])
    np.testing.assert_array_equal(saved.array, labels(GRIDS["ct"]))
    index = json.loads((tmp_path / "predictions" / "a" / "overlays.json").read_text())
    assert index["structures"] == {"liver": STRUCTURES["liver"]}
    # the other structure, and the other subject, as if nothing were missing
    rest = by(cases[cases.status == "ok"], "subject", "modality", "prompt", "structure").dice
    assert rest["a"].to_dict() == rest["bb"].drop("tumour", level="structure").to_dict()
    # no mean knows of it: the macro means are those of liver and tumour of one, of the liver of the other
    means = summarise(cases, n_resamples=100).set_index(["structure", "modality", "prompt"])
    pet = rest["bb", "pet", "auto"]
    assert means["mean"]["macro", "pet", "auto"] == pytest.approx((pet["liver"] + pet.mean()) / 2)
    assert means["n_subjects"]["tumour", "pet", "auto"] == 1
    (entry,) = [e for e in gap(cases, 100)["gaps"] if e["prompt"] == "auto"]
    assert entry["gap"] == pytest.approx(1 - (pet["liver"] + pet.mean()) / 2)
    # what is left is a tumour that nobody outlined, and another subject's CT
    left = (cases.structure == "tumour") & ((cases.subject == "a") | (cases.modality == "ct"))
    (alone,) = [e for e in gap(cases[left], 100)["gaps"] if e["prompt"] == "auto"]
    assert alone["gap"] is None
    assert "zero_shot ct: not_annotated; zero_shot pet: not_annotated" in alone["reason"]


def test_a_subject_whose_labels_tell_of_nothing_asked_is_not_predicted(reader, tmp_path, monkeypatch) -> None:
    one = partly(subject(tmp_path, "a"), "liver")
    bare = replace(one, id="b", scans={"ct": replace(one.scans["ct"], label=None)})
    reader.card.prompts = ("auto",)
    reader.known = ()
    monkeypatch.setattr(inference, "open", None)
    cases = run(
        reader, dataset(one, bare), structures=["tumour"], prompts=("auto", "box"), modalities=("ct",)
    )
    # whatever the model knows: it is the labels that are silent
    assert set(cases[cases.subject == "a"].status) == {"not_annotated"}
    assert set(cases[cases.subject == "b"].condition) == {"no_label"}


def test_baselines_are_not_asked_what_labels_do_not_tell_about(tmp_path) -> None:
    train, one = subject(tmp_path, "t", split="train"), partly(subject(tmp_path, "vv"), "liver")
    options = EvaluationOptions(baselines=["intensity", "pet_threshold_41"])
    arguments = {"options": options, "modalities": ("pet",), "prompts": ("auto", "point"), "progress": False}
    cases = on_grid(evaluate_baselines(dataset(train, one), [train], [one], **arguments))
    found = cases.set_index(["model", "prompt", "structure"]).sort_index()
    assert found.status["intensity", "auto", "liver"] == "ok"
    unknown = found.xs("tumour", level="structure")
    assert sorted(unknown.index) == [
        ("intensity", "auto"),
        ("pet_threshold_41", "auto"),
        ("pet_threshold_41", "point"),
    ]
    assert set(unknown.status) == {"not_annotated"}
    assert unknown[["dice", "volume_pred_ml"]].isna().all(axis=None)


def test_fold_and_shots_stand_in_every_row_and_nothing_where_there_are_none(reader, tmp_path) -> None:
    one = dataset(subject(tmp_path, "a"))
    cases = run(reader, one, fold=2, shots=5)
    assert (set(cases.fold), set(cases.shots)) == ({2}, {5})
    assert run(reader, one)[["fold", "shots"]].isna().all(axis=None)


def test_rows_say_which_patient_a_study_is_of(reader, tmp_path) -> None:
    one, two = subject(tmp_path, "a"), replace(subject(tmp_path, "bb"), patient="person")
    cases = run(reader, dataset(one, two))
    assert dict(zip(cases.subject, cases.patient, strict=True)) == {"a": "a", "bb": "person"}


def test_the_median_subject_is_neither_the_best_nor_the_worst(reader, tmp_path) -> None:
    cases = run(reader, dataset(*(subject(tmp_path, n) for n in ("a", "bb", "ccc"))))
    cases.loc[cases.status == "ok", "dice"] = cases.subject.map({"a": 0.9, "bb": 0.1, "ccc": 0.5})
    assert median_subjects(cases, 1) == ["ccc"]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"overlap": 1.0}, "evaluation.overlap"),
        ({"overlap": float("nan")}, "evaluation.overlap"),
        ({"metrics": []}, "evaluation.metrics"),
        ({"metrics": ["dise"]}, "evaluation.metrics"),
        ({"metrics": ["nsd", "nsd"]}, "evaluation.metrics"),
        ({"baselines": ["intensity", "intensity"]}, "evaluation.baselines"),
        ({"box_margin_mm": float("nan")}, "evaluation.box_margin_mm"),
        ({"precision": "fp8"}, "evaluation.precision"),
        ({"tolerance_mm": 0.0}, "evaluation.tolerance_mm"),
        ({"overlay_subjects": -1}, "evaluation.overlay_subjects"),
        ({"bootstrap": 99}, "evaluation.bootstrap"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, where: str) -> None:
    EvaluationOptions(overlap=0.0).validate()
    with pytest.raises(UserError) as caught:
        EvaluationOptions(**options).validate()
    assert caught.value.where == where


def test_a_modality_named_twice_is_refused(reader, tmp_path) -> None:
    with pytest.raises(UserError, match="'ct' is named twice"):
        run(reader, dataset(subject(tmp_path, "a")), modalities=("ct", "pet", "ct"))


def test_training_modes_survive(reader, tmp_path) -> None:
    reader.frozen = nn.Dropout()
    reader.train()
    reader.frozen.eval()
    run(reader, dataset(subject(tmp_path, "a")))
    assert reader.training
    assert not reader.frozen.training


def test_a_deleted_label_is_one_clear_error(reader, tmp_path) -> None:
    one = subject(tmp_path, "a")
    one.scans["pet"].label.unlink()
    with pytest.raises(UserError, match="a_pet_label"):
        run(reader, dataset(one))


def test_callback_measures_before_and_after_and_logs_it(reader, tmp_path) -> None:
    import lightning
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = reader

        def training_step(self, batch, _):
            self.backbone.pet_share = 1.0  # "learned"
            return (self.backbone.weight * batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    people = [subject(tmp_path, n) for n in ("a", "bb", "ccc")]
    options = EvaluationOptions(bootstrap=100)
    callback = EvaluationCallback(
        *(dataset(*people), people, options, tmp_path / "run"),
        model="reader",
        adapter="lora",
        modalities=("ct", "pet"),
        bad_intensity="warn",
    )
    logger = CSVLogger(tmp_path, name="", version="logs")
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_steps=1, logger=logger, callbacks=[callback], accelerator="cpu", **quiet)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(2, 1)))
    cases = read_cases(tmp_path / "run")
    assert on_grid(cases).groupby("stage").size().to_dict() == {"zero_shot": 12, "adapted": 12}
    assert set(cases[cases.stage == "adapted"].adapter) == {"lora"}
    log = (tmp_path / "logs" / "metrics.csv").read_text()
    for name in (
        "zero_shot/dice/pet",
        "adapted/dice/ct",
        "gap/dice/ct-pet/zero_shot",
        "forgetting/dice/ct-pet",
    ):
        assert name in log
    assert gap(cases)["gaps"][1]["gap"] == pytest.approx(0.0)


def test_intensity_baseline_reads_what_intensity_alone_tells(tmp_path) -> None:
    train, test = subject(tmp_path, "t", split="train"), subject(tmp_path, "vv")
    data = dataset(train, test)
    options = EvaluationOptions(baselines=["intensity", "pet_threshold_30", "pet_threshold_41"])
    cases = evaluate_baselines(
        data,
        [train],
        [test],
        options=options,
        modalities=("ct", "pet"),
        prompts=("auto", "point"),
        progress=False,
    )
    found = by(cases, "model", "modality", "prompt", "structure").dice
    # intensities 20 and 50 with a noise of 0.1 leave nothing to confuse
    assert found["intensity", "pet", "auto", "liver"] > 0.99
    assert found["intensity", "ct", "auto", "tumour"] > 0.99
    # 30 % of 50 keeps tumour and liver, 41 % (20.5) only the liver; the click keeps the tumour alone
    sizes = {n: (labels(GRIDS["pet"]) == i).sum() for n, i in STRUCTURES.items()}
    both = 2 * sizes["tumour"] / (2 * sizes["tumour"] + sizes["liver"])
    assert found["pet_threshold_30", "pet", "auto", "tumour"] == pytest.approx(both)
    assert found["pet_threshold_30", "pet", "point", "tumour"] == 1.0
    assert found["pet_threshold_41", "pet", "auto", "tumour"] == 0.0
    assert ("pet_threshold_30", "ct") not in {k[:2] for k in found.index}


def processes(rank: int, world: int) -> SimpleNamespace:
    strategy = SimpleNamespace(barrier=lambda name: None)
    flags = {"is_global_zero": rank == 0, "loggers": [], "global_step": 0}
    return SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy, **flags)


def test_processes_share_the_subjects_and_the_first_one_joins_the_parts(reader, tmp_path) -> None:
    people = [subject(tmp_path, n) for n in ("a", "bb", "ccc")]
    module = SimpleNamespace(backbone=reader)
    options = EvaluationOptions(bootstrap=100)
    arguments = {"model": "reader", "adapter": "lora", "modalities": ("ct", "pet"), "save_predictions": False}
    arguments["bad_intensity"] = "warn"

    def measure(folder: Path, world: int):
        # the first process comes last: it waits for the others at the barrier
        for rank in reversed(range(world)):
            callback = EvaluationCallback(dataset(*people), people, options, folder, **arguments)
            callback.on_fit_start(processes(rank, world), module)
        measured = ["subject", "modality", "structure", "score_grid"]
        return read_cases(folder).sort_values(measured)[[*measured, "dice", "status"]].reset_index(drop=True)

    alone, together = measure(tmp_path / "one", 1), measure(tmp_path / "two", 2)
    assert len(alone) == 24
    assert alone.equals(together)
    one, two = (read_scans(tmp_path / name / SCANS) for name in ("one", "two"))
    assert len(one) == 6
    assert sorted(map(str, one)) == sorted(map(str, two))
    assert not (tmp_path / "two" / "parts").exists()


def test_a_zero_shot_table_made_before_is_reused(reader, tmp_path) -> None:
    one = subject(tmp_path, "a")
    arguments = {"model": "reader", "adapter": "lora", "modalities": ("ct", "pet"), "bad_intensity": "warn"}
    first = EvaluationCallback(dataset(one), [one], EvaluationOptions(), tmp_path / "run", **arguments)
    first.on_fit_start(processes(0, 1), SimpleNamespace(backbone=reader))
    again = EvaluationCallback(
        *(dataset(one), [one], EvaluationOptions(), tmp_path / "new"),
        **{"reuse": tmp_path / "run", "fold": 1, "shots": 3, **arguments},
    )
    for scan in one.scans.values():
        scan.image.unlink()  # nothing can be measured any more
    again.on_fit_start(processes(0, 1), SimpleNamespace(backbone=reader))
    own = ["fold", "shots"]
    assert again.cases.drop(columns=own).equals(first.cases.drop(columns=own))
    # the rows are the new run's: it may train on other subjects
    assert again.cases[own].drop_duplicates().to_numpy().tolist() == [[1, 3]]


def test_baselines_answer_to_the_same_label_as_the_models(tmp_path: Path) -> None:
    one = subject(tmp_path, "a")
    dataset = PairedDataset("boxes", (one,), STRUCTURES)
    rows = {}
    for label in ("own", "ct"):
        options = EvaluationOptions(baselines=["pet_threshold_41"], label=label)
        cases = on_grid(evaluate_baselines(dataset, [], [one], options=options, progress=False))
        (rows[label],) = cases.to_dict("records")
    assert (rows["own"]["condition"], rows["ct"]["condition"]) == ("", "label_from_ct")
    for label, modality in (("own", "pet"), ("ct", "ct")):
        count = (read_label(one.scans[modality].label).array == STRUCTURES["tumour"]).sum()
        assert rows[label]["volume_ref_ml"] == pytest.approx(count * GRIDS[modality].voxel_ml)
