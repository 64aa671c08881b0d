"""The convolutions of a forward pass of PRFFN: each call, the step it belongs to, its work."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prffn.models import PRFFN

STEPS = (
    (r"head", "head"),
    (r"groups\.\d+\.blocks\.\d+\.conv1", "branch of rate {rate}"),
    (r"groups\.\d+\.blocks\.\d+\.conv2", "conv after the branches"),
    (r"groups\.\d+\.blocks\.\d+\.attention\..*", "channel attention"),
    (r"groups\.\d+\.fusions\.\d+\..*", "fusion"),
    (r"groups\.\d+\.conv", "conv of the group"),
    (r"trunk", "trunk"),
    (r"upsampler\.\d+", "upsampler"),
    (r"tail", "tail"),
)
"""Which step a convolution belongs to, by its layer's name. RCAB's first one is MRCAB's with rate 1 alone (printed)."""


@dataclass(frozen=True)
class ConvCall:
    """One call of a convolution: `compute(x)` for an input of `shape` (N, C, H, W) and `strides`."""

    step: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    multi_adds: int
    compute: Callable[[Tensor], Tensor]


class _Recorder(TorchFunctionMode):
    """Keeps what `torch.conv2d` is called with; the calls go on as ever.

    names: the layer of each weight, by the address of its storage, which a part of the weight has too.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names, self.calls = names, list[ConvCall]()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function is torch.conv2d:
            self.calls.append(self.call(output, *args, **kwargs))
        return output

    def call(
        self,
        output: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> ConvCall:
        layer = self.names[weight.untyped_storage().data_ptr()]
        return ConvCall(
            step=step(layer, dilation if isinstance(dilation, int) else dilation[0]),
            shape=tuple(x.shape),
            strides=x.stride(),
            multi_adds=weight.numel() * output[:, 0].numel(),
            compute=lambda x: torch.conv2d(x, weight, bias, stride, padding, dilation, groups),
        )


def step(layer: str, rate: int) -> str:
    """The step of a layer of PRFFN, such as "groups.0.blocks.0.conv1", at a dilation rate."""
    return next(name for pattern, name in STEPS if re.fullmatch(pattern, layer)).format(rate=rate)


def conv_calls(model: PRFFN, lr: Tensor) -> list[ConvCall]:
    """All convolutions of `model(lr)` without gradients, in their order: every branch of MRCAB is a call of its own."""
    names = {
        value.untyped_storage().data_ptr(): name.removesuffix(".weight") for name, value in model.named_parameters()
    }
    with torch.inference_mode(), _Recorder(names) as recorder:
        model(lr)
    return recorder.calls
