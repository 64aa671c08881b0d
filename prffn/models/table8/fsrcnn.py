"""FSRCNN (Dong, Loy, Tang: Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016)."""

from torch import Tensor, nn

from prffn.models.blocks import Network, conv
from prffn.models.luma import on_luma


class FSRCNN(Network):
    """FSRCNN(56, 12, 4): features, shrinking, mapping, expanding, and a transposed convolution that upscales.

    The network works on Y; chroma is bicubic. d = 56, s = 12, m = 4, kernels 5, 1, 3, 1, 9 and PReLU for each channel:
    the published choice, 12,809 parameters at every scale.
    """

    def __init__(self, scale: int = 2, *, d: int = 56, s: int = 12, m: int = 4) -> None:
        super().__init__(scale)
        mapping = [layer for _ in range(m) for layer in (conv(s, s), nn.PReLU(s))]
        self.network = nn.Sequential(
            conv(1, d, 5), nn.PReLU(d),
            conv(d, s, 1), nn.PReLU(s),
            *mapping,
            conv(s, d, 1), nn.PReLU(d),
            nn.ConvTranspose2d(d, 1, 9, stride=scale, padding=4, output_padding=scale - 1),
        )  # fmt: skip

    def forward(self, lr: Tensor) -> Tensor:
        return on_luma(self.network, lr, self.scale)
