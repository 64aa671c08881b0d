"""DRCN (Kim, Lee, Lee: Deeply-Recursive Convolutional Network for Image Super-Resolution, CVPR 2016)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import Network, conv
from prffn.models.luma import bicubic, on_luma


class DRCN(Network):
    """One convolution applied 16 times; each of its outputs is reconstructed, and the 16 images are averaged.

    The network works on Y after bicubic upscaling, at the size of the output: 17,974 G multi-adds at every scale;
    chroma is bicubic. 256 channels, 16 recursions, two layers before and two after, ReLU, the input as a skip of each
    reconstruction, learnt averaging weights: as published, 1,775,121 parameters. As there, the recursive convolution
    starts as the identity, the others from He's normal distribution, biases at 0; the averaging weights at 1/16 (our
    choice).
    The loss on the 16 intermediate images is not part of the network. Its gradient adds up over the recursions: Adam at
    1e-4 overshoots for some twenty steps before the error falls, at 2e-6 it falls from the first.
    """

    def __init__(self, scale: int = 2, *, channels: int = 256, recursions: int = 16) -> None:
        super().__init__(scale)
        self.embedding = nn.ModuleList([conv(1, channels), conv(channels, channels)])
        self.recursive = conv(channels, channels)
        self.reconstruction = nn.ModuleList([conv(channels, channels), conv(channels, 1)])
        self.average = nn.Parameter(torch.full((recursions,), 1 / recursions))
        self.draw()

    def draw(self, generator: torch.Generator | None = None) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.dirac_(self.recursive.weight)

    def forward(self, lr: Tensor) -> Tensor:
        return on_luma(lambda y: self.refine(bicubic(y, self.scale)), lr, self.scale)

    def refine(self, y: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, H, W): Y upscaled by bicubic interpolation to Y of the SR image."""
        feature = y
        for layer in self.embedding:
            feature = F.relu(layer(feature))
        total = torch.zeros_like(y)
        for weight in self.average:
            feature = F.relu(self.recursive(feature))
            total = total + weight * (y + self.reconstruct(feature))
        return total

    def reconstruct(self, feature: Tensor) -> Tensor:
        first, last = self.reconstruction
        return last(F.relu(first(feature)))
