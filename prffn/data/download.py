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
from typing import Any, NamedTuple

import pooch
from filelock import FileLock

from prffn.data.images import IMAGE_SUFFIXES, KNOWN_SETS, how_to_get, read_image
from prffn.files import data_root, named, unknown

MAX_IMAGE_BYTES = 64 << 20
"""No image of these sets is larger: a larger member is a decompression bomb, or the archive is the wrong one."""

MAX_RATIO = 100
"""Images are compressed already: an archive that unpacks to more than this multiple of its size is a bomb."""

MAX_MEMBERS = 100_000
"""None of these archives has more."""


class UnsafeArchive(ValueError):
    """An archive is damaged, or has a member that no image set has. Nothing of it is kept."""

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
    Raises ValueError for a set that cannot be downloaded, UnsafeArchive for an archive that cannot be trusted.
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

    Members are written under their base names only, and each is decoded once. without: stems to leave out. count: how
    many images there must be. The extractors of pooch, zipfile and tarfile repair a hostile path in silence and write
    a bomb to the disk; here the whole archive is refused.
    Raises UnsafeArchive naming archive and member, for: a path that is absolute or leads upwards, anywhere; a link or
    device in place of an image; a repeated name; a damaged image; more bytes or members than such an archive has.
    Raises OSError naming archive and file if the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".part") as name:
        folder, found = Path(name), set[str]()
        for member in _checked(archive, PurePosixPath(member_folder)):
            path = member.path
            if str(path.parent) != member_folder or path.suffix.lower() not in IMAGE_SUFFIXES or path.stem in without:
                continue
            if path.name in found or len(found) == count:
                raise UnsafeArchive(archive, f"{path} comes twice, or is one image more than the {count} of the set")
            _unpack_member(archive, member, folder / path.name)
            found.add(path.name)
        if len(found) != (count or len(found) or 1):
            raise UnsafeArchive(
                archive, f"it holds {len(found) or 'no'} images in {member_folder}, not {count or 'any'}"
            )
        folder.chmod(0o755)
        folder.rename(target)


class _Member(NamedTuple):
    path: PurePosixPath
    size: int  # bytes, as the archive states it
    kind: str  # "file", "folder", "link" or "device"
    open: Callable[[], Any]


def _unpack_member(archive: Path, member: _Member, target: Path) -> None:
    if member.size > MAX_IMAGE_BYTES:
        raise UnsafeArchive(archive, f"{member.path} says it has {member.size} bytes, more than any image of the set")
    try:
        with member.open() as source, target.open("wb") as out:
            copied = out.write(source.read(MAX_IMAGE_BYTES + 1))
    except Exception as error:  # zlib, bz2, lzma, zipfile and tarfile have errors of their own
        if isinstance(error, OSError) and error.errno:
            raise named(error, target) from error
        raise UnsafeArchive(archive, f"{member.path} is damaged ({error!r})") from error
    if copied != member.size:
        raise UnsafeArchive(archive, f"{member.path} unpacks to {copied} bytes, and says it has {member.size}")
    try:
        read_image(target)
    except ValueError as error:
        raise UnsafeArchive(archive, f"{member.path} is no image") from error


def _checked(archive: Path, folder: PurePosixPath) -> Iterator[_Member]:
    """Yield the regular files of an archive; raise UnsafeArchive for what no image set has before it is read."""
    size, total = archive.stat().st_size, 0
    for number, member in enumerate(_members(archive), 1):
        path, windows = member.path, PureWindowsPath(member.path)
        total += max(0, member.size)
        if windows.anchor or ".." in windows.parts:
            raise UnsafeArchive(archive, f"{path} leads out of the folder it is unpacked to")
        if member.kind in ("link", "device") and (path.is_relative_to(folder) or folder.is_relative_to(path)):
            raise UnsafeArchive(archive, f"{path} is a {member.kind}, where an image set has images")
        if total > MAX_RATIO * size + MAX_IMAGE_BYTES:
            raise UnsafeArchive(archive, f"up to {path} it unpacks to {total} bytes, too many for its own {size}")
        if number > MAX_MEMBERS:
            raise UnsafeArchive(archive, f"{path} is member {number}, more than such an archive has")
        if member.kind == "file":
            yield member


def _members(archive: Path) -> Iterator[_Member]:
    """Yield the members of a zip or tar archive one by one. Raises UnsafeArchive if it is neither, or damaged."""
    try:
        if zipfile.is_zipfile(archive):
            kinds = {0: "file", 4: "folder", 8: "file", 10: "link"}  # of Unix; 0: none is recorded
            with zipfile.ZipFile(archive) as zipped:
                for info in zipped.infolist():
                    kind = "folder" if info.is_dir() else kinds.get(info.external_attr >> 28, "device")
                    yield _Member(PurePosixPath(info.filename), info.file_size, kind, partial(zipped.open, info))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                for entry in tar:
                    kind = "folder" if entry.isdir() else "link" if entry.issym() or entry.islnk() else "device"
                    kind = "file" if entry.isreg() else kind
                    yield _Member(PurePosixPath(entry.name), entry.size, kind, partial(tar.extractfile, entry))
        else:
            raise ValueError("neither a zip nor a tar archive")
    except Exception as error:  # zlib, bz2, lzma, zipfile and tarfile have errors of their own
        raise UnsafeArchive(archive, f"it is damaged ({error!r})") from error
