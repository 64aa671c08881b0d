"""OISR-RK2 and OISR-LF (He, Mo, Wang, Liu, Yang, Cheng: ODE-inspired Network Design for Single Image Super-Resolution,
CVPR 2019)."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prffn.models.blocks import ResidualNetwork, conv

Scheme = Literal["RK2", "LF"]
"""RK2: a step of Heun's method, the Runge-Kutta scheme of second order; LF: four steps of the leapfrog scheme."""


class Derivative(nn.Sequential):
    """G of dy/dt = G(y): PReLU and a conv, `layers` times."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__(*[layer for _ in range(layers) for layer in (nn.PReLU(channels), conv(channels, channels))])


class HeunBlock(nn.Module):
    """y -> y + h (G1(y) + G2(y + G1(y))), with h learnt from 1/2; each G has two convs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.derivatives = nn.ModuleList(Derivative(channels, 2) for _ in range(2))
        self.step = nn.Parameter(torch.tensor([0.5]))

    def forward(self, y: Tensor) -> Tensor:
        first, second = self.derivatives
        slope = first(y)
        return y + self.step * (slope + second(y + slope))


class LeapfrogBlock(nn.Module):
    """y[n+1] = y[n-1] + h[n] G[n](y[n]), n = 0 to 3, with y[-1] = 0 and each h learnt from 2; each G has one conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.derivatives = nn.ModuleList(Derivative(channels, 1) for _ in range(4))
        self.steps = nn.ParameterList(torch.full((1,), 2.0) for _ in range(4))

    def forward(self, y: Tensor) -> Tensor:
        before, now = torch.zeros_like(y), y
        for step, derivative in zip(self.steps, self.derivatives, strict=True):
            before, now = now, before + step * derivative(now)
        return now


class OISR(ResidualNetwork):
    """EDSR's frame with 8 ODE blocks of 122 channels in place of its residual blocks.

    Blocks, channels and starting steps are those of the authors' published code: 4,971,511 / 5,641,901 / 5,507,823
    parameters at x2 / x3 / x4 for RK2, 24 more for LF (published: 5.50 M at x4).
    Raises ValueError for an unknown scheme.
    """

    def __init__(self, scale: int = 2, *, scheme: Scheme = "RK2", channels: int = 122, blocks: int = 8) -> None:
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}")
        block = HeunBlock if scheme == "RK2" else LeapfrogBlock
        super().__init__(scale, channels, (block(channels) for _ in range(blocks)))
