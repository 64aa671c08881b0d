"""EDSR (Lim et al.: Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPR Workshops 2017)."""

import torch
from torch import Tensor, nn

from prffn.models.blocks import ResBlock, Upsampler, conv, div2k_mean, initialise


class EDSR(nn.Module):
    """Head, residual blocks without normalisation, a long skip, sub-pixel upsampler, tail.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1]; inside, RGB is from 0 to 255 less the mean of DIV2K,
    as its authors have it. The size behind Table 4 is not printed: EDSR-baseline, 16 blocks of 64 channels, is our
    choice, 1,369,859 / 1,554,499 / 1,517,571 parameters at x2 / x3 / x4 (published: 1.37 / 1.55 / 1.52 M). The paper's
    large EDSR is channels=256, blocks=32, residual_scale=0.1. Weights are drawn from `generator` (PyTorch's own
    initialisation, as in the authors' code). Raises ValueError for a scale other than 2, 3, 4.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int = 2,
        *,
        channels: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", div2k_mean(), persistent=False)
        self.head = conv(3, channels)
        self.blocks = nn.Sequential(*[ResBlock(channels, residual_scale) for _ in range(blocks)])
        self.trunk = conv(channels, channels)
        self.upsampler = Upsampler(channels, scale)
        self.tail = conv(channels, 3)
        if generator is not None:
            initialise(self, generator)

    def forward(self, lr: Tensor) -> Tensor:
        head = self.head(255 * (lr - self.mean))
        x = self.trunk(self.blocks(head)) + head
        return self.tail(self.upsampler(x)) / 255 + self.mean  # (N, 3, h * scale, w * scale)
