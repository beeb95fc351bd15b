"""The card: everything about a model's weights that breaks users when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from umdseg.errors import unknown
from umdseg.vocabulary import Modality, PromptKind


@dataclass(frozen=True)
class Intensity:
    """How one modality's voxel values become network input; computed by `umdseg.data.scaling`.

    Attributes:
        kind: `window` maps [low, high] in the scan's units to `to`, clipped; `percentile` does so with
            the low-th and high-th percentile of the volume; `standardise` clips to [low, high] and then
            takes (x - mean) / std with the given numbers (nnU-Net's CT scheme); `zscore` takes mean and
            standard deviation from the volume itself; `nonzero` does so with the voxels other than 0 and
            leaves those at 0, then maps [minimum, maximum] to `to` (MONAI's NormalizeIntensity and
            ScaleIntensity); `as_is` changes nothing (the backbone scales).
        low: lower end.
        high: upper end.
        mean: of the training data, for `standardise`.
        std: of the training data, for `standardise`.
        to: range that `window`, `percentile` and `nonzero` map to.
        masked: statistics of `percentile` and `zscore` come from voxels above 0 only.
    """

    kind: Literal["window", "percentile", "standardise", "zscore", "nonzero", "as_is"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    to: tuple[float, float] = (0.0, 1.0)
    masked: bool = False

    @property
    def air(self) -> float | None:
        """Preprocessed value below which there is only air; None where the scale does not tell."""
        low, high = self.to
        return low + 0.02 * (high - low) if self.kind in ("window", "percentile") else None


@dataclass(frozen=True)
class Crop:
    """Foreground crop before the network.

    Attributes:
        above: voxels above this value are foreground.
        stage: compare `before` the intensity transform (scan units) or `after` it (0-1).
        margin: voxels kept around the foreground box.
    """

    above: float
    stage: Literal["before", "after"]
    margin: int


@dataclass(frozen=True)
class Weights:
    """Where the published weights live.

    Attributes:
        source: Hugging Face repository id, an https URL of a file, `package` (shipped inside umdseg), or
            None (not published, or only by hand).
        file: file name inside the source; of an archive, the member that is wanted.
        sha256: content hash, or None where nobody has verified one.
        licence: licence identifier, as published.
        commercial: whether commercial use is allowed; None when the sources disagree or say nothing.
        note: what is not verified, conflicts between sources.
    """

    source: str | None
    file: str
    sha256: str | None
    licence: str
    commercial: bool | None
    note: str = ""


@dataclass(frozen=True)
class Card:
    """Facts about one model. What is not verified says so in `weights.note`.

    Attributes:
        name: registered name.
        weights: where they are and under which terms.
        orientation: axis codes of the network's input (X, Y, Z of window, spacing and arrays).
        spacing: millimetres of the network's input grid, along its own axes; None = the scan's own.
        window: (X, Y, Z) voxels of one network pass; training and test use the same.
        divisor: every window edge is a multiple of this.
        intensity: transform per modality.
        crop: foreground crop, or None.
        trained_on: modalities the weights have seen.
        prompts: prompt kinds the model takes.
        prompt_enters: where prompts meet the image.
        structures: canonical structure name -> the model's own index.
        groups: structure -> the structures whose union it is (asked for instead of it).
        special: indices whose clicks get the network's "special" point labels.
        class_rows: module name of the class embedding table, empty where there is none.
        new_rows: class indices free for structures learned by an adapter.
        last_supported: highest index the point branch treats as supported (others are zero-shot).
        output: meaning of the logits: `sigmoid`, one independent map per structure; `softmax`, classes
            that compete (`structures` are channels of `Backbone.dense`, 0 the background); `mask`, the
            model gives finished masks.
        overlap: share by which windows overlap when nothing else is asked, as the authors do.
        blending: weights of overlapping windows, as the authors blend.
        adapter_targets: regular expression of module names adapters go to.
        head: regular expression of the names of the last layers, those that turn features into logits; empty
            where the network has none of its own.
        prompt_parameters: regular expression of the names of parameters that say what is asked for: the class
            table, the embeddings of clicks and boxes; empty where there are none.
        slicewise: the network sees the axial slices of a volume one by one.
        stem: name of the first convolution (for early fusion).
        citation: what to cite.
        scratch: there are no weights to be had: the network is to be trained here, from a random start.
        fixed_window: no other window will do: learned positions, plans, or a volume loop of its own.
    """

    name: str
    weights: Weights
    spacing: tuple[float, float, float] | None
    window: tuple[int, int, int]
    divisor: int
    intensity: Mapping[Modality, Intensity]
    structures: Mapping[str, int]
    adapter_targets: str
    stem: str
    citation: str
    orientation: str = "RAS"
    crop: Crop | None = None
    trained_on: tuple[Modality, ...] = ("ct",)
    prompts: tuple[PromptKind, ...] = ("auto",)
    prompt_enters: Literal["none", "decoder", "input"] = "decoder"
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    special: tuple[int, ...] = ()
    class_rows: str = ""
    new_rows: tuple[int, ...] = ()
    last_supported: int = 0
    output: Literal["sigmoid", "softmax", "mask"] = "sigmoid"
    overlap: float = 0.25
    blending: Literal["gaussian", "constant"] = "gaussian"
    head: str = ""
    prompt_parameters: str = ""
    slicewise: bool = False
    scratch: bool = False
    fixed_window: bool = False

    def knows(self, structure: str) -> bool:
        """Whether the model has the structure, itself or as a group of structures it has."""
        return structure in self.structures or structure in self.groups

    def index(self, structure: str) -> int:
        """The model's index of one structure (not of a group).

        Raises:
            UserError: the model has no such structure (with the nearest name).
        """
        if structure not in self.structures:
            raise unknown(f"structure for model {self.name}", structure, [*self.structures, *self.groups])
        return self.structures[structure]

    def members(self, structure: str) -> tuple[str, ...]:
        """The structures asked for in place of `structure`: its group's members, or itself."""
        return self.groups.get(structure, (structure,))
