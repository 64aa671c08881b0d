"""Paired comparison over seeds and images, and the verdict that follows from it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Verdict = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided 95 % confidence interval (Student's t); infinite for a single value."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


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
        return Interval(mean, -np.inf, np.inf)
    square, freedom = images * d.mean(axis=1).var(ddof=1), float(seeds - 1)
    if images > 1:
        square, freedom = _crossed(d, square)
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(square / d.size))
    return Interval(mean, mean - half, mean + half)


def _crossed(d: NDArray[np.float64], of_seeds: float) -> tuple[float, float]:
    """Mean square of which the mean's variance is a (seeds x images)-th, and its degrees of freedom."""
    seeds, images = d.shape
    of_images = seeds * d.mean(axis=0).var(ddof=1)
    rest = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    freedoms = (seeds - 1, images - 1, (seeds - 1) * (images - 1))
    residual = (rest**2).sum() / freedoms[2]
    square = of_seeds + of_images - residual
    larger = max(of_seeds, of_images)
    if square <= larger * (1 + 1e-9):  # as everywhere here, rounding does not decide; of equal ones it is the wider
        parts = zip((of_seeds, of_images), freedoms[:2], strict=True)
        return larger, min(freedom for part, freedom in parts if part >= larger * (1 - 1e-9))
    squares = zip((of_seeds, of_images, residual), freedoms, strict=True)
    return square, square**2 / sum(part**2 / freedom for part, freedom in squares)


def verdict(difference: Interval, margin: float = 0.0) -> Verdict:
    """Is the claim "greater" borne out, or "not smaller by more than `margin`"? The interval decides, or does not."""
    if difference.low > -margin:
        return "holds"
    return "does not hold" if difference.high < -margin else "not decided"
