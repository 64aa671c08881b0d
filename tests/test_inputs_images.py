"""Any image: of every mode, size, orientation and scale, it is taken as documented, or refused by an error that names
it and says what to do. Properties, over examples that hypothesis draws."""

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from test_photos import Repeat
from torch import Tensor, nn

from prffn.apps.photos import FORMATS, read_photo
from prffn.apps.upscale import upscale_file
from prffn.data.degradation import downscale, mod_crop, upscale_bicubic
from prffn.data.images import image_set, lr_images, read_image
from prffn.evaluation.metrics import psnr_y, ssim_y
from prffn.evaluation.tiling import in_bands, upscale, upscale_tiles
from prffn.study.ensure import ensure

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd and damaged files

SCALES = st.sampled_from((2, 3, 4))
EXTREME = ((1, 1), (1, 500), (500, 1), (3, 2000), (2000, 3))
SIZES = st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from(EXTREME))
"""Height and width."""

FILES = {
    "1": "png tif bmp",
    "L": "png tif bmp jpg",
    "LA": "png tif",
    "P": "png tif",
    "P, one colour transparent": "png",
    "P, colours with alpha": "png",
    "L, one gray transparent": "png",
    "RGB": "png tif bmp jpg webp",
    "RGB, one colour transparent": "png",
    "RGBA": "png tif webp",
    "YCbCr": "jpg",
}
"""What can be read: kinds of images, and the files that hold them."""

REFUSED = {"I": "tif", "F": "tif", "CMYK": "jpg tif", "LAB": "tif"}
"""What cannot: by Pillow's name of the mode."""


@dataclass(frozen=True)
class Drawn:
    """A file to be written: its kind, suffix, size, EXIF orientation (0: none), and what its pixels are drawn from."""

    kind: str
    suffix: str
    size: tuple[int, int]
    orientation: int
    seed: int

    def save(self, path: Path) -> Path:
        """Noise of few values, so that a palette holds its colours and one of them can be the transparent one."""
        mode, _, transparent = self.kind.partition(", ")
        values = 30 * np.random.default_rng(self.seed).integers(0, 8, (*self.size, 4), dtype=np.uint8)
        channels = {"L": 0, "LA": slice(2), "RGBA": slice(4)}.get(mode, slice(3))
        image = Image.fromarray(values[..., channels]).convert(mode)
        options: dict[str, object] = {}
        if self.orientation:
            options["exif"] = Image.Exif()
            options["exif"][ExifTags.Base.Orientation] = self.orientation
        if transparent:
            many = transparent == "colours with alpha"
            options["transparency"] = bytes(range(0, 250, 10)) if many else image.getpixel((0, 0))
        image.save(path, **options)
        return path


def pairs(kinds: dict[str, str]) -> list[tuple[str, str]]:
    return [(kind, suffix) for kind, suffixes in kinds.items() for suffix in suffixes.split()]


def drawn_files(kinds: dict[str, str]) -> st.SearchStrategy[Drawn]:
    drawn = st.sampled_from(pairs(kinds)), SIZES, st.integers(0, 8), st.integers(0, 2**32 - 1)
    return st.builds(lambda pair, *rest: Drawn(*pair, *rest), *drawn)


@contextmanager
def folder() -> Iterator[Path]:
    """A new one for each example; a fixture would be the same for all of them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def shown(path: Path) -> Image.Image:
    """What Pillow's own functions make of a file: decoded and set upright."""
    with Image.open(path) as file:
        file.load()
        return ImageOps.exif_transpose(file)


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class Brightest(Repeat):
    """The brightest pixel within `reach` in every direction, repeated: exact, and it looks no further."""

    def __init__(self, scale: int, reach: int) -> None:
        super().__init__(scale)
        self.pool = nn.MaxPool2d(2 * reach + 1, stride=1, padding=reach)

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(self.pool(lr))


# Image sets


@given(drawn_files(FILES))
def test_any_file_is_read_as_it_is_shown(drawn):
    """Upright, in RGB, without its alpha."""
    with folder() as where:
        path = drawn.save(where / f"image.{drawn.suffix}")
        assert np.array_equal(read_image(path), np.asarray(shown(path).convert("RGB")))


@given(drawn_files(REFUSED))
def test_other_kinds_are_refused_by_name_with_the_way_out(drawn):
    with folder() as where:
        path = drawn.save(where / f"image.{drawn.suffix}")
        for read in (read_image, read_photo):
            with pytest.raises(ValueError, match=f"{path}.* mode {drawn.kind}.*convert it"):
                read(path)


@given(st.sampled_from([pair for pair in pairs(FILES) if pair[1] != "bmp"]), st.integers(0, 2**32 - 1))
def test_any_changed_bytes_give_an_image_or_an_error_that_names_the_file(pair, seed):
    """Three bytes of the file, the headers more often than the rest."""
    with folder() as where:
        path = Drawn(*pair, (9, 7), 6, 0).save(where / f"image.{pair[1]}")
        content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
        for place in random.integers(0, min(len(content), random.choice((64, 400, len(content)))), 3):
            content[place] = random.integers(0, 256)
        path.write_bytes(content)
        for read in (read_image, lambda path: read_photo(path).rgb):
            try:
                assert read(path).shape[2] == 3
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017


@settings(max_examples=15)
@given(st.lists(drawn_files(FILES), min_size=1, max_size=4), SCALES)
def test_a_folder_of_any_images_is_a_set(drawn, scale):
    """From the cache as from the files; its LR images have their sizes, or the image that is too small is named."""
    with folder() as where:
        paths = [d.save(where / f"{n}.{d.suffix}") for n, d in enumerate(drawn)]
        images = image_set(str(where))
        assert images.image_names == tuple(path.stem for path in paths)
        assert all(np.array_equal(image, read_image(path)) for path, image in zip(paths, images.images, strict=True))
        image_set.cache_clear()
        assert image_set(str(where)).checksum == images.checksum
        sizes = [(image.shape[0] // scale, image.shape[1] // scale) for image in images.images]
        small = [str(n) for n, size in enumerate(sizes) if not min(size)]
        refused = pytest.raises(
            ValueError, match=f"image {''.join(small[:1])} of .* smaller than one pixel at x{scale}"
        )
        with refused if small else nullcontext():
            assert [lr.shape for lr in lr_images(images, scale)] == [(*size, 3) for size in sizes]


# Degradation and metrics


@given(SIZES, SCALES, st.integers(0, 2**32 - 1))
def test_degradation_of_any_size(size, scale, seed):
    """Sizes, gray as each channel of RGB, one colour stays itself, and a turned image gives a turned image."""
    image = noise(size, seed)
    high = upscale_bicubic(image, scale)
    assert high.shape == (size[0] * scale, size[1] * scale, 3)
    assert np.array_equal(upscale_bicubic(np.ascontiguousarray(image[..., 1]), scale), high[..., 1])
    assert np.array_equal(upscale_bicubic(image[::-1, ::-1], scale), high[::-1, ::-1])
    low = downscale(high, scale)
    assert low.shape == image.shape
    assert np.array_equal(downscale(high[..., 2], scale), low[..., 2])
    assert np.array_equal(downscale(high[::-1, ::-1], scale), low[::-1, ::-1])
    plain = np.full_like(high, image[0, 0])
    assert np.array_equal(downscale(plain, scale), np.full_like(low, image[0, 0]))
    assert np.array_equal(upscale_bicubic(np.full_like(image, image[0, 0]), scale), plain)


@given(st.one_of(st.floats(), st.integers(max_value=0), st.integers(17), st.text(), st.none(), st.booleans()))
def test_no_scale(scale):
    for change in (downscale, upscale_bicubic, mod_crop):
        with pytest.raises(ValueError, match=f"scale must be .* got {re.escape(repr(scale))}"):
            change(noise((5, 7)), scale)


@given(SIZES, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_metrics_of_any_size(size, shave, seed):
    """Both are the same either way round, best for equal images, and blind to the border; SSIM wants 11 x 11 pixels."""
    a, b = noise(size, seed), noise(size, seed + 1)
    border = a.copy()
    border[:shave], border[:, :shave] = b[:shave], b[:, :shave]
    for metric, least, best, message in ((psnr_y, 1, np.inf, "nothing is left"), (ssim_y, 11, 1, "11 x 11|nothing is")):
        if min(size) - 2 * shave < least:
            with pytest.raises(ValueError, match=message):
                metric(a, b, shave)
        else:
            assert metric(a, b, shave) == pytest.approx(metric(b, a, shave), abs=1e-12)
            assert metric(a, b, shave) < metric(a, a, shave)
            assert metric(a, a, shave) == pytest.approx(best)
            assert metric(a, border, shave) == pytest.approx(best)


def test_an_image_that_cannot_be_measured_is_found_before_the_training(tiny, photo_folder, tmp_path):
    Image.fromarray(noise((16, 40))).save(photo_folder / "small.png")
    e = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, patch_size=5))
    with pytest.raises(ValueError, match="image small of photos: SSIM needs at least 11 x 11 pixels"):
        ensure({"tiny": [e]}, "quick", progress=False)
    assert not list(tmp_path.rglob("*.ckpt"))


# Networks


@given(SIZES, SCALES, st.one_of(st.none(), st.integers(1, 600)), st.integers(0, 5), st.integers(0, 5))
def test_tiles_are_the_whole_image_where_the_halo_is_as_wide_as_the_network_looks(size, scale, tile, reach, more):
    """To the bit, for arrays in any layout, and band by band."""
    model, image, halo = Brightest(scale, reach), noise(size), reach + more
    tile = tile if tile is None or size[0] * size[1] / tile**2 < 200 else 30
    whole = upscale(model, image, scale=scale)
    assert whole.shape == (size[0] * scale, size[1] * scale, 3)
    assert np.array_equal(upscale(model, image, scale=scale, tile=tile, halo=halo), whole)
    turned = noise(size)[::-1, ::-1]
    turned.flags.writeable = False
    assert np.array_equal(upscale(model, turned, scale=scale, tile=tile, halo=halo), whole[::-1, ::-1])
    bands = in_bands(upscale_tiles(model, image, scale, "cpu", tile, halo), whole.shape[1])
    assert np.array_equal(np.concatenate(list(bands)), whole)


def test_a_halo_that_is_too_narrow_shows():
    """So that the test above could fail."""
    narrow, whole = (upscale(Brightest(2, 3), noise((40, 40)), scale=2, tile=tile, halo=2) for tile in (8, None))
    assert not np.array_equal(narrow, whole)
    for wrong in ({"tile": 0}, {"tile": 2.0}, {"tile": 8, "halo": -1}):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} must be a whole number"):
            upscale(Repeat(2), noise((5, 5)), scale=2, **wrong)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 4), (0, 9, 3), (9, 0, 3), (1, 9, 9, 3)])
def test_no_image(shape):
    image = np.zeros(shape, np.uint8)
    for measure in (psnr_y, ssim_y):
        with pytest.raises(ValueError, match=rf"(expected two RGB images|nothing is left).*{re.escape(str(shape))}"):
            measure(image, image, 0)
    for wrong in (image, np.zeros((5, 5, 3), np.float32)):
        with pytest.raises(
            ValueError, match=rf"expected an RGB image .* got {re.escape(f'{wrong.shape} {wrong.dtype}')}"
        ):
            upscale(Repeat(2), wrong, scale=2)


# Files


@settings(max_examples=120)
@given(drawn_files(FILES), SCALES, st.integers(1, 60), st.sampled_from(sorted(FORMATS)))
def test_any_file_becomes_what_is_promised(drawn, scale, tile, suffix):
    """The size is `scale` times that of the image as it is shown; gray stays gray, but for WebP, which has none; alpha
    stays, upscaled bicubically, or JPEG is refused; lossless formats hold the network's pixels where they show."""
    with folder() as where:
        source, target = drawn.save(where / f"in.{drawn.suffix}"), where / f"out{suffix}"
        image = shown(source)
        gray = image.mode in ("1", "L", "LA")
        before = np.asarray(image.convert("RGBA")) if image.has_transparency_data else np.asarray(image.convert("RGB"))
        alpha = before[..., 3] if before.shape[2] == 4 else None
        tile = tile if image.width * image.height / tile**2 < 200 else 30
        if suffix in (".jpg", ".jpeg") and alpha is not None:
            with pytest.raises(ValueError, match=rf"{target}: JPEG has no transparency.*write out.png"):
                upscale_file(source, target, Repeat(scale), tile=tile, progress=False)
            assert not target.exists()
            return
        size = upscale_file(source, target, Repeat(scale), tile=tile, progress=False)
        with Image.open(target) as out:
            out.load()
            assert size == out.size == (image.width * scale, image.height * scale)
            opaque = alpha is None or (suffix == ".webp" and alpha.min() == 255)  # for which WebP has no alpha
            assert out.mode == ("L" if gray and suffix != ".webp" else "RGB") + ("" if opaque else "A")
            assert out.getexif().get(ExifTags.Base.Orientation, 1) == 1
            found = np.asarray(out.convert("RGBA"))
        if suffix in (".jpg", ".jpeg"):
            return
        seen = np.ones(image.size[::-1], bool) if alpha is None else alpha > 0
        seen, expected = (x.repeat(scale, 0).repeat(scale, 1) for x in (seen, before[..., :3]))
        assert np.array_equal(found[seen][:, :3], expected[seen])
        assert (found[..., 3] == (255 if alpha is None else upscale_bicubic(np.ascontiguousarray(alpha), scale))).all()
