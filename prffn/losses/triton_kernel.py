"""L_contr as a Triton kernel: what triton_loss.py runs. To be imported only where Triton is installed.

The formulas of streaming.py, with the positive's score and slope subtracted from each candidate's before anything is
summed: what cancels then cancels between two pixels, in float32, and no score needs float64. For the squared distance

    |x - y|^2 - |x - c|^2 = (c - y) ((x - y) + (x - c)),  with slope 2 (c - y) in x

"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e38)  # below all scores; finite, as infinities have no difference


@triton.jit
def contrast(
    sr, hr, grad_sr, losses,  # losses: float64, one for each program
    height, width, side,
    sr_n, sr_c, sr_h, sr_w,  # strides, in elements
    hr_n, hr_c, hr_h, hr_w,
    grad_n, grad_c, grad_h, grad_w,
    sharpness, scale,  # 1 / tau; of the gradient
    FORM: tl.constexpr, WITH_GRADIENT: tl.constexpr, ANCHORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program takes ANCHORS pixels of one region, with ROWS x COLUMNS candidates at a time. Programs of one region
    are neighbours, and find its pixels in the cache.

    Writes the sum of the anchors' losses, and their gradients. Both must be 0 before: a region cut short leaves some
    programs without anchors, and a pixel alone in its region has no loss.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(side * side, ANCHORS)
    across, down = tl.cdiv(width, side), tl.cdiv(height, side)
    region = program // blocks
    top, left = (region // across % down) * side, (region % across) * side
    image = (region // across // down).to(tl.int64)
    region_height, region_width = tl.minimum(side, height - top), tl.minimum(side, width - left)
    size = region_height * region_width
    first = program % blocks * ANCHORS
    if (first >= size) | (size == 1):
        return

    anchor = first + tl.arange(0, ANCHORS)
    there = anchor < size
    row, column = top + anchor // region_width, left + anchor % region_width
    x0, x1, x2 = _pixels(sr + image * sr_n + row * sr_h + column * sr_w, sr_c, there)
    y0, y1, y2 = _pixels(hr + image * hr_n + row * hr_h + column * hr_w, hr_c, there)

    largest = tl.full((ANCHORS,), NOTHING, tl.float32)
    total = tl.zeros((ANCHORS,), tl.float32)
    slope0 = tl.zeros((ANCHORS,), tl.float32)
    slope1 = tl.zeros((ANCHORS,), tl.float32)
    slope2 = tl.zeros((ANCHORS,), tl.float32)
    tile = tl.arange(0, ROWS * COLUMNS)
    for top_c in range(0, region_height, ROWS):  # rows and columns: dividing each candidate's number would cost
        for left_c in range(0, region_width, COLUMNS):
            row_c, column_c = top_c + tile // COLUMNS, left_c + tile % COLUMNS
            inside = (row_c < region_height) & (column_c < region_width)
            at = hr + image * hr_n + (top + row_c) * hr_h + (left + column_c) * hr_w
            c0, c1, c2 = _pixels(at, hr_c, inside)
            gain0, steeper0 = _beside_positive(x0[None, :], y0[None, :], c0[:, None], FORM)  # (candidates, ANCHORS)
            gain1, steeper1 = _beside_positive(x1[None, :], y1[None, :], c1[:, None], FORM)
            gain2, steeper2 = _beside_positive(x2[None, :], y2[None, :], c2[:, None], FORM)
            candidate = row_c * region_width + column_c
            negative = inside[:, None] & (candidate[:, None] != anchor[None, :])
            score = tl.where(negative, (gain0 + gain1 + gain2) * sharpness, -float("inf"))
            higher = tl.maximum(largest, tl.max(score, axis=0))
            weight = tl.exp(score - higher[None, :])
            shrink = tl.exp(largest - higher)
            total = total * shrink + tl.sum(weight, axis=0)
            if WITH_GRADIENT:
                slope0 = slope0 * shrink + tl.sum(weight * steeper0, axis=0)
                slope1 = slope1 * shrink + tl.sum(weight * steeper1, axis=0)
                slope2 = slope2 * shrink + tl.sum(weight * steeper2, axis=0)
            largest = higher

    z = largest.to(tl.float64) + tl.log(total.to(tl.float64))  # float64 once for each anchor, not for each pair
    small = tl.exp(-tl.abs(z))
    loss = tl.maximum(z, 0.0) + tl.where(small < 1e-8, small, tl.log(1 + small))  # softplus
    loss = tl.where(total > 0, loss, float("nan"))  # the largest weight is 1, unless a pixel is no number
    tl.store(losses + program, tl.sum(tl.where(there, loss, 0.0), axis=0))
    if WITH_GRADIENT:
        pushed = (tl.where(z < 0, small, 1.0) / (1 + small)).to(tl.float32) * scale / total  # sigmoid(z)
        out = grad_sr + image * grad_n + row * grad_h + column * grad_w
        tl.store(out, pushed * slope0, mask=there)
        tl.store(out + grad_c, pushed * slope1, mask=there)
        tl.store(out + 2 * grad_c, pushed * slope2, mask=there)


@triton.jit
def _pixels(red, channel, there):
    """The three channels of some pixels, 0 where there is none. channel: from one to the next, in elements."""
    return (
        tl.load(red, mask=there, other=0.0),
        tl.load(red + channel, mask=there, other=0.0),
        tl.load(red + 2 * channel, mask=there, other=0.0),
    )


@triton.jit
def _beside_positive(x, y, c, FORM: tl.constexpr):
    """One channel's part of s(x, c) - s(x, y), and its slope in x, for the squared distance half of it."""
    if FORM == "l1":
        gain = tl.abs(x - y) - tl.abs(x - c)
        slope = _sign(x - y) - _sign(x - c)
    elif FORM == "squared":
        slope = c - y
        gain = slope * ((x - y) + (x - c))
    else:  # dot
        slope = c - y
        gain = slope * x
    return gain, slope


@triton.jit
def _sign(d):
    return (d > 0).to(tl.float32) - (d < 0).to(tl.float32)
