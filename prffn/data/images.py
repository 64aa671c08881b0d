"""Image sets, decoded once into a cache, and random LR/HR patches."""

import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from prffn.data.degradation import ImageArray, downscale, mod_crop
from prffn.files import (
    DATA_VARIABLE,
    DamagedRecord,
    atomic_write,
    cache_root,
    data_root,
    read_record,
    save_record,
    unknown,
    user_path,
    whole_number,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

READABLE = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of what is read, whatever a file is called. For EPS, which it knows too, it starts Ghostscript."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: how to set an image upright."""

UNREADABLE = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, struct.error, zlib.error)
"""What Pillow raises for damaged files."""


@dataclass(frozen=True)
class SetSource:
    """Where a known image set lies under the data root, and what must be there."""

    folder: str
    count: int
    names: tuple[str, ...] = ()
    """File names without their endings: these files are the set, and no others. Empty: all that are there."""
    without: tuple[str, ...] = ()


def _numbered(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{number:04}" for number in range(first, last + 1))


KNOWN_SETS = {
    "DIV2K_train": SetSource("DIV2K_train_HR", 800, _numbered(1, 800)),
    "DIV2K_val": SetSource("DIV2K_valid_HR", 100, _numbered(801, 900)),
    "DIV2K_val5": SetSource("DIV2K_valid_HR", 5, _numbered(801, 805)),  # as in EDSR and RCAN (our reading)
    "Set5": SetSource("Set5", 5),
    "Set14": SetSource("Set14", 14),
    "B100": SetSource("B100", 100),
    "Urban100": SetSource("Urban100", 100),
    "Manga109": SetSource("Manga109", 109),
    # The training images of BSDS300. Set5's `woman` is a reduced copy of 302003, which is left out.
    "BSD200": SetSource("BSD200", 199, without=("302003",)),
}

EMBEDDED_SETS = {
    "embedded_train": (
        "astronaut.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "retina.jpg",
    ),
    "embedded_val": ("chelsea.png", "coffee.png", "rocket.jpg"),
}
"""Photographs inside the scikit-image wheel: always at hand, a fixed split."""

RECORDED_CHECKSUMS = {
    "Set5": "7193940992efe5a7b57d765d08d4ee0d0fbbb8d3161d52d4e549d267e7b0fd85",
    "B100": "ad8d05a3825339301f4da9263a259bf7d49e509c37fd1cd770497fd64277424b",
    "BSD200": "c7e4b133cc2e08f877c694876934fe98b7fe289ef20734527249a7ec479a2820",
}
"""Checksums of the images that the recorded study used, so that its records are found where the images are not."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one set in the order of their names: HR, (H, W, 3) uint8 each, read-only."""

    name: str
    image_names: tuple[str, ...]
    images: tuple[ImageArray, ...]
    checksum: str
    """Of all names and pixels: the same images give the same checksum, from whatever file format."""

    def __len__(self) -> int:
        return len(self.images)


def open_image(source: Path | IO[bytes], formats: tuple[str, ...] = READABLE) -> ImageFile.ImageFile:
    """An image file as Pillow opens it, its pixels not yet read; by its content it must be one of the formats.

    Raises PIL.UnidentifiedImageError, an OSError, for anything else.
    """
    try:
        return Image.open(source, formats=formats)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"by its content it is not {' or '.join(formats)}") from None


def read_image(path: Path) -> ImageArray:
    """Decodes an 8-bit image file to (H, W, 3) RGB, uint8. Gray and palette images become RGB; alpha is dropped; what
    EXIF says is turned is set upright.

    Raises ValueError naming the file if it is damaged, no image, or of more than 8 bits or other colours than RGB, and
    OSError if the system cannot read it. Only PNG files have checksums: in another format damage may pass for another
    image.
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
    raise ValueError(
        f"{path}: images {unusable} are not supported; convert it to 8-bit RGB, for example with Pillow's "
        "Image.convert('RGB')"
    )


def raise_if_of_system(error: Exception, path: Path) -> None:
    """Raises OSError naming the file if the system could not read it (no permission, a broken disk)."""
    if isinstance(error, OSError) and error.errno:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _orientation(file: Image.Image) -> int:
    """As EXIF says it; 1, upright, where it says nothing that can be read."""
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        return 1


def check_png(path: Path) -> None:
    """Compares the checksums of a PNG file's chunks, also of those that decoding passes over. Raises SyntaxError."""
    with open_image(path) as file:
        if file.format == "PNG":
            file.verify()


def _source_files(name: str) -> list[Path]:
    """The files of a set in order. Raises FileNotFoundError with the way to get a missing set."""
    if name in EMBEDDED_SETS:
        folder = Path(str(resources.files("skimage") / "data"))
        return [folder / file for file in EMBEDDED_SETS[name]]
    if name in KNOWN_SETS:
        source = KNOWN_SETS[name]
        folder = data_root() / source.folder
        if not folder.is_dir():
            raise FileNotFoundError(how_to_get(name, folder))
        files = [f for f in list_images(folder) if f.stem not in source.without]
        files = [f for f in files if not source.names or f.stem in source.names]
        if len(files) != source.count:
            missing = sorted(set(source.names) - {f.stem for f in files})
            raise FileNotFoundError(
                f"image set {name}: {folder} holds {len(files)} of {source.count} images"
                f"{f', without {missing[0]}' if missing else ''}; remove the folder and run: "
                f"python -m prffn data get {name}"
            )
        return files
    folder = user_path(name)
    if not folder.is_dir():
        raise ValueError(unknown("image set", name, [*KNOWN_SETS, *EMBEDDED_SETS]) + ", or the path of a folder")
    files = list_images(folder)
    if not files:
        raise FileNotFoundError(f"no images in {folder}; looked for {', '.join(IMAGE_SUFFIXES)}")
    return files


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name, without its subfolders."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())


def how_to_get(name: str, folder: Path) -> str:
    if name == "Manga109":
        return (
            f"image set Manga109 is not in {folder}. Its licence forbids redistribution: ask for it at manga109.org, "
            f"and put the 109 images of the benchmark into that folder (or set {DATA_VARIABLE})"
        )
    return (
        f"image set {name} is not in {folder}. Get it with: python -m prffn data get {name} (or set {DATA_VARIABLE} "
        f"to a folder that holds {folder.name}/)"
    )


@lru_cache(maxsize=16)
def image_set(name: str) -> ImageSet:
    """An image set by name, or any folder by path: decoded once into the cache, then read from there.

    Names: DIV2K_train, DIV2K_val, DIV2K_val5, BSD200, Set5, Set14, B100, Urban100, Manga109, embedded_train,
    embedded_val. Raises ValueError for an unknown name or a damaged image, FileNotFoundError for a missing set.
    """
    files = _source_files(name)
    label = set_label(name)
    where = hashlib.sha256(str(files[0].parent.resolve()).encode()).hexdigest()[:8]
    cached = _Cache(cache_root() / "images" / f"{label}-{where}" / "hr", str(files[0].parent))
    fingerprint = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    images, checksum = cached.get(fingerprint, ((f.stem, read_image(f)) for f in files))
    return ImageSet(label, tuple(f.stem for f in files), images, checksum)


def set_label(name: str) -> str:
    """What a set is called in records: its name, or a folder's own name without its path."""
    return name if name in KNOWN_SETS or name in EMBEDDED_SETS else user_path(name).resolve().name


def set_checksum(name: str) -> str:
    """Checksum of a set's images: of those at hand, else of those that the recorded study used.

    Warns if those at hand are not the study's: its records are then of other images, and are not found.
    """
    recorded = RECORDED_CHECKSUMS.get(name)
    try:
        found = image_set(name).checksum
    except FileNotFoundError:
        if recorded is None:
            raise
        return recorded
    if recorded is not None and found != recorded:
        warnings.warn(
            f"the images of {name} at hand are not those of the recorded study: runs on them are new", stacklevel=2
        )
    return found


def lr_images(hr: ImageSet, scale: int) -> tuple[ImageArray, ...]:
    """The LR image of each HR image, by the benchmark's degradation, from the cache."""
    scale = whole_number("scale", scale)
    cached = _Cache(cache_root() / "images" / f"{hr.name}-{hr.checksum[:8]}" / f"x{scale}", hr.name)
    fingerprint = [hr.checksum, scale]
    pairs = zip(hr.image_names, hr.images, strict=True)
    images, _ = cached.get(fingerprint, ((name, _lr_image(hr.name, name, image, scale)) for name, image in pairs))
    return images


def _lr_image(of_set: str, name: str, image: ImageArray, scale: int) -> ImageArray:
    try:
        return downscale(image, scale)
    except ValueError as error:
        raise ValueError(f"image {name} of {of_set}: {error}; leave it out") from error


class _Cache:
    """Decoded images in one folder, memory-mapped. A record of the folder, with its own checksum, holds the shape and
    the sum of each, which are checked when it is opened."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self.source = folder, source
        self.record = folder / "images.json"

    def get(self, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> tuple[tuple[ImageArray, ...], str]:
        """The images and their checksum; made anew unless they are there, come from the same files, and are whole.

        fingerprint: says of what the images are made. make: yields each image with its name. One process makes them
        where several ask at once.
        """
        cached = self._load(fingerprint)
        if cached is not None:
            return cached
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            cached = self._load(fingerprint)
            if cached is None:
                self._store(fingerprint, make)
                cached = self._load(fingerprint)
        if cached is None:
            raise OSError(f"the image cache {self.folder} cannot be read back; remove it and check the disk")
        return cached

    def _load(self, fingerprint: list) -> tuple[tuple[ImageArray, ...], str] | None:
        try:
            record = read_record(self.record)
            if record["fingerprint"] != fingerprint:
                return None
            images = []
            for entry in record["files"]:
                path = self.folder / entry["file"]
                image = np.load(path, mmap_mode="r", allow_pickle=False)
                found = {"file": path.name, "shape": list(image.shape), "crc32": zlib.crc32(image.data)}
                if image.dtype != np.uint8 or found != {key: entry[key] for key in found}:
                    raise ValueError(f"{path} is damaged")
                images.append(image)
            return tuple(images), record["checksum"]
        except FileNotFoundError:
            return None
        except Exception as error:  # NumPy's reader of headers has many of its own
            warnings.warn(f"image cache {self.folder}: {error}; it is made anew", stacklevel=4)
            return None

    def _store(self, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> None:
        digest = hashlib.sha256()
        entries: list[dict[str, Any]] = []
        before = self._sums()
        for number, (name, image) in enumerate(make):
            image = np.ascontiguousarray(image)
            path = self.folder / f"{number:05d}.npy"
            with atomic_write(path) as out:
                np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(image))
                out.write(image.data)  # unlike np.save, it says why it fails
            crc32 = zlib.crc32(image.data)
            if before.get(name, crc32) != crc32:
                warnings.warn(
                    f"image {name} of {self.source} is not what it was when it was last decoded: runs on it are new. "
                    "If you did not replace the file, it is damaged: bring it back",
                    stacklevel=4,
                )
            entries.append({"name": name, "file": path.name, "shape": list(image.shape), "crc32": crc32})
            digest.update(f"{name} {image.shape}\n".encode())
            digest.update(image.data)
        content = {"fingerprint": fingerprint, "checksum": digest.hexdigest(), "files": entries}
        save_record(self.folder, self.record.stem, {"key": self.record.stem, **content})

    def _sums(self) -> dict[str, int]:
        """Of each image by name, as they were the last time; {} where that is not known."""
        try:
            return {entry["name"]: entry["crc32"] for entry in read_record(self.record)["files"]}
        except (FileNotFoundError, DamagedRecord):
            return {}


class PatchSampler:
    """Random LR patches and the HR patches they come from, with flips and quarter turns, all drawn from `generator`.

    hr: images (H, W, 3) uint8; scale: 2, 3 or 4; patch_size: LR pixels. Each image is equally likely, then each place.
    Raises ValueError if an image is smaller than a patch.
    """

    def __init__(
        self,
        hr: Sequence[ImageArray],
        lr: Sequence[ImageArray],
        *,
        scale: int,
        patch_size: int,
        batch_size: int,
        generator: torch.Generator,
        names: Sequence[str] = (),
    ) -> None:
        for number, image in enumerate(lr):
            if min(image.shape[:2]) < patch_size:
                name = names[number] if names else number
                raise ValueError(
                    f"image {name} is {image.shape[1]} x {image.shape[0]} pixels at LR, smaller than a patch of "
                    f"{patch_size}; leave it out or use a smaller data.patch_size"
                )
        self.pairs = list(zip((mod_crop(image, scale) for image in hr), lr, strict=True))
        self.scale, self.patch_size, self.batch_size = scale, patch_size, batch_size
        self.generator = generator

    def batch(self) -> tuple[Tensor, Tensor]:
        """The next batch: LR (N, 3, p, p) and HR (N, 3, p * scale, p * scale), float32 in [0, 1]."""
        p, s = self.patch_size, self.scale
        lr = np.empty((self.batch_size, p, p, 3), np.uint8)
        hr = np.empty((self.batch_size, p * s, p * s, 3), np.uint8)
        draws = torch.rand(self.batch_size, 4, generator=self.generator, dtype=torch.float64).tolist()
        for n, (which, down, across, turn) in enumerate(draws):
            hr_image, lr_image = self.pairs[int(which * len(self.pairs))]
            top = int(down * (lr_image.shape[0] - p + 1))
            left = int(across * (lr_image.shape[1] - p + 1))
            symmetry = int(turn * 8)  # of the square's eight
            lr[n] = _turned(lr_image[top : top + p, left : left + p], symmetry)
            hr[n] = _turned(hr_image[top * s : (top + p) * s, left * s : (left + p) * s], symmetry)
        return to_tensor(lr), to_tensor(hr)


def _turned(patch: ImageArray, symmetry: int) -> ImageArray:
    if symmetry & 1:
        patch = patch[::-1]
    if symmetry & 2:
        patch = patch[:, ::-1]
    return patch.swapaxes(0, 1) if symmetry & 4 else patch


def to_tensor(images: ImageArray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1], a copy in the memory format channels_last."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)


def to_image(tensor: Tensor) -> ImageArray:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8, clipped and rounded."""
    values = tensor.detach().float().clamp(0, 1).mul(255).round()
    return values.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
