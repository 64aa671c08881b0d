"""SwinIR-light (Liang et al.: SwinIR, Image Restoration Using Swin Transformer, ICCV Workshops 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.files import from_extra
from prffn.models.blocks import Network


class SwinIRLight(Network):
    """SwinIR in its lightweight size; the layers are spandrel's (MIT), which keep the authors' names.

    4 groups of 6 layers of 60 channels and 6 heads, windows of 8 x 8, one sub-pixel conv as the upsampler: as
    published. 910,152 / 918,267 / 929,628 parameters at x2 / x3 / x4; its paper prints 878 / 886 / 897 K, which is
    without the position tables (32,400).
    groups, heads: fewer make it smaller; each head has 10 channels.
    The input is padded to whole windows, by reflection as published; a side below 5 pixels, which has too few to
    reflect, by repetition of its last pixel (our choice).
    drop_path: how often a layer is left out in training, increasing with the depth up to this (0.1 as published); the
    noise is from PyTorch's global state.
    """

    def __init__(self, scale: int = 2, *, groups: int = 4, heads: int = 6, drop_path: float = 0.1) -> None:
        super().__init__(scale)
        with from_extra("networks"):
            from spandrel.architectures.SwinIR import SwinIR  # takes a second to import: only where it is used

        self.network = SwinIR(
            upscale=scale, img_size=64, window_size=8, depths=[6] * groups, num_heads=[heads] * groups,
            embed_dim=10 * heads, mlp_ratio=2,
            upsampler="pixelshuffledirect", drop_path_rate=drop_path,
        )  # fmt: skip

    def draw(self, generator: torch.Generator) -> None:
        """Convolutions as PyTorch draws them; as published, linear layers and position tables from a normal
        distribution of standard deviation 0.02, biases at 0."""
        super().draw(generator)
        for name, parameter in self.named_parameters():
            if "relative_position_bias_table" in name or (parameter.dim() == 2 and name.endswith("weight")):
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[2:]
        if min(height, width) >= 5:
            return self.network(lr)
        padded = F.pad(lr, (0, max(0, 8 - width), 0, max(0, 8 - height)), mode="replicate")
        return self.network(padded)[..., : height * self.scale, : width * self.scale]
