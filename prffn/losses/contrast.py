"""L_contr, the pixel-wise contrastive loss: each SR pixel is drawn to its HR pixel and away from its region's others.

Printed: the SR image's pixels are the anchors; the HR pixel at the same place is the positive; the other pixels of
the local region are the negatives; S, `region_size`, is the number of pixels of a region. The formula itself is not
at hand, so both families in use are here:

    infonce   mean over i of  -log( exp(s(x_i, y_i) / tau) / sum over candidates c of exp(s(x_i, c) / tau) )
    ratio     mean over i of  d(x_i, y_i) / ( mean over negatives n of d(x_i, n) + eps )

with x an SR pixel, y an HR pixel, s a similarity of two RGB pixels, d the L1 distance.

The default: InfoNCE with minus the squared distance and tau = 0.001. Table 3 prints a gain over L_1 alone at every
weight from lambda_c = 0.01 to 10. No definition that was tried shows it (notebooks/beyond_loss_definition.ipynb: small
networks, trained with L_1, then for some hundred steps with both); but at lambda_c = 10 they differ by how much they
harm: this one by a tenth of a decibel on Set5 and a hundredth on B100, the ratio by 0.15 and 0.07, all others by 1 to
18 decibels on Set5. It comes nearest to print, and is the default for that alone. Its own best weight lies a hundred
times lower than the printed one: at 0.001 it gains 0.009 dB on B100 (notebooks/table3_lambda_c.ipynb), from 0.1 on it
trains the network nearly alone. At 0.1 other networks gain SSIM on B100 (table4_other_models.ipynb); PRFFN's mean loss
of 0.08 dB on Set5 is not decided by five seeds and as many images.
At so small a tau the softmax is all or nothing: an anchor counts if another HR pixel of its region is as near to it as
its own, by |x_i - y_i|^2 - min over j of |x_i - y_j|^2 in units of tau, and hardly otherwise.
"""

import math
import sys
from collections.abc import Iterator
from numbers import Real
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["ratio", "infonce"]
Similarity = Literal["l1", "squared", "cosine", "dot"]
Negatives = Literal["hr", "sr", "both"]
Implementation = Literal["streaming", "compiled", "reference"]

FORM: Form = "infonce"
SIMILARITY: Similarity = "squared"
TEMPERATURE = 0.001
EPSILON = 0.01
NEGATIVES: Negatives = "hr"
"""The definition that is used where nothing else is said: our choice, from the evidence above."""


def pixel_contrast(
    sr: Tensor,
    hr: Tensor,
    region_size: int = 64,
    *,
    form: Form = FORM,
    similarity: Similarity = SIMILARITY,
    temperature: float = TEMPERATURE,
    epsilon: float = EPSILON,
    negatives: Negatives = NEGATIVES,
    implementation: Implementation = "streaming",
) -> Tensor:
    """L_contr between SR and HR images (Sec. 3). Returns a scalar.

    sr, hr: (N, 3, H, W), RGB in [0, 1]; any number of channels from 1 on. Half precisions are computed in float32.
    region_size: S, pixels in a square region, default 64 (printed). Regions start at the top left. Where H or W is not
        a multiple of the region's side, the last regions hold the pixels that are left (our choice); a pixel alone in
        its region has no negatives and is left out of the mean.
    form: "infonce" or "ratio" (our choice, see the module).
    similarity: of "infonce": minus the L1 or the squared distance, cosine, or dot product (our choice).
    temperature: tau of "infonce", in the unit of the similarity (our choice): 0.001, a distance of 0.03, for squared
        distances; 0.01 to 1 for the others.
    epsilon: eps of "ratio", in the unit of the L1 distance of two RGB pixels, 0 to 3 (our choice).
    negatives: the other pixels of the region in HR, in SR, or in both (our choice).
    implementation: "streaming", one pass without (S, S) matrices, in PyTorch; "compiled", that pass in C on the CPU,
        several times faster, where there is a C compiler, and on other devices with the L1 distances of "infonce" fused
        by torch.compile; or "reference", the definition written out, with its (S, S) matrices and derivatives of any
        order. All give the same loss and gradient.
    Raises ValueError for shapes that differ, a region that is not a square of at least 4 pixels, unknown names, or a
    temperature or epsilon that is not positive; TypeError for images of whole numbers; RuntimeError where the compiler
    or a second derivative does not work.
    """
    check_arguments(region_size, form, similarity, temperature, epsilon, negatives, implementation)
    for name, image in (("sr", sr), ("hr", hr)):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"{name} must be a tensor of floating-point numbers, RGB in [0, 1], got {kind}")
    if sr.shape != hr.shape or sr.ndim != 4 or not sr.numel():
        shapes = f"{tuple(sr.shape)} and {tuple(hr.shape)}"
        raise ValueError(f"sr and hr must both be (N, C, H, W), not empty, got {shapes}")
    if sr.dtype in (torch.float16, torch.bfloat16):
        sr = sr.float()
    hr = hr.to(sr.dtype)
    if implementation != "reference":
        from prffn.losses.streaming import streaming_pixel_contrast  # it imports this module

        return streaming_pixel_contrast(
            sr,
            hr,
            region_size,
            form=form,
            similarity=similarity,
            temperature=temperature,
            epsilon=epsilon,
            negatives=negatives,
            fused=implementation == "compiled",
        )

    losses: list[Tensor] = []
    with torch.autocast(autocast_device(sr), enabled=False):  # whose matrix products would round to half precision
        for x, y in zip(regions(sr, region_size), regions(hr, region_size), strict=True):
            if x.shape[1] == 1:
                continue  # no negatives
            if form == "ratio":
                per_anchor = _ratio(x, y, epsilon, negatives)
            else:
                per_anchor = _infonce(x, y, similarity, temperature, negatives)
            losses.append(per_anchor.flatten())
    if not losses:
        raise ValueError(f"no pixel of images of shape {tuple(sr.shape)} has another pixel in its region")
    return torch.cat(losses).mean()


class PixelContrastLoss(nn.Module):
    """L_contr as a module: `PixelContrastLoss(region_size=64)(sr, hr)`. Arguments as in `pixel_contrast`."""

    def __init__(
        self,
        region_size: int = 64,
        *,
        form: Form = FORM,
        similarity: Similarity = SIMILARITY,
        temperature: float = TEMPERATURE,
        epsilon: float = EPSILON,
        negatives: Negatives = NEGATIVES,
        implementation: Implementation = "streaming",
    ) -> None:
        super().__init__()
        check_arguments(region_size, form, similarity, temperature, epsilon, negatives, implementation)
        self.region_size = region_size
        self.form: Form = form
        self.similarity: Similarity = similarity
        self.temperature = temperature
        self.epsilon = epsilon
        self.negatives: Negatives = negatives
        self.implementation: Implementation = implementation

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return pixel_contrast(
            sr,
            hr,
            self.region_size,
            form=self.form,
            similarity=self.similarity,
            temperature=self.temperature,
            epsilon=self.epsilon,
            negatives=self.negatives,
            implementation=self.implementation,
        )

    def extra_repr(self) -> str:
        detail = f"epsilon={self.epsilon}" if self.form == "ratio" else f"{self.similarity}, tau={self.temperature}"
        return f"region_size={self.region_size}, {self.form}, {detail}, negatives={self.negatives}"


def check_arguments(
    region_size: int,
    form: str,
    similarity: str,
    temperature: float,
    epsilon: float,
    negatives: str,
    implementation: str = "streaming",
) -> None:
    """Raises ValueError naming the first argument of `pixel_contrast` that cannot be used."""
    side = math.isqrt(region_size) if isinstance(region_size, int) and region_size > 0 else 0
    if isinstance(region_size, bool) or side < 2 or side * side != region_size:
        raise ValueError(f"region_size must be a square number such as 16, 64 or 256, got {region_size!r}")
    for name, value, choices in (
        ("form", form, get_args(Form)),
        ("similarity", similarity, get_args(Similarity)),
        ("negatives", negatives, get_args(Negatives)),
        ("implementation", implementation, get_args(Implementation)),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    for name, number in (("temperature", temperature), ("epsilon", epsilon)):
        if isinstance(number, bool) or not isinstance(number, Real) or not 0 < number <= sys.float_info.max:
            raise ValueError(f"{name} must be a positive number, got {number!r}")


def autocast_device(image: Tensor) -> str:
    """The kind of device by which to turn autocast off; meta tensors, which have shapes but no values, know none."""
    return "cpu" if image.device.type == "meta" else image.device.type


def regions(image: Tensor, region_size: int) -> Iterator[Tensor]:
    """Cuts (N, C, H, W) into regions: yields (R, S, C), R regions of S pixels each, one tensor for each size of region.

    First the whole regions, then those cut short by the right border, the bottom border and the corner.
    """
    _, c, height, width = image.shape
    side = math.isqrt(region_size)
    whole_h, whole_w = height - height % side, width - width % side
    for top, bottom in ((0, whole_h), (whole_h, height)):
        for left, right in ((0, whole_w), (whole_w, width)):
            if top == bottom or left == right:
                continue
            h, w = min(side, bottom - top), min(side, right - left)
            part = image[:, :, top:bottom, left:right]
            part = part.unflatten(2, (-1, h)).unflatten(4, (-1, w))  # (N, C, rows, h, columns, w)
            yield part.permute(0, 2, 4, 3, 5, 1).reshape(-1, h * w, c)  # (R, S, C)


def _l1_distances(x: Tensor, y: Tensor) -> Tensor:
    """L1 distance of each pixel of x to each of y in its region: (R, S, C), (R, T, C) -> (R, S, T)."""
    return (x.unsqueeze(2) - y.unsqueeze(1)).abs().sum(dim=-1)


def _similarities(x: Tensor, y: Tensor, similarity: Similarity) -> Tensor:
    """Similarity of each anchor and each candidate of its region: (R, S, C), (R, T, C) -> (R, S, T)."""
    if similarity == "l1":
        return -_l1_distances(x, y)
    if similarity == "squared":
        return -(x.unsqueeze(2) - y.unsqueeze(1)).square().sum(dim=-1)
    if similarity == "cosine":
        x, y = F.normalize(x, dim=-1, eps=1e-6), F.normalize(y, dim=-1, eps=1e-6)
    return (x.unsqueeze(2) * y.unsqueeze(1)).sum(dim=-1)


def _infonce(x: Tensor, y: Tensor, similarity: Similarity, temperature: float, negatives: Negatives) -> Tensor:
    """-log softmax of the positive among the candidates: (R, S, C), (R, S, C) -> (R, S)."""
    to_hr = _similarities(x, y, similarity) / temperature  # (R, S, S)
    positive = to_hr.diagonal(dim1=1, dim2=2)  # (R, S)
    if negatives == "hr":
        return torch.logsumexp(to_hr, dim=2) - positive
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    to_sr = (_similarities(x, x, similarity) / temperature).masked_fill(itself, -math.inf)
    of_hr = positive.unsqueeze(2) if negatives == "sr" else to_hr
    return torch.logsumexp(torch.cat((of_hr, to_sr), dim=2), dim=2) - positive


def _ratio(x: Tensor, y: Tensor, epsilon: float, negatives: Negatives) -> Tensor:
    """Distance to the positive over the mean distance to the negatives: (R, S, C), (R, S, C) -> (R, S)."""
    others = x.shape[1] - 1
    positive = (x - y).abs().sum(dim=-1)  # (R, S)
    total, count = torch.zeros_like(positive), 0
    if negatives != "sr":
        total = total + _l1_distances(x, y).sum(dim=2) - positive
        count += others
    if negatives != "hr":
        total = total + _l1_distances(x, x).sum(dim=2)  # the distance to itself is 0
        count += others
    return positive / (total / count + epsilon)
