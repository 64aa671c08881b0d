"""What the networks do, reckoned another way: PRFFN by its equations, and what SMSR's masks skip."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.evaluation.tiling import MEMORY_FORMAT
from prffn.models.blocks import MRCAB, SAFB
from prffn.models.prffn import PRFFN
from prffn.models.table8.smsr import SMSR, MaskedConvs


def straightforward(model: PRFFN, lr: Tensor) -> Tensor:
    """What `model` makes of `lr`: one operation after the other, each with a result of its own, in the layout of `lr`.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale).
    """
    head = model.head(lr - model.mean)
    x = head
    for group in model.groups:
        x = _group(group, x)
    x = model.trunk(x) + head
    return model.tail(model.upsampler(x)) + model.mean


def _group(group: Any, x: Tensor) -> Tensor:
    feature = progressive = x
    for m, block in enumerate(group.blocks):
        feature = _block(block, feature)
        progressive = _fusion(group.fusions[m], progressive, feature) if group.fusions else feature
    return x + group.conv(progressive)


def _block(block: Any, x: Tensor) -> Tensor:
    """RCAB; MRCAB by Eqs. (6) and (7), its dilated convolutions one after the other."""
    rates = block.dilation_rates if isinstance(block, MRCAB) else (1,)
    weight, bias = block.conv1.weight, block.conv1.bias
    if block.conv1.padding_mode == "replicate":
        branches = [F.relu(F.conv2d(_replicated(x, rate), weight, bias, dilation=rate)) for rate in rates]
    else:
        branches = [F.relu(F.conv2d(x, weight, bias, padding=rate, dilation=rate)) for rate in rates]
    y = block.conv2(sum(branches[1:], branches[0]))
    gate = torch.sigmoid(block.attention.expand(F.relu(block.attention.reduce(y.mean(dim=(2, 3), keepdim=True)))))
    return x + y * gate


def _replicated(x: Tensor, rate: int) -> Tensor:
    """The image with `rate` pixels more on each side, each like the nearest inside."""
    rows, columns = (torch.arange(-rate, n + rate).clamp(0, n - 1) for n in x.shape[2:])
    return x[:, :, rows[:, None], columns]


def _fusion(fusion: Any, a: Tensor, b: Tensor) -> Tensor:
    both = torch.cat((a, b), dim=1)
    if not isinstance(fusion, SAFB):
        return fusion.fuse(both)
    weights = torch.sigmoid(fusion.expand(F.relu(fusion.spatial(F.relu(fusion.reduce(both))))))
    weight_a, weight_b = weights.chunk(2, dim=1)
    return a * weight_a + b * weight_b


def weights_computed(block: MaskedConvs, mask: Tensor) -> float:
    """Multi-adds a pixel that are left when SMSR skips zeros; mask: (N, 1, H, W) of 0 and 1."""
    share, channels = mask.mean().item(), block.collect.out_channels
    # channels of each layer that are computed everywhere; all of the block's input is there everywhere
    dense = [channels, *block.channel_logits.softmax(3).round()[0, :, :, 0].sum(0).tolist()]
    everywhere = [*(9 * a * b for a, b in pairwise(dense)), channels * sum(dense[1:])]
    inside = [weight.numel() for weight in (*block.convs.parameters(), block.collect.weight)]
    return sum(a + share * (b - a) for a, b in zip(everywhere, inside, strict=True))


def share_computed(model: SMSR, lr: Tensor) -> float:
    """Share of the masked convolutions' multi-adds that the masks leave on an image, (1, 3, h, w): 0 to 1."""
    shares: list[float] = []

    def measure(block: MaskedConvs, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        dense = sum(weight.numel() for weight in (*block.convs.parameters(), block.collect.weight))
        shares.append(weights_computed(block, inputs[1]) / dense)

    hooks = [module.body.register_forward_hook(measure) for module in model.body]
    with torch.no_grad():
        model.eval()(lr)
    for hook in hooks:
        hook.remove()
    return sum(shares) / len(shares)


def upscale_tensor(model: nn.Module, lr: Tensor) -> Tensor:
    """As `upscale`, on one image (3, h, w) in [0, 1] and without rounding: (3, h * scale, w * scale)."""
    with torch.inference_mode():
        return model.eval()(lr[None].contiguous(memory_format=MEMORY_FORMAT))[0]
