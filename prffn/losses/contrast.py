"""L_contr, the pixel-wise contrastive loss: each SR pixel is drawn to its HR pixel and away from its region's others.

Printed: the SR image's pixels are the anchors; the HR pixel at the same place is the positive; the other pixels of
the local region are the negatives; S, `region_size`, is the number of pixels of a region. The formula itself is not
known, so both families in use are here:

    infonce   mean over i of  -log( exp(s(x_i, y_i) / tau) / sum over candidates c of exp(s(x_i, c) / tau) )
    ratio     mean over i of  d(x_i, y_i) / ( mean over negatives n of d(x_i, n) + eps )

with x an SR pixel, y an HR pixel, s a similarity of two RGB pixels, d the L1 distance.

The default: InfoNCE with minus the squared distance and tau = 0.001. Table 3 prints a gain over L_1 alone at every
weight from lambda_c = 0.01 to 10. No definition that was tried shows it (notebooks/beyond_loss_definition.ipynb: small
networks, 1500 steps with both losses from the first). The cosine with tau = 0.1 comes nearest, as it hardly acts at
these weights; the L1 distance with tau = 0.1, the squared distance at either tau and the ratio follow close together,
and the evidence asks for no other default.
Beside an L_1 that is trained well, from an interpolation, it gains 0.009 dB on B100 at lambda_c = 0.1 after 1500 steps,
and no gain is seen after 6000 and 24,000; at 1 it speeds a short training up and costs in a longer one
(beyond_when.ipynb), as a squared error does (beyond_negatives.ipynb); at 10 it loses 0.06 dB on B100
(table3_lambda_c.ipynb).
At so small a tau the softmax is all or nothing: an anchor counts if another HR pixel of its region is as near to it as
its own, by |x_i - y_i|^2 - min over j of |x_i - y_j|^2 in units of tau, and hardly otherwise.
"""

import math
import operator
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["ratio", "infonce"]
Similarity = Literal["l1", "squared", "cosine", "dot"]
Negatives = Literal["hr", "sr", "both", "none", "elsewhere"]
CONTROLS = ("none", "elsewhere")  # negatives that InfoNCE alone knows, and `reference` alone computes
CHOICES = {"form": get_args(Form), "similarity": get_args(Similarity), "negatives": get_args(Negatives)}
LARGEST = sys.float_info.max  # worked out here, as CHOICES are: PyTorch 2.4 compiles neither `get_args` nor `sys`


@dataclass(frozen=True)
class Contrast:
    """The definition of L_contr: six settings, the defaults argued above.

    Raises ValueError for a region that is not a square of at least 4 pixels, unknown names, or a temperature or epsilon
    that is not positive.
    """

    region_size: int = 64
    """S, pixels in a square region (Table 5: 16, 64, 256)."""
    form: Form = "infonce"
    """Our choice, as are the next four."""
    similarity: Similarity = "squared"
    """Of "infonce": minus the L1 or the squared distance, cosine, or dot product."""
    temperature: float = 0.001
    """tau of "infonce", in the unit of the similarity: 0.001, a distance of 0.03, for squared distances; 0.01 to 1 for
    the others."""
    epsilon: float = 0.01
    """eps of "ratio", in the unit of the L1 distance of two RGB pixels, 0 to 3."""
    negatives: Negatives = "hr"
    """The other pixels of the region in HR, in SR, or in both.

    Two controls of "infonce", our own: "none", of which is left what draws the anchor to its positive, with "squared"
    the squared error over tau; "elsewhere", the HR pixels of the region half the batch away."""

    def __post_init__(self) -> None:
        if type(self.region_size) not in (int, bool):  # so that torch.compile does not meet `suppress` for an int
            with suppress(TypeError):
                object.__setattr__(self, "region_size", operator.index(self.region_size))  # NumPy's whole numbers too
        size = self.region_size if type(self.region_size) is int and self.region_size >= 4 else 0
        if not size or math.isqrt(size) ** 2 != size:
            raise ValueError(f"region_size must be a square number such as 16, 64 or 256, got {self.region_size!r}")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.form == "ratio" and self.negatives in CONTROLS:
            raise ValueError(f"form 'ratio' takes negatives hr, sr or both, got {self.negatives!r}")
        for name in ("temperature", "epsilon"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number <= LARGEST:
                raise ValueError(f"{name} must be a positive number, got {number!r}")


def reference(sr: Tensor, hr: Tensor, contrast: Contrast) -> Tensor:
    """L_contr written out, with its (S, S) matrices and derivatives of any order: what all faster ways must equal.

    sr, hr: (N, C, H, W) in [0, 1], of one floating-point type. Returns a scalar.
    """
    losses = [
        anchor_losses(x, y, contrast).flatten()
        for x, y in zip(regions(sr, contrast.region_size), regions(hr, contrast.region_size), strict=True)
        if x.shape[1] > 1  # a pixel alone in its region has no negatives
    ]
    return torch.cat(losses).mean()


def contrast_map(sr: Tensor, hr: Tensor, contrast: Contrast) -> Tensor:
    """Each SR pixel's term of L_contr, (N, C, H, W) -> (N, H, W): NaN for a pixel alone in its region."""
    terms = sr.new_full((sr.shape[0], *sr.shape[2:]), math.nan)
    for area in areas(sr.shape[2], sr.shape[3], contrast.region_size):
        rows, columns, (h, w) = area
        for top in range(rows.start, rows.stop, h) if h * w > 1 else ():  # a row of regions: all would take gigabytes
            strip = slice(top, top + h), columns, (h, w)
            of_regions = anchor_losses(cut(sr, strip), cut(hr, strip), contrast).view(len(sr), -1, h, w)
            terms[:, top : top + h, columns] = of_regions.transpose(1, 2).flatten(2)
    return terms


Area = tuple[slice, slice, tuple[int, int]]
"""Rows and columns of an image that regions of one size cover, and the height and width of a region."""


def areas(height: int, width: int, region_size: int) -> Iterator[Area]:
    """The whole regions, then those cut short by the right border, the bottom border and the corner."""
    side = math.isqrt(region_size)
    whole_h, whole_w = height - height % side, width - width % side
    for top, bottom in ((0, whole_h), (whole_h, height)):
        for left, right in ((0, whole_w), (whole_w, width)):
            if top != bottom and left != right:
                yield slice(top, bottom), slice(left, right), (min(side, bottom - top), min(side, right - left))


def cut(image: Tensor, area: Area) -> Tensor:
    """(N, C, H, W) -> (R, S, C): the regions of an area, their pixels row by row."""
    rows, columns, (h, w) = area
    part = image[:, :, rows, columns].unflatten(2, (-1, h)).unflatten(4, (-1, w))  # (N, C, rows, h, columns, w)
    return part.permute(0, 2, 4, 3, 5, 1).reshape(-1, h * w, image.shape[1])


def regions(image: Tensor, region_size: int) -> Iterator[Tensor]:
    """Cuts (N, C, H, W) into regions: yields (R, S, C), R regions of S pixels, one tensor for each size of region."""
    for area in areas(image.shape[2], image.shape[3], region_size):
        yield cut(image, area)


def anchor_losses(x: Tensor, y: Tensor, contrast: Contrast) -> Tensor:
    """The term of each anchor: (R, S, C), (R, S, C) -> (R, S)."""
    device = "cpu" if x.device.type == "meta" else x.device.type  # meta tensors, without values, know no autocast
    with torch.autocast(device, enabled=False):  # whose matrix products would round to half precision
        if contrast.form == "ratio":
            return _ratio(x, y, contrast.epsilon, contrast.negatives)
        return _infonce(x, y, contrast.similarity, contrast.temperature, contrast.negatives)


def _l1_distances(x: Tensor, y: Tensor) -> Tensor:
    """L1 distance of each pixel of x to each of y in its region: (R, S, C), (R, T, C) -> (R, S, T)."""
    return (x.unsqueeze(2) - y.unsqueeze(1)).abs().sum(dim=-1)


def similarities(x: Tensor, y: Tensor, similarity: Similarity) -> Tensor:
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
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    if negatives in CONTROLS:
        alone, its_own = (image.flatten(0, 1).unsqueeze(1) for image in (x, y))  # each anchor beside its positive
        positive = similarities(alone, its_own, similarity).view(x.shape[:2]) / temperature
        if negatives == "none":
            return -positive
        away = similarities(x, y.roll(len(y) // 2, dims=0), similarity) / temperature
        return torch.logsumexp(torch.where(itself, positive.unsqueeze(2), away), dim=2) - positive
    to_hr = similarities(x, y, similarity) / temperature  # (R, S, S)
    positive = to_hr.diagonal(dim1=1, dim2=2)  # (R, S)
    if negatives == "hr":
        return torch.logsumexp(to_hr, dim=2) - positive
    to_sr = (similarities(x, x, similarity) / temperature).masked_fill(itself, -math.inf)
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
