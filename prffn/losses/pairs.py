"""Scores of anchors and their candidates, s(x_i, c_j) / tau, and the sums over them that InfoNCE's gradient is made of.

Two ways to the same sums, a tile of anchors at a time: `Products` for similarities that are matrix products,
`Distances` for the L1 distance. Their common terms:

    tiles()                                     slices of regions and of their anchors, each a tile
    over_candidates(block, rows, with_slopes)   of each anchor: the largest score, the sum of the weights
                                                exp(score - largest), and that of weight times the score's slope in x
    over_anchors(block, rows, top, share)       of each candidate: the sum of share times weight times what
                                                candidate_gradient() makes its gradient of
    positive, positive_slope_x, positive_slope_y, slope    the positive's score and its slopes, in units of `slope`

An anchor's own pixel, at the same place among the candidates, is no negative: its weight is 0.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 2**18  # scores at a time: 1 MB in float32, 2 MB in float64, near what a CPU core's cache holds (our choice)
ON_GPU = 2**5  # times as much at a time on a GPU, where launches are what costs (our choice)
PIECE = 256  # terms of a float32 sum in a row (our choice)
NEGLIGIBLE = -80.0  # e^-80 is lost in any sum that holds a 1; far smaller ones underflow, which CPUs do slowly


def at_once(x: Tensor, values: int) -> int:
    """How many values to take at a time on the device of x."""
    return values if x.device.type == "cpu" else values * ON_GPU


def _tiles(anchors: Tensor, width: int, scores: int) -> Iterator[tuple[slice, slice]]:
    """Slices of regions and of their anchors, (R, S, ...), with `width` candidates each: at most `scores` in a tile."""
    count, size = anchors.shape[:2]
    regions_at_once, rows = max(1, scores // (size * width)), max(1, min(size, scores // width))
    for region in range(0, count, regions_at_once):
        for row in range(0, size, rows):
            yield slice(region, region + regions_at_once), slice(row, row + rows)


def _weigh(scores: Tensor, rows: slice, size: int, narrow: Tensor) -> tuple[Tensor, Tensor]:
    """The largest scores, (r, s, 1), and the weights, (r, s, T), in `narrow`, which may be the buffer of the scores.

    Scores cancel and may need float64; what is left of them beside the largest does not.
    """
    for own in range(rows.start, scores.shape[2], size):
        scores.diagonal(own, dim1=1, dim2=2).fill_(-torch.inf)
    top = scores.amax(dim=2, keepdim=True)
    weights = scores.sub_(top)
    if narrow.dtype != scores.dtype:
        weights = _view(narrow, *scores.shape).copy_(weights)
    return top, weights.clamp_(min=NEGLIGIBLE).exp_()


def _sum_products(a: Tensor, b: Tensor) -> Tensor:
    """(r, s, T), (r, T, K) -> (r, s, K). Long sums in pieces: some processors' matrix products add one by one, and
    the rounding of 4096 additions, 1e-6, would show."""
    total = torch.bmm(a[..., :PIECE], b[:, :PIECE])
    for start in range(PIECE, a.shape[2], PIECE):
        total += torch.bmm(a[..., start : start + PIECE], b[:, start : start + PIECE])
    return total


class Products:
    """Dot product, or minus the squared distance, over tau: all anchors with all candidates in one matrix product.

    -|x - c|^2 = 2 xc - |c|^2 - |x|^2, and |x|^2, the same for all candidates of an anchor, drops out of the softmax: so
    (x, 1) times (c, -|c|^2 / 2). Pixels are taken from the region's mean where that changes nothing, in distances and
    in an anchor's softmax over its candidates: small differences are not rounded away beside it.
    x, y: (R, S, C). candidates: (R, T, C). narrow: the type of the weights and of their sums.
    """

    def __init__(
        self, x: Tensor, y: Tensor, candidates: Tensor, similarity: str, temperature: float, narrow: torch.dtype
    ) -> None:
        self.squared = similarity == "squared"
        self.slope = (2 if self.squared else 1) / temperature
        mean = y.mean(dim=1, keepdim=True)
        self.anchors = F.pad(x - mean if self.squared else x, (0, 1), value=1.0)  # (R, S, C + 1)
        self.candidates = F.pad(candidates - mean, (0, 1), value=1.0)  # (R, T, C + 1)
        self.factors = self._factors(candidates - mean).transpose(1, 2).contiguous()  # (R, C + 1, T)
        self.positive = (self.anchors * self._factors(y - mean)).sum(dim=2, keepdim=True)  # (R, S, 1)
        self.positive_slope_x = y - mean
        self.positive_slope_y = x - y if self.squared else x
        self.anchors_summed, self.candidates_summed = self.anchors.to(narrow), self.candidates.to(narrow)
        scores = max(at_once(x, TILE), candidates.shape[1])
        self.buffer = x.new_empty(scores)
        self.narrow = self.buffer if narrow == x.dtype else x.new_empty(scores, dtype=narrow)

    def _factors(self, c: Tensor) -> Tensor:
        norm = c.square().sum(dim=2, keepdim=True) if self.squared else torch.zeros_like(c[..., :1])
        return torch.cat((c, -norm / 2), dim=2) * self.slope

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        return _tiles(self.anchors, self.candidates.shape[1], at_once(self.anchors, TILE))

    def over_candidates(self, block: slice, rows: slice, with_slopes: bool) -> tuple[Tensor, Tensor, Tensor]:
        anchors, factors = self.anchors[block, rows], self.factors[block]
        scores = torch.bmm(anchors, factors, out=_view(self.buffer, *anchors.shape[:2], factors.shape[2]))
        top, self.weights = _weigh(scores, rows, self.anchors.shape[1], self.narrow)
        sums = _sum_products(self.weights, self.candidates_summed[block])  # the padding's 1 sums up the weights
        return top, sums[..., -1:], sums[..., :-1]

    def over_anchors(self, block: slice, rows: slice, top: Tensor, share: Tensor) -> Tensor:
        shares = (share.to(self.weights.dtype) * self.anchors_summed[block, rows]).transpose(1, 2)
        return torch.bmm(shares, self.weights).transpose(1, 2)

    def candidate_gradient(self, sums: Tensor) -> Tensor:
        """(R, T, C + 1) -> (R, T, C)."""
        return sums[..., :-1] - self.candidates[..., :-1] * sums[..., -1:] if self.squared else sums[..., :-1]


class Distances:
    """Minus the L1 distance over tau, one channel after the other. Arguments as in `Products`; nothing is narrowed."""

    def __init__(
        self, x: Tensor, y: Tensor, candidates: Tensor, similarity: str, temperature: float, narrow: torch.dtype
    ) -> None:
        self.slope = 1 / temperature
        self.anchors, self.candidates = x, candidates
        self.columns = candidates.transpose(1, 2).contiguous()  # (R, C, T)
        self.positive = -self.slope * (x - y).abs().sum(dim=2, keepdim=True)  # (R, S, 1)
        self.positive_slope_y = (x - y).sign()
        self.positive_slope_x = -self.positive_slope_y

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        scores = at_once(self.anchors, TILE)
        self.buffer, self.spare = self.anchors.new_empty(2, max(scores, self.columns.shape[2]))
        return _tiles(self.anchors, self.columns.shape[2], scores)

    def over_candidates(self, block: slice, rows: slice, with_slopes: bool) -> tuple[Tensor, Tensor, Tensor]:
        scores = self._differences(0, block, rows, self.buffer).abs_()
        for channel in range(1, self.anchors.shape[2]):
            scores += self._differences(channel, block, rows, self.spare).abs_()
        top, self.weights = _weigh(scores.mul_(-self.slope), rows, self.anchors.shape[1], self.buffer)
        slopes = -self._signed_sums(block, rows, dim=2) if with_slopes else top
        return top, self.weights.sum(dim=2, keepdim=True), slopes

    def over_anchors(self, block: slice, rows: slice, top: Tensor, share: Tensor) -> Tensor:
        self.weights.mul_(share)
        return self._signed_sums(block, rows, dim=1)

    def candidate_gradient(self, sums: Tensor) -> Tensor:
        return sums

    def _differences(self, channel: int, block: slice, rows: slice, out: Tensor) -> Tensor:
        x, c = self.anchors[block, rows, channel, None], self.columns[block, channel, None]
        return torch.sub(x, c, out=_view(out, *x.shape[:2], c.shape[2]))  # (r, s, T)

    def _signed_sums(self, block: slice, rows: slice, dim: int) -> Tensor:
        """Sums of weight times sign(x - c), over the candidates (dim 2) or over the anchors (dim 1)."""
        channels = range(self.anchors.shape[2])
        signs = (self._differences(channel, block, rows, self.spare).sign_() for channel in channels)
        return torch.stack([sign.mul_(self.weights).sum(dim=dim) for sign in signs], dim=2)


def _view(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)
