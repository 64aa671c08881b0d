"""A disk that is full while a file is written: the old file stays, no half one bears its name, the error names it, and
with room again all goes on. The fault is the kernel's: it takes no more than so many bytes of a file (RLIMIT_FSIZE)."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archives import SET5, archive_at, served, tar_of
from conftest import small_prffn
from PIL import Image

from prffn.apps.upscale import upscale_file
from prffn.data.download import get
from prffn.data.images import image_set
from prffn.files import save_record, weights_sha256
from prffn.models.pretrained import save_pretrained
from prffn.reporting.plots import new_figure, save_figure
from prffn.training.checkpoint import save_checkpoint


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def upscaled(path: Path) -> None:
    upscale_file(path.with_name("in.png"), path, small_prffn(), overwrite=True, progress=False)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "record.json": lambda path: save_record(path.parent, "record", {"key": "record", "curve": list(range(999))}),
    "run.ckpt": lambda path: save_checkpoint(path, {"step": 7, "model": small_prffn().state_dict()}),
    "figure.png": lambda path: save_figure(new_figure()[0], path),
    "weights.safetensors": lambda path: save_pretrained(model := small_prffn(), path, {}, "0", weights_sha256(model)),
    **{f"photo_x2.{suffix}": upscaled for suffix in ("png", "jpg", "tif", "webp")},
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_stays_as_it_was(name, tmp_path, photo):
    path, write = tmp_path / name, WRITERS[name]
    Image.fromarray(photo[:40, :50]).save(tmp_path / "in.png")
    write(path)
    size = path.stat().st_size
    path.write_bytes(b"precious")
    before = sorted(tmp_path.iterdir())
    for limit in (0, size // 3, size - 1):
        with full_after(limit), pytest.raises(OSError, match=rf"{name} cannot be written .*make room") as error:
            write(path)
        assert error.value.filename is None  # it stands in the text
        assert path.read_bytes() == b"precious"
        assert sorted(tmp_path.iterdir()) == before
    write(path)
    assert path.stat().st_size == size


def test_the_image_cache_is_made_when_there_is_room(tmp_path, photo_folder):
    """20,863 bytes an image."""
    with full_after(20_000), pytest.raises(OSError, match=r"00000\.npy cannot be written .*make room"):
        image_set(str(photo_folder))
    assert not list((tmp_path / "cache" / "images").rglob("*.npy*"))
    assert image_set(str(photo_folder)).images[0].shape == (72, 96, 3)


def test_a_download_is_made_when_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setenv("PRFFN_DATA", str(tmp_path / "data"))
    content = tar_of(SET5, "w")
    with served(content) as (url, requests):
        archives = archive_at(url, content)
        with full_after(len(content) // 2), pytest.raises(OSError, match=r"benchmark.tar cannot be written .*make"):
            get("Set5", archives=archives, progress=False)
        assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name != ".download.lock"]
        assert len(requests) == 1
        get("Set5", archives=archives, progress=False)
    assert len(image_set("Set5")) == 5
