"""Official archives of the image sets: downloaded with a checksum, unpacked safely, put where `image_set` looks.

Sizes and checksums are those recorded in public code (tensorflow/datasets, torchSR, tensorpack, deepinv).
"""

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import pooch

from prffn.config import unknown
from prffn.data import IMAGE_SUFFIXES, KNOWN_SETS, read_image
from prffn.paths import data_root

MAX_IMAGE_BYTES = 64 << 20
"""No image of these sets has more: a larger member is not unpacked (a decompression bomb, or a wrong archive)."""


class UnsafeArchive(ValueError):
    """An archive has a member that no image set has: nothing of it is kept."""


@dataclass(frozen=True)
class Archive:
    """One official archive: where it is, its checksum, and which of its folders becomes which image set."""

    url: str
    checksum: str
    members: dict[str, str]
    """Image set -> folder inside the archive."""

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.url).name


ARCHIVES = (
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",  # 3,530,603,713 bytes
        "sha256:9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        {"DIV2K_train": "DIV2K_train_HR"},
    ),
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",  # 448,993,893 bytes
        "sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        {"DIV2K_val": "DIV2K_valid_HR"},
    ),
    Archive(
        "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",  # about 250 MB
        "md5:4ace41d33c2384b97e6b320cd0afd6ba",
        {name: f"benchmark/{name}/HR" for name in ("Set5", "Set14", "B100", "Urban100")},
    ),
    Archive(
        "https://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",  # 70,763,455 bytes
        "md5:0b17383ff0b21fe43d2f28e624203169",
        {"BSD200": "BSR/BSDS500/data/images/train"},
    ),
)

ALIASES = {"DIV2K_val5": "DIV2K_val"}
"""Sets that are part of another set's folder."""


def get(name: str, *, archives: tuple[Archive, ...] = ARCHIVES, progress: bool = True) -> Path:
    """Downloads and unpacks the archive of an image set unless the set is there. Returns the set's folder.

    A broken download is retried, and never unpacked; the other sets of the same archive are unpacked as well.
    Raises ValueError for a set that cannot be downloaded, UnsafeArchive for an archive that is not what it should be.
    """
    name = ALIASES.get(name, name)
    downloadable = {image_set: archive for archive in archives for image_set in archive.members}
    if name == "Manga109":
        raise ValueError(
            "Manga109 cannot be downloaded freely: ask for it at manga109.org and put the 109 images into "
            f"{data_root() / KNOWN_SETS['Manga109'].folder}"
        )
    if name not in downloadable:
        raise ValueError(unknown("image set", name, [*downloadable, *ALIASES]))
    folder = data_root() / KNOWN_SETS[name].folder
    if folder.is_dir():
        return folder
    archive = downloadable[name]
    downloads = data_root() / "downloads"
    store = pooch.create(
        path=downloads, base_url="", registry={archive.file_name: archive.checksum},
        urls={archive.file_name: archive.url}, retry_if_failed=3,
    )  # fmt: skip
    file = Path(store.fetch(archive.file_name, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60)))
    for image_set, member_folder in archive.members.items():
        target = data_root() / KNOWN_SETS[image_set].folder
        if not target.is_dir():
            unpack(file, member_folder, target, without=KNOWN_SETS[image_set].without)
    file.unlink()
    return folder


def unpack(archive: Path, member_folder: str, target: Path, *, without: tuple[str, ...] = ()) -> None:
    """Unpacks the images that lie in one folder of a zip or tar archive to `target`, all of them or nothing.

    Only regular files of that very folder are read, only their base names are used, sizes are bounded and each
    image is decoded once: no path of the archive reaches the disk. Raises UnsafeArchive naming the member.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        count = 0
        for path, size, open_member in _members(archive):
            if str(path.parent) != member_folder or path.suffix.lower() not in IMAGE_SUFFIXES or path.stem in without:
                continue
            if size > MAX_IMAGE_BYTES:
                raise UnsafeArchive(f"{archive.name}: {path} says it has {size} bytes, more than any image of the set")
            with open_member() as source, (partial / path.name).open("wb") as out:
                copied = _copy_at_most(source, out, MAX_IMAGE_BYTES)
            if copied > MAX_IMAGE_BYTES:
                raise UnsafeArchive(f"{archive.name}: {path} unpacks to more than {MAX_IMAGE_BYTES} bytes")
            try:
                read_image(partial / path.name)
            except ValueError as error:
                raise UnsafeArchive(f"{archive.name}: {path} is no image") from error
            count += 1
        if not count:
            raise UnsafeArchive(f"{archive.name} holds no images in {member_folder}")
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_at_most(source: IO[bytes], out: IO[bytes], limit: int) -> int:
    copied = 0
    while copied <= limit and (chunk := source.read(1 << 20)):
        copied += out.write(chunk)
    return copied


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], IO[bytes]]]]:
    """Path, stated size and opener of each regular file of a zip or tar archive; links and devices are passed over."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and (info.external_attr >> 28) in (0, 8):  # no type recorded, or a regular file
                    yield PurePosixPath(info.filename), info.file_size, lambda info=info: zipped.open(info)  # type: ignore
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg():
                    yield PurePosixPath(member.name), member.size, lambda member=member: tar.extractfile(member)  # type: ignore
    else:
        raise UnsafeArchive(f"{archive} is neither a zip nor a tar archive")
