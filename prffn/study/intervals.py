"""Paired comparison over seeds and images, the verdict that follows from it, and what would decide an open one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # scipy.stats has the same functions, and takes a second to import

Verdict = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided 95 % confidence interval (Student's t); infinite for a single value."""

    mean: float
    error: float = math.inf  # standard error of the mean
    freedom: float = 1.0  # its degrees of freedom
    of_seeds: float = math.nan  # the part of the error's square that more seeds lower, times the seeds; nan with one
    of_images: float = 0.0  # the part of it that only other images lower

    @property
    def half_width(self) -> float:
        return float(special.stdtrit(self.freedom, 0.975)) * self.error

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def p(self, margin: float = 0.0) -> float:
        """Two-sided: the chance of a mean at least as far from -margin where the true one lies there."""
        away = abs(self.mean + margin)
        if self.error == 0:
            return 0.0 if away else 1.0
        return float(2 * special.stdtr(self.freedom, -away / self.error))


def paired_interval(a: ArrayLike, b: ArrayLike) -> Interval:
    """Interval of the mean of a - b over seeds and images, paired: both runs of a seed share first weights and patches.

    a, b: (seeds, images), or (seeds,) for one value each. Seeds and images are both taken as drawn at random: the
    interval is of what other seeds would give on other images of the kind (two-way random effects without replication:
    the mean squares of seeds and images less the residual one, degrees of freedom after Satterthwaite; where the
    residual exceeds the smaller of the two, the larger one alone). One image says nothing of others: the interval is
    then over seeds alone.
    Raises ValueError if the shapes differ or there is nothing.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim not in (1, 2) or not a.size:
        raise ValueError(f"paired values must be as many as each other and at least one, got {a.shape} and {b.shape}")
    d = (a - b).reshape(len(a), -1)
    (seeds, images), mean = d.shape, float(d.mean())
    if seeds == 1:
        return Interval(mean)
    of_seeds = float(images * d.mean(axis=1).var(ddof=1))
    if images == 1:
        return Interval(mean, math.sqrt(of_seeds / d.size), float(seeds - 1), of_seeds)
    of_images = float(seeds * d.mean(axis=0).var(ddof=1))
    rest = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    residual = float((rest**2).sum() / ((seeds - 1) * (images - 1)))  # of what neither seed nor image explains
    square, freedom = _crossed(of_seeds, of_images, residual, (seeds - 1, images - 1, (seeds - 1) * (images - 1)))
    others = max(0.0, of_images - residual) / d.size
    return Interval(mean, math.sqrt(square / d.size), freedom, of_seeds / images, others)


def _crossed(of_seeds: float, of_images: float, residual: float, freedoms: Sequence[int]) -> tuple[float, float]:
    """Mean square of which the mean's variance is a (seeds x images)-th, and its degrees of freedom."""
    square = of_seeds + of_images - residual
    larger = max(of_seeds, of_images)
    if square <= larger * (1 + 1e-9):  # as everywhere here, rounding does not decide; of equal ones it is the wider
        parts = zip((of_seeds, of_images), freedoms[:2], strict=True)
        return larger, min(freedom for part, freedom in parts if part >= larger * (1 - 1e-9))
    squares = zip((of_seeds, of_images, residual), freedoms, strict=True)
    return square, square**2 / sum(part**2 / freedom for part, freedom in squares)


def seeds_to_decide(difference: Interval, margin: float = 0.0) -> float:
    """About how many seeds would take zero, or -margin, out of the interval if mean and scatter stayed as they are.

    Infinite where no number of seeds on these images would: what differs from image to image is then too much. nan with
    one seed. Normal quantile: an estimate, of use for its order of magnitude.
    """
    square = ((difference.mean + margin) / float(special.ndtri(0.975))) ** 2 - difference.of_images
    if math.isnan(difference.of_seeds):
        return math.nan
    return math.ceil(difference.of_seeds / square) if square > 0 else math.inf


def holm(ps: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's method, in the order given.

    ps: of all verdicts that are given together. Where only those count whose corrected value is below 0.05, the chance
    that any of them is false is below 5 %.
    """
    order, corrected = np.argsort(ps, kind="stable"), np.empty(len(ps))
    times = np.arange(len(ps), 0, -1) * np.asarray(ps, float)[order]
    corrected[order] = np.maximum.accumulate(np.minimum(times, 1.0))
    return corrected.tolist()


def verdict(difference: Interval, margin: float = 0.0) -> Verdict:
    """Is the claim "greater" borne out, or "not smaller by more than `margin`"? The interval decides, or does not."""
    if difference.low > -margin:
        return "holds"
    return "does not hold" if difference.high < -margin else "not decided"
