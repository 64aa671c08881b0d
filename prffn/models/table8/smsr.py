"""SMSR (Wang et al.: Exploring Sparsity in Image Super-Resolution for Efficient Inference, CVPR 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models.blocks import ChannelAttention, RGBNetwork, conv, outputs


class MaskedConvs(nn.Module):
    """Four 3x3 convs of which each channel is computed everywhere or only where the spatial mask is 1, then a 1x1 conv.

    forward(x, mask): (N, C, H, W) and (N, 1, H, W) -> (N, C, H, W). Dense and sparse input channels go through each
    conv apart, since what sparse ones contribute to a dense output is kept within the mask only. The authors'
    inference skips the zeros; here they are computed and multiplied away, with the same result.
    """

    def __init__(self, channels: int, layers: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, bias=False) for _ in range(layers))
        self.channel_logits = nn.Parameter(torch.rand(1, channels, layers, 2))  # dense, sparse
        self.collect = conv(layers * channels, channels, 1)

    @property
    def repeated_weights(self) -> int:
        """Weights that are applied a second time, to the sparse channels."""
        return sum(weight.numel() for weight in list(self.convs.parameters())[1:])

    def channel_masks(self) -> Tensor:
        """(1, C, layers, 2): how far each channel is dense and sparse; soft in training, 0 or 1 otherwise."""
        if self.training:
            return F.gumbel_softmax(self.channel_logits, dim=3)
        return self.channel_logits.softmax(3).round()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        features, channel_masks = [], self.channel_masks()
        previous: tuple[Tensor, Tensor] | None = None
        for n, layer in enumerate(self.convs):
            dense, sparse = channel_masks[:, :, n, :, None, None].unbind(2)  # (1, C, 1, 1) each
            if previous is None:
                y = layer(x)
                x = y * (dense + sparse * mask)
            else:
                from_dense, from_sparse = (layer(x * part) for part in previous)
                x = from_dense * (dense + sparse * mask) + from_sparse * (dense + sparse) * mask
            x = F.relu(x)
            features.append(x)
            previous = (dense, sparse)
        return self.collect(torch.cat(features, dim=1))


class SparseMaskModule(nn.Module):
    """Predicts the spatial mask at half the resolution, applies the masked convs, channel attention and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.mask1 = conv(channels, hidden)
        self.mask2 = conv(hidden, hidden)
        self.mask3 = nn.ConvTranspose2d(hidden, 2, 3, stride=2, padding=1, output_padding=1)
        self.body = MaskedConvs(channels)
        self.attention = ChannelAttention(channels)

    def spatial_mask(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1, H, W): where the sparse channels are computed; soft in training, 0 or 1 otherwise."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")  # the mask is predicted in squares of 2 x 2
        logits = self.mask3(F.relu(self.mask2(F.avg_pool2d(F.relu(self.mask1(even)), 2))))[..., :height, :width]
        if self.training:
            return F.gumbel_softmax(logits, dim=1)[:, 1:]
        return (logits[:, 1:] > logits[:, :1]).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.body(x, self.spatial_mask(x)))


class SMSR(RGBNetwork):
    """Five sparse mask modules, all their outputs fused; the input upscaled by bicubic interpolation is added.

    Sizes as in the authors' published code: 987,306 / 995,961 / 1,008,078 parameters at x2 / x3 / x4. The
    printed multi-adds are those of the dense network; what the masks skip depends on the image (published: 41, 33 and
    27 % of all at x2, x3 and x4).
    In training the masks are soft, drawn with noise from PyTorch's global state; otherwise they are 0 or 1. (The
    authors also lower the temperature of the draw, and have the share that is computed as a second loss term.) Odd
    sizes are padded by a pixel for the mask (our choice: the authors' code takes even ones only).
    """

    def __init__(self, scale: int = 2, *, channels: int = 64, modules: int = 5) -> None:
        super().__init__(scale)
        self.head = nn.Sequential(conv(3, channels), nn.ReLU(), conv(channels, channels))
        self.body = nn.ModuleList(SparseMaskModule(channels) for _ in range(modules))
        self.collect = nn.Sequential(conv(modules * channels, channels, 1), nn.ReLU(), conv(channels, channels))
        self.tail = conv(channels, 3 * scale**2)

    def draw(self, generator: torch.Generator) -> None:
        super().draw(generator)
        for name, parameter in self.named_parameters():
            if name.endswith("channel_logits"):
                nn.init.uniform_(parameter, generator=generator)

    def forward(self, lr: Tensor) -> Tensor:
        shifted = self.shifted(lr)
        head = self.head(shifted)
        x = self.tail(self.collect(torch.cat(outputs(self.body, head), dim=1)) + head)
        skip = F.interpolate(shifted, scale_factor=self.scale, mode="bicubic")
        return self.restored(F.pixel_shuffle(x, self.scale) + skip)  # (N, 3, h * scale, w * scale)
