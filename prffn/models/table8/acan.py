"""ACAN (Chen, Zhou: Adaptive Attention Network for Image Super-resolution, Acta Automatica Sinica 48(8), 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import RGBNetwork, conv, outputs
from prffn.models.table8.awsrn import AWRU, KERNELS


class LocalPixelAttention(nn.Module):
    """Local pixel-wise attention: two 3x3 convs give a gate in (0, 1) for each pixel of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(x))))


class Stage(nn.Module):
    """Residual units and attention; a 1x1 conv fuses all their outputs; applied `recursions` times with one weight."""

    def __init__(self, channels: int, wide: int, units: int, recursions: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(AWRU(channels, wide, normed=False) for _ in range(units))
        self.attention = LocalPixelAttention(channels)
        self.fuse = conv((units + 3) * channels, channels, 1)
        self.residual_weight = nn.Parameter(torch.full((1,), 1 / recursions))  # at 1 the features grow to 1e10
        self.skip_weight = nn.Parameter(torch.ones(1))
        self.recursions = recursions

    def forward(self, x: Tensor) -> Tensor:
        first = x
        for _ in range(self.recursions):
            features = [x, *outputs(self.units, x)]
            fused = self.fuse(torch.cat((first, *features, self.attention(features[-1])), dim=1))
            x = self.residual_weight * fused + self.skip_weight * x
        return x


class ACAN(RGBNetwork):
    """A chain of stages; sub-pixel convs of kernels 3, 5, 7, 9 over the outputs of all stages make the SR image.

    We have the abstract only, and no code. Published there: attention with a weight for each pixel of each
    channel, cascading residual connections with learnt weights, a reconstruction with kernels of several sizes over
    the features of several depths. Inferred from Table 8: parameters grow by 63.0 K with scale^2, which is 32 features
    x 4 depths x (9 + 25 + 49 + 81) x 3; the rest, 548 K, is the same at each scale; at x3 and x4 each of its weights
    is used 17.7 times a pixel, so it is applied recursively. (At x2 the same reckoning gives 16.2: 2108.0 G does not
    fit the other two figures.) Our choice among what meets the counts: 4 stages of 3 units of 32 -> 64 -> 32
    channels, 18 recursions, whose residuals start with the weight 1/18, biases, and how the parts are joined.
    795,092 / 1,110,032 / 1,550,948 parameters at x2 / x3 / x4.
    """

    peak = 1.0

    def __init__(
        self,
        scale: int = 2,
        *,
        channels: int = 32,
        wide: int = 64,
        stages: int = 4,
        units: int = 3,
        recursions: int = 18,
    ) -> None:
        super().__init__(scale)
        self.head = conv(3, channels)
        self.stages = nn.ModuleList(Stage(channels, wide, units, recursions) for _ in range(stages))
        self.reconstruction = nn.ModuleList(conv(stages * channels, 3 * scale**2, k) for k in KERNELS)
        self.weights = nn.Parameter(torch.full((len(KERNELS),), 1 / len(KERNELS)))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(self.shifted(lr))
        depths = torch.cat(outputs(self.stages, x), dim=1)  # (N, stages C, h, w)
        total = sum(w * branch(depths) for w, branch in zip(self.weights, self.reconstruction, strict=True))
        return self.restored(F.pixel_shuffle(total, self.scale))  # (N, 3, h * scale, w * scale)
