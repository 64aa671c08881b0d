"""What a loss costs, from recorded timings: Table 6, and loss and gradient alone."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prffn.reporting.plots import STYLE, region_size_axis
from prffn.reporting.report import write_report
from prffn.reporting.tables import markdown, where_made
from prffn.study.claims import LABELS
from prffn.study.timings import Timings

EPOCHS = 10
ITERATIONS = 1000  # of an epoch (our choice: RCAN's), each with a batch of 16 patches
PLAIN = "no L_contr"  # the label of the step with L_1 alone

WAYS = {"reference": "straightforward", "auto": "as trained"}
"""By implementation, what the tables call it: written out with all pairs of a region, and as the kit trains."""


def of_case(timings: Timings, label: str) -> tuple[int, str]:
    """The region size of a case, 0 without L_contr, and what its implementation is called."""
    fields = timings.record["cases"][label][1]
    size = (fields["contrast"] or {}).get("region_size", 0)
    return size, WAYS[fields["implementation"]] if size else ""


def compare_steps(timings: Timings, printed: pd.DataFrame) -> pd.DataFrame:
    """One row for each training step: time and memory over those of L_1 alone, printed and here, and absolute figures.

    timings: of `StepCase`s, one of them PLAIN. printed: from `paper.memory_and_time`. `low` and `high`: quartiles of
    the time's ratio over the rounds. The time of 10 epochs is a step's, multiplied up to 10000 steps of 16 patches.
    """
    rows = {}
    plain = timings[PLAIN]
    for label in timings:
        (size, way), found = of_case(timings, label), timings[label]
        name = f"S = {size}" if size else PLAIN
        if "error" in found or "error" in plain:
            rows[label] = {"S": size, "how": way, "note": found.get("error", "L_1 alone failed")}
            continue
        ratio, low, high = timings.ratio(label, PLAIN)
        batch = timings.record["cases"][label][1]["batch"]
        rows[label] = {
            "S": size, "how": way,
            "printed time / plain": printed.time_s[name] / printed.time_s[PLAIN],
            "time / plain": ratio, "low": low, "high": high,
            "printed memory / plain": printed.memory_mb[name] / printed.memory_mb[PLAIN],
            "memory / plain": found["peak_mb"] / plain["peak_mb"],
            "printed time (s)": printed.time_s[name],
            "time of 10 epochs (s)": round(found["seconds"] * 16 / batch * ITERATIONS * EPOCHS),
            "printed memory (MB)": printed.memory_mb[name], "memory (MB)": round(found["peak_mb"]),
        }  # fmt: skip
    return pd.DataFrame(rows).T.infer_objects()


def plot_steps(axes: list[Axes], table: pd.DataFrame) -> list[Axes]:
    """Time and memory over those of L_1 alone against S: printed dashed grey, straightforward and as trained measured.

    table: from `compare_steps`. Bars: the quartiles of the rounds. Returns the axes.
    """
    rows = table[table["S"] > 0]
    with plt.style.context(STYLE):
        for ax, what in zip(axes, ("time", "memory"), strict=True):
            for n, (way, group) in enumerate(rows.groupby("how", sort=False)):
                if n == 0:
                    ax.plot(group["S"], group[f"printed {what} / plain"], "--", color="0.55", marker="_",
                            label="printed")  # fmt: skip
                ratio = group[f"{what} / plain"].astype(float)
                bars = [ratio - group["low"], group["high"] - ratio] if what == "time" else None
                ax.errorbar(group["S"], ratio, yerr=bars, fmt=f"{'os'[n]}-", color=f"C{n}", capsize=3,
                            label=f"{way}, measured here")  # fmt: skip
            ax.axhline(1, color="0.3", linewidth=0.8)
            region_size_axis(ax, rows["S"])
            ax.set_ylabel(f"{what} over that with $L_1$ alone")
        axes[0].legend(fontsize=8)
    return axes


def added(ratio: float, low: float = 1.0, high: float = 1.0) -> str:
    """What a ratio adds, in per cent; "none" where one lies within the quartiles of the rounds."""
    if low < 1 < high:
        return f"none that shows ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %)"
    return f"{100 * (ratio - 1):+.{0 if abs(ratio - 1) > 0.095 else 1}f} %"


def answer_costs(table: pd.DataFrame) -> str:
    """One sentence: what L_contr at S = 256 adds to a training step as trained, straightforward, and in print."""
    rows = {row["how"]: row for _, row in table[table["S"] == 256].iterrows() if pd.notna(row.get("time / plain"))}
    ours, plain = rows.get("as trained"), rows.get("straightforward")
    if ours is None or plain is None:
        return "What L_contr costs was not measured: a case failed, see the table."
    return (
        f"**At S = 256 L_contr as the kit trains it adds {added(ours['time / plain'], ours['low'], ours['high'])} to "
        f"the time of a full-size training step and {added(ours['memory / plain'])} to its memory**; written out "
        f"straightforwardly it adds {added(plain['time / plain'], plain['low'], plain['high'])} and "
        f"{added(plain['memory / plain'])} (the paper prints {added(ours['printed time / plain'])}, "
        f"{added(ours['printed memory / plain'])})."
    )


def steps_conclusion(timings: Timings, table: pd.DataFrame) -> str:
    """What L_contr adds at each S, printed, straightforward and as trained, in sentences."""
    lines = [f"Profile {timings.profile}, full-size PRFFN: {LABELS[timings.profile]}.", ""]
    for size, group in table[table["S"] > 0].groupby("S"):
        first = group.iloc[0]
        found = "; ".join(
            f"{row['how']}: {added(row['time / plain'], row['low'], row['high'])} time, "
            f"{added(row['memory / plain'])} memory"
            for _, row in group.iterrows()
        )
        printed = f"{added(first['printed time / plain'])} time, {added(first['printed memory / plain'])} memory"
        lines.append(f"- S = {size}: printed: {printed}; {found}.")
    rounds = timings.record["rounds"]
    few = " So few rounds tell an order of magnitude." if rounds < 5 else ""
    lines += ["", f"Ratios are medians of {rounds} rounds, each paired within its round; a difference within the "
              f"rounds' quartiles is called none.{few}"]  # fmt: skip
    return "\n".join(lines)


def compare_costs(timings: Timings) -> pd.DataFrame:
    """Milliseconds and extra MB of each `LossCase` by region size and way; what failed says so."""
    rows = []
    for label, found in timings.items():
        size, way = of_case(timings, label)
        row: dict[str, Any] = {"S": size, "how": way}
        if "error" in found:
            rows.append({**row, "note": found["error"]})
        else:
            rows.append({**row, "ms": f"{1000 * found['seconds']:.1f}", "extra MB": f"{found['peak_mb']:.0f}"})
    return pd.DataFrame(rows).set_index(["S", "how"]).fillna("")


def plot_costs(ax: Axes, costs: pd.DataFrame) -> Axes:
    """Milliseconds of loss and gradient against S, a line for each way, from `compare_costs`. Returns the axis."""
    with plt.style.context(STYLE):
        flat = costs[costs["ms"] != ""].reset_index()
        for n, (way, group) in enumerate(flat.groupby("how", sort=False)):
            ax.loglog(group["S"], group["ms"].astype(float), f"{'os'[n]}-", color=f"C{n + 2}", label=way)
        region_size_axis(ax, flat["S"])
        ax.set_ylabel("loss and gradient (ms)")
        ax.legend(fontsize=8)
    return ax


def provenance_of(timings: Timings) -> pd.DataFrame:
    """What was timed where and how, read off the record: one column of values."""
    rows = {
        "profile": timings.profile,
        "cases": f"{len(timings)}, side by side in {timings.record['rounds']} rounds",
        **where_made([timings.record]),
    }
    return pd.DataFrame({"value": rows})


def save_steps(name: str, timings: Timings, table: pd.DataFrame, figure: Figure, *, title: str) -> str:
    """Writes Table 6's report. Returns its path relative to the reports' root."""
    return write_report(
        name, timings.profile, title=title, label=LABELS[timings.profile], table=table.round(3), figure=figure,
        provenance=provenance_of(timings),
        sections=[
            f"Columns `printed`: printed in the paper. All others: {LABELS[timings.profile]}.",
            markdown(table),
            f"![{title}]({name}.png)",
            "## Conclusion",
            steps_conclusion(timings, table),
        ],
        answer=answer_costs(table),
        timings=timings.record["key"],
    )  # fmt: skip
