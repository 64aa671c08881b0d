"""Photographs from files, upscaled into files: `python -m prffn upscale`.

Memory is bounded by the LR image, a tile's feature maps and a band of tiles, not by the SR image. That goes straight
into a PNG file; the other formats are for images of moderate size, which can be encoded as a whole.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from prffn.apps.photos import FORMATS, check_format, listed, read_photo, sr_bands, write_photo
from prffn.apps.png import png_size
from prffn.data.images import IMAGE_SUFFIXES, UNREADABLE, list_images, open_image
from prffn.evaluation.tiling import NonFiniteOutput, check_tiles, in_bands, upscale_tiles
from prffn.files import atomic_write
from prffn.models.pretrained import pretrained
from prffn.models.weights import load_network
from prffn.training.device import pick_device
from prffn.training.loop import progress_bar

TILE = 256
"""LR pixels on a side of a tile: small enough for 2 GB with the paper's own network (our choice, measured)."""

HALO = 16
"""LR pixels around a tile that the network sees too."""


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
    """Upscales one image file into another, atomically. Returns the width and height of the SR image.

    model: with its `scale`. Colour profile, EXIF data, resolution and a PNG file's chunks on colour are kept, or named
        on stderr where the format holds none; gray stays gray (in WebP, which has none, as three equal channels); alpha
        is upscaled bicubically. What is written has 8 bits a channel.
    Raises ValueError or OSError, before anything is computed, for a file that cannot be read or written.
    """
    check_tiles(tile)
    check_target(source, target, overwrite)
    photo, scale = read_photo(source), int(model.scale)  # type: ignore[arg-type]
    height, width = photo.rgb.shape[:2]
    check_format(target, photo, width * scale, height * scale)
    tiles = progress_bar(
        iterable=upscale_tiles(model, photo.rgb, scale=scale, device=device, tile=tile, halo=HALO),
        total=-(-height // tile) * -(-width // tile), desc=source.name, unit="tile", leave=False, disable=not progress,
    )  # fmt: skip
    bands = sr_bands(photo, in_bands(tiles, width * scale), scale)
    try:
        with atomic_write(target) as file:
            write_photo(file, target.suffix.lower(), photo, bands, width * scale, height * scale)
    except NonFiniteOutput as error:
        raise NonFiniteOutput(f"{source}: {error}") from error
    return width * scale, height * scale


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Raises ValueError or OSError if the output cannot be written under that name."""
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{target} cannot be written; its name must end in {listed(FORMATS)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the input itself, which is never overwritten; give another output")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; --overwrite replaces it")


def network(
    scale: int | None, weights: Path | None, *, rgb_range: float | None = None, res_scale: float | None = None
) -> nn.Module:
    """The network to upscale with: of a file, else the one that comes with the package, at x3 if no scale is given.

    weights: anything that `load_network` takes, and rgb_range and res_scale as there. Raises as `pretrained` and
    `load_network` do, and ValueError for one of these without a file.
    """
    if weights is not None:
        return load_network(weights, scale=scale, rgb_range=rgb_range, res_scale=res_scale)
    if rgb_range is not None or res_scale is not None:
        raise ValueError("--rgb-range and --res-scale are for the file of --weights, and none is given")
    return pretrained(3 if scale is None else scale)


def plan(sources: Sequence[Path], output: Path | None, scale: int, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which: photo.png becomes photo_x3.png beside it, and a folder's images go to folder_x3/.

    output: a file, for one image; or a folder, for any number. Images of a folder that are in the output folder already
    are left out, so that an interrupted call can be repeated; `overwrite` makes them anew.
    Raises ValueError or OSError for what cannot be read, written, or would be written twice.
    """
    into_folder = output is not None and (output.is_dir() or not output.suffix)
    if output is not None and not into_folder and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(f"--output {output} is one file, for several images; give a folder")
    pairs: list[tuple[Path, Path]] = []
    for source in sources:
        if source.is_dir():
            images = list_images(source)
            if not images:
                raise FileNotFoundError(f"no images in {source}; looked for {listed(IMAGE_SUFFIXES)}")
            folder = output or source.resolve().with_name(f"{source.resolve().name}_x{scale}")
            pairs += [(image, folder / f"{image.stem}.png") for image in images]
        elif not source.exists():
            raise FileNotFoundError(f"no image or folder {source}")
        elif output is None or into_folder:
            pairs.append((source, (output or source.parent) / f"{source.stem}_x{scale}.png"))
        else:
            pairs.append((source, output))
    made: dict[Path, Path] = {}
    inputs = {source.resolve() for source, _ in pairs}
    for source, target in pairs:
        if target.resolve() in inputs:
            raise ValueError(f"{source} would become {target}, which is an input; give another --output")
        if target in made:
            raise ValueError(f"{made[target]} and {source} would both become {target}; upscale them one by one")
        made[target] = source
    in_folders = {source for folder in sources if folder.is_dir() for source in list_images(folder)}
    todo = [(s, t) for s, t in pairs if overwrite or s not in in_folders or not _is_there(s, t, scale)]
    for source, target in todo:
        if source not in in_folders:
            check_target(source, target, overwrite)
    if len(todo) < len(pairs):
        print(
            f"{len(pairs) - len(todo)} of {len(pairs)} images are there already, made by this network or another; "
            "--overwrite makes them again"
        )
    return todo


def _is_there(source: Path, target: Path, scale: int) -> bool:
    """Whether an image of a folder has been upscaled already. Raises ValueError for an output of another size."""
    if not target.is_file():
        return False
    try:
        with open_image(source) as image:
            width, height = image.size
    except (*UNREADABLE, Image.DecompressionBombError):
        return False  # it is refused by name when its turn comes
    found = png_size(target)
    sizes = {(width * scale, height * scale), (height * scale, width * scale)}  # EXIF may say that it is turned
    if found not in sizes:
        size = f"of {found[0]} x {found[1]} pixels" if found else "no PNG"
        raise ValueError(
            f"{target} is there already, {size}, which is not x{scale} of {source}: --overwrite replaces it, another "
            "--output keeps it"
        )
    return True


def run(options: argparse.Namespace) -> int:
    """`python -m prffn upscale`. Returns 0; 1 if an image could not be upscaled; 130 if it was stopped."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        device, model = (
            pick_device(options.device),
            network(options.scale, options.weights, rgb_range=options.rgb_range, res_scale=options.res_scale),
        )
        todo = plan(options.sources, options.output, int(model.scale), options.overwrite)  # type: ignore[arg-type]
        tile, failed = TILE if options.tile is None else options.tile, 0
        for source, target in todo:
            try:
                width, height = upscale_file(
                    source, target, model, device=device, tile=tile, overwrite=options.overwrite
                )
                print(f"{source} -> {target}: {width} x {height}", flush=True)
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
        signal.signal(signal.SIGTERM, before)


def _stop(*_: Any) -> None:
    """SIGTERM is taken as Ctrl-C, so that the unfinished file is removed."""
    raise KeyboardInterrupt
