"""An adapter folded into the weights for a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from umdseg.backbones.base import Backbone
from umdseg.errors import UserError


@contextmanager
def merged(backbone: Backbone, route: str | None = None) -> Iterator[None]:
    """Inside the block the adapter is part of the weights, so that answers cost what the base's do.

    A copy is folded while the original waits: afterwards network and adapter are bit for bit what they were,
    the very same tensors (subtracting an update again would round). Costs the network's memory once more.

    Args:
        backbone: the adapted model; a plain one stays as it is.
        route: whose adapter, where there are several.

    Raises:
        UserError: the adapter cannot be folded, there are several and `route` names none of them, or a fusion
            hangs on the network.
    """
    if getattr(backbone, "one_pass", False):
        raise UserError(
            f"fusion '{backbone.kind}' hangs on the network's own first convolution",
            expected="the model as it is, or another fusion",
        )
    net, adapter, digest = backbone.net, backbone.adapter, backbone.state_sha256
    if adapter is None:
        yield
        return
    try:
        # together: the adapter may hold modules of the network
        backbone.net, backbone.adapter = copy.deepcopy((net, adapter))
        backbone.adapter.merge(backbone, route)
        yield
    finally:
        backbone.net, backbone.adapter, backbone.state_sha256 = net, adapter, digest
