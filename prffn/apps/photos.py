"""Photographs in files: pixels, transparency, and what they say of themselves; read whole, written band by band."""

import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION
from scipy.ndimage import distance_transform_edt

from prffn.apps.png import SIGNATURE, write_png
from prffn.data.degradation import ImageArray, upscale_bicubic
from prffn.data.images import IMAGE_SUFFIXES, TURNS, UNREADABLE, check_png, open_image, raise_if_of_system

WHOLE_PIXELS = 100_000_000
"""Pixels of the largest SR image in a format other than PNG: 0.4 GB of memory, up to 1.2 GB for WebP (our choice)."""

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".tif": {"format": "TIFF"},  # uncompressed: libtiff, which compresses, does not take EXIF data from Pillow
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},  # exact: the colours under full transparency too
}
"""By suffix: what can be written, and how Pillow is told to."""

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L")

COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
"""Of a PNG file: what its numbers mean as colours, beside an ICC profile."""

DEEP = ("I;16", "I;16B", "I;16L")
"""Pillow's modes of 16 bits of gray."""

INCH = 0.0254
"""In metres: PNG files give pixels per metre."""

NOT_KEPT = {"xmp": "XMP data", "photoshop": "IPTC data", "comment": "the comment"}
"""By Pillow's name: what a file may say of itself and the SR image does not."""

DESCRIPTIVE_TAGS = (
    "ImageDescription", "Make", "Model", "XResolution", "YResolution", "ResolutionUnit", "Software", "DateTime",
    "Artist", "Copyright",
)  # fmt: skip
"""Of a TIFF file's tags, those that say what a photograph is; the others say how the file is laid out."""


@dataclass(frozen=True)
class Photo:
    """A photograph, upright, and what goes with it."""

    rgb: ImageArray
    """(h, w, 3); three equal channels if the file is gray."""
    alpha: ImageArray | None
    """(h, w), or None where the file has no transparency."""
    gray: bool
    icc: bytes | None
    """Colour profile."""
    exif: bytes | None
    """EXIF data from their TIFF header on, as they were but for the orientation, which is 1."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch across and down. The SR image keeps them, and is printed larger."""
    colour: tuple[tuple[bytes, bytes], ...] = ()
    """COLOUR_CHUNKS of a PNG file: name and content of each."""
    gray_as_rgb: bool = False
    """The file is RGB, and its three channels are equal."""

    @property
    def mode(self) -> str:
        """Pillow's name of the file's channels, which the SR image has too (but WebP, which has no gray)."""
        return ("L" if self.gray else "RGB") + ("A" if self.alpha is not None else "")


def read_photo(path: Path) -> Photo:
    """Decodes a file: gray, palette or RGB, with or without transparency.

    An image that EXIF says is turned is turned here, and its orientation set to 1: viewers that heed it and viewers
    that do not then show the same. The upper 8 of more bits are read, the first of several images, and no XMP data:
    notes on stderr say so. The colours of pixels that are fully transparent become those of the nearest visible ones,
    see `spread_colours`.
    Raises OSError, or ValueError naming the file if it is damaged, no image, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image {path}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is not an image that can be read here; its name must end in {listed(IMAGE_SUFFIXES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large photograph is what this is for
            check_png(path)
            file = open_image(path)
        with file:
            if file.mode not in MODES:
                raise _Unusable(
                    f"has the mode {file.mode}, not gray or RGB; convert it first, for example with "
                    f"ImageMagick: magick {path.name} -colorspace sRGB -depth 8 {path.stem}_rgb.png"
                )
            notes = [f"has {name}, left out" for key, name in NOT_KEPT.items() if file.info.get(key)]
            if (frames := getattr(file, "n_frames", 1)) > 1 and file.format != "MPO":  # a camera's JPEG with previews
                notes.append(f"holds {frames} images; the first is upscaled")
            gray = file.mode in ("1", "L", "LA", *DEEP) or "LA;16" in str(file.tile)  # Pillow calls it RGBA
            bits = 12 if ";12" in str(file.tile) else 16 if file.mode in DEEP or ";16" in str(file.tile) else 8
            if bits > 8:
                notes.append(f"has {bits} bits a channel; the upper 8 are upscaled")
            file.load()
            icc = file.info.get("icc_profile") or None
            exif, orientation = _exif(file)
            dpi = _dpi(file, orientation)
            image = _upper_bits(file, bits) if bits > 8 else file
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        if orientation in TURNS:
            image = image.transpose(TURNS[orientation])
        pixels = np.asarray(image)
        colour = tuple(_colour_chunks(path))
    except _Unusable as error:
        raise ValueError(f"{path} {error}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to be read at once ({error}); cut it into parts") from error
    except UNREADABLE as error:
        raise_if_of_system(error, path)
        raise ValueError(f"{path} is damaged, or no image ({error}); replace the file") from error
    rgb, alpha = pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None
    if alpha is not None:
        rgb = spread_colours(rgb, alpha)
    seen = rgb if alpha is None else rgb[alpha > 0]
    red, green, blue = (seen[..., channel] for channel in range(3))
    equal = not gray and bool(seen.size and (red == green).all() and (green == blue).all())
    for note in notes:
        print(f"prffn: {path} {note}", file=sys.stderr)
    return Photo(rgb, alpha, gray, icc, exif, dpi, colour, equal)


def _upper_bits(file: Image.Image, bits: int) -> Image.Image:
    """A loaded image of 12 or 16 bits as one of 8, with alpha where one gray value stands for transparency."""
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
    """Pixels per inch as the file says them, across and down of the upright image; None where it says none."""
    try:
        across, down = (float(dots) for dots in file.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    made_up = file.format in ("JPEG", "MPO") and not file.info.get("jfif_unit") and across == down == 72  # by Pillow
    if made_up or not all(1 < dots < 2**16 for dots in (across, down)):  # 1: where a TIFF file says none
        return None
    return (down, across) if orientation >= 5 else (across, down)


def _colour_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """COLOUR_CHUNKS of a PNG file, whose checksums were compared; nothing of another file."""
    with path.open("rb") as file:
        if file.read(8) != SIGNATURE:
            return
        while (head := file.read(8)) and head[4:] != b"IDAT":
            content = file.read(struct.unpack(">I", head[:4])[0])
            file.read(4)
            if head[4:] in COLOUR_CHUNKS:
                yield head[4:], content


def spread_colours(rgb: ImageArray, alpha: ImageArray, reach: int = 32, rows: int = 512) -> ImageArray:
    """RGB, (h, w, 3), where each pixel of alpha 0 has the colour of the nearest one that can be seen.

    A network mixes neighbours: what lies unseen under a transparent pixel, often black, would darken the visible edge.
    reach: rows above and below in which the nearest is looked for. rows: taken at a time, so that memory is bounded.
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


class _Unusable(ValueError):
    """A sound file of a kind that is not upscaled; the message goes on from the file's name."""


def _exif(file: Image.Image) -> tuple[bytes | None, int]:
    """EXIF data with orientation 1, and the orientation that the pixels have. Unreadable data are dropped."""
    try:
        tags = file.getexif()
        orientation = tags.get(ExifTags.Base.Orientation, 1)
        if raw := file.info.get("exif", b"").removeprefix(b"Exif\0\0"):
            return (set_upright(raw) if orientation in TURNS else raw), orientation
        kept = Image.Exif()  # of a TIFF file, or of a PNG file that has them as text
        for name in DESCRIPTIVE_TAGS:
            if (tag := ExifTags.Base[name]) in tags:
                kept[tag] = tags[tag]
        for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if inner := tags.get_ifd(ifd):
                kept[ifd] = dict(inner)
        return (kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None), orientation
    except UNREADABLE as error:
        print(f"prffn: EXIF data that cannot be read are left out ({error})", file=sys.stderr)
        return None, 1


def set_upright(exif: bytes) -> bytes:
    """EXIF data from their TIFF header on, with orientation 1 and without the thumbnail, which is turned."""
    order, changed = ("<" if exif[:2] == b"II" else ">"), bytearray(exif)
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    for entry in entries:
        if struct.unpack_from(order + "H", exif, entry) == (ExifTags.Base.Orientation,):
            struct.pack_into(order + "HIHH", changed, entry + 2, 3, 1, 1, 0)  # SHORT, one value: 1
    struct.pack_into(order + "I", changed, entries.stop, 0)  # no second directory
    return bytes(changed)


def sr_bands(photo: Photo, bands: Iterable[ImageArray], scale: int) -> Iterator[ImageArray]:
    """RGB bands, (n, W, 3), with the channels of the photograph: (n, W, 1 to 4)."""
    top, reach = 0, 2  # LR rows; bicubic interpolation sees two rows on each side
    for rgb in bands:
        band = rgb
        if photo.gray or photo.gray_as_rgb:
            band = np.asarray(Image.fromarray(rgb).convert("L"))[..., None]
        if photo.gray_as_rgb:
            band = band.repeat(3, axis=2)
        if photo.alpha is not None:
            bottom, seen = top + len(rgb) // scale, max(0, top - reach)
            alpha = upscale_bicubic(photo.alpha[seen : bottom + reach], scale)[(top - seen) * scale :][: len(rgb)]
            band, top = np.concatenate((band, alpha[..., None]), axis=2), bottom
        yield band


def write_photo(
    file: IO[bytes], suffix: str, photo: Photo, bands: Iterable[ImageArray], width: int, height: int
) -> None:
    """Writes bands, (n, width, channels) uint8 from the top down, with what the photograph says of itself.

    A PNG file takes each band as it comes; for the others Pillow is given the whole image. suffix: of `FORMATS`. What
    the format cannot hold is named on stderr.
    """
    if suffix == ".png":
        chunks = dict(photo.colour)
        if photo.dpi:
            x, y = (round(dots / INCH) for dots in photo.dpi)
            chunks[b"pHYs"] = struct.pack(">IIB", x, y, 1)
        write_png(file, bands, width, height, len(photo.mode), icc=photo.icc, exif=photo.exif, chunks=chunks)
        return
    lost = [] if photo.icc or b"sRGB" in dict(photo.colour) else [name.decode() for name, _ in photo.colour]
    lost += ["the resolution"] if photo.dpi and suffix == ".webp" else []
    if lost:
        print(f"prffn: a {suffix} file cannot hold {listed(lost)} of the image; a .png file can", file=sys.stderr)
    image, top = Image.new(photo.mode, (width, height)), 0
    for band in bands:
        image.paste(Image.fromarray(band[..., 0] if band.shape[2] == 1 else band), (0, top))
        top += len(band)
    options = dict(FORMATS[suffix])
    if photo.icc:
        options["icc_profile"] = photo.icc
    if photo.dpi:
        options["dpi"] = photo.dpi
    if photo.exif:
        options["exif"] = b"Exif\0\0" + photo.exif
    image.save(_WithoutNumber(file), **options)  # type: ignore[arg-type]


class _WithoutNumber:
    """A file to write to without its number: given that, Pillow writes past Python, and does not notice where a disk
    that fills up cuts a write short."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write, self.flush, self.seek, self.tell = file.write, file.flush, file.seek, file.tell


def check_format(target: Path, photo: Photo, width: int, height: int) -> None:
    """Raises ValueError if the format cannot hold the SR image, or would need too much memory for it."""
    suffix = target.suffix.lower()
    if suffix == ".png":
        return
    way_out = f"write {target.stem}.png, which goes to the file in bands, and convert it"
    if width * height > WHOLE_PIXELS:
        raise ValueError(
            f"{target} would have {width * height / 1e6:.0f} megapixels; {suffix} files, which are encoded as a whole, "
            f"are written up to {WHOLE_PIXELS / 1e6:.0f}; {way_out}"
        )
    longest = {"JPEG": 65_535, "WEBP": 16_383}.get(FORMATS[suffix]["format"], 2**31)
    if max(width, height) > longest:
        raise ValueError(f"{target} would be {width} x {height}, and {suffix} allows {longest} on a side; {way_out}")
    if photo.alpha is not None and FORMATS[suffix]["format"] == "JPEG":
        raise ValueError(f"{target}: JPEG has no transparency, and the image has; write {target.stem}.png or .webp")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names)
