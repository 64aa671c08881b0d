"""Figures: one style; a plot takes data and an axis, and returns the axis."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prffn.files import atomic_write
from prffn.study.claims import as_math, seeds_said

STYLE = Path(__file__).parent / "prffn.mplstyle"


def new_figure(**options: Any) -> tuple[Figure, Axes]:
    """A figure with one axis in the kit's style."""
    with plt.style.context(STYLE):
        figure, ax = plt.subplots(**options)
    plt.close(figure)  # shown where the notebook names it, not a second time at the cell's end
    return figure, ax


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Writes a PNG atomically, the same bytes for the same figure. options: of `savefig`."""
    with atomic_write(path) as file, plt.style.context(STYLE):
        figure.savefig(file, format="png", metadata={"Software": None}, **options)


def region_size_axis(ax: Axes, sizes: Iterable[int], **ticks: Any) -> None:
    """A logarithmic axis of S with a tick at each of these sizes. ticks: of their labels."""
    shown = sorted(set(sizes))
    ax.set_xscale("log")
    ax.set_xticks(shown, [str(size) for size in shown], **ticks)
    ax.minorticks_off()
    ax.set_xlabel("region size $S$ (pixels)")


def plot_gains(ax: Axes, table: pd.DataFrame, *, unit: str = "dB") -> Axes:
    """Gain over the baseline for each label: means with 95 % intervals, each seed a dot; printed gains dashed grey.

    table: from `compare`. Where no row has a gain, the figure says so. Returns the axis.
    """
    if without_gains(ax, table):
        return ax
    gains = table.dropna(subset=["gain"])
    labels, sets = gains.index.unique("label"), gains.index.unique("set")
    place = {label: n for n, label in enumerate(labels)}
    with plt.style.context(STYLE):
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        ax.axhline(0, color="0.3", linewidth=0.8)
        printed = gains.loc[sets[0]].get("printed gain")
        if printed is not None and printed.notna().any():
            ax.plot([place[name] for name in printed.index], printed, "--", color="0.55", marker="_",
                    markersize=14, label="printed")  # fmt: skip
        for n, name in enumerate(sets):
            rows = gains.loc[name]
            x = [place[label] + 0.16 * (n - (len(sets) - 1) / 2) for label in rows.index]
            ax.errorbar(x, rows["gain"], yerr=_interval(rows), fmt="o", color=colours[n], capsize=3,
                        label=f"{name}: {count_of(rows)}")  # fmt: skip
            everything = table.loc[name]
            references = everything.loc[rows["over"]] if "over" in rows else everything.iloc[[0] * len(rows)]
            for seed in [c for c in table.columns if str(c).startswith("seed ")]:
                apart = rows[seed].to_numpy() - references[seed].to_numpy()
                ax.plot(x, apart, ".", color=colours[n], alpha=0.35, markersize=4)
        ax.set_xticks(range(len(labels)), [as_math(label) for label in labels])
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_ylabel(f"gain ({unit})" if "over" in gains else as_math(f"gain over {table.index[0][1]} ({unit})"))
        ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False,
                  columnspacing=1.0, handletextpad=0.4)  # fmt: skip
    return ax


def count_of(rows: pd.DataFrame) -> str:
    """How many seeds and images stand behind rows of a table from `compare`: "3 to 5 seeds, 100 images"."""
    return f"{seeds_said(rows['seeds'])}, {rows['images'].max():.0f} images"


def _interval(rows: pd.DataFrame) -> list[Any] | None:
    """How far the intervals reach below and above the gains; None where no row has one, as with one seed."""
    if "low" not in rows or rows["low"].isna().all():
        return None
    return [(rows["gain"] - rows["low"]).to_numpy(), (rows["high"] - rows["gain"]).to_numpy()]


def without_gains(ax: Axes, table: pd.DataFrame, text: str = "no gain was measured") -> bool:
    """Whether no row has a gain; the empty axis then holds the text."""
    if "gain" in table:
        return False
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return True
