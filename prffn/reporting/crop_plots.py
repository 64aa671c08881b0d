"""Figures of crops, as the field prints them: an image with its region marked, and the region by each method.

One unit is a millimetre, so that sizes are those in print.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from prffn.reporting.plots import STYLE
from prffn.study.crops import Crops, from_png

WIDTH = 180.0  # of the figure: a page's two columns
TILE = 60.0  # the widest crop
GAP, CAPTION, BELOW = 2.0, 8.0, 4.0  # between neighbours; under a crop, two lines of text; between two pictures
DPI = 250  # for print
POINTS = 7.5  # size of the text, where there is room
FIGURES = 8.4  # width of "28.42 / 0.8312" in bold, in em

MARK = "#E8112D"
"""The frame of the region, with a white edge so that it shows on any image."""

DIGITS = {"psnr_y": 2, "ssim_y": 4}  # decimals of the figures, as the field prints them


class _Layout(NamedTuple):
    columns: int
    image: tuple[float, float]  # width and height, as of `tile` and of all together
    tile: tuple[float, float]
    size: tuple[float, float]


def _layout(crops: Crops, tiles: int) -> _Layout:
    """The image as high as two rows of crops, all together WIDTH wide: 2 (h + CAPTION) = image height + CAPTION."""
    _, _, height, width = crops.picture.region
    ratio, aspect = height / width, crops.picture.hr.shape[1] / crops.picture.hr.shape[0]
    columns = -(-tiles // 2)
    tile = min(TILE, (WIDTH - columns * GAP - CAPTION * aspect) / (columns + 2 * ratio * aspect))
    image = 2 * tile * ratio + CAPTION
    size = image * aspect + columns * (GAP + tile), image + CAPTION
    return _Layout(columns, (image * aspect, image), (tile, tile * ratio), size)


def size_of(pictures: Sequence[Crops], captions: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Width and height in inches of the figure that `draw_crops` fills."""
    sizes = [_layout(crops, 1 + len(_shown(crops, captions))).size for crops in pictures]
    return max(w for w, _ in sizes) / 25.4, (sum(h for _, h in sizes) + BELOW * (len(sizes) - 1)) / 25.4


def _shown(crops: Crops, captions: Mapping[str, str] | None) -> dict[str, str]:
    """The methods that are drawn, with their captions."""
    if captions is None:
        return {method: method for method in crops}
    return {method: caption for method, caption in captions.items() if method in crops}


def draw_crops(ax: Axes, pictures: Sequence[Crops], captions: Mapping[str, str] | None = None) -> Axes:
    """Each picture, one below the other: the image, then HR, bicubic and each method, with PSNR-Y (dB) / SSIM-Y.

    The best figures of a picture are bold. captions: the methods to draw, and what they are called there; None for
    all. Returns the axis.
    """
    with plt.style.context(STYLE):
        top, widest = 0.0, 0.0
        for crops in pictures:
            width, height = _draw(ax, crops, _shown(crops, captions), top)
            top, widest = top + height + BELOW, max(widest, width)
        ax.set_xlim(0, widest)
        ax.set_ylim(top - BELOW, 0)
        ax.set_aspect("equal")
        ax.axis("off")
    return ax


def _draw(ax: Axes, crops: Crops, shown: Mapping[str, str], top: float) -> tuple[float, float]:
    """One picture with its upper edge at `top`. Returns its width and height."""
    picture = crops.picture
    layout = _layout(crops, 1 + len(shown))
    wide, high = layout.image
    ax.imshow(picture.hr, extent=(0, wide, top + high, top), gid=picture.name)
    mm = wide / picture.hr.shape[1]  # per HR pixel
    y, x, height, width = (mm * value for value in picture.region)
    _frame(ax, x, top + y, width, height)
    w, h = layout.tile
    points = min(_points(shown.values(), w), w / (FIGURES * 0.353))
    below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": points}
    title = f"{picture.name}, x{picture.scale}"
    ax.text(wide / 2, top + high + 1, title, ha="center", va="top", fontsize=_points([title], wide), weight="bold")
    figures = {metric: crops.figures("crop", metric) for metric in DIGITS}
    best = {metric: max(figures[metric][method] for method in shown) for metric in DIGITS}
    tiles = [("HR", "PSNR / SSIM", picture.crop(picture.hr))]
    for method, caption in shown.items():
        both = " / ".join(_figure(figures[metric][method], best[metric], digits) for metric, digits in DIGITS.items())
        tiles.append((caption, both, from_png(crops[method]["png"])))
    for n, (caption, values, image) in enumerate(tiles):
        row, column = divmod(n, layout.columns)
        x, y = wide + GAP + column * (w + GAP), top + row * (h + CAPTION)
        squares = image.repeat(12, axis=0).repeat(12, axis=1)  # matplotlib reduces them: all come out of one size
        ax.imshow(squares, extent=(x, x + w, y + h, y), interpolation="antialiased", gid=f"crop {caption}")
        if n == 0:
            _frame(ax, x, y, w, h)
        ax.text(x + w / 2, y + h + 1, re.sub(r"L_(\w+)", r"$\\mathbf{L_{\1}}$", caption), weight="bold", **below)
        ax.text(x + w / 2, y + h + 4.2, values, **below)
    return layout.size


def _frame(ax: Axes, x: float, y: float, width: float, height: float) -> None:
    thickness = min(1.3, 0.2 * min(width, height))
    for colour, line in (("white", 2 * thickness), (MARK, thickness)):
        ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line, gid="region"))


def _figure(value: float, best: float, digits: int) -> str:
    """The figure as text, bold if it looks like the best one."""
    text = f"{value:.{digits}f}"
    return rf"$\mathbf{{{text}}}$" if text == f"{best:.{digits}f}" else text


def _points(names: Iterable[str], width: float) -> float:
    """The size of text at which all of these are within that width: bold letters are 0.7 em wide, an em 0.353 mm."""
    return min(POINTS, width / (0.7 * 0.353 * max(len(name) for name in names)))
