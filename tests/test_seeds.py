from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from umdseg.seeds import derive, generator


def test_the_same_seed_and_purpose_give_the_same_numbers_in_another_process():
    # str hashes differ between processes; seeds must not
    draw = "generator(7, 'subject', 'p01', 3).integers(1 << 62, size=4).tolist()"
    code = f"from umdseg.seeds import generator; print({draw})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(generator(7, "subject", "p01", 3).integers(1 << 62, size=4).tolist())


def test_purposes_do_not_share_a_seed():
    seeds = {derive(seed, room, i) for seed in range(10) for room in ("patch", "click") for i in range(100)}
    assert len(seeds) == 10 * 2 * 100


@pytest.mark.parametrize(
    ("one", "other"), [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((1, 11), (11, 1))]
)
def test_purposes_are_not_glued_together(one, other):
    assert derive(0, *one) != derive(0, *other)


def test_seeds_fit_every_generator_in_use():
    # torch takes signed 64-bit seeds
    assert all(0 <= derive(s, "x") < 2**63 for s in range(1000))


def test_streams_of_neighbouring_purposes_are_uncorrelated():
    draws = np.stack([generator(0, "epoch", i).standard_normal(2000) for i in range(20)])
    correlation = np.corrcoef(draws)[~np.eye(20, dtype=bool)]
    # 190 independent pairs: 5 standard errors are never reached by chance
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
