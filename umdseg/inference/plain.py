"""The base model inside an adapted and fused one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from umdseg.adapters import disable
from umdseg.backbones.base import Backbone
from umdseg.fusion.base import Fused


@contextmanager
def plain(backbone: Backbone) -> Iterator[Backbone]:
    """Inside the block: the base model exactly as before, without adapter and fusion."""
    inner = backbone.inner if isinstance(backbone, Fused) else backbone
    with disable(inner):
        yield inner
