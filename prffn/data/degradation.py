"""HR -> LR: MATLAB's bicubic `imresize`, the degradation of the field's benchmarks, in exact arithmetic.

At an integer scale every weight of the bicubic kernel (Keys 1981, a = -0.5) is a rational number with one common
denominator, so each pass is a sum of integers and one rounding. Nothing depends on the order of summation, the
library or the machine, and exact halves round up, as MATLAB's uint8 conversion does. The result equals the LR files
distributed by RCAN's authors (made by MATLAB) bit for bit.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]  # an image: (H, W, 3) or (H, W), uint8, 0 to 255
Taps = tuple[tuple[int, int], ...]  # pairs (offset from the first input pixel of an output pixel, integer weight)


def keys_cubic(x: Fraction) -> Fraction:
    """Cubic convolution kernel of Keys (1981, Eq. 4) with a = -1/2, exactly."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x < 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def _check_scale(scale: int) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | np.integer) or not 1 <= scale <= 16:
        raise ValueError(f"scale must be a whole number from 1 to 16 (the paper uses 2, 3 and 4), got {scale!r}")


def _check_image(image: ImageArray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"expected a uint8 array, got {kind}: (255 * image).round().astype('uint8') of one in [0, 1]")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"expected an image of shape (H, W, 3) or (H, W), not empty, got shape {image.shape}")


def _integer_weights(weights: dict[int, Fraction]) -> tuple[Taps, int]:
    total = sum(weights.values())  # MATLAB normalises; at an integer scale the sum is 1 already
    weights = {k: w / total for k, w in weights.items() if w}
    denominator = math.lcm(*(w.denominator for w in weights.values()))
    return tuple((k, int(w * denominator)) for k, w in weights.items()), denominator


@lru_cache
def downscale_taps(scale: int) -> tuple[Taps, int]:
    """Taps of the antialiased downscaling: the kernel is widened by `scale`. Returns (taps, common denominator)."""
    centre = Fraction(scale - 1, 2)
    reach = range(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
    return _integer_weights({k: keys_cubic((k - centre) / scale) for k in reach})


@lru_cache
def upscale_taps(scale: int, phase: int) -> tuple[Taps, int]:
    """Taps of output pixel `scale * i + phase`, relative to input pixel i. Returns (taps, common denominator)."""
    centre = (phase + Fraction(1, 2)) / scale - Fraction(1, 2)
    reach = range(math.floor(centre) - 1, math.floor(centre) + 3)
    return _integer_weights({k: keys_cubic(k - centre) for k in reach})


def _filter_rows(rows: ImageArray, taps: Taps, denominator: int, stride: int) -> ImageArray:
    """One pass down the rows of (H, ...): output row i is the weighted sum of the rows stride * i + offset, rounded.

    The border row is repeated: a mirrored border does not give the benchmark's files.
    """
    first = stride * np.arange(len(rows) // stride)
    total = np.full((len(first), *rows.shape[1:]), denominator, np.int32)  # up to scale 16 far below 2^31
    for offset, weight in taps:
        values = rows[(first + offset).clip(0, len(rows) - 1)]
        total += np.multiply(values, 2 * weight, dtype=np.int32)  # NumPy 1 would multiply in uint8, and overflow
    return (total // (2 * denominator)).clip(0, 255).astype(np.uint8)  # floor(sum / denominator + 1/2)


def _transposed(image: ImageArray) -> ImageArray:
    return np.ascontiguousarray(image.swapaxes(0, 1))


def mod_crop(image: ImageArray, scale: int) -> ImageArray:
    """Crops (H, W, ...) at the bottom and right to a multiple of `scale`, the benchmarks' convention. A view.

    Raises ValueError if the image is smaller than one LR pixel.
    """
    _check_scale(scale)
    height, width = (n - n % scale for n in image.shape[:2])
    if not height or not width:
        raise ValueError(f"image of {image.shape[1]} x {image.shape[0]} pixels is smaller than one pixel at x{scale}")
    return image[:height, :width]


def downscale(image: ImageArray, scale: int) -> ImageArray:
    """LR image as MATLAB's `imresize(image, 1/scale, 'bicubic')` makes it: (H, W, 3) -> (H/scale, W/scale, 3), uint8.

    Antialiased, border clamped, rows first, rounded to uint8 after each pass. The image is mod-cropped first.
    Raises TypeError unless uint8, ValueError for a shape or scale that cannot be used.
    """
    _check_image(image)
    image = mod_crop(image, scale)
    for _ in range(2):  # rows, then columns as rows of the transposed image
        image = _transposed(_filter_rows(image, *downscale_taps(scale), stride=scale))
    return image


def upscale_bicubic(image: ImageArray, scale: int) -> ImageArray:
    """Bicubic upscaling, the benchmarks' baseline: (h, w, 3) -> (h * scale, w * scale, 3), uint8.

    Same kernel, border and rounding as `downscale`; all channels of RGB are upscaled (EDSR's and RCAN's convention).
    """
    _check_image(image)
    _check_scale(scale)
    for _ in range(2):
        phases = [_filter_rows(image, *upscale_taps(scale, phase), stride=1) for phase in range(scale)]
        image = _transposed(np.stack(phases, axis=1).reshape(-1, *image.shape[1:]))
    return image
