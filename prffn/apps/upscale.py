"""Photographs from files, upscaled into files: `python -m prffn upscale`.

Memory is bounded by the LR image, a tile's feature maps and a band of tiles, not by the SR image, which goes straight
into a PNG file. The other formats are for images of moderate size, which can be encoded as a whole.
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from prffn.apps.photos import FORMATS, Photo, read_photo, write_photo
from prffn.apps.png import png_size
from prffn.data.degradation import ImageArray, upscale_bicubic
from prffn.data.images import IMAGE_SUFFIXES, UNREADABLE, list_images, open_image
from prffn.evaluation.tiling import NonFiniteOutput, in_bands, upscale_tiles
from prffn.files import atomic_write, whole_number
from prffn.models.pretrained import pretrained
from prffn.models.weights import load_network
from prffn.training.device import pick_device
from prffn.training.loop import progress_bar

WHOLE_PIXELS = 100_000_000
"""Pixels of the largest SR image in a format other than PNG: 0.4 GB of memory, up to 1.2 GB for WebP (our choice)."""

LONGEST = {"JPEG": 65_535, "WEBP": 16_383}  # pixels on a side that a format allows
TILE = 256  # LR pixels on a side of a tile: small enough for 2 GB with the paper's own network (our choice, measured)

STOP: int = getattr(signal, "SIGBREAK", signal.SIGTERM)
"""What asks a process to end; on Windows Ctrl-Break, for nobody can send it SIGTERM."""


def upscale_file(
    source: Path,
    target: Path,
    model: nn.Module,
    *,
    device: Any = "cpu",
    tile: int = TILE,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[int, int]:
    """Upscale one image file into another, atomically. Return the width and height of the SR image.

    model: with its `scale`. Colour profile, EXIF data, resolution and a PNG file's chunks on colour are kept, or named
        on stderr where the format holds none; gray stays gray (in WebP, which has none, as three equal channels); alpha
        is upscaled bicubically. What is written has 8 bits a channel.
    Raises ValueError or OSError, before anything is computed, for a file that cannot be read or written.
    """
    whole_number("tile", tile, 1)
    is_done(source, target, overwrite=overwrite)
    photo, scale = read_photo(source), int(model.scale)  # type: ignore[arg-type]
    height, width = photo.rgb.shape[:2]
    check_format(target, photo, width * scale, height * scale)
    tiles = progress_bar(
        iterable=upscale_tiles(model, photo.rgb, scale, device, tile),
        total=-(-height // tile) * -(-width // tile), desc=source.name, unit="tile", leave=False, disable=not progress,
    )  # fmt: skip
    bands = sr_bands(photo, in_bands(tiles, width * scale), scale)
    try:
        with atomic_write(target) as file:
            write_photo(file, target.suffix.lower(), photo, bands, width * scale, height * scale)
    except NonFiniteOutput as error:
        raise NonFiniteOutput(f"{source}: {error}") from error
    return width * scale, height * scale


def check_format(target: Path, photo: Photo, width: int, height: int) -> None:
    """Raise ValueError if the format cannot hold the SR image, or would need too much memory for it."""
    suffix, name = target.suffix.lower(), FORMATS[target.suffix.lower()]["format"]
    if name == "PNG":
        return
    way_out = f"write {target.stem}.png, which goes to the file in bands, and convert it"
    if width * height > WHOLE_PIXELS:
        most = f"{suffix} files are encoded as a whole, up to {WHOLE_PIXELS / 1e6:.0f}"
        raise ValueError(f"{target} would have {width * height / 1e6:.0f} megapixels; {most}; {way_out}")
    if max(width, height) > (longest := LONGEST.get(name, 2**31)):
        raise ValueError(f"{target} would be {width} x {height}, and {suffix} allows {longest} on a side; {way_out}")
    if photo.alpha is not None and name == "JPEG":
        raise ValueError(f"{target}: JPEG has no transparency, and the image has; write {target.stem}.png or .webp")


def is_done(source: Path, target: Path, *, scale: int | None = None, overwrite: bool = False) -> bool:
    """Return whether an earlier call has made the output; False if it is to be made now.

    scale: of an image of a folder, which is done if its output has the right size; None for one that was named alone.
    Raises ValueError or OSError for an output that cannot be written, is the input, or is there and is not replaced.
    """
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{target} cannot be written; its name must end in {', '.join(FORMATS)}")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder")
    if not target.exists():
        return False
    if source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the input itself, which is never overwritten; give another output")
    if overwrite:
        return False
    if scale is None:
        raise FileExistsError(f"{target} is there already; --overwrite replaces it")
    try:
        with open_image(source) as image:
            width, height = (side * scale for side in image.size)
    except (*UNREADABLE, Image.DecompressionBombError):
        return False  # upscale_file will refuse it by name
    found = png_size(target)
    if found not in ((width, height), (height, width)):  # EXIF may say that the input is turned
        size = f"of {found[0]} x {found[1]} pixels" if found else "no PNG"
        raise ValueError(f"{target} is there already, {size}, not x{scale} of {source}: --overwrite replaces it")
    return True


def sr_bands(photo: Photo, bands: Iterable[ImageArray], scale: int) -> Iterator[ImageArray]:
    """Give RGB bands, (n, W, 3), the channels of the photograph: (n, W, 1 to 4)."""
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


def network(
    scale: int | None, weights: Path | None, *, rgb_range: float | None = None, res_scale: float | None = None
) -> nn.Module:
    """Return the network of a file, or else the one that comes with the package, at x3 if no scale is given.

    weights, rgb_range, res_scale: as `load_network` takes them; the last two need a file. Raises ValueError, or as
    `pretrained` and `load_network` do.
    """
    if weights is not None:
        return load_network(weights, scale=scale, rgb_range=rgb_range, res_scale=res_scale)
    if rgb_range is not None or res_scale is not None:
        raise ValueError("--rgb-range and --res-scale are for the file of --weights, and none is given")
    return pretrained(3 if scale is None else scale)


def plan(sources: Sequence[Path], output: Path | None, scale: int, overwrite: bool) -> list[tuple[Path, Path]]:
    """Return inputs with their outputs: photo.png becomes photo_x3.png beside it, a folder's images go to folder_x3/.

    output: a file, for one image; or a folder, for any number. Images of a folder whose outputs are there already are
    left out, so that an interrupted call can be repeated; `overwrite` makes them again.
    Raises ValueError or OSError for what cannot be read, written, or would be written twice.
    """
    into_folder = output is not None and (output.is_dir() or not output.suffix)
    if output is not None and not into_folder and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(f"--output {output} is one file, for several images; give a folder")
    pairs: list[tuple[Path, Path, int | None]] = []  # with the scale if it is an image of a folder, as for is_done
    for source in sources:
        if source.is_dir():
            images = list_images(source)
            if not images:
                raise FileNotFoundError(f"no images in {source}; looked for {', '.join(IMAGE_SUFFIXES)}")
            folder = output or source.resolve().with_name(f"{source.resolve().name}_x{scale}")
            pairs += [(image, folder / f"{image.stem}.png", scale) for image in images]
        elif not source.exists():
            raise FileNotFoundError(f"no image or folder {source}")
        elif output is None or into_folder:
            pairs.append((source, (output or source.parent) / f"{source.stem}_x{scale}.png", None))
        else:
            pairs.append((source, output, None))
    made: dict[str, Path] = {}
    inputs = {_as_stored(source) for source, *_ in pairs}
    for source, target, _ in pairs:
        if (name := _as_stored(target)) in inputs:
            raise ValueError(f"{source} would become {target}, which is an input; give another --output")
        if name in made:
            raise ValueError(f"{made[name]} and {source} would both become {target}; upscale them one by one")
        made[name] = source
    todo = [(s, t) for s, t, of_folder in pairs if not is_done(s, t, scale=of_folder, overwrite=overwrite)]
    if len(todo) < len(pairs):
        print(
            f"{len(pairs) - len(todo)} of {len(pairs)} images are there already, made by this network or another; "
            "--overwrite makes them again"
        )
    return todo


def _as_stored(path: Path) -> str:
    """Return the same text for all paths of one file: Windows and macOS take names that differ in case for one."""
    name = str(path.resolve())
    return name.casefold() if sys.platform in ("win32", "darwin") else name


def run(options: argparse.Namespace) -> int:
    """Run `python -m prffn upscale`. Return 0; 1 if an image could not be upscaled; 130 if it was stopped."""
    before = signal.signal(STOP, _stop)
    tile, failed = TILE if options.tile is None else options.tile, 0
    try:
        device = pick_device(options.device)
        model = network(options.scale, options.weights, rgb_range=options.rgb_range, res_scale=options.res_scale)
        todo = plan(options.sources, options.output, int(model.scale), options.overwrite)  # type: ignore[arg-type]
        for source, target in todo:
            try:
                size = upscale_file(source, target, model, device=device, tile=tile, overwrite=options.overwrite)
                print(f"{source} -> {target}: {size[0]} x {size[1]}", flush=True)
            except Exception as error:  # one picture does not keep the others from being made
                failed += 1
                about = "" if str(source) in str(error) else f"{source}: "
                kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
                print(f"prffn: {about}{kind}{error}", file=sys.stderr)
        return 1 if failed else 0
    except KeyboardInterrupt:
        print("prffn: stopped; no unfinished file is left behind", file=sys.stderr)
        return 130
    finally:
        signal.signal(STOP, before)


def _stop(*_: Any) -> None:
    """Treat STOP as Ctrl-C, so that the unfinished file is removed."""
    raise KeyboardInterrupt
