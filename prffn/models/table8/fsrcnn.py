"""FSRCNN (Dong, Loy, Tang: Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016)."""

import torch
from torch import Tensor, nn

from prffn.models.blocks import check_scale, conv, initialise
from prffn.models.luma import on_luma


class FSRCNN(nn.Module):
    """FSRCNN(56, 12, 4): features, shrinking, mapping, expanding, and a transposed convolution that upscales.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1]. The network works on Y; chroma is bicubic.
    d = 56, s = 12, m = 4, kernels 5, 1, 3, 1, 9 and PReLU for each channel: the published choice, 12,809 parameters
    at every scale. Weights are drawn from `generator` (PyTorch's own initialisation, our choice).
    Raises ValueError for a scale other than 2, 3, 4.
    """

    def __init__(
        self, scale: int = 2, *, d: int = 56, s: int = 12, m: int = 4, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_scale(scale)
        self.scale = scale
        mapping = [layer for _ in range(m) for layer in (conv(s, s), nn.PReLU(s))]
        self.network = nn.Sequential(
            conv(1, d, 5), nn.PReLU(d),
            conv(d, s, 1), nn.PReLU(s),
            *mapping,
            conv(s, d, 1), nn.PReLU(d),
            nn.ConvTranspose2d(d, 1, 9, stride=scale, padding=4, output_padding=scale - 1),
        )  # fmt: skip
        initialise(self, generator)

    def forward(self, lr: Tensor) -> Tensor:
        return on_luma(self.network, lr, self.scale)
