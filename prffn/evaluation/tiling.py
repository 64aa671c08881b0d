"""Upscaling of whole images, or of tiles with bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from prffn.data.degradation import ImageArray
from prffn.data.patches import to_image, to_tensor
from prffn.files import whole_number

MEMORY_FORMAT = torch.channels_last
"""Layout of the LR image, which all feature maps then have: the fastest for convolutions on a CPU, most of all dilated
ones. The network's own layout stays as it is; a convolution brings its weights along."""

HALO = 16  # LR pixels around a tile that the network sees too


class NonFiniteOutput(ValueError):
    """A network gave a value that is infinite or not a number."""


Tile = tuple[slice, slice, ImageArray]  # rows and columns in the SR image, and the pixels there, (h, w, 3) uint8


def upscale(
    model: nn.Module,
    image: ImageArray,
    *,
    scale: int,
    device: torch.device | str = "cpu",
    tile: int | None = None,
    halo: int = HALO,
) -> ImageArray:
    """SR image of an LR image: (h, w, 3) uint8 -> (h * scale, w * scale, 3) uint8.

    tile: None for the whole image at once, or the side of a tile in LR pixels: memory then depends on the tile, not
        on the image. halo: LR pixels around a tile that the network sees and that are cut off again.
    A tiled result equals the whole image's where the network looks no further than the halo. Channel attention looks
    at the whole input: with it the two differ slightly (PRFFN, RCAN; the default halo keeps seams invisible).
    Raises ValueError for another image, tile or halo, or an output of another size than `scale` says; NonFiniteOutput.
    """
    output = np.empty((*(side * scale for side in image.shape[:2]), 3), np.uint8)
    for rows, columns, sr in upscale_tiles(model, image, scale, device, tile, halo):
        output[rows, columns] = sr
    return output


def upscale_tiles(
    model: nn.Module, image: ImageArray, scale: int, device: torch.device | str, tile: int | None, halo: int = HALO
) -> Iterator[Tile]:
    """As `upscale`, one tile after the other, row by row: the SR image is never in memory as a whole."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(f"expected an RGB image (h, w, 3) of uint8, not empty, got {image.shape} {image.dtype}")
    if tile is not None:
        whole_number("tile", tile, 1)
    whole_number("halo", halo, 0)
    height, width, _ = image.shape
    was_training = model.training
    model.to(device).eval()
    try:
        with torch.inference_mode():
            for top in range(0, height, tile or height):
                for left in range(0, width, tile or width):
                    bottom, right = min(top + (tile or height), height), min(left + (tile or width), width)
                    seen_top, seen_left = max(0, top - halo), max(0, left - halo)
                    seen = image[None, seen_top : bottom + halo, seen_left : right + halo]
                    lr = to_tensor(seen).to(device)
                    sr = model(lr.contiguous(memory_format=MEMORY_FORMAT))[0]
                    if sr.shape[1:] != (lr.shape[2] * scale, lr.shape[3] * scale):
                        raise ValueError(f"the network made {tuple(sr.shape)} of {tuple(lr.shape[1:])}: not x{scale}")
                    if not sr.isfinite().all():
                        pixels = f"LR rows {top} to {bottom} and columns {left} to {right}"
                        raise NonFiniteOutput(f"the network gave values that are infinite or not numbers in {pixels}")
                    rows = slice((top - seen_top) * scale, (bottom - seen_top) * scale)
                    columns = slice((left - seen_left) * scale, (right - seen_left) * scale)
                    place = slice(top * scale, bottom * scale), slice(left * scale, right * scale)
                    yield *place, to_image(sr[:, rows, columns])
    finally:
        model.train(was_training)


def in_bands(tiles: Iterable[Tile], width: int) -> Iterator[ImageArray]:
    """Tiles put together to bands as high as a tile, from the top down: (h, width, 3) uint8. width: the SR image's."""
    for rows, columns, sr in tiles:
        if columns.start == 0:
            band = np.empty((rows.stop - rows.start, width, 3), np.uint8)
        band[:, columns] = sr
        if columns.stop == width:
            yield band
