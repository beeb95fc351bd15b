"""Which scan leads: the reference, as the subjects' own order has it, in models, sessions and on cards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from umdseg import inference, load_backbone
from umdseg.backbones import Backbone
from umdseg.config.check import check
from umdseg.data.geometry import Grid, Volume
from umdseg.errors import UserError
from umdseg.fusion import Fused, build, load_fusion, save_fusion
from umdseg.fusion.late import LateFusion, LateOptions
from umdseg.fusion.saved import FILE, FusionCard
from umdseg.inference.together import open_together
from umdseg.runs.saved import with_fusion
from umdseg.vocabulary import UNITS, Modality, Prompt, Scan, Subject

ALL: tuple[Modality, ...] = ("ct", "pet", "mr")
GRIDS: dict[Modality, Grid] = {
    "pet": Grid((14, 12, 13), np.array([[-8.0, 0, 0, 52], [0, 8, 0, -44], [0, 0, 8, -48], [0, 0, 0, 1]])),
    "mr": Grid((20, 18, 16), np.array([[6.0, 0, 0, -57], [0, 6, 0, -51], [0, 0, 6, -45], [0, 0, 0, 1]])),
}


def tiny() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("vista3d_tiny", "random").eval()


def fused(reference: str, modalities: tuple[Modality, ...] = ALL) -> Fused:
    made = build(LateOptions(), tiny(), modalities, reference, ["liver"])
    assert isinstance(made, Fused)
    return made


@pytest.mark.parametrize(
    ("reference", "held", "lead"),
    [
        *(("ct", "ct pet mr", "ct"), ("ct", "pet mr", "mr"), ("ct", "ct pet", "ct"), ("ct", "pet", "pet")),
        *(("card", "ct pet mr", "ct"), ("card", "pet mr", "mr")),
        # as the sarcoma study: PET, then CT; CT beside MR goes by MR
        *(("pet", "ct pet mr", "pet"), ("pet", "ct mr", "ct"), ("pet", "ct pet", "pet")),
        *(("mr", "ct mr", "mr"), ("mr", "ct pet mr", "mr"), ("mr", "ct pet", "ct")),
    ],
)
def test_the_scan_that_leads_is_the_reference_of_the_subject(reference: str, held: str, lead: str) -> None:
    names: list[Modality] = [m for m in ALL if m in held.split()]
    subject = Subject("p", {m: Scan(Path(f"{m}.nii"), m, UNITS[m]) for m in names})
    assert subject.reference(reference) == lead
    model = fused(reference)
    assert model.part(names).leading == lead
    # of a batch, too: who has what is a mask there
    image = torch.rand(1, 3, 16, 16, 16)
    present = torch.tensor([[m in names for m in ALL]])
    column = ALL.index(lead)
    with torch.no_grad():
        got = model.decode(model.encode(image, present=present), [Prompt("liver")])
        alone = model.inner.encode(image[:, column : column + 1])
        torch.testing.assert_close(got, model.inner.decode(alone, [Prompt("liver")]))


def test_without_ct_a_session_starts_from_mr_on_its_lattice() -> None:
    rng = np.random.default_rng(0)
    arrays = {m: rng.normal(50, 20, grid.shape).astype(np.float32) for m, grid in GRIDS.items()}
    volumes = {m: Volume(array, GRIDS[m]) for m, array in arrays.items()}
    model = fused("ct").part(["pet", "mr"])
    asked = [Prompt("liver"), Prompt("spleen")]

    def logits(session: inference.VolumeSession) -> torch.Tensor:
        session.prompt(asked)
        slabs = [part for _, part in session.scores(["liver", "spleen"], GRIDS["mr"])]
        return torch.cat([slab.float() for slab in slabs], dim=-1)

    together = logits(open_together(model, volumes, precision="fp32"))
    mr, pet = (logits(inference.open(model.inner, volumes[m], m, precision="fp32")) for m in ("mr", "pet"))
    torch.testing.assert_close(together, mr, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, pet, atol=1e-2)


@torch.no_grad()
def test_a_saved_fusion_leads_as_it_was_trained(tmp_path: Path) -> None:
    # as fusions were made before their cards named an order: the reference, then as the modalities stand
    older = LateFusion(tiny(), LateOptions(), ALL, ALL, ["liver"])
    older.parts["weights"].copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))  # type: ignore[index]
    save_fusion(older, tmp_path / "fusion")
    facts = json.loads((tmp_path / "fusion" / FILE).read_text())
    assert facts.pop("order") == ["ct", "pet", "mr"]
    (tmp_path / "fusion" / FILE).write_text(json.dumps(facts))
    again = load_fusion(tmp_path / "fusion", tiny())
    assert again.part(["pet", "mr"]).leading == "pet"
    # liver, by definition: CT, a tenth of the way to PET and three tenths to MR
    image = torch.rand(1, 3, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    ct, pet, mr = (
        again.inner.decode(again.inner.encode(image[:, c : c + 1]), [Prompt("liver")]) for c in range(3)
    )
    got = again.decode(again.encode(image), [Prompt("liver")])
    torch.testing.assert_close(got, ct + 0.1 * (pet - ct) + 0.3 * (mr - ct), rtol=1e-4, atol=1e-5)
    # the next save names what it is
    save_fusion(again, tmp_path / "fusion")
    assert FusionCard.read(tmp_path / "fusion").order == ["ct", "pet", "mr"]


def test_new_cards_name_the_order(tmp_path: Path) -> None:
    save_fusion(fused("ct"), tmp_path / "fusion")
    card = FusionCard.read(tmp_path / "fusion")
    assert (card.modalities, card.order) == (["ct", "pet", "mr"], ["ct", "mr", "pet"])
    assert load_fusion(tmp_path / "fusion", tiny()).part(["pet", "mr"]).leading == "mr"


def test_an_option_that_no_fusion_has_is_refused_and_a_missing_one_is_its_default(tmp_path: Path) -> None:
    folder = tmp_path / "fusion"
    save_fusion(fused("ct"), folder)
    facts = json.loads((folder / FILE).read_text())
    del facts["options"]["dropout"]
    (folder / FILE).write_text(json.dumps(facts))
    assert load_fusion(folder, tiny()).options.dropout == 0.25
    (folder / FILE).write_text(json.dumps(facts | {"options": {"drop_out": 0.5}}))
    with pytest.raises(UserError, match=r"(?s)'late'.*'drop_out'.*fusion.*did you mean: dropout"):
        load_fusion(folder, tiny())
    with pytest.raises(UserError, match="'drop_out'"):
        with_fusion(check("evaluate", [f"fusion.path={folder}", "model=vista3d_tiny"]))


def test_an_order_of_other_modalities_is_refused() -> None:
    with pytest.raises(UserError, match="each of its modalities once"):
        LateFusion(tiny(), LateOptions(), ["ct", "pet"], ["ct", "mr"])
