"""PRFFN's forward pass beside its convolutions: `python -m prffn bench inference`, results in reports/bench/.

Timings differ from machine to machine and from hour to hour: read the ratios.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from prffn.evaluation.cost import InferenceCase, measure_in_turns
from prffn.files import atomic_write, reports_root, save_record
from prffn.reporting.bench import median
from prffn.reporting.plots import STYLE, new_figure, save_figure
from prffn.reporting.tables import markdown, write_markdown
from prffn.study.provenance import provenance
from prffn.training.device import pick_device

SIZE = (120, 160)
"""Height and width of the LR image."""

BOUND = 1.2
"""The forward may take so many times as long as its convolutions alone."""

REST = "everything else"


COLUMNS = ["case", "step", "convs", "multi-adds (G)", "ms", "GFLOP/s", "% of the forward"]


def cases(size: tuple[int, int]) -> dict[str, InferenceCase]:
    """PRFFN at each scale."""
    return {f"x{scale}": InferenceCase(scale=scale, height=size[0], width=size[1]) for scale in (2, 3, 4)}


def run(device_asked: str, turns: int, size: tuple[int, int] = SIZE) -> dict[str, pd.DataFrame]:
    """Measures all cases in turns and writes reports/bench/inference.{md,csv,json,png}. Returns the tables.

    size: height and width of the LR image.
    """
    device = pick_device(device_asked)
    record = {
        "key": "inference",
        "cases": {label: asdict(case) for label, case in cases(size).items()},
        "measured": measure_in_turns(cases(size), device, turns),
        "turns": turns,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": provenance(device, torch.get_num_threads()),
    }
    save_record(reports_root() / "bench", "inference", record)
    return write(record)


def ratio_table(measured: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """The whole forward, its convolutions alone and the straightforward forward, for each case.

    The ratios are medians over the turns of each turn's own ratio.
    """
    rows = []
    for label, turns in measured.items():
        row: dict[str, Any] = {"case": label}
        if "error" in turns[0]:
            rows.append({**row, "note": f"failed: {turns[0]['error'][:60]}"})
            continue
        for column, name in {"forward": "seconds", "convs": "convs", "straightforward": "straightforward"}.items():
            row[f"{column} (ms)"] = f"{1000 * (median(turns, name) or 0):.0f}"
        rows.append(row | {
            "forward / convs": _ratio(turns, "seconds", "convs"),
            "forward / straightforward": _ratio(turns, "seconds", "straightforward"),
            "note": "",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("case").fillna("")


def _ratio(turns: list[dict[str, Any]], name: str, other: str) -> str:
    """The median of the ratio, and the lowest and highest of several turns."""
    ratios = [turn[name] / turn[other] for turn in turns]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{pd.Series(ratios).median():.2f}{spread}"


def step_table(measured: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """The convolutions of each step: how many, their work, time and share of the forward; the rest by difference."""
    rows = []
    for label, turns in measured.items():
        whole, convs = median(turns, "seconds"), median(turns, "convs")
        if whole is None or convs is None:
            continue
        for step in (name.removeprefix("count, ") for name in turns[0] if name.startswith("count, ")):
            count, multi_adds = (turns[0][f"{what}, {step}"] for what in ("count", "multi-adds"))
            seconds = median(turns, f"convs, {step}") or math.nan
            rows.append({
                "case": label, "step": step, "convs": str(count), "multi-adds (G)": f"{multi_adds / 1e9:.2f}",
                "ms": f"{1000 * seconds:.1f}", "GFLOP/s": f"{2 * multi_adds / 1e9 / seconds:.0f}",
                "% of the forward": f"{100 * seconds / whole:.1f}",
            })  # fmt: skip
        rest = whole - convs
        rows.append({
            "case": label, "step": REST, "ms": f"{1000 * rest:.1f}", "% of the forward": f"{100 * rest / whole:.1f}",
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).set_index(["case", "step"]).fillna("")


def plot(steps: pd.DataFrame) -> Figure:
    """Each step's share of the forward, in per cent, a bar for each case."""
    shares = steps["% of the forward"].astype(float)
    labels = list(dict.fromkeys(steps.index.get_level_values("case")))
    names = list(dict.fromkeys(steps.index.get_level_values("step")))
    with plt.style.context(STYLE):
        figure, ax = new_figure()
        for n, label in enumerate(labels):
            y = [k + 0.27 * (n - (len(labels) - 1) / 2) for k in range(len(names))]
            ax.barh(y, [shares[label].get(name, 0.0) for name in names], height=0.25, color=f"C{n}", label=label)
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.set_xlabel("share of the forward pass (%)")
        ax.legend(fontsize=8, loc="lower right")
    return figure


def write(record: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Writes reports/bench/inference.{md,csv,png} from a record. Returns the tables."""
    folder, made = reports_root() / "bench", record["provenance"]
    ratios, steps = ratio_table(record["measured"]), step_table(record["measured"])
    save_figure(plot(steps), folder / "inference.png")
    with atomic_write(folder / "inference.csv", "w") as file:
        steps.to_csv(file, lineterminator="\n")
    first = next(iter(record["cases"].values()))
    where = {
        "device": f"{made['device_name']} ({made['device']})",
        "threads": made["threads"],
        "torch": made["versions"]["torch"],
        "commit": made["commit"],
        "measured": record["finished"][:10],
        "turns": record["turns"],
        "rounds in a turn": first["rounds"],
    }
    text = [
        "# PRFFN's forward pass: as fast as its convolutions",
        f"Full-size PRFFN (64 channels, 10 groups), one LR image of {first['width']} x {first['height']} pixels, "
        "float32, all side by side in one run: medians of rounds and turns, in brackets the turns' lowest and highest.",
        "*forward*: the whole pass, as `upscale` makes it. *convs*: all its convolutions alone, each of MRCAB's "
        "branches counted, called one by one on inputs of the shape and memory layout that they have in the forward. "
        "*straightforward*: the equations one after the other, three dilated convolutions in a row, in NCHW "
        "([straightforward.py](../../prffn/models/straightforward.py)). All under `inference_mode`; the outputs are "
        f"the same to 1e-5 (tests). The aim: forward / convs at most {BOUND}, forward / straightforward at most 1.",
        markdown(ratios),
        "## Where the time goes",
        "![Share of each step in the forward pass](inference.png)",
        f"*{REST}*: the forward less its convolutions: ReLU, sums, the attention's mean and scaling, sigmoid and "
        "weighting in SAFB, pixel shuffle. A FLOP is half a multiply-add.",
        markdown(steps),
        "## Where",
        markdown(pd.DataFrame({"value": where})),
    ]
    write_markdown(folder / "inference.md", text)
    return {"ratios": ratios, "steps": steps}
