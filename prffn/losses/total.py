"""The total loss L = L_1 + lambda_c L_contr: each term by its name, weighted once."""

import torch.nn.functional as F
from torch import Tensor

from prffn.config import LossConfig
from prffn.losses.contrast import pixel_contrast


def loss_terms(sr: Tensor, hr: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The terms in use, unweighted, by name. sr, hr: (N, 3, H, W), RGB in [0, 1]."""
    terms = {"l1": F.l1_loss(sr, hr)}
    if config.contrast_weight:
        terms["contrast"] = pixel_contrast(
            sr,
            hr,
            config.region_size,
            form=config.form,
            similarity=config.similarity,
            temperature=config.temperature,
            epsilon=config.epsilon,
            negatives=config.negatives,
        )
    return terms


def weighted_sum(terms: dict[str, Tensor], config: LossConfig) -> Tensor:
    """L = L_1 + lambda_c L_contr (printed)."""
    weights = {"l1": 1.0, "contrast": config.contrast_weight}
    return sum((weights[name] * term for name, term in list(terms.items())[1:]), weights["l1"] * terms["l1"])
