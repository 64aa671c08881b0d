"""The total loss, L = 255 L_1 + lambda_c L_contr and the other terms of Table 2, or a reader's own: each by its name,
weighted once."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.config import LossConfig
from prffn.losses import pixel_contrast
from prffn.losses.own import Loss, own_loss
from prffn.losses.perceptual import csd_loss, perceptual_loss

GREY_LEVELS = 255.0  # in the total loss L_1 is in grey levels, see `LossConfig`


def loss_terms(
    sr: Tensor, hr: Tensor, lr: Tensor, config: LossConfig, batch_mean: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """The terms in use, unweighted, by name: each as it is for images in [0, 1].

    sr, hr: (N, 3, H, W), RGB in [0, 1]. lr: (N, 3, h, w), of which L_CSD makes its negatives.
    batch_mean: None where sr and hr are a whole batch. Where several processes share a batch, each with a part of it
        as sr and hr and all of it as lr: gives the mean over the batch of what is a mean over each process's part. The
        means of the terms over all processes, weighted by their shares of the batch, are then the terms of the batch,
        and so are their gradients: L_1, L_contr and L_perc are means over samples (all patches have as many pixels
        alone in their regions, which L_contr leaves out), L_CSD is a ratio of such means, see `csd_loss`. A reader's
        own loss has to be a mean over samples too.
    """
    terms = {"l1": F.l1_loss(sr, hr)}
    if config.contrast_weight:
        terms["contrast"] = pixel_contrast(sr, hr, config)
    if config.perceptual_weight:
        terms["perceptual"] = perceptual_loss(sr, hr, config.backbone)
    if config.csd_weight:
        terms["csd"] = csd_loss(sr, hr, lr, config.backbone, batch_mean=batch_mean)
    if config.own and config.own_weight:
        own = own_loss(config.own, config.own_sha256)
        terms |= {"control": control(own, sr, hr, batch_mean)} if config.own_control else {"own": own(sr, hr)}
    return terms


def control(loss: Loss, sr: Tensor, hr: Tensor, batch_mean: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """A squared error whose gradient in the SR images is at each step as large as that of `loss` (our choice).

    The difference between the two trainings tells what the loss brings beyond a second gradient of its size. With a
    fixed weight the two would be of one size at one step only: the gradient of a squared error shrinks with the errors.
    loss: of sr and hr. batch_mean: as in `loss_terms`. Returns a scalar.
    """
    x = sr.detach().requires_grad_()
    with torch.enable_grad():
        squared = F.mse_loss(x, hr)
        squares = gradient_norms({"loss": loss(x, hr), "squared": squared}, x)
    if batch_mean is not None:  # a part counts by the square of its share
        squares = batch_mean(len(sr) * squares)
    of_loss, of_squared = squares
    ratio = (of_loss / of_squared.clamp(min=1e-30)).sqrt()
    return ratio.to(sr.dtype) * F.mse_loss(sr, hr)


def weighted(terms: Mapping[str, Tensor], config: LossConfig, done: float = 0.0) -> dict[str, Tensor]:
    """The terms with their weights, whose sum is L: L_1 in grey levels, lambda_c L_contr (printed), the others.

    done: the part of the training that is behind, from 0 to 1, by which L_contr fades where it does.
    """
    weights = {
        "l1": GREY_LEVELS,
        "contrast": config.contrast_weight * (1 - done if config.contrast_fades else 1),
        "perceptual": config.perceptual_weight,
        "csd": config.csd_weight,
        "own": config.own_weight,
        "control": config.own_weight,
    }
    return {name: weights[name] * term for name, term in terms.items()}


def gradient_norms(weighted_terms: Mapping[str, Tensor], sr: Tensor) -> Tensor:
    """The norm of each weighted term's gradient in the SR images, squared: what each of them asks of the network."""
    gradients = (torch.autograd.grad(term, sr, retain_graph=True)[0] for term in weighted_terms.values())
    return torch.stack([gradient.detach().square().sum() for gradient in gradients])
