"""PRFFN and the pixel-wise contrastive loss L_contr, with all that is needed to reproduce the paper's tables.

`from prffn import PixelContrastLoss` needs nothing but torch.
"""

from prffn.losses import PixelContrastLoss, pixel_contrast

__version__ = "0.1.0"
__all__ = ["PixelContrastLoss", "pixel_contrast"]
