"""RCAN (Zhang et al.: Image Super-Resolution Using Very Deep Residual Channel Attention Networks, ECCV 2018)."""

import torch
from torch import Tensor, nn

from prffn.models.blocks import RCAB, Upsampler, conv, div2k_mean, initialise


class ResidualGroup(nn.Module):
    """A chain of RCABs, a 3x3 conv and a short skip."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[RCAB(channels, reduction) for _ in range(blocks)])
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.blocks(x))


class RCAN(nn.Module):
    """Head, 10 groups of 20 RCABs with a long skip, sub-pixel upsampler, tail.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1]; inside, RGB is from 0 to 255 less the mean of DIV2K,
    as its authors have it. Sizes as published: 15,444,643 / 15,629,283 / 15,592,355 parameters at x2 / x3 / x4
    (published: about 16 M). Weights are drawn from `generator` (PyTorch's own initialisation, as in the authors' code).
    Raises ValueError for a scale other than 2, 3, 4.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int = 2,
        *,
        channels: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", div2k_mean(), persistent=False)
        self.head = conv(3, channels)
        self.groups = nn.Sequential(*[ResidualGroup(channels, blocks, reduction) for _ in range(groups)])
        self.trunk = conv(channels, channels)
        self.upsampler = Upsampler(channels, scale)
        self.tail = conv(channels, 3)
        if generator is not None:
            initialise(self, generator)

    def forward(self, lr: Tensor) -> Tensor:
        head = self.head(255 * (lr - self.mean))
        x = self.trunk(self.groups(head)) + head
        return self.tail(self.upsampler(x)) / 255 + self.mean  # (N, 3, h * scale, w * scale)
