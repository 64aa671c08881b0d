"""Figures of crops: figures by hand, regions and images by name, records that are damaged or foreign, what is drawn."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MADE, small_prffn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from prffn import config
from prffn.config import variants
from prffn.data.degradation import downscale, upscale_bicubic
from prffn.data.pictures import EMBEDDED, Picture, find_image, picture
from prffn.evaluation.tiling import upscale
from prffn.files import reports_root, save_record, weights_sha256
from prffn.models import PRFFN, build
from prffn.models import pretrained as shipped
from prffn.reporting.crop_plots import draw_crops, size_of
from prffn.reporting.crops import compare_losses, crop_conclusion, crop_table, readable, save_crops
from prffn.reporting.plots import new_figure
from prffn.study import crops as module
from prffn.study.crops import (
    BICUBIC,
    Crops,
    ensure_crops,
    figures,
    from_png,
    of_seed,
    to_png,
    weights_of_losses,
    weights_there,
)
from prffn.study.ensure import ensure
from prffn.study.evaluations import Weights

REGION = (20, 30, 16, 24)


@pytest.fixture
def small(tmp_path, photo) -> Picture:
    """A region of an image file of 62 x 71 pixels, which x3 crops to 60 x 69."""
    path = tmp_path / "mine.png"
    Image.fromarray(photo[80:142, 120:191]).save(path)
    return picture(str(path), REGION, 3)


def weights_of(model: nn.Module) -> Weights:
    return Weights(weights_sha256(model), "file x.pt", lambda: model)


def tiny(seed: int = 0) -> nn.Module:
    return small_prffn(3, seed)


def gone() -> nn.Module:
    raise FileNotFoundError


def made_up(shown: Picture, psnr: dict[str, float], missing: tuple[str, ...] = ()) -> Crops:
    """Records with these PSNR of the crop, an image 1 dB better, SSIM a hundredth of the PSNR."""
    records = {
        method: {
            "key": method, "method": method, "origin": "authors'", "parameters": 1234567, "finished": "2024-01-02",
            "figures": {"crop": {"psnr_y": p, "ssim_y": p / 100}, "image": {"psnr_y": p + 1, "ssim_y": p / 100}},
            "png": to_png(shown.crop(shown.hr)), "provenance": MADE,
        }
        for method, p in psnr.items()
    }  # fmt: skip
    return Crops(shown, "cpu", records, set(), list(missing))


def test_figures_by_hand():
    """SR differs from HR in one pixel of the crop and one outside, by 85 of each channel: Y by
    85 (65.481 + 128.553 + 24.966) / 255, which is 73. Of the crop's 16 x 24 pixels it is one:
    10 log10(255^2 / (73^2 / 384)) = 36.708 dB. The image has 54 x 63 without three at each border:
    10 log10(255^2 / (2 * 73^2 / 3402)) = 43.172 dB."""
    hr = np.full((60, 69, 3), 100, np.uint8)
    sr = hr.copy()
    sr[25, 40] += 85
    sr[50, 40] += 85
    found = figures(Picture("flat", 3, REGION, hr, ""), sr)
    assert found["crop"]["psnr_y"] == pytest.approx(36.708, abs=1e-3)
    assert found["image"]["psnr_y"] == pytest.approx(43.172, abs=1e-3)


class TestPictures:
    def test_a_region_is_rows_and_columns_of_the_image(self, small, photo):
        assert small.hr.shape == (60, 69, 3)
        assert np.array_equal(small.crop(small.hr), photo[100:116, 150:174])
        assert small.name == "mine"  # no path of this machine

    @pytest.mark.parametrize("region", ["20, 30, 16, 24", "20,30,16,24", [20, 30, 16, 24], (3, 3, 54, 63)])
    def test_a_region_may_be_text_and_reach_to_the_shaved_border(self, small, tmp_path, region):
        expected = region if isinstance(region, tuple) else REGION
        assert picture(str(tmp_path / "mine.png"), region, 3).region == expected

    @pytest.mark.parametrize(
        ("region", "message"),
        [
            ((2, 30, 16, 24), "must lie within rows 3 to 57 and columns 3 to 66 of this image at x3"),
            ((20, 44, 16, 24), "must lie within"),
            ((20, 30, 10, 24), "10 pixels high and 24 wide: SSIM needs at least 11 x 11"),
            ((20, 30, 16), r"must be top, left, height, width in whole HR pixels, got \(20, 30, 16\)"),
            ("20, 30, 16, x", "got '20, 30, 16, x'"),
        ],
    )
    def test_wrong_regions(self, small, tmp_path, region, message):
        """At x3 three pixels at each border are shaved: rows 3 to 57 and columns 3 to 66 are left of 60 x 69."""
        with pytest.raises(ValueError, match=message):
            picture(str(tmp_path / "mine.png"), region, 3)

    @pytest.mark.parametrize("name", EMBEDDED)
    def test_embedded_photographs_are_there(self, name):
        assert picture(name, (20, 30, 64, 64), 4).hr.shape[2] == 3

    def test_wrong_names(self, tmp_path, monkeypatch, photo):
        with pytest.raises(ValueError, match=r"unknown image 'cofee'. Did you mean 'coffee'\?.*Urban100/img_012"):
            find_image("cofee")
        with pytest.raises(FileNotFoundError, match="python -m prffn data get Urban100"):
            find_image("Urban100/img_012")
        monkeypatch.setenv("PRFFN_DATA", str(tmp_path))
        (tmp_path / "Urban100").mkdir()
        Image.fromarray(photo).save(tmp_path / "Urban100" / "img012.png")
        with pytest.raises(ValueError, match=r"unknown image of Urban100 'img_013'. Did you mean 'img012'\?"):
            find_image("Urban100/img_013")
        assert find_image("Urban100/img_012") == ("Urban100/img_012", tmp_path / "Urban100" / "img012.png")


class TestRecords:
    def test_made_once_then_loaded(self, small):
        model = tiny()
        first = ensure_crops(small, ["net"], {"net": weights_of(model)}, "quick")
        assert repr(first) == "2 crops of mine x3 of profile quick: 0 loaded, 2 measured"
        sr = upscale(model, downscale(small.hr, 3), scale=3)
        assert np.array_equal(from_png(first["net"]["png"]), small.crop(sr))
        assert first["net"]["figures"] == figures(small, sr)
        assert first["net"]["parameters"] == sum(p.numel() for p in model.parameters())
        bicubic = from_png(first[BICUBIC]["png"])
        assert np.array_equal(bicubic, small.crop(upscale_bicubic(downscale(small.hr, 3), 3)))

        again = ensure_crops(small, ["net"], {"net": Weights(weights_sha256(model), "", gone)}, "quick")
        assert repr(again) == "2 crops of mine x3 of profile quick: 2 loaded, 0 measured"
        assert again.data == json.loads(json.dumps(first.data))

    def test_recorded_crops_are_shown_without_their_weights(self, small):
        ensure_crops(small, ["net", "other"], {"net": weights_of(tiny())}, "quick")
        found = ensure_crops(small, ["other", "net"], {}, "quick")
        assert list(found) == [BICUBIC, "net"]
        assert repr(found).endswith("2 loaded, 0 measured; missing: other")
        assert list(ensure_crops(small, ["other"], {}, "quick")) == [BICUBIC]
        retrained = ensure_crops(small, ["net"], {}, "quick", retrain=True)
        assert repr(retrained).endswith("1 loaded, 1 measured")

    def test_other_weights_regions_images_and_protocols_have_records_of_their_own(self, small, tmp_path, monkeypatch):
        ensure_crops(small, ["net"], {"net": weights_of(tiny())}, "quick")
        other = ensure_crops(small, ["net"], {"net": weights_of(tiny(1))}, "quick")
        assert len(other.new) == 1
        moved = picture(str(tmp_path / "mine.png"), (21, 30, 16, 24), 3)
        assert list(ensure_crops(moved, ["net"], {}, "quick")) == [BICUBIC]
        brighter = np.asarray(Image.open(tmp_path / "mine.png")).copy()
        brighter[0, 0] ^= 1
        Image.fromarray(brighter).save(tmp_path / "mine.png")
        assert list(ensure_crops(picture(str(tmp_path / "mine.png"), REGION, 3), ["net"], {}, "quick")) == [BICUBIC]
        assert not ensure_crops(small, [], {}, "quick").new
        monkeypatch.setattr(module, "PROTOCOL", module.PROTOCOL + 1)
        assert len(ensure_crops(small, [], {}, "quick").new) == 1

    def test_the_last_of_two_under_one_name_is_shown(self, small):
        """Where neither weights are at hand."""
        for seed, day in ((0, "2024-01-02"), (1, "2024-01-01")):
            crops = ensure_crops(small, ["net"], {"net": weights_of(tiny(seed))}, "quick")
            record = {**crops["net"], "finished": day}
            save_record(reports_root() / "quick" / "crops", record["key"], record)
        assert ensure_crops(small, ["net"], {}, "quick")["net"]["weights"] == weights_sha256(tiny(0))

    def test_weights_that_cannot_be_loaded_are_left_out(self, small):
        """A run whose checkpoint is on another machine; a crop by other weights of that name is no substitute."""
        ensure_crops(small, ["net"], {"net": weights_of(tiny())}, "quick")
        found = ensure_crops(small, ["net"], {"net": Weights("0" * 64, "", gone)}, "quick")
        assert found.missing == ["net"]


class TestWeights:
    def test_files_and_the_shipped_network(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
        assert weights_there("quick", 3) == {}
        model = PRFFN(3, channels=4, groups=1, blocks=1)
        settings = {"data.scale": 3, "data.train": "BSD200", "model.channels": 4, "model.groups": 1, "model.blocks": 1}
        sha256 = weights_sha256(model)
        shipped.save_pretrained(model, shipped.pretrained_path(3), settings, "key", sha256)
        (tmp_path / "files").mkdir()
        torch.save(build("CARN-M", 3).state_dict(), tmp_path / "files" / "carn_m.pth")
        monkeypatch.setenv("PRFFN_WEIGHTS", str(tmp_path / "files"))
        found = weights_there("quick", 3)
        assert set(found) == {"small PRFFN", "CARN-M"}
        assert (found["small PRFFN"].sha256, found["CARN-M"].origin) == (sha256, "file carn_m.pth")
        assert found["small PRFFN"].origin == "shipped, trained on BSD200"
        assert weights_sha256(found["small PRFFN"].load()) == sha256

    def test_of_runs(self, small, tiny_losses, tmp_path):
        """Two losses, two seeds; the crops stay when the checkpoints are gone."""
        experiments, runs = tiny_losses
        weights = weights_of_losses(experiments, runs)
        assert list(weights) == ["L_1, seed 0", "L_1, seed 1", "L_1 + L_contr, seed 0", "L_1 + L_contr, seed 1"]
        crops = ensure_crops(small, list(weights), weights, "quick")
        assert len(crops.new) == 5
        verdicts = compare_losses(crops, {"it helps": ("L_1 + L_contr", "L_1")}, runs)
        of_crop = {method: record["figures"]["crop"]["psnr_y"] for method, record in crops.items()}
        gains = [of_crop[of_seed("L_1 + L_contr", n)] - of_crop[of_seed("L_1", n)] for n in range(2)]
        assert verdicts.loc[("it helps", "the crop"), "difference"] == pytest.approx(np.mean(gains), abs=5e-4)
        save_crops("fig7", [crops], new_figure()[0], title="T", runs=runs, verdicts=verdicts)
        content = json.loads((tmp_path / "reports" / "quick" / "fig7.json").read_text())
        assert content["runs"] == {label: [run.key for run in group] for label, group in runs.items()}
        assert content["verdicts"][0]["set"] == "the crop"
        for file in (tmp_path / "cache" / "checkpoints").iterdir():
            file.unlink()
        assert len(ensure_crops(small, list(weights), weights_of_losses(experiments, runs), "quick").new) == 0
        moved = Picture(small.name, 3, (21, 30, 16, 24), small.hr, small.checksum)
        assert ensure_crops(moved, list(weights), weights, "quick").missing == list(weights)


@pytest.fixture
def tiny_losses(tiny, monkeypatch):
    """L_1 and L_1 + L_contr, two seeds each, of a network that trains in a second."""
    of_tiny = [name for name in config.fields_of() if name.startswith(("data.", "model.", "training."))]
    budget = {**{name: config.setting(tiny, name) for name in of_tiny}, "training.steps": 2}
    monkeypatch.setitem(config.PROFILES, "quick", budget)
    vary = {"L_1": {"loss.contrast_weight": 0.0}, "L_1 + L_contr": {"loss.region_size": 16}}
    experiments = variants("quick", vary, seeds=2)
    return experiments, ensure(experiments, "quick", device="cpu", progress=False)


class TestTableAndConclusion:
    def test_table_by_hand(self, small):
        table = crop_table([made_up(small, {BICUBIC: 20.004, "CARN-M": 21.5})])
        row = table.loc[("mine x3", "CARN-M")]
        found = [row[name] for name in ("crop PSNR", "gain", "crop SSIM", "image PSNR")]
        assert found == pytest.approx([21.5, 1.496, 0.215, 22.5])
        assert readable(table).loc[("mine x3", BICUBIC), ["parameters (K)", "gain"]].to_list() == ["", ""]

    def test_conclusion(self, small):
        text = crop_conclusion([made_up(small, {BICUBIC: 20.0, "CARN-M": 21.5, "small PRFFN": 21.0})])
        assert "highest PSNR-Y CARN-M, 21.50 dB, 1.50 dB above bicubic; highest SSIM-Y CARN-M, 0.2150." in text
        for psnr, verdict in (
            ({"CARN-M": 21.5}, "not decided, no PRFFN of the paper's size is there"),
            ({"CARN-M": 21.5, "PRFFN": 22.0}, "That PRFFN is nearest to HR: holds on this crop."),
            ({"CARN-M": 21.5, "PRFFN": 21.4}, "does not hold on this crop."),
            ({"PRFFN": 21.4}, "not decided, there is no other network"),
        ):
            assert verdict in crop_conclusion([made_up(small, {BICUBIC: 20.0, **psnr})])

    def test_losses_by_hand(self, small):
        """Differences 0.2 and 0.1 dB: mean 0.15, t(1) = 12.7062, error 0.05: 0.15 +- 0.6353."""
        psnr = {BICUBIC: 20.0, "a, seed 0": 21.0, "a, seed 1": 22.0, "b, seed 0": 21.2, "b, seed 1": 22.1}
        claims, two = {"b": ("b", "a")}, {"a": "01", "b": "01"}
        row = compare_losses(made_up(small, psnr), claims, two).loc[("b", "the crop")]
        numbers = {"seeds": 2, "difference": 0.15, "low": -0.485, "high": 0.785, "p": 0.2}
        assert row.to_dict() == {**numbers, "verdict": "not decided", "would decide": "about 3 seeds"}
        psnr["b, seed 1"] = 22.2
        assert compare_losses(made_up(small, psnr), claims, two)["verdict"].to_list() == ["holds"] * 2
        one = compare_losses(made_up(small, psnr), claims, {"a": "01", "b": "0"}).loc[("b", "the crop")]
        assert (one["verdict"], one["seeds"], one["difference"]) == ("not decided", 1, 0.2)
        del psnr["b, seed 0"]
        assert set(compare_losses(made_up(small, psnr), claims, two)["verdict"]) == {"not measured"}
        assert set(compare_losses(made_up(small, psnr), claims, {"a": "01", "b": ""})["verdict"]) == {"not measured"}

    def test_files(self, small, tmp_path):
        pictures = [made_up(small, {BICUBIC: 20.0, "CARN-M": 21.5}, ("TSAN",)), made_up(small, {BICUBIC: 20.5})]
        figure, ax = new_figure(figsize=size_of(pictures))
        draw_crops(ax, pictures)
        assert save_crops("fig", pictures, figure, title="T") == "reports/cpu/fig.md"
        folder = tmp_path / "reports" / "cpu"
        content = json.loads((folder / "fig.json").read_text())
        assert content["crops"] == [BICUBIC, "CARN-M", BICUBIC]
        assert "not a reproduction" in content["label"]
        text = (folder / "fig.md").read_text()
        assert "Weights missing, and left out: TSAN." in text
        assert "| mine x3 | CARN-M | authors' | 1235 | 21.50 | +1.50 | 0.2150 |" in text
        assert pd.read_csv(folder / "fig.csv")["crop PSNR"].to_list() == [20.0, 21.5, 20.5]
        with Image.open(folder / "fig.png") as png:
            assert abs(png.width - 180 / 25.4 * 250) < 2  # a page's two columns at 250 dots per inch
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        save_crops("fig", pictures, figure, title="T")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


class TestPlot:
    def drawn(self, crops: Crops, captions: dict[str, str] | None = None):
        figure, ax = new_figure(figsize=size_of([crops], captions), layout="none", dpi=200)
        ax.set_position((0, 0, 1, 1))
        draw_crops(ax, [crops], captions)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return ax, np.asarray(canvas.buffer_rgba())[..., :3].astype(int)

    def test_the_frame_and_the_crop_show_the_same_region(self):
        """Blue in the region and nowhere else: of the drawn image exactly what is framed is blue, and HR's crop
        is blue to its edges."""
        hr = np.full((90, 120, 3), 200, np.uint8)
        hr[40:56, 70:94] = (0, 0, 255)
        crops = made_up(Picture("blue", 2, (40, 70, 16, 24), hr, ""), {BICUBIC: 20.0})
        ax, pixels = self.drawn(crops)
        whole, hr_crop = (next(i for i in ax.images if i.get_gid() == name) for name in ("blue", "crop HR"))
        frame = next(p for p in ax.patches if p.get_gid() == "region")
        left, right, _, _ = whole.get_extent()
        mm = (right - left) / 120
        assert frame.get_bbox().bounds == pytest.approx((70 * mm, 40 * mm, 24 * mm, 16 * mm))
        blue = (abs(pixels - (0, 0, 255)) < 60).all(axis=2)

        def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
            """Of the canvas, in its pixels; y runs down."""
            (a, b), (c, d) = ax.transData.transform([(x0, y0), (x1, y1)]).round().astype(int)
            return blue[max(len(blue) - b, 0) : len(blue) - d, max(a, 0) : c]

        margin = 0.6  # mm, half the frame's width and a little more
        x, y, w, h = frame.get_bbox().bounds
        assert box(x + margin, y + margin, x + w - margin, y + h - margin).all()
        x0, x1, y1, y0 = whole.get_extent()
        assert box(x0, y0, x1, y1).sum() == box(x, y, x + w, y + h).sum() > 100
        x0, x1, y1, y0 = hr_crop.get_extent()
        assert box(x0 + margin, y0 + margin, x1 - margin, y1 - margin).all()

    def test_crops_are_the_recorded_ones_in_their_order(self, small):
        crops = ensure_crops(small, ["net"], {"net": weights_of(tiny())}, "quick")
        ax, _ = self.drawn(crops)
        shown = {image.get_gid(): np.asarray(image.get_array()) for image in ax.images}
        assert list(shown) == ["mine", "crop HR", "crop bicubic", "crop net"]
        assert np.array_equal(shown["crop net"][6::12, 6::12], from_png(crops["net"]["png"]))
        assert np.array_equal(shown["crop HR"][6::12, 6::12], small.crop(small.hr))

    def test_captions_choose_and_rename_and_the_best_figures_are_bold(self, small):
        crops = made_up(small, {BICUBIC: 20.0, "L_1, seed 0": 21.0, "A": 21.0, "L_1, seed 1": 25.0})
        crops[BICUBIC]["figures"]["crop"]["ssim_y"] = 0.9
        names = {BICUBIC: BICUBIC, "L_1, seed 0": "L_1", "A": "A", "none": "none"}
        texts = [text.get_text() for text in self.drawn(crops, names)[0].texts]
        assert r"$\mathbf{L_{1}}$" in texts
        assert texts.count(r"$\mathbf{21.00}$ / 0.2100") == 2
        assert r"20.00 / $\mathbf{0.9000}$" in texts
        assert not [text for text in texts if "25.00" in text or "none" in text]

    @pytest.mark.parametrize(
        ("count", "shape"), [(1, (60, 69)), (2, (200, 60)), (5, (60, 240)), (11, (60, 69)), (11, (60, 240))]
    )
    def test_nothing_overlaps_or_leaves_the_page(self, photo, count, shape):
        """From bicubic alone to all methods of the paper, on upright and wide images."""
        hr = np.resize(photo, (*shape, 3)).astype(np.uint8)
        names = [BICUBIC, *module.METHODS][:count]
        shown = Picture("a name", 3, REGION, hr, "")
        ax, _ = self.drawn(made_up(shown, dict.fromkeys(names, 28.42)))
        renderer = FigureCanvasAgg(ax.figure).get_renderer()
        boxes = [item.get_window_extent(renderer) for item in (*ax.images, *ax.texts)]
        for n, box in enumerate(boxes):
            assert box.x0 >= -1
            assert box.x1 <= ax.figure.bbox.x1 + 1
            assert box.y0 >= -1
            assert not any(box.shrunk(0.99, 0.99).overlaps(other) for other in boxes[:n])
        assert ax.figure.get_figwidth() <= 180.01 / 25.4
