"""nnInteractive from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.folders import given_folder, given_weights
from umdseg.backbones.listing import Listing
from umdseg.backbones.loaded import Loaded
from umdseg.backbones.nninteractive.backbone import Nninteractive, unchanged
from umdseg.backbones.nnunet.cards import BLOCK_CONVOLUTIONS
from umdseg.backbones.nnunet.folder import ResultFolder, open_folder, read_fold
from umdseg.backbones.nnunet.network import PLAIN, build_network, fit_state, one_name_each, quiet
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.weights import state_hash
from umdseg.data.hashes import file_hash
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, PromptKind

CHECKPOINT = "checkpoint_final.pth"
# of the published model; a folder without a checkpoint does not say which one
CONFIGURATION = "3d_fullres_ps192_bs24"
CITATION = (
    "Isensee F, Rokuss M, Krämer L, et al. nnInteractive: Redefining 3D Promptable Segmentation. "
    "arXiv 2503.08373 (2025)"
)
LICENCE = "CC BY-NC-SA 4.0"
# kind of prompt -> interactions of the package, one of which the network has to have been trained with
INTERACTIONS: dict[PromptKind, tuple[str, ...]] = {
    "point": ("points",),
    "clicks": ("points",),
    "box": ("bbox2d", "bbox3d"),
    "lasso": ("lasso",),
    "scribble": ("scribble",),
}
# z, y, x of an image whose own axes run right, anterior, superior
ORIENTATION = "SAR"


@dataclass
class NninteractiveOptions(ModelOptions):
    """Which model folder.

    Attributes:
        folder: with plans.json, dataset.json, inference_info.json (or inference_session_class.json) and one
            fold. None: the package's own copy (in $NNINTERACTIVE_MODEL_DIR), downloaded where there is none.
        version: which of the published models that is.
        autozoom: where the mask changes at the window's border, look again from further away and refine what
            is found, as the authors do (many passes per click); False = the window around the click alone.
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = (*ModelOptions.ELSEWHERE, "folder")
    FREE: ClassVar[tuple[str, ...]] = ("version", "autozoom")

    folder: str | None = None
    version: str = "nnInteractive_v1.0"
    autozoom: bool = True


class NninteractiveFactory:
    """Builds the model."""

    Options: ClassVar[type[NninteractiveOptions]] = NninteractiveOptions

    def __call__(self, options: NninteractiveOptions) -> Nninteractive:
        """Read the folder: plans, what the network was trained to take, weights (never pickled code).

        Raises:
            UserError: nninteractive is not installed, terms not accepted, or a folder that does not fit.
        """
        try:
            import nnInteractive.inference.inference_session  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError(
                f"model '{options.name}' needs the package '{error.name}', which is not installed",
                expected="pip install umdseg[nninteractive]",
            ) from error
        source = open_folder(_folder(options))
        return _built(source, _checkpoint(source, options), options)

    def listing(self) -> Listing:
        """What is known without the folder."""
        return Listing(
            family="nninteractive",
            # counted on the meta device for nnU-Net's ResEnc-L plans, 8 channels in, 2 out
            parameters=102_355_818,
            weights=_weights(LICENCE),
            trained_on=MODALITIES,
            prompts=tuple(INTERACTIONS),
            output="mask",
            cached=_cached,
        )


def _built(source: ResultFolder, checkpoint: Path | None, options: NninteractiveOptions) -> Nninteractive:
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    fold = read_fold(checkpoint) if checkpoint else None
    with quiet():
        plans = PlansManager(source.plans)
        chosen = fold.configuration if fold else _configuration(plans, source)
        if chosen not in plans.available_configurations:
            names = ", ".join(plans.available_configurations)
            raise UserError(
                f"plans.json has no configuration '{chosen}'", where=source.path, expected=f"one of {names}"
            )
        configuration = plans.get_configuration(chosen)
        images = determine_num_input_channels(plans, configuration, source.dataset)
    artifacts, engine = _artifacts(source)
    # object and background, whatever dataset.json lists
    net, _ = build_network(plans, configuration, images + engine.num_interaction_channels, 2, PLAIN)
    former = one_name_each(net)
    if fold:
        net.load_state_dict(fit_state(net, former, fold.state, fold.path), strict=True)
    artifacts |= {
        "plans_manager": plans,
        "configuration_manager": configuration,
        "dataset_json": source.dataset,
        "trainer_name": fold.trainer if fold else PLAIN,
        "label_manager": plans.get_label_manager(source.dataset),
        "license": engine._load_license(
            str(source.path), source.plans, {"init_args": {"configuration": chosen}}
        ),
    }
    trained = engine.supported_interactions
    prompts = tuple(kind for kind, names in INTERACTIONS.items() if any(trained[name] for name in names))
    card = _card(options.name, configuration, str(artifacts["license"]), prompts)
    backbone = Nninteractive(card, net, artifacts, engine, options.autozoom)
    backbone.random_weights = fold is None
    backbone.weights_sha256 = file_hash(fold.path) if fold else None
    backbone.loaded = Loaded(fold.path.name, len(net.state_dict())) if fold else None
    backbone.state_sha256 = state_hash(net.state_dict())
    return backbone


def _artifacts(source: ResultFolder) -> tuple[dict[str, Any], Any]:
    """What the folder says of interactions, read by the package's own session.

    Its loader of whole folders is not used: it would run whatever code a checkpoint holds.
    """
    import torch
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession
    from nnInteractive.interaction.point import PointInteraction_stub

    with unchanged(), quiet():
        engine = nnInteractiveInferenceSession(
            device=torch.device("cpu"), torch_n_threads=torch.get_num_threads(), enable_undo=False
        )
        try:
            facts = engine._load_capability_and_runtime_defaults(str(source.path))
            engine._apply_capability(facts[0])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(
                f"the folder does not say which interactions the network takes: {error}",
                where=source.path,
                expected="inference_info.json or inference_session_class.json, as the authors publish it",
            ) from error
    capability, radius, thickness, decay, padding = facts
    return {
        "capability_content": capability,
        "point_interaction": PointInteraction_stub(radius, True),
        "preferred_scribble_thickness": thickness,
        "interaction_decay": decay,
        "pad_mode_data": padding,
    }, engine


def _configuration(plans: Any, source: ResultFolder) -> str:
    known = plans.available_configurations
    if CONFIGURATION in known or len(known) == 1:
        return CONFIGURATION if CONFIGURATION in known else str(next(iter(known)))
    raise UserError(
        f"plans.json has several configurations, none called {CONFIGURATION}",
        where=source.path,
        expected="the published plans, or a checkpoint instead of random weights",
    )


def _folder(options: NninteractiveOptions) -> Path:
    given = given_folder(options, options.folder, "plans.json, dataset.json and inference_info.json")
    if given is not None:
        return given
    from nnInteractive import model_management as management

    if not options.accept_licence and not management.is_model_downloaded(options.version):
        raise UserError(
            f"the weights of model '{options.name}' have terms to accept first: {LICENCE}",
            where="https://huggingface.co/MIC-DKFZ/nnInteractive",
            expected="model.accept_licence=true once you have read them, or model.folder=FOLDER",
        )
    try:
        with quiet():
            return Path(management.ensure_model_available(options.version))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            str(error), where="model.version", expected="a connection, or model.folder=FOLDER"
        ) from error


def _checkpoint(source: ResultFolder, options: NninteractiveOptions) -> Path | None:
    if options.weights:
        return given_weights(options)
    found = source.checkpoints(None, CHECKPOINT)
    if len(found) > 1:
        raise UserError(
            f"the folder has {len(found)} folds", where=source.path, expected="one, or model.weights=FILE"
        )
    return found[0]


def _cached() -> Path | None:
    try:
        from nnInteractive import model_management as management
    except ModuleNotFoundError:
        return None
    version = NninteractiveOptions.version
    return Path(management.get_local_model_dir(version)) if management.is_model_downloaded(version) else None


def _weights(licence: str) -> Weights:
    return Weights(
        source="MIC-DKFZ/nnInteractive",
        file=f"nnInteractive_v1.0/fold_0/{CHECKPOINT}",
        sha256=None,
        licence="not stated in the folder" if licence.startswith("!!") else licence,
        commercial=False if "NC" in licence else None,
        note="hash not verified; terms of the more than 120 data sets behind the weights not verified",
    )


def _card(name: str, configuration: Any, licence: str, prompts: tuple[PromptKind, ...]) -> Card:
    edges = [int(edge) for edge in configuration.patch_size]
    total = 1
    for stride in configuration.pool_op_kernel_sizes:
        total *= stride if isinstance(stride, int) else max(int(edge) for edge in stride)
    as_whole = Intensity("zscore")
    return Card(
        name=name,
        weights=_weights(licence),
        orientation=ORIENTATION,
        spacing=None,
        window=(edges[0], edges[1], edges[2]),
        divisor=total,
        intensity=dict.fromkeys(MODALITIES, as_whole),
        structures={},
        trained_on=MODALITIES,
        prompts=prompts,
        prompt_enters="input",
        output="mask",
        adapter_targets=BLOCK_CONVOLUTIONS,
        stem="encoder.stem.convs.0.conv",
        citation=CITATION,
        overlap=0.5,
        fixed_window=True,
    )


nninteractive = NninteractiveFactory()
