"""SeaNet (Fang, Li, Zeng: Soft-Edge Assisted Network for Single Image Super-Resolution, IEEE TIP 2020)."""

import torch
from torch import Tensor, nn

from prffn.models.blocks import ResBlock, RGBNetwork, Upsampler, conv
from prffn.models.table8.msrn import MultiScaleNetwork


class RoughNetwork(nn.Sequential):
    """Reconstructs a rough SR image: head, five 3x3 convs without activation, upsampler, tail."""

    def __init__(self, channels: int, scale: int) -> None:
        layers = [conv(channels, channels) for _ in range(5)]
        super().__init__(conv(3, channels), *layers, Upsampler(channels, scale), conv(channels, 3))


class SeaNet(RGBNetwork):
    """A rough SR image and its soft edge, fused and refined by 40 residual blocks at the size of the output.

    Structure and sizes are those of the authors' published code: 7,107,785 / 7,477,065 / 7,403,209 parameters at
    x2 / x3 / x4. Table 8 prints what is about the x3 count at x2, and the x4 count at x3 and x4.
    """

    def __init__(self, scale: int = 2, *, channels: int = 64, blocks: int = 40) -> None:
        super().__init__(scale)
        self.rough_network = RoughNetwork(channels, scale)
        self.edge_network = MultiScaleNetwork(scale, channels, blocks=5)
        self.fusion = conv(6, channels, 1)
        self.refine_head = conv(channels, channels)
        self.refine = nn.Sequential(*[ResBlock(channels) for _ in range(blocks)])
        self.refine_tail = conv(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.shifted(lr)
        edge = self.edge_network(x)  # the authors train it towards HR's soft edge with a second L1 term
        head = self.refine_head(self.fusion(torch.cat((self.rough_network(x), edge), dim=1)))  # (N, C, H, W)
        return self.restored(self.refine_tail(self.refine(head) + head))  # (N, 3, h * scale, w * scale)
