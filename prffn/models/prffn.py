"""PRFFN, the progressive residual feature fusion network, and the ablation variants of Table 1."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prffn.models.blocks import MRCAB, RCAB, SAFB, Padding, ResidualNetwork, RFAFusion, conv, pad_with

Variant = Literal["PRFFN0", "PRFFN1", "PRFFN2", "PRFFN3"]
"""Table 1: PRFFN0 a small RCAN; PRFFN1 adds RFA-style fusion; PRFFN2 has SAFB instead; PRFFN3 MRCAB for RCAB.
"PRFFN" in the paper is the network PRFFN3 trained with L_contr."""


class PFFG(nn.Module):
    """Progressive feature fusion group: M blocks in a chain, each output fused into the progressive feature.

    Inferred for the parts and counts, our choice for the wiring: the m-th block takes the (m-1)-th block's output
    (Eq. (6)), the m-th fusion takes the progressive feature and the m-th block's output; then a 3x3 conv and a skip.
    """

    def __init__(
        self, channels: int, blocks: int, variant: Variant, reduction: int, dilation_rates: Sequence[int]
    ) -> None:
        super().__init__()

        def block() -> nn.Module:
            return MRCAB(channels, reduction, dilation_rates) if variant == "PRFFN3" else RCAB(channels, reduction)

        def fusion() -> nn.Module:
            return RFAFusion(channels) if variant == "PRFFN1" else SAFB(channels)

        self.blocks = nn.ModuleList(block() for _ in range(blocks))
        self.fusions = nn.ModuleList(fusion() for _ in range(blocks if variant != "PRFFN0" else 0))
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        feature = progressive = x
        for m, block in enumerate(self.blocks):
            feature = block(feature)
            progressive = self.fusions[m](progressive, feature) if self.fusions else feature
        return self.conv(progressive).add_(x)


class PRFFN(ResidualNetwork):
    """The network of Fig. 2: N groups (PFFG) in the frame of RCAN.

    (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1] (the output may leave it slightly).

    The defaults are the paper's: N = 10 groups of M = 3 blocks, reduction 16, rates 1, 2, 4 (printed), 64 channels
    (inferred). Parameters at x2 / x3 / x4: 2,982,523 / 3,167,163 / 3,130,235. Weights are drawn from `generator`
    (PyTorch's own initialisation of convolutions), so that the same seed gives the same network. The mean RGB of
    DIV2K is subtracted before and added after the network as in EDSR and RCAN (our choice), which pad with zeros, too;
    padding="replicate" repeats the pixels of the border, so that an image of one colour has no frame.
    Raises ValueError for an unknown variant or padding, a scale other than 2, 3, 4, or sizes below 1.
    """

    chain = "groups"
    peak = 1.0

    def __init__(
        self,
        scale: int = 3,
        *,
        variant: Variant = "PRFFN3",
        channels: int = 64,
        groups: int = 10,
        blocks: int = 3,
        reduction: int = 16,
        dilation_rates: Sequence[int] = (1, 2, 4),
        padding: Padding = "zeros",
        generator: torch.Generator | None = None,
    ) -> None:
        for name, value, choices in (("variant", variant, get_args(Variant)), ("padding", padding, get_args(Padding))):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        sizes = {"channels": channels, "groups": groups, "blocks": blocks, "reduction": reduction}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size!r}")
        if not dilation_rates or min(dilation_rates) < 1:
            raise ValueError(f"dilation_rates must be one or more whole numbers from 1 on, got {dilation_rates!r}")
        parts = (PFFG(channels, blocks, variant, reduction, dilation_rates) for _ in range(groups))
        super().__init__(scale, channels, parts)
        pad_with(self, padding)
        if generator is not None:
            self.draw(generator)
