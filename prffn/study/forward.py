"""Run time of the networks of Table 8: one LR image through each, timed side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from prffn.config import check_profile
from prffn.evaluation.cost import repeat
from prffn.models import NETWORKS
from prffn.models.complexity import OUTPUT_720P


@dataclass(frozen=True, kw_only=True)
class ForwardCase:
    """One LR image of height x width through a network of NETWORKS, without gradients, weights drawn at random.

    The values of the weights do not matter: no network here skips work where its values are zero (SMSR's authors' code
    does). options: what differs from the published size, such as {"channels": 16}. seconds, calls: how long to go on
    calling, and how often at least, after one call that does not count.
    """

    network: str
    scale: int
    height: int
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.5
    calls: int = 2

    def measure(self, device: torch.device) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        model = NETWORKS[self.network](self.scale, generator=generator, **self.options).to(device).eval()
        lr = torch.rand(1, 3, self.height, self.width, generator=generator).to(device)
        with torch.inference_mode():
            return repeat(lambda: model(lr), device, self.seconds, at_least=self.calls)


BUDGETS: dict[str, dict[str, Any]] = {
    "paper": {"output": OUTPUT_720P, "seconds": 3.0, "calls": 5},
    "cpu": {"output": (108, 192), "seconds": 0.5, "calls": 2},
    "quick": {"output": (48, 72), "seconds": 0.3, "calls": 1},
}
"""Height and width of the SR image at each profile, for how long to call, and how often at least.

The paper does not say what its run times are of; 1280 x 720, as for its multi-adds, is our choice. The work of a
convolution grows with the pixels, so the ratios of smaller images are comparable with the printed ones, but for what
each call costs whatever the size.
"""


def label(network: str, scale: int) -> str:
    """The name of a case in records: 'CARN x3'."""
    return f"{network} x{scale}"


def forward_cases(
    profile: str, networks: Mapping[str, tuple[str, Mapping[str, Any]]], scales: tuple[int, ...] = (2, 3, 4)
) -> dict[str, ForwardCase]:
    """A case for each scale and network, at the profile's size of the output.

    networks: by the name of the table's row, the name in NETWORKS and what differs from the published size.
    """
    budget = BUDGETS[check_profile(profile)]
    cases = {}
    for scale in scales:
        height, width = (round(side / scale) for side in budget["output"])
        for row, (network, options) in networks.items():
            cases[label(row, scale)] = ForwardCase(
                network=network, scale=scale, height=height, width=width, options=dict(options),
                seconds=budget["seconds"], calls=budget["calls"],
            )  # fmt: skip
    return cases
