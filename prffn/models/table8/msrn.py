"""MSRN (Li, Fang, Mei, Zhang: Multi-scale Residual Network for Image Super-Resolution, ECCV 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import RGBNetwork, Upsampler, conv, outputs


class MSRB(nn.Module):
    """Multi-scale residual block: two branches of kernels 3 and 5 that exchange their features halfway, 1x1, skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3_1 = conv(channels, channels, 3)
        self.conv3_2 = conv(2 * channels, 2 * channels, 3)
        self.conv5_1 = conv(channels, channels, 5)
        self.conv5_2 = conv(2 * channels, 2 * channels, 5)
        self.fuse = conv(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((F.relu(self.conv3_1(x)), F.relu(self.conv5_1(x))), dim=1)  # (N, 2 C, H, W)
        both = torch.cat((F.relu(self.conv3_2(both)), F.relu(self.conv5_2(both))), dim=1)  # (N, 4 C, H, W)
        return x + self.fuse(both)


class MultiScaleNetwork(RGBNetwork):
    """Head, a chain of MSRBs, all their outputs and the head's fused, upsampler, tail: MSRN; SeaNet's edge network.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), on shifted values.
    """

    def __init__(self, scale: int, channels: int, blocks: int) -> None:
        super().__init__(scale)
        self.head = conv(3, channels)
        self.blocks = nn.ModuleList(MSRB(channels) for _ in range(blocks))
        self.bottleneck = conv((blocks + 1) * channels, channels, 1)
        self.trunk = conv(channels, channels)
        self.upsampler = Upsampler(channels, scale)
        self.tail = conv(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(x)
        x = self.trunk(self.bottleneck(torch.cat((*outputs(self.blocks, head), head), dim=1)))
        return self.tail(self.upsampler(x))  # (N, 3, h * scale, w * scale)


class MSRN(MultiScaleNetwork):
    """8 MSRBs in a chain; all their outputs and the head's are fused before the upsampler.

    This is the RGB network of the authors' published code and checkpoints: 5,930,307 / 6,114,947 / 6,078,019 parameters
    at x2 / x3 / x4. Table 8 prints its x4 count, 6078 K, at every scale, beside multi-adds of the first, Y-only network
    (one upsampling step, no conv after the bottleneck; 426 x 240 at x3), to the digit.
    """

    def __init__(self, scale: int = 2, *, channels: int = 64, blocks: int = 8) -> None:
        super().__init__(scale, channels, blocks)

    def forward(self, lr: Tensor) -> Tensor:
        return self.restored(super().forward(self.shifted(lr)))
