"""The quickstart: a photograph upscaled, what L_contr sees of a pixel, a small network watched as it learns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prffn.config import Experiment
from prffn.data.degradation import ImageArray, downscale, mod_crop, upscale_bicubic
from prffn.data.images import read_image
from prffn.data.pictures import find_image, pixels_sha256
from prffn.evaluation.metrics import psnr_y, ssim_y
from prffn.evaluation.tiling import upscale
from prffn.files import cache_root, from_extra
from prffn.losses import contrast as losses
from prffn.losses.contrast import Contrast
from prffn.models.complexity import parameters
from prffn.models.pretrained import pretrained_path, settings_of_file
from prffn.reporting.plots import STYLE
from prffn.study.keys import run_key
from prffn.training.device import threads_for
from prffn.training.loop import CURVE_POINTS, VALIDATE_EVERY, Trained, build_model, train

with from_extra("kit"):
    import matplotlib.pyplot as plt
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import SymLogNorm
    from matplotlib.patches import Rectangle

Curves = dict[str, list[dict[str, float]]]  # points of training curves by label, as in `Trained.curve`


@dataclass(frozen=True)
class Upscaled:
    """A photograph, its LR image, and what bicubic interpolation and a network make of that, all (H, W, 3) uint8."""

    scale: int
    hr: ImageArray
    lr: ImageArray
    bicubic: ImageArray
    sr: ImageArray

    def check_pixel(self, row: int, column: int) -> None:
        """Raise ValueError unless the HR image has a pixel in that row and column."""
        height, width = self.hr.shape[:2]
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"no pixel in row {row}, column {column}: the image has {height} rows and {width} columns")

    def detail(self, row: int, column: int, side: int) -> dict[str, ImageArray]:
        """Return the same square around a pixel, cut from the HR and both SR images, by the labels of figures.

        Raises ValueError for a pixel outside the image.
        """
        self.check_pixel(row, column)
        place = tuple(
            slice(start := max(0, min(at - side // 2, size - side)), start + side)
            for at, size in zip((row, column), self.hr.shape, strict=False)
        )
        return {"bicubic": self.bicubic[place], "PRFFN": self.sr[place], "HR": self.hr[place]}

    def figures(self) -> pd.DataFrame:
        """Return PSNR-Y and SSIM-Y by the kit's protocol, to the two and four decimals that papers print."""
        rows = {
            label: {
                "PSNR-Y (dB)": f"{psnr_y(image, self.hr, self.scale):.2f}",
                "SSIM-Y": f"{ssim_y(image, self.hr, self.scale):.4f}",
            }
            for label, image in (("bicubic", self.bicubic), ("PRFFN", self.sr))
        }
        return pd.DataFrame(rows).T


def load_photo(image: str) -> ImageArray:
    """Return an HR image by the names that `prffn.data.pictures.picture` takes, or by the path of a file."""
    return read_image(find_image(image)[1])


def upscaled(photo: ImageArray, network: nn.Module, device: torch.device | str = "cpu") -> Upscaled:
    """Downscale a photograph, and upscale it again by bicubic interpolation and by the network, in tiles of 256."""
    scale = int(network.scale)  # type: ignore[arg-type]
    lr = downscale(photo, scale)
    sr = upscale(network, lr, scale=scale, device=device, tile=256)
    return Upscaled(scale, np.asarray(mod_crop(photo, scale)), lr, upscale_bicubic(lr, scale), sr)


def about_pretrained(scale: int) -> pd.DataFrame:
    """Return the settings that the shipped network of a scale was trained with, as a table."""
    said = settings_of_file(pretrained_path(scale))
    names = {
        "channels": "model.channels", "groups": "model.groups", "training images": "data.train",
        "steps": "training.steps", "started from": "training.start", "lambda_c": "loss.contrast_weight",
        "S": "loss.region_size",
    }  # fmt: skip
    rows = {label: str(said["settings"][name]) for label, name in names.items() if name in said["settings"]}
    return pd.DataFrame({"shipped network": {"scale": f"x{scale}", **rows, "record": said["record"]}})


def plot_detail(axes: Sequence[Axes], result: Upscaled, row: int, column: int, side: int = 72) -> Sequence[Axes]:
    """Plot the same square of the bicubic, SR and HR images on three axes, which are returned. Raises as `detail`."""
    for ax, (label, image) in zip(axes, result.detail(row, column, side).items(), strict=True):
        _show(ax, image, label)
    return axes


@dataclass(frozen=True)
class Region:
    """A pixel of the SR image and its candidates: what L_contr sees of it.

    sr, hr: the region, (h, w, 3) uint8. anchor: the pixel's row and column in it. weights: of each HR pixel as a
    candidate, (h, w): exp(-|x - y|^2 / tau), divided by their sum. At the anchor's own place stands the positive.
    loss: the anchor's term of L_contr, -log of the positive's weight.
    """

    sr: ImageArray
    hr: ImageArray
    anchor: tuple[int, int]
    weights: NDArray[np.float64]
    loss: float

    def figures(self) -> pd.DataFrame:
        """Return the positive's weight, the largest of a negative, and the term of the loss."""
        others = self.weights.copy()
        others[self.anchor] = 0
        rows = {
            "weight of the positive": f"{self.weights[self.anchor]:.2f}",
            "largest weight of a negative": f"{others.max():.2f}",
            "negatives of more than 1 %": str(int((others > 0.01).sum())),
            "the anchor's term, -log of the positive's weight": f"{self.loss:.1f}",
        }
        return pd.DataFrame({"what L_contr sees": rows})


def region_at(result: Upscaled, row: int, column: int, contrast: Contrast | None = None) -> Region:
    """Return the region of the SR image's pixel in that row and column, with the weights that L_contr gives it.

    contrast: an InfoNCE with HR negatives; the default definition if not given.
    Raises ValueError for a pixel outside the image, or another definition, which has no such weights.
    """
    result.check_pixel(row, column)
    contrast = contrast or Contrast()
    if (contrast.form, contrast.negatives) != ("infonce", "hr"):
        raise ValueError(f"only InfoNCE with HR negatives gives weights, got {contrast.form}, {contrast.negatives}")
    side = math.isqrt(contrast.region_size)
    top, left = row - row % side, column - column % side
    sr, hr = (image[top : top + side, left : left + side] for image in (result.sr, result.hr))
    anchor = row - top, column - left
    candidates = torch.from_numpy(hr.reshape(1, -1, 3) / 255)  # (1, S, 3)
    itself = torch.from_numpy(sr[anchor] / 255).expand_as(candidates)
    # -log of each candidate's weight: its term as if it were the positive
    terms = losses.anchor_losses(itself, candidates, contrast).numpy().reshape(hr.shape[:2])
    return Region(sr, hr, anchor, np.exp(-terms), float(terms[anchor]))


def contrast_map(result: Upscaled, contrast: Contrast | None = None) -> NDArray[np.float64]:
    """Return each SR pixel's term of L_contr, (H, W); NaN for one that is alone in a region cut short by the border."""
    sr, hr = (torch.from_numpy(image / 255).permute(2, 0, 1)[None] for image in (result.sr, result.hr))
    return losses.contrast_map(sr, hr, contrast or Contrast())[0].numpy()


def plot_contrast_map(ax: Axes, terms: NDArray[np.float64]) -> Axes:
    """Plot the terms of all anchors as an image, on a scale that is linear up to 1 and logarithmic beyond."""
    shown = ax.imshow(terms, cmap="Greys", norm=SymLogNorm(1, vmin=0))
    _show(ax, None, "each pixel's term of L_contr")
    ax.figure.colorbar(shown, ax=ax, shrink=0.8, ticks=[0, 1, 10, 100], format="%g")
    return ax


def plot_region(axes: Sequence[Axes], region: Region) -> Sequence[Axes]:
    """Plot on three axes: the SR region with the anchor, the HR region with the positive, the candidates' weights."""
    _show(axes[0], region.sr, "SR: the anchor")
    _show(axes[1], region.hr, "HR: positive and negatives")
    axes[2].imshow(region.weights, cmap="Greys", vmin=0, vmax=1)
    _show(axes[2], None, "weights of the candidates")
    for (row, column), weight in np.ndenumerate(region.weights):
        if weight >= 0.005:
            axes[2].text(column, row, f"{weight:.2f}".removeprefix("0"), ha="center", va="center", fontsize=6,
                         color="white" if weight > 0.5 else "black")  # fmt: skip
    for ax in axes:
        row, column = region.anchor
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=2))
    return axes


def _show(ax: Axes, image: ImageArray | None, title: str) -> None:
    if image is not None:
        ax.imshow(image, interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)


def train_watched(
    e: Experiment,
    result: Upscaled,
    watch: Callable[[list[dict[str, float]]], None],
    *,
    device: torch.device | str = "cpu",
    retrain: bool = False,
) -> Trained:
    """Train a small network, and give `watch` the points so far ten times on the way: step, PSNR-Y on the photograph.

    The photograph must be none of the training images. A network that was trained before is taken from the cache, with
    the curve of this photograph.
    """
    points: list[dict[str, float]] = []
    interval = VALIDATE_EVERY * max(1, e.training.steps // CURVE_POINTS)

    def validate(model: nn.Module) -> float:
        sr = upscale(model, result.lr, scale=result.scale, device=device)
        step = min(interval * (len(points) + 1), e.training.steps)
        points.append({"step": step, "psnr_y": psnr_y(sr, result.hr, result.scale)})
        watch(points)
        return points[-1]["psnr_y"]

    checkpoint = cache_root() / "explore" / f"{run_key(e)}-{pixels_sha256(result.hr)[:16]}.ckpt"
    if retrain:
        checkpoint.unlink(missing_ok=True)
    with threads_for(parameters(build_model(e))):
        return train(
            e, device=device, checkpoint=checkpoint, checkpoint_every=math.inf, validate=validate, progress=False
        )


def plot_curves(axes: Sequence[Axes], curves: Curves, result: Upscaled, steps: int) -> Sequence[Axes]:
    """Plot PSNR-Y on the photograph, beside bicubic, and L_1 over the steps, on two axes; a curve for each label."""
    with plt.style.context(STYLE):
        for label, curve in curves.items():
            for ax, name, style in ((axes[0], "psnr_y", "o-"), (axes[1], "l1", "-")):
                points = [(point["step"], point[name]) for point in curve if name in point]
                ax.plot(*np.reshape(points, (-1, 2)).T, style, label=label)
        bicubic = psnr_y(result.bicubic, result.hr, result.scale)
        axes[0].axhline(bicubic, color="0.55", linestyle="--", label="bicubic")
        axes[0].set_ylabel("PSNR-Y on the photograph (dB)")
        axes[1].set_ylabel("L_1 of the batches")
        for ax in axes:
            ax.set_xlim(0, steps)
            ax.set_xlabel("step")
        axes[0].legend(fontsize=8, loc="lower right")
    return axes
