"""A folder of decoded images, memory-mapped."""

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

_Images = tuple[tuple[ImageArray, ...], str]
"""Images and their checksum."""


class ImageCache:
    """Decoded images in one folder, memory-mapped. images.json holds the shape and checksum of each, which are
    compared whenever the folder is opened."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self.source = folder, source
        self.record = folder / "images.json"

    def get(self, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> _Images:
        """Return the images and their checksum; make them unless whole ones with this fingerprint are there.

        make: yields each image with its name. If several processes ask at once, one of them makes the images.
        """
        cached = self._load(fingerprint)
        if cached is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                cached = self._load(fingerprint) or self._store(fingerprint, make)
        if cached is None:
            raise OSError(f"the image cache {self.folder} cannot be read back; remove it and check the disk")
        return cached

    def _load(self, fingerprint: list) -> _Images | None:
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
        except Exception as error:  # NumPy's reader of headers raises many kinds
            warnings.warn(f"image cache {self.folder}: {error}; it is made anew", stacklevel=4)
            return None

    def _store(self, fingerprint: list, make: Iterable[tuple[str, ImageArray]]) -> _Images | None:
        digest = hashlib.sha256()
        entries: list[dict[str, Any]] = []
        before = self._sums()
        for number, (name, image) in enumerate(make):
            image = np.ascontiguousarray(image)
            path = self.folder / f"{number:05d}.npy"
            with atomic_write(path) as out:
                np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(image))
                out.write(image.data)  # its error says why; np.save's does not
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
        return self._load(fingerprint)

    def _sums(self) -> dict[str, int]:
        """The checksum of each image by name when it was last stored; {} if that is unknown."""
        try:
            return {entry["name"]: entry["crc32"] for entry in read_record(self.record)["files"]}
        except (FileNotFoundError, DamagedRecord):
            return {}
