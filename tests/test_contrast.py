"""The definition of L_contr: values by hand and by plain loops. All implementations must give them."""

import itertools
import math

import pytest
import torch
from test_streaming import FORMS, NEGATIVES, ONE_OF_EACH, each, images, using
from torch import Tensor

from prffn import PixelContrastLoss


@pytest.fixture(params=["reference", "streaming", "compiled"])
def contrast(request):
    return using(request.param)


def by_loops(sr: Tensor, hr: Tensor, region_size: int, *, form, negatives, similarity="", temperature=0.0, epsilon=0.0):
    """The definition, one anchor after the other, in plain Python numbers."""

    def distance(a, b, power=1):
        return sum(abs(p - q) ** power for p, q in zip(a, b, strict=True))

    def dot(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True))

    alike = {
        "l1": lambda a, b: -distance(a, b),
        "squared": lambda a, b: -distance(a, b, 2),
        "cosine": lambda a, b: dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)),
        "dot": dot,
    }
    side, (n, _, height, width), losses = math.isqrt(region_size), sr.shape, []
    for k, i, j in itertools.product(range(n), range(height), range(width)):
        x, y = sr[k, :, i, j].tolist(), hr[k, :, i, j].tolist()
        tops, lefts = range(i // side * side, height)[:side], range(j // side * side, width)[:side]
        others = [place for place in itertools.product(tops, lefts) if place != (i, j)]
        candidates = {"hr": (hr,), "sr": (sr,), "both": (hr, sr)}[negatives]
        pixels = [image[k, :, u, v].tolist() for image in candidates for u, v in others]
        if not pixels:
            continue
        if form == "ratio":
            losses.append(distance(x, y) / (sum(distance(x, p) for p in pixels) / len(pixels) + epsilon))
        else:
            scores = [alike[similarity](x, p) / temperature for p in [y, *pixels]]
            losses.append(-scores[0] + math.log(sum(math.exp(s) for s in scores)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("negatives", NEGATIVES)
@each(*ONE_OF_EACH)
def test_equals_plain_loops(contrast, definition, negatives):
    """Also for sizes that are no multiple of the region: the last regions hold the pixels that are left. Of 5 x 5
    pixels in regions of 4 x 4 the corner is alone: it has no negatives and is left out."""
    for shape, region_size in (((2, 3, 8, 8), 16), ((1, 3, 7, 9), 16), ((1, 1, 5, 4), 9), ((1, 3, 5, 5), 16)):
        sr, hr = images("random", *shape, dtype=torch.float64)
        expected = by_loops(sr, hr, region_size, negatives=negatives, **definition)
        found = contrast(sr, hr, region_size, negatives=negatives, **definition).item()
        assert found == pytest.approx(expected, rel=1e-11)


def two_by_two(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)


def test_infonce_by_hand(contrast):
    """One gray region 0, 0, 0, 1, SR = HR, L1, tau = 1. A dark anchor sees its positive and two equal negatives at
    distance 0 and one at 1: log(3 + 1/e) = 1.21428. The bright one sees 0 and three at 1: log(1 + 3/e) = 0.74367.
    Mean: (3 * 1.21428 + 0.74367) / 4 = 1.09663."""
    x = two_by_two(0, 0, 0, 1)
    loss = contrast(x, x, 4, form="infonce", similarity="l1", temperature=1.0)
    assert loss.item() == pytest.approx((3 * math.log(3 + 1 / math.e) + math.log(1 + 3 / math.e)) / 4, abs=1e-12)


def test_ratio_by_hand(contrast):
    """One gray region: SR 0.5, 0, 0, 1; HR 0, 0, 0, 1; eps = 0.1. Only the first anchor is off, by p = 0.5; its
    negatives in HR are at a mean of m = 0.5: 0.5 / (0.5 + 0.1) = 0.8333, a quarter of it in the mean. Its slope is
    d(p / (m + eps)) = 1 / 0.6 - 0.5 / 0.36 * (1 + 1 - 1) / 3, a quarter of it. The other anchors equal their positive:
    sign(0) = 0."""
    sr = two_by_two(0.5, 0, 0, 1).requires_grad_()
    loss = contrast(sr, two_by_two(0, 0, 0, 1), 4, form="ratio", epsilon=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 / 0.6 / 4, abs=1e-12)
    assert sr.grad.flatten().tolist() == pytest.approx([(1 / 0.6 - 0.5 / 0.36 / 3) / 4, 0, 0, 0], abs=1e-12)


@each(*FORMS)
def test_constant_regions_are_finite(contrast, definition):
    """All pixels equal: no distance anywhere. The ratio is 0 / eps, InfoNCE log S; no gradient is NaN."""
    x = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
    loss = contrast(x, x.detach(), 64, **definition)
    loss.backward()
    assert loss.item() == pytest.approx(0 if definition["form"] == "ratio" else math.log(64), abs=1e-12)
    assert x.grad.isfinite().all()


def test_the_module_is_the_function(contrast):
    sr, hr = images("random", 1, 3, 8, 8)
    settings = {"form": "infonce", "similarity": "cosine", "temperature": 0.2, "negatives": "both"}
    module = PixelContrastLoss(16, **settings, **contrast.keywords)
    assert module(sr, hr) == contrast(sr, hr, 16, **settings)
    assert "region_size=16" in repr(module)


def test_controls_by_hand():
    """Without negatives the squared error over tau, 3 MSE / tau. From elsewhere: of two 2 x 2 images, 0, 0, 0, 0 and
    1, 1, 1, 1, as SR and HR, each anchor sees its positive at distance 0 and three of the other image at 1:
    log(1 + 3/e) = 0.74367."""
    sr, hr = images("random", 2, 3, 9, 8, dtype=torch.float64)
    loss = PixelContrastLoss(16, negatives="none", temperature=0.01)(sr, hr)
    assert loss.item() == pytest.approx(3 * (sr - hr).square().mean().item() / 0.01)
    x = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert PixelContrastLoss(4, negatives="elsewhere", similarity="l1", temperature=1.0)(x, x).item() == pytest.approx(
        math.log(1 + 3 / math.e)
    )
    for wrong in ({"negatives": "none", "form": "ratio"}, {"negatives": "none", "implementation": "compiled"}):
        with pytest.raises(ValueError, match="negatives"):
            PixelContrastLoss(16, **wrong)(sr, hr)
