"""One place for randomness: every generator is derived from the run's seed and a purpose."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *purpose: object) -> int:
    """A seed for one purpose (subject, epoch, scan ...), independent of all others."""
    text = repr((int(seed), *map(str, purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A numpy generator for one purpose."""
    return np.random.default_rng(derive(seed, *purpose))
