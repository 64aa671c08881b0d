"""Photographs that have gone wrong in use, here or in other tools: what is right for each kind."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import tar_of
from conftest import CHECKOUT
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor, nn

from prffn.__main__ import main
from prffn.apps.photos import read_photo
from prffn.apps.png import COLOUR_TYPES
from prffn.apps.upscale import upscale_file
from prffn.data.download import DamagedArchive, unpack
from prffn.data.images import ImageSet, read_image
from prffn.evaluation.metrics import evaluate
from prffn.models import build
from prffn.models.pretrained import pretrained

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

    def __init__(self, value: float | None, scale: int = 2) -> None:
        super().__init__(scale)
        self.value = value

    def forward(self, lr: Tensor) -> Tensor:
        sr = super().forward(lr)
        if self.value is None and lr.shape[-1] == 1:
            raise RuntimeError("padding size should be less than the input")
        if self.value is not None:
            sr[..., -1, -1] = self.value
        return sr


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_postscript_under_an_images_name_starts_no_program(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / f"in{suffix}"
    path.write_bytes(EPS)
    for read in (read_image, read_photo):
        with pytest.raises(ValueError, match=f"in{suffix}"):
            read(path)
    (tmp_path / "archive").write_bytes(tar_of({f"set/in{suffix}": EPS}))
    with pytest.raises(DamagedArchive, match="no image"):
        unpack(tmp_path / "archive", "set", tmp_path / "set")
    assert main(["upscale", str(path)]) == 1


def test_every_image_is_opened_by_the_one_function_that_names_the_formats():
    lines = [line.strip() for path in (CHECKOUT / "prffn").rglob("*.py") for line in path.read_text().splitlines()]
    calls = [line for line in lines if re.search(r"\bImage\.open\(|\bimread\(|PIL\.Image import", line)]
    assert calls == ["return Image.open(source, formats=formats)"]


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
    """Also above transparent rows that hide a colour, too far down to be filled."""
    lines, checks = np.indices((40, 30))[1] % 3 * 127, np.indices((40, 30)).sum(0) % 2 * 255
    hidden = np.dstack([lines] * 3 + [np.full_like(lines, 255)]).repeat(30, 0)
    hidden[40:] = 250, 40, 40, 0
    for pixels in (np.dstack([lines] * 3), np.dstack([checks] * 3), hidden):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "in.png")
        upscale_file(tmp_path / "in.png", tmp_path / "out.png", pretrained(scale), progress=False, overwrite=True)
        with Image.open(tmp_path / "out.png") as file:
            assert file.mode == ("RGB" if pixels.shape[2] == 3 else "RGBA")
            out = np.asarray(file)[..., :3]
        assert (out == out[..., :1]).all()


def sixteen_bits(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 16 bits a channel, (h, w, 1 to 4), which Pillow does not write."""
    h, w, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, COLOUR_TYPES[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_read_at_eight_and_said(tmp_path, capsys, channels):
    """12 * 256 + 255 is 12: one rule for gray and for colours. Image sets, whose figures are of 8 bits, refuse both."""
    (tmp_path / "in.png").write_bytes(sixteen_bits(np.full((4, 5, channels), 12 * 256 + 255)))
    photo = read_photo(tmp_path / "in.png")
    assert (photo.rgb == 12).all()
    assert photo.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert photo.alpha is None or (photo.alpha == 12).all()
    assert "in.png has 16 bits a channel" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"in.png.* (16 bits|mode I;16)"):
        read_image(tmp_path / "in.png")


def tiff(size: tuple[int, int], bits: int, white: int, pixels: bytes) -> bytes:
    """A gray TIFF file of kinds that Pillow reads and does not write. white: the tag that says whether 0 is white."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: white, 273: 110, 278: size[1], 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels


@pytest.mark.parametrize(
    ("name", "content", "mode", "value"),
    [
        ("12.tif", tiff((4, 1), 12, 1, bytes.fromhex("bb8bb8bb8bb8")), "L", 0xBB),
        ("white.tif", tiff((2, 1), 16, 0, bytes.fromhex("ff14ff14")), "L", 0xFF - 0x14),
        ("gray.png", sixteen_bits(np.array([[[515], [514]]]), (b"tRNS", b"\x02\x03")), "LA", 2),
        ("rgb.png", sixteen_bits(np.array([[[515] * 3, [9] * 3]]), (b"tRNS", b"\x02\x03" * 3)), "RGBA", 0),
    ],
    ids=["12 bits", "0 is white", "transparent gray", "transparent colour"],
)
def test_other_kinds_of_many_bits(tmp_path, name, content, mode, value):
    """12 of 16 bits are not dark, 0 may be white, and the one transparent value is transparent."""
    (tmp_path / name).write_bytes(content)
    photo = read_photo(tmp_path / name)
    assert photo.mode == mode
    assert (photo.rgb == value).all()
    assert photo.alpha is None or photo.alpha.tolist() == [[0, 255]]


def test_resolution_and_colour_chunks_are_kept_or_named(tmp_path, capsys):
    """300 dpi are 11811 pixels a metre. What a format cannot hold is said."""
    chunks = {
        b"gAMA": struct.pack(">I", 100000),
        b"cHRM": struct.pack(">8I", *range(30000, 38000, 1000)),
        b"cICP": b"\x09\x10\0\1",
        b"pHYs": struct.pack(">IIB", 11811, 11811, 1),
    }
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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize(("orientation", "dpi"), [(1, (300, 150)), (6, (150, 300))])
def test_the_resolution_is_that_of_the_upright_image(tmp_path, suffix, orientation, dpi):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (9, 6), "red").save(tmp_path / f"in{suffix}", exif=exif, dpi=(300, 150))
    upscale_file(tmp_path / f"in{suffix}", tmp_path / "out.png", Repeat(), progress=False)
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["dpi"] == pytest.approx(dpi, abs=0.02)  # whole pixels a metre


@pytest.mark.parametrize("dots", [None, (0, 0), (1, 0), (2**32 - 1, 1)])
def test_a_resolution_that_no_file_says_is_not_made_up(tmp_path, dots):
    """For a TIFF file without one Pillow says 1 dpi, for EXIF data without one 72; and no number stops the image."""
    rational = TiffImagePlugin.IFDRational(*dots) if dots else None
    tags = {ExifTags.Base.XResolution: rational, ExifTags.Base.YResolution: rational, ExifTags.Base.ResolutionUnit: 2}
    Image.new("RGB", (9, 6)).save(tmp_path / "in.tif", tiffinfo=tags if dots else {})
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    Image.new("RGB", (9, 6)).save(tmp_path / "in.jpg", exif=exif)
    for source in ("in.tif", "in.jpg"):
        upscale_file(tmp_path / source, tmp_path / "out.png", Repeat(), progress=False, overwrite=True)
        assert b"pHYs" not in (tmp_path / "out.png").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_of_several_images_the_first_is_upscaled_and_what_is_left_out_is_said(tmp_path, capsys, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / f"in{suffix}", save_all=True, append_images=frames[1:], xmp=b"<x:xmpmeta/>")
    assert (read_photo(tmp_path / f"in{suffix}").rgb == 255).all()
    said = capsys.readouterr().err
    assert f"in{suffix} holds 2 images; the first is upscaled" in said
    assert (f"in{suffix} has XMP data, left out" in said) == (suffix == ".webp")  # the others' are not written so


@pytest.mark.parametrize(
    ("aspect", "text", "said"),
    [((2, 1), "", ["has pixels that are not square"]), ((1, 1), "", []), (None, "Ann", ["has texts, left out"])],
)
def test_what_a_png_says_of_itself_and_loses_is_said(tmp_path, capsys, aspect, text, said):
    chunks = [(b"pHYs", struct.pack(">IIB", *aspect, 0))] if aspect else [(b"tEXt", b"Author\0" + text.encode())]
    (tmp_path / "in.png").write_bytes(sixteen_bits(np.zeros((6, 9, 3), dtype=np.uint16), *chunks))
    read_photo(tmp_path / "in.png")
    found = capsys.readouterr().err
    assert [note for note in ("has pixels that are not square", "has texts, left out") if note in found] == said


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that the system does not let be read")
def test_what_the_system_cannot_read_is_not_called_damaged(tmp_path):
    (tmp_path / "in.png").symlink_to("/proc/self/mem")
    for read in (read_image, read_photo):
        with pytest.raises(OSError, match=r"Input/output error.*in.png"):
            read(tmp_path / "in.png")


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


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 3), (13, 2)])
def test_swinir_takes_the_smallest_images(size):
    model = build("SwinIR-light", 2, generator=torch.Generator().manual_seed(0)).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 3, *size)).shape == (1, 3, 2 * size[0], 2 * size[1])
