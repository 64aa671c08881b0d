"""RCAN (Zhang et al.: Image Super-Resolution Using Very Deep Residual Channel Attention Networks, ECCV 2018)."""

from torch import Tensor, nn

from prffn.models.blocks import RCAB, ResidualNetwork, conv


class ResidualGroup(nn.Module):
    """A chain of RCABs, a 3x3 conv and a short skip."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[RCAB(channels, reduction) for _ in range(blocks)])
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.blocks(x))


class RCAN(ResidualNetwork):
    """10 groups of 20 RCABs in EDSR's frame.

    Sizes as published: 15,444,643 / 15,629,283 / 15,592,355 parameters at x2 / x3 / x4 (published: about 16 M).
    """

    chain = "groups"

    def __init__(
        self, scale: int = 2, *, channels: int = 64, groups: int = 10, blocks: int = 20, reduction: int = 16
    ) -> None:
        super().__init__(scale, channels, (ResidualGroup(channels, blocks, reduction) for _ in range(groups)))
