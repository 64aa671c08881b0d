"""Time and memory of L_contr, side by side in one run: `python -m prffn bench`, results in reports/bench/.

Each case runs in a process of its own, so that its peak of resident memory is its own; the cases take turns, and the
median of the turns counts. Timings differ from machine to machine and from hour to hour: read the ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.losses.contrast import Implementation, pixel_contrast, regions
from prffn.machine import commit, device_name, peak_memory_mb, pick_device, reset_peak_memory
from prffn.paths import atomic_write, reports_root, write_json
from prffn.report import STYLE, markdown, new_figure, save_figure

SIZES = (16, 64, 256, 1024, 4096)
IMPLEMENTATIONS = ("reference", "matmul", "compiled reference", "streaming")
FORMS: dict[str, dict] = {
    "ratio": {"form": "ratio"},
    "InfoNCE, L1": {"form": "infonce", "similarity": "l1"},
    "InfoNCE, squared": {"form": "infonce", "similarity": "squared"},
}
BATCH = (16, 3, 144, 144)
"""The paper profile's HR batch: 16 patches of 48 x 48 at x3."""
MEMORY_LIMIT = 8e9
"""A case that must keep more bytes than this in S x S matrices is not run."""


def matmul_infonce(sr: Tensor, hr: Tensor, region_size: int) -> Tensor:
    """InfoNCE with the squared distance as most would write it: a matrix product, cross-entropy, autograd."""
    losses = []
    for x, y in zip(regions(sr, region_size), regions(hr, region_size), strict=True):
        scores = (2 * x @ y.transpose(1, 2) - y.square().sum(2).unsqueeze(1)) / 0.1
        target = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        losses.append(F.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none"))
    return torch.cat(losses).mean()


def loss_function(form: str, implementation: str, size: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The loss of a case; None where there is no such case."""
    options = FORMS[form]
    if implementation == "matmul":
        return (lambda sr, hr: matmul_infonce(sr, hr, size)) if form == "InfoNCE, squared" else None
    name: Implementation = "streaming" if implementation == "streaming" else "reference"

    def loss(sr: Tensor, hr: Tensor) -> Tensor:
        return pixel_contrast(sr, hr, size, implementation=name, **options)

    return torch.compile(loss) if implementation.startswith("compiled") else loss


def kept_bytes(form: str, implementation: str, size: int) -> float:
    """Bytes of the S x S matrices that a case keeps for its gradient, by its formula: a lower bound."""
    matrix = BATCH[0] * BATCH[2] * BATCH[3] * size * 4
    matrices = {"ratio": 2, "InfoNCE, L1": 4, "InfoNCE, squared": 12}[form]
    return 0 if implementation == "streaming" else matrix * (2 if implementation == "matmul" else matrices)


def measure(form: str, implementation: str, size: int, device: torch.device, seconds: float) -> dict[str, float]:
    """Median milliseconds of loss and gradient, peak MB above the images', and the loss. Takes about `seconds`."""
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(BATCH, generator=generator)
    sr = (hr + 0.1 * torch.randn(BATCH, generator=generator)).to(device).requires_grad_()
    hr = hr.to(device)
    loss = loss_function(form, implementation, size)
    assert loss is not None

    def once() -> float:
        sr.grad = None
        began = time.perf_counter()
        value = loss(sr, hr)
        value.backward()
        last.append(value.item())  # waits for the device
        return time.perf_counter() - began

    last: list[float] = []
    reset_peak_memory(device)
    before = peak_memory_mb(device)
    once()  # not counted: a compiler works in it, and memory is touched for the first time
    peak = peak_memory_mb(device) - before
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < seconds:
        times.append(once())
    return {"ms": 1000 * statistics.median(times), "peak MB": max(peak, 0.0), "loss": last[-1]}


def step_ms(device: torch.device, batch: int = 1) -> float:
    """Median milliseconds of a training step of full-size PRFFN at x3 with L_1 alone, for 16 patches.

    Measured on `batch` patches of 48 x 48 and multiplied up, so that a CPU gets there.
    """
    from prffn.models import PRFFN

    model = PRFFN(3, generator=torch.Generator().manual_seed(0)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    lr, hr = torch.rand(batch, 3, 48, 48, device=device), torch.rand(batch, 3, 144, 144, device=device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        optimizer.zero_grad()
        value = F.l1_loss(model(lr), hr)
        value.backward()
        optimizer.step()
        value.item()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[1:]) * BATCH[0] / batch


def run(device_asked: str, turns: int, seconds: float) -> pd.DataFrame:
    """Measures all cases in turn and writes reports/bench/contrast.{md,csv,json,png}. Returns the table."""
    device = pick_device(device_asked)
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    why_not: dict[tuple[str, str, int], str] = {}
    cases = [(f, i, s) for f in FORMS for s in SIZES for i in IMPLEMENTATIONS if loss_function(f, i, s)]
    for turn in range(turns):
        for case in cases:
            if (needed := kept_bytes(*case)) > MEMORY_LIMIT:
                why_not[case] = f"not run: keeps {needed / 1e9:.0f} GB"
            if case in why_not:
                continue
            command = [sys.executable, "-m", "prffn.bench", *map(str, case), str(device), str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                why_not[case] = "failed: " + (done.stderr.strip().splitlines() or ["killed"])[-1][:60]
                continue
            found.setdefault(case, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(f"turn {turn + 1}: {case}: {found[case][-1]['ms']:.1f} ms", flush=True)
    step = step_ms(device)
    rows = []
    for case in cases:
        form, implementation, size = case
        row = {"form": form, "S": size, "implementation": implementation}
        if case in found:
            ms = statistics.median(m["ms"] for m in found[case])
            own = statistics.median(m["ms"] for m in found[(form, "streaming", size)])
            row |= {
                "ms": f"{ms:.1f}", "times streaming": f"{ms / own:.1f}", "% of a step": f"{100 * ms / step:.1f}",
                "peak MB": f"{max(m['peak MB'] for m in found[case]):.0f}",
            }  # fmt: skip
        rows.append({**row, "note": why_not.get(case, "")})
    table = pd.DataFrame(rows).set_index(["form", "S", "implementation"]).fillna("")
    where = {
        "device": f"{device_name(device)} ({device.type})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "measured": datetime.now(UTC).date().isoformat(),
        "training step without L_contr, ms": round(step),
        "turns": turns,
    }
    write(table, where)
    return table


def write(table: pd.DataFrame, where: dict[str, Any]) -> None:
    """Writes reports/bench/contrast.{md,csv,json,png}: the table, a plot, and where it was measured."""
    folder = reports_root() / "bench"
    with plt.style.context(STYLE):
        figure, axes = new_figure(ncols=len(FORMS), figsize=(10, 3.6), sharey=True)
        for ax, form in zip(axes, FORMS, strict=True):  # type: ignore[call-overload]
            for n, implementation in enumerate(IMPLEMENTATIONS):
                rows = table.xs((form, implementation), level=("form", "implementation"), drop_level=True)
                rows = rows[rows["ms"] != ""] if len(rows) else rows
                if len(rows):
                    ax.loglog(
                        rows.index, rows["ms"].astype(float), f"{'os^D'[n]}-", color=f"C{n}", label=implementation
                    )
            ax.axhline(
                where["training step without L_contr, ms"],
                color="0.55",
                linestyle=":",
                label="training step without L_contr",
            )
            ax.set_xticks(SIZES, [str(s) for s in SIZES])
            ax.set_xlabel("region size S (pixels)")
            ax.set_title(form, fontsize=10)
        axes[0].set_ylabel("loss and gradient (ms)")  # type: ignore[index]
        handles, labels = axes[-1].get_legend_handles_labels()  # type: ignore[index]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    save_figure(figure, folder / "contrast.png")
    with atomic_write(folder / "contrast.csv", "w") as file:
        table.to_csv(file, lineterminator="\n")
    rows = json.loads(table.reset_index().to_json(orient="records"))
    write_json(folder / "contrast.json", {"where": where, "table": rows})
    text = [
        "# L_contr: time and memory of loss and gradient",
        "16 HR patches of 144 x 144, float32. Medians of repeated calls, each case in its own process, side by side in "
        f"one run; turns: {where['turns']}. Peak: of resident memory (CUDA: of the allocator), above the images', in "
        "the first call (of the compiled reference, with the compiler's own). A step: full-size PRFFN (64 channels, 10 "
        "groups, x3) with L_1 alone, measured on one patch and multiplied by 16.",
        "![Time of loss and gradient against the region size](contrast.png)",
        markdown(table),
        "## Where",
        markdown(pd.DataFrame({"value": where})),
    ]
    with atomic_write(folder / "contrast.md", "w") as file:
        file.write("\n\n".join(text) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="measures one case")
    for name, kind in (("form", str), ("implementation", str), ("size", int), ("device", str), ("seconds", float)):
        parser.add_argument(name, type=kind)
    o = parser.parse_args()
    print(json.dumps(measure(o.form, o.implementation, o.size, torch.device(o.device), o.seconds)))
