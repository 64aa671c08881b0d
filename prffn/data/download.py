"""Official archives of the image sets: download, compare with the checksum, unpack to where `image_set` looks.

Sizes and checksums are those recorded in public code (tensorflow/datasets, torchSR, tensorpack, deepinv).
"""

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pooch
from filelock import FileLock

from prffn.data.images import IMAGE_SUFFIXES, KNOWN_SETS, how_to_get, read_image
from prffn.files import data_root, named, unknown


class DamagedArchive(ValueError):
    """An archive does not hold the images that it should."""

    def __init__(self, archive: Path, why: str) -> None:
        super().__init__(f"{archive}: {why}. Nothing of it is kept; remove it and download the official one again")


@dataclass(frozen=True)
class Archive:
    """An official archive. members: image set -> its folder inside the archive."""

    url: str
    checksum: str
    members: dict[str, str]


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


def get(name: str, *, archives: tuple[Archive, ...] = ARCHIVES, progress: bool = True) -> Path:
    """Return the folder of an image set; download and unpack its archive if the folder is missing.

    A download with a wrong checksum is repeated, never unpacked. The archive's other sets are unpacked too.
    Raises ValueError for a set that cannot be downloaded, DamagedArchive for an archive without the images.
    """
    of_folder = {KNOWN_SETS[image_set].folder: archive for archive in archives for image_set in archive.members}
    downloadable = [image_set for image_set, source in KNOWN_SETS.items() if source.folder in of_folder]
    if name in KNOWN_SETS and name not in downloadable:
        raise ValueError(how_to_get(name, data_root() / KNOWN_SETS[name].folder))
    if name not in downloadable:
        raise ValueError(unknown("image set", name, downloadable))
    folder = data_root() / KNOWN_SETS[name].folder
    if not folder.is_dir():
        data_root().mkdir(parents=True, exist_ok=True)
        with FileLock(data_root() / ".download.lock"):
            if not folder.is_dir():  # another process may have made it while this one waited
                _remove_leftovers()
                _download(of_folder[folder.name], progress)
    return folder


def _remove_leftovers() -> None:
    """Remove what killed downloads left: pooch's temporary files, and partly unpacked folders."""
    for path in (data_root() / "downloads").glob("tmp*"):
        path.unlink()
    for source in KNOWN_SETS.values():
        for folder in data_root().glob(f".{source.folder}.*.part"):
            shutil.rmtree(folder)


def _download(archive: Archive, progress: bool) -> None:
    """Download an archive, unpack those of its sets that are missing, and remove the archive."""
    name = PurePosixPath(archive.url).name
    urls, registry = {name: archive.url}, {name: archive.checksum}
    store = pooch.create(data_root() / "downloads", "", registry=registry, urls=urls, retry_if_failed=3)
    try:
        file = Path(store.fetch(name, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60)))
    except OSError as error:
        if error.errno and not error.filename:  # of the disk: those of the network name the address
            raise named(error, store.abspath / name) from error
        raise
    for image_set, member_folder in archive.members.items():
        source = KNOWN_SETS[image_set]
        if not (data_root() / source.folder).is_dir():
            unpack(file, member_folder, data_root() / source.folder, without=source.without, count=source.count)
    file.unlink()


def unpack(
    archive: Path, member_folder: str, target: Path, *, without: tuple[str, ...] = (), count: int | None = None
) -> None:
    """Unpack the images directly in one folder of a zip or tar archive to `target`: all of them, or nothing.

    Only regular files in that very folder are read, each is written under its base name and decoded once: no path or
    link of the archive is followed. That it is the official one, and no bomb, `get` knows by its checksum.
    without: stems to leave out. count: how many images there must be.
    Raises DamagedArchive naming the archive; OSError naming the file that cannot be written, if the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".part") as name:
        folder, path = Path(name), PureWindowsPath(member_folder)
        try:
            for path, opened in _members(archive):
                wanted = path.parent.as_posix() == member_folder and path.suffix.lower() in IMAGE_SUFFIXES
                if wanted and path.stem not in without:
                    with opened() as source:
                        (folder / path.name).write_bytes(source.read())
                    read_image(folder / path.name)
        except Exception as error:  # zlib, bz2, lzma, zipfile and tarfile have errors of their own
            if isinstance(error, OSError) and error.errno:
                raise named(error, folder / path.name) from error
            what = f"{path.as_posix()} is damaged, or no image ({type(error).__name__})"
            raise DamagedArchive(archive, what) from error
        found = len(list(folder.iterdir()))
        if found != (count or found or 1):
            raise DamagedArchive(archive, f"it holds {found or 'no'} images in {member_folder}, not {count or 'any'}")
        folder.chmod(0o755)
        folder.rename(target)


def _members(archive: Path) -> Iterator[tuple[PureWindowsPath, Callable[[], Any]]]:
    """Yield each regular file of a zip or tar archive: its path, with / or \\ between folders, and how to open it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                yield PureWindowsPath(info.filename), partial(zipped.open, info)
    else:
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isreg():
                    yield PureWindowsPath(entry.name), partial(tar.extractfile, entry)
