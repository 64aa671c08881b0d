"""Structures that the network may have, as lists of convolutions: what each would cost in parameters and multi-adds.

The tests build every one of them from `nn.Conv2d` and count again.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

from prffn.models.complexity import OUTPUT_720P

CHANNELS, GROUPS, BLOCKS = 64, 10, 3
"""Inferred, printed, printed."""

SCALES = (2, 3, 4)


class Conv(NamedTuple):
    """A convolution. resolution: output height over the LR image's, 0 if pooled to 1 x 1; groups: PyTorch's."""

    inputs: int
    outputs: int
    kernel: int = 3
    bias: bool = True
    resolution: int = 1
    groups: int = 1

    @property
    def weights(self) -> int:
        return self.inputs // self.groups * self.outputs * self.kernel**2

    @property
    def parameters(self) -> int:
        return self.weights + self.outputs * self.bias

    def work(self, scale: int, biases: bool) -> int:
        """Multi-adds: weights, and biases if they are to be counted, times output positions."""
        height, width = (round(n / scale) for n in OUTPUT_720P)
        positions = height * width * self.resolution**2 if self.resolution else 1
        return positions * (self.parameters if biases else self.weights)


Part = tuple[int, tuple[Conv, ...]]
"""How often the part is there, and its convolutions."""


def total(parts: Mapping[str, Part]) -> int:
    """Parameters of all parts."""
    return sum(times * sum(c.parameters for c in convs) for times, convs in parts.values())


def work(parts: Mapping[str, Part], scale: int, *, biases: bool = False) -> int:
    """Multi-adds of all parts for a 1280 x 720 output; the field leaves biases out."""
    return sum(times * sum(c.work(scale, biases) for c in convs) for times, convs in parts.values())


def baseline_parts(
    scale: int = 3,
    *,
    channels: int = CHANNELS,
    groups: int = GROUPS,
    blocks: int = BLOCKS,
    reduction: int = 16,
) -> dict[str, Part]:
    """PRFFN0, a small RCAN, part by part."""
    c, hidden = channels, max(1, channels // reduction)
    steps = [Conv(c, c * scale**2)] if scale != 4 else [Conv(c, 4 * c), Conv(c, 4 * c, resolution=2)]
    return {
        "head": (1, (Conv(3, c),)),
        "RCAB: two convs": (groups * blocks, (Conv(c, c), Conv(c, c))),
        "RCAB: channel attention": (
            groups * blocks,
            (Conv(c, hidden, 1, resolution=0), Conv(hidden, c, 1, resolution=0)),
        ),
        "group: conv": (groups, (Conv(c, c),)),
        "trunk: conv": (1, (Conv(c, c),)),
        "upsampler": (1, tuple(steps)),
        "tail": (1, (Conv(c, 3, resolution=scale),)),
    }


def spelled(convs: Iterable[Conv]) -> str:
    """Convolutions in words, such as "1x1 128 -> 16, 3x3 16 -> 2, no bias"."""
    convs = list(convs)
    words = [f"{c.kernel}x{c.kernel} {c.inputs} -> {c.outputs}{' depthwise' if c.groups > 1 else ''}" for c in convs]
    return ", ".join(words + ["no bias"] * (not any(c.bias for c in convs)))


def baselines() -> dict[str, dict[str, Part]]:
    """PRFFN0 at x3 as in the kit, and with one thing changed at a time."""
    plain, c = baseline_parts(), CHANNELS
    return {
        "64 channels, as in the kit": plain,
        **{f"{n} channels": baseline_parts(channels=n) for n in (32, 48, 56, 60, 62, 66, 72, 80)},
        **{f"attention reduction {n}": baseline_parts(reduction=n) for n in (4, 8, 32)},
        **{f"{n} groups": baseline_parts(groups=n) for n in (9, 11)},
        **{f"{n} blocks a group": baseline_parts(blocks=n) for n in (2, 4)},
        "no conv at the groups' ends": {**plain, "group: conv": (0, ())},
        "1x1 conv at the groups' ends": {**plain, "group: conv": (GROUPS, (Conv(c, c, 1),))},
        "no conv at the trunk's end": {**plain, "trunk: conv": (0, ())},
        "two convs at the trunk's end": {**plain, "trunk: conv": (2, (Conv(c, c),))},
        "1x1 conv in the long skip": {**plain, "long skip": (1, (Conv(c, c, 1),))},
        "3x3 conv in the long skip": {**plain, "long skip": (1, (Conv(c, c),))},
        "no channel attention": {**plain, "RCAB: channel attention": (0, ())},
        "upsampler straight to RGB": {**plain, "upsampler": (1, (Conv(c, 27),)), "tail": (0, ())},
        "no biases": {
            name: (times, tuple(conv._replace(bias=False) for conv in convs)) for name, (times, convs) in plain.items()
        },
    }


def fusions() -> dict[str, dict[str, Part]]:
    """PRFFN1 at x3: PRFFN0 with a fusion, in each group or at the end."""
    plain, c = baseline_parts(), CHANNELS
    outputs = Conv(3 * c, c, 1)
    in_a_group: dict[str, tuple[Conv, ...]] = {
        "a 1x1 for each block: progressive feature and its output, as in the kit": (Conv(2 * c, c, 1),) * 3,
        "the same without biases": (Conv(2 * c, c, 1, bias=False),) * 3,
        "the same, from the second block on": (Conv(2 * c, c, 1),) * 2,
        "the same, 3x3": (Conv(2 * c, c),) * 3,
        "a 1x1 for each block: the input and all outputs so far": tuple(Conv(n * c, c, 1) for n in (2, 3, 4)),
        "a 1x1 for each block: its output only": (Conv(c, c, 1),) * 3,
        "one 1x1 of all blocks' outputs (RFA)": (outputs,),
        "one 1x1 of all blocks' outputs, no bias": (outputs._replace(bias=False),),
        "one 3x3 of all blocks' outputs": (outputs._replace(kernel=3),),
        "one 1x1 of the input and all blocks' outputs": (Conv(4 * c, c, 1),),
    }
    return {
        **{name: {**plain, "fusion": (GROUPS, convs)} for name, convs in in_a_group.items()},
        "one 1x1 of all blocks' outputs, in place of the groups' convs": {**plain, "group: conv": (GROUPS, (outputs,))},
        "one 1x1 of all groups' outputs": {**plain, "fusion": (1, (Conv(GROUPS * c, c, 1),))},
    }


KIT_SAFB = "1x1 128 -> 16, 3x3 16 -> 16, 1x1 16 -> 128, no bias"
"""Our choice (prffn.models.blocks.SAFB)."""

X2_SAFB = "1x1 128 -> 16, 3x3 16 -> 2"
"""Meets the printed multi-adds at x2 to the digit if biases are counted, and misses the printed parameters."""


def safb_candidates() -> dict[str, tuple[Conv, ...]]:
    """A family of SAFBs in words, with their convolutions.

    Printed: both features concatenated, a 1x1 that reduces the channels, two maps, a sigmoid, weighted inputs, fused;
    neighbouring positions are used, so one kernel is larger than 1x1. The family: 4 to 64 hidden channels; between,
    nothing, a 3x3, a 1x1 and a 3x3, two 3x3s or a depthwise 3x3; a map and its complement (1 or 64 channels) or two
    maps (2 or 128; sigmoids and a softmax pair cost the same) by 1x1, 3x3 or 7x7; the weighted inputs added or passed
    through a 1x1; biases or none. Besides, CBAM's 7x7 over the channels' mean and maximum (Woo et al., ECCV 2018).
    """
    c, found = CHANNELS, []
    widths = (4, 8, 12, 16, 24, 32, 48, 64)
    for hidden, maps, last, bias in product(widths, (1, 2, c, 2 * c), (1, 3, 7), (True, False)):
        conv = Conv(hidden, hidden, bias=bias)
        one, depthwise = conv._replace(kernel=1), conv._replace(groups=hidden)
        between: tuple[tuple[Conv, ...], ...] = ((), (conv,), (one, conv), (conv, conv), (depthwise,))
        for middle, fusion in product(between, ((), (Conv(c, c, 1, bias),), (Conv(2 * c, c, 1, bias),))):
            found.append((Conv(2 * c, hidden, 1, bias), *middle, Conv(hidden, maps, last, bias), *fusion))
    found += [(Conv(pooled, maps, 7, bias),) for pooled, maps, bias in product((2, 4), (1, 2), (True, False))]
    return {spelled(convs): convs for convs in found if max(conv.kernel for conv in convs) > 1}
