"""Photographs that have gone wrong in use, here or in other tools: what is right for each kind."""

import ast
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import tar_of
from conftest import CHECKOUT
from PIL import Image
from torch import Tensor, nn

from prffn.__main__ import main
from prffn.data import ImageSet, read_image
from prffn.download import UnsafeArchive, unpack
from prffn.metrics import evaluate
from prffn.models import build
from prffn.photos import read_photo
from prffn.pretrained import pretrained
from prffn.upscaling import upscale_file

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n%%EOF\n"


class Repeat(nn.Module):
    """Each pixel becomes `scale` x `scale` equal ones."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        return lr.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class Broken(Repeat):
    """Gives one value that is no number, in the last corner; or cannot take images of one pixel."""

    def __init__(self, value: float | None) -> None:
        super().__init__()
        self.value = value

    def forward(self, lr: Tensor) -> Tensor:
        sr = super().forward(lr)
        if self.value is None and lr.shape[-1] == 1:
            raise RuntimeError("padding size should be less than the input")
        if self.value is not None:
            sr[..., -1, -1] = self.value
        return sr


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """A `gs` that leaves a mark when it is started. Gives the mark's path."""
    mark, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return mark


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_postscript_under_an_images_name_starts_no_program(tmp_path, ghostscript, suffix):
    path = tmp_path / f"in{suffix}"
    path.write_bytes(EPS)
    for read in (read_image, read_photo):
        with pytest.raises(ValueError, match=f"in{suffix}"):
            read(path)
    (tmp_path / "archive").write_bytes(tar_of({f"set/in{suffix}": EPS}))
    with pytest.raises(UnsafeArchive, match="no image"):
        unpack(tmp_path / "archive", "set", tmp_path / "set")
    assert main(["upscale", str(path)]) == 1
    assert not ghostscript.exists()


def test_every_image_is_opened_by_the_one_function_that_names_the_formats():
    calls = [
        f"{path.stem}.{function.name}"
        for path in sorted((CHECKOUT / "prffn").rglob("*.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Image.open"
    ]
    assert len(calls) == 1, calls
    assert calls[0].endswith(".open_image")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("colour", "hidden"), [((250, 40, 40), 0), ((20, 90, 200), 255), ((128, 128, 128), 0)])
def test_no_hidden_colour_bleeds_into_what_shows(tmp_path, scale, colour, hidden):
    """A disc of one colour, with soft edges: wherever it shows, it has its colour, whatever lies where alpha is 0."""
    y, x = np.mgrid[:40, :40] - 19.5
    alpha = (255 * (13 - np.hypot(x, y)).clip(0, 1)).round().astype(np.uint8)
    rgb = np.where(alpha[..., None] > 0, np.array(colour), hidden).astype(np.uint8)
    Image.fromarray(np.dstack((rgb, alpha))).save(tmp_path / "disc.png")
    upscale_file(tmp_path / "disc.png", tmp_path / "out.png", pretrained(scale), progress=False)
    out = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert abs(out[out[..., 3] > 8][:, :3] - colour).max() <= 15


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gray_stored_as_rgb_stays_gray(tmp_path, scale):
    lines, checks = np.indices((40, 30))[1] % 3 * 127, np.indices((40, 30)).sum(0) % 2 * 255
    for gray in (lines, checks):
        Image.fromarray(np.dstack([gray.astype(np.uint8)] * 3)).save(tmp_path / "in.png")
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", pretrained(scale), progress=False, overwrite=True)
        with Image.open(tmp_path / "out.png") as file:
            assert file.mode == "RGB"
            out = np.asarray(file)
        assert (out == out[..., :1]).all()


def sixteen_bits(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 16 bits a channel, (h, w, 1 or 3), which Pillow does not write."""
    h, w, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_read_at_eight_and_said(tmp_path, capsys, channels):
    """12 * 256 + 255 is 12: one rule for gray and for colours. Image sets, whose figures are of 8 bits, refuse both."""
    values = np.full((4, 5, channels), 12 * 256 + 255)
    (tmp_path / "in.png").write_bytes(sixteen_bits(values))
    photo = read_photo(tmp_path / "in.png")
    assert (photo.rgb == 12).all()
    assert photo.gray == (channels == 1)
    assert "in.png has 16 bits a channel" in capsys.readouterr().err
    with pytest.raises(ValueError, match="in.png"):
        read_image(tmp_path / "in.png")


CHUNKS = {
    b"gAMA": struct.pack(">I", 100000),
    b"cHRM": struct.pack(">8I", *range(30000, 38000, 1000)),
    b"cICP": b"\x09\x10\0\1",
}


def test_resolution_and_colour_chunks_are_kept_or_named(tmp_path, capsys):
    """300 dpi are 11811 pixels a metre. What a format cannot hold is said."""
    chunks = {**CHUNKS, b"pHYs": struct.pack(">IIB", 11811, 11811, 1)}
    (tmp_path / "in.png").write_bytes(sixteen_bits(np.zeros((4, 5, 3)), *chunks.items()))
    upscale_file(tmp_path / "in.png", tmp_path / "out.png", Repeat(), progress=False)
    content = (tmp_path / "out.png").read_bytes()
    for name, value in chunks.items():
        assert struct.pack(">I", len(value)) + name + value in content
    for suffix in (".jpg", ".tif", ".webp"):
        capsys.readouterr()
        upscale_file(tmp_path / "in.png", tmp_path / f"out{suffix}", Repeat(), progress=False)
        said = capsys.readouterr().err
        assert "gAMA, cHRM, cICP" in said
        with Image.open(tmp_path / f"out{suffix}") as file:
            kept = round(float(file.info.get("dpi", (0, 0))[0])) == 300
        assert kept != ("the resolution" in said)
        assert kept == (suffix != ".webp")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_the_resolution_of_other_formats_comes_along(tmp_path, suffix):
    Image.new("RGB", (9, 6), "red").save(tmp_path / f"in{suffix}", dpi=(300, 150))
    upscale_file(tmp_path / f"in{suffix}", tmp_path / "out.png", Repeat(), progress=False)
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["dpi"] == pytest.approx((300, 150), abs=0.02)  # whole pixels a metre


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_network_that_gives_no_numbers_is_named_not_drawn_black(tmp_path, photo, value):
    """One value of a tile is enough: an error that names the image and the place, no file, no figure."""
    Image.fromarray(photo[:30, :40]).save(tmp_path / "in.png")
    with pytest.raises(ValueError, match=r"in.png: the network gave .* rows 0 to 12 and columns 0 to 12"):
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", Broken(value), tile=12, progress=False)
    assert not (tmp_path / "out.png").exists()
    images = ImageSet("some", ("first",), (photo[:30, :40],), "0")
    with pytest.raises(ValueError, match="image first of some: the network gave values that are infinite or not"):
        evaluate(Broken(value), images)


def test_one_bad_picture_does_not_keep_the_others_from_being_made(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in {"a": (8, 8), "b": (1, 1), "c": (9, 7)}.items():
        Image.new("RGB", size).save(folder / f"{name}.png")
    monkeypatch.setattr("prffn.upscaling.network", lambda *_: Broken(None))
    assert main(["upscale", str(folder), "-o", str(tmp_path / "out")]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    assert "b.png: RuntimeError: padding size" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 3), (13, 2)])
def test_swinir_takes_the_smallest_images(size):
    model = build("SwinIR-light", 2, generator=torch.Generator().manual_seed(0)).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 3, *size)).shape == (1, 3, 2 * size[0], 2 * size[1])


def test_another_scale_into_the_same_folder_is_refused(tmp_path, photo, capsys):
    """x2 pictures are not x4's, and are not called done."""
    (tmp_path / "in").mkdir()
    Image.fromarray(photo[:12, :16]).save(tmp_path / "in" / "a.png")
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--scale"]
    assert [main([*command, "2"]), main([*command, "2"]), main([*command, "4"])] == [0, 0, 1]
    assert "32 x 24 pixels, which is not x4" in capsys.readouterr().err
    assert main([*command, "4", "--overwrite"]) == 0
    assert Image.open(tmp_path / "out" / "a.png").size == (64, 48)
