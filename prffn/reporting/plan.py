"""A plan as people read it: what each run and step takes, how long all take on several GPUs, what that assumes."""

import json
import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from prffn.data.images import KNOWN_SETS
from prffn.files import atomic_write, data_root, reports_root, write_json
from prffn.reporting.plots import STYLE, new_figure, save_figure
from prffn.reporting.tables import markdown, write_markdown
from prffn.study.plan import Plan, PlannedRun, cost, start_of
from prffn.study.schedule import lower_bound, makespan
from prffn.training.device import device_name, provenance

GPUS = tuple(range(1, 65))
"""How many GPUs the plot goes to."""

ASSUMED = (
    "A run takes its steps times the time of one, measured over a few steps of the training loop itself on this "
    "device. On another device it takes another time: plan there. A CPU is taken to have nothing else to do.",
    "Where fewer patches than a batch were measured (on CPUs), time is taken to grow in proportion to the patches, "
    "memory in a straight line.",
    "Runs cost the same if they differ only in seed, images, steps, learning rate, or the weight of a loss term.",
    "Not counted: downloading, decoding and downscaling images; evaluating the network, some ten times during a run "
    "and at its end; checkpoints; what notebooks measure beside trainings (Tables 6 and 8).",
    "Memory is what a record gives: the peak of CUDA's allocator, else of the process with its libraries. The training "
    "images, which are mapped into memory, come on top.",
    "One training on each device, all devices like this one. A free one takes the run with the most before it: itself "
    "and those that wait for its weights. A run that several tables ask for is trained once; a recorded one takes no "
    "time; one with a checkpoint on this machine goes on from there.",
    "`python -m prffn reports` trains one run after another on one device. Notebooks side by side, each with its own "
    "`-p device cuda:0`, `cuda:1`, ..., share their runs, but come down to this schedule only where their runs divide "
    "so evenly.",
)
"""What a plan assumes."""


def duration(seconds: float) -> str:
    """A time in the unit that people would use: "8.0 s", "13.5 min", "55.6 h", "12.3 days"; "unknown" for NaN."""
    if math.isnan(seconds):
        return "unknown"
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 100)):
        if seconds / length < limit:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def runs_table(plan: Plan) -> pd.DataFrame:
    """One row for each distinct run, times in seconds; `took`: the training time in its record, wherever made."""
    rows = [
        {
            "run": run.name,
            "asked for by": "; ".join(map(": ".join, run.askers)),
            "state": run.state,
            "key": run.key,
            "starts from": start_of(run.experiment),
            "steps": run.experiment.training.steps,
            "s/step": run.estimate.seconds,
            "estimated (s)": run.seconds,
            "left (s)": run.left,
            "took (s)": run.record["train_seconds"] if run.record else math.nan,
            "memory (MB)": run.estimate.memory_mb,
            "measured with": run.estimate.measured_with or f"failed: {run.estimate.error}",
        }
        for run in plan.runs
    ]
    return pd.DataFrame(rows).set_index("run")


def readable_runs(plan: Plan) -> pd.DataFrame:
    """The runs by label, the notebooks that ask for them, times in units that people use; no empty columns."""
    rows = []
    for run in plan.runs:
        names = dict.fromkeys(notebook for notebook, _ in run.askers)
        rows.append({
            "run": f"{run.askers[0][1]}, seed {run.experiment.seed}", "asked for by": ", ".join(names),
            "state": run.state, "starts from": start_of(run.experiment), "steps": run.experiment.training.steps,
            "estimated": duration(run.seconds), "left": duration(run.left),
            "took": duration(run.record["train_seconds"]) if run.record else "",
            "memory (MB)": _megabytes(run.estimate.memory_mb),
        })  # fmt: skip
    table = pd.DataFrame(rows).set_index("run")
    return table.drop(columns=[name for name in ("starts from", "took") if not table[name].any()])


def costs_table(plan: Plan) -> pd.DataFrame:
    """One row for each distinct cost, named after the first run that has it: how many have, a step, its memory."""
    rows: dict[Any, dict[str, Any]] = {}
    for run in plan.runs:
        row = rows.setdefault(cost(run.experiment), {
            "as": ": ".join(run.askers[0]), "runs": 0, "s/step": f"{run.estimate.seconds:.3g}",
            "memory (MB)": _megabytes(run.estimate.memory_mb),
            "measured with": run.estimate.measured_with or f"failed: {run.estimate.error}",
        })  # fmt: skip
        row["runs"] += 1
    return pd.DataFrame(list(rows.values())).set_index("as")


def _megabytes(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.0f}"


def totals(plan: Plan, gpus: int) -> dict[str, str]:
    """What all runs take together, and how long on so many GPUs."""
    left, after, runs = plan.left(), plan.after(), plan.runs
    recorded = [run for run in runs if run.record]
    unknown = [run for run in runs if math.isnan(run.seconds)]
    known = [run for run in runs if not math.isnan(run.seconds)]
    where = device_label(plan)
    rows = {
        "device that was measured": where,
        "runs that the notebooks ask for": str(plan.asked),
        "distinct runs": f"{len(runs)}: {len(recorded)} recorded, {len(runs) - len(recorded)} to train",
        "estimated, all from the beginning": f"{duration(sum(run.seconds for run in known))} on one {where}",
        "estimated, still to be trained": f"{duration(sum(left.values()))} on one {where}",
        "longest run": duration(max((run.seconds for run in known), default=0.0)),
        "most memory of a run": f"{max((run.estimate.memory_mb for run in known), default=0.0):.0f} MB",
        f"all done on {gpus} of them": f"{duration(makespan(left, gpus, after))}; no schedule can be below "
                                       f"{duration(lower_bound(left, gpus, after))}",
    }  # fmt: skip
    if unknown:
        rows["without an estimate, in no sum"] = f"{len(unknown)} runs: their step failed here"
    if busy := {cost(run.experiment) for run in runs if run.estimate.busy}:
        every = {cost(run.experiment) for run in runs}
        rows["measured while other programs took the cores"] = (
            f"{len(busy)} of {len(every)} costs, which are less certain: plan again with --fresh when nothing else runs"
        )
    if near := [ratio for run in recorded if (ratio := _over_recorded(run, plan))]:
        rows["estimated / taken, of recorded runs made on such a device"] = (
            f"{statistics.median(near):.2f}, median of {len(near)} ({min(near):.2f} to {max(near):.2f})"
        )
    if missing := missing_sets(plan):
        rows["image sets that are not at hand"] = f"{', '.join(missing)}: python -m prffn data get {' '.join(missing)}"
    if plan.idle:
        rows["notebooks that train nothing"] = ", ".join(plan.idle)
    return rows


def _over_recorded(run: PlannedRun, plan: Plan) -> float | None:
    """The estimate over the time in the record, if that was made on a device of this model and there is an estimate."""
    if not run.record or math.isnan(run.seconds):
        return None
    made = run.record["provenance"]
    here = (made["device"], made["device_name"]) == (plan.device.type, device_name(plan.device))
    return run.seconds / run.record["train_seconds"] if here else None


def device_label(plan: Plan) -> str:
    """The device whose steps were measured, as it stands beside every estimate."""
    return f"{device_name(plan.device)} ({plan.device.type})"


def missing_sets(plan: Plan) -> list[str]:
    """Image sets that the runs to be trained need and whose folder is not there."""
    data = [run.experiment.data for run in plan.runs if not run.record]
    names = dict.fromkeys(name for d in data for name in (d.train, *d.evaluation))
    return [name for name in names if name in KNOWN_SETS and not (data_root() / KNOWN_SETS[name].folder).is_dir()]


def makespan_table(plan: Plan, gpus: Sequence[int] = GPUS) -> pd.DataFrame:
    """Seconds until all is trained, and the lower bound of all schedules, by the number of GPUs."""
    left, after = plan.left(), plan.after()
    rows = [
        {"gpus": n, "makespan (s)": makespan(left, n, after), "bound (s)": lower_bound(left, n, after)} for n in gpus
    ]
    return pd.DataFrame(rows).set_index("gpus")


def plot_makespan(ax: Axes, table: pd.DataFrame, device: str) -> Axes:
    """Time until all is trained against the number of GPUs; dashed grey: the lower bound of all schedules.

    table: from `makespan_table`. Returns the axis.
    """
    unit, length = "s", 1
    for name, size in (("min", 60), ("h", 3600), ("days", 86400)):
        if table["makespan (s)"].max() > 3 * size:
            unit, length = name, size
    with plt.style.context(STYLE):
        ax.plot(table.index, table["makespan (s)"] / length, "o-", color="C0", markersize=3, label="longest run first")
        ax.plot(table.index, table["bound (s)"] / length, "--", color="0.55",
                label="lower bound: the longest run, or an equal share for each")  # fmt: skip
        ax.set_xscale("log", base=2)
        ticks = [n for n in table.index if n & (n - 1) == 0]
        ax.set_xticks(ticks, [str(n) for n in ticks])
        if table["makespan (s)"].min() > 0:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
        ax.set_xlabel(f"number of devices: {device}")
        ax.set_ylabel(f"until all runs are trained ({unit})")
        ax.legend(fontsize=8)
    return ax


def save_plan(plan: Plan, gpus: int) -> str:
    """Writes reports/<profile>/plan.{md,csv,png,json}. Returns the text for the terminal.

    gpus: for how many the makespan is given. Raises ValueError, before anything is written, if it is not 1 or more.
    """
    table, costs, summary, spans = runs_table(plan), costs_table(plan), totals(plan, gpus), makespan_table(plan)
    folder, title = reports_root() / plan.profile, f"Plan of profile {plan.profile}"
    figure, ax = new_figure()
    plot_makespan(ax, spans, device_label(plan))
    save_figure(figure, folder / "plan.png")
    with atomic_write(folder / "plan.csv", "w") as file:
        table.to_csv(file, lineterminator="\n")
    made = provenance(plan.device, torch.get_num_threads())
    where = {
        "device": device_label(plan),
        "threads": f"{made['threads']} (small networks: 1)",
        "torch": made["versions"]["torch"],
        "commit": made["commit"] or "none",
        "planned": datetime.now(UTC).date().isoformat(),
    }
    write_json(folder / "plan.json", {
        "kind": "plan",
        "title": title,
        "profile": plan.profile,
        "label": f"estimated from a short measurement on {device_label(plan)}",
        "totals": summary,
        "runs": json.loads(table.reset_index().to_json(orient="records")),
        "makespan": json.loads(spans.reset_index().to_json(orient="records")),
        "assumed": list(ASSUMED),
        "provenance": made,
    })  # fmt: skip
    assumed = "\n".join(f"- {text}" for text in ASSUMED)
    sections = [
        f"# {title}",
        f"A dry run: nothing was trained. All times are estimates for {device_label(plan)}, from a short measurement.",
        markdown(pd.DataFrame({"value": summary})),
        "## On several devices",
        "![Time until all runs are trained, against the number of devices](plan.png)",
        "## What a step takes",
        markdown(costs),
        "## Runs",
        markdown(readable_runs(plan)),
        "## What is assumed",
        assumed,
        "## Where it was measured",
        markdown(pd.DataFrame({"value": where})),
        "Each run by itself, times in seconds: `plan.csv`.",
    ]
    write_markdown(folder / "plan.md", sections)
    total = "\n".join(f"{name}: {value}" for name, value in summary.items())
    return "\n\n".join([
        readable_runs(plan).to_string(), costs.to_string(), total, f"Assumed:\n{assumed}",
        f"see {folder / 'plan.md'}",
    ])  # fmt: skip
