"""AWSRN (Wang, Li, Shi: Lightweight Image Super-Resolution with Adaptive Weighted Learning Network, 2019)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from prffn.models.blocks import RGBNetwork, conv, outputs

KERNELS = (3, 5, 7, 9)  # kernel sizes of the reconstruction's four branches


class AWRU(nn.Module):
    """Adaptive weighted residual unit: widening conv, ReLU, conv; a learnt factor on the residual and one on the skip.

    normed: whether its convolutions are weight-normalised.
    """

    def __init__(self, channels: int, wide: int, *, normed: bool = True) -> None:
        super().__init__()
        norm: Callable[[nn.Conv2d], nn.Module] = weight_norm if normed else nn.Identity()
        self.conv1 = norm(conv(channels, wide))
        self.conv2 = norm(conv(wide, channels))
        self.residual_weight = nn.Parameter(torch.ones(1))
        self.skip_weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual_weight * self.conv2(F.relu(self.conv1(x))) + self.skip_weight * x


class LFB(nn.Module):
    """Local fusion block: four AWRUs in a chain, a 3x3 conv over all four outputs, a weighted skip."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(AWRU(channels, wide) for _ in range(4))
        self.fuse = weight_norm(conv(4 * channels, channels))
        self.residual_weight = nn.Parameter(torch.ones(1))
        self.skip_weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        fused = self.fuse(torch.cat(outputs(self.units, x), dim=1))  # (N, 4 C, H, W) -> (N, C, H, W)
        return self.residual_weight * fused + self.skip_weight * x


class AWMS(nn.Module):
    """Adaptive weighted multi-scale reconstruction: weighted sum of sub-pixel convs of kernels 3, 5, 7, 9."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(weight_norm(conv(channels, 3 * scale**2, k)) for k in KERNELS)
        self.weights = nn.ParameterList(torch.full((1,), 1 / len(KERNELS)) for _ in KERNELS)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        total = sum(weight * branch(x) for weight, branch in zip(self.weights, self.branches, strict=True))
        return F.pixel_shuffle(total, self.scale)  # (N, 3 scale^2, h, w) -> (N, 3, h * scale, w * scale)


class AWSRN(RGBNetwork):
    """4 LFBs of 32 channels (128 inside the units), AWMS, and a sub-pixel conv of the input as the long skip.

    Sizes and weight normalisation are those of the authors' published code: 1,396,872 / 1,476,147 / 1,587,132
    parameters at x2 / x3 / x4.
    """

    peak = 2.0

    def __init__(self, scale: int = 2, *, channels: int = 32, wide: int = 128, blocks: int = 4) -> None:
        super().__init__(scale)
        self.head = weight_norm(conv(3, channels))
        self.blocks = nn.Sequential(*[LFB(channels, wide) for _ in range(blocks)])
        self.reconstruction = AWMS(channels, scale)
        self.skip = weight_norm(conv(3, 3 * scale**2))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.shifted(lr)
        sr = self.reconstruction(self.blocks(self.head(x))) + F.pixel_shuffle(self.skip(x), self.scale)
        return self.restored(sr)  # (N, 3, h * scale, w * scale)
