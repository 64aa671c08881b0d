"""Paired comparison over seeds, and the verdict that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
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


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Interval of the mean of a - b, paired by seed: both runs of a seed share first weights and patches.

    Raises ValueError if the lengths differ or are zero.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired values must be as many as each other and at least one, got {len(a)} and {len(b)}")
    differences = np.asarray(a, float) - np.asarray(b, float)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def verdict_greater(difference: Interval) -> Verdict:
    """Is the claim "greater" borne out? The interval decides: above zero, below zero, or neither."""
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high < 0 else "not decided"


def verdict_not_smaller(difference: Interval, margin: float) -> Verdict:
    """Is the claim "greater or equal" borne out? Equal means: not smaller by more than `margin`."""
    if difference.low > -margin:
        return "holds"
    return "does not hold" if difference.high < -margin else "not decided"
