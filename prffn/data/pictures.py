"""An image by name, and the region of it that a figure shows."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from prffn.data.degradation import ImageArray, mod_crop
from prffn.data.images import EMBEDDED_SETS, IMAGE_SUFFIXES, KNOWN_SETS, how_to_get, list_images, read_image
from prffn.files import data_root, unknown, user_path, whole_number

EMBEDDED = {
    Path(file).stem: file
    for file in (*sum(EMBEDDED_SETS.values(), ()), "camera.png", "coins.png", "motorcycle_right.png", "page.png")
}
"""Photographs inside the scikit-image wheel, by name; they need no download."""

Region = tuple[int, int, int, int]  # top, left, height and width in HR pixels


@dataclass(frozen=True)
class Picture:
    """An HR image and the region of it that is shown."""

    name: str
    scale: int
    region: Region
    hr: ImageArray  # (H, W, 3) uint8, cropped to a multiple of the scale
    checksum: str  # of all pixels, before that crop

    def crop(self, image: ImageArray) -> ImageArray:
        """The region of the HR image or of an SR image, (H, W, 3) -> (height, width, 3)."""
        top, left, height, width = self.region
        return image[top : top + height, left : left + width]


def picture(image: str, region: Sequence[int] | str, scale: int) -> Picture:
    """Return an image and the region of it to show.

    image: one of EMBEDDED, an image of a set such as "Urban100/img_012", or the path of a file. region: top, left,
        height, width in HR pixels, as four numbers or as a text, "120, 300, 64, 64".
    Raises ValueError for an unknown name or a region outside the image, FileNotFoundError for a missing set.
    """
    name, path = find_image(image)
    whole = read_image(path)
    hr = mod_crop(whole, scale)
    return Picture(name, whole_number("scale", scale), check_region(region, hr, scale), hr, pixels_sha256(whole))


def pixels_sha256(image: ImageArray) -> str:
    """Return the checksum of an image's size and pixels; it does not depend on the file format."""
    return hashlib.sha256(f"{image.shape}\n".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def find_image(image: str) -> tuple[str, Path]:
    """Return an image's name in records, which holds no path, and its file. Raises as `picture` does."""
    if image in EMBEDDED:
        return image, Path(str(resources.files("skimage") / "data" / EMBEDDED[image]))
    path = user_path(image)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return path.stem, path
    name, _, stem = image.partition("/")
    if name not in KNOWN_SETS or not stem:
        choices = unknown("image", image, EMBEDDED)
        raise ValueError(f"{choices}, an image of a set such as 'Urban100/img_012', or the path of an image file")
    folder = data_root() / KNOWN_SETS[name].folder
    if not folder.is_dir():
        raise FileNotFoundError(how_to_get(name, folder))
    files = {_plain(file.stem): file for file in list_images(folder)}
    if _plain(stem) not in files:
        raise ValueError(unknown(f"image of {name}", stem, [file.stem for file in files.values()]))
    return image, files[_plain(stem)]


def _plain(stem: str) -> str:
    """A file's stem in the one spelling of all archives: img_012 -> img012."""
    return re.sub(r"[^a-z0-9]", "", stem.lower())


def check_region(region: Sequence[int] | str, hr: ImageArray, scale: int) -> Region:
    """Return the region as a tuple, checked.

    It must hold SSIM's window of 11 x 11 pixels, and keep `scale` pixels from each border: the metrics crop those.
    Raises ValueError with the values and the bounds.
    """
    try:
        values = [int(n) for n in region.split(",")] if isinstance(region, str) else list(region)
        top, left, height, width = values = [whole_number("each", value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"region must be top, left, height, width in whole HR pixels, got {region!r}") from None
    if min(height, width) < 11:
        raise ValueError(f"region {values} is {height} pixels high and {width} wide: SSIM needs at least 11 x 11")
    bottom, right = (size - scale for size in hr.shape[:2])
    if top < scale or left < scale or top + height > bottom or left + width > right:
        within = f"rows {scale} to {bottom} and columns {scale} to {right}"
        raise ValueError(f"region {values} must lie within {within} of this image at x{scale}")
    return top, left, height, width
