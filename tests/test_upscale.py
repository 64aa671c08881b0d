"""Upscaling files: the pixels are the network's, what belongs to a photograph is kept, memory is bounded, and whatever
goes wrong leaves no file behind."""

import functools
import io
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import load, small_prffn
from PIL import ExifTags, Image, ImageCms
from PIL.ExifTags import IFD, Base
from test_photos import Broken, Repeat

from prffn.__main__ import main
from prffn.apps.png import write_png
from prffn.apps.upscale import upscale_file
from prffn.evaluation.tiling import upscale
from prffn.files import weights_sha256
from prffn.models.pretrained import save_pretrained


@pytest.fixture
def weights(tmp_path) -> Path:
    settings = {"data.scale": 2, "model.channels": 4, "model.groups": 1, "model.blocks": 1}
    save_pretrained(small_prffn(), tmp_path / "tiny.safetensors", settings, "0", weights_sha256(small_prffn()))
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def pixels(photo) -> np.ndarray:
    return photo[100:123, 150:187]  # (23, 37, 3)


def save(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


# Pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("heights", [(11,), (1, 4, 6)])
def test_png_holds_the_pixels(channels, heights, monkeypatch):
    """Of noise, of a ramp and of one colour, whose best filters differ; in parts of any height."""
    monkeypatch.setattr("prffn.apps.png._PART", 3 * 7 * channels)
    noise = np.random.default_rng(0).integers(0, 256, (11, 7, channels), dtype=np.uint8)
    ramp = np.add.outer(np.add.outer(np.arange(11) * 9, np.arange(7) * 30), np.arange(channels)).astype(np.uint8)
    for image in (noise, ramp, np.full_like(noise, 200)):
        file = io.BytesIO()
        write_png(file, np.split(image, np.cumsum(heights)[:-1]), 7, 11, channels)
        with Image.open(file) as written:
            assert written.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
            assert np.array_equal(np.asarray(written).reshape(image.shape), image)


def test_png_is_no_larger_than_pillows(photo):
    """Of a photograph: the filters are chosen as well as elsewhere."""
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_png(ours, [photo], photo.shape[1], photo.shape[0], 3)
    Image.fromarray(photo).save(theirs, format="PNG")
    assert ours.tell() < 1.01 * theirs.tell()


def test_a_file_holds_what_the_network_makes(pixels, tmp_path, capsys, weights):
    source = save(pixels, tmp_path / "photo.png")
    assert main(["upscale", str(source), "--weights", str(weights), "--tile", "16", "--device", "cpu"]) == 0
    assert np.array_equal(load(tmp_path / "photo_x2.png"), upscale(small_prffn(), pixels, scale=2, tile=16))
    assert "photo_x2.png: 74 x 46" in capsys.readouterr().out


def test_jpeg_is_near(pixels, tmp_path):
    upscale_file(save(pixels, tmp_path / "photo.png"), tmp_path / "out.jpg", Repeat(), progress=False)
    assert abs(load(tmp_path / "out.jpg").astype(int) - pixels.repeat(2, 0).repeat(2, 1)).mean() < 2


# What belongs to a photograph


def exif(orientation: int | None = None, endian: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = endian
    data[Base.Make] = "Camera"
    data[IFD.Exif] = {Base.ISOSpeedRatings: 400, Base.MakerNote: b"a note of its maker's"}
    data[IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    if orientation is not None:
        data[Base.Orientation] = orientation
    return data.tobytes()


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(("orientation", "endian"), [(None, "<"), (6, ">")])
def test_profile_and_exif_are_kept(pixels, tmp_path, source, target, orientation, endian):
    """Pixels are upright, and EXIF says so: viewers that heed the orientation and viewers that do not show the same."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / f"in{source}", exif=exif(orientation, endian), icc_profile=profile)
    upscale_file(tmp_path / f"in{source}", tmp_path / f"out{target}", Repeat(), progress=False)
    with Image.open(tmp_path / f"out{target}") as out:
        assert out.info["icc_profile"] == profile
        found = out.getexif()
        assert (found[Base.Make], found.get(Base.Orientation, 1)) == ("Camera", 1)
        assert found.get_ifd(IFD.Exif) == {Base.ISOSpeedRatings: 400, Base.MakerNote: b"a note of its maker's"}
        assert found.get_ifd(IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert out.size == ((46, 74) if orientation else (74, 46))


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [None, 6])
def test_exif_is_kept_byte_for_byte(pixels, tmp_path, source, orientation):
    """But for the orientation: a MakerNote has offsets of its own, which lead astray where it is moved."""
    Image.fromarray(pixels).save(tmp_path / f"in{source}", exif=exif(orientation))
    upscale_file(tmp_path / f"in{source}", tmp_path / "out.png", Repeat(), progress=False)
    paths = tmp_path / f"in{source}", tmp_path / "out.png"
    before, after = (Image.open(path).info["exif"].removeprefix(b"Exif\0\0") for path in paths)
    entry = struct.pack("<HHI", Base.Orientation, 3, 1)
    assert after == before.replace(entry + b"\6", entry + b"\1")


def test_exif_that_cannot_be_read_does_not_stop_the_image(pixels, tmp_path, capsys):
    Image.fromarray(pixels).save(tmp_path / "in.png", exif=b"Exif\0\0no TIFF header")
    upscale_file(tmp_path / "in.png", tmp_path / "out.png", Repeat(), progress=False)
    assert "cannot be read are left out" in capsys.readouterr().err
    assert "exif" not in Image.open(tmp_path / "out.png").info


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.png", "no image or folder none.png"),
        ("notes.txt", "notes.txt is not an image that can be read here; its name must end in .png, .jpg"),
        ("photo.png -o out.gif", "out.gif cannot be written; its name must end in .png, .jpg"),
        ("photo.png -o photo.png --overwrite", "photo.png would become photo.png, which is an input"),
        ("photo.png -o hard.png --overwrite", "hard.png is the input itself"),
        ("photo.png taken_x2.png taken.png --overwrite", "taken.png would become taken_x2.png, which is an input"),
        ("two -o two --overwrite", "which is an input"),
        ("two", "a.jpg and two/a.png would both become"),
        ("photo.png link.png -o out.png", "--output out.png is one file, for several images"),
        ("photo.png -o there.png", "there.png is there already; --overwrite replaces it"),
        ("photo.png -o folder.png", "folder.png/photo_x2.png is there already"),
        ("photo.png --tile 0", "tile must be a whole number, at least 1, got 0"),
        ("photo.png --scale 3", "tiny.safetensors holds PRFFN for x2, not x3"),
        ("photo.png --weights none.safetensors", "none.safetensors"),
        ("photo.png --weights notes.txt", "notes.txt"),
        ("empty", "no images in empty"),
        ("photo.png --device gpu", "device 'gpu' cannot be used here"),
    ],
)
def test_the_command_names_what_is_wrong(pixels, tmp_path, monkeypatch, capsys, weights, arguments, message):
    """In one line, without a traceback; nothing is written and nothing that is there is changed."""
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.png", "empty", "two"):
        Path(folder).mkdir()
    for name in ("photo.png", "taken.png", "taken_x2.png", "two/a.jpg", "two/a.png"):
        save(pixels, Path(name))
    Path("link.png").symlink_to("photo.png")
    Path("hard.png").hardlink_to("photo.png")
    for name in ("notes.txt", "there.png", "folder.png/photo_x2.png"):
        Path(name).write_text("precious")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["upscale", "--weights", "tiny.safetensors", *arguments.split()]) == 1
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith("prffn: ")
    assert message in printed
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("suffix", "size", "message"),
    [
        (".jpg", (5001, 5000), r"would have 100 megapixels; .jpg files.*write out.png"),
        (".webp", (8192, 10), r"would be 16384 x 20, and .webp allows 16383 on a side; write out.png"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_computed(tmp_path, suffix, size, message):
    Image.new("L", size).save(tmp_path / "in.png")
    with pytest.raises(ValueError, match=message):
        upscale_file(tmp_path / "in.png", tmp_path / f"out{suffix}", Repeat())
    assert os.listdir(tmp_path) == ["in.png"]


def test_a_folder(photo_folder, tmp_path, monkeypatch, capsys):
    """What fails does not stop the others; the next call makes what is missing; x2 pictures do not pass for x4's."""
    monkeypatch.setattr("prffn.apps.upscale.network", lambda scale, *_, **__: Broken(None, scale or 2))
    out = tmp_path / "photos_x2"
    out.mkdir()
    Image.new("1", (8000, 7000)).save(photo_folder / "large.png")
    Image.new("1", (16000, 14000)).save(out / "large.png")  # of more pixels than Pillow opens
    (photo_folder / "1.png").write_bytes(b"damaged")
    (out / "1.png").write_bytes(b"old")
    Image.new("RGB", (1, 1)).save(photo_folder / "one.png")
    (photo_folder / "notes.txt").write_text("no image")
    assert main(["upscale", str(photo_folder)]) == 1
    said = capsys.readouterr()
    assert "1 of 5 images are there already" in said.out
    assert "1.png is there already" in said.err
    assert "one.png: RuntimeError: padding size" in said.err
    assert (out / "1.png").read_bytes() == b"old"

    (out / "1.png").unlink()
    Image.new("RGB", (9, 7)).save(photo_folder / "one.png")
    before = (out / "0.png").stat().st_mtime_ns
    assert main(["upscale", str(photo_folder)]) == 1
    said = capsys.readouterr()
    assert "3 of 5 images are there already" in said.out
    assert "1.png is damaged" in said.err
    assert sorted(os.listdir(out)) == ["0.png", "2.png", "large.png", "one.png"]
    assert np.array_equal(load(out / "2.png"), load(photo_folder / "2.png").repeat(2, 0).repeat(2, 1))
    assert (out / "0.png").stat().st_mtime_ns == before

    for name in ("1.png", "large.png"):
        (photo_folder / name).unlink()
    again = ["upscale", str(photo_folder), "-o", str(out), "--scale", "4"]
    assert main(again) == 1
    assert "0.png is there already, of 192 x 144 pixels, not x4" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
    assert Image.open(out / "0.png").size == (384, 288)


# Stopping, and memory


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_call_leaves_nothing(photo, tmp_path, weights, how):
    save(photo, tmp_path / "photo.png")
    command = [sys.executable, "-m", "prffn", "upscale", "photo.png", "--weights", weights, "--tile", "4"]
    # Where the tests run in the background of a shell SIGINT is ignored, and programs inherit that.
    heed = functools.partial(signal.signal, how, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        until = time.monotonic() + 60
        while not (unfinished := list(tmp_path.rglob("*.part"))) and time.monotonic() < until:
            assert process.poll() is None, process.stderr
            time.sleep(0.02)
        assert unfinished
        process.send_signal(how)
        _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; no unfinished file is left behind" in printed
    assert sorted(os.listdir(tmp_path)) == ["photo.png", "tiny.safetensors"]


MEASURE = """
from pathlib import Path
import torch
from prffn.training.device import peak_memory_mb
from prffn.apps.upscale import upscale_file
model = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.PixelShuffle(4))
model.scale = 4
peaks = []
for name in ("small", "large"):  # the small one first: libraries load, buffers take their size
    upscale_file(Path(f"{name}.png"), Path(f"{name}_x4.png"), model, tile=64, progress=False)
    peaks.append(peak_memory_mb(torch.device("cpu")))
print(*peaks)
"""


def test_memory_does_not_grow_with_the_output(tmp_path):
    """3 megapixels at x4: 144 MB of output, 192 MB as Pillow holds it. The peak grows by the input and a band alone."""
    image = Image.effect_mandelbrot((2000, 1500), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    image.save(tmp_path / "large.png")
    image.crop((0, 0, 200, 200)).save(tmp_path / "small.png")
    done = subprocess.run([sys.executable, "-c", MEASURE], cwd=tmp_path, capture_output=True, text=True, check=True)
    small, large = map(float, done.stdout.split())
    in_pillow, as_array, band = (n * 1e-6 for n in (2000 * 1500 * 4, 2000 * 1500 * 3, 4 * 64 * 8000 * 3))
    assert large - small < 2 * in_pillow + 2 * as_array + 2 * band + 30  # 30 MB to spare
    assert (tmp_path / "large_x4.png").read_bytes()[16:24] == struct.pack(">II", 8000, 6000)
