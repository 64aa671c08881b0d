"""Tables and plots of what a loss costs, from recorded timings: Table 6 and its extension."""

import json
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prffn.evaluation.cost import Timings
from prffn.files import atomic_write, reports_root
from prffn.reporting.plots import STYLE, save_figure
from prffn.reporting.tables import markdown, write_markdown, write_report
from prffn.study.claims import LABELS

ITERATIONS = 1000
"""Of an epoch (our choice: RCAN's), each with a batch of 16 patches."""


def compare_steps(timings: Timings, printed: pd.DataFrame, *, baseline: str) -> pd.DataFrame:
    """One row for each training step: seconds of 10 epochs and peak memory, ratios to the baseline, printed and here.

    timings: of `StepCase`s, labelled "no L_contr" or "S = 64, straightforward". printed: from `paper.memory_and_time`.
    The time of 10 epochs is that of a step multiplied up to 10000 steps of 16 patches; `spread (%)` is how far the
    turns lie apart: smaller differences of two rows mean nothing.
    """
    rows = {}
    cases = {label: case for label, (_, case) in timings.record["cases"].items()}
    plain = timings[baseline]
    for label, found in timings.items():
        name = label.partition(",")[0]
        seconds = [turn["seconds"] for turn in timings.record["measured"][label]]
        rows[label] = {
            "printed time (s)": printed.time_s[name],
            "printed memory (MB)": printed.memory_mb[name],
            "printed time / plain": round(printed.time_s[name] / printed.time_s[baseline], 2),
            "printed memory / plain": round(printed.memory_mb[name] / printed.memory_mb[baseline], 2),
            "10 epochs (s)": round(found["seconds"] * 16 / cases[label]["batch"] * ITERATIONS * 10),
            "memory (MB)": round(found["peak_mb"]),
            "time / plain": round(found["seconds"] / plain["seconds"], 3),
            "memory / plain": round(found["peak_mb"] / plain["peak_mb"], 3),
            "spread (%)": round(100 * (max(seconds) - min(seconds)) / found["seconds"], 1),
        }
    return pd.DataFrame(rows).T


def plot_steps(axes: list[Axes], table: pd.DataFrame, baseline: str) -> list[Axes]:
    """Time and memory over the baseline's against S: the printed ratios dashed grey, ours and straightforward measured.

    table: from `compare_steps`. Returns the axes.
    """
    rows = table.drop(index=baseline)
    sizes = {label: int(label.partition(",")[0].removeprefix("S = ")) for label in rows.index}
    ways = list(dict.fromkeys(label.partition(", ")[2] for label in rows.index))
    with plt.style.context(STYLE):
        for ax, what in zip(axes, ("time", "memory"), strict=True):
            first = [label for label in rows.index if label.endswith(ways[0])]
            x = [sizes[label] for label in first]
            ax.plot(x, rows.loc[first, f"printed {what} / plain"], "--", color="0.55", marker="_", label="printed")
            for n, way in enumerate(ways):
                labels = [label for label in rows.index if label.endswith(way)]
                ax.plot([sizes[label] for label in labels], rows.loc[labels, f"{what} / plain"], "os"[n] + "-",
                        color=f"C{n}", label=f"{way}, measured here")  # fmt: skip
            ax.axhline(1, color="0.3", linewidth=0.8)
            ax.set_xscale("log")
            ax.set_xticks(x, [str(size) for size in x])
            ax.minorticks_off()
            ax.set_xlabel("region size S (pixels)")
            ax.set_ylabel(f"{what} over that without L_contr")
        axes[0].legend(fontsize=8)
    return axes


def steps_conclusion(timings: Timings, table: pd.DataFrame, baseline: str) -> str:
    """What L_contr adds at each S, printed, straightforward and ours, in sentences."""
    lines = [f"Profile {timings.profile}, full-size PRFFN: {LABELS[timings.profile]}.", ""]
    for size in dict.fromkeys(label.partition(",")[0] for label in table.index if label != baseline):
        rows = {label.partition(", ")[2]: table.loc[label] for label in table.index if label.partition(",")[0] == size}
        printed = next(iter(rows.values()))

        def adds(row: pd.Series, prefix: str = "") -> str:
            time, memory = (100 * (row[f"{prefix}{what} / plain"] - 1) for what in ("time", "memory"))
            return f"{time:+.0f} % time, {memory:+.0f} % memory"

        found = "; ".join(f"{way}: {adds(row)}" for way, row in rows.items())
        lines.append(f"- {size}: printed: {adds(printed, 'printed ')}; {found}.")
    if timings.record["turns"] == 1:
        note = "One turn says nothing of how far the time of a step varies."
    else:
        spread = table["spread (%)"].max()
        note = f"Between turns the time of a step varies by up to {spread:.0f} %: smaller differences mean nothing."
    lines += ["", note]
    return "\n".join(lines)


def compare_costs(timings: Timings) -> pd.DataFrame:
    """Milliseconds and extra MB of a loss and its gradient by label; what failed or was not run says so."""
    rows = {
        label: {"note": found["error"]}
        if "error" in found
        else {"ms": f"{1000 * found['seconds']:.1f}", "extra MB": f"{found['peak_mb']:.0f}"}
        for label, found in timings.items()
    }
    return pd.DataFrame(rows).T.fillna("")


def plot_costs(ax: Axes, timings: Timings, ways: Mapping[str, Mapping[int, str]]) -> Axes:
    """Milliseconds against S; `ways` names the label of each implementation and S. Returns the axis."""
    with plt.style.context(STYLE):
        for n, (way, labels) in enumerate(ways.items()):
            points = {
                s: 1000 * timings[label]["seconds"] for s, label in labels.items() if "error" not in timings[label]
            }
            ax.loglog(list(points), list(points.values()), "os"[n] + "-", color=f"C{n + 2}", label=way)
        sizes = sorted({size for labels in ways.values() for size in labels})
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.set_xlabel("region size S (pixels)")
        ax.set_ylabel("loss and gradient (ms)")
        ax.legend(fontsize=8)
    return ax


def provenance_of(timings: Timings) -> pd.DataFrame:
    """What was timed where and how, read off the record: one column of values."""
    made = timings.record["provenance"]
    rows = {
        "profile": timings.profile,
        "cases": f"{len(timings)}, in {timings.record['turns']} turns, each in its own process",
        "device": f"{made['device_name']} ({made['device']})",
        "threads": made["threads"],
        "platform": made["platform"],
        "torch": made["versions"]["torch"],
        "commit": made["commit"],
        "measured": timings.record["finished"][:10],
    }
    return pd.DataFrame({"value": rows})


def save_costs(name: str, timings: Timings, table: pd.DataFrame, conclusion: str, figure: Figure, *, title: str) -> str:
    """Writes reports/<profile>/<name>.{md,csv,png,json}. Returns the report's path relative to the reports' root."""
    folder = reports_root() / timings.profile
    with atomic_write(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, lineterminator="\n")
    save_figure(figure, folder / f"{name}.png")
    content = {
        "title": title,
        "profile": timings.profile,
        "label": LABELS[timings.profile],
        "table": json.loads(table.reset_index().to_json(orient="records")),
        "timings": timings.record["key"],
        "provenance": provenance_of(timings)["value"].to_dict(),
    }
    write_report(folder / f"{name}.json", content)
    sections = [
        f"# {title}",
        f"Columns `printed`: printed in the paper. All others: {LABELS[timings.profile]}.",
        markdown(table),
        f"![{title}]({name}.png)",
        "## Conclusion",
        conclusion,
        "## What was measured, where, how",
        markdown(provenance_of(timings)),
        f"The record: `timings/{timings.record['key']}.json`.",
    ]
    write_markdown(folder / f"{name}.md", sections)
    return f"{reports_root().name}/{timings.profile}/{name}.md"
