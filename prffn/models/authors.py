"""How the authors of the networks name their weights, from their published code, and how to tell their files: data."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prffn.models.blocks import DIV2K_MEAN, div2k_mean

State = dict[str, Tensor]

Maps = list[tuple[Tensor, Tensor]]
"""Weight (3, 3) and bias (3,) of the affine map of RGB before a network, and of the one after it."""

EDSR_RES_SCALE = {(64, 16): 1.0, (256, 32): 0.1}
"""The factor on the residuals by channels and blocks, for the two published sizes: no file tells it."""


def _count(state: State, pattern: str) -> int:
    """How many keys of the form pattern.format(0), pattern.format(1), ... there are."""
    n = 0
    while pattern.format(n) in state:
        n += 1
    return n


def _edsr_sizes(state: State) -> dict[str, Any]:
    return {"channels": state["head.0.weight"].shape[0], "blocks": _count(state, "body.{}.body.0.weight")}


def _rcan_sizes(state: State) -> dict[str, Any]:
    channels, hidden = (state[key].shape[0] for key in ("head.0.weight", "body.0.body.0.body.3.conv_du.0.weight"))
    groups, blocks = (_count(state, f"body.{key}.body.0.weight") for key in ("{}.body.0", "0.body.{}"))
    return {"channels": channels, "groups": groups, "blocks": blocks, "reduction": channels // hidden}


@dataclass(frozen=True)
class Format:
    """The state dict of a network by its authors.

    name: that of the network. sign: keys that tell it. renames: pairs ours=theirs of a layer's names, in which # is a
    number, + that number plus one, * any text, {blocks} one of the sizes. upsampler: where the upsampler lies, or the
    bias of the conv before a single pixel shuffle, "" where it serves all scales; head: the first conv. sizes: the
    network's arguments by the state's shapes. shift: what stands between "sub_mean" or "add_mean" and "weight" or
    "bias" in the keys of the 1x1 convs that subtract and add the mean RGB, "" for none. value_range: the brightest
    value that the network has inside.
    """

    name: str
    sign: str
    renames: str
    upsampler: str = ""
    head: str = "head.0"
    sizes: Callable[[State], dict[str, Any]] = lambda _: {}
    shift: str = "."
    value_range: float = 255.0

    def matches(self, state: State) -> bool:
        return all(key in state for key in self.sign.split())

    def scale(self, state: State) -> int | None:
        """None where it serves all. Raises KeyError without the upsampler."""
        if not self.upsampler:
            return None
        if self.upsampler.endswith(".bias"):
            return round((state[self.upsampler].numel() / 3) ** 0.5)
        widened = state[f"{self.upsampler}.0.weight"].shape[0] // state[f"{self.head}.weight"].shape[0]
        steps = sum(key.startswith(f"{self.upsampler}.") and key.endswith(".weight") for key in state)
        return 3 if widened == 9 else 2**steps

    def names(self, ours: Iterable[str], sizes: dict[str, Any]) -> dict[str, str]:
        """Their names of our keys."""
        rules = [rule.format(**sizes).split("=") for rule in self.renames.split()]
        patterns = {re.escape(a).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"): theirs for a, theirs in rules}
        names = {}
        for key in ours:
            end = next((end for end in ENDS if key.endswith(end)), "")
            layer = key.removesuffix(end)
            matches = ((re.fullmatch(pattern, layer), theirs) for pattern, theirs in patterns.items())
            layer = next((_filled(theirs, iter(match.groups())) for match, theirs in matches if match), layer)
            names[key] = layer + ENDS.get(end, "")
        return names


ENDS = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v",
        ".weight": ".weight", ".bias": ".bias"}  # fmt: skip


def _filled(theirs: str, found: Iterator[str]) -> str:
    return re.sub(r"[#+*]", lambda sign: str(int(next(found)) + 1) if sign[0] == "+" else next(found), theirs)


class Shifted(nn.Module):
    """A network within its file's affine maps of RGB before and after it, on values up to the file's value range.

    Some authors' code meant to keep the subtraction of the mean fixed, and did not; some files are for RGB in [0, 1],
    others up to 255. (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].
    maps: weight and bias of the map before, then after, on RGB up to `value_range`. factor: the value range that the
    network has inside, divided by the file's.
    """

    mean: Tensor
    sub_weight: Tensor
    sub_bias: Tensor
    add_weight: Tensor
    add_bias: Tensor

    def __init__(self, network: nn.Module, maps: Maps, value_range: float, factor: float) -> None:
        super().__init__()
        self.network, self.scale, self.value_range, self.factor = network, network.scale, value_range, factor
        self.register_buffer("mean", div2k_mean())
        for part, (weight, bias) in zip(("sub", "add"), maps, strict=True):
            self.register_buffer(f"{part}_weight", weight)
            self.register_buffer(f"{part}_bias", bias.view(1, 3, 1, 1))

    def forward(self, lr: Tensor) -> Tensor:
        shifted = torch.einsum("ij,njhw->nihw", self.sub_weight, lr) + self.sub_bias / self.value_range
        # the network subtracts the mean and adds it again
        sr = (self.network(shifted / self.factor + self.mean) - self.mean) * self.factor
        return torch.einsum("ij,njhw->nihw", self.add_weight, sr) + self.add_bias / self.value_range


def told_range(maps: Maps) -> float | None:
    """The brightest value by the shift of the mean: exactly where it is DIV2K's; 1 or 255 where it is near; or none."""
    (sub, sub_bias), (add, add_bias) = maps
    ratios = torch.cat((-sub_bias / sub.diagonal(), add_bias / add.diagonal())) / torch.tensor(2 * DIV2K_MEAN)
    middle = float(ratios.median())
    if middle > 0 and (ratios - middle).abs().max() <= 2e-3 * middle:
        return middle
    return next((known for known in (1.0, 255.0) if known / 1.5 < middle < 1.5 * known), None)


FRAME = "head=head.0 upsampler.#=tail.0.# tail=tail.1 "
RES_BLOCK = "blocks.#.conv1=body.#.body.0 blocks.#.conv2=body.#.body.2 trunk=body.{blocks} "
RCAB = """
    groups.#.blocks.#.conv1=body.#.body.#.body.0 groups.#.blocks.#.conv2=body.#.body.#.body.2
    groups.#.blocks.#.attention.reduce=body.#.body.#.body.3.conv_du.0
    groups.#.blocks.#.attention.expand=body.#.body.#.body.3.conv_du.2
    groups.#.conv=body.#.body.{blocks} trunk=body.{groups} """
MSRN = """
    head=head.0 blocks.#.conv#_#=body.#.conv_#_# blocks.#.fuse=body.#.confusion
    bottleneck=tail.0 trunk=tail.1 upsampler.#=tail.2.# tail=tail.3 """
SEANET = """
    rough_network.0=lff.0.LLF_head.0 rough_network.6.#=lff.0.LLF_tail.0.# rough_network.7=lff.0.LLF_tail.1
    rough_network.1=lff.0.LLF_body.0 rough_network.2=lff.0.LLF_body.1 rough_network.3=lff.0.LLF_body.2
    rough_network.4=lff.0.LLF_body.3 rough_network.5=lff.0.LLF_body.4 fusion=fushion.0
    refine_head=net.0.Net_head.0 refine.#.conv1=net.0.Net_body.#.body.0 refine.#.conv2=net.0.Net_body.#.body.2
    refine_tail=net.0.Net_tail.0 """ + re.sub(r"(\S+)=(\S+)", r"edge_network.\1=edge.0.Edge_Net_\2", MSRN)
AWSRN = """
    head=head.0 skip=skip.0 blocks.#.units.#.conv1=body.#.b#.body.0 blocks.#.units.#.conv2=body.#.b#.body.2
    blocks.#.units.#.residual_weight=body.#.b#.res_scale.scale blocks.#.units.#.skip_weight=body.#.b#.x_scale.scale
    blocks.#.residual_weight=body.#.res_scale.scale blocks.#.skip_weight=body.#.x_scale.scale
    blocks.#.fuse=body.#.reduction
    reconstruction.branches.0=tail.tail_k3 reconstruction.weights.0=tail.scale_k3.scale
    reconstruction.branches.1=tail.tail_k5 reconstruction.weights.1=tail.scale_k5.scale
    reconstruction.branches.2=tail.tail_k7 reconstruction.weights.2=tail.scale_k7.scale
    reconstruction.branches.3=tail.tail_k9 reconstruction.weights.3=tail.scale_k9.scale """
SMSR = """
    tail=tail.0 body.#.mask1=body.#.spa_mask.0 body.#.mask2=body.#.spa_mask.3 body.#.mask3=body.#.spa_mask.5
    body.#.body.channel_logits=body.#.body.ch_mask body.#.body.convs.#=body.#.body.body.#
    body.#.attention.reduce=body.#.ca.conv_du.0 body.#.attention.expand=body.#.ca.conv_du.2 """
CARN = """
    head=entry body.blocks.#.blocks.#.conv1=b+.b+.body.0 body.blocks.#.blocks.#.conv2=b+.b+.body.2
    body.blocks.#.blocks.#.pointwise=b+.b+.body.4 body.blocks.#.fusions.#=b+.c+.body.0 body.fusions.#=c+.body.0
    tail=exit """
ALL_SCALES, ONE_SCALE = "upsamplers.x#.#=upsample.up#.body.#", "upsamplers.x{scale}.#=upsample.up.body.#"
RK2 = """
    blocks.#.derivatives.0.0=body.#.relu1 blocks.#.derivatives.0.1=body.#.conv1 blocks.#.step=body.#.scale1
    blocks.#.derivatives.0.2=body.#.relu3 blocks.#.derivatives.0.3=body.#.conv3 trunk=body.8
    blocks.#.derivatives.1.0=body.#.relu2 blocks.#.derivatives.1.1=body.#.conv2
    blocks.#.derivatives.1.2=body.#.relu4 blocks.#.derivatives.1.3=body.#.conv4 """
LEAPFROG = """
    blocks.#.derivatives.#.0=body.#.relu+ blocks.#.derivatives.#.1=body.#.conv+ blocks.#.steps.#=body.#.scale+
    trunk=body.8 """
OF_CARN: dict[str, Any] = {"head": "entry", "shift": ".shifter.", "value_range": 1.0}
OF_ONE = {**OF_CARN, "upsampler": "upsample.up.body", "sizes": lambda _: {"multi_scale": False}}

FORMATS = (
    Format("CARN", "b1.b3.body.0.weight upsample.up.body.0.weight", CARN + ONE_SCALE, **OF_ONE),
    Format("CARN", "b1.b3.body.0.weight", CARN + ALL_SCALES, **OF_CARN),
    Format("CARN-M", "b1.b1.body.4.weight upsample.up.body.0.weight", CARN + ONE_SCALE, **OF_ONE),
    Format("CARN-M", "b1.b1.body.4.weight", CARN + ALL_SCALES, **OF_CARN),
    Format("SMSR", "body.0.body.ch_mask", SMSR, "tail.0.bias"),
    Format("MSRN", "body.0.conv_3_1.weight", MSRN, "tail.2"),
    Format("AWSRN", "tail.tail_k3.weight_v", AWSRN, "skip.0.bias", shift=""),
    Format("OISR-LF", "body.0.scale4", FRAME + LEAPFROG, "tail.0"),
    Format("OISR-RK2", "body.0.relu4.weight", FRAME + RK2, "tail.0"),
    Format("SeaNet", "lff.0.LLF_head.0.weight", SEANET, "lff.0.LLF_tail.0", "lff.0.LLF_head.0"),
    Format("RCAN", "body.0.body.0.body.3.conv_du.0.weight", FRAME + RCAB, "tail.0", sizes=_rcan_sizes),
    Format("EDSR", "head.0.weight body.0.body.0.weight tail.1.weight", FRAME + RES_BLOCK, "tail.0", sizes=_edsr_sizes),
    Format("SwinIR-light", "layers.3.residual_group.blocks.5.attn.relative_position_bias_table", "network.*=*",
           "upsample.0.bias", shift="", value_range=1.0),
)  # fmt: skip
"""The first that matches is taken."""
