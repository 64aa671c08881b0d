"""Image sets, the cache of decoded images, and patches."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from conftest import generator
from PIL import Image

from prffn.data.degradation import downscale
from prffn.data.drawn import DRAWN_SETS
from prffn.data.images import (
    EMBEDDED_SETS,
    KNOWN_SETS,
    RECORDED_CHECKSUMS,
    image_set,
    lr_images,
    set_checksum,
    set_label,
)
from prffn.data.patches import PatchSampler, to_image, to_tensor
from prffn.files import digest


def test_embedded_sets_are_disjoint_photographs():
    train, val = image_set("embedded_train"), image_set("embedded_val")
    assert not set(train.image_names) & set(val.image_names)
    assert len(train) == len(EMBEDDED_SETS["embedded_train"])
    for image in (*train.images, *val.images):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert min(image.shape[:2]) >= 300


def test_images_are_decoded_once(photo_folder, monkeypatch):
    first = image_set(str(photo_folder))
    image_set.cache_clear()
    monkeypatch.setattr("prffn.data.images.read_image", lambda path: pytest.fail(f"{path} was decoded again"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = image_set(str(photo_folder))
    assert again.checksum == first.checksum
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))


def test_a_changed_file_is_noticed(photo_folder, photo):
    before = image_set(str(photo_folder))
    Image.fromarray(photo[100:172, :96]).save(photo_folder / "1.png")
    image_set.cache_clear()
    with pytest.warns(UserWarning, match=rf"image 1 of {photo_folder} is not what it was .* bring it back"):
        after = image_set(str(photo_folder))
    assert np.array_equal(after.images[1], photo[100:172, :96])
    assert after.checksum != before.checksum


def test_the_checksum_is_of_pixels_not_of_files(photo_folder):
    png = image_set(str(photo_folder)).checksum
    for file in photo_folder.glob("*.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    image_set.cache_clear()
    assert image_set(str(photo_folder)).checksum == png


def test_lr_images_come_from_the_degradation(photo_folder):
    hr = image_set(str(photo_folder))
    for image, lr in zip(hr.images, lr_images(hr, 3), strict=True):
        assert np.array_equal(lr, downscale(image, 3))


def test_joined_sets_are_one(photo_folder):
    photos, drawn, joined = (image_set(name) for name in (str(photo_folder), "drawn", f"{photo_folder}+drawn"))
    assert joined.name == set_label(f"{photo_folder}+drawn") == "photos+drawn"
    assert joined.image_names == (*(f"photos/{n}" for n in "012"), *(f"drawn/{n}" for n in drawn.image_names))
    assert all(np.array_equal(a, b) for a, b in zip(joined.images, photos.images + drawn.images, strict=True))
    assert joined.checksum == set_checksum(f"{photo_folder}+drawn")
    assert joined.checksum not in {photos.checksum, drawn.checksum, image_set(f"drawn+{photo_folder}").checksum}
    for a, b in zip(lr_images(joined, 3), lr_images(photos, 3) + lr_images(drawn, 3), strict=True):
        assert np.array_equal(a, b)


def test_a_folder_may_have_a_plus_in_its_name(photo_folder):
    folder = photo_folder.rename(photo_folder.with_name("c++"))
    assert image_set(str(folder)).name == set_label(str(folder)) == "c++"
    assert len(image_set(str(folder))) == 3


@pytest.mark.parametrize("of_set", DRAWN_SETS)
def test_drawn_images_are_flat_or_have_hard_edges(of_set):
    """The flat ones are the corners of the RGB cube; in the scenes most pixels are of their neighbour's colour, and
    where they are not, hard_* jump as far in LR as in HR, while reduction leaves colours between in soft_*."""
    drawn = image_set(of_set)
    assert drawn.checksum == RECORDED_CHECKSUMS[of_set]
    flat = {tuple(image[0, 0]) for image in drawn.images if (image == image[0, 0]).all()}
    assert flat == {(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)}
    for name, hr, lr in zip(drawn.image_names, drawn.images, lr_images(drawn, 4), strict=True):
        colours = [np.unique(image.astype(int) @ (65536, 256, 1)) for image in (hr, lr)]
        assert lr.shape == (96, 96, 3)
        assert len(colours[0]) == 1 if name.startswith("flat") else 10 < len(colours[0]) <= 65
        assert (len(colours[1]) <= len(colours[0])) == (not name.startswith("soft"))
        assert (hr[:, 1:] == hr[:, :-1]).all(2).mean() > 0.9
    hard = drawn.image_names.index("hard_0")
    assert np.array_equal(lr_images(drawn, 3)[hard], drawn.images[hard][1::3, 1::3])


@pytest.mark.parametrize("name", list(RECORDED_CHECKSUMS))
def test_recorded_checksums_are_those_of_the_images(shared_data, name):
    assert image_set(name).checksum == RECORDED_CHECKSUMS[name]


def test_recorded_checksums_serve_where_the_images_are_not():
    assert set_checksum("Set5") == RECORDED_CHECKSUMS["Set5"]
    assert set_checksum("Set5+drawn") == digest([RECORDED_CHECKSUMS["Set5"], RECORDED_CHECKSUMS["drawn"]])
    with pytest.raises(FileNotFoundError, match="data get Set14"):
        set_checksum("Set14")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The user's folder of image sets, empty."""
    monkeypatch.setenv("PRFFN_DATA", str(tmp_path))
    return tmp_path


def test_other_images_of_a_recorded_set_are_said_to_be_others(photo_folder, data):
    photo_folder.rename(data / "Set5")
    for n in (3, 4):
        shutil.copy(data / "Set5" / "0.png", data / "Set5" / f"{n}.png")
    with pytest.warns(UserWarning, match="Set5 are not those of the recorded study"):
        assert set_checksum("Set5") != RECORDED_CHECKSUMS["Set5"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Set5", FileNotFoundError, "python -m prffn data get Set5 .*PRFFN_DATA"),
        ("Manga109", FileNotFoundError, "manga109.org"),
        ("Set55", ValueError, "unknown image set 'Set55'. Did you mean 'Set5'?"),
        ("drawn+drawm", ValueError, "unknown image set 'drawm'. Did you mean 'drawn'?"),
        ("drawn+", ValueError, "unknown image set ''"),
    ],
)
def test_missing_sets(name, error, message):
    with pytest.raises(error, match=message):
        image_set(name)


def test_incomplete_sets_are_refused(photo_folder, data):
    photo_folder.rename(data / "Set5")
    with pytest.raises(FileNotFoundError, match="holds 3 of 5 images"):
        image_set("Set5")


def test_the_first_five_of_div2k(data, photo):
    folder = data / KNOWN_SETS["DIV2K_val5"].folder
    folder.mkdir()
    for n in range(801, 811):
        Image.fromarray(photo[:20, : n - 780]).save(folder / f"{n:04d}.png")
    assert image_set("DIV2K_val5").image_names == ("0801", "0802", "0803", "0804", "0805")


def sampler(hr, lr, patch_size=8):
    return PatchSampler([hr], [lr], scale=3, patch_size=patch_size, batch_size=200, generator=generator())


def test_patches_are_pairs():
    """An image whose pixels tell their place: each LR pixel's place is that of the HR block above it, in every one of
    the eight symmetries."""
    grid = np.zeros((60, 60, 3), np.uint8)
    grid[..., 0], grid[..., 1] = np.arange(60)[:, None] // 3, np.arange(60)[None] // 3
    lr = grid[::3, ::3]
    lr_batch, hr_batch = sampler(grid, lr).batch()
    assert lr_batch.shape == (200, 3, 8, 8)
    assert hr_batch.shape == (200, 3, 24, 24)
    assert torch.equal(lr_batch, hr_batch[:, :, 1::3, 1::3])
    corners = {tuple((255 * (p[:2, 0, 0] - p[:2, -1, -1])).sign().int().tolist()) for p in lr_batch}
    turned = {bool(p[0, 0, 0] == p[0, 0, 1]) for p in lr_batch}
    assert len(corners) == 4
    assert turned == {True, False}


def test_patches_reach_every_border(photo):
    """An LR image of 9 x 9 holds four places for a patch of 8 x 8."""
    image, lr = photo[:27, :27], downscale(photo[:27, :27], 3)
    first_pixels = [to_image(patch)[0, 0] for patch in sampler(image, lr).batch()[0]]
    assert {tuple(np.argwhere((lr == pixel).all(2))[0]) for pixel in first_pixels} >= {(0, 0), (8, 8)}


def test_a_small_image_is_refused(photo):
    with pytest.raises(ValueError, match="image 0 is 33 x 33 pixels at LR, smaller than a patch of 48"):
        sampler(photo[:99, :99], photo[:33, :33], patch_size=48)


def test_tensors_and_images_round_trip(photo):
    tensor = to_tensor(photo[None])
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert np.array_equal(to_image(tensor[0]), photo)
    assert to_image(torch.full((3, 2, 2), 1.7)).max() == 255
