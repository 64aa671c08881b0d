"""Drawings for training: flat colours, and hard edges between saturated ones (our choice: photographs have few).

Two sets: "drawn", of any colours, and "lettering", of saturated ones alone, all with hard edges. Drawn with whole
numbers alone and a bitmap font, so that every machine draws the same pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from string import ascii_letters, digits

import numpy as np
from numpy.random import RandomState  # its stream is frozen, that of default_rng is not
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from prffn.data.degradation import ImageArray

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]
"""(SIDE, SIDE)."""

SIDE = 384
"""HR pixels on a side: two patches of 48 LR pixels at x4."""

SHAPES = 64
"""In a scene."""

DRAWN_SETS = ("drawn", "lettering")
"""Image sets that need no download. Beside BSD200, "drawn" is a sixth of the patches, "lettering" a quarter."""

_Y, _X = np.arange(SIDE, dtype=np.int64)[:, None], np.arange(SIDE, dtype=np.int64)


def drawings(of_set: str) -> Iterator[tuple[str, ImageArray]]:
    """Yield each image, (SIDE, SIDE, 3) uint8, with its name: the corners of the RGB cube, each alone, then scenes.

    Those called hard are to be sampled for LR, see `image_set`. Bicubic reduction softens every edge, and a network
    that has seen no other overshoots a hard one nearly as far as without drawings (measured).
    """
    for corner in product((0, 255), repeat=3):
        yield "flat_{:03}_{:03}_{:03}".format(*corner), np.full((SIDE, SIDE, 3), corner, np.uint8)
    if of_set == "lettering":
        for number in range(64):
            yield f"hard_{number}", scene(RandomState(number), saturated, (rectangle, triangle, disc, line, letters))
        return
    for number, (kind, n) in enumerate(product(("hard", "soft"), range(16))):
        yield f"{kind}_{n}", scene(RandomState(number), any_colour, (triangle, disc, line, letters))


def scene(
    random: RandomState, colour: Callable[[RandomState], Whole], shapes: Sequence[Callable[[RandomState], Mask]]
) -> ImageArray:
    """Shapes over each other, each of one colour."""
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = colour(random)
    for _ in range(SHAPES):
        shape = shapes[int(_whole(random, 0, len(shapes)))]
        image[shape(random)] = colour(random)
    return image


def any_colour(random: RandomState) -> Whole:
    """Return a corner of the RGB cube, or as often any colour: (3,), 0 to 255."""
    return 255 * _whole(random, 0, 2, 3) if _whole(random, 0, 2) else _whole(random, 0, 256, 3)


def saturated(random: RandomState) -> Whole:
    """Return a colour near a corner of the RGB cube: (3,), each 0 to 59 or 196 to 255."""
    high, inwards = _whole(random, 0, 2, 3), _whole(random, 0, 60, 3)
    return np.where(high, 255 - inwards, inwards)


def rectangle(random: RandomState) -> Mask:
    """Return where an upright rectangle lies, as all shapes do."""
    mask = np.zeros((SIDE, SIDE), bool)
    (top, left), (height, width) = _whole(random, 0, SIDE, 2), _whole(random, 4, 120, 2)
    mask[top : top + height, left : left + width] = True
    return mask


def triangle(random: RandomState) -> Mask:
    """Return where a triangle lies."""
    corners = _whole(random, 0, SIDE, 2) + _whole(random, -80, 80, (3, 2))
    sides = [_side(a, b) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    return np.logical_and.reduce([s >= 0 for s in sides]) | np.logical_and.reduce([s <= 0 for s in sides])


def disc(random: RandomState) -> Mask:
    """Return where a disc lies."""
    y, x = _whole(random, 0, SIDE, 2)
    return (_Y - y) ** 2 + (_X - x) ** 2 <= _whole(random, 3, 50) ** 2


def line(random: RandomState) -> Mask:
    """Return where a line lies, 1 to 12 pixels wide, with straight ends."""
    start = _whole(random, 0, SIDE, 2)
    way = _whole(random, 1, 120, 2) * (2 * _whole(random, 0, 2, 2) - 1)
    along = (_Y - start[0]) * way[0] + (_X - start[1]) * way[1]
    length, width = (way**2).sum(), _whole(random, 1, 13)  # the length is squared
    return (4 * _side(start, start + way) ** 2 <= width**2 * length) & (along >= 0) & (along <= length)


def letters(random: RandomState) -> Mask:
    """Return where four letters or digits lie, each dot of the font 1 to 9 pixels wide."""
    text = "".join((ascii_letters + digits)[n] for n in _whole(random, 0, 62, 4))
    page = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(page).text((0, 0), text, 1, font=ImageFont.load_default_imagefont())
    dot = int(_whole(random, 1, 10))
    large = np.asarray(page).repeat(dot, 0).repeat(dot, 1)[:SIDE, :SIDE]
    return np.roll(large, tuple(_whole(random, 0, SIDE, 2)), (0, 1))


def _side(a: Whole, b: Whole) -> Whole:
    """Return the cross product of the way from a to b and that to each pixel: its sign is the side of the line."""
    return (b[0] - a[0]) * (_X - a[1]) - (b[1] - a[1]) * (_Y - a[0])


def _whole(random: RandomState, low: int, high: int, size: int | tuple[int, ...] = ()) -> Whole:
    """Return whole numbers from low to high - 1."""
    return np.floor(low + random.random_sample(size) * (high - low)).astype(np.int64)
