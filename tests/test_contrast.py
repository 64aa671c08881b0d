"""L_contr against values worked by hand, plain loops, and numerical gradients."""

import functools
import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

import prffn
from prffn import PixelContrastLoss, pixel_contrast
from prffn.losses.contrast import _l1_distances

FORMS = [
    *({"form": "infonce", "similarity": s, "temperature": 0.3} for s in ("l1", "squared", "cosine", "dot")),
    {"form": "ratio", "epsilon": 0.05},
]
NEGATIVES = ["hr", "sr", "both"]


@pytest.fixture(params=["reference", "streaming"], autouse=True)
def implementation(request, monkeypatch) -> str:
    """Every test here is of both implementations."""
    both = functools.partial(prffn.pixel_contrast, implementation=request.param)
    monkeypatch.setattr(sys.modules[__name__], "pixel_contrast", both)
    return request.param


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=g, dtype=torch.float64), torch.rand(*shape, generator=g, dtype=torch.float64)


def by_loops(
    sr: Tensor, hr: Tensor, region_size: int, *, form, negatives, similarity="l1", temperature=0.1, epsilon=0.01
):
    """The definition, one anchor after the other, in plain Python numbers."""
    side = math.isqrt(region_size)
    n, _, height, width = sr.shape

    def distance(a, b):
        return sum(abs(p - q) for p, q in zip(a, b, strict=True))

    def alike(a, b):
        if similarity == "l1":
            return -distance(a, b)
        if similarity == "squared":
            return -sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        return dot if similarity == "dot" else dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))

    losses = []
    for k, i, j in itertools.product(range(n), range(height), range(width)):
        x, y = sr[k, :, i, j].tolist(), hr[k, :, i, j].tolist()
        top, left = i // side * side, j // side * side
        others = [
            (u, v)
            for u in range(top, min(top + side, height))
            for v in range(left, min(left + side, width))
            if (u, v) != (i, j)
        ]
        if not others:
            continue
        pixels = []
        if negatives in ("hr", "both"):
            pixels += [hr[k, :, u, v].tolist() for u, v in others]
        if negatives in ("sr", "both"):
            pixels += [sr[k, :, u, v].tolist() for u, v in others]
        if form == "ratio":
            losses.append(distance(x, y) / (sum(distance(x, p) for p in pixels) / len(pixels) + epsilon))
        else:
            scores = [alike(x, p) / temperature for p in [y, *pixels]]
            losses.append(-scores[0] + math.log(sum(math.exp(s) for s in scores)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", FORMS, ids=lambda a: a.get("similarity", "ratio"))
@pytest.mark.parametrize(("shape", "region_size"), [((2, 3, 8, 8), 16), ((1, 3, 7, 9), 16), ((1, 1, 5, 4), 9)])
def test_equals_plain_loops(arguments, negatives, shape, region_size):
    """Also for sizes that are no multiple of the region: the last regions hold the pixels that are left."""
    sr, hr = images(*shape)
    expected = by_loops(sr, hr, region_size, negatives=negatives, **arguments)
    assert pixel_contrast(sr, hr, region_size, negatives=negatives, **arguments).item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", FORMS, ids=lambda a: a.get("similarity", "ratio"))
def test_gradient_in_float64(arguments, negatives):
    """Autograd against central differences, for SR and for HR, with regions cut short by the border."""
    sr, hr = (image.requires_grad_() for image in images(1, 3, 5, 6, seed=3))
    assert torch.autograd.gradcheck(lambda x, y: pixel_contrast(x, y, 16, negatives=negatives, **arguments), (sr, hr))


def two_by_two(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)


def test_infonce_by_hand():
    """One gray region 0, 0, 0, 1, SR = HR, L1, tau = 1. A dark anchor sees its positive and two equal negatives at
    distance 0 and one at 1: log(3 + 1/e) = 1.21428. The bright one sees 0 and three at 1: log(1 + 3/e) = 0.74367.
    Mean: (3 * 1.21428 + 0.74367) / 4 = 1.09663."""
    x = two_by_two([0, 0, 0, 1])
    loss = pixel_contrast(x, x, 4, form="infonce", similarity="l1", temperature=1.0)
    assert loss.item() == pytest.approx((3 * math.log(3 + 1 / math.e) + math.log(1 + 3 / math.e)) / 4, abs=1e-12)
    assert loss.item() == pytest.approx(1.09663, abs=1e-5)


def test_ratio_by_hand():
    """One gray region: SR 0.5, 0, 0, 1; HR 0, 0, 0, 1; eps = 0.1. Only the first anchor is off, by 0.5; its negatives
    in HR are at 0.5, 0.5, 0.5: 0.5 / (0.5 + 0.1) = 0.8333, a quarter of that in the mean: 0.20833."""
    loss = pixel_contrast(two_by_two([0.5, 0, 0, 1]), two_by_two([0, 0, 0, 1]), 4, form="ratio", epsilon=0.1)
    assert loss.item() == pytest.approx(0.5 / 0.6 / 4, abs=1e-12)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_ratio_is_smallest_for_the_perfect_image(negatives):
    """Its optimum is x = y, where it is 0: what Table 3's gain at lambda_c = 10 asks of the loss."""
    _, hr = images(1, 3, 8, 8)
    assert pixel_contrast(hr, hr, 16, form="ratio", negatives=negatives).item() == 0
    for seed in range(5):
        noise = images(1, 3, 8, 8, seed=seed)[0] - 0.5
        assert pixel_contrast(hr + 0.05 * noise, hr, 16, form="ratio", negatives=negatives).item() > 0


def test_the_region_bounds_what_an_anchor_sees():
    """A change in one 4 x 4 region moves no gradient in another."""
    sr, hr = images(1, 3, 8, 8)
    changed = hr.clone()
    changed[:, :, :4, :4] = 0
    grads = []
    for target in (hr, changed):
        x = sr.clone().requires_grad_()
        pixel_contrast(x, target, 16).backward()
        grads.append(x.grad)
    assert torch.equal(grads[0][:, :, 4:], grads[1][:, :, 4:])
    assert not torch.equal(grads[0][:, :, :4, :4], grads[1][:, :, :4, :4])


def test_constant_regions_are_finite():
    """All pixels equal: no distance anywhere. The ratio is 0 / eps, InfoNCE log S; no gradient is NaN."""
    for arguments in FORMS:
        x = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
        loss = pixel_contrast(x, x.detach(), 64, **arguments)
        loss.backward()
        expected = 0 if arguments["form"] == "ratio" else math.log(64)
        assert loss.item() == pytest.approx(expected, abs=1e-12)
        assert torch.isfinite(x.grad).all()


def test_a_pixel_alone_in_its_region_is_left_out():
    """5 x 5 pixels in regions of 4 x 4: the corner has no negatives. Whatever it is, the loss is the same."""
    sr, hr = images(1, 3, 5, 5)
    changed = sr.clone()
    changed[:, :, 4, 4] = 0
    assert pixel_contrast(sr, hr, 16) == pixel_contrast(changed, hr, 16)
    with pytest.raises(ValueError, match="no pixel"):
        pixel_contrast(sr[:, :, :1, :1], hr[:, :, :1, :1], 16)


def test_l1_distances_are_those_of_cdist():
    """The same distances and gradients, ties included."""
    x, y = (torch.randint(0, 4, (2, 9, 3), generator=torch.Generator().manual_seed(n)).double() for n in (0, 1))
    weights = images(1, 2, 9, 9)[0][0]
    results = []
    for distances in (_l1_distances, lambda a, b: torch.cdist(a, b, p=1)):
        anchors = x.clone().requires_grad_()
        found = distances(anchors, y)
        (found * weights).sum().backward()
        results.append((found, anchors.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    """Half precisions are computed in float32: the loss of the rounded images, to float32's accuracy."""
    sr, hr = (image.to(dtype) for image in images(1, 3, 8, 8))
    loss = pixel_contrast(sr, hr, 16)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pixel_contrast(sr.double(), hr.double(), 16).item(), rel=1e-5)


def test_autocast_does_not_round_the_loss():
    sr, hr = (image.float() for image in images(1, 3, 8, 8))
    expected = pixel_contrast(sr, hr, 16, form="infonce", similarity="cosine")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pixel_contrast(sr, hr, 16, form="infonce", similarity="cosine") == expected


def test_the_module_is_the_function(implementation):
    sr, hr = images(1, 3, 8, 8)
    settings = {"form": "infonce", "similarity": "cosine", "temperature": 0.2, "negatives": "both"}
    loss = PixelContrastLoss(16, **settings, implementation=implementation)
    expected = pixel_contrast(sr, hr, 16, **settings)
    assert loss(sr, hr) == expected
    assert "region_size=16" in repr(loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region_size": 60}, "square number such as 16, 64 or 256, got 60"),
        ({"region_size": 1}, "square number"),
        ({"region_size": 64.0}, "square number"),
        ({"form": "triplet"}, "form must be one of ratio, infonce, got 'triplet'"),
        ({"similarity": "l3"}, "similarity must be one of l1, squared, cosine, dot"),
        ({"negatives": "none"}, "negatives must be one of hr, sr, both"),
        ({"temperature": 0.0}, "temperature must be a positive number, got 0.0"),
        ({"epsilon": -1.0}, "epsilon must be a positive number"),
    ],
)
def test_bad_arguments(arguments, message):
    sr, hr = images(1, 3, 8, 8)
    with pytest.raises(ValueError, match=message):
        pixel_contrast(sr, hr, **arguments)
    with pytest.raises(ValueError, match=message):
        PixelContrastLoss(**arguments)


def test_shapes_that_differ():
    sr, hr = images(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) and \(1, 3, 8, 7\)"):
        pixel_contrast(sr, hr[..., :7])
