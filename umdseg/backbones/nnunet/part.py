"""One trained nnU-Net: its plans, its labels, its folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from umdseg import anatomy
from umdseg.backbones.nnunet.folder import Fold, ResultFolder, read_fold
from umdseg.backbones.nnunet.network import build_network, fit_state, one_name_each, quiet
from umdseg.backbones.nnunet.options import NnunetOptions
from umdseg.backbones.weights import State
from umdseg.errors import UserError, nearest
from umdseg.vocabulary import Modality

_CHANNELS: tuple[tuple[Modality, tuple[str, ...]], ...] = (
    ("ct", ("ct",)),
    ("pet", ("pet", "pt", "suv", "fdg", "psma")),
    ("mr", ("mr", "mri", "t1", "t1w", "t1c", "t2", "t2w", "flair", "dixon")),
)


@dataclass
class Part:
    """One network of a model, with everything its prediction needs.

    Attributes:
        folder: its result folder.
        plans, configuration, labels: nnU-Net's managers.
        dataset: dataset.json.
        states: the folds' tensors, under the network's own names; empty for random weights.
        files: their checkpoints.
        mirroring: axes of the network's input along which mirrored inputs are averaged.
        structures: canonical name -> channel of the network's output.
        unknown: label -> nearest structure, for labels that are in no table.
        channels: modality of each input channel, None where nothing tells.
        trainer_found: False where the network was built from the plans alone.
        previous: of a cascade, the stage before and its network, which no adapter touches.
    """

    folder: Path
    plans: Any
    configuration: Any
    labels: Any
    dataset: dict[str, Any]
    states: list[State]
    files: list[Path]
    mirroring: tuple[int, ...] | None
    structures: dict[str, int]
    unknown: dict[str, str | None] = field(default_factory=dict)
    channels: tuple[Modality | None, ...] = (None,)
    trainer_found: bool = True
    previous: tuple[Part, nn.Module] | None = None

    @property
    def heads(self) -> int:
        """Output channels, background among them unless labels are regions."""
        return int(self.labels.num_segmentation_heads)

    @property
    def regions(self) -> bool:
        """Whether the outputs are overlapping regions (sigmoid) instead of classes (softmax)."""
        return bool(self.labels.has_regions)

    @property
    def flat(self) -> bool:
        """Whether the network is 2-D: it sees the slices along the first network axis one by one."""
        return len(self.configuration.patch_size) == 2

    @property
    def inputs(self) -> int:
        """Input channels: the image's, and of a cascade one per label of the stage before."""
        return _inputs(self.plans, self.configuration, self.dataset)

    @property
    def window(self) -> tuple[int, int, int]:
        """Voxels of one pass along the network axes; of a 2-D network, one slice."""
        edges = [1] * self.flat + [int(edge) for edge in self.configuration.patch_size]
        return edges[0], edges[1], edges[2]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres along the network axes; across the slices of a 2-D network, the training scans' median.

        Whole scans keep their own slice distance there, as nnU-Net does.
        """
        across = [self.plans.original_median_spacing_after_transp[0]] if self.flat else []
        edges = [float(edge) for edge in (*across, *self.configuration.spacing)]
        return edges[0], edges[1], edges[2]

    @property
    def steps(self) -> tuple[int, int, int]:
        """Along each network axis, what a window's edge must be a multiple of."""
        total = [1, 1, 1]
        for stride in self.configuration.pool_op_kernel_sizes:
            edges = [stride] * (3 - self.flat) if isinstance(stride, int) else stride
            # slices are not pooled across
            edges = [1] * self.flat + list(edges)
            total = [whole * int(edge) for whole, edge in zip(total, edges, strict=True)]
        return total[0], total[1], total[2]


def open_part(
    source: ResultFolder, options: NnunetOptions, names: Mapping[str, str], drop: str
) -> tuple[Part, nn.Module]:
    """Read a result folder and build its network, with the first fold's weights; of a cascade, both stages.

    Args:
        source: the folder.
        options: folds, checkpoint, channels, own names.
        names: label in dataset.json -> structure, where the release's names differ.
        drop: prefix of checkpoint names that inference does not use.

    Raises:
        UserError: no usable checkpoint or label; the stage before is not there, is of another kind, or is
            given for a network that has none.
    """
    part, net = _open(source, options, names, drop)
    before = part.configuration.previous_stage_name
    if before is not None:
        own = source.before(before, options.previous)
        # a checkpoint given by itself is the later stage's
        asked = replace(options, weights="random" if options.weights == "random" else None)
        first, earlier = _open(own, asked, names, drop, wanted=before)
        _check_stages(part, first)
        part.previous = first, earlier.eval().requires_grad_(False)
    elif options.previous is not None:
        raise UserError(
            "the network takes no result of an earlier one",
            where=source.path,
            expected="model.previous=null, or the folder of a cascade such as 3d_cascade_fullres",
        )
    return part, net


def _open(
    source: ResultFolder, options: NnunetOptions, names: Mapping[str, str], drop: str, wanted: str = ""
) -> tuple[Part, nn.Module]:
    """One stage; `wanted` is the configuration it must have."""
    folds = _folds(source, options)
    trainer, chosen = (folds[0].trainer, folds[0].configuration) if folds else source.named
    if wanted and chosen != wanted:
        raise UserError(
            f"the stage before the cascade is {chosen}, not {wanted}",
            where=source.path,
            expected=f"the result folder of {wanted}",
        )
    with quiet():
        plans, configuration, labels = _managers(source, chosen)
    channels = channels_of(source, options.channels)
    structures, unknown = name_labels(labels, {**names, **options.names}, source.path)
    inputs = _inputs(plans, configuration, source.dataset)
    net, trainer_found = build_network(plans, configuration, inputs, labels.num_segmentation_heads, trainer)
    former = one_name_each(net)
    states = [fit_state(net, former, fold.state, fold.path, drop) for fold in folds]
    if states:
        net.load_state_dict(states[0], strict=True)
    part = Part(
        folder=source.path,
        plans=plans,
        configuration=configuration,
        labels=labels,
        dataset=source.dataset,
        states=states,
        files=[fold.path for fold in folds],
        mirroring=(folds[0].mirroring or None) if folds else None,
        structures=structures,
        unknown=unknown,
        channels=channels,
        trainer_found=trainer_found,
    )
    return part, net


def name_labels(
    labels: Any, names: Mapping[str, str], where: Path
) -> tuple[dict[str, int], dict[str, str | None]]:
    """Canonical name -> output channel, and the labels no table knows -> the nearest name.

    Raises:
        UserError: not one label is known.
    """
    known: dict[str, int] = {}
    unknown: dict[str, str | None] = {}
    channel = 0
    for label, value in labels.label_dict.items():
        if label == "ignore" or value in (0, [0]):
            continue
        single = value[0] if isinstance(value, list) and len(value) == 1 else value
        # regions follow each other in the order of dataset.json, classes are numbered
        at = channel if labels.has_regions else labels.all_labels.index(single)
        channel += 1
        try:
            name = anatomy.canonical(names.get(label, label))
        except UserError:
            unknown[label] = nearest(label, anatomy.structures())
            continue
        if name in known:
            unknown[label] = name
        else:
            known[name] = at
    if not known:
        raise UserError(
            f"none of the labels is a known structure: {', '.join(list(unknown)[:5])}",
            where=where / "dataset.json",
            expected="model.names={label: structure} for those that are wanted",
            nearest=next(filter(None, unknown.values()), None),
        )
    return known, unknown


def _folds(source: ResultFolder, options: NnunetOptions) -> list[Fold]:
    if options.weights == "random":
        return []
    if options.weights:
        return [read_fold(Path(options.weights).expanduser())]
    return [read_fold(path) for path in source.checkpoints(options.folds, options.checkpoint)]


def _managers(source: ResultFolder, chosen: str) -> tuple[Any, Any, Any]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(source.plans)
    if chosen not in plans.available_configurations:
        names = ", ".join(plans.available_configurations)
        raise UserError(
            f"plans.json has no configuration '{chosen}'", where=source.path, expected=f"one of {names}"
        )
    return plans, plans.get_configuration(chosen), plans.get_label_manager(source.dataset)


def _inputs(plans: Any, configuration: Any, dataset: Mapping[str, Any]) -> int:
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    return int(determine_num_input_channels(plans, configuration, dataset))


def _check_stages(part: Part, first: Part) -> None:
    if first.configuration.previous_stage_name is not None:
        raise UserError(
            "a cascade of more than two stages", where=part.folder, expected="two, as nnU-Net plans them"
        )
    facts = [(one.labels.label_dict, len(one.channels)) for one in (part, first)]
    if facts[0] != facts[1]:
        raise UserError(
            "the two stages of this cascade have other labels or input channels",
            where=first.folder,
            expected=f"those of {part.folder}",
        )


def channels_of(source: ResultFolder, given: Sequence[str] | None) -> tuple[Modality | None, ...]:
    """Modality of each input channel, None where nothing tells.

    Args:
        source: the folder.
        given: by the user or the release, instead of what dataset.json says.

    Raises:
        UserError: dataset.json names no channels, or another number of them.
    """
    listed = source.dataset.get("channel_names") or source.dataset.get("modality") or {}
    titles = [str(listed[key]) for key in sorted(listed, key=int)]
    if not titles:
        raise UserError("dataset.json names no input channels", where=source.path, expected="channel_names")
    if given is not None:
        if len(given) != len(titles):
            raise UserError(
                f"the network has {len(titles)} input channels ({', '.join(titles)}), not {len(given)}",
                where="model.channels",
                expected=f"{len(titles)} modalities",
            )
        return tuple(modality for name in given for modality, _ in _CHANNELS if modality == name)
    return tuple(_modality(title) for title in titles)


def _modality(title: str) -> Modality | None:
    words = title.lower().replace("-", " ").replace("_", " ").split()
    return next((modality for modality, known in _CHANNELS if set(words) & set(known)), None)
