"""The metrics against published figures, against other libraries, and against values worked by hand."""

import math
import re
from unittest.mock import Mock

import lpips
import numpy as np
import pytest
import torch
from conftest import load
from PIL import Image
from scipy.signal import convolve2d
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from torchvision.models import alexnet

from prffn.data.degradation import downscale, mod_crop, upscale_bicubic
from prffn.data.images import image_set
from prffn.evaluation import metrics
from prffn.evaluation.metrics import (
    evaluate,
    evaluate_bicubic,
    lpips_alex,
    psnr_y,
    ssim_y,
)

RCAN = {2: (38.27, 0.9614), 3: (34.74, 0.9299), 4: (32.63, 0.9002)}  # published by RCAN's authors, Set5
BICUBIC_RGB = {  # PSNR of EDSR's and RCAN's convention: RGB is scaled, Y is taken of the result
    ("Set5", 2): 33.67, ("Set5", 3): 30.40, ("Set5", 4): 28.43,
    ("B100", 2): 29.56, ("B100", 3): 27.21, ("B100", 4): 25.96,
}  # fmt: skip


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rcan_outputs_score_as_published(shared_data, scale):
    psnr, ssim = [], []
    for path in sorted((shared_data / "fixtures" / "RCAN_Set5_SR" / f"x{scale}").glob("*.png")):
        hr = mod_crop(load(shared_data / "Set5" / f"{path.name.split('_')[0]}.png"), scale)
        psnr.append(psnr_y(load(path), hr, scale))
        ssim.append(ssim_y(load(path), hr, scale))
    assert len(psnr) == 5
    assert np.mean(psnr) == pytest.approx(RCAN[scale][0], abs=0.01)
    assert np.mean(ssim) == pytest.approx(RCAN[scale][1], abs=0.0005)


@pytest.mark.parametrize("name", ["Set5", "B100"])
def test_bicubic_scores_as_published(shared_data, name):
    for scale in (2, 3, 4):
        assert evaluate_bicubic(name, scale=scale).mean_psnr() == pytest.approx(BICUBIC_RGB[name, scale], abs=0.01)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_by_other_libraries(photo, scale):
    """The whole chain by code that no one here wrote, on a photograph of the scikit-image wheel: Pillow scales down
    and up, scikit-image converts to Y and measures PSNR. Only the border's treatment and single levels differ, so 12
    pixels are shaved and the figures agree to 0.02 dB."""
    hr = mod_crop(photo, scale)
    size = (hr.shape[1], hr.shape[0])
    small = Image.fromarray(hr).resize((size[0] // scale, size[1] // scale), Image.Resampling.BICUBIC)
    sr = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    y = [rgb2ycbcr(image)[12:-12, 12:-12, 0] for image in (hr, sr)]
    independent = peak_signal_noise_ratio(*y, data_range=255)
    assert psnr_y(upscale_bicubic(downscale(hr, scale), scale), hr, 12) == pytest.approx(independent, abs=0.02)


def test_psnr_by_hand():
    """One level more in R, G and B is (65.481 + 128.553 + 24.966) / 255 = 219 / 255 in Y:
    PSNR = 20 log10(255 * 255 / 219) = 49.4528 dB. Twice the difference costs 20 log10 2 = 6.0206 dB."""
    a = np.full((20, 30, 3), 100, np.uint8)
    assert psnr_y(a, a + 1, 2) == pytest.approx(20 * math.log10(255 * 255 / 219), abs=1e-9)
    assert psnr_y(a, a + 2, 2) == pytest.approx(20 * math.log10(255 * 255 / 219) - 20 * math.log10(2), abs=1e-9)
    assert psnr_y(a, a, 2) == math.inf


def test_ssim_of_flat_images_by_hand():
    """Flat images have no variance: SSIM = (2 a b + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2."""
    a, b = np.full((20, 20, 3), 60, np.uint8), np.full((20, 20, 3), 120, np.uint8)
    ya, yb, c1 = 16 + 60 * 219 / 255, 16 + 120 * 219 / 255, 6.5025
    assert ssim_y(a, b, 2) == pytest.approx((2 * ya * yb + c1) / (ya**2 + yb**2 + c1), abs=1e-9)


def test_ssim_from_its_formula(photo):
    """Wang et al. (2004), Eq. (13), written out: an 11 x 11 Gaussian window of sigma 1.5, weighted means, variances
    and covariance at each place where the window fits, C2 = (0.03 * 255)^2."""
    hr, sr = photo[:60, :70], upscale_bicubic(downscale(photo[:60, :70], 2), 2)
    x, y = (rgb2ycbcr(image)[2:-2, 2:-2, 0] for image in (hr, sr))
    one = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(one, one) / one.sum() ** 2

    def mean(image):
        return convolve2d(image, window, mode="valid")

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    ssim = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim_y(sr, hr, 2) == pytest.approx(ssim, abs=1e-9)


def test_lpips_from_its_formula(shared_weights, photo):
    """Zhang et al. (2018), Eq. (1), written out with torchvision's AlexNet and the heads in the lpips wheel:
    unit-normalised features of the five ReLUs, squared differences weighted per channel, mean over places, sum."""
    metrics._lpips_network.cache_clear()
    hr, sr = photo[:96, :96], upscale_bicubic(downscale(photo[:96, :96], 3), 3)
    trunk = alexnet().features.requires_grad_(False)
    state = torch.load(shared_weights / "alexnet_features.pth", weights_only=True)
    trunk.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/alex.pth", map_location="cpu", weights_only=True)
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    features = []
    for image in (hr, sr):
        x = (torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].float() - shift) / scale
        found = []
        for layer in trunk:
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        features.append(found)
    total = 0.0
    for n, (a, b) in enumerate(zip(*features, strict=True)):
        total += float(((a - b).square() * heads[f"lin{n}.model.1.weight"]).sum(1).mean())
    assert lpips_alex(sr, hr) == pytest.approx(total, rel=1e-4)
    assert lpips_alex(hr, hr) == 0
    metrics._lpips_network.cache_clear()


def test_lpips_without_a_trunk_is_not_measured(photo_folder, monkeypatch):
    """No download, no folder: the figure is absent and the reason stands in its place."""
    metrics._lpips_network.cache_clear()

    for where in ("torch.hub", "torchvision.models._api"):
        monkeypatch.setattr(f"{where}.load_state_dict_from_url", Mock(side_effect=OSError("no network")))
    measured = evaluate_bicubic(str(photo_folder), scale=2, lpips=True)
    assert measured.lpips is None
    assert "no trained AlexNet" in measured.not_measured["lpips"]
    assert measured.lpips is None
    assert len(measured.psnr_y) == 3


NEAREST = torch.nn.Upsample(scale_factor=2)


@pytest.mark.parametrize(("side", "scale", "left"), [(30, 2, 30), (31, 2, 30), (32, 3, 30), (31, 4, 28), (33, 2, None)])
def test_lpips_names_the_image_that_is_too_small(tmp_path, photo, monkeypatch, side, scale, left):
    """AlexNet: 31 pixels give 7 after its first layer, 3 and 1 after two poolings; 30 give 6, 2 and nothing. What is
    cut off to a multiple of the scale does not count."""
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    monkeypatch.setattr(metrics, "_lpips_network", lambda: network)
    for n, size in enumerate((48, side)):
        Image.fromarray(photo[:40, :size]).save(tmp_path / f"{n}.png")
    if left is None:
        assert np.isfinite(evaluate_bicubic(str(tmp_path), scale=scale, lpips=True).lpips).all()
        return
    with pytest.raises(ValueError, match=f"image 1 of {tmp_path.name}: LPIPS needs at least 31 x 31.*, got {left} x"):
        evaluate_bicubic(str(tmp_path), scale=scale, lpips=True)
    with pytest.raises(ValueError, match="two RGB images .* of one shape"):
        lpips_alex(photo[:40, :40], photo[:40, :41])
    with pytest.raises(ValueError, match="one shape"):
        psnr_y(photo, photo[1:], 2)


def test_a_scale_is_any_whole_number(photo_folder):
    expected = evaluate_bicubic(str(photo_folder), scale=2)
    for scale in (np.int64(2), np.uint8(2), torch.tensor(2)):
        assert evaluate(lambda lr: upscale_bicubic(lr, 2), str(photo_folder), scale=scale) == expected
    for scale in (2.0, True, "2", np.float32(2)):
        with pytest.raises(ValueError, match=f"scale must be a whole number, got {re.escape(repr(scale))}"):
            evaluate(NEAREST, str(photo_folder), scale=scale)


def test_evaluate_takes_functions_and_modules(photo_folder):
    module = evaluate(NEAREST, str(photo_folder), scale=2)
    function = evaluate(lambda lr: lr.repeat(2, 0).repeat(2, 1), image_set(str(photo_folder)), scale=2)
    assert module == function
    assert module.image_names == ("0", "1", "2")
    assert module.mean_psnr() < evaluate_bicubic(str(photo_folder), scale=2).mean_psnr()
