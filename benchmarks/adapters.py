"""Memory and time of one training step of each adapter against full tuning, as ratios within one run.

Full-size VISTA3D, one patch, class prompts. Each method runs in a process of its own, so that its peak memory
is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

EDGE = 96
STRUCTURES = ("liver", "spleen", "kidney_left")
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"rank": 8},
    "dora": {"rank": 8},
    "lora_conv": {"rank": 8},
    "bottleneck": {},
    "ia3": {},
    "norm": {},
    "bitfit": {},
    "head": {},
    "prompt": {},
}
WARM, TIMED = 1, 2


def measure(method: str) -> dict[str, float]:
    """Seconds of a step, peak memory (GB) of the process or of the GPU, and what is trained."""
    import umdseg
    from umdseg import adapters, registry
    from umdseg.backbones.precision import autocast
    from umdseg.tasks.loss import dice_ce
    from umdseg.vocabulary import Prompt

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = umdseg.load_backbone("vista3d", "random").to(device)
    options = registry.resolve("adapter", method).Options(name=method, **METHODS[method])
    adapter = adapters.build(options)
    adapter.inject(backbone)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    noise = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, EDGE, EDGE, EDGE, generator=noise).to(device)
    target = (torch.rand(1, len(STRUCTURES), EDGE, EDGE, EDGE, generator=noise) > 0.5).to(device)
    prompts = [Prompt(name) for name in STRUCTURES]
    backbone.train()

    def step() -> None:
        optimizer.zero_grad()
        with autocast("auto", device):
            logits = backbone.decode(backbone.encode(image), prompts)
        dice_ce(logits, target).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARM):
        step()
    start = time.perf_counter()
    for _ in range(TIMED):
        step()
    seconds = (time.perf_counter() - start) / TIMED
    gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if device.type == "cuda":
        gb = torch.cuda.max_memory_allocated() / 1e9
    count, total = adapter.parameters(backbone)
    return {"seconds": seconds, "gb": gb, "trained": count, "share": count / total}


def precision() -> str:
    """What `auto` is on this machine."""
    from umdseg.inference.precision import has_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if has_bf16(device) else "fp32"


def main() -> None:
    """Run all methods and print the section."""
    found = {}
    for method in METHODS:
        command = [sys.executable, __file__, method]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[method] = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"{method}: {found[method]}", file=sys.stderr)
    full = found["full"]
    head = (
        "adapter",
        "trained parameters",
        "share",
        "peak memory, full / adapter",
        "step time, full / adapter",
    )
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|"]
    for method, own in found.items():
        told = ", ".join(f"{k} {v}" for k, v in METHODS[method].items())
        ratios = full["gb"] / own["gb"], full["seconds"] / own["seconds"]
        name = f"{method} ({told})" if told else method
        lines.append(
            f"| {name} | {own['trained']:,.0f} | {own['share']:.2%} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    where = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"""## Adapters

`python benchmarks/run.py adapters`: training steps of full-size `vista3d` (random weights) on one patch of
{EDGE}^3 voxels, {len(STRUCTURES)} class prompts, AdamW, {precision()}, {where}. Memory is the peak of
the process (of the GPU where there is one), weights included: {full["gb"]:.1f} GB for full tuning,
{found["lora"]["gb"]:.1f} GB for LoRA. Ratios of one run; above 1 means the adapter needs less.
""")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
