"""The plot of Table 8: PSNR against parameters and against run time, printed in grey, measured here in colour."""

from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from prffn.reporting.plots import STYLE

COSTS = {"parameters (K)": "parameters (K)", "time / PRFFN": "run time over that of PRFFN in the same run"}
"""Columns of `compare_networks` against which PSNR is plotted, and what the axis says."""

KINDS = {
    "0.55": ("0.55", "printed"),
    "C0": ("white", "time measured here, PSNR printed"),
    "C1": ("C1", "measured here"),
}
"""The face of a point, and what it is, by the colour of its edge."""

LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
"""The line from a name to its point."""

PLACES = [(d * np.cos(a), d * np.sin(a)) for d in range(9, 60, 3) for a in np.arange(0, 2 * np.pi, np.pi / 8)]
"""Where a name's near end may stand, in points from what it names, nearest first."""


def plot_tradeoffs(axes: np.ndarray, table: pd.DataFrame, *, image_set: str = "Set5") -> np.ndarray:
    """PSNR of each network on one set: a row of axes for each scale, a column for each of COSTS. Returns the axes.

    table: from `compare_networks`. Grey: both printed. Hollow: the time measured here at the printed PSNR. Filled: both
    measured, where weights are there. A PSNR far below the others stands as a triangle at the lower edge, with its
    value: a scale with room for it would hide all other differences.
    """
    figure = axes[0, 0].figure
    with plt.style.context(STYLE):
        for (scale, cost), ax in zip(product(table.index.levels[0], COSTS), axes.flat, strict=True):
            _draw(ax, table.loc[scale].drop(index="bicubic"), cost, f"{image_set} PSNR")
        for scale, ax in zip(table.index.levels[0], axes[:, 0], strict=True):
            ax.set_ylabel(f"PSNR on {image_set}, x{scale} (dB)")
        for text, ax in zip(COSTS.values(), axes[-1], strict=True):
            ax.set_xlabel(text)
        marks = [plt.Line2D([], [], color=c, markerfacecolor=face, marker="o", ls="") for c, (face, _) in KINDS.items()]
        labels = [text for _, text in KINDS.values()]
        figure.legend(marks, labels, loc="outside lower center", ncols=3, fontsize=9)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)  # only now is it known where everything is
        for ax in axes.flat:
            _place_names(ax, renderer)
    return axes


def _draw(ax: Axes, rows: pd.DataFrame, cost: str, psnr: str) -> None:
    """Draw the points of one panel with their names, what was measured first."""
    printed = rows[f"{psnr} printed"]
    lowest, highest = printed.sort_values().iloc[1], printed.max()  # without the last of all, FSRCNN
    bottom = lowest - 0.15 * (highest - lowest)

    def point(x: float, y: float, name: str, colour: str) -> None:
        if np.isnan([x, y]).any():
            return
        below, y_shown = y < bottom, max(y, bottom)
        ax.plot(
            x, y_shown, "v" if below else "o", color=colour, markerfacecolor=KINDS[colour][0], clip_on=False, zorder=3
        )
        if name:
            ax.annotate(f"{name} {y:.2f}" if below else name, (x, y_shown), (0, 0), textcoords="offset points",
                        va="center", fontsize=7, weight="bold" if "PRFFN" in name else "normal",
                        color="0.3" if colour == "0.55" else colour,
                        arrowprops=LEADER)  # fmt: skip

    for name, row in rows.iterrows():
        point(row[cost], row.get(psnr, np.nan), f"{name} ({str(row.weights).partition(',')[0]})", "C1")
    for name, row in rows.iterrows():
        x, y = row[f"{cost} printed"], row[f"{psnr} printed"]
        if cost.startswith("time"):
            if not np.isnan([x, row[cost], y]).any():
                ax.plot([x, row[cost]], [max(y, bottom)] * 2, color="C0", linewidth=0.8, alpha=0.5)
            point(row[cost], y, str(name) if np.isnan(x) else "", "C0")
        point(x, y, str(name), "0.55")
    ax.set_xscale("log")
    ax.set_ylim(bottom, highest + 0.25 * (highest - lowest))
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter("{x:g}")


def _place_names(ax: Axes, renderer: RendererBase) -> None:
    """Move each name to the nearest place within the axes where it covers no point, line or other name."""
    taken = [line.get_window_extent().padded(6) for line in ax.get_lines()]
    names: list[Any] = list(ax.texts)  # annotations, by matplotlib's stubs texts
    for text in names:
        for text.xyann in PLACES:
            text.set_ha("left" if text.xyann[0] > 0 else "right")
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # of the name without its line
            inside = ax.bbox.containsx(box.x0) and ax.bbox.containsx(box.x1) and ax.bbox.containsy(box.y0)
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box.padded(2))
