"""Archives that must not be trusted: refused by their name and the member's, and nothing is written anywhere."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import png, tar_of, zip_of
from PIL import Image

from prffn.data import download
from prffn.data.download import UnsafeArchive, unpack

GOOD = {f"set/{n}.png": png(n) for n in range(3)}


def bmp(pixels: int) -> bytes:
    """A black image, which compresses well."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((pixels // 1000, 1000, 3), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "/etc/passwd") -> dict[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return {name: info}


def zip_link(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for good, content in GOOD.items():
            archive.writestr(good, content)
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def zip_twice(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, png(1))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, png(1))
    return buffer.getvalue()


def tar_twice(name: str) -> bytes:
    one = tar_of({name: png(1)}, "w")
    return one[:1024] + one  # a header and a block, and then its end


def lying_zip(name: str, content: bytes, size: int) -> bytes:
    """A zip archive whose directory and header state another size of the member's."""
    whole = bytearray(zip_of({name: content}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", whole, whole.index(signature) + place, size)
    return bytes(whole)


def lying_tar(name: str, content: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf() + content.ljust(1024, b"\0") + bytes(1024)


def sparse_tar(name: str, size: int) -> bytes:
    """A file of GNU's sparse format: so many bytes, and none of them in the archive."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % size  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + bytes(1024)


UP = ("../evil.png", "/tmp/evil.png", "set/../../evil.png", "..\\evil.png", "set/..\\..\\evil.png", "C:\\evil.png")
KINDS = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    **{f"zip: {name}": (lambda name=name: zip_of({**GOOD, name: png(9)}), "leads out of") for name in UP},
    **{f"tar: {name}": (lambda name=name: tar_of({**GOOD, name: png(9)}), "leads out of") for name in UP},
    **{
        f"{name} in the set": (
            lambda kind=kind: tar_of({**GOOD, **special("set/evil.png", kind)}), "set/evil.png is a (link|device)",
        )
        for name, kind in KINDS.items()
    },
    "the set is a link": (lambda: tar_of({**special("set", tarfile.SYMTYPE, ".."), **GOOD}), "set is a link"),
    "zip: link in the set": (lambda: zip_link("set/evil.png"), "set/evil.png is a link"),
    "zip: a name twice": (lambda: zip_twice("set/0.png"), "set/0.png comes twice"),
    "tar: a name twice": (lambda: tar_twice("set/0.png"), "set/0.png comes twice"),
    "zip: a large member": (lambda: zip_of({"set/bomb.png": bytes(2 << 20)}), "set/bomb.png (says|.* too many)"),
    "tar: a large member": (lambda: tar_of({"set/bomb.png": bytes(2 << 20)}), "set/bomb.png (says|.* too many)"),
    "zip: many small bombs": (
        lambda: zip_of({f"set/{n}.bmp": bmp(300_000) for n in range(3)}), r"set/\d.bmp .*too many",
    ),
    "tar: many small bombs": (
        lambda: tar_of({f"set/{n}.bmp": bmp(300_000) for n in range(3)}), r"set/\d.bmp .*too many",
    ),
    "a bomb beside the set": (lambda: tar_of({"other": bytes(3 << 20), **GOOD}), "other .*too many"),
    "one image more": (lambda: zip_of({**GOOD, "set/3.png": png(1)}), "set/3.png comes twice, or is one image more"),
    "one image less": (lambda: zip_of(dict(list(GOOD.items())[1:])), "it holds 2 images in set, not 3"),
    "no images": (lambda: zip_of({"other/a.png": png(1)}), "it holds no images in set"),
    "many members": (lambda: tar_of({f"{n}": b"" for n in range(60)}), "50 is member 51"),
    "zip: states less": (lambda: lying_zip("set/0.png", png(1), 10), r"set/0.png is damaged \(BadZipFile"),
    "zip: states more": (lambda: lying_zip("set/0.png", png(1), 5000), "set/0.png (unpacks to|is damaged)"),
    "tar: states more": (lambda: lying_tar("set/0.png", png(1), 5000), "set/0.png (unpacks to|is damaged)|is damaged"),
    "tar: states less": (lambda: lying_tar("set/0.png", png(1), 60), "set/0.png is no image"),
    "tar: states terabytes": (lambda: sparse_tar("set/0.png", 8 << 29), "set/0.png .* too many"),
    "no image": (lambda: zip_of({**GOOD, "set/1.png": b"no image"}), "set/1.png is no image"),
    "neither": (lambda: b"neither", "neither a zip nor a tar"),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_archive(attack, tmp_path, monkeypatch):
    make, message = HOSTILE[attack]
    monkeypatch.setattr(download, "MAX_MEMBERS", 50)
    monkeypatch.setattr(download, "MAX_IMAGE_BYTES", 1 << 20)  # so that small bombs are bombs
    path = tmp_path / "some.archive"
    path.write_bytes(make())
    opened, really = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or really(self, *a, **k))
    with pytest.raises(UnsafeArchive, match=f"some.archive.*({message})"):
        unpack(path, "set", tmp_path / "out" / "set", count=3)
    assert {p.name for p in tmp_path.rglob("*")} == {"some.archive", "out"}
    assert all(tmp_path / "out" in written.parents for written in opened)


@pytest.mark.parametrize("kind", KINDS.values())
def test_links_and_devices_elsewhere_are_passed_over(kind, tmp_path):
    """Among an archive's other files they are not touched, and harm nothing."""
    (tmp_path / "a.tgz").write_bytes(tar_of({**special("other/link", kind), **GOOD}))
    unpack(tmp_path / "a.tgz", "set", tmp_path / "set", count=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "set"]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_only_images_of_that_very_folder(tmp_path, make):
    members = {**GOOD, "set/sub/deep.png": png(5), "set/notes.txt": b"text", "setting/a.png": png(6)}
    (tmp_path / "a").write_bytes(make(members))
    unpack(tmp_path / "a", "set", tmp_path / "out" / "set")
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")) == ["set", *GOOD]
