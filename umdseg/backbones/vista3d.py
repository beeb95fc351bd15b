"""VISTA3D (He et al., arXiv 2406.05285): MONAI's official network, full size and tiny."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from umdseg.backbones.base import BACKGROUND, Backbone, Features
from umdseg.backbones.card import Card
from umdseg.backbones.listing import listed
from umdseg.backbones.options import ModelOptions, Vista3dOptions
from umdseg.backbones.vista3d_cards import nv_segment_ctmr_card, vista3d_card, vista3d_tiny_card
from umdseg.backbones.vista3d_points import inside, merge_by_components
from umdseg.backbones.vista3d_tiny import tiny_network
from umdseg.backbones.weights import State, load_weights
from umdseg.errors import UserError
from umdseg.vocabulary import Prompt

PARAMETERS, PARAMETERS_TINY = 217_964_982, 2_744_446


@listed(vista3d_card, family="vista3d", parameters=PARAMETERS, options=Vista3dOptions)
def vista3d(options: Vista3dOptions) -> Vista3d:
    """The official network at full size, for CT (NV-Segment-CT)."""
    from monai.networks.nets import vista3d132

    return load_weights(Vista3d(vista3d_card(options.bundle_parity), vista3d132()), options)


@listed(nv_segment_ctmr_card, family="vista3d", parameters=PARAMETERS)
def nv_segment_ctmr(options: ModelOptions) -> Vista3d:
    """The same network with weights for CT and MR, class prompts only."""
    from monai.networks.nets import vista3d132

    return load_weights(Vista3d(nv_segment_ctmr_card(), vista3d132()), options)


@listed(vista3d_tiny_card, family="vista3d", parameters=PARAMETERS_TINY)
def vista3d_tiny(options: ModelOptions) -> Vista3d:
    """The official network in small: 4 levels of one block, 16 filters; its weights know 13 organs."""
    return load_weights(Vista3d(vista3d_tiny_card(), tiny_network()), options)


class Vista3d(Backbone):
    """Encoder once; the class and the point decoder run when first asked and are kept in the features.

    The decoders' loop is `SegResNetDS2.forward` taken apart, calling the official modules in the
    official order, so results are bit-identical. `set_auto_grad` is never called: it would unfreeze
    base weights under an adapter.
    """

    def __init__(self, card: Card, net: nn.Module) -> None:
        super().__init__()
        self.card = card
        self.net = net
        self.new_structures = {}
        self._free_rows: dict[int, torch.Tensor] = {}

    def encode(self, image: torch.Tensor, affine: torch.Tensor | None = None) -> Features:
        """Encode windows (B, 1, X, Y, Z); without `affine`, voxel 0 is at 0 mm and axes are RAS."""
        shape = self.check_edges(image)
        if affine is None:
            spacing = self.card.spacing or (1.0, 1.0, 1.0)
            affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
            affine = affine.expand(image.shape[0], 4, 4)
        return Features(list(self._part("image_encoder").encoder(image)), affine, shape)

    def decode(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (B, K, X, Y, Z): class prompts from the class branch, positions from the point branch.

        `auto_point` asks both and merges them; of a structure without a class, only the points.
        """
        self.check_prompts(prompts)
        planes: list[torch.Tensor | None] = [None] * len(prompts)
        both = [i for i, p in enumerate(prompts) if p.kind == "auto_point" and self.knows(p.structure)]
        auto = [i for i, prompt in enumerate(prompts) if prompt.kind == "auto" or i in both]
        if auto:
            logits = self._by_class(features, [prompts[i].structure for i in auto])
            for k, i in enumerate(auto):
                planes[i] = logits[:, k]
        placed = [i for i, prompt in enumerate(prompts) if prompt.kind != "auto"]
        if placed:
            logits = self._by_point(features, [prompts[i] for i in placed])
            for k, i in enumerate(placed):
                automatic = planes[i]
                planes[i] = logits[:, k]
                if automatic is not None:
                    planes[i] = self._merged(automatic, logits[:, k], prompts[i], features)
        return torch.stack([plane for plane in planes if plane is not None], dim=1)

    def merge(
        self, automatic: torch.Tensor, clicked: torch.Tensor, prompt: Prompt, affine: torch.Tensor
    ) -> torch.Tensor:
        """The paper's Algorithm 1 on one window, as MONAI has it (`connected_components_combine`)."""
        shape = (automatic.shape[0], automatic.shape[1], automatic.shape[2])
        coords, signs = inside(prompt, affine, shape)
        if not len(signs):
            return automatic
        return merge_by_components(
            self.net, automatic, clicked, coords, self._labels(prompt.structure, signs)
        )

    def convert(self, state: State) -> State:
        """The research code's names (MONAI 1.3): two layers renamed, two unused modules dropped."""
        layer = re.compile(r"^(point_head\.transformer\.layers\.\d+\.mlp\.)lin([12])\.")
        if not any(layer.match(key) for key in state):
            return state
        unused = re.compile(r"(^|\.)weight_mapper\.|^point_head\.output_add_hypernetworks_mlps\.")
        kept = {key: value for key, value in state.items() if not unused.search(key)}
        return {layer.sub(r"\1linear\2.", key): value for key, value in kept.items()}

    def dense(self, features: Features) -> torch.Tensor:
        """F (B, D, X, Y, Z): the class branch before the inner product with class vectors."""
        if "dense" not in features.state:
            out = self._decoder("up_layers_auto", features)
            features.state["dense"] = self._part("class_head").image_post_mapping(out)
        return cast(torch.Tensor, features.state["dense"])

    def class_vectors(self, structures: Sequence[str]) -> torch.Tensor:
        """(K, D); each row is normalised by itself, so rows do not depend on what else is asked."""
        head = self._part("class_head")
        indices = torch.tensor([[self.index(name)] for name in structures], device=self._device())
        embedding = head.class_embeddings(indices)
        if head.use_mlp:
            embedding = head.mlp(embedding)
        return cast(torch.Tensor, embedding[:, 0])

    def add_structures(self, structures: Sequence[str]) -> dict[str, int]:
        """Free class rows for the unknown among `structures`, starting from the mean of the known rows."""
        new = [name for name in dict.fromkeys(structures) if not self.knows(name)]
        used = set(self.new_structures.values())
        free = [row for row in self.card.new_rows if row not in used]
        if len(new) > len(free):
            raise UserError(
                f"model {self.card.name} has no class rows left for {len(new)} new structures",
                expected=f"at most {len(free)}",
            )
        table = self._part("class_head").class_embeddings.weight
        known = torch.tensor(sorted(set(self.card.structures.values())), device=table.device)
        rows = dict(zip(new, free, strict=False))
        with torch.no_grad():
            for row in rows.values():
                self._free_rows[row] = table[row].clone()
                table[row] = table[known].mean(dim=0)
        self.new_structures.update(rows)
        return {name: self.index(name) for name in structures if name not in self.card.groups}

    def forget_structures(self) -> None:
        """Put back what the learned structures' class rows held."""
        with torch.no_grad():
            for row, values in self._free_rows.items():
                self._part("class_head").class_embeddings.weight[row] = values
        self._free_rows = {}
        self.new_structures = {}

    def _by_class(self, features: Features, structures: Sequence[str]) -> torch.Tensor:
        members = [self.card.members(name) for name in structures]
        asked = list(dict.fromkeys(name for group in members for name in group))
        vectors = self.class_vectors(asked)
        dense = self.dense(features)
        b, d = dense.shape[:2]
        # a single class is multiplied as a vector, as in the official head (same rounding)
        logits = (vectors[0] if len(asked) == 1 else vectors) @ dense.reshape(b, d, -1)
        logits = logits.reshape(b, len(asked), *features.shape)
        if all(len(group) == 1 for group in members) and len(asked) == len(members):
            # the rule; taking planes apart again would cost more than the matrix product
            return logits
        planes = [logits[:, [asked.index(name) for name in group]].amax(dim=1) for group in members]
        return torch.stack(planes, dim=1)

    def _by_point(self, features: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        if "point" not in features.state:
            features.state["point"] = self._decoder("up_layers", features)
        batch = features.maps[0].shape[0]
        return torch.stack([self._points_of(features.sample(i), prompts) for i in range(batch)])

    def _points_of(self, one: Features, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (K, X, Y, Z) of one sample; prompts with equally many points go through together."""
        out: torch.Tensor = one.state["point"]
        planes = [torch.full(one.shape, BACKGROUND, device=out.device, dtype=out.dtype) for _ in prompts]
        placed = [inside(prompt, one.affine[0], one.shape) for prompt in prompts]
        # padding to a common number of points would change the answer of the shorter prompts
        for count in sorted({len(signs) for _, signs in placed} - {0}):
            which = [i for i, (_, signs) in enumerate(placed) if len(signs) == count]
            coords = torch.stack([placed[i][0] for i in which]).to(out.device, torch.float32)
            labels = torch.stack([self._labels(prompts[i].structure, placed[i][1]) for i in which])
            classes = torch.tensor([[self._point_class(prompts[i].structure)] for i in which])
            logits = self._part("point_head")(
                out, coords, labels.to(out.device), class_vector=classes.to(out.device)
            )
            for k, i in enumerate(which):
                planes[i] = logits[k, 0]
        return torch.stack([plane.to(out.dtype) for plane in planes])

    def _merged(
        self, automatic: torch.Tensor, clicked: torch.Tensor, prompt: Prompt, features: Features
    ) -> torch.Tensor:
        """(B, X, Y, Z) of each, merged sample by sample."""
        pairs = zip(automatic, clicked, features.affine, strict=True)
        return torch.stack([self.merge(ours, theirs, prompt, affine) for ours, theirs, affine in pairs])

    def _point_class(self, structure: str) -> int:
        """The class index given with clicks; what the weights do not know is zero-shot."""
        return self.card.structures.get(structure, self.card.last_supported + 1)

    def _labels(self, structure: str, signs: torch.Tensor) -> torch.Tensor:
        return signs + 2 if self.card.structures.get(structure) in self.card.special else signs

    def _decoder(self, branch: str, features: Features) -> torch.Tensor:
        """One decoder branch of SegResNetDS2 (B, C, X, Y, Z)."""
        *skips, x = features.maps
        for level, skip in zip(getattr(self._part("image_encoder"), branch), reversed(skips), strict=True):
            x = level["upsample"](x)
            x = x + skip
            x = level["blocks"](x)
        # with dsdepth 1 only the finest level has a head
        return cast(torch.Tensor, level["head"](x))

    def _part(self, name: str) -> Any:
        # an adapter may have wrapped the network; its wrapper passes attributes through
        return getattr(self.net, name)

    def _device(self) -> torch.device:
        return next(self.net.parameters()).device
