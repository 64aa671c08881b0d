"""Decoded images in a folder, memory-mapped. images.json holds the shape and checksum of each."""

import hashlib
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from prffn.data.degradation import ImageArray
from prffn.files import DamagedRecord, atomic_write, read_record, save_record

Images = tuple[tuple[ImageArray, ...], str]  # images and their checksum


def cached_images(folder: Path, source: str, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> Images:
    """Return the images of a folder and their checksum; make them unless whole ones with this fingerprint are there.

    make: yields each image with its name. source: where they come from, for warnings. If several processes ask at
    once, one of them makes the images.
    """
    found = _load(folder, fingerprint)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            found = _load(folder, fingerprint) or _store(folder, source, fingerprint, make)
    return found


def _load(folder: Path, fingerprint: list) -> Images | None:
    try:
        record = read_record(folder / "images.json")
        if record["fingerprint"] != fingerprint:
            return None
        images = [np.load(folder / entry["file"], mmap_mode="r", allow_pickle=False) for entry in record["files"]]
        for entry, image in zip(record["files"], images, strict=True):
            found = list(image.shape), zlib.crc32(image.data)
            if image.dtype != np.uint8 or found != (entry["shape"], entry["crc32"]):
                raise ValueError(f"{entry['file']} is damaged")
        return tuple(images), record["checksum"]
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy's reader of headers raises many kinds
        warnings.warn(f"image cache {folder}: {error}; it is made again", stacklevel=4)
        return None


def _store(folder: Path, source: str, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> Images:
    try:
        before = {entry["name"]: entry["crc32"] for entry in read_record(folder / "images.json")["files"]}
    except (FileNotFoundError, DamagedRecord):
        before = {}
    digest, images = hashlib.sha256(), []
    entries: list[dict[str, Any]] = []
    for number, (name, image) in enumerate(make):
        image = np.ascontiguousarray(image)
        path, crc32 = folder / f"{number:05d}.npy", zlib.crc32(image.data)
        with atomic_write(path) as out:
            np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(image))
            out.write(image.data)  # its error says why; np.save's does not
        if before.get(name, crc32) != crc32:
            changed = f"image {name} of {source} is not what it was when last decoded: runs on it are new"
            warnings.warn(f"{changed}. If you did not replace the file, bring it back", stacklevel=4)
        entries.append({"name": name, "file": path.name, "shape": list(image.shape), "crc32": crc32})
        images.append(np.load(path, mmap_mode="r", allow_pickle=False))
        add_image(digest, name, image)
    checksum = digest.hexdigest()
    content = {"key": "images", "fingerprint": fingerprint, "checksum": checksum, "files": entries}
    save_record(folder, "images", content)
    return tuple(images), checksum


def add_image(total: "hashlib._Hash", name: str, image: ImageArray) -> None:
    """Add an image's name, shape and pixels to a checksum."""
    total.update(f"{name} {image.shape}\n".encode())
    total.update(image.data)
