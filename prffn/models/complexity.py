"""Parameters and multi-adds, counted as the field counts them."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prffn.models.blocks import MRCAB

OUTPUT_720P = (720, 1280)
"""Height and width of the output for which the field prints multi-adds."""


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters; a weight shared by several branches counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def multi_adds(model: nn.Module, scale: int, *, shared_branches: str = "once") -> int:
    """Multiply-adds of the convolutions for a 1280 x 720 output: weights times output positions, biases left out.

    The LR input is 640 x 360, 427 x 240 or 320 x 180 pixels (x2, x3, x4), the field's convention. `shared_branches`
    says how the dilated branches of MRCAB, which share a weight, are counted: "once", which fits the printed
    figures, or "all", the work that is really done.
    """
    if shared_branches not in ("once", "all"):
        raise ValueError(f"shared_branches must be 'once' or 'all', got {shared_branches!r}")
    height, width = (round(n / scale) for n in OUTPUT_720P)
    model = copy.deepcopy(model).to("meta").eval()
    repeated = 0

    def count_repeats(block: MRCAB, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        nonlocal repeated
        positions = inputs[0].shape[-2] * inputs[0].shape[-1]
        repeated += (len(block.dilation_rates) - 1) * block.conv1.weight.numel() * positions

    for module in model.modules():
        if isinstance(module, MRCAB):
            module.register_forward_hook(count_repeats)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, height, width, device="meta"))
    by_operation = counter.get_flop_counts().get("Global", {})
    computed = by_operation.get(torch.ops.aten.convolution, 0) // 2  # the counter counts a multiply-add as two
    return computed - (repeated if shared_branches == "once" else 0)
