"""The plot of Table 8: PSNR against parameters and against run time, printed in grey, measured here in colour."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from prffn.reporting.plots import STYLE

FONT = 7
"""Size of the names, in points."""

COSTS = {"parameters (K)": "parameters (K)", "time / PRFFN": "run time over that of PRFFN in the same run"}
"""Columns of `compare_networks` against which PSNR is plotted, and what the axis says."""

KINDS = {
    "0.55": ("0.55", "printed"),
    "C0": ("white", "time measured here, PSNR printed"),
    "C1": ("C1", "measured here"),
}
"""By colour: the face of a point, and what it is."""

Point = tuple[float, float, str, str]
"""x, y, name, colour."""


def plot_tradeoffs(axes: np.ndarray, table: pd.DataFrame, *, image_set: str = "Set5") -> np.ndarray:
    """PSNR of each network on one set: a row of axes for each scale, a column for each of COSTS. Returns the axes.

    table: from `compare_networks`. Grey: both printed. Hollow: the time measured here at the printed PSNR. Filled: both
    measured, where weights are at hand. A PSNR far below the others stands as a triangle at the lower edge, with its
    value: on a scale that has room for it nothing else could be told apart.
    """
    with plt.style.context(STYLE):
        named = [
            (ax, _draw(ax, table.loc[scale], cost, f"{image_set} PSNR"))
            for (scale, cost), ax in zip(product(table.index.levels[0], COSTS), axes.flat, strict=True)
        ]
        for n, scale in enumerate(table.index.levels[0]):
            axes[n, 0].set_ylabel(f"PSNR on {image_set}, x{scale} (dB)")
        for column, text in enumerate(COSTS.values()):
            axes[-1, column].set_xlabel(text)
        drawn = {colour for _, points in named for *_, colour in points}
        for colour in [colour for colour in KINDS if colour in drawn]:
            face, text = KINDS[colour]
            axes[0, 0].plot([], [], "o", color=colour, markerfacecolor=face, label=text)
        figure = axes[0, 0].figure
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)  # only now is it known where everything is
        for ax, points in named:
            _name(ax, points, renderer)
    return axes


def _draw(ax: Axes, rows: pd.DataFrame, cost: str, psnr: str) -> list[Point]:
    """Draws the points of one panel; returns those that want a name."""
    printed = rows[f"{psnr} printed"]
    lowest, highest = printed.sort_values().iloc[1], printed.max()  # without the last of all, FSRCNN
    bottom = lowest - 0.15 * (highest - lowest)
    points = []

    def point(x: float, y: float, name: str, colour: str, face: str) -> None:
        if np.isnan([x, y]).any():
            return
        below = y < bottom
        ax.plot(x, max(y, bottom), "v" if below else "o", color=colour, markerfacecolor=face, clip_on=False, zorder=3)
        points.append((x, max(y, bottom), f"{name} {y:.2f}" if name and below else name, colour))

    for name, row in rows.drop(index="bicubic").iterrows():
        x, own_x, y = row[f"{cost} printed"], row[cost], row[f"{psnr} printed"]
        if cost.startswith("time"):
            if not np.isnan([x, own_x, y]).any():
                ax.plot([x, own_x], [max(y, bottom)] * 2, color="C0", linewidth=0.8, alpha=0.5)
            point(own_x, y, str(name) if np.isnan(x) else "", "C0", "white")
        point(x, y, str(name), "0.55", "0.55")
        point(own_x, row.get(psnr, np.nan), f"{name} ({str(row.weights).partition(',')[0]})", "C1", "C1")
    ax.set_xscale("log")
    ax.set_ylim(bottom, highest + 0.25 * (highest - lowest))
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter("{x:g}")
    return points


def _name(ax: Axes, points: list[Point], renderer: RendererBase) -> None:
    """Puts each name at the nearest place where it covers no point, line or other name, with a line to its point.

    What was measured here comes first, and is nearest. If there is room the lines cross no names.
    """
    figure, inside = ax.figure, ax.get_window_extent(renderer)
    em = FONT * figure.dpi / 72
    taken = [
        Bbox.from_bounds(x - em / 2, y - em / 2, em, em) for x, y in ax.transData.transform([p[:2] for p in points])
    ]
    taken += [line.get_window_extent(renderer).padded(1) for line in ax.get_lines() if line.get_marker() == "None"]
    names: list[Bbox] = []
    leaders: list[Path] = []
    for x, y, name, colour in sorted(points, key=lambda point: point[3] != "C1"):
        if not name:
            continue
        weight = "bold" if "PRFFN" in name else "normal"
        width = Text(0, 0, name, fontsize=FONT, weight=weight, figure=figure).get_window_extent(renderer).width
        px, py = ax.transData.transform((x, y))
        free = []
        for distance, angle in product(np.arange(1, 15, 0.5) * em, np.arange(0, 2 * np.pi, np.pi / 12)):
            dx, dy = distance * np.cos(angle), distance * np.sin(angle)
            box = Bbox.from_bounds(px + (dx if dx >= 0 else dx - width), py + dy - em / 2, width, em)
            within = inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1
            if within and not any(box.overlaps(other) for other in [*taken, *names]):
                leader = _line((px, py), box)
                crosses = any(leader.intersects_bbox(other, filled=False) for other in names)
                free.append(box)
                if not crosses and not any(other.intersects_bbox(box, filled=False) for other in leaders):
                    free = [box]
                    break
        box = free[0] if free else Bbox.from_bounds(px + em, py - em / 2, width, em)
        names.append(box.padded(em / 4))
        leaders.append(_line((px, py), box))
        pixel = 72 / figure.dpi  # in points
        ax.annotate(
            name, (x, y), ((box.x0 - px) * pixel, ((box.y0 + box.y1) / 2 - py) * pixel), textcoords="offset points",
            va="center", fontsize=FONT, weight=weight, color="0.3" if colour == "0.55" else colour,
            arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def _line(point: tuple[float, float], name: Bbox) -> Path:
    """From a point to the middle of its name."""
    return Path([point, ((name.x0 + name.x1) / 2, (name.y0 + name.y1) / 2)])
