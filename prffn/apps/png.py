"""A PNG file written band by band, so that its image is never in memory as a whole. No encoder at hand does that."""

import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from prffn.data.degradation import ImageArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By number of channels: gray, gray with alpha, RGB, RGBA."""

SUB, UP, PAETH = 1, 2, 4
LEVEL = 6  # of zlib, its default
_PART = 1 << 20  # values filtered at a time (our choice)


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG file as its header says them, however large; None if the file is no PNG."""
    with path.open("rb") as file:
        head = file.read(24)
    return struct.unpack(">II", head[16:]) if len(head) == 24 and head.startswith(SIGNATURE) else None


def write_png(
    file: IO[bytes],
    bands: Iterable[ImageArray],
    width: int,
    height: int,
    channels: int,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    chunks: Mapping[bytes, bytes] | None = None,
) -> None:
    """Writes an image that comes in bands from the top down, (h, width, channels) uint8 each.

    channels: 1 to 4. icc: a colour profile. exif: EXIF data that begin with their TIFF header. chunks: others that
    stand before the pixels, by name.
    Raises ValueError if the bands do not add up to the image.
    """
    file.write(SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0))
    for name, content in (chunks or {}).items():
        _chunk(file, name, content)
    if icc is not None:
        _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif is not None:
        _chunk(file, b"eXIf", exif)

    compressor = zlib.compressobj(LEVEL, strategy=zlib.Z_FILTERED)  # small differences: 2 % smaller than else
    above, done = np.zeros((1, width, channels), np.uint8), 0
    rows = max(1, _PART // (width * channels))
    for band in bands:
        if band.shape[1:] != (width, channels) or band.dtype != np.uint8:
            raise ValueError(f"a band is {band.shape} {band.dtype}, not (h, {width}, {channels}) uint8")
        for top in range(0, len(band), rows):
            part = np.concatenate((above, band[top : top + rows]))
            above = part[-1:]
            if compressed := compressor.compress(filtered(part).data):
                _chunk(file, b"IDAT", compressed)
        done += len(band)
    if done != height:
        raise ValueError(f"the bands have {done} rows together, not {height}")
    _chunk(file, b"IDAT", compressor.flush())
    _chunk(file, b"IEND", b"")


def filtered(part: ImageArray) -> NDArray[np.uint8]:
    """The rows of (1 + n, W, C) from the second on, each as the differences that are smallest: (n, 1 + W C).

    Sub, up or Paeth, whichever has the smallest sum of absolute values in a row (the standard's own heuristic).
    """
    x = part.astype(np.int16)
    x = np.pad(x, ((0, 0), (1, 0), (0, 0)))  # left of the image is black
    here, left, up, corner = x[1:, 1:], x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    differences = [(here - guess).astype(np.uint8) for guess in (left, up, paeth)]  # modulo 256
    sizes = [abs(d.view(np.int8).astype(np.int16)).sum(axis=(1, 2), dtype=np.int64) for d in differences]
    best = np.argmin(sizes, axis=0)
    out = np.empty((len(here), 1 + here[0].size), np.uint8)
    out[:, 0] = np.array((SUB, UP, PAETH))[best]
    for n, difference in enumerate(differences):
        out[best == n, 1:] = difference[best == n].reshape(-1, here[0].size)
    return out


def _chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
