"""Around networks that work on Y: colours apart, bicubic chroma, colours together again."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

RGB_TO_YCBCR = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float64
) / 255  # fmt: skip
"""ITU-R BT.601, RGB in [0, 1] to YCbCr in [0, 1] less OFFSET (MATLAB's rgb2ycbcr)."""

YCBCR_TO_RGB = torch.linalg.inv(RGB_TO_YCBCR)

OFFSET = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64).view(3, 1, 1) / 255


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """(N, 3, h, w) both, in [0, 1]; Y from 16 / 255 to 235 / 255."""
    return _mix(RGB_TO_YCBCR, rgb) + OFFSET.to(rgb)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`."""
    return _mix(YCBCR_TO_RGB, ycbcr - OFFSET.to(ycbcr))


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """A matrix product over the channels, written as a sum so that autocast leaves it in full precision."""
    return (matrix.to(channels)[:, :, None, None] * channels[:, None]).sum(2)  # (N, 3, 3, h, w) -> (N, 3, h, w)


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Keys' bicubic upscaling, a = -0.5, index clamped at the border, as the LR images' downscaling. (N, C, h, w)."""
    margin = 3  # the kernel reaches two pixels: with three more on each side none is cut off
    padded = F.pad(x, (margin,) * 4, mode="replicate")
    inside = slice(margin * scale, -margin * scale)
    # only with `antialias` is PyTorch's a = -0.5; when scaling up, it does nothing else
    return F.interpolate(padded, scale_factor=scale, mode="bicubic", antialias=True)[..., inside, inside]


def on_luma(network: Callable[[Tensor], Tensor], lr: Tensor, scale: int) -> Tensor:
    """Upscales Y by `network`, (N, 1, h, w) -> (N, 1, h * scale, w * scale), and the chroma by bicubic interpolation.

    lr: (N, 3, h, w), RGB in [0, 1]. Returns (N, 3, h * scale, w * scale), RGB; gradients flow through Y.
    """
    ycbcr = rgb_to_ycbcr(lr)
    return ycbcr_to_rgb(torch.cat((network(ycbcr[:, :1]), bicubic(ycbcr[:, 1:], scale)), dim=1))
