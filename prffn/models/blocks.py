"""PRFFN's building blocks, under the paper's names, and what other networks share. Shapes are (N, C, H, W) throughout.

The blocks write over results that no gradient needs again, which saves traffic with the memory and keeps the bits.
Without gradients that is nearly every result: `added` and `multiplied` make the forward pass 3 to 8 % faster on a CPU,
`SAFB.in_halves` 4 % (measured: 64 channels on 120 x 160 pixels, 16 on 256 x 256). No block writes into its inputs.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["zeros", "replicate"]  # what convolutions see beyond the border: zeros, or the nearest pixel again

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1], subtracted before and added after the network as in EDSR and RCAN."""


def div2k_mean() -> Tensor:
    """DIV2K_MEAN as a buffer, (1, 3, 1, 1)."""
    return torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)


def check_scale(scale: int) -> None:
    """Raises ValueError for a scale other than 2, 3, 4."""
    if not hasattr(scale, "__index__") or scale not in (2, 3, 4):
        raise ValueError(f"scale must be 2, 3 or 4, got {scale!r}")


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias, groups=groups)


def pad_with(model: nn.Module, padding: Padding) -> None:
    """Let the convolutions of a network, the dilated branches of MRCAB too, see `padding` beyond the border."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.padding_mode = padding


def added(total: Tensor, x: Tensor) -> Tensor:
    """total + x, written over `total` unless gradients are recorded: a ReLU before may need it."""
    return total + x if torch.is_grad_enabled() else total.add_(x)


def multiplied(x: Tensor, factor: Tensor) -> Tensor:
    """x * factor, written over `x` unless gradients are recorded: that of `factor` needs it."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)


def outputs(blocks: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """The outputs of `blocks`, each of which takes the output of the one before; the first takes `x`."""
    found: list[Tensor] = []
    for block in blocks:
        x = block(x)
        found.append(x)
    return found


class Network(nn.Module):
    """What all networks share: (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].

    Raises ValueError for a scale other than 2, 3, 4.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        check_scale(scale)
        self.scale = scale

    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights and biases of all convolutions from `generator`, as `nn.Conv2d` does from global state.

        Of a weight-normalised convolution the weight is drawn, whose norm and direction then follow.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                bound = (module.weight[0].numel()) ** -0.5  # U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both
                drawn = nn.init.uniform_(torch.empty_like(module.weight), -bound, bound, generator=generator)
                with torch.no_grad():
                    if nn.utils.parametrize.is_parametrized(module):
                        module.weight = drawn
                    else:
                        module.weight.copy_(drawn)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)


class RGBNetwork(Network):
    """A network with values inside that are `peak` times RGB less the mean of DIV2K, as its authors have it."""

    mean: Tensor
    peak = 255.0

    def __init__(self, scale: int) -> None:
        super().__init__(scale)
        self.register_buffer("mean", div2k_mean(), persistent=False)

    def shifted(self, lr: Tensor) -> Tensor:
        """RGB in [0, 1] to the values inside."""
        return self.peak * (lr - self.mean)

    def restored(self, sr: Tensor) -> Tensor:
        """The values inside to RGB in [0, 1]."""
        return sr / self.peak + self.mean


class ResidualNetwork(RGBNetwork):
    """The frame of EDSR, RCAN, OISR and PRFFN: head, a chain of blocks with a long skip, sub-pixel upsampler, tail."""

    chain = "blocks"  # what the authors call the chain: a part of its weights' names

    def __init__(self, scale: int, channels: int, blocks: Iterable[nn.Module]) -> None:
        super().__init__(scale)
        self.head = conv(3, channels)
        self.add_module(self.chain, nn.Sequential(*blocks))
        self.trunk = conv(channels, channels)
        self.upsampler = Upsampler(channels, scale)
        self.tail = conv(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        head = self.head(self.shifted(lr))
        x = self.trunk(self.get_submodule(self.chain)(head)) + head
        return self.restored(self.tail(self.upsampler(x)))  # (N, 3, h * scale, w * scale)


class ChannelAttention(nn.Module):
    """Channel attention of RCAN (Zhang et al., ECCV 2018): each channel is scaled by a gate in (0, 1)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = conv(channels, hidden, 1)
        self.expand = conv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.expand(F.relu(self.reduce(pooled))))


class RCAB(nn.Module):
    """Residual channel attention block (RCAN): conv, ReLU, conv, channel attention, skip."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return self.attended(F.relu_(self.conv1(x)), x)

    def attended(self, features: Tensor, x: Tensor) -> Tensor:
        """What follows the first convolution and its ReLU; x: the block's input."""
        y = self.conv2(features)
        return multiplied(y, self.attention.gate(y)).add_(x)


class MRCAB(RCAB):
    """Multi-scale residual channel attention block, Eqs. (6) and (7); one branch of rate 1 makes it RCAB (printed).

    The dilated branches share one weight (inferred: Table 1 prints no added parameter).
    """

    def __init__(self, channels: int, reduction: int = 16, dilation_rates: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__(channels, reduction)
        self.dilation_rates = tuple(dilation_rates)

    @property
    def repeated_weights(self) -> int:
        """Weights that are applied again after the first branch, counted as often as they are."""
        return (len(self.dilation_rates) - 1) * self.conv1.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        total = self.branch(x, self.dilation_rates[0])
        for rate in self.dilation_rates[1:]:
            total = added(total, self.branch(x, rate))
        return self.attended(total, x)

    def branch(self, x: Tensor, rate: int) -> Tensor:
        """Eq. (6) for one rate."""
        weight, bias, padding = self.conv1.weight, self.conv1.bias, rate
        if self.conv1.padding_mode != "zeros":
            x, padding = F.pad(x, (rate,) * 4, self.conv1.padding_mode), 0
        return F.relu_(F.conv2d(x, weight, bias, padding=padding, dilation=rate))


class RFAFusion(nn.Module):
    """Fusion in the style of RFA (Liu et al., CVPR 2020), of PRFFN1: a 1x1 conv over both features (inferred)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fuse = conv(2 * channels, channels, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.fuse(torch.cat((a, b), dim=1))


class SAFB(nn.Module):
    """Spatial attention fusion block, Fig. 5: the two features are weighted by maps in (0, 1) and added.

    The layers between are our choice among those within 0.8 K of the printed totals (notebooks/architecture.ipynb):
    1x1 to a quarter of the channels, 3x3, 1x1 to one map for each channel of both features, without biases (6,400
    parameters at 64 channels).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 4)
        self.reduce = conv(2 * channels, hidden, 1, bias=False)
        self.spatial = conv(hidden, hidden, 3, bias=False)
        self.expand = conv(hidden, 2 * channels, 1, bias=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.in_halves(a, b)
        # Not in place: a map of one channel would have other strides then, and its gradients other last bits.
        weights = F.relu(self.spatial(F.relu(self.reduce(torch.cat((a, b), dim=1)))))
        weight_a, weight_b = self.expand(weights).sigmoid_().chunk(2, dim=1)
        return (a * weight_a).add_(b * weight_b)

    def in_halves(self, a: Tensor, b: Tensor) -> Tensor:
        """The same but for rounding, and faster: each 1x1 conv as two, one for a and one for b.

        Nothing is concatenated, and each map has a tensor of its own, which the result can be written over. Recorded
        figures depend on this rounding: by the other path most images' PSNR differs by up to 2e-5 dB.
        """
        reduce_a, reduce_b = self.reduce.weight.chunk(2, dim=1)
        expand_a, expand_b = self.expand.weight.chunk(2, dim=0)
        reduced = F.conv2d(a, reduce_a).add_(F.conv2d(b, reduce_b))
        weights = F.relu_(self.spatial(F.relu_(reduced)))
        weighted_a = F.conv2d(weights, expand_a).sigmoid_().mul_(a)
        return weighted_a.addcmul_(F.conv2d(weights, expand_b).sigmoid_(), b)


class ResBlock(nn.Module):
    """Residual block of EDSR (Lim et al., CVPR Workshops 2017): conv, ReLU, conv, times `residual_scale`, skip."""

    def __init__(self, channels: int, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.conv2(F.relu(self.conv1(x)))


class Upsampler(nn.Sequential):
    """Sub-pixel upsampler (Shi et al., CVPR 2016), as in EDSR: x2, x3 in one step, x4 in two of x2.

    groups: of its convolutions; activated: with a ReLU before each shuffle (CARN).
    """

    def __init__(self, channels: int, scale: int, *, groups: int = 1, activated: bool = False) -> None:
        layers: list[nn.Module] = []
        for s in [3] if scale == 3 else [2] * int(math.log2(scale)):
            layers += [conv(channels, channels * s * s, groups=groups), *[nn.ReLU()] * activated, nn.PixelShuffle(s)]
        super().__init__(*layers)
