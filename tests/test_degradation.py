"""Bicubic scaling: down against MATLAB's files and the definition in exact fractions, up against Pillow."""

from fractions import Fraction

import numpy as np
import pytest
from conftest import load
from PIL import Image

from prffn.data.degradation import downscale, mod_crop, upscale_bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_equals_matlab_bit_for_bit(shared_data, name, scale):
    """The LR files that RCAN's authors distribute were made by MATLAB's imresize."""
    hr = load(shared_data / "Set5" / f"{name}.png")
    matlab = load(shared_data / "fixtures" / "RCAN_Set5_LRBI" / f"x{scale}" / f"{name}_LRBI_x{scale}.png")
    assert np.array_equal(downscale(hr, scale), matlab)


def by_definition(values: list[int], scale: int) -> list[int]:
    """One row downscaled as MATLAB documents it, pixel by pixel in exact fractions: the kernel widened by the scale
    around the centre of each output pixel, weights divided by their sum, indices clamped, halves rounded up."""

    def kernel(x: Fraction) -> Fraction:
        x = abs(x)
        if x <= 1:
            return (3 * x**3 - 5 * x**2 + 2) / 2
        return (-(x**3) + 5 * x**2 - 8 * x + 4) / 2 if x <= 2 else Fraction(0)

    result = []
    for out in range(len(values) // scale):
        centre = Fraction(2 * out + 1, 2) * scale - Fraction(1, 2)
        near = range(int(centre) - 2 * scale - 2, int(centre) + 2 * scale + 3)
        weights = {i: kernel((i - centre) / scale) for i in near}
        total = sum(weights.values())
        exact = sum(w * values[min(max(i, 0), len(values) - 1)] for i, w in weights.items()) / total
        result.append(min(max((exact + Fraction(1, 2)).__floor__(), 0), 255))
    return result


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
def test_equals_the_definition_in_fractions(scale):
    """Both passes of a random image, extreme values included, against the slow exact definition."""
    rng = np.random.default_rng(scale)
    hr = rng.choice([0, 1, 127, 128, 254, 255, 30, 77], size=(4 * scale, 5 * scale, 3)).astype(np.uint8)
    rows_done = np.array([by_definition(column.tolist(), scale) for column in hr.reshape(4 * scale, -1).T]).T
    rows_done = rows_done.reshape(4, 5 * scale, 3)
    both = np.array([[by_definition(rows_done[y, :, c].tolist(), scale) for c in range(3)] for y in range(4)])
    assert np.array_equal(downscale(hr, scale), both.transpose(0, 2, 1))


def test_worked_by_hand_x2():
    """x2 weighs (-3, -9, 29, 111, 111, 29, -9, -3) / 256. A step 0, 0, 0, 0 | 100, 100, 100, 100 in columns:
    pixel 1 (columns 2, 3) sees 100 at +1.5 and beyond: (29 - 9 - 3) * 100 / 256 = 6.64, so 7; pixel 2 mirrors it:
    100 - 6.64 = 93.36, so 93; pixels 0 and 3 see the step only in the last tap: (-3) * 100 / 256 = -1.17, clipped to
    0, and 101.17, so 101."""
    step = np.tile(np.array([0, 0, 0, 0, 100, 100, 100, 100], np.uint8), (4, 1))
    assert downscale(step, 2).tolist() == [[0, 7, 93, 101]] * 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscaling_agrees_with_pillow_inside(photo, scale):
    """Pillow's BICUBIC is the same kernel in other arithmetic. It takes columns first, as ours does on the transposed
    image, and treats the border differently: away from it the two are equal but for single levels."""
    image = photo[:60, :80]
    ours = upscale_bicubic(np.ascontiguousarray(image.swapaxes(0, 1)), scale).swapaxes(0, 1).astype(int)
    pillow = np.asarray(Image.fromarray(image).resize(ours.shape[1::-1], Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(ours - pillow)[4 * scale : -4 * scale, 4 * scale : -4 * scale]
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


def test_sizes_that_are_no_multiple_of_the_scale(photo):
    assert mod_crop(photo, 4).shape == (300, 448, 3)
    assert downscale(photo, 4).shape == (75, 112, 3)


@pytest.mark.parametrize(
    ("image", "scale", "error", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), 3, TypeError, "uint8.*got float32"),
        (np.zeros((9, 9, 3), bool), 3, TypeError, "uint8.*got bool"),
        (np.zeros((2, 9, 3), np.uint8), 3, ValueError, "9 x 2 pixels is smaller than one pixel at x3"),
        (np.zeros((0, 9, 3), np.uint8), 3, ValueError, "not empty"),
    ],
)
def test_bad_input(image, scale, error, message):
    """Scales that are none: test_inputs_images.py."""
    with pytest.raises(error, match=message):
        downscale(image, scale)
