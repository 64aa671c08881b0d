"""Gains along an axis that has an order, such as the length of training: their figure, what they are worth in steps.

And the seeds of a row one by one: does any fall behind the others?
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from prffn.reporting.plots import STYLE, count_of, without_gains
from prffn.study.claims import UNITS, as_math
from prffn.study.gains import METRICS
from prffn.study.runs import Runs, image_sets

Grid = Mapping[str, Mapping[float, str]]
"""The label of each row and column: a column goes by its place on the axis, above 0. A row need not have all."""

FALLEN = 0.05
"""dB: a seed that lies further below the median of its row, on the last image set, is called fallen (our choice)."""


def plot_along(ax: Axes, table: pd.DataFrame, grid: Grid, image_set: str, metric: str = "psnr_y") -> Axes:
    """Gains on one set along a logarithmic axis: a line for each row of `grid`, with 95 % intervals. Returns the axis.

    table: from `compare`, of this metric. The rows stand a little beside each other, so that no interval covers
    another. A row's colour is that of its place in `grid`, where one may be empty: axes of other rows then agree.
    Where nothing was measured, the figure says so.
    """
    unit = UNITS.get(metric, "dB")
    if without_gains(ax, table, f"{METRICS[metric]} was not measured"):
        return ax
    places = np.array(sorted({place for columns in grid.values() for place in columns}))
    apart = (places[1:] / places[:-1]).min(initial=4.0) ** (0.4 / max(4, len(grid)))  # all rows: 40 % of the way
    with plt.style.context(STYLE):
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        ax.axhline(0, color="0.3", linewidth=0.8)
        for n, (row, columns) in enumerate(grid.items()):
            if not columns:
                continue
            gains = table.loc[[(image_set, label) for label in columns.values()]]
            x = np.array(list(columns)) * apart ** (n - (len(grid) - 1) / 2)
            reach = gains.reindex(columns=["low", "high"]).sub(gains["gain"], axis=0).abs().to_numpy(float).T
            ax.errorbar(x, gains["gain"], yerr=reach, fmt="o-", color=colours[n % len(colours)], capsize=2.5,
                        markersize=4, linewidth=1.2, label=as_math(row))  # fmt: skip
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{place:,.10g}" for place in places])
        ax.minorticks_off()
        ax.set_ylabel(as_math(f"{'difference from' if unit == 'LPIPS' else 'gain over'} L_1 alone ({unit})"))
        labels = [label for columns in grid.values() for label in columns.values()]
        ax.set_title(f"{image_set}: {count_of(table.loc[image_set].loc[labels])}", fontsize=9)
    return ax


def mark_printed(ax: Axes, gain: float, where: str) -> None:
    """A printed gain at the right edge of the axis of `plot_along`, in grey: further right than the scale reaches.

    where: what the paper's place on the axis is called, such as "1 million".
    """
    ticks = ax.get_xticks()
    labels = [text.get_text() for text in ax.get_xticklabels()]
    beyond = max(2.0, (ticks[-1] / ticks[0]) ** 0.4)
    with plt.style.context(STYLE):
        ax.plot([ticks[-1] * beyond], [gain], "D", color="0.55", markersize=5, label="printed, on DIV2K")
        ax.axvline(ticks[-1] * beyond**0.5, color="0.55", linewidth=0.8, linestyle=":")
        ax.set_xticks([*ticks, ticks[-1] * beyond], [*labels, where])
        ax.get_xticklabels()[-1].set_color("0.45")
        ax.set_xlim(right=ticks[-1] * beyond**1.4)


def draw_printed(ax: Axes, gains: pd.Series) -> None:
    """Printed gains (dB), by their place on the axis of `plot_along`, dashed grey.

    The scale of gains becomes linear within 0.1 dB and logarithmic beyond: print lies within, harm may lie far beyond.
    """
    with plt.style.context(STYLE):
        ax.plot(gains.index, gains, "--", color="0.55", marker="_", markersize=14, label="printed, on DIV2K")
        ax.set_yscale("symlog", linthresh=0.1, linscale=2)
        ticks = [-10, -1, -0.1, -0.05, 0, 0.05, 0.1]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def legend_above(figure: Figure, ncols: int = 3) -> None:
    """One legend for all axes, above them: each name once."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    names = sorted(handles, key=lambda name: isinstance(handles[name], Line2D))  # what is printed comes last
    with plt.style.context(STYLE):
        figure.legend([handles[name] for name in names], names, loc="outside upper center", ncols=ncols, fontsize=8)


def steps_to_reach(psnr: ArrayLike, steps: Sequence[float], reached: Sequence[float]) -> NDArray[np.float64]:
    """After how many steps a training reaches these PSNRs (dB): between the measured lengths, linear in log(steps).

    steps, reached: the lengths, ascending, and the PSNR after each. Nothing is extrapolated: 0 stands for fewer steps
    than the shortest length, inf for more than the longest; NaN everywhere if the PSNR does not rise with the steps.
    """
    psnr = np.asarray(psnr, float)
    if np.any(np.diff(reached) <= 0):
        return np.full(psnr.shape, np.nan)
    found = np.exp(np.interp(psnr, reached, np.log(steps), left=-np.inf, right=np.inf))
    return np.where(np.isnan(psnr), np.nan, found)


def worth_in_steps(table: pd.DataFrame, grid: Grid, baseline: Mapping[int, str]) -> pd.DataFrame:
    """After how many steps the baseline is as good as each row at each length: "1620 [1340 to 1900]".

    table: from `compare`, PSNR, with the gain of each row over the baseline of its length. grid: its columns are steps,
    as are those of baseline, ascending. The baseline's curve is the mean over the seeds that all its lengths have; the
    brackets are the gain's interval carried over, and know nothing of the curve's own.
    """
    steps, rows = list(baseline), []
    for image_set in table.index.unique("set"):
        of_set = table.loc[image_set]
        seeds = of_set.loc[list(baseline.values())].filter(like="seed ").astype(float).dropna(axis=1)
        reached = dict(zip(steps, seeds.mean(axis=1), strict=True))
        for row, columns in grid.items():
            gains = of_set.loc[list(columns.values())].reindex(columns=["gain", "low", "high"]).astype(float)
            psnr = gains.add([reached[int(column)] for column in columns], axis=0)
            found = steps_to_reach(psnr, steps, list(reached.values()))
            cells: dict[Any, str] = {
                column: _worth_said(worth, steps) for column, worth in zip(columns, found, strict=True)
            }
            rows.append({"set": image_set, "": row} | cells)
    return pd.DataFrame(rows).set_index(["set", ""])


def _worth_said(found: NDArray[np.float64], steps: Sequence[float]) -> str:
    """found: for the gain, and the ends of its interval, NaN where there is none."""

    def said(value: float) -> str:
        return f"< {steps[0]:.0f}" if value == 0 else f"> {steps[-1]:.0f}" if np.isinf(value) else f"{value:.0f}"

    one, low, high = ("" if np.isnan(value) else said(value) for value in found)
    return f"{one} [{low} to {high}]" if low else one


def seed_by_seed(runs: Runs, label: str) -> pd.DataFrame:
    """PSNR-Y in dB of each seed of a row on each set, and how far the last set's lies above or below its median."""
    table = pd.DataFrame({name: [run.mean(name) for run in runs[label]] for name in image_sets(runs)}, dtype=float)
    last = table.columns[-1]
    return table.assign(**{f"{last} - median": table[last] - table[last].median()}).rename_axis("seed").round(3)


def lowest_seeds(runs: Runs) -> pd.DataFrame:
    """For each row its lowest seed on the last set, in dB below the row's median, and which seeds are fallen: FALLEN.

    They stay in all means and intervals.
    """
    rows = {}
    for label, group in runs.items():
        psnr = np.array([run.mean(image_sets(runs)[-1]) for run in group], float)
        below = np.median(psnr) - psnr if len(psnr) else psnr
        fallen = ", ".join(f"seed {n}" for n in np.flatnonzero(below > FALLEN))
        rows[label] = {"seeds": str(len(psnr)), "lowest below median": below.max(initial=0), "fallen": fallen or "none"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("label").round(3)
