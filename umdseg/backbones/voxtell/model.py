"""VoxTell from its folder."""

from __future__ import annotations

import json
import math
import pydoc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import nn

from umdseg import anatomy
from umdseg.backbones.card import Card, Intensity, Weights
from umdseg.backbones.download import fetch
from umdseg.backbones.folders import given_folder, given_weights
from umdseg.backbones.listing import Listing
from umdseg.backbones.loaded import Loaded
from umdseg.backbones.nnunet.network import fit_state, one_name_each
from umdseg.backbones.options import ModelOptions
from umdseg.backbones.voxtell.backbone import Voxtell
from umdseg.backbones.voxtell.bank import Bank, read_bank
from umdseg.backbones.weights import read_state, state_hash
from umdseg.data.hashes import file_hash
from umdseg.errors import UserError
from umdseg.vocabulary import MODALITIES, PromptKind

CONFIGURATION = "3d_fullres"
CHECKPOINT = "fold_0/checkpoint_final.pth"
VERSION = "voxtell_v1.1"
BANK = "text_embeddings.npz"
PROMPTS: tuple[PromptKind, ...] = ("auto", "text")
# Qwen3-Embedding-4B's
EMBEDDING = 2560
# what the package's predictor builds on top of the plans
TEXT_DECODER: Mapping[str, Any] = {
    "decoder_layer": 4,
    "text_embedding_dim": EMBEDDING,
    "num_maskformer_stages": 5,
    "num_heads": 32,
    "query_dim": 2048,
    "project_to_decoder_hidden_dim": 2048,
    "deep_supervision": False,
}
CITATION = (
    "Rokuss M, Langenberg M, Kirchhoff Y, et al. VoxTell: Free-Text Promptable Universal 3D Medical Image "
    "Segmentation. CVPR 2026 (arXiv 2511.11450)"
)
# the residual encoder and the U-Net's decoder; the text's transformer keeps its weights
CONVOLUTIONS = r"(encoder\.stages\.\d+\.blocks\.\d+\.conv[12]\.conv|decoder\.stages\.\d+\.convs\.\d+\.conv)"
# z, y, x of an image whose own axes run right, anterior, superior
ORIENTATION = "SAR"


@dataclass
class VoxtellOptions(ModelOptions):
    """Which model folder, which embeddings.

    Attributes:
        folder: with plans.json and fold_0/checkpoint_final.pth. None downloads the published one.
        embeddings: `.npz` of texts and their embeddings. None: beside the folder as published
            (../embeddings/<folder>/text_embeddings.npz, or in it), else downloaded.
    """

    ELSEWHERE: ClassVar[tuple[str, ...]] = (*ModelOptions.ELSEWHERE, "folder", "embeddings")

    folder: str | None = None
    embeddings: str | None = None


class VoxtellFactory:
    """Builds the model."""

    Options: ClassVar[type[VoxtellOptions]] = VoxtellOptions

    def __call__(self, options: VoxtellOptions) -> Voxtell:
        """Read the folder: plans, weights (never pickled code), and the bank of embeddings.

        Raises:
            UserError: voxtell is not installed, terms not accepted, or files that do not fit.
        """
        try:
            import voxtell.model.voxtell_model  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError(
                f"model '{options.name}' needs the package '{error.name}', which is not installed",
                expected="pip install umdseg[voxtell]",
            ) from error
        folder = _folder(options)
        configuration = _plans(folder)
        net = build_network(configuration, folder)
        names = one_name_each(net)
        path = _checkpoint(folder, options)
        if path is not None:
            net.load_state_dict(fit_state(net, names, read_state(path, names), path), strict=True)
        bank = read_bank(_bank(folder, options), TEXT_DECODER["text_embedding_dim"])
        backbone = Voxtell(_card(options.name, configuration, bank), net, bank)
        backbone.random_weights = path is None
        backbone.weights_sha256 = file_hash(path) if path else None
        backbone.loaded = Loaded(path.name, len(net.state_dict())) if path else None
        backbone.state_sha256 = state_hash({**net.state_dict(), **bank.tensors()})
        return backbone

    def listing(self) -> Listing:
        """What is known without the folder."""
        return Listing(
            family="voxtell",
            parameters=None,
            weights=_weights(),
            trained_on=MODALITIES,
            prompts=PROMPTS,
            output="sigmoid",
        )


def build_network(configuration: Mapping[str, Any], where: Path) -> nn.Module:
    """The official network of a plans file's configuration.

    Raises:
        UserError: the plans describe another network.
    """
    from voxtell.model.voxtell_model import VoxTellModel

    try:
        architecture = configuration["architecture"]
        arguments = dict(architecture["arch_kwargs"])
        for key in architecture["_kw_requires_import"]:
            if arguments[key] is not None:
                arguments[key] = pydoc.locate(arguments[key])
        return cast(nn.Module, VoxTellModel(input_channels=1, **arguments, **TEXT_DECODER))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"plans.json does not describe VoxTell's network: {error}",
            where=where / "plans.json",
            expected=f"the published plans, with the architecture of {CONFIGURATION}",
        ) from error


def _plans(folder: Path) -> dict[str, Any]:
    path = folder / "plans.json"
    try:
        plans = json.loads(path.read_text(encoding="utf-8"))
        configuration: dict[str, Any] = plans["configurations"][CONFIGURATION]
        return {**configuration, "patch_size": [int(edge) for edge in configuration["patch_size"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"not a model folder of VoxTell: {type(error).__name__}: {error}",
            where=path,
            expected=f"plans.json with the configuration {CONFIGURATION}, and {CHECKPOINT}",
        ) from error


def _folder(options: VoxtellOptions) -> Path:
    given = given_folder(options, options.folder, "plans.json")
    return given or _fetched(f"{VERSION}/plans.json", options).parent


def _checkpoint(folder: Path, options: VoxtellOptions) -> Path | None:
    if options.weights:
        return given_weights(options)
    return folder / CHECKPOINT if options.folder is not None else fetch(_weights(), options.accept_licence)


def _bank(folder: Path, options: VoxtellOptions) -> Path:
    if options.embeddings is not None:
        return Path(options.embeddings).expanduser()
    for place in (folder.parent / "embeddings" / folder.name / BANK, folder / BANK):
        if place.is_file():
            return place
    return _fetched(f"embeddings/{VERSION}/{BANK}", options)


def _fetched(file: str, options: VoxtellOptions) -> Path:
    return fetch(replace(_weights(), file=file), options.accept_licence)


def _weights() -> Weights:
    return Weights(
        source="mrokuss/VoxTell",
        file=f"{VERSION}/{CHECKPOINT}",
        sha256=None,
        licence="not verified (the code is Apache-2.0)",
        commercial=None,
        note="hash not verified; licence of the weights not verified; terms of the 158 data sets behind them "
        "not verified",
    )


def _card(name: str, configuration: Mapping[str, Any], bank: Bank) -> Card:
    edges = configuration["patch_size"]
    structures = {structure: bank.rows[text] for structure, text in bank.names.items()}
    return Card(
        name=name,
        weights=_weights(),
        orientation=ORIENTATION,
        spacing=None,
        window=(edges[0], edges[1], edges[2]),
        # the transformer's positions are those of one size of window
        divisor=math.gcd(*edges),
        intensity=dict.fromkeys(MODALITIES, Intensity("zscore")),
        structures=structures,
        groups=anatomy.wholes(structures),
        trained_on=MODALITIES,
        prompts=PROMPTS,
        prompt_enters="decoder",
        output="sigmoid",
        adapter_targets=CONVOLUTIONS,
        stem="encoder.stem.convs.0.conv",
        citation=CITATION,
        overlap=0.5,
        fixed_window=True,
    )


voxtell = VoxtellFactory()
