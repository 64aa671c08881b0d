"""Archives with other members than images in a folder: those are never written; and archives without the images."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import png, tar_of, zip_of

from prffn.data.download import DamagedArchive, unpack

GOOD = {f"set/{n}.png": png(n) for n in range(3)}


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


UP = ("../evil.png", "/tmp/evil.png", "set/../../evil.png", "..\\evil.png", "set/..\\..\\evil.png", "C:\\evil.png")
KINDS = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}

OTHERS = {"set/sub/deep.png": png(5), "set/notes.txt": b"text", "setting/a.png": png(6)}

HOSTILE: dict[str, Callable[[], bytes]] = {
    **{f"zip: {name}": (lambda name=name: zip_of({**GOOD, name: png(9)})) for name in UP},
    **{f"tar: {name}": (lambda name=name: tar_of({**GOOD, name: png(9)})) for name in UP},
    **{f"{kind} {place}": (lambda kind=kind, place=place: tar_of({**GOOD, **special(f"{place}/evil.png", KINDS[kind])}))
       for kind in KINDS for place in ("set", "elsewhere")},
    "the set is a link": lambda: tar_of({**special("set", tarfile.SYMTYPE, ".."), **GOOD}),
    "zip: other files": lambda: zip_of({**GOOD, **OTHERS}),
    "tar: other files": lambda: tar_of({**GOOD, **OTHERS}),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_of_a_hostile_archive_nothing_but_the_images_is_written(attack, tmp_path):
    (tmp_path / "some.archive").write_bytes(HOSTILE[attack]())
    unpack(tmp_path / "some.archive", "set", tmp_path / "out" / "set", count=3)
    written = {str(p.relative_to(tmp_path)): p for p in tmp_path.rglob("*")}
    assert set(written) == {"some.archive", "out", "out/set", *(f"out/{name}" for name in GOOD)}
    assert not any(path.is_symlink() for path in written.values())
    assert not Path("/tmp/evil.png").exists()


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip: link in the set": (lambda: zip_link("set/evil.png"), "set/evil.png is damaged, or no image"),
    "one image more": (lambda: zip_of({**GOOD, "set/3.png": png(1)}), "it holds 4 images in set, not 3"),
    "one image less": (lambda: zip_of(dict(list(GOOD.items())[1:])), "it holds 2 images in set, not 3"),
    "no images": (lambda: zip_of({"other/a.png": png(1)}), "it holds no images in set"),
    "cut short": (lambda: tar_of(GOOD, "w")[:2600], "is damaged|it holds"),
    "no image": (lambda: zip_of({**GOOD, "set/1.png": b"no image"}), "set/1.png is damaged, or no image"),
    "neither": (lambda: b"neither", "set is damaged"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_archive_without_the_images_is_refused(name, tmp_path):
    make, message = WRONG[name]
    (tmp_path / "some.archive").write_bytes(make())
    with pytest.raises(DamagedArchive, match=f"some.archive.*({message})"):
        unpack(tmp_path / "some.archive", "set", tmp_path / "out" / "set", count=3)
    assert {p.name for p in tmp_path.rglob("*")} == {"some.archive", "out"}
