"""EDSR (Lim et al.: Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPR Workshops 2017)."""

from prffn.models.blocks import ResBlock, ResidualNetwork


class EDSR(ResidualNetwork):
    """Residual blocks without normalisation in a frame that other networks took over.

    The size behind Table 4 is not printed: EDSR-baseline, 16 blocks of 64 channels, is our choice, 1,369,859 /
    1,554,499 / 1,517,571 parameters at x2 / x3 / x4 (published: 1.37 / 1.55 / 1.52 M). The paper's large EDSR is
    channels=256, blocks=32, residual_scale=0.1.
    """

    def __init__(self, scale: int = 2, *, channels: int = 64, blocks: int = 16, residual_scale: float = 1.0) -> None:
        super().__init__(scale, channels, (ResBlock(channels, residual_scale) for _ in range(blocks)))
