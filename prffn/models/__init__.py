"""Networks: PRFFN and its ablation variants, the networks of Table 8, and those to which Table 4 adds L_contr."""

import difflib
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from prffn.models.acan import ACAN
from prffn.models.awsrn import AWSRN
from prffn.models.carn import CARN
from prffn.models.drcn import DRCN
from prffn.models.edsr import EDSR
from prffn.models.fsrcnn import FSRCNN
from prffn.models.msrn import MSRN
from prffn.models.oisr import OISR
from prffn.models.prffn import PRFFN
from prffn.models.rcan import RCAN
from prffn.models.seanet import SeaNet
from prffn.models.smsr import SMSR
from prffn.models.swinir import SwinIRLight
from prffn.models.tsan import TSAN

NETWORKS: dict[str, Callable[..., nn.Module]] = {
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
"""By printed name: the rows of Table 8, CARN-M, the networks of Table 4. Each takes a scale and a generator."""


def build(name: str, scale: int, *, generator: torch.Generator | None = None) -> nn.Module:
    """The network of that printed name at its published size, (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB.

    Raises ValueError for a name that is not in NETWORKS, with the nearest one, or a scale other than 2, 3, 4.
    """
    if name not in NETWORKS:
        nearest = difflib.get_close_matches(name.upper(), {n.upper(): n for n in NETWORKS}, n=1)
        hint = f" Did you mean {next(n for n in NETWORKS if n.upper() == nearest[0])!r}?" if nearest else ""
        raise ValueError(f"unknown network {name!r}.{hint} The networks are {', '.join(NETWORKS)}")
    return NETWORKS[name](scale, generator=generator)


__all__ = ["NETWORKS", "PRFFN", "build"]
