"""Weights from which a network starts as an interpolation, not as noise (our choice, for short trainings).

The first three feature channels carry RGB past the body, whose last convolution starts at zero, through the sub-pixel
upsampler; all other channels are drawn as ever, and the output does not listen to them yet. No layer or parameter is
added: the architecture stays as it is, and every weight is trained.
"""

from typing import Any

import torch
from torch import Tensor, nn

from prffn.models.swinir import SwinIRLight


def start_as_interpolation(model: nn.Module) -> None:
    """Changes the weights of PRFFN, EDSR, RCAN or SwinIR-light so that at first they interpolate, each phase of a pixel
    by a parabola through three pixels in a row and in a column (what a 3x3 kernel can hold of bicubic)."""
    swin = isinstance(model, SwinIRLight)
    inner: Any = model.network if swin else model
    names = ("conv_first", "conv_after_body", "upsample") if swin else ("head", "trunk", "upsampler")
    head, trunk, upsampler = (getattr(inner, name) for name in names)
    shuffles = [conv for conv in upsampler.modules() if isinstance(conv, nn.Conv2d)]
    with torch.no_grad():
        _pass_on(head)
        trunk.weight.zero_()
        trunk.bias.zero_()
        for conv in shuffles:
            last = swin and conv is shuffles[-1]  # its shuffled channels are RGB already
            _interpolate(conv, steps=round((conv.out_channels / (3 if last else conv.in_channels)) ** 0.5))
        if not swin:
            tail = inner.tail
            _pass_on(tail)
            tail.weight[:, 3:] = 0


def _pass_on(conv: nn.Conv2d) -> None:
    """The first three channels come out as they go in."""
    conv.weight[:3] = 0
    conv.bias[:3] = 0  # type: ignore[index]
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = 1


def _interpolate(conv: nn.Conv2d, steps: int) -> None:
    """The first three channels, once shuffled, are those of the input at `steps` times as many pixels a side."""
    phases = steps * steps
    conv.weight[: 3 * phases] = 0
    conv.bias[: 3 * phases] = 0  # type: ignore[index]
    taps = parabola(steps).to(conv.weight)
    kernels = torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)  # (steps * steps, 3, 3)
    for channel in range(3):
        conv.weight[channel * phases : (channel + 1) * phases, channel] = kernels


def parabola(steps: int) -> Tensor:
    """Weights of the pixels at -1, 0 and 1 for each of `steps` places in the middle one: (steps, 3), rows of sum 1."""
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5
    return torch.stack((t * (t - 1) / 2, 1 - t * t, t * (t + 1) / 2), dim=1)
