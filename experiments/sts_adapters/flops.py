"""FLOPs of one training step of every configuration, and the steps that give a U-Net as many in all.

    python experiments/sts_adapters/flops.py ROOT OUT.json [STEPS]

Counted over the batches of fold 0 with their scans left out as in training (torch's FLOP counter:
multiplications and additions of convolutions and matrix products, forward and backward). What a sample costs
depends on which scans it has, so each such set is run once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

from umdseg.config.check import check
from umdseg.files import write_json
from umdseg.runs.job import Job
from umdseg.runs.people import training_data
from umdseg.runs.train import _fuse, _inject
from umdseg.tasks.fused import together
from umdseg.tasks.segment import SegmentTask

BATCHES, TIMES = 100, (1, 5)
ALL = {"ct": 1, "pet": 1, "mr": 1}
SINGLES = {m: ["experiment=sts_adapters", f"data.train_modalities={{{m}:1}}"] for m in ALL}
PAIRS = {
    "+".join(pair): [
        "experiment=sts_adapters_fused",
        f"data.train_modalities={{{','.join(f'{m}:1' for m in pair)}}}",
        f"data.reference={'pet' if 'pet' in pair else 'mr'}",
    ]
    for pair in (("ct", "pet"), ("pet", "mr"), ("ct", "mr"), ("ct", "pet", "mr"))
}


def main() -> None:
    """Read the arguments and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("steps", type=int, nargs="?", default=300)
    given = parser.parse_args()
    each = {name: flops(given.root, overrides) for name, overrides in (SINGLES | PAIRS).items()}
    costs = {f"LoRA {name}": entry(one, given.steps) for name, one in each.items()}
    unet = flops(given.root, ["experiment=sts_adapters_unet"])
    whole = each["ct+pet+mr"] * given.steps
    for times in TIMES:
        steps = 10 * round(times * whole / unet / 10)
        costs[f"U-Net ct+pet+mr, {steps} steps"] = entry(unet, steps)
    write_json(given.out, costs)
    for name, cost in costs.items():
        told = (
            f"{cost['gflop_per_step']:.1f} GFLOP a step, {cost['steps']:.0f} steps, {cost['tflop']:.2f} TFLOP"
        )
        print(f"{name}: {told}", file=sys.stderr)


def entry(one: float, steps: int) -> dict[str, float]:
    """What a fit costs."""
    return {"gflop_per_step": one / 1e9, "steps": steps, "tflop": one * steps / 1e12}


def flops(root: Path, overrides: list[str]) -> float:
    """Mean of one training step."""
    with tempfile.TemporaryDirectory() as runs:
        settings = check("train", [*overrides, f"data.root={root}", f"runs_dir={runs}"])
        job = Job.open("train", settings)
        adapter, _ = _inject(job)
        job = _fuse(job)
        data = training_data(settings, job.dataset, job.backbone, job.structures)
        task = SegmentTask(job.backbone, adapter, settings.fit, job.structures)
        # nothing is logged: there is no trainer
        task.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        task.backbone.train()
        data.prepare_data()
        held = Counter[tuple[bool, ...]]()
        costs: dict[tuple[bool, ...], int] = {}
        for number, batch in zip(range(BATCHES), data.train_dataloader(), strict=False):
            joined = together(batch, job.backbone, settings.run.seed, number)
            for place in range(len(joined.subject)):
                one = joined.take([place])
                scans = (True,) if one.present is None else tuple(one.present[0].tolist())
                held[scans] += 1
                if scans not in costs:
                    with FlopCounterMode(display=False) as counter:
                        task._step(one, number).backward()
                    costs[scans] = counter.get_total_flops()
        mean = sum(costs[scans] * count for scans, count in held.items()) / held.total()
        return mean * settings.data.batch_size


if __name__ == "__main__":
    main()
