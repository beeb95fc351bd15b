"""A model on a phantom, as is and distorted: a wrong card told apart from a weak model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from umdseg import inference
from umdseg.backbones import Backbone, Card
from umdseg.data.geometry import Grid, Volume, reoriented
from umdseg.data.verdict import Finding
from umdseg.progress import track
from umdseg.vocabulary import Modality, Prompt, PromptKind

# organs of the trunk, most of them on one side
ORGANS = ("liver", "spleen", "kidney_left", "kidney_right", "stomach", "heart", "aorta", "pancreas")
# where each organ takes a pass of its own
PROMPTED = ORGANS[:3]
# subject, edge of its cubic voxels in mm, voxels kept above and below the organs
SEED, SPACING, MARGIN = 7, 6.0, 5
# mean Dice that leaves no doubt about the card
GOOD = 0.75
# what a distorted copy has to reach, and by how much it has to be better, for the card to be wrong
LEAST, BETTER = 0.4, 0.2
# orders in which the same voxels are stored, and by how much resampling may change the answer
STORED, NOISE = ("PRI", "SAL"), 0.05
# windows in use on CT (HU): abdomen, VISTA3D, wide, bone, lung
WINDOWS = ((-160, 240), (-963, 1053), (-1000, 1000), (-500, 1300), (-1350, 150))
# CT stored without its offset, or with it twice
SHIFTS = (1024, -1024)
FACTORS = (0.1, 0.5, 2.0, 10.0)
_ASKED = {
    **{"auto": "class", "auto_point": "class and clicks", "point": "clicks", "clicks": "clicks"},
    **{"box": "boxes", "text": "text", "lasso": "lassos", "scribble": "scribbles"},
}


@dataclass(frozen=True)
class Case:
    """A scan with its reference.

    Attributes:
        image: in the scan's units; cubic voxels, axes RAS.
        label: (X, Y, Z) on the same grid; value = 1 + position in `names`.
        names: organs.
        modality: ct, pet or mr.
        kind: how the model is asked for them.
    """

    image: Volume
    label: NDArray[np.int16]
    names: tuple[str, ...]
    modality: Modality
    kind: PromptKind


def probe(backbone: Backbone, precision: str = "auto") -> list[Finding]:
    """Look for a wrong orientation or a wrong intensity scale on the card of a model.

    A phantom is segmented as it is, and stored in other axis orders, which must change nothing. Where that
    is not good, also with its voxels mirrored and swapped while the affine keeps silent, and with its values
    shifted, rescaled and clipped. A trained network under a right card does best on the phantom as it is;
    under a wrong card, on the copy that makes up for the mistake; a weak one does badly on all.

    Args:
        backbone: in eval mode.
        precision: auto, fp32 or bf16.

    Returns:
        One finding: `pass`; `warn` for a model that is weak on the phantom, shares no organ with it, has
        random weights, takes several scans of one person, or depends on how scans are stored as its authors
        mean it to; `refuse` for a card, or a session, that is wrong.
    """
    name = backbone.card.name
    if backbone.takes:
        what = f"not probed: {name} takes {' and '.join(backbone.takes)} of one person together"
        return [Finding("warn", what, "--probe", "a model that takes one scan at a time")]
    case = phantom(backbone)
    plain = dice(backbone, case, precision) if case.names else 0.0
    silent = _silent(backbone, case, plain)
    if silent is not None:
        return [silent]
    stored = {codes: dice(backbone, as_stored(case, codes), precision) for codes in STORED}
    codes = max(stored, key=lambda key: abs(stored[key] - plain))
    said = f"{case.modality} phantom, mean Dice of {len(case.names)} organs: {plain:.2f}"
    if abs(stored[codes] - plain) > NOISE:
        what = f"{said} stored as RAS, but {stored[codes]:.2f} with the same voxels stored as {codes}"
        if _as_stored_by_design(backbone):
            what += "; the authors give the network scans as they are stored, so its results depend on that"
            return [Finding("warn", what, name, "scans stored as those the network was trained on")]
        return [Finding("refuse", what, name, "an answer that follows the affine")]
    if plain >= GOOD:
        return [Finding("pass", f"{said}, however it is stored", name)]
    turned, scaled = _distorted(backbone, case, precision)
    return [_judge(backbone.card, case, plain, turned, scaled)]


def _silent(backbone: Backbone, case: Case, plain: float) -> Finding | None:
    """Why nothing can be said of the card: no organ in common, or random weights; None: something can."""
    name = backbone.card.name
    if not case.names:
        what = f"{name} knows no organ of the phantom by class: nothing to probe"
        return Finding("warn", what, "--probe", f"one of {', '.join(ORGANS)}")
    if backbone.random_weights:
        what = (
            f"random weights: the model ran on a {case.modality} phantom, asked by {_ASKED[case.kind]}; its "
        )
        what += f"answer (mean Dice {plain:.2f} of {len(case.names)} organs) says nothing about the card"
        return Finding("warn", what, name, "trained weights")
    return None


def _as_stored_by_design(backbone: Backbone) -> bool:
    """Whether the model's own loop turns no scan: nnInteractive, and nnU-Net without an orientation."""
    from umdseg.backbones.nninteractive.backbone import Nninteractive
    from umdseg.backbones.nnunet.backbone import Nnunet

    plain = isinstance(backbone, Nnunet) and backbone.forced is None
    return plain or isinstance(backbone, Nninteractive)


def phantom(backbone: Backbone) -> Case:
    """The trunk of one phantom, with the organs that the model can be asked for.

    A modality that the weights have seen, CT where possible; by class where the model has classes, else by a
    click at each organ's deepest voxel or a box around it.
    """
    from umdseg.data.phantom.imaging import Scanner
    from umdseg.data.phantom.subject import STRUCTURES, render

    card, cube = backbone.card, (SPACING, SPACING, SPACING)
    seen = card.trained_on or tuple(card.intensity)
    modality: Modality = "ct" if "ct" in seen else seen[0]
    scanner = Scanner(ct_spacing=cube, pet_spacing=cube, mr_spacing=cube)
    image, label = render(SEED, modality, scanner)
    kind = next(k for k in ("auto", "point", "clicks", "box", *card.prompts) if k in card.prompts)
    names = tuple(name for name in (ORGANS if kind == "auto" else PROMPTED) if backbone.knows(name))
    wanted = np.zeros(label.array.shape, np.int16)
    for value, name in enumerate(names, 1):
        wanted[label.array == STRUCTURES[name]] = value
    trunk = np.isin(label.array, [STRUCTURES[name] for name in ORGANS])
    levels = np.flatnonzero(trunk.any(axis=(0, 1)))
    low, high = max(int(levels[0]) - MARGIN, 0), min(int(levels[-1]) + 1 + MARGIN, trunk.shape[2])
    part = Volume(image.array[..., low:high].astype(np.float32), image.grid.slab(low, high))
    return Case(part, wanted[..., low:high], names, modality, kind)


def dice(backbone: Backbone, case: Case, precision: str = "auto") -> float:
    """Mean Dice over the organs of a case."""
    session = inference.open(backbone, case.image, case.modality, precision=precision)
    if case.kind != "auto":
        session.prompt([_prompt(case, value) for value in range(1, len(case.names) + 1)])
    found = inference.label_map(session, case.names)
    scores = []
    for value in range(1, len(case.names) + 1):
        ours, theirs = found == value, case.label == value
        scores.append(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    return float(np.mean(scores))


def as_stored(case: Case, codes: str) -> Case:
    """The same patient, the voxels stored with their axes along `codes`; the affine says so."""
    grid = reoriented(case.image.grid, codes)
    return replace(
        case,
        image=Volume(_ordered(case.image.array, codes), grid),
        label=_ordered(case.label, codes).astype(np.int16),
    )


def as_mistaken(case: Case, codes: str) -> Case:
    """The voxels stored with their axes along `codes` under an affine that says RAS: another patient."""
    moved = as_stored(case, codes)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = case.image.grid.affine[:3, 3]
    return replace(moved, image=Volume(moved.image.array, Grid(moved.image.grid.shape, affine)))


def orientations() -> Iterator[str]:
    """Axis codes, RAS left out: every mirroring of RAS and of SAR, the other orders unmirrored."""
    for order in permutations("RAS"):
        whole = "".join(order) in ("RAS", "SAR")
        for signs in product((False, True), repeat=3):
            if (whole or not any(signs)) and ("".join(order), any(signs)) != ("RAS", False):
                yield "".join(_opposite(c) if s else c for c, s in zip(order, signs, strict=True))


def intensities(case: Case, card: Card) -> Iterator[tuple[str, Case]]:
    """What else the values might be: in words, and the copy that a card with that mistake reads right."""
    values, scale = case.image.array.astype(np.float32), card.intensity[case.modality]

    def copy(array: NDArray[np.float32]) -> Case:
        return replace(case, image=Volume(array, case.image.grid))

    if case.modality != "ct":
        yield from ((f"multiplied by {factor:g}", copy(values * factor)) for factor in FACTORS)
        return
    yield from ((f"shifted by {shift:+d} HU", copy(values + shift)) for shift in SHIFTS)
    for low, high in WINDOWS:
        cut = np.clip(values, low, high)
        if scale.kind == "window":
            share = (cut - low) / (high - low)
            cut = (share * (scale.high - scale.low) + scale.low).astype(np.float32)
        yield f"seen through a window of {low} to {high} HU", copy(cut)


def _distorted(backbone: Backbone, case: Case, precision: str) -> tuple[dict[str, float], dict[str, float]]:
    """Mean Dice of each mistaken orientation and other scale, up to the first good one."""
    turned: dict[str, float] = {}
    scaled: dict[str, float] = {}
    copies = [(scaled, key, copy) for key, copy in intensities(case, backbone.card)]
    copies += [(turned, codes, as_mistaken(case, codes)) for codes in orientations()]
    for found, key, copy in track(copies, "probe", "copy"):
        found[key] = dice(backbone, copy, precision)
        if found[key] >= GOOD:
            break
    return turned, scaled


def _judge(
    card: Card, case: Case, plain: float, turned: dict[str, float], scaled: dict[str, float]
) -> Finding:
    found = {**turned, **scaled}
    key = max(found, key=lambda one: found[one])
    best = found[key]
    said = f"{case.modality} phantom, mean Dice of {len(case.names)} organs: {plain:.2f} as it is"
    if best < LEAST or best < plain + BETTER:
        what = f"{said}, at most {best:.2f} mirrored, swapped or rescaled: weak here, its card not to blame"
        return Finding("warn", what, card.name, f"{GOOD} or more")
    if key in turned:
        right = expected_orientation(card.orientation, key)
        what = f"{said}, but {best:.2f} turned to {key} under the same affine: the orientation is wrong"
        return Finding("refuse", what, f"{card.name}, card.orientation", f"not {card.orientation}", right)
    what = f"{said}, but {best:.2f} with its values {key}: the intensity scale is wrong"
    return Finding("refuse", what, f"{card.name}, card.intensity", f"that copy's scale for {case.modality}")


def expected_orientation(card: str, axes: str) -> str:
    """The card's orientation under which a patient gives the network what the mistaken copy gave it.

    Args:
        card: axis codes on the card.
        axes: directions in which the copy's R, A and S axes run in truth.
    """
    return "".join(axes["RAS".index(c)] if c in "RAS" else _opposite(axes["LPI".index(c)]) for c in card)


def _ordered(array: NDArray[np.generic], codes: str) -> NDArray[np.generic]:
    order = ["RAS".find(c) if c in "RAS" else "LPI".index(c) for c in codes]
    mirrored = tuple(axis for axis, c in enumerate(codes) if c in "LPI")
    return np.ascontiguousarray(np.flip(array.transpose(order), mirrored))


def _opposite(code: str) -> str:
    return "LPIRAS"["RASLPI".index(code)]


def _prompt(case: Case, value: int) -> Prompt:
    """A click at the organ's deepest voxel, or the box of its outer faces."""
    from scipy import ndimage

    mask, grid, name = case.label == value, case.image.grid, case.names[value - 1]
    if case.kind in ("point", "clicks"):
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
        deepest = np.array([np.unravel_index(int(np.argmax(depth)), mask.shape)], dtype=float)
        x, y, z = grid.to_world(deepest)[0].tolist()
        return Prompt(name, case.kind, ((x, y, z),), (1,))
    if case.kind == "text":
        return Prompt(name, "text", text=name.replace("_", " "))
    voxels = np.argwhere(mask)
    faces = grid.to_world(np.array([voxels.min(axis=0) - 0.5, voxels.max(axis=0) + 0.5]))
    (a, b, c), (d, e, f) = faces.min(axis=0).tolist(), faces.max(axis=0).tolist()
    return Prompt(name, case.kind, box=((a, b, c), (d, e, f)))
