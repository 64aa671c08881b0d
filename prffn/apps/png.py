"""PNG files written band by band, so that the image is never in memory as a whole: Pillow takes whole images only."""

import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import putchunk

from prffn.data.degradation import ImageArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels: gray, gray with alpha, RGB, RGBA
SUB, UP, PAETH = 1, 2, 4
LEVEL = 6  # of zlib, its default
_PART = 1 << 20  # values filtered at a time (our choice)


def png_size(path: Path) -> tuple[int, int] | None:
    """Return the width and height in a PNG file's header, however large; None if the file is no PNG."""
    with path.open("rb") as file:
        head = file.read(24)
    return struct.unpack(">II", head[16:]) if len(head) == 24 and head.startswith(SIGNATURE) else None


def chunks_before_pixels(path: Path, names: Collection[bytes]) -> dict[bytes, bytes]:
    """Return the named chunks that a PNG file has before its pixels; {} for any other file."""
    found = {}
    with path.open("rb") as file:
        if file.read(8) == SIGNATURE:
            while (head := file.read(8)) and head[4:] != b"IDAT":
                content = file.read(struct.unpack(">I", head[:4])[0])
                file.read(4)  # the checksum
                if head[4:] in names:
                    found[head[4:]] = content
    return found


def write_png(
    file: IO[bytes],
    bands: Iterable[ImageArray],
    width: int,
    height: int,
    channels: int,
    chunks: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write an image that comes in bands from the top down, (h, width, channels) uint8 each.

    channels: 1 to 4. chunks: content by name of what stands before the pixels.
    Raises ValueError if the bands do not add up to the image.
    """
    file.write(SIGNATURE)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0))
    for name, content in (chunks or {}).items():
        putchunk(file, name, content)

    compressor = zlib.compressobj(LEVEL, strategy=zlib.Z_FILTERED)  # made for small differences: files 2 % smaller
    above, done = np.zeros((1, width, channels), np.uint8), 0
    rows = max(1, _PART // (width * channels))
    for band in bands:
        if band.shape[1:] != (width, channels) or band.dtype != np.uint8:
            raise ValueError(f"a band is {band.shape} {band.dtype}, not (h, {width}, {channels}) uint8")
        for top in range(0, len(band), rows):
            part = np.concatenate((above, band[top : top + rows]))
            above = part[-1:]
            if compressed := compressor.compress(filtered(part).data):
                putchunk(file, b"IDAT", compressed)
        done += len(band)
    if done != height:
        raise ValueError(f"the bands have {done} rows together, not {height}")
    putchunk(file, b"IDAT", compressor.flush())
    putchunk(file, b"IEND")


def filtered(part: ImageArray) -> NDArray[np.uint8]:
    """Return the rows of (1 + n, W, C) from the second on as differences from their neighbours: (n, 1 + W C).

    Of sub, up and Paeth, each row takes the filter with the smallest sum of absolute values (the PNG standard's
    heuristic); its number comes first.
    """
    x = np.pad(part.astype(np.int16), ((0, 0), (1, 0), (0, 0)))  # left of the image is black
    here, left, up, corner = x[1:, 1:], x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    differences = np.stack([(here - guess).astype(np.uint8) for guess in (left, up, paeth)])  # modulo 256
    sizes = abs(differences.view(np.int8).astype(np.int16)).sum(axis=(2, 3), dtype=np.int64)
    best = sizes.argmin(axis=0)
    chosen = differences[best, np.arange(len(here))].reshape(len(here), -1)
    return np.column_stack((np.array((SUB, UP, PAETH), np.uint8)[best], chosen))
