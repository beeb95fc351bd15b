"""Whole-body class inference against MONAI's sliding window, as ratios within one run.

Each way runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from umdseg.backbones import Backbone

SHAPE = (144, 96, 320)  # voxels of a preprocessed volume
CLASSES = (13, 117)
OVERLAP = 0.25


def ours(classes: int) -> torch.Tensor:
    """Stitch the class branch's features once, then ask for the classes."""
    from umdseg.inference import segment

    backbone, names = _model(classes)
    return torch.as_tensor(segment(backbone, _volume(), names, overlap=OVERLAP, precision="fp32"))


def monai(classes: int) -> torch.Tensor:
    """Stitch one logit map per class, as MONAI's inferers do, then take the best positive one."""
    from monai.inferers import sliding_window_inference

    backbone, names = _model(classes)
    from umdseg.vocabulary import Prompt

    prompts = [Prompt(name) for name in names]
    with torch.no_grad():
        logits = sliding_window_inference(
            _volume(),
            backbone.card.window,
            1,
            lambda part: backbone.decode(backbone.encode(part), prompts),
            overlap=OVERLAP,
            mode="gaussian",
        )
    best, position = torch.as_tensor(logits)[0].max(dim=0)
    return torch.where(best > 0, position + 1, 0)


def _model(classes: int) -> tuple[Backbone, list[str]]:
    import umdseg

    torch.manual_seed(0)
    backbone = umdseg.load_backbone("vista3d_tiny", "random")
    known = list(backbone.card.structures)
    new = [f"benchmark_{index}" for index in range(max(0, classes - len(known)))]
    rows = backbone.add_structures(new) if new else {}
    table = backbone.net.get_parameter(f"{backbone.card.class_rows}.weight")
    with torch.no_grad():
        for row in rows.values():  # rows that start equal would all tie
            table[row] += torch.randn(table.shape[1])
    return backbone, [*known, *new][:classes]


def _volume() -> torch.Tensor:
    return torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))


def measure(way: str, classes: int) -> dict[str, float]:
    """Seconds, and the peak memory (GB) above what was held before the first window."""
    run = ours if way == "umdseg" else monai
    _model(classes)  # imports are not timed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = run(classes)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "gb": (peak - before) / 1e6, "check": float(found.float().mean())}


def main() -> None:
    """Run all ways and print the section."""
    head = (
        "classes",
        "time, MONAI / umdseg",
        "peak memory, MONAI / umdseg",
        "difference of the mean label value",
    )
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|"]
    for classes in CLASSES:
        found = {}
        for way in ("umdseg", "monai"):
            command = [sys.executable, __file__, way, str(classes)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way] = json.loads(done.stdout.strip().splitlines()[-1])
        a, b = found["umdseg"], found["monai"]
        row = (classes, b["seconds"] / a["seconds"], b["gb"] / a["gb"], abs(a["check"] - b["check"]))
        lines.append("| {} | {:.2f} | {:.2f} | {:.4f} |".format(*row))
        print(lines[-1], file=sys.stderr)
    print(f"""## Class inference

`python benchmarks/run.py classes`: class inference on one volume of {SHAPE} voxels with `vista3d_tiny`
(random weights, fp32, windows of its card, overlap {OVERLAP}) against
`monai.inferers.sliding_window_inference` on one logit map per class. Ratios of one run on
{torch.get_num_threads()} CPU threads; above 1 means umdseg needs less. No GPU was available when this was
measured.
""")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
