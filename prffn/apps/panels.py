"""Widgets beside the static figures of the quickstart: compare by a slider, pick a pixel, train by a button.

ipywidgets alone cannot tell where an image was clicked. So a region is chosen by two sliders, and its pixels are
buttons in their own colours: a click on one makes it the anchor.
"""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from prffn.apps.quickstart import Curves, Upscaled, plot_curves, plot_region, region_at, train_watched
from prffn.config import Experiment, experiment
from prffn.data.degradation import ImageArray
from prffn.files import from_extra
from prffn.losses.contrast import Contrast
from prffn.reporting.plots import new_figure

with from_extra("kit"):
    import ipywidgets as widgets
    from IPython.core.pylabtools import print_figure
    from IPython.display import DisplayHandle
    from matplotlib.figure import Figure

ORANGE = (213, 94, 0)  # of what is marked: the colour of the anchor in figures


def encoded(image: ImageArray, zoom: int = 1) -> bytes:
    """Return a JPEG of an image, each pixel a square of `zoom` pixels."""
    buffer = io.BytesIO()
    enlarged = image.repeat(zoom, 0).repeat(zoom, 1)
    Image.fromarray(enlarged).save(buffer, format="JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def compare_slider(result: Upscaled, row: int, column: int, side: int = 160, zoom: int = 3) -> widgets.VBox:
    """Show a square around a pixel: bicubic left of a line that a slider moves, the network's image on its right."""
    bicubic, sr, _ = result.detail(row, column, side).values()
    slider = widgets.IntSlider(value=50, min=0, max=100, description="bicubic %", layout={"width": "480px"})
    picture = widgets.Image(format="jpeg", layout={"width": "480px"})

    def draw(*_: Any) -> None:
        at = slider.value * bicubic.shape[1] // 100
        both = np.concatenate((bicubic[:, :at], sr[:, at:]), axis=1)
        both[:, max(0, at - 1) : at] = 255
        picture.value = encoded(both, zoom)

    slider.observe(draw, "value")
    draw()
    return widgets.VBox([slider, picture])


def region_panel(result: Upscaled, row: int, column: int) -> widgets.VBox:
    """Show a region that two sliders choose, its pixels as buttons, and what L_contr sees of the one clicked."""
    side = math.isqrt(Contrast().region_size)
    height, width = result.hr.shape[:2]
    down = widgets.IntSlider(value=row // side, max=height // side - 1, description="region row")
    across = widgets.IntSlider(value=column // side, max=width // side - 1, description="column")
    where = widgets.Image(format="jpeg", layout={"width": "300px"})
    buttons = [
        widgets.Button(layout={"width": "26px", "height": "26px", "padding": "0", "margin": "0"})
        for _ in range(side**2)
    ]
    grid = widgets.GridBox(buttons, layout={"grid_template_columns": f"repeat({side}, 26px)", "grid_gap": "1px"})
    figure, text = widgets.Image(format="png", layout={"width": "640px"}), widgets.HTML()
    anchor = [row % side, column % side]

    def draw(*_: Any) -> None:
        top, left = down.value * side, across.value * side
        region = region_at(result, top + anchor[0], left + anchor[1])
        marked = result.sr.copy()
        marked[max(0, top - 2) : top + side + 2, max(0, left - 2) : left + side + 2] = ORANGE
        marked[top : top + side, left : left + side] = region.sr
        where.value = encoded(marked)
        for n, button in enumerate(buttons):
            button.style.button_color = "rgb({}, {}, {})".format(*region.sr[n // side, n % side])
            button.layout.border = "3px solid #D55E00" if (n // side, n % side) == region.anchor else "none"
        drawing, axes = new_figure(ncols=3, figsize=(7.2, 2.6))
        plot_region(axes, region)  # type: ignore[arg-type]
        figure.value = print_figure(drawing, bbox_inches=None, dpi=90)
        text.value = region.figures().to_html(border=0)

    def pick(button: widgets.Button) -> None:
        anchor[:] = divmod(buttons.index(button), side)
        draw()

    for button in buttons:
        button.on_click(pick)
    for slider in (down, across):
        slider.observe(draw, "value")
    draw()
    left = widgets.VBox([down, across, where], layout={"flex": "0 0 320px"})
    pixels = widgets.VBox([widgets.Label("click a pixel"), grid], layout={"flex": f"0 0 {27 * side + 16}px"})
    return widgets.VBox([widgets.HBox([left, pixels, text]), figure])


def train_live(
    settings: Mapping[str, Any], result: Upscaled, *, seeds: int = 1, device: torch.device | str = "cpu", retrain: bool
) -> Curves:
    """Train a network for each seed; the figure in the cell's output grows with it. Returns the curves by label."""
    curves: Curves = {}
    handle = DisplayHandle()
    handle.display(_curves_figure(curves, result, experiment(settings).training.steps))
    for seed in range(seeds):
        e = experiment({**settings, "seed": seed})
        _train(e, f"seed {seed}", curves, result, handle.update, device=device, retrain=retrain)
    return curves


def training_panel(settings: Mapping[str, Any], result: Upscaled, device: torch.device | str = "cpu") -> widgets.VBox:
    """Show a button that trains the network of these settings at a chosen lambda_c, and adds its curve as it grows."""
    weight = widgets.Dropdown(options=[0.0, 0.1, 1.0, 10.0], value=0.1, description="lambda_c")
    seed = widgets.BoundedIntText(value=1, min=0, max=1000, description="seed")
    button, picture = widgets.Button(description="train"), widgets.Image(format="png", layout={"width": "720px"})
    curves: Curves = {}

    def show(figure: Figure) -> None:
        picture.value = print_figure(figure, bbox_inches=None, dpi=90)

    def press(*_: Any) -> None:
        e = experiment({**settings, "loss.contrast_weight": float(weight.value), "seed": int(seed.value)})
        button.disabled, button.description = True, "training ..."
        try:
            _train(e, f"lambda_c = {weight.value:g}, seed {seed.value}", curves, result, show, device=device)
        finally:
            button.disabled, button.description = False, "train"

    button.on_click(press)
    show(_curves_figure(curves, result, experiment(settings).training.steps))
    return widgets.VBox([widgets.HBox([weight, seed, button]), picture])


def _train(
    e: Experiment, label: str, curves: Curves, result: Upscaled, show: Callable[[Figure], None], **options: Any
) -> None:
    """Train one network, and show the figure of all curves whenever its own has grown. options: of `train_watched`."""

    def watch(points: list[dict[str, float]]) -> None:
        curves[label] = points
        show(_curves_figure(curves, result, e.training.steps))

    watch(train_watched(e, result, watch, **options).curve)


def _curves_figure(curves: Curves, result: Upscaled, steps: int) -> Figure:
    figure, axes = new_figure(ncols=2, figsize=(8, 3))
    plot_curves(axes, curves, result, steps)  # type: ignore[arg-type]
    return figure
