"""What the networks of the package make of flat colours, of hard edges and of photographs."""

import json
from itertools import permutations, product

import numpy as np
import pytest
import torch
from conftest import CHECKOUT
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from prffn.data.degradation import ImageArray, upscale_bicubic
from prffn.data.patches import to_tensor
from prffn.models.pretrained import SCALES, pretrained, pretrained_path, settings_of_file

FLAT = [*product((0, 255), repeat=3), (200, 40, 30), (10, 200, 60), (120, 120, 120), (250, 128, 0)]
"""Colours: the corners of the RGB cube, and some inside."""

COLOURS = [(250, 40, 40), (40, 250, 40), (40, 40, 250), (225, 225, 30), (30, 30, 30), (225, 225, 225), (30, 30, 200)]
"""Colours between which the edges are; none ends where uint8 does, which would hide what overshoots."""


def flat_images() -> ImageArray:
    """Images of a single colour each, (N, 24, 20, 3) uint8."""
    return np.broadcast_to(np.array(FLAT, np.uint8)[:, None, None], (len(FLAT), 24, 20, 3))


def masks() -> dict[str, np.ndarray]:
    """Drawings with hard edges, by name: (40, 56, 1) bool."""
    text, square = Image.new("1", (28, 20)), Image.new("1", (56, 40))
    ImageDraw.Draw(text).text((1, 0), "Logo", 1, font=ImageFont.load_default_imagefont())
    ImageDraw.Draw(square).rectangle((16, 12, 37, 27), fill=1)
    logo = text.resize((56, 40), Image.Resampling.NEAREST)
    ImageDraw.Draw(logo).rectangle((4, 24, 16, 35), fill=1)
    ImageDraw.Draw(logo).polygon(((22, 35), (29, 25), (37, 34)), fill=1)
    return {name: np.asarray(image)[..., None] for name, image in {"square": square, "logo": logo}.items()}


def inked(mask: np.ndarray) -> ImageArray:
    """A drawing in one colour on another, in all pairs of COLOURS: (N, H, W, 3) uint8."""
    return np.array([np.where(mask, ink, paper) for ink, paper in permutations(COLOURS, 2)], np.uint8)


def farthest_off(sr: ImageArray, lr: ImageArray) -> int:
    """How many levels SR images lie outside the values of their LR images, channel by channel, at most."""
    low, high = (extreme(lr, axis=(1, 2), keepdims=True).astype(int) for extreme in (np.min, np.max))
    return int(max((sr - high).max(), (low - sr).max()))


def upscaled(model: nn.Module, lr: ImageArray) -> ImageArray:
    """SR images of LR images of one size, (N, h, w, 3) uint8 both."""
    with torch.inference_mode():
        sr = model(to_tensor(lr).contiguous()).clamp(0, 1).mul(255).round().byte()
    return sr.permute(0, 2, 3, 1).numpy()


def test_how_far_off_by_hand():
    """Of values from 10 to 20, 5 is 5 levels off and 28 is 8; 12 is not."""
    lr = np.array([10, 20], np.uint8).reshape(1, 1, 2, 1)
    sr = np.array([[5, 12], [20, 10]], np.uint8).reshape(1, 2, 2, 1)
    assert farthest_off(sr, lr) == 5
    assert farthest_off(np.array([12, 28], np.uint8).reshape(1, 1, 2, 1), lr) == 8


@pytest.mark.parametrize("scale", SCALES)
def test_flat_colours_stay_flat_to_the_border(scale):
    lr = flat_images()
    assert farthest_off(upscaled(pretrained(scale), lr), lr) <= 2


FIRST = {2: {"square": 61, "logo": 79}, 3: {"square": 73, "logo": 138}, 4: {"square": 84, "logo": 101}}
"""By how many levels the first networks of the package overshot, trained on photographs alone."""


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("drawing", ["square", "logo"])
def test_hard_edges_overshoot_half_as_far_as_they_did(scale, drawing):
    lr = inked(masks()[drawing])
    assert farthest_off(upscaled(pretrained(scale), lr), lr) <= FIRST[scale][drawing] / 2


def test_bicubic_interpolation_overshoots_too():
    """By up to 33 and 40 levels: these edges are hard for a linear method too."""
    for drawing, most in (("square", 33), ("logo", 40)):
        lr = inked(masks()[drawing])
        found = {scale: np.stack([upscale_bicubic(image, scale) for image in lr]) for scale in SCALES}
        assert most - 5 <= max(farthest_off(sr, lr) for sr in found.values()) <= most


@pytest.mark.parametrize(("scale", "b100"), [(2, 31.60), (3, 28.63), (4, 27.13)])
def test_photographs_are_upscaled_as_well_as_by_the_first_networks(scale, b100):
    """Within 0.02 dB of PSNR-Y; those were trained with zeros for padding, and without drawn images."""
    said = settings_of_file(pretrained_path(scale))
    (path,) = (CHECKOUT / "reports").glob(f"*/runs/{said['record']}.json")
    evaluation = json.loads(path.read_text())["evaluation"]
    assert np.mean(evaluation["B100"]["psnr_y"]) > b100 - 0.02
