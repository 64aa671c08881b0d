"""PRFFN's forward pass written down as its equations read: the fast one must equal it, and never be slower."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.models.blocks import MRCAB, SAFB
from prffn.models.prffn import PRFFN


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
    branches = [F.relu(F.conv2d(x, weight, bias, padding=rate, dilation=rate)) for rate in rates]
    y = block.conv2(sum(branches[1:], branches[0]))
    gate = torch.sigmoid(block.attention.expand(F.relu(block.attention.reduce(y.mean(dim=(2, 3), keepdim=True)))))
    return x + y * gate


def _fusion(fusion: Any, a: Tensor, b: Tensor) -> Tensor:
    both = torch.cat((a, b), dim=1)
    if not isinstance(fusion, SAFB):
        return fusion.fuse(both)
    weights = torch.sigmoid(fusion.expand(F.relu(fusion.spatial(F.relu(fusion.reduce(both))))))
    weight_a, weight_b = weights.chunk(2, dim=1)
    return a * weight_a + b * weight_b
