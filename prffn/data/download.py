"""Official archives of the image sets: downloaded with a checksum, unpacked safely, put where `image_set` looks.

Sizes and checksums are those recorded in public code (tensorflow/datasets, torchSR, tensorpack, deepinv).
"""

import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import pooch
from filelock import FileLock

from prffn.data.images import IMAGE_SUFFIXES, KNOWN_SETS, read_image
from prffn.files import data_root, named, unknown

MAX_IMAGE_BYTES = 64 << 20
"""No image of these sets has more: a larger member is not unpacked (a decompression bomb, or a wrong archive)."""

MAX_RATIO = 100
"""Images are compressed already: an archive whose members have so many times its own bytes is a decompression bomb."""

MAX_MEMBERS = 100_000
"""More than any of these archives has."""


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
    with FileLock(_made(data_root()) / ".download.lock"):
        if not folder.is_dir():  # another process may have made it while this one waited
            _remove_leftovers()
            _download(downloadable[name], progress)
    return folder


def _download(archive: Archive, progress: bool) -> None:
    """Downloads an archive, and unpacks those of its sets that are not there."""
    store = pooch.create(
        path=data_root() / "downloads", base_url="", registry={archive.file_name: archive.checksum},
        urls={archive.file_name: archive.url}, retry_if_failed=3,
    )  # fmt: skip
    try:
        file = Path(store.fetch(archive.file_name, downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60)))
    except OSError as error:
        if error.errno and not error.filename:  # of the disk: those of the network name the address
            raise named(error, store.abspath / archive.file_name) from error
        raise
    for image_set, member_folder in archive.members.items():
        target, source = data_root() / KNOWN_SETS[image_set].folder, KNOWN_SETS[image_set]
        if not target.is_dir():
            unpack(file, member_folder, target, without=source.without, count=source.count)
    file.unlink()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove_leftovers() -> None:
    """What killed downloads left: pooch's temporary files, and folders that were not unpacked to the end."""
    for path in (data_root() / "downloads").glob("tmp*"):
        path.unlink()
    for source in KNOWN_SETS.values():
        for folder in data_root().glob(f".{source.folder}.*.part"):
            shutil.rmtree(folder)


def unpack(
    archive: Path, member_folder: str, target: Path, *, without: tuple[str, ...] = (), count: int | None = None
) -> None:
    """Unpacks the images that lie in one folder of a zip or tar archive to `target`, all of them or nothing.

    Only regular files of that very folder are read, only their base names are used, and each image is decoded once: no
    path of the archive reaches the disk. count: how many images there must be.
    Raises UnsafeArchive naming archive and member: for a path that is absolute or leads upwards, wherever it stands, a
    link or device in place of an image, a name that comes twice, what is no image or damaged, and more bytes or members
    than such an archive can have. OSError naming the archive and the file if the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        found: set[str] = set()
        for member in _checked(archive, PurePosixPath(member_folder)):
            path = member.path
            if str(path.parent) != member_folder or path.suffix.lower() not in IMAGE_SUFFIXES or path.stem in without:
                continue
            if path.name in found or len(found) == count:
                raise _unsafe(archive, f"{path} comes twice, or is one image more than the {count} of the set")
            _unpack_member(archive, member, partial / path.name)
            found.add(path.name)
        if len(found) != (count or len(found) or 1):
            raise _unsafe(archive, f"it holds {len(found) or 'no'} images in {member_folder}, not {count or 'any'}")
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class _Member:
    path: PurePosixPath
    size: int
    """In bytes, as the archive states it."""
    kind: str
    """"file", "folder", or what else it is."""
    open: Callable[[], IO[bytes]]


def _unpack_member(archive: Path, member: _Member, target: Path) -> None:
    if member.size > MAX_IMAGE_BYTES:
        raise _unsafe(archive, f"{member.path} says it has {member.size} bytes, more than any image of the set")
    try:
        with member.open() as source, target.open("wb") as out:
            copied = _copy_at_most(source, out, MAX_IMAGE_BYTES)
    except OSError as error:
        if error.errno:
            raise named(error, target) from error
        raise _damaged(archive, error, member.path) from error
    except Exception as error:  # zlib, bz2, lzma, zipfile and tarfile have errors of their own
        raise _damaged(archive, error, member.path) from error
    if copied != member.size:
        raise _unsafe(archive, f"{member.path} unpacks to {copied} bytes, and says it has {member.size}")
    try:
        read_image(target)
    except ValueError as error:
        raise _unsafe(archive, f"{member.path} is no image") from error


def _copy_at_most(source: IO[bytes], out: IO[bytes], limit: int) -> int:
    copied = 0
    while copied <= limit and (chunk := source.read(1 << 20)):
        copied += out.write(chunk)
    return copied


def _checked(archive: Path, folder: PurePosixPath) -> Iterator[_Member]:
    """The regular files of an archive; raises UnsafeArchive for what no image set has, before it is read."""
    size = archive.stat().st_size
    total, number = 0, 0
    members = _members(archive)
    while True:
        try:
            member = next(members)
        except StopIteration:
            return
        except UnsafeArchive:
            raise
        except Exception as error:
            raise _damaged(archive, error) from error
        path, number, total = member.path, number + 1, total + max(0, member.size)
        parts = re.split(r"[/\\]", str(path))
        if path.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", parts[0]):
            raise _unsafe(archive, f"{path} leads out of the folder it is unpacked to")
        if member.kind not in ("file", "folder") and (folder in (path, *path.parents) or path in folder.parents):
            raise _unsafe(archive, f"{path} is a {member.kind}, where an image set has images")
        if total > MAX_RATIO * size + MAX_IMAGE_BYTES:
            raise _unsafe(archive, f"up to {path} it unpacks to {total} bytes, too many for its own {size}")
        if number > MAX_MEMBERS:
            raise _unsafe(archive, f"{path} is member {number}, more than such an archive has")
        if member.kind == "file":
            yield member


def _members(archive: Path) -> Iterator[_Member]:
    """All members of a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                of_type = {0: "file", 4: "folder", 8: "file", 10: "link"}  # 0: none is recorded
                kind = "folder" if info.is_dir() else of_type.get(info.external_attr >> 28, "device")
                path = PurePosixPath(info.filename)
                yield _Member(path, info.file_size, kind, lambda info=info: zipped.open(info))  # type: ignore
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for entry in tar:
                kind = "folder" if entry.isdir() else "link" if entry.issym() or entry.islnk() else "device"
                kind = "file" if entry.isreg() else kind
                path = PurePosixPath(entry.name)
                yield _Member(path, entry.size, kind, lambda entry=entry: tar.extractfile(entry))  # type: ignore
    else:
        raise _unsafe(archive, "it is neither a zip nor a tar archive, or is damaged")


def _damaged(archive: Path, error: Exception, path: PurePosixPath | None = None) -> UnsafeArchive:
    return _unsafe(archive, f"{path or 'it'} is damaged ({type(error).__name__}: {error})")


def _unsafe(archive: Path, why: str) -> UnsafeArchive:
    return UnsafeArchive(f"{archive}: {why}. Nothing of it is kept; remove it, and get the official one again")
