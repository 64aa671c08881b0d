"""TSAN (Zhang et al.: A Two-Stage Attentive Network for Single Image Super-Resolution, IEEE Trans. Circuits and Systems
for Video Technology 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import RGBNetwork, Upsampler, conv, outputs


class ContextLayer(nn.Module):
    """1x1 conv, two branches of two dilated 3x3 convs, a 1x1 conv over their four outputs; ReLU after each.

    The input is concatenated to the output: (N, in_channels, H, W) -> (N, channels + in_channels, H, W).
    """

    def __init__(self, in_channels: int, channels: int, dilation: int) -> None:
        super().__init__()

        def dilated() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

        self.reduce = conv(in_channels, channels, 1)
        self.first = nn.ModuleList(dilated() for _ in range(2))
        self.second = nn.ModuleList(dilated() for _ in range(2))
        self.fuse = conv(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = F.relu(self.reduce(x))
        features = []
        for first, second in zip(self.first, self.second, strict=True):
            features.append(F.relu(first(reduced)))
            features.append(F.relu(second(features[-1])))
        return torch.cat((F.relu(self.fuse(torch.cat(features, dim=1))), x), dim=1)


class CrossRegion(nn.Module):
    """Lets the four quarters of the feature map see each other: a 1x1 conv over their channels, put one over another.

    (N, C, H, W) -> (N, C, H, W). An odd side is padded by a row or column (our choice: the authors' code takes even
    sides only; it also overwrites its input with the result, which later layers then see, and ours does not).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv(4 * channels, 4 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        halves = [half for column in even.chunk(2, dim=3) for half in column.chunk(2, dim=2)]
        a, b, c, d = self.mix(torch.cat(halves, dim=1)).chunk(4, dim=1)  # (N, 4 C, H / 2, W / 2) -> four of C
        return torch.cat((torch.cat((a, b), dim=2), torch.cat((c, d), dim=2)), dim=3)[..., :height, :width]


def cross_dimension(x: Tensor, *, first_order: bool) -> Tensor:
    """x, plus x gated by the sigmoid of its means, for each of the dimensions C, H and W in turn. (N, C, H, W).

    First order: a gate for each channel, each row, each column. Second: one for each pair of the other two dimensions.
    """
    total = x
    for dimension in (1, 2, 3):
        pooled = [d for d in (1, 2, 3) if d != dimension] if first_order else [dimension]
        total = total + x * torch.sigmoid(x.mean(pooled, keepdim=True))
    return total


class MCAB(nn.Module):
    """Multi-context attentive block: dense context layers, times an attention map of the block's input.

    The six layers have dilation rates 1, 2, 3, 3, 2, 1 and are densely connected; a 1x1 conv and a skip follow.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 3, 3, 2, 1)) -> None:
        super().__init__()
        widths = [(n + 1) * channels for n in range(len(dilations) + 1)]
        layers = [ContextLayer(width, channels, d) for width, d in zip(widths[:-1], dilations, strict=True)]
        self.context = nn.Sequential(*layers, conv(widths[-1], channels, 1, bias=False))
        self.cross_region = CrossRegion(channels)
        self.attention = conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        context = x + self.context(x)
        gate = cross_dimension(self.cross_region(x), first_order=True)
        gate = cross_dimension(gate, first_order=False)
        return context * torch.sigmoid(self.attention(gate))


class TSAN(RGBNetwork):
    """First stage: three MCABs and a sub-pixel upsampler make a coarse SR image; second: five 3x3 convs refine it.

    Structure and sizes are those of the authors' published code: 3,989,510 / 4,174,150 / 4,137,222 parameters at
    x2 / x3 / x4, which are the printed ones.
    """

    def __init__(self, scale: int = 2, *, channels: int = 64, blocks: int = 3) -> None:
        super().__init__(scale)
        self.head = conv(3, channels, 1)
        self.blocks = nn.ModuleList(MCAB(channels) for _ in range(blocks))
        self.bottleneck = conv(blocks * channels, channels, 1)
        self.trunk = conv(channels, channels)
        self.upsampler = Upsampler(channels, scale)
        self.tail = conv(channels, 3, 1)
        self.refine_head = conv(3, channels, 1)
        refine = [layer for _ in range(5) for layer in (conv(channels, channels, bias=False), nn.ReLU())]
        self.refine = nn.Sequential(*refine)
        self.refine_tail = conv(channels, 3, 1)

    def forward(self, lr: Tensor) -> Tensor:
        head = F.relu(self.head(self.shifted(lr)))
        x = self.trunk(self.bottleneck(torch.cat(outputs(self.blocks, head), dim=1))) + head
        coarse = self.tail(self.upsampler(x))  # (N, 3, h * scale, w * scale); the authors give it an L1 term of its own
        return self.restored(coarse + self.refine_tail(self.refine(self.refine_head(coarse))))
