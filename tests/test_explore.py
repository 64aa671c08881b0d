"""What the quickstart shows: weights as in the loss, curves as in the training, widgets that answer."""

import dataclasses
import math

import ipywidgets
import numpy as np
import pytest
import torch
from conftest import small_prffn, tiny_settings

from prffn.apps.panels import compare_slider, region_panel, training_panel
from prffn.apps.quickstart import Upscaled, contrast_map, plot_detail, region_at, train_watched, upscaled
from prffn.config import LossConfig, experiment
from prffn.data.degradation import downscale, upscale_bicubic
from prffn.evaluation.metrics import psnr_y
from prffn.evaluation.tiling import upscale
from prffn.losses import pixel_contrast
from prffn.reporting.plots import new_figure


@pytest.fixture
def result(photo) -> Upscaled:
    return upscaled(photo[90:151, 120:206], small_prffn(3))  # 60 x 84 once it is cropped to a multiple of 3


def test_a_photograph_is_downscaled_and_upscaled_again(photo, result):
    hr = photo[90:150, 120:204]
    assert np.array_equal(result.hr, hr)
    assert np.array_equal(result.lr, downscale(hr, 3))
    assert np.array_equal(result.bicubic, upscale_bicubic(result.lr, 3))
    assert result.sr.shape == hr.shape
    assert result.figures().loc["bicubic", "PSNR-Y (dB)"] == f"{psnr_y(result.bicubic, hr, 3):.2f}"


def test_weights_by_hand():
    """The anchor's red is 0.2. Its positive's is 0 and one negative's 0.4, at a squared distance of 0.04; that of the
    other 14 is 1, at 0.64. At tau = 0.04: e^-1, e^-1, 14 times e^-16; the positive's share is 1 / (2 + 14 e^-15).
    """
    hr = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    hr[0, 0], hr[3, 2] = 0, (102, 0, 0)
    sr = np.zeros_like(hr)
    sr[0, 0] = (51, 0, 0)
    region = region_at(Upscaled(2, hr, sr, sr, sr), 0, 0, LossConfig(region_size=16, temperature=0.04))
    assert region.weights[0, 0] == pytest.approx(1 / (2 + 14 * math.exp(-15)))
    assert region.weights[3, 2] == region.weights[0, 0]
    assert region.loss == pytest.approx(math.log(2), abs=1e-5)
    assert list(region.figures()["what L_contr sees"]) == ["0.50", "0.50", "1", "0.7"]


@pytest.mark.parametrize("size", [16, 64])
def test_weights_and_map_are_those_of_the_loss(result, size):
    """Also in regions cut short by the border, at S = 64 from row 56 and column 80 on: the terms' mean is the loss."""
    side, loss = math.isqrt(size), LossConfig(region_size=size)
    terms = contrast_map(result, loss)
    for row, column in ((0, 0), (17, 40), (55, 79), (59, 83), (58, 3)):
        region = region_at(result, row, column, loss)
        assert region.weights.shape == (min(side, 60 - row // side * side), min(side, 84 - column // side * side))
        assert region.weights.sum() == pytest.approx(1)
        assert terms[row, column] == pytest.approx(region.loss)
        assert region.weights[region.anchor] == pytest.approx(math.exp(-region.loss))
    sr, hr = (torch.from_numpy(image / 255).permute(2, 0, 1)[None] for image in (result.sr, result.hr))
    assert terms.mean() == pytest.approx(pixel_contrast(sr, hr, size, implementation="reference").item())
    with pytest.raises(ValueError, match="got ratio, hr"):
        region_at(result, 0, 0, LossConfig(form="ratio"))


@pytest.mark.parametrize("at", [(-1, 0), (60, 0), (0, -1), (0, 84)])
def test_a_pixel_outside_the_image_is_named(result, at):
    axes = new_figure(ncols=3)[1]
    for look in (lambda: region_at(result, *at), lambda: plot_detail(axes, result, *at)):
        with pytest.raises(ValueError, match=rf"no pixel in row {at[0]}, column {at[1]}: .* 60 rows and 84 columns"):
            look()


def test_the_map_leaves_out_a_pixel_alone_in_its_region():
    """5 x 5 pixels, regions of 4 x 4: the corner's has one pixel, which has no negatives."""
    image = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    terms = contrast_map(Upscaled(1, image, image, image, image[::-1].copy()), LossConfig(region_size=16))
    assert np.isnan(terms[4, 4])
    assert np.isfinite(terms).sum() == 24


def settings(folder) -> dict[str, object]:
    return tiny_settings(folder, **{"training.steps": 20})


def test_a_training_is_watched(result, photo, photo_folder):
    """Every fifth step, with the figures of its curve and of its photograph, from the cache too; a call with `retrain`
    trains again."""
    e, seen = experiment(settings(photo_folder)), []
    other = dataclasses.replace(result, hr=photo[:60, :84], lr=downscale(photo[:60, :84], 3))
    first, others = (train_watched(e, shown, lambda points: seen.append(list(points))) for shown in (result, other))
    assert [len(points) for points in seen] == [1, 2, 3, 4] * 2
    of_the_curve = [{"step": p["step"], "psnr_y": p["psnr_y"]} for p in first.curve if "psnr_y" in p]
    assert seen[3] == of_the_curve
    assert [p["step"] for p in of_the_curve] == list(range(5, 21, 5))
    assert others.curve[-1]["psnr_y"] == psnr_y(upscale(others.model, other.lr, scale=3), other.hr, 3)
    assert first.curve != others.curve
    for shown, trained in ((result, first), (other, others)):
        assert train_watched(e, shown, lambda points: pytest.fail("trained again")).curve == trained.curve
    assert train_watched(e, result, lambda points: seen.append(points), retrain=True).curve == first.curve
    assert len(seen) == 12


def find(panel: ipywidgets.Widget, kind: type) -> list:
    inside = [found for child in getattr(panel, "children", ()) for found in find(child, kind)]
    return [panel, *inside] if isinstance(panel, kind) else inside


def test_the_slider_moves_the_line(result):
    panel = compare_slider(result, 30, 40, zoom=1)
    (slider,), (picture,) = find(panel, ipywidgets.IntSlider), find(panel, ipywidgets.Image)
    shown = {}
    for slider.value in (0, 50, 100):
        shown[slider.value] = picture.value
    assert len(set(shown.values())) == 3


def test_a_click_on_a_pixel_makes_it_the_anchor(result):
    panel = region_panel(result, 30, 40)
    buttons, (text,) = find(panel, ipywidgets.Button), find(panel, ipywidgets.HTML)
    assert len(buttons) == 64
    assert text.value == region_at(result, 30, 40).figures().to_html(border=0)
    marked = [n for n, button in enumerate(buttons) if button.layout.border_top != "none"]
    assert marked == [6 * 8]  # row 30 = 24 + 6, column 40 = 40 + 0
    buttons[8 + 3].click()
    assert text.value == region_at(result, 24 + 1, 40 + 3).figures().to_html(border=0)
    colour = "rgb({}, {}, {})".format(*result.sr[24, 40])
    assert buttons[0].style.button_color == colour
    find(panel, ipywidgets.IntSlider)[1].value = 0
    assert text.value == region_at(result, 24 + 1, 3).figures().to_html(border=0)


def test_the_button_trains(result, photo_folder):
    panel = training_panel(settings(photo_folder), result)
    (button,), (picture,) = find(panel, ipywidgets.Button), find(panel, ipywidgets.Image)
    before = picture.value
    button.click()
    assert picture.value != before
    assert not button.disabled
