"""What L_contr costs in every implementation, side by side in one run: `python -m prffn bench`, in reports/bench/."""

import math
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from prffn.evaluation.cost import Case, LossCase, StepCase, in_rounds, peak_memory
from prffn.reporting.plots import STYLE, new_figure, region_size_axis
from prffn.reporting.report import write_report
from prffn.reporting.tables import markdown, where_made
from prffn.study.provenance import measured
from prffn.study.timings import Timings
from prffn.training.device import pick_device

SIZES = (16, 64, 256, 1024, 4096)
IMPLEMENTATIONS: tuple[Any, ...] = ("reference", "streaming", "auto")
FORMS: dict[str, dict[str, Any]] = {
    "InfoNCE, squared": {},  # the default
    "InfoNCE, L1": {"similarity": "l1", "temperature": 0.1},
    "InfoNCE, cosine": {"similarity": "cosine", "temperature": 0.1},
    "InfoNCE, dot": {"similarity": "dot", "temperature": 0.1},
    "ratio": {"form": "ratio"},
}
LARGEST_REFERENCE = 1024  # of its S: beyond, its S x S matrices take tens of gigabytes with 16 patches
Subject = tuple[str, int, str]  # form, S, implementation


def cases(batch: int) -> dict[Subject, Case]:
    """Loss and gradient alone, for each form, S and implementation."""
    return {
        (form, size, how): LossCase(contrast={"region_size": size, **settings}, implementation=how, batch=batch)
        for form, settings in FORMS.items()
        for size in SIZES
        for how in IMPLEMENTATIONS
        if how != "reference" or size <= LARGEST_REFERENCE
    }


def run(device_asked: str, rounds: int, batch: int) -> pd.DataFrame:
    """Measures all cases and writes reports/bench/contrast.{md,csv,json,png}. Returns the table."""
    device, started = pick_device(device_asked), datetime.now(UTC)
    losses = {_label(*subject): case for subject, case in cases(batch).items()}
    seconds = in_rounds({"step": StepCase(batch=batch), **losses}, rounds, device)
    record = {"seconds": seconds, "peak_mb": peak_memory(losses, device), **measured(started, device)}
    timings = Timings(record, "bench", loaded=False)
    table, step = cost_table(timings), timings["step"].get("seconds", math.nan)
    about = {"batch": batch, "rounds": rounds, "step with L_1 alone": f"{step:.2f} s", **where_made([record])}
    write_report(
        "contrast", "bench", title="L_contr: time and memory", label="measured here", table=table, figure=plot(table),
        provenance=pd.DataFrame({"value": about}),
        sections=[
            f"Loss and gradient for {batch} HR patches of 144 x 144 in float32, beside a training step of full-size "
            f"PRFFN (64 channels, 10 groups, x3) with L_1 alone on as many: medians of {rounds} rounds, paired within "
            "each round, with the quartiles of the share of a step. Memory: the peak in a process of its own, above "
            "what it had before.",
            "*reference*: the definition written out, all pairs by broadcasting, and autograd. *streaming*: one pass "
            "in PyTorch. *auto*: what is picked here, the C code on a CPU with a compiler, a Triton kernel on a GPU.",
            "![Time of loss and gradient against the region size](contrast.png)",
            markdown(table),
        ],
    )  # fmt: skip
    return table


def _label(form: str, size: int, how: str) -> str:
    return f"{form}, {size}, {how}"


def cost_table(timings: Timings) -> pd.DataFrame:
    """Milliseconds, per cent of a step with the rounds' quartiles, and the multiple of "auto", for each subject."""
    rows = []
    for form, size, how in cases(batch=1):
        row: dict[str, Any] = {"form": form, "S": size, "implementation": how}
        found = timings[_label(form, size, how)]
        if "error" in found:
            rows.append({**row, "note": found["error"]})
            continue
        middle, low, high = (100 * ratio for ratio in timings.ratio(_label(form, size, how), "step"))
        times = timings.ratio(_label(form, size, how), _label(form, size, "auto"))[0]
        rows.append({
            **row, "ms": round(1000 * found["seconds"], 1), "% of a step": f"{middle:.1f} ({low:.1f} to {high:.1f})",
            "times auto": f"{times:.1f}", "note": "", "extra MB": round(found["peak_mb"]),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["form", "S", "implementation"])


def plot(table: pd.DataFrame) -> Figure:
    """Milliseconds of loss and gradient against S, a panel for each form."""
    with plt.style.context(STYLE):
        figure, axes = new_figure(ncols=len(FORMS), figsize=(12, 3.6), sharey=True)
        for ax, form in zip(axes, FORMS, strict=True):  # type: ignore[call-overload]
            for n, how in enumerate(IMPLEMENTATIONS):
                rows = table.loc[form].xs(how, level="implementation")
                if "ms" in rows and rows["ms"].notna().any():
                    ax.loglog(rows.index, rows["ms"], f"{'osD'[n]}-", color=f"C{n}", label=how)
            region_size_axis(ax, SIZES, fontsize=8)
            ax.set_title(form, fontsize=10)
        axes[0].set_ylabel("loss and gradient (ms)")  # type: ignore[index]
        handles, labels = axes[0].get_legend_handles_labels()  # type: ignore[index]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure
