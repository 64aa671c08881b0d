"""Image sets: which files they are, and how a file is decoded."""

import hashlib
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from prffn.data.cache import add_image, cached_images
from prffn.data.degradation import ImageArray, downscale
from prffn.data.drawn import DRAWN_SETS, drawings
from prffn.files import DATA_VARIABLE, cache_root, data_root, digest, unknown, user_path, whole_number

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

READABLE = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""The formats that are read, by Pillow's names. EPS must stay out: Pillow starts Ghostscript for it."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> how to set the image upright."""

UNREADABLE = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, struct.error, zlib.error)
"""What Pillow raises for damaged files."""


@dataclass(frozen=True)
class SetSource:
    """A known image set: its folder under the data root, and how many images must be there."""

    folder: str
    count: int
    names: tuple[str, ...] = ()  # stems of the files that make up the set. Empty: all files of the folder.
    without: tuple[str, ...] = ()


_DIV2K = tuple(f"{number:04}" for number in range(1, 901))

KNOWN_SETS = {
    "DIV2K_train": SetSource("DIV2K_train_HR", 800, _DIV2K[:800]),
    "DIV2K_val": SetSource("DIV2K_valid_HR", 100, _DIV2K[800:]),
    "DIV2K_val5": SetSource("DIV2K_valid_HR", 5, _DIV2K[800:805]),  # as in EDSR and RCAN (our reading)
    "Set5": SetSource("Set5", 5),
    "Set14": SetSource("Set14", 14),
    "B100": SetSource("B100", 100),
    "Urban100": SetSource("Urban100", 100),
    "Manga109": SetSource("Manga109", 109),
    "T91": SetSource("T91", 91),  # Yang et al., TIP 2010
    # The training images of BSDS300. Set5's `woman` is a reduced copy of 302003, which is left out.
    "BSD200": SetSource("BSD200", 199, without=("302003",)),
}

EMBEDDED_SETS = {
    "embedded_train": ("astronaut.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg"),
    "embedded_val": ("chelsea.png", "coffee.png", "rocket.jpg"),
}
"""Photographs inside the scikit-image wheel, in a fixed split; they need no download."""

RECORDED_CHECKSUMS = {
    "drawn": "42d7203a66908f5b3e39247867914be4e868b02091e78e3183f9247565ff21fa",
    "lettering": "4cfd998f51198784bce8bbb7ad4f45fabc40fb39f446c9cef356053f45586ec2",
    "Set5": "7193940992efe5a7b57d765d08d4ee0d0fbbb8d3161d52d4e549d267e7b0fd85",
    "B100": "ad8d05a3825339301f4da9263a259bf7d49e509c37fd1cd770497fd64277424b",
    "T91": "ab53f1ce56fb474c22e338e952da0d8ddea7d83493546d2146fbeebfcd3ba8d5",
    "BSD200": "c7e4b133cc2e08f877c694876934fe98b7fe289ef20734527249a7ec479a2820",
}
"""Checksums of the recorded study's images: its records are found even if the images are not downloaded."""


@dataclass(frozen=True)
class ImageSet:
    """The HR images of one set, sorted by name: (H, W, 3) uint8 each, read-only."""

    name: str
    image_names: tuple[str, ...]
    images: tuple[ImageArray, ...]
    checksum: str  # of names and pixels, so it is the same for every file format
    sampled: frozenset[str] = frozenset()  # drawings whose LR images are every scale-th pixel, so edges are hard too

    def __len__(self) -> int:
        return len(self.images)


def open_image(source: Path | IO[bytes], formats: tuple[str, ...] = READABLE) -> ImageFile.ImageFile:
    """Open an image file with Pillow; the pixels are not read yet.

    Raises PIL.UnidentifiedImageError, an OSError, if the content is of none of the formats.
    """
    try:
        return Image.open(source, formats=formats)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"by its content it is not {' or '.join(formats)}") from None


def read_image(path: Path) -> ImageArray:
    """Decode an 8-bit image file to (H, W, 3) RGB, uint8.

    Gray and palette images become RGB, alpha is dropped, and the EXIF orientation is applied. Damage is always noticed
    in PNG files only: other formats have no checksums.
    Raises ValueError naming the file if it is damaged, no image, of more than 8 bits, or in other colours than RGB;
    OSError if the system cannot read it.
    """
    try:
        check_png(path)
        with open_image(path) as file:
            if file.mode not in ("RGB", "L", "P", "1", "LA", "RGBA"):
                unusable = f"of mode {file.mode}"
            elif ";16" in str(file.tile):  # of colours Pillow reads only the upper 8 bits
                unusable = "of 16 bits a channel"
            else:
                file.load()
                turn = TURNS.get(_orientation(file))
                image = file.convert("RGBA" if file.has_transparency_data else "RGB").convert("RGB")
                return np.asarray(image if turn is None else image.transpose(turn))
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise_if_of_system(error, path)
        raise ValueError(f"{path} cannot be decoded as an image ({error}); replace the file") from error
    raise ValueError(f"{path}: images {unusable} are not supported: convert it to RGB of 8 bits")


def raise_if_of_system(error: Exception, path: Path) -> None:
    """Raise OSError naming the file if the system could not read it (no permission, a broken disk)."""
    if isinstance(error, OSError) and error.errno:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if EXIF has none or is damaged."""
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        return 1


def check_png(path: Path) -> None:
    """Compare the checksums of all chunks of a PNG file: decoding skips some. Raises SyntaxError for a damaged one."""
    with open_image(path) as file:
        if file.format == "PNG":
            file.verify()


def _source_files(name: str) -> list[Path]:
    """The files of a set, in order. Raises as `image_set` does."""
    if name in EMBEDDED_SETS:
        return [Path(str(resources.files("skimage") / "data" / file)) for file in EMBEDDED_SETS[name]]
    if name in KNOWN_SETS:
        return _files_of_known_set(name)
    folder = user_path(name)
    if not name or not folder.is_dir():
        choices = unknown("image set", name, [*KNOWN_SETS, *EMBEDDED_SETS, *DRAWN_SETS])
        raise ValueError(f"{choices}, the path of a folder, or several of these joined by +")
    files = list_images(folder)
    if not files:
        raise FileNotFoundError(f"no images in {folder}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return files


def _files_of_known_set(name: str) -> list[Path]:
    source = KNOWN_SETS[name]
    folder = data_root() / source.folder
    if not folder.is_dir():
        raise FileNotFoundError(how_to_get(name, folder))
    files = [f for f in list_images(folder) if f.stem in (source.names or {f.stem}) and f.stem not in source.without]
    if len(files) != source.count:
        found = f"{folder} holds {len(files)} of {source.count} images of {name}"
        raise FileNotFoundError(f"{found}: remove the folder and run: python -m prffn data get {name}")
    return files


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())


def how_to_get(name: str, folder: Path) -> str:
    """The error text for a known set that is not in its folder."""
    if name == "Manga109":
        missing = f"image set Manga109 is not in {folder}. Its licence forbids redistribution"
        return f"{missing}: ask for it at manga109.org, and put its 109 images there"
    return f"image set {name} is not in {folder}: python -m prffn data get {name} (or set {DATA_VARIABLE})"


def sets_in(name: str) -> list[str]:
    """Return the names of the sets that a name joins by +; a folder's name may hold a + itself."""
    return [name] if user_path(name).is_dir() else name.split("+")


def is_named(name: str) -> bool:
    """Return whether a single set is known by this name; otherwise it is the path of a folder."""
    return name in KNOWN_SETS or name in EMBEDDED_SETS or name in DRAWN_SETS


@lru_cache(maxsize=16)
def image_set(name: str) -> ImageSet:
    """Return an image set by name, of KNOWN_SETS, EMBEDDED_SETS or DRAWN_SETS, or the images of a folder by its path.

    Sets joined by +, as in "BSD200+drawn", are one set, in which each image counts once. The images are decoded once
    into the cache, and memory-mapped from there.
    Raises ValueError for an unknown name or a damaged image, FileNotFoundError for a set that is not downloaded.
    """
    if len(parts := sets_in(name)) > 1:
        sets = [image_set(part) for part in parts]
        names = tuple(f"{s.name}/{n}" for s in sets for n in s.image_names)
        images = tuple(image for s in sets for image in s.images)
        sampled = frozenset(f"{s.name}/{n}" for s in sets for n in s.sampled)
        return ImageSet(set_label(name), names, images, digest([s.checksum for s in sets]), sampled)
    if name in DRAWN_SETS:
        return _drawn_set(name)
    files = _source_files(name)
    label = set_label(name)
    where = hashlib.sha256(str(files[0].parent.resolve()).encode()).hexdigest()[:8]
    folder = cache_root() / "images" / f"{label}-{where}" / "hr"
    fingerprint = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    decoded = ((f.stem, read_image(f)) for f in files)
    images, checksum = cached_images(folder, str(files[0].parent), fingerprint, decoded)
    return ImageSet(label, tuple(f.stem for f in files), images, checksum)


@lru_cache(maxsize=len(DRAWN_SETS))
def _drawn_set(of_set: str) -> ImageSet:
    names, images = zip(*drawings(of_set), strict=True)
    total = hashlib.sha256()
    for name, image in zip(names, images, strict=True):
        add_image(total, name, image)
        image.flags.writeable = False
    return ImageSet(of_set, names, images, total.hexdigest(), frozenset(n for n in names if n.startswith("hard")))


def set_label(name: str) -> str:
    """The name of a set in records: its own, or that of a folder without the path; joined by + as in `image_set`."""
    return "+".join(part if is_named(part) else user_path(part).resolve().name for part in sets_in(name))


def set_checksum(name: str) -> str:
    """Return the checksum of a set's images; that of the recorded study's images if the set is not downloaded.

    Warns if the images differ from the recorded study's: runs on them do not find its records.
    """
    if len(parts := sets_in(name)) > 1:
        return digest([set_checksum(part) for part in parts])
    try:
        found = image_set(name).checksum
    except FileNotFoundError:
        if name not in RECORDED_CHECKSUMS:
            raise
        return RECORDED_CHECKSUMS[name]
    if found != RECORDED_CHECKSUMS.get(name, found):
        warnings.warn(f"the images of {name} are not those of the recorded study: runs on them are new", stacklevel=2)
    return found


def lr_images(hr: ImageSet, scale: int) -> tuple[ImageArray, ...]:
    """Return the LR image of each HR image, (H / scale, W / scale, 3) uint8, made by `downscale` or sampled; cached."""
    scale = whole_number("scale", scale)
    folder = cache_root() / "images" / f"{hr.name}-{hr.checksum[:8]}" / f"x{scale}"
    pairs = zip(hr.image_names, hr.images, strict=True)
    made = ((name, _lr_image(hr, name, image, scale)) for name, image in pairs)
    return cached_images(folder, hr.name, [hr.checksum, scale], made)[0]


def _lr_image(of_set: ImageSet, name: str, image: ImageArray, scale: int) -> ImageArray:
    if name in of_set.sampled:
        return image[scale // 2 :: scale, scale // 2 :: scale]  # half an HR pixel off at even scales
    try:
        return downscale(image, scale)
    except ValueError as error:
        raise ValueError(f"image {name} of {of_set.name}: {error}; leave it out") from error
