"""Factories: a result folder of one's own, or a published release of one or several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from umdseg import anatomy
from umdseg.backbones.card import Weights
from umdseg.backbones.listing import Listing
from umdseg.backbones.loaded import Loaded, named
from umdseg.backbones.nnunet.backbone import Nnunet, SingleNnunet
from umdseg.backbones.nnunet.cards import describe, make_card
from umdseg.backbones.nnunet.download import fetch_archive
from umdseg.backbones.nnunet.folder import ResultFolder, open_folder
from umdseg.backbones.nnunet.options import CHECKPOINT, NnunetOptions
from umdseg.backbones.nnunet.part import Part, channels_of, open_part
from umdseg.backbones.weights import state_hash
from umdseg.data.hashes import cache_root, file_hash
from umdseg.errors import UserError, unknown
from umdseg.files import sha256_value
from umdseg.vocabulary import MODALITIES, Modality

INSTALL = "pip install umdseg[nnunet]"


@dataclass(frozen=True)
class Archive:
    """One network's archive.

    Attributes:
        folder: the folder inside it that holds the network.
        url: where it is; None where it must be fetched by hand.
        sha256: of the archive, where published.
    """

    folder: str
    url: str | None
    sha256: str | None = None

    @property
    def place(self) -> Path:
        """Where its content lies once it is downloaded."""
        # archives of equal names from different addresses must not meet
        key = sha256_value([self.url, self.folder])[:12]
        return cache_root() / "weights" / key / "release"


@dataclass(frozen=True)
class Release:
    """What the authors of a model say about it; calling it builds the model.

    Attributes:
        archives: its networks, in the order the authors merge them; empty = any folder.
        page: where the release is described.
        licence: of the weights, as published.
        commercial: whether commercial use is allowed; None when not known.
        note: what is not verified or not done as the authors do it.
        citation: what to cite.
        trained_on: modalities the weights have seen.
        orientation: axis codes to which the authors turn images first.
        scheme: column of `anatomy` with the published numbers of the classes.
        names: label in dataset.json -> structure, where they differ.
        channels: modality of each input channel, where dataset.json does not tell.
        drop: prefix of checkpoint names that inference does not use.
        overwrite: classes of a later network win over those of earlier ones.
    """

    archives: tuple[Archive, ...] = ()
    page: str | None = None
    licence: str = "not stated in the folder"
    commercial: bool | None = None
    note: str = ""
    citation: str = ""
    trained_on: tuple[Modality, ...] = ()
    orientation: str | None = None
    scheme: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[Modality, ...] | None = None
    drop: str = ""
    overwrite: bool = False

    Options: ClassVar[type[NnunetOptions]] = NnunetOptions

    def __call__(self, options: NnunetOptions) -> Nnunet:
        """Build the model from its folder.

        Raises:
            UserError: nnunetv2 is not installed; no folder, or one that does not fit.
        """
        options.validate()
        try:
            import nnunetv2  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError(
                f"model '{options.name}' needs the package '{error.name}', which is not installed",
                expected=INSTALL,
            ) from error
        if options.channels is None and self.channels is not None:
            options = replace(options, channels=list(self.channels))
        sources, absent = self._sources(options)
        if len(sources) > 1 and options.weights not in (None, "random"):
            raise UserError(
                f"one weights file for the {len(sources)} networks of model '{options.name}'",
                where="model.weights",
                expected="null: the checkpoints in model.folder",
            )
        built = [open_part(source, options, self.names, self.drop) for source in sources]
        parts, nets = [part for part, _ in built], [net for _, net in built]
        _check_names(options, parts)
        notes = [self.note, describe(parts, checked=self._sha256 is not None)]
        if absent:
            notes.append(f"not in the folder: {', '.join(absent)}")
        forced = options.orientation or self.orientation or _reader_orientation(parts[0])
        card = make_card(
            options.name,
            parts,
            nets,
            self._weights(notes),
            base=forced or "RAS",
            citation=self.citation,
            numbering=anatomy.ids(self.scheme) if self.scheme else None,
        )
        backbone = (SingleNnunet if len(parts) == 1 else Nnunet)(
            card, parts, nets, forced=forced, mirroring=options.mirroring, overwrite=self.overwrite
        )
        return _sign(backbone, verified=options.folder is None and self._sha256 is not None)

    def _sources(self, options: NnunetOptions) -> tuple[list[ResultFolder], list[str]]:
        """The result folders in order, and the networks of the release that are not there."""
        if options.folder is None:
            if options.weights == "random" or not self.archives:
                raise UserError(
                    f"model '{options.name}' is what its folder says, and none is given",
                    where="model.folder",
                    expected="a result folder trainer__plans__configuration, or one above it",
                )
            return [self._fetch(options, archive) for archive in self.archives], []
        root = Path(options.folder).expanduser()
        there = [archive for archive in self.archives if (root / archive.folder).is_dir()]
        if there and any(archive.folder for archive in there):
            absent = [archive.folder for archive in self.archives if archive not in there]
            return [open_folder(root / archive.folder) for archive in there], absent
        if len(self.archives) == 1:
            return [open_folder(root)], []
        if self.archives and root.name not in [archive.folder for archive in self.archives]:
            raise UserError(
                f"the folder holds none of the {len(self.archives)} networks of model '{options.name}'",
                where=root,
                expected=f"folders such as {self.archives[0].folder}",
            )
        return [open_folder(root)], [a.folder for a in self.archives if a.folder not in ("", root.name)]

    def _fetch(self, options: NnunetOptions, archive: Archive) -> ResultFolder:
        if archive.url is None:
            raise UserError(
                f"the weights of model '{options.name}' are not published for download",
                where=self.page,
                expected="model.folder=FOLDER with what the authors give",
            )
        if self.commercial is not True and not options.accept_licence:
            raise UserError(
                f"the weights of model '{options.name}' have terms to accept first: {self.licence}",
                where=self.page,
                expected="model.accept_licence=true once you have read them, or model.folder=FOLDER",
            )
        return open_folder(fetch_archive(archive.url, archive.place, archive.sha256) / archive.folder)

    def listing(self) -> Listing:
        """What is known without the folder."""
        output: Literal["sigmoid", "softmax", ""] = ""
        if self.archives:
            output = "softmax" if len(self.archives) == 1 else "sigmoid"
        return Listing(
            family="nnunet",
            parameters=None,
            weights=self._weights([self.note, "" if self._sha256 else "hash not verified"]),
            trained_on=self.trained_on,
            prompts=("auto",),
            output=output,
            takes=self.channels or (),
            cached=self._cached,
        )

    def takes(self, options: NnunetOptions) -> tuple[Modality, ...]:
        """What the model takes together, known without building it; empty where the folder does not tell."""
        given = options.channels or self.channels
        try:
            sources = self._sources(options)[0] if options.folder else []
            found = channels_of(sources[0], given) if sources else given or ()
        except UserError:
            # what is wrong with the folder is said when the model is built
            return ()
        told = tuple(modality for modality in MODALITIES for name in found if name == modality)
        return tuple(sorted(told, key=list(found).index)) if len(set(told)) == len(found) > 1 else ()

    def _cached(self) -> Path | None:
        places = [archive.place for archive in self.archives]
        return places[0] if places and all(place.is_dir() for place in places) else None

    @property
    def _sha256(self) -> str | None:
        return self.archives[0].sha256 if len(self.archives) == 1 else None

    def _weights(self, notes: Sequence[str]) -> Weights:
        return Weights(
            source=self.archives[0].url if self.archives else None,
            file=CHECKPOINT,
            sha256=self._sha256,
            licence=self.licence,
            commercial=self.commercial,
            note="; ".join(filter(None, notes)),
        )


def _check_names(options: NnunetOptions, parts: list[Part]) -> None:
    """What the user says of labels must be about labels there are, and name structures there are."""
    labels = {label for part in parts for label in part.labels.label_dict}
    for label, name in options.names.items():
        if label not in labels:
            raise unknown("label in model.names", label, labels)
        anatomy.canonical(name)


def _reader_orientation(part: Part) -> str | None:
    # readers that turn images first say so by their name; all others take them as they are
    return "RAS" if str(part.plans.plans.get("image_reader_writer", "")).endswith("WithReorient") else None


def _sign(backbone: Nnunet, verified: bool) -> Nnunet:
    """Note which weights these are; `verified`: they come from an archive of the published hash."""
    first = [part.previous[0] for part in backbone.parts if part.previous]
    files = [path for part in (*backbone.parts, *first) for path in part.files]
    backbone.random_weights = not files
    if files:
        hashes = [file_hash(path) for path in files]
        backbone.weights_sha256 = hashes[0] if len(hashes) == 1 else sha256_value(hashes)
        total = sum(len(state) for part in (*backbone.parts, *first) for state in part.states)
        backbone.loaded = Loaded(named([path.name for path in files]), total, verified=verified)
    tensors: dict[str, torch.Tensor] = {}
    for number, (part, net) in enumerate(zip(backbone.parts, backbone.networks, strict=True)):
        for fold, state in enumerate(part.states or [net.state_dict()]):
            tensors |= {f"{number}.{fold}.{key}": value for key, value in state.items()}
        if part.previous:
            before, earlier = part.previous
            for fold, state in enumerate(before.states or [earlier.state_dict()]):
                tensors |= {f"{number}.previous.{fold}.{key}": value for key, value in state.items()}
    backbone.state_sha256 = state_hash(tensors)
    return backbone


nnunet = Release()
