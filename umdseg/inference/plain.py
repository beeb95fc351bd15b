"""The base model inside an adapted and fused one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from umdseg.adapters import disable
from umdseg.backbones.base import Backbone
from umdseg.fusion.base import Fused


@contextmanager
def plain(backbone: Backbone) -> Iterator[None]:
    """Inside the block the backbone is the base model exactly as before, without adapter and fusion."""
    with disable(backbone):
        if isinstance(backbone, Fused):
            with backbone.off():
                yield
        else:
            yield
