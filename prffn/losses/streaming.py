"""L_contr in one streaming pass: the values of `contrast.py` without its (R, S, S) matrices and its autograd graph.

Loss and gradients have a closed form, so one pass over blocks of regions computes both; all that is kept for the
backward pass is the gradient, as large as the image. For an anchor x_i, its positive y_i and its negatives c_j:

    infonce   loss_i = softplus(z_i),  z_i = log sum over j of exp(s(x_i, c_j) / tau) - s(x_i, y_i) / tau
              d loss_i / d x_i = sum over j of p_ij d( s(x_i, c_j) - s(x_i, y_i) ) / d x_i / tau,  p_ij the softmax
    ratio     per channel, the sum over j of |x_i - c_j| and its slope follow from the sum and the number of the values
              below and above x_i: a sort and prefix sums, S log S steps in place of S^2
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.losses.contrast import Contrast, regions
from prffn.losses.fused import ClosedForm, closed_form, kind_of
from prffn.losses.pairs import Distances, Products, at_once

BLOCK = 2**17  # values of a block of regions (our choice)
COARSE = {
    "l1": 0.01,
    "squared": 0.1,
    "dot": 0.1,
}  # from these temperatures on, scores of pixels in [0, 1] are fine enough in float32


def streaming_loss(sr: Tensor, hr: Tensor, contrast: Contrast) -> Tensor:
    """L_contr of images that `pixel_contrast` has checked: the same value and first derivatives. Returns a scalar.

    Memory is that of a few copies of the images, whatever the region.
    Raises RuntimeError if asked for second or forward-mode derivatives.
    """
    kind, parameter = kind_of(contrast)
    negatives = contrast.negatives
    totals: list[Tensor] = []
    count = 0  # anchors
    for x, y in zip(regions(sr, contrast.region_size), regions(hr, contrast.region_size), strict=True):
        if x.shape[1] == 1:
            continue  # no negatives
        count += x.shape[0] * x.shape[1]
        if kind == "cosine":
            totals.append(closed_form("stream", _directions(x), _directions(y), "dot", parameter, negatives))
        else:
            totals.append(closed_form("stream", x, y, kind, parameter, negatives))
    return (torch.stack(totals).sum() / count).to(sr.dtype)


@torch.library.custom_op("prffn::stream", mutates_args=())  # to a compiler one step, not a loop of a thousand
def _stream(
    x: Tensor, y: Tensor, kind: str, parameter: float, negatives: str, with_x: bool, with_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the losses of all anchors, and its gradients for x and y, (R, S, C), empty where not wanted."""
    loss, grad_x, grad_y = _outputs(x, y, kind, parameter, negatives, with_x, with_y)
    step = max(1, at_once(x, BLOCK) // (x.shape[1] * x.shape[2]))
    with torch.autocast(x.device.type, enabled=False):
        loss.zero_()
        for start in range(0, x.shape[0], step):
            block = slice(start, start + step)
            if kind == "ratio":
                found = _ratio(x[block], y[block], parameter, negatives, with_x, with_y)
            else:
                found = _infonce(x[block], y[block], kind, parameter, negatives, with_x, with_y)
            loss += found[0]
            if with_x:
                grad_x[block] = found[1]
            if with_y:
                grad_y[block] = found[2]
    return loss, grad_x, grad_y


@_stream.register_fake
def _outputs(
    x: Tensor, y: Tensor, kind: str, parameter: float, negatives: str, with_x: bool, with_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors that `_stream` returns, not yet filled."""
    loss = torch.empty((), dtype=_wide(x), device=x.device)
    grad_x, grad_y = (torch.empty(x.shape if w else (0,), dtype=x.dtype, device=x.device) for w in (with_x, with_y))
    return loss, grad_x, grad_y


_stream.register_autograd(ClosedForm.backward, setup_context=ClosedForm.setup_context)


def _wide(x: Tensor) -> torch.dtype:
    """The type for sums and scores that cancel: float64, where the device has it."""
    return x.dtype if x.device.type == "mps" else torch.float64


def _directions(pixels: Tensor) -> Tensor:
    """Pixels scaled to length 1. Rounded to float32 they would be too coarse for a small temperature."""
    return F.normalize(pixels.to(_wide(pixels)), dim=-1, eps=1e-6)


def _infonce(
    x: Tensor, y: Tensor, kind: str, temperature: float, negatives: str, with_x: bool, with_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of some regions and its gradients, (r, S, C), (r, S, C) -> (), (r, S, C), (r, S, C).

    A region whose scores do not fit the buffer is taken a few anchors at a time, each with all of its candidates.
    """
    size = x.shape[1]
    narrow = x.dtype
    dtype = _wide(x) if temperature < COARSE[kind] else x.dtype
    x, y = x.to(dtype), y.to(dtype)
    candidates = {"hr": y, "sr": x}[negatives] if negatives != "both" else torch.cat((y, x), dim=1)  # (r, T, C)
    pairs_of: Any = Distances if kind == "l1" else Products
    pairs = pairs_of(x, y, candidates, kind, temperature, narrow)
    excess, drawn = torch.empty_like(pairs.positive), torch.empty_like(x)
    drawing = torch.zeros_like(pairs.candidates)
    for block, rows in pairs.tiles():
        top, total, slopes = pairs.over_candidates(block, rows, with_x)
        excess[block, rows] = top + total.log() - pairs.positive[block, rows]  # z
        if with_x:
            drawn[block, rows] = slopes / total
        if with_y or (with_x and negatives != "hr"):
            drawing[block] += pairs.over_anchors(block, rows, top, excess[block, rows].sigmoid() / total)

    loss = torch.logaddexp(excess, torch.zeros_like(excess))  # softplus, exact for large z too
    pushed = excess.sigmoid()  # the negatives' part of the softmax
    grad_x = pushed * (drawn - pairs.positive_slope_x)
    grad_y = -pushed * pairs.positive_slope_y
    of_candidates = pairs.candidate_gradient(drawing)  # (r, T, C)
    if negatives != "sr":
        grad_y += of_candidates[:, :size]
    if negatives != "hr":
        grad_x += of_candidates[:, -size:]
    return loss.sum(dtype=_wide(x)), pairs.slope * grad_x, pairs.slope * grad_y


def _ratio(
    x: Tensor, y: Tensor, epsilon: float, negatives: str, with_x: bool, with_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of some regions and its gradients, (r, S, C), (r, S, C) -> (), (r, S, C), (r, S, C)."""
    x, y = x.transpose(1, 2).contiguous(), y.transpose(1, 2).contiguous()  # (r, C, S)
    wide = _wide(x)
    to_positive = (x - y).sign()
    positive = (x - y).abs().to(wide).sum(dim=1, keepdim=True)  # (r, 1, S)
    others = x.shape[2] - 1
    total, count = torch.zeros_like(positive), 0
    steepness = torch.zeros(x.shape, dtype=wide, device=x.device)  # slope of the total in x
    if negatives != "sr":
        hr = _Sorted(y)
        distances, signs = hr.distances(x, *hr.ranks(x))
        total += distances - positive
        steepness += signs - to_positive
        count += others
    sr = _Sorted(x) if negatives != "hr" or with_y else None
    if sr and negatives != "hr":
        ranks = sr.ranks(x)
        distances, signs = sr.distances(x, *ranks)
        total += distances
        steepness += signs
        count += others
    pull = 1 / (total / count + epsilon)  # slope of the loss in the distance to the positive
    loss = positive * pull
    if not (with_x or with_y):
        return loss.sum(), x, y
    push = loss * pull / count  # minus its slope in the total of the distances to the negatives
    grad_x = pull * to_positive - push * steepness
    grad_y = -pull * to_positive
    if sr and negatives != "hr":
        grad_x -= sr.signed_sum(push, *ranks)
    if sr and with_y and negatives != "sr":
        grad_y -= sr.signed_sum(push, *sr.ranks(y)) + push * to_positive
    return loss.sum(), grad_x.transpose(1, 2), grad_y.transpose(1, 2)


class _Sorted:
    """The values of each region and channel in order, for sums over those below and above a value. (r, C, S)."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.order = values.sort(dim=2)
        self.size = values.shape[2]

    def ranks(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """How many values are below each query, and how many are not above it: twice (r, C, S)."""
        return torch.searchsorted(self.values, queries), torch.searchsorted(self.values, queries, right=True)

    def distances(self, queries: Tensor, below: Tensor, not_above: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over values of the distance, over channels too, and of sign(query - value): (r, 1, S), (r, C, S)."""
        wide = _wide(queries)
        mean = self.values.mean(dim=2, keepdim=True)
        sums = _prefix_sums(self.values.to(wide) - mean)
        signed = 2 * sums.gather(2, below) - sums[..., -1:]  # sum of the values below, minus that of the others
        distances = (queries.to(wide) - mean) * (2 * below - self.size) - signed
        return distances.sum(dim=1, keepdim=True), below + not_above - self.size

    def signed_sum(self, weights: Tensor, below: Tensor, not_above: Tensor) -> Tensor:
        """Sum over values of weight times sign(query - value). weights: (r, 1, S), in the order of the pixels."""
        sums = _prefix_sums(weights.expand_as(self.order).gather(2, self.order))
        return sums.gather(2, below) + sums.gather(2, not_above) - sums[..., -1:]


def _prefix_sums(values: Tensor) -> Tensor:
    """(r, C, S) -> (r, C, S + 1): the sum of the first k, k from 0 to S."""
    return F.pad(values.cumsum(dim=2), (1, 0))
