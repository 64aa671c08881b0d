"""Parameters and multi-adds, counted as the field counts them."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

OUTPUT_720P = (720, 1280)  # height and width of the output for which the field prints multi-adds


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters; a weight shared by several branches or recursions counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def multi_adds(model: nn.Module, scale: int, *, repeats: bool = False) -> int:
    """Multiply-adds of the convolutions for a 1280 x 720 output: weights times output positions, biases left out.

    The LR input is 640 x 360, 427 x 240 or 320 x 180 pixels (x2, x3, x4), the field's convention. A convolution that
    is applied recursively counts each time (DRCN, ACAN). A transposed one counts at its output positions, scale^2
    times the work that is really done: so the field prints FSRCNN. Linear layers and attention's matrix products
    do not count (SwinIR), nor does the bicubic upscaling around a network that works on Y.

    repeats: whether the dilated branches of MRCAB, which share a weight, and SMSR's two passes over dense and over
    sparse channels all count, the work that is done here; if not, once, which fits the printed figures.
    """
    height, width = (round(n / scale) for n in OUTPUT_720P)
    model = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    repeated = 0

    def count_repeats(block: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal repeated
        repeated += block.repeated_weights * math.prod(inputs[0].shape[-2:])

    for module in model.modules():
        if hasattr(module, "repeated_weights"):
            module.register_forward_hook(count_repeats)
    with torch.no_grad(), _Convolutions() as done:
        model(torch.empty(1, 3, height, width, device="meta"))
    return done.computed - (0 if repeats else repeated)


class _Convolutions(TorchDispatchMode):
    """Counts weights times output positions, of grouped and transposed convolutions too.

    PyTorch's FlopCounterMode gives the same, takes twice as long, and a second more when it is first used.
    """

    computed = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        if op is torch.ops.aten.convolution.default:
            self.computed += math.prod(args[1].shape) * len(out) * math.prod(out.shape[2:])
        return out
