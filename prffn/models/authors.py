"""How the authors of the networks name their weights, from their published code, and how to tell their files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from prffn.models import build
from prffn.models.carn import CARN
from prffn.models.edsr import EDSR
from prffn.models.rcan import RCAN

State = dict[str, Tensor]
Names = Iterator[tuple[str, str]]
"""Pairs of keys: ours, theirs."""


@dataclass(frozen=True)
class Format:
    """The state dict of a network by its authors.

    matches: whether a state is one. build: the network of the state's sizes, at the scale that is asked for, with
    that factor on the residuals. names: the
    pairs of keys. shift: what stands between "sub_mean" or "add_mean" and "weight" or "bias" in the keys of the fixed
    1x1 convs that subtract and add the mean RGB, "" for none. value_range: the brightest value of their input.
    """

    matches: Callable[[State], bool]
    build: Callable[[State, int | None, float | None], nn.Module]
    names: Callable[[State], Names]
    shift: str = "."
    value_range: float = 255.0


def _conv(ours: str, theirs: str, *, bias: bool = True, normed: bool = False) -> Names:
    if normed:
        yield f"{ours}.parametrizations.weight.original0", f"{theirs}.weight_g"
        yield f"{ours}.parametrizations.weight.original1", f"{theirs}.weight_v"
    else:
        yield f"{ours}.weight", f"{theirs}.weight"
    if bias:
        yield f"{ours}.bias", f"{theirs}.bias"


def _upsampler(state: State, theirs: str, ours: str = "upsampler") -> Names:
    for n in (0, 2) if f"{theirs}.2.weight" in state else (0,):
        yield from _conv(f"{ours}.{n}", f"{theirs}.{n}")


def _upsampler_scale(state: State, theirs: str, channels: int = 64, second: int = 2) -> int:
    """x3 has nine times as many channels after the first conv; x4 has a second conv, the `second`-th layer."""
    widened = state[f"{theirs}.0.weight"].shape[0]
    return 3 if widened == 9 * channels else 4 if f"{theirs}.{second}.weight" in state else 2


def _pixel_scale(bias: Tensor) -> int:
    """Of a conv to 3 scale^2 channels."""
    return round((bias.numel() / 3) ** 0.5)


def _count(state: State, pattern: str) -> int:
    """How many keys of the form pattern.format(0), pattern.format(1), ... there are."""
    n = 0
    while pattern.format(n) in state:
        n += 1
    return n


EDSR_RES_SCALE = {(64, 16): 1.0, (256, 32): 0.1}
"""The factor on the residuals by channels and blocks, for the two published sizes: no file tells it."""


def _edsr(state: State, _: int | None, res_scale: float | None) -> nn.Module:
    channels, blocks = state["head.0.weight"].shape[0], _count(state, "body.{}.body.0.weight")
    factor = EDSR_RES_SCALE.get((channels, blocks)) if res_scale is None else res_scale
    if factor is None:
        raise ValueError(
            f"{blocks} blocks of {channels} channels are no published size, and the file does not tell the factor on "
            "the residuals: say res_scale=1, or what it was trained with"
        )
    scale = _upsampler_scale(state, "tail.0", channels)
    return EDSR(scale, channels=channels, blocks=blocks, residual_scale=factor)


def _edsr_names(state: State) -> Names:
    yield from _conv("head", "head.0")
    blocks = _count(state, "body.{}.body.0.weight")
    for n in range(blocks):
        yield from _conv(f"blocks.{n}.conv1", f"body.{n}.body.0")
        yield from _conv(f"blocks.{n}.conv2", f"body.{n}.body.2")
    yield from _conv("trunk", f"body.{blocks}")
    yield from _upsampler(state, "tail.0")
    yield from _conv("tail", "tail.1")


def _rcan(state: State, *_: object) -> nn.Module:
    channels = state["head.0.weight"].shape[0]
    return RCAN(
        _upsampler_scale(state, "tail.0", channels),
        channels=channels,
        groups=_count(state, "body.{}.body.0.body.0.weight"),
        blocks=_count(state, "body.0.body.{}.body.0.weight"),
        reduction=channels // state["body.0.body.0.body.3.conv_du.0.weight"].shape[0],
    )


def _rcan_names(state: State) -> Names:
    groups, blocks = _count(state, "body.{}.body.0.body.0.weight"), _count(state, "body.0.body.{}.body.0.weight")
    yield from _conv("head", "head.0")
    for g in range(groups):
        for b in range(blocks):
            ours, theirs = f"groups.{g}.blocks.{b}", f"body.{g}.body.{b}.body"
            yield from _conv(f"{ours}.conv1", f"{theirs}.0")
            yield from _conv(f"{ours}.conv2", f"{theirs}.2")
            yield from _conv(f"{ours}.attention.reduce", f"{theirs}.3.conv_du.0")
            yield from _conv(f"{ours}.attention.expand", f"{theirs}.3.conv_du.2")
        yield from _conv(f"groups.{g}.conv", f"body.{g}.body.{blocks}")
    yield from _conv("trunk", f"body.{groups}")
    yield from _upsampler(state, "tail.0")
    yield from _conv("tail", "tail.1")


def _msrn_names(state: State, ours: str = "", theirs: str = "", blocks: int = 8) -> Names:
    yield from _conv(f"{ours}head", f"{theirs}head.0")
    for n in range(blocks):
        for kernel in (3, 5):
            for k in (1, 2):
                yield from _conv(f"{ours}blocks.{n}.conv{kernel}_{k}", f"{theirs}body.{n}.conv_{kernel}_{k}")
        yield from _conv(f"{ours}blocks.{n}.fuse", f"{theirs}body.{n}.confusion")
    yield from _conv(f"{ours}bottleneck", f"{theirs}tail.0")
    yield from _conv(f"{ours}trunk", f"{theirs}tail.1")
    yield from _upsampler(state, f"{theirs}tail.2", f"{ours}upsampler")
    yield from _conv(f"{ours}tail", f"{theirs}tail.3")


def _awsrn_names(_: State) -> Names:
    yield from _conv("head", "head.0", normed=True)
    for n in range(4):
        units = [(f"blocks.{n}.units.{k}", f"body.{n}.b{k}") for k in range(4)]
        for ours, theirs in units:
            yield from _conv(f"{ours}.conv1", f"{theirs}.body.0", normed=True)
            yield from _conv(f"{ours}.conv2", f"{theirs}.body.2", normed=True)
        yield from _conv(f"blocks.{n}.fuse", f"body.{n}.reduction", normed=True)
        for ours, theirs in (*units, (f"blocks.{n}", f"body.{n}")):
            yield f"{ours}.residual_weight", f"{theirs}.res_scale.scale"
            yield f"{ours}.skip_weight", f"{theirs}.x_scale.scale"
    for n, kernel in enumerate((3, 5, 7, 9)):
        yield from _conv(f"reconstruction.branches.{n}", f"tail.tail_k{kernel}", normed=True)
        yield f"reconstruction.weights.{n}", f"tail.scale_k{kernel}.scale"
    yield from _conv("skip", "skip.0", normed=True)


def _smsr_names(_: State) -> Names:
    for part in ("head", "collect"):
        for n in (0, 2):
            yield from _conv(f"{part}.{n}", f"{part}.{n}")
    for n in range(5):
        ours = theirs = f"body.{n}"
        for k, layer in enumerate((0, 3, 5), start=1):
            yield from _conv(f"{ours}.mask{k}", f"{theirs}.spa_mask.{layer}")
        yield f"{ours}.body.channel_logits", f"{theirs}.body.ch_mask"
        for k in range(4):
            yield from _conv(f"{ours}.body.convs.{k}", f"{theirs}.body.body.{k}", bias=False)
        yield from _conv(f"{ours}.body.collect", f"{theirs}.body.collect")
        yield from _conv(f"{ours}.attention.reduce", f"{theirs}.ca.conv_du.0")
        yield from _conv(f"{ours}.attention.expand", f"{theirs}.ca.conv_du.2")
    yield from _conv("tail", "tail.0")


def _carn(state: State, scale: int | None, groups: int | None) -> nn.Module:
    if "upsample.up.body.0.weight" in state:
        return CARN(_upsampler_scale(state, "upsample.up.body", second=3), groups=groups, multi_scale=False)
    if scale is None:
        raise ValueError("it serves x2, x3 and x4, say which by scale=")
    return CARN(scale, groups=groups)


def _carn_names(state: State, blocks: int) -> Names:
    yield from _conv("head", "entry")
    for i in (1, 2, 3):
        for j in range(1, blocks + 1):
            ours, theirs = f"body.blocks.{i - 1}.blocks.{j - 1}", f"b{i}.b{j}.body"
            yield from _conv(f"{ours}.conv1", f"{theirs}.0")
            yield from _conv(f"{ours}.conv2", f"{theirs}.2")
            if blocks == 1:
                yield from _conv(f"{ours}.pointwise", f"{theirs}.4")
        for j in (1, 2, 3):
            yield from _conv(f"body.blocks.{i - 1}.fusions.{j - 1}", f"b{i}.c{j}.body.0")
        yield from _conv(f"body.fusions.{i - 1}", f"c{i}.body.0")
    if "upsample.up.body.0.weight" in state:
        upsamplers = {_upsampler_scale(state, "upsample.up.body", second=3): "upsample.up.body"}
    else:
        upsamplers = {scale: f"upsample.up{scale}.body" for scale in (2, 3, 4)}
    for scale, theirs in upsamplers.items():
        for n in (0, 3) if scale == 4 else (0,):
            yield from _conv(f"upsamplers.x{scale}.{n}", f"{theirs}.{n}")
    yield from _conv("tail", "exit")


def _oisr(state: State, *_: object) -> nn.Module:
    scheme = "LF" if "body.0.scale4" in state else "RK2"
    return build(f"OISR-{scheme}", _upsampler_scale(state, "tail.0", 122))


def _oisr_names(state: State) -> Names:
    leapfrog = "body.0.scale4" in state
    # the layers of each derivative in the order in which they are applied
    parts = ((1,), (2,), (3,), (4,)) if leapfrog else ((1, 3), (2, 4))
    yield from _conv("head", "head.0")
    for n in range(8):
        for k, part in enumerate(parts):
            for m, layer in enumerate(part):
                yield f"blocks.{n}.derivatives.{k}.{2 * m}.weight", f"body.{n}.relu{layer}.weight"
                yield from _conv(f"blocks.{n}.derivatives.{k}.{2 * m + 1}", f"body.{n}.conv{layer}")
        for k in range(4 if leapfrog else 1):
            yield f"blocks.{n}.steps.{k}" if leapfrog else f"blocks.{n}.step", f"body.{n}.scale{k + 1}"
    yield from _conv("trunk", "body.8")
    yield from _upsampler(state, "tail.0")
    yield from _conv("tail", "tail.1")


def _seanet_names(state: State) -> Names:
    rough, edge, refine = "lff.0.LLF", "edge.0.Edge_Net", "net.0.Net"
    yield from _conv("rough_network.0", f"{rough}_head.0")
    for n in range(5):
        yield from _conv(f"rough_network.{n + 1}", f"{rough}_body.{n}")
    yield from _upsampler(state, f"{rough}_tail.0", "rough_network.6")
    yield from _conv("rough_network.7", f"{rough}_tail.1")
    yield from _msrn_names(state, "edge_network.", f"{edge}_", blocks=5)
    yield from _conv("fusion", "fushion.0")
    yield from _conv("refine_head", f"{refine}_head.0")
    for n in range(40):
        yield from _conv(f"refine.{n}.conv1", f"{refine}_body.{n}.body.0")
        yield from _conv(f"refine.{n}.conv2", f"{refine}_body.{n}.body.2")
    yield from _conv("refine_tail", f"{refine}_tail.0")


def _is_swinir_light(state: State) -> bool:
    first = state.get("conv_first.weight")
    body = "layers.3.residual_group.blocks.5.attn.relative_position_bias_table" in state
    return body and first is not None and first.shape[0] == 60 and "conv_before_upsample.0.weight" not in state


FORMATS = {
    "CARN": Format(
        lambda s: "b1.b3.body.0.weight" in s,
        lambda s, scale, _: _carn(s, scale, None),
        lambda s: _carn_names(s, 3),
        ".shifter.",
        1.0,
    ),
    "CARN-M": Format(
        lambda s: "b1.b1.body.4.weight" in s,
        lambda s, scale, _: _carn(s, scale, 4),
        lambda s: _carn_names(s, 1),
        ".shifter.",
        1.0,
    ),
    "SMSR": Format(
        lambda s: "body.0.body.ch_mask" in s, lambda s, *_: build("SMSR", _pixel_scale(s["tail.0.bias"])), _smsr_names
    ),
    "MSRN": Format(
        lambda s: "body.0.conv_3_1.weight" in s,
        lambda s, *_: build("MSRN", _upsampler_scale(s, "tail.2")),
        _msrn_names,
    ),
    "AWSRN": Format(
        lambda s: "tail.tail_k3.weight_v" in s,
        lambda s, *_: build("AWSRN", _pixel_scale(s["skip.0.bias"])),
        _awsrn_names,
        shift="",
    ),
    "OISR-RK2": Format(lambda s: "body.0.relu4.weight" in s and "body.0.scale4" not in s, _oisr, _oisr_names),
    "OISR-LF": Format(lambda s: "body.0.scale4" in s, _oisr, _oisr_names),
    "SeaNet": Format(
        lambda s: "lff.0.LLF_head.0.weight" in s,
        lambda s, *_: build("SeaNet", _upsampler_scale(s, "lff.0.LLF_tail.0")),
        _seanet_names,
    ),
    "RCAN": Format(
        lambda s: "body.0.body.0.body.3.conv_du.0.weight" in s,
        _rcan,
        _rcan_names,
    ),
    "EDSR": Format(
        lambda s: {"head.0.weight", "body.0.body.0.weight", "tail.1.weight"} <= s.keys(), _edsr, _edsr_names
    ),
    "SwinIR-light": Format(
        _is_swinir_light,
        lambda s, *_: build("SwinIR-light", _pixel_scale(s["upsample.0.bias"])),
        lambda s: ((f"network.{key}", key) for key in s),
        shift="",
        value_range=1.0,
    ),
}
"""By the network's printed name; the first that matches is taken."""
