"""CARN and CARN-M (Ahn, Kang, Sohn: Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual Network,
ECCV 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import RGBNetwork, Upsampler, conv


class ResidualBlock(nn.Module):
    """Conv, ReLU, conv, skip, ReLU; of CARN-M, the efficient one: two grouped convs and a 1x1 conv."""

    def __init__(self, channels: int, groups: int | None) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, groups=groups or 1)
        self.conv2 = conv(channels, channels, groups=groups or 1)
        self.pointwise = conv(channels, channels, 1) if groups else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.pointwise is not None:
            y = self.pointwise(F.relu(y))
        return F.relu(x + y)


class Cascade(nn.Module):
    """Three blocks; after the k-th a 1x1 conv takes the input and the k outputs of blocks so far, k = 1, 2, 3.

    With a single block in `blocks` it is applied three times (CARN-M).
    """

    def __init__(self, channels: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.fusions = nn.ModuleList(conv(k * channels, channels, 1) for k in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for k, fusion in enumerate(self.fusions):
            features.append(self.blocks[k % len(self.blocks)](x))
            x = F.relu(fusion(torch.cat(features, dim=1)))  # (N, (k + 2) C, H, W) -> (N, C, H, W)
        return x


class CARN(RGBNetwork):
    """Cascades of residual blocks, themselves in a cascade.

    One network for all scales, as published and as its checkpoint holds it: it has an upsampler for each of
    x2, x3, x4, and `scale` says which one is used (it may be set later); training at one scale leaves the other two as
    they are. 1,591,939 parameters are the printed 1592 K.
    multi_scale=False keeps the one upsampler that is used: 964,163 / 1,148,803 / 1,111,875 parameters.
    groups: None for CARN; 4 for CARN-M, whose blocks have grouped convs, and whose cascades repeat one block.
    """

    peak = 1.0

    def __init__(self, scale: int = 2, *, groups: int | None = None, multi_scale: bool = True) -> None:
        super().__init__(scale)
        channels = 64
        self.head = conv(3, channels)

        def cascade() -> nn.Module:
            return Cascade(channels, [ResidualBlock(channels, groups) for _ in range(1 if groups else 3)])

        self.body = Cascade(channels, [cascade() for _ in range(3)])
        scales = (2, 3, 4) if multi_scale else (scale,)
        self.upsamplers = nn.ModuleDict(
            {f"x{s}": Upsampler(channels, s, groups=groups or 1, activated=True) for s in scales}
        )
        self.tail = conv(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.body(self.head(self.shifted(lr)))
        return self.restored(self.tail(self.upsamplers[f"x{self.scale}"](x)))  # (N, 3, h * scale, w * scale)
