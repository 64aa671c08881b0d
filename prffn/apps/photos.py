"""Photographs in files: their pixels, their transparency and their metadata, read whole and written band by band."""

import struct
import sys
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION
from scipy.ndimage import distance_transform_edt

from prffn.apps.png import chunks_before_pixels, write_png
from prffn.data.degradation import ImageArray
from prffn.data.images import IMAGE_SUFFIXES, TURNS, UNREADABLE, check_png, open_image, raise_if_of_system

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".tif": {"format": "TIFF"},  # uncompressed: libtiff, which compresses, does not take EXIF data from Pillow
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},  # exact: the colours under full transparency too
}
"""What can be written: by suffix, the options that Pillow is given."""

DEEP = ("I;16", "I;16B", "I;16L")  # Pillow's modes of 16 bits of gray
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", *DEEP)
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
"""Chunks of a PNG file that say which colours its numbers mean, besides an ICC profile."""

NOT_KEPT = {"xmp": "XMP data", "photoshop": "IPTC data", "comment": "the comment"}
"""Metadata that the SR image does not keep, by Pillow's name."""

DESCRIPTIVE_TAGS = (
    Base.ImageDescription, Base.Make, Base.Model, Base.XResolution, Base.YResolution, Base.ResolutionUnit,
    Base.Software, Base.DateTime, Base.Artist, Base.Copyright,
)  # fmt: skip
"""Tags of a TIFF file that describe the photograph; the others describe how the file is laid out."""


@dataclass(frozen=True)
class Photo:
    """A photograph, set upright, with its metadata."""

    rgb: ImageArray  # (h, w, 3); three equal channels if the file is gray
    alpha: ImageArray | None  # (h, w), or None where the file has no transparency
    gray: bool
    gray_as_rgb: bool  # the file is RGB, and its three channels are equal
    icc: bytes | None
    exif: bytes | None  # EXIF data without the prefix "Exif", byte for byte those of the file, but with orientation 1
    dpi: tuple[float, float] | None  # pixels per inch across and down. The SR image keeps them, and is printed larger
    colour: dict[bytes, bytes]  # COLOUR_CHUNKS of a PNG file by name

    @property
    def mode(self) -> str:
        """Pillow's name of the file's channels, which the SR image has too (except in WebP, which has no gray)."""
        return ("L" if self.gray else "RGB") + ("A" if self.alpha is not None else "")


def read_photo(path: Path) -> Photo:
    """Decode a file: gray, palette or RGB, with or without transparency.

    An image that EXIF says is turned is turned here, and its orientation set to 1: viewers that heed it and viewers
    that do not then show the same. The upper 8 of more bits are read, the first of several images, and no XMP data:
    notes on stderr say so. Pixels that are fully transparent take the colour of the nearest visible one.
    Raises OSError, or ValueError naming the file if it is damaged, no image, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image {path}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        known = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{path} is not an image that can be read here; its name must end in {known}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photographs are welcome
            check_png(path)
            file = open_image(path)
        with file:
            if file.mode in MODES:
                return _decoded(file, path)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to be read at once ({error}); cut it into parts") from error
    except UNREADABLE as error:
        raise_if_of_system(error, path)
        raise ValueError(f"{path} is damaged, or no image ({error}); replace the file") from error
    raise ValueError(f"{path} has the mode {file.mode}, not gray or RGB: convert it to RGB of 8 bits first")


def _decoded(file: Image.Image, path: Path) -> Photo:
    layout = str(getattr(file, "tile", ""))  # where Pillow names channels and bits as they are in the file
    gray = file.mode in ("1", "L", "LA", *DEEP) or "LA;16" in layout  # whose mode Pillow calls RGBA
    bits = 12 if ";12" in layout else 16 if file.mode in DEEP or ";16" in layout else 8
    notes = [f"has {name}, left out" for key, name in NOT_KEPT.items() if file.info.get(key)]
    if (frames := getattr(file, "n_frames", 1)) > 1 and file.format != "MPO":  # a camera's JPEG with previews
        notes.append(f"holds {frames} images; the first is upscaled")
    notes += [f"has {bits} bits a channel; the upper 8 are upscaled"] if bits > 8 else []
    turned = getattr(file, "tag_v2", {}).get(Base.Orientation)  # of a TIFF file, which Pillow sets upright as it loads
    file.load()
    if set(getattr(file, "text", {})) - {"XML:com.adobe.xmp"}:
        notes.append("has texts, left out")
    if len(set(file.info.get("aspect", ()))) > 1:
        notes.append("has pixels that are not square, which is left out")
    exif, orientation = _exif(file)
    dpi = _dpi(file, turned or orientation)
    image = _upper_bits(file, bits) if bits > 8 else file
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.asarray(image.transpose(TURNS[orientation]) if orientation in TURNS else image)
    rgb, alpha = pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None
    red, green, blue = np.moveaxis(rgb if alpha is None else rgb[alpha > 0], -1, 0)
    equal = not gray and bool(red.size and (red == green).all() and (green == blue).all())
    rgb = rgb if alpha is None else spread_colours(rgb, alpha)
    colour = chunks_before_pixels(path, COLOUR_CHUNKS)
    for note in notes:
        print(f"prffn: {path} {note}", file=sys.stderr)
    return Photo(rgb, alpha, gray, equal, file.info.get("icc_profile") or None, exif, dpi, colour)


def _upper_bits(file: Image.Image, bits: int) -> Image.Image:
    """Return a loaded image of 12 or 16 bits as one of 8, with alpha if one gray value stands for transparency."""
    clear = file.info.get("transparency")
    if file.mode not in DEEP:  # of colours Pillow has read the upper 8 bits, but not of the transparent one
        if isinstance(clear, tuple):
            file.info["transparency"] = tuple(value >> 8 for value in clear)
        return file
    values = np.asarray(file).astype(np.uint16)
    upper = (values >> (bits - 8)).astype(np.uint8)
    if getattr(file, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0:  # a TIFF file in which 0 is white
        upper = 255 - upper
    image = Image.fromarray(upper)
    if clear is not None:
        image.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return image


def _dpi(file: Image.Image, orientation: int) -> tuple[float, float] | None:
    """Return the file's pixels per inch, across and down of the upright image; None where it gives none."""
    try:
        across, down = (float(dots) for dots in file.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    made_up = file.format in ("JPEG", "MPO") and not file.info.get("jfif_unit") and across == down == 72  # by Pillow
    if made_up or not all(1 < dots < 2**16 for dots in (across, down)):  # 1: where a TIFF file says none
        return None
    return (down, across) if orientation in (5, 6, 7, 8) else (across, down)


def spread_colours(rgb: ImageArray, alpha: ImageArray, reach: int = 32, rows: int = 512) -> ImageArray:
    """Return (h, w, 3) with each pixel of alpha 0 in the colour of the nearest visible one.

    A network mixes neighbours: the hidden colour of a transparent pixel, often black, would darken the visible edge.
    reach: rows above and below that are searched. rows: how many are filled at a time, which bounds the memory.
    """
    if (alpha > 0).all():
        return rgb
    spread = rgb.copy()
    for top in range(0, len(rgb), rows):
        first, last = max(0, top - reach), top + rows + reach
        unseen = alpha[first:last] == 0
        if unseen.any() and not unseen.all():
            nearest = distance_transform_edt(unseen, return_distances=False, return_indices=True)
            here = slice(top - first, top - first + rows)
            spread[top : top + rows] = rgb[first:last][tuple(nearest)][here]
    return spread


def _exif(file: Image.Image) -> tuple[bytes | None, int]:
    """Return EXIF data with orientation 1, and the orientation of the pixels. Data that cannot be read are dropped."""
    try:
        tags = file.getexif()
        orientation = tags.get(Base.Orientation, 1)
        if raw := file.info.get("exif", b"").removeprefix(b"Exif\0\0"):
            return (_set_upright(raw) if orientation in TURNS else raw), orientation
        kept = Image.Exif()  # of a TIFF file, or of a PNG file that has them as text
        kept.update({tag: tags[tag] for tag in DESCRIPTIVE_TAGS if tag in tags})
        kept.update({ifd: dict(inner) for ifd in (IFD.Exif, IFD.GPSInfo) if (inner := tags.get_ifd(ifd))})
        return (kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None), orientation
    except UNREADABLE as error:
        print(f"prffn: EXIF data that cannot be read are left out ({error})", file=sys.stderr)
        return None, 1


def _set_upright(exif: bytes) -> bytes:
    """Return EXIF data with orientation 1 and without the thumbnail, which is turned.

    They are changed in place: Pillow would encode them again, and so move a MakerNote, whose offsets then point astray.
    """
    order, changed = ("<" if exif[:2] == b"II" else ">"), bytearray(exif)
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    end = start + 2 + 12 * count
    for entry in range(start + 2, end, 12):
        if struct.unpack_from(order + "H", exif, entry) == (Base.Orientation,):
            struct.pack_into(order + "HIHH", changed, entry + 2, 3, 1, 1, 0)  # SHORT, one value: 1
    struct.pack_into(order + "I", changed, end, 0)  # no second directory
    return bytes(changed)


def write_photo(
    file: IO[bytes], suffix: str, photo: Photo, bands: Iterable[ImageArray], width: int, height: int
) -> None:
    """Write bands, (n, width, channels) uint8 from the top down, with the photograph's metadata. suffix: of `FORMATS`.

    A PNG file takes each band as it comes; for the others Pillow is given the whole image. Metadata that the format
    cannot hold are named on stderr.
    """
    if suffix == ".png":
        write_png(file, bands, width, height, len(photo.mode), _chunks(photo))
        return
    lost = [] if photo.icc or b"sRGB" in photo.colour else [name.decode() for name in photo.colour]
    lost += ["the resolution"] if photo.dpi and suffix == ".webp" else []
    if lost:
        print(f"prffn: a {suffix} file cannot hold {', '.join(lost)} of the image; a .png file can", file=sys.stderr)
    image, top = Image.new(photo.mode, (width, height)), 0
    for band in bands:
        image.paste(Image.fromarray(band[..., 0] if band.shape[2] == 1 else band), (0, top))
        top += len(band)
    exif = photo.exif and b"Exif\0\0" + photo.exif
    metadata: dict[str, Any] = {"icc_profile": photo.icc, "dpi": photo.dpi, "exif": exif}
    # Given a file with a number, Pillow writes past Python, and does not notice where a full disk cuts a write short.
    numberless: Any = SimpleNamespace(write=file.write, flush=file.flush, seek=file.seek, tell=file.tell)
    image.save(numberless, **FORMATS[suffix], **{name: value for name, value in metadata.items() if value})


def _chunks(photo: Photo) -> dict[bytes, bytes]:
    """Return the photograph's metadata as chunks of a PNG file."""
    chunks = dict(photo.colour)
    if photo.dpi:
        chunks[b"pHYs"] = struct.pack(">IIB", *(round(dots / 0.0254) for dots in photo.dpi), 1)  # per metre
    if photo.icc is not None:
        chunks[b"iCCP"] = b"ICC profile\0\0" + zlib.compress(photo.icc)
    if photo.exif is not None:
        chunks[b"eXIf"] = photo.exif
    return chunks
