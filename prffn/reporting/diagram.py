"""The drawn diagram of PRFFN, PFFG, MRCAB and SAFB. One unit is a millimetre, so that sizes are those in print."""

from collections.abc import Iterable
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Polygon

from prffn.reporting.plots import STYLE

Kind = Literal["3x3", "1x1", "activation", "block", "free", "data"]
Status = Literal["printed", "inferred", "our choice"]
Point = tuple[float, float]

WIDTH, HEIGHT = 180.0, 189.0
SIZE = (WIDTH / 25.4, HEIGHT / 25.4)
"""Of the figure, in inches: the width of a page's two columns."""

FILL: dict[Kind, str] = {
    "3x3": "#8FC4E8", "1x1": "#F6C56B", "activation": "#F7EE9B", "block": "#6CC0A0", "free": "#E6D3E2", "data": "white",
}  # fmt: skip
"""Okabe and Ito's colours, lightened so that black text reads on them in colour and in grey."""

OUTLINE: dict[Status, Any] = {"printed": "-", "inferred": (0, (4, 1.6)), "our choice": (0, (1, 1.3))}

GAP = 4.0
"""Between neighbouring boxes."""


def box(
    ax: Axes, x: float, y: float, text: str, kind: Kind, status: Status = "printed", *, width: float, height: float = 11
) -> float:
    """A box with its left edge at x and its middle at y; text of narrow ones stands upright. Returns its right edge."""
    corner = (x, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.8", facecolor=FILL[kind],
                                edgecolor="black", linestyle=OUTLINE[status], linewidth=0.9, gid="box",
                                zorder=3))  # fmt: skip
    ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=7, linespacing=1.25, gid="in box", zorder=4,
            rotation=90 if width < 6 else 0)  # fmt: skip
    return x + width


def node(ax: Axes, x: float, y: float, sign: Literal["+", "x"], status: Status = "printed") -> float:
    """A sum or product in a circle with its left edge at x. Returns its right edge."""
    ax.add_patch(Circle((x + 2, y), 2, facecolor="white", edgecolor="black", linestyle=OUTLINE[status], linewidth=0.9,
                        zorder=3))  # fmt: skip
    strokes: dict[str, list[Point]] = {"+": [(1, 0), (0, 1)], "x": [(0.75, 0.75), (0.75, -0.75)]}
    for dx, dy in strokes[sign]:
        ax.plot([x + 2 - dx, x + 2 + dx], [y - dy, y + dy], color="black", linewidth=0.9, zorder=4)
    return x + 4


def arrow(ax: Axes, *points: Point, status: Status = "printed") -> None:
    """A line along the points, upright or level, with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    length = abs(x1 - x0) + abs(y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    foot = (x1 - 1.6 * dx, y1 - 1.6 * dy)
    xs, ys = zip(*points[:-1], foot, strict=True)
    ax.plot(
        xs, ys, color="black", linewidth=0.9, linestyle=OUTLINE[status], dash_capstyle="butt", gid="arrow", zorder=2
    )
    sides = [(foot[0] + 0.75 * side * dy, foot[1] + 0.75 * side * dx) for side in (-1, 1)]
    ax.add_patch(Polygon([(x1, y1), *sides], facecolor="black", edgecolor="none", zorder=2))


def branch(ax: Axes, *points: Point) -> None:
    """Dots where a line goes two ways."""
    ax.plot([x for x, _ in points], [y for _, y in points], "o", color="black", markersize=2.4, zorder=4)


def label(ax: Axes, x: float, y: float, text: str, *, align: str = "center", size: float = 6.5) -> None:
    """Text beside the boxes."""
    ax.text(x, y, text, ha=align, va="center", fontsize=size, gid="label", zorder=4)


def heading(ax: Axes, y: float, text: str) -> None:
    """A panel's heading."""
    ax.text(2, y, text, va="center", fontsize=7.5, fontweight="bold", gid="label")


def draw_network(ax: Axes, y: float) -> None:
    """PRFFN with its middle line at y."""
    heading(ax, y + 15, "(a) PRFFN at scale s: N = 10 groups; 64 channels are inferred")
    parts: list[tuple[str, Kind, Status, float]] = [
        ("LR", "data", "printed", 7),
        ("conv 3×3\n3 → 64", "3x3", "inferred", 14),
        ("PFFG 1", "block", "printed", 12),
        ("PFFG 2", "block", "printed", 12),
        ("...", "data", "printed", 7),
        ("PFFG 10", "block", "printed", 13),
        ("conv 3×3\n64 → 64", "3x3", "inferred", 14),
        ("+", "data", "inferred", 4),
        ("conv 3×3\n64 → 64 s²", "3x3", "inferred", 16),
        ("pixel\nshuffle", "free", "inferred", 11),
        ("conv 3×3\n64 → 3", "3x3", "inferred", 14),
        ("SR", "data", "printed", 7),
    ]
    x, gap = 2.0, (WIDTH - 4 - sum(width for *_, width in parts)) / (len(parts) - 1)
    left, right = [], []
    for text, kind, status, width in parts:
        left.append(x)
        if text == "+":
            node(ax, x, y, "+", status)
        elif text == "...":
            label(ax, x + width / 2, y, "· · ·", size=9)
        else:
            box(ax, x, y, text, kind, status, width=width)
        right.append(x + width)
        x += width + gap
    for start, end in zip(right[:-1], left[1:], strict=True):
        arrow(ax, (start, y), (end, y))
    fork = right[1] + gap / 2 - 0.4
    branch(ax, (fork, y))
    arrow(ax, (fork, y), (fork, y + 9), (left[7] + 2, y + 9), (left[7] + 2, y + 2), status="inferred")
    label(ax, (fork + left[7]) / 2, y + 11, "long skip")
    label(ax, 2, y - 8, "mean colour of DIV2K subtracted, and added to SR: our choice", align="left")
    label(ax, (left[8] + right[9]) / 2, y - 8, "×4: both twice, s = 2")


def draw_group(ax: Axes, y: float) -> None:
    """A PFFG: the chain of blocks with its middle line at y, the fusions below it."""
    heading(ax, y + 9, "(b) PFFG: M = 3 blocks in a chain, each output fused into the progressive feature")
    low, skip = y - 17, y - 27
    start = box(ax, 2, low, r"$F_{n-1}$", "data", width=10, height=8)
    fork = start + 4
    centres = (54.0, 90.0, 126.0)
    end_block, end_fusion = fork, fork
    branch(ax, (fork, low))
    for m, centre in enumerate(centres, start=1):
        left = centre - 8 - 18
        if m == 1:
            arrow(ax, (start, low), (fork, low), (fork, y), (left, y))
        else:
            arrow(ax, (end_block, y), (left, y))
            branch(ax, (centres[m - 2], y))
        end_block = box(ax, left, y, f"MRCAB {m}", "block", width=18, height=9)
        corner = [(end_block, y)] if m == 3 else []
        arrow(ax, *corner, (centre, y), (centre, low + 4.5), status="our choice")
        label(ax, centre + 2, y - 7, rf"$F_{{n,{m}}}$", align="left", size=7)
        arrow(ax, (end_fusion, low), (centre - 8, low), status="our choice")
        end_fusion = box(ax, centre - 8, low, f"SAFB {m}", "block", width=16, height=9)
    label(ax, (fork + centres[0] - 8) / 2, low + 2.4, "progressive feature")
    x = box(ax, 141, low, "conv 3×3\n64 → 64", "3x3", "inferred", width=14)
    arrow(ax, (end_fusion, low), (141, low), status="our choice")
    arrow(ax, (x, low), (x + GAP, low))
    total = node(ax, x + GAP, low, "+", "inferred")
    arrow(ax, (total, low), (168, low))
    box(ax, 168, low, r"$F_n$", "data", width=10, height=8)
    arrow(ax, (fork, low), (fork, skip), (total - 2, skip), (total - 2, low - 2), status="inferred")
    label(ax, (fork + total) / 2, skip + 2, "skip")


def chain(
    ax: Axes,
    x: float,
    y: float,
    parts: Iterable[tuple[str, Kind, Status, float]],
    *,
    height: float = 11,
    gap: float = GAP,
) -> float:
    """Boxes from x on with an arrow into each. Returns the right edge of the last."""
    for text, kind, status, width in parts:
        arrow(ax, (x, y), (x + gap, y))
        x = box(ax, x + gap, y, text, kind, status, width=width, height=height)
    return x


def draw_block(ax: Axes, y: float) -> None:
    """An MRCAB with its middle line at y."""
    heading(ax, y + 21.5, "(c) MRCAB: branches of dilation rate d, summed; channel attention as in RCAN, reduction 16")
    start = box(ax, 2, y, r"$F_{n,m-1}$", "data", width=13, height=8)
    fork, skip = start + 3.5, y - 23.5
    frame = (fork + 2.5, y - 17.2)
    ax.add_patch(FancyBboxPatch(frame, 22, 34.4, boxstyle="round,pad=0,rounding_size=1", fill=False, edgecolor="black",
                                linewidth=0.9, linestyle=OUTLINE["inferred"]))  # fmt: skip
    label(ax, frame[0], y - 19.7, "one weight for all rates", align="left")
    branch(ax, (fork, y))
    total = fork + 40
    for rate, level in ((1, y + 11), (2, y), (4, y - 11)):
        into = [(start, y)] if level == y else [(fork, y), (fork, level)]
        arrow(ax, *into, (fork + 6, level))
        x = box(ax, fork + 6, level, f"conv 3×3\nd = {rate}", "3x3", width=16, height=8.5)
        x = chain(ax, x, level, [("ReLU", "activation", "printed", 4.6)], height=8.5, gap=5)
        side = (level > y) - (level < y)
        arrow(ax, (x, level), *([(total + 2, level), (total + 2, y + 2 * side)] if side else [(total, y)]))
    x = node(ax, total, y, "+")
    x = chain(ax, x, y, [("conv 3×3\n64 → 64", "3x3", "printed", 14)])
    tap = x + 2
    branch(ax, (tap, y))
    x = chain(ax, x, y, [
        ("mean", "free", "printed", 4.6), ("conv 1×1\n64 → 4", "1x1", "printed", 13),
        ("ReLU", "activation", "printed", 4.6), ("conv 1×1\n4 → 64", "1x1", "printed", 13),
        ("sigmoid", "activation", "printed", 4.6),
    ], gap=4.6)  # fmt: skip
    arrow(ax, (x, y), (x + GAP, y))
    arrow(ax, (tap, y), (tap, y + 9), (x + GAP + 2, y + 9), (x + GAP + 2, y + 2))
    label(ax, (tap + x + GAP) / 2, y + 11, "channel attention")
    x = node(ax, x + GAP, y, "x")
    arrow(ax, (x, y), (x + GAP, y))
    x = node(ax, x + GAP, y, "+")
    arrow(ax, (fork, y), (fork, skip), (x - 2, skip), (x - 2, y - 2))
    arrow(ax, (x, y), (168, y))
    box(ax, 168, y, r"$F_{n,m}$", "data", width=10, height=8)
    label(ax, (fork + x) / 2, skip + 2, "skip")


def draw_fusion(ax: Axes, y: float) -> None:
    """A SAFB with its middle line at y."""
    heading(
        ax, y + 19.5, "(d) SAFB: both features weighted by maps in (0, 1); widths and the lack of biases are our choice"
    )
    high, low, height, gap = y + 11, y - 11, 14, 6
    for level, name in ((high, r"$F_a$"), (low, r"$F_b$")):
        start = box(ax, 2, level, name, "data", width=10, height=8)
    fork = start + 4
    concat = fork + 5
    branch(ax, (fork, high), (fork, low))
    for level, into in ((high, y + 4), (low, y - 4)):
        arrow(ax, (fork, level), (fork, into), (concat, into))
    x = box(ax, concat, y, "concat", "free", width=4.6, height=height)
    x = chain(ax, x, y, [
        ("conv 1×1\n128 → 16", "1x1", "printed", 14), ("ReLU", "activation", "our choice", 4.6),
        ("conv 3×3\n16 → 16", "3x3", "our choice", 14), ("ReLU", "activation", "our choice", 4.6),
        ("conv 1×1\n16 → 128", "1x1", "our choice", 14), ("sigmoid", "activation", "printed", 4.6),
        ("split", "free", "printed", 4.6),
    ], height=height, gap=gap)  # fmt: skip
    product, total = x + 13, 156
    for level, side, name in ((high, 1, r"$W_a$"), (low, -1, r"$W_b$")):
        arrow(ax, (x, y + 4 * side), (product, y + 4 * side), (product, level - 2 * side))
        arrow(ax, (start, level), (product - 2, level))
        node(ax, product - 2, level, "x")
        label(ax, x + 5.5, y + 6.6 * side, name, size=7)
        arrow(ax, (product + 2, level), (total, level), (total, y + 2 * side), status="our choice")
    x = node(ax, total - 2, y, "+", "our choice")
    arrow(ax, (x, y), (168, y))
    box(ax, 168, y, r"$F$", "data", width=10, height=8)


def draw_legend(ax: Axes, y: float) -> None:
    """What colours and outlines mean."""
    kinds: dict[str, Kind] = {
        "3×3 convolution": "3x3", "1×1 convolution": "1x1", "activation": "activation", "block drawn below": "block",
        "no weights": "free", "feature or image": "data",
    }  # fmt: skip
    for (text, kind), x in zip(kinds.items(), (2, 33, 64, 89, 122, 149), strict=True):
        box(ax, x, y, "", kind, width=6, height=4)
        label(ax, x + 7.5, y, text, align="left")
    statuses: dict[Status, str] = {
        "printed": "printed in the paper",
        "inferred": "inferred from printed counts, skips from RCAN",
        "our choice": "our choice",
    }
    for (status, text), x in zip(statuses.items(), (2, 47, 122), strict=True):
        box(ax, x, y - 7, "", "data", status, width=6, height=4)
        label(ax, x + 7.5, y - 7, text, align="left")


def draw_architecture(ax: Axes) -> Axes:
    """PRFFN and its parts at x3: colours say the kind of a layer, outlines where it comes from. Returns the axis.

    Solid: printed; dashed: inferred from printed counts (skips, which have no parameters: from RCAN); dotted: our
    choice. The axis should fill a figure of `SIZE`.
    """
    with plt.style.context(STYLE):
        ax.set_position((0, 0, 1, 1))
        ax.set_xlim(0, WIDTH)
        ax.set_ylim(0, HEIGHT)
        ax.set_axis_off()
        draw_network(ax, 170)
        draw_group(ax, 143)
        draw_block(ax, 85.5)
        draw_fusion(ax, 35)
        draw_legend(ax, 11)
    return ax
