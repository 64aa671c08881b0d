"""Structures that the network may have: lists of convolutions, and their parameters.

Each count is that of the kit's own network plus or minus convolutions; the tests build them and count again.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from prffn.models import PRFFN
from prffn.models.complexity import parameters

C, GROUPS, BLOCKS = 64, 10, 30  # channels, inferred; groups and blocks in all, printed
KIT_SAFB = "1x1 128 -> 16, 3x3 16 -> 16, 1x1 16 -> 128, no bias"  # our choice, prffn.models.blocks.SAFB
X2_SAFB = "1x1 128 -> 16, 3x3 16 -> 2"  # meets the printed multi-adds at x2 if biases count, misses the parameters


class Conv(NamedTuple):
    """A convolution at the LR image's resolution; groups are PyTorch's."""

    inputs: int
    outputs: int
    kernel: int = 3
    bias: bool = True
    groups: int = 1

    @property
    def weights(self) -> int:
        return self.inputs // self.groups * self.outputs * self.kernel**2

    @property
    def parameters(self) -> int:
        return self.weights + self.outputs * self.bias


Convs = tuple[Conv, ...]


def cost(*convs: Conv) -> int:
    """Parameters of convolutions."""
    return sum(conv.parameters for conv in convs)


def spelled(convs: Iterable[Conv]) -> str:
    """Convolutions in words, such as "1x1 128 -> 16, 3x3 16 -> 2, no bias"."""
    convs = list(convs)
    words = [f"{c.kernel}x{c.kernel} {c.inputs} -> {c.outputs}{' depthwise' if c.groups > 1 else ''}" for c in convs]
    return ", ".join(words + ["no bias"] * (not any(c.bias for c in convs)))


def baseline_table() -> pd.DataFrame:
    """PRFFN0 at x3, a small RCAN, part by part: by arithmetic, counted in the module, and the running total."""
    real = pd.Series({name: value.numel() for name, value in PRFFN(3, variant="PRFFN0").named_parameters()})
    parts: dict[str, tuple[str, int, Convs]] = {  # how the names in the module begin, how often, and what
        "head": ("head", 1, (Conv(3, C),)),
        "RCAB: two convs": ("groups.*conv[12]", BLOCKS, (Conv(C, C), Conv(C, C))),
        "RCAB: channel attention": ("groups.*attention", BLOCKS, (Conv(C, C // 16, 1), Conv(C // 16, C, 1))),
        "group: conv": ("groups.[0-9]+.conv", GROUPS, (Conv(C, C),)),
        "trunk: conv": ("trunk", 1, (Conv(C, C),)),
        "upsampler": ("upsampler", 1, (Conv(C, 9 * C),)),
        "tail": ("tail", 1, (Conv(C, 3),)),
    }
    columns = ["convolutions", "one", "times", "all, by arithmetic", "all, counted"]
    rows = {
        part: (spelled(convs), cost(*convs), times, times * cost(*convs), real[real.index.str.match(names)].sum())
        for part, (names, times, convs) in parts.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("part")
    return table.assign(**{"running total": table["all, counted"].cumsum()})


def baselines() -> dict[str, int]:
    """Parameters of PRFFN0 at x3 as in the kit, and with one thing changed at a time."""
    plain, parts = PRFFN(3, variant="PRFFN0"), baseline_table()["all, counted"]
    kit = parameters(plain)
    conv1, conv3 = cost(Conv(C, C, 1)), cost(Conv(C, C))
    options: dict[str, dict[str, Any]] = {
        **{f"{n} channels": {"channels": n} for n in (32, 48, 56, 60, 62, 66, 72, 80)},
        **{f"attention reduction {n}": {"reduction": n} for n in (4, 8, 32)},
        **{f"{n} groups": {"groups": n} for n in (9, 11)},
        **{f"{n} blocks a group": {"blocks": n} for n in (2, 4)},
    }
    return {
        "64 channels, as in the kit": kit,
        **{name: parameters(PRFFN(3, variant="PRFFN0", **changed)) for name, changed in options.items()},
        "no conv at the groups' ends": kit - GROUPS * conv3,
        "1x1 conv at the groups' ends": kit - GROUPS * (conv3 - conv1),
        "no conv at the trunk's end": kit - conv3,
        "two convs at the trunk's end": kit + conv3,
        "1x1 conv in the long skip": kit + conv1,
        "3x3 conv in the long skip": kit + conv3,
        "no channel attention": kit - parts["RCAB: channel attention"],
        "upsampler straight to RGB": kit - parts["upsampler"] - parts["tail"] + cost(Conv(C, 3 * 9)),
        "no biases": sum(p.numel() for p in plain.parameters() if p.dim() > 1),
    }


def fusions() -> dict[str, int]:
    """Parameters of PRFFN1 at x3: PRFFN0 with a fusion, in each group or at the end."""
    kit, outputs = parameters(PRFFN(3, variant="PRFFN0")), Conv(3 * C, C, 1)
    in_a_group: dict[str, Convs] = {
        "a 1x1 for each block: progressive feature and its output, as in the kit": (Conv(2 * C, C, 1),) * 3,
        "the same without biases": (Conv(2 * C, C, 1, bias=False),) * 3,
        "the same, from the second block on": (Conv(2 * C, C, 1),) * 2,
        "the same, 3x3": (Conv(2 * C, C),) * 3,
        "a 1x1 for each block: the input and all outputs so far": tuple(Conv(n * C, C, 1) for n in (2, 3, 4)),
        "a 1x1 for each block: its output only": (Conv(C, C, 1),) * 3,
        "one 1x1 of all blocks' outputs (RFA)": (outputs,),
        "one 1x1 of all blocks' outputs, no bias": (outputs._replace(bias=False),),
        "one 3x3 of all blocks' outputs": (outputs._replace(kernel=3),),
        "one 1x1 of the input and all blocks' outputs": (Conv(4 * C, C, 1),),
    }
    in_place = "one 1x1 of all blocks' outputs, in place of the groups' convs"
    return {name: kit + GROUPS * cost(*convs) for name, convs in in_a_group.items()} | {
        in_place: kit + GROUPS * (cost(outputs) - cost(Conv(C, C))),
        "one 1x1 of all groups' outputs": kit + cost(Conv(GROUPS * C, C, 1)),
    }


def safb_candidates() -> dict[str, Convs]:
    """A family of SAFBs in words, with their convolutions.

    Printed: both features concatenated, a 1x1 that reduces the channels, two maps, a sigmoid, weighted inputs, fused;
    neighbouring positions are used, so one kernel is larger than 1x1. The family: 4 to 64 hidden channels; between,
    nothing, a 3x3, a 1x1 and a 3x3, two 3x3s or a depthwise 3x3; a map and its complement (1 or 64 channels) or two
    maps (2 or 128; sigmoids and a softmax pair cost the same) by 1x1, 3x3 or 7x7; the weighted inputs added or passed
    through a 1x1; biases or none. Besides, CBAM's 7x7 over the channels' mean and maximum (Woo et al., ECCV 2018).
    """
    found: list[Convs] = []
    for hidden, maps, last, bias in product((4, 8, 12, 16, 24, 32, 48, 64), (1, 2, C, 2 * C), (1, 3, 7), (True, False)):
        conv = Conv(hidden, hidden, bias=bias)
        one, depthwise = conv._replace(kernel=1), conv._replace(groups=hidden)
        between: tuple[Convs, ...] = ((), (conv,), (one, conv), (conv, conv), (depthwise,))
        for middle, fusion in product(between, ((), (Conv(C, C, 1, bias),), (Conv(2 * C, C, 1, bias),))):
            found.append((Conv(2 * C, hidden, 1, bias), *middle, Conv(hidden, maps, last, bias), *fusion))
    found += [(Conv(pooled, maps, 7, bias),) for pooled, maps, bias in product((2, 4), (1, 2), (True, False))]
    return {spelled(convs): convs for convs in found if max(conv.kernel for conv in convs) > 1}
