"""What L_contr costs, side by side in one run: `python -m prffn bench`, results in reports/bench/.

Loss and gradient alone in every implementation, and whole training steps of full-size PRFFN, by `timing.py`.
Timings differ from machine to machine and from hour to hour: read the ratios.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from prffn.evaluation.cost import Case, LossCase, StepCase, measure_in_turns
from prffn.files import atomic_write, reports_root, save_record
from prffn.reporting.plots import STYLE, new_figure, save_figure
from prffn.reporting.tables import markdown, write_markdown
from prffn.study.provenance import provenance
from prffn.training.device import pick_device

SIZES = (16, 64, 256, 1024, 4096)
IMPLEMENTATIONS: tuple[Any, ...] = ("reference", "compiled reference", "matmul or cdist", "streaming", "compiled")
OURS: Any = "compiled"
"""The implementation to use where a compiler works."""
FORMS: dict[str, dict[str, Any]] = {
    "InfoNCE, squared": {"form": "infonce", "similarity": "squared", "temperature": 0.001},  # the default
    "InfoNCE, L1": {"form": "infonce", "similarity": "l1", "temperature": 0.1},
    "InfoNCE, cosine": {"form": "infonce", "similarity": "cosine", "temperature": 0.1},
    "InfoNCE, dot": {"form": "infonce", "similarity": "dot", "temperature": 0.1},
    "ratio": {"form": "ratio"},
}
BATCH = 16
"""The paper profile's batch: 16 LR patches of 48 x 48, HR patches of 144 x 144."""
MEMORY_LIMIT = 8e9
"""A case that must keep more bytes than this in S x S matrices is not run."""
MATRICES = {"reference": 6, "compiled reference": 3, "matmul or cdist": 2}
"""How many S x S matrices in float32 are kept for the gradient, at least: our count, with 3 for each RGB difference."""


def kept_bytes(implementation: str, size: int, batch: int = BATCH) -> int:
    """Bytes of the S x S matrices that a case keeps for its gradient: a lower bound."""
    return MATRICES.get(implementation, 0) * batch * 144 * 144 * size * 4


def cases(batch: int, steps: int) -> dict[str, Case]:
    """All cases by label: "form, S, implementation" for the loss alone; "step" and "step, form, S, implementation"."""
    found: dict[str, Case] = {"step": StepCase(batch=batch, steps=steps)}
    for form, options in FORMS.items():
        for size in SIZES:
            for name in IMPLEMENTATIONS:
                if kept_bytes(name, size, batch) <= MEMORY_LIMIT:
                    found[_label(form, size, name)] = LossCase(
                        region_size=size, implementation=name, batch=batch, **options
                    )
            if size in (256, 4096):
                found["step, " + _label(form, size, OURS)] = StepCase(
                    region_size=size, implementation=OURS, batch=batch, steps=1, **options
                )
    return found


def is_ours(case: LossCase) -> bool:
    return case.implementation in ("streaming", "compiled")


def _label(form: str, size: int, implementation: str) -> str:
    return f"{form}, S = {size}, {implementation}"


def median(turns: list[dict[str, Any]], name: str) -> float | None:
    """The median of a figure over the turns; None where the case was not run or failed."""
    values = [turn[name] for turn in turns if name in turn]
    return float(pd.Series(values).median()) if values else None


def run(device_asked: str, turns: int, batch: int = BATCH, steps: int = 3) -> dict[str, pd.DataFrame]:
    """Measures all cases in turns and writes reports/bench/contrast.{md,csv,json,png}. Returns the tables."""
    device = pick_device(device_asked)
    every = cases(batch, steps)
    rivals = {label for label, case in every.items() if isinstance(case, LossCase) and not is_ours(case)}
    measured = measure_in_turns(every, device, turns, once=rivals)
    record = {
        "key": "contrast",
        "measured": measured,
        "batch": batch,
        "turns": turns,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": provenance(device, torch.get_num_threads()),
    }
    save_record(reports_root() / "bench", "contrast", record)
    return write(record)


def cost_table(measured: Mapping[str, list[dict[str, Any]]], batch: int) -> pd.DataFrame:
    """Loss and gradient alone: ms, share of a step, MB, and the multiples of ours, for each form, S, implementation."""
    step = median(measured["step"], "seconds")
    rows = []
    for form in FORMS:
        for size in SIZES:
            own = measured[_label(form, size, OURS)]
            for name in IMPLEMENTATIONS:
                row: dict[str, Any] = {"form": form, "S": size, "implementation": name}
                turns = measured.get(_label(form, size, name), [])
                seconds, mb = median(turns, "seconds"), median(turns, "peak_mb")
                if seconds is not None and mb is not None and step:
                    row |= {"ms": f"{1000 * seconds:.0f}", "% of a step": f"{100 * seconds / step:.2f}"}
                    row |= {"extra MB": f"{mb:.0f}"}
                    row |= {"times our time": _times(seconds, median(own, "seconds"))}
                    row |= {"times our MB": _times(mb, median(own, "peak_mb"))}
                elif turns:
                    row["note"] = f"failed: {turns[0]['error'][:60]}"
                else:
                    row["note"] = f"not run: keeps {kept_bytes(name, size, batch) / 1e9:.0f} GB"
                rows.append(row)
    return pd.DataFrame(rows).set_index(["form", "S", "implementation"]).fillna("")


def _times(value: float, own: float | None) -> str:
    return f"{value / own:.1f}" if own else ""


def step_table(measured: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """What ours adds to a whole training step, in per cent of the step's time and of its peak memory.

    Time: that of loss and gradient alone over that of the step, which is steadier than the difference of two steps.
    Memory: the difference of the peaks of two trainings, with and without.
    """
    step, plain = median(measured["step"], "seconds"), median(measured["step"], "peak_mb")
    rows = []
    for form in FORMS:
        for size in SIZES:
            seconds = median(measured[_label(form, size, OURS)], "seconds")
            with_loss = median(measured.get("step, " + _label(form, size, OURS), []), "peak_mb")
            rows.append({
                "form": form, "S": size, "implementation": OURS,
                "adds to time (%)": f"{100 * seconds / step:.2f}" if seconds and step else "",
                "adds to peak memory (%)": f"{100 * (with_loss / plain - 1):.2f}" if with_loss and plain else "",
            })  # fmt: skip
    return pd.DataFrame(rows).set_index(["form", "S"])


def plot(measured: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """Milliseconds of loss and gradient against S, a panel for each form; grey: a training step without L_contr."""
    step = median(measured["step"], "seconds")
    with plt.style.context(STYLE):
        figure, axes = new_figure(ncols=len(FORMS), figsize=(12, 3.6), sharey=True)
        for ax, form in zip(axes, FORMS, strict=True):  # type: ignore[call-overload]
            for n, name in enumerate(IMPLEMENTATIONS):
                times = {s: median(measured.get(_label(form, s, name), []), "seconds") for s in SIZES}
                points = {s: 1000 * t for s, t in times.items() if t}
                if points:
                    ax.loglog(list(points), list(points.values()), f"{'osD^v'[n]}-", color=f"C{n}", label=name)
            if step:
                ax.axhline(1000 * step, color="0.55", linestyle=":", label="training step without L_contr")
            ax.set_xticks(SIZES, [str(s) for s in SIZES], fontsize=8)
            ax.minorticks_off()
            ax.set_xlabel("region size S (pixels)")
            ax.set_title(form, fontsize=10)
        axes[0].set_ylabel("loss and gradient (ms)")  # type: ignore[index]
        handles, labels = axes[1].get_legend_handles_labels()  # type: ignore[index]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure


def write(record: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Writes reports/bench/contrast.{md,csv,png} from a record. Returns the tables."""
    folder, measured, made = reports_root() / "bench", record["measured"], record["provenance"]
    costs, steps = cost_table(measured, record["batch"]), step_table(measured)
    save_figure(plot(measured), folder / "contrast.png")
    with atomic_write(folder / "contrast.csv", "w") as file:
        costs.to_csv(file, lineterminator="\n")
    where = {
        "device": f"{made['device_name']} ({made['device']})",
        "threads": made["threads"],
        "torch": made["versions"]["torch"],
        "commit": made["commit"],
        "measured": record["finished"][:10],
        "turns": record["turns"],
        "training step without L_contr": f"{median(measured['step'], 'seconds'):.2f} s, "
        f"{median(measured['step'], 'peak_mb'):.0f} MB",
    }
    text = [
        "# L_contr: time and memory",
        f"{record['batch']} HR patches of 144 x 144, float32; full-size PRFFN (64 channels, 10 groups, x3). Medians of "
        "repeated calls and turns, each case in its own process, all side by side in one run. Memory: peak of the "
        "resident memory (CUDA: of the allocator) above what the process had before.",
        "*reference*: the definition written out, all pairs by broadcasting, and autograd: the straightforward "
        "version. *matmul or cdist*: all pairs by one library call, and autograd. *streaming*, *compiled*: ours.",
        "## What ours adds to a training step with L_1 alone",
        markdown(steps),
        "## Loss and gradient alone",
        "![Time of loss and gradient against the region size](contrast.png)",
        "Rivals, and what takes more than 3 s, are measured in the first turn only.",
        markdown(costs),
        "## Where",
        markdown(pd.DataFrame({"value": where})),
    ]
    write_markdown(folder / "contrast.md", text)
    return {"costs": costs, "steps": steps}
