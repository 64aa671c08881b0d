"""Networks: PRFFN and its ablation variants, the networks of Table 8, and those to which Table 4 adds L_contr."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from prffn.files import unknown
from prffn.models.blocks import Network
from prffn.models.edsr import EDSR
from prffn.models.prffn import PRFFN
from prffn.models.rcan import RCAN
from prffn.models.swinir import SwinIRLight
from prffn.models.table8.acan import ACAN
from prffn.models.table8.awsrn import AWSRN
from prffn.models.table8.carn import CARN
from prffn.models.table8.drcn import DRCN
from prffn.models.table8.fsrcnn import FSRCNN
from prffn.models.table8.msrn import MSRN
from prffn.models.table8.oisr import OISR
from prffn.models.table8.seanet import SeaNet
from prffn.models.table8.smsr import SMSR
from prffn.models.table8.tsan import TSAN

NETWORKS: dict[str, Callable[..., Network]] = {
    "FSRCNN": FSRCNN,
    "SMSR": SMSR,
    "ACAN": ACAN,
    "AWSRN": AWSRN,
    "DRCN": DRCN,
    "CARN": CARN,
    "OISR-RK2": partial(OISR, scheme="RK2"),
    "OISR-LF": partial(OISR, scheme="LF"),
    "MSRN": MSRN,
    "SeaNet": SeaNet,
    "TSAN": TSAN,
    "PRFFN": PRFFN,
    "CARN-M": partial(CARN, groups=4),
    "EDSR": EDSR,
    "RCAN": RCAN,
    "SwinIR-light": SwinIRLight,
}
"""By printed name: the rows of Table 8, CARN-M, the networks of Table 4. Each takes a scale, and sizes by name."""


def build(name: str, scale: int, *, generator: torch.Generator | None = None, **sizes: Any) -> Network:
    """Return the network of that printed name, (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].

    generator: draws the weights, so that the same seed gives the same network; PyTorch's global state if there is none.
    sizes: what differs from the published size.
    Raises ValueError for a name that is not in NETWORKS, with the nearest one, or a scale other than 2, 3, 4.
    """
    if name not in NETWORKS:
        raise ValueError(unknown("network", name, NETWORKS))
    network = NETWORKS[name](scale, **sizes)
    if generator is not None:
        network.draw(generator)
    return network


def reduced(name: str, scale: int, *, channels: int, groups: int, generator: torch.Generator | None = None) -> Network:
    """EDSR, RCAN or SwinIR-light made smaller as PRFFN is by `channels` (of 64) and `groups` (of 10): our choice.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB. With 64 and 10 the published sizes. The width follows the
    channels (SwinIR-light: heads of 10 channels, 6 of them at 64), the depth the groups: 16 blocks of EDSR, 20 blocks
    of each group of RCAN, 4 groups of SwinIR-light at 10; at least one each. SwinIR-light leaves out no layers in
    training: that noise comes from global state, and a killed run could not go on bit for bit.
    """
    width, depth = channels / 64, groups / 10
    sizes: dict[str, dict[str, Any]] = {
        "EDSR": {"channels": channels, "blocks": max(1, round(16 * depth))},
        "RCAN": {"channels": channels, "groups": groups, "blocks": max(1, round(20 * depth))},
        "SwinIR-light": {"heads": max(1, round(6 * width)), "groups": max(1, round(4 * depth)), "drop_path": 0.0},
    }
    return build(name, scale, generator=generator, **sizes[name])


__all__ = ["NETWORKS", "PRFFN", "build", "reduced"]
