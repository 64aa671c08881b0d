"""Table 8 from made-up timings, runs and evaluations, by hand; what is evaluated, and found again."""

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CHECKOUT, MADE, MADE_RUN
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import nn

from prffn import paper
from prffn.evaluation.metrics import evaluate_bicubic
from prffn.files import REPORTS_VARIABLE, weights_sha256
from prffn.models import build
from prffn.models.complexity import parameters
from prffn.models.pretrained import pretrained
from prffn.reporting import tradeoff
from prffn.reporting.plots import new_figure
from prffn.reporting.table8 import benchmark_conclusion, benchmark_provenance, save_benchmark
from prffn.study import benchmark, evaluations
from prffn.study.benchmark import compare_networks, networks, trained_scales, weights_there
from prffn.study.evaluations import (
    BICUBIC,
    SMALL,
    Weights,
    ensure_evaluations,
    find_weights,
    weights_from_files,
    weights_of_runs,
)
from prffn.study.runs import Run, Runs
from prffn.study.store import Found
from prffn.study.timings import Timings, forward_cases


def made_up(profile: str = "cpu", failing: str | None = None) -> tuple[Timings, Runs, Found]:
    """Times: as printed, in tenths, but CARN x2 three times as long; 50 ms where nothing is printed. Two seeds.

    PSNR of the package's network: 30 and 31 dB on two images; bicubic 28. Nothing is known of what was trained.
    """
    printed = paper.table(8).set_index(["scale", "method"]).runtime_ms
    seconds = {}
    for scale in benchmark.SCALES:
        for name in networks():
            ms = printed.get((scale, name), np.nan)
            seconds[f"{name} x{scale}"] = 0.05 if np.isnan(ms) else ms / 1e4
    seconds["CARN x2"] *= 3
    timings = Timings(
        {
            "key": "timings", "rounds": 3, "cases": {name: ["ForwardCase", {}] for name in seconds}, "peak_mb": {},
            "seconds": {
                name: "OutOfMemoryError" if name == failing else [s * f for f in (0.9, 1.0, 1.1)]
                for name, s in seconds.items()
            },
            "provenance": MADE, "finished": "2024-01-01",
        },
        profile, loaded=True,
    )  # fmt: skip

    def run(scale: int, seed: int) -> Run:
        settings = {**MADE_RUN["settings"], "seed": seed, "loss.contrast_weight": 0.1, "data.scale": scale}
        record = {**MADE_RUN, "settings": settings, "weights_sha256": f"{scale}{seed}"}
        return Run(f"x{scale}-{seed}", record)

    runs = Runs(profile, {f"x{scale}": [run(scale, 0), run(scale, 1)] for scale in trained_scales(profile)}, set())
    found = {("SMSR", 2, "Set5"): evaluation("authors'", [37.0, 38.0], [0.95, 0.97])}
    for scale, name in product(benchmark.SCALES, ("Set5", "B100")):
        found[SMALL, scale, name] = evaluation("shipped, trained on t", [30.0, 31.0], [0.8, 0.9])
        found[BICUBIC, scale, name] = evaluation("", [28.0], [0.7])
    return timings, runs, Found("evaluations", profile, found, set())


def evaluation(origin: str, psnr: list[float], ssim: list[float]) -> dict[str, Any]:
    figures = {"psnr_y": psnr, "ssim_y": ssim}
    return {"key": "e", "origin": origin, "provenance": MADE, "finished": "2024-01-01", "evaluation": figures}


@pytest.fixture(autouse=True)
def counted_once(counted, monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "table8_complexity", lambda: counted)


@pytest.fixture
def table() -> pd.DataFrame:
    return compare_networks(*made_up())


def test_figures_by_hand(table):
    """SMSR x2: 536 / 792 = 0.68 in print and, a tenth of it, here; mean of 37 and 38 dB beside the printed 38.00."""
    smsr = table.loc[(2, "SMSR")]
    assert (smsr["time (ms) printed"], smsr["time (ms)"]) == pytest.approx((536, 53.6))
    assert (smsr["time / PRFFN printed"], smsr["time / PRFFN"]) == pytest.approx((536 / 792, 536 / 792))
    assert (smsr["Set5 PSNR printed"], smsr["Set5 PSNR"], smsr["Set5 SSIM"]) == pytest.approx((38.00, 37.5, 0.96))
    assert smsr["weights"] == "authors'"
    assert np.isnan(smsr["B100 PSNR"])
    small = table.loc[(3, SMALL)]
    assert small["B100 PSNR"] == pytest.approx((30 + 31) / 2)
    assert small["weights"] == "shipped, trained on t"
    assert small["parameters (K)"] == pytest.approx(59.257)
    assert small["time / PRFFN"] == pytest.approx(50 / 44.1)
    assert table.loc[(4, "bicubic"), ["Set5 PSNR", "weights"]].to_list() == [28, ""]
    assert np.isnan(table.loc[(2, "DRCN"), "time / PRFFN printed"])
    assert table.loc[(2, "CARN-M"), "note"] == "not in the paper's table"
    assert len(table) == 3 * (12 + 3)


def test_a_network_that_could_not_be_timed_says_why():
    row = compare_networks(*made_up(failing="DRCN x2")).loc[(2, "DRCN")]
    assert np.isnan(row["time (ms)"])
    assert row["note"].endswith("the same multi-adds at every scale; not timed: OutOfMemoryError")


def test_the_conclusion_by_hand(table):
    """CARN x2 takes three times as long here: 3 x 352 / 792 = 1.33, the one network on the other side of PRFFN.

    Among the ten of x2 it moves from the second place to the eighth, and six others move by one: the squares of the
    differences are 36 + 6, so the rank correlation is 1 - 6 x 42 / 990 = 0.75. TSAN x2: 2988 / 3989 - 1 = -25 %.
    """
    timings, runs, found = made_up()
    text = benchmark_conclusion(table, timings, runs)
    assert "27 of 36 rows" in text
    assert "0.75 at x2, 1.00 at x3, 1.00 at x4. 26 of 27 are on the same side" in text
    assert "CARN x2, 0.44 of PRFFN's time in print and 1.33 here" in text
    assert "SMSR x2, authors' weights: 37.50 dB on Set5 (38.00 printed)." in text
    assert "12 of 15 pairs of scale and set; higher is TSAN on x2 Set5, TSAN on x2 B100, TSAN on x2 Urban100." in text
    assert "parameters -25, -24, -24 % in print, -25, -24, -24 % here; multi-adds -35," in text
    assert "Profile cpu. Run times: measured here" in text
    assert "not decided at this profile. It does not train PRFFN, and the small one" in text
    assert "small PRFFN, as it comes with the package, less bicubic: +2.50 dB on x2 Set5" in text
    assert text.count(SMALL) == 1
    assert "varies by 10 %" in text  # 0.95 to 1.05 of the median
    assert "seed" not in text  # nothing is trained
    assert "not measured" not in text
    assert list(benchmark_provenance(timings, runs, found)) == ["run time", "PSNR and SSIM"]


@pytest.mark.parametrize("profile", ["gpu", "paper"])
def test_where_prffn_is_trained_it_is_compared_with_print(profile):
    """Two seeds: 38.00 and 38.20 dB beside 38.18. A set on which only one of them was evaluated has no figure."""
    timings, runs, known = made_up(profile)
    origin = f"trained here, profile {profile}"
    trained = {("PRFFN, seed 0", 2, "B100"): evaluation(origin, [32.0], [0.9])}
    for n, psnr in enumerate((38.0, 38.2)):
        trained[f"PRFFN, seed {n}", 2, "Set5"] = evaluation(origin, [psnr], [0.96])
    found = compare_networks(timings, runs, Found("evaluations", profile, {**known, **trained}, set()))
    assert found.loc[(2, "PRFFN"), "Set5 PSNR"] == pytest.approx(38.1)
    assert found.loc[(2, "PRFFN"), "weights"] == origin
    assert np.isnan(found.loc[(2, "PRFFN"), "B100 PSNR"])
    assert found.loc[(2, SMALL), "Set5 PSNR"] == pytest.approx(30.5)
    text = benchmark_conclusion(found, timings, runs)
    assert f"Profile {profile}, 2 seeds. Run times and trainings: measured here" in text
    assert "PRFFN, trained here, less printed: -0.08 dB on x2 Set5." in text
    assert "not decided at this profile" not in text
    assert list(benchmark_provenance(timings, runs, known)) == ["training", "run time", "PSNR and SSIM"]


@pytest.fixture(scope="module")
def plotted(counted) -> tuple[Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "table8_complexity", lambda: counted)
        figure, axes = new_figure(nrows=3, ncols=2, figsize=(10, 11.5))
        tradeoff.plot_tradeoffs(axes, compare_networks(*made_up()))
    return figure, axes


def test_the_plot_names_every_network_once_in_each_panel_and_apart(plotted):
    figure, axes = plotted
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for ax in axes.flat:
        names = [text.get_text() for text in ax.texts]
        assert set(paper.table(8).method) <= {name.partition(" ")[0] for name in names}
        assert len(names) == len(set(names))
        extents = [Text.get_window_extent(text, renderer) for text in ax.texts]  # without the lines to the points
        assert not any(a.overlaps(b) for n, a in enumerate(extents) for b in extents[:n])


def test_files(table, plotted, tmp_path):
    timings, runs, found = made_up()
    path = save_benchmark("table8", table, timings, runs, found, plotted[0], title="Table 8")
    assert path == "reports/cpu/table8.md"
    written = json.loads((tmp_path / "reports" / "cpu" / "table8.json").read_text())
    assert (written["timings"], written["evaluations"], written["runs"]) == ("timings", ["e"] * 13, {})
    assert written["table"][1]["Set5 PSNR"] == 37.5
    assert written["provenance"]["PSNR and SSIM"]["cases"] == "13 evaluations"
    text = (tmp_path / "reports" / "cpu" / "table8.md").read_text()
    assert "38.00 / 0.9601 | 37.50 / 0.9600" in text
    back = pd.read_csv(tmp_path / "reports" / "cpu" / "table8.csv", index_col=[0, 1])
    assert back.loc[(2, "SMSR"), "Set5 PSNR"] == 37.5


def test_cases_have_the_same_output_at_all_scales():
    """192 x 108 pixels at profile cpu: 96 x 54, 64 x 36, 48 x 27; at paper 1280 / 3 = 426.67, 427."""
    cases = forward_cases("cpu", networks())
    assert len(cases) == 3 * 14
    sizes = [(cases[f"CARN x{s}"].width, cases[f"CARN x{s}"].height) for s in (2, 3, 4)]
    assert sizes == [(96, 54), (64, 36), (48, 27)]
    assert forward_cases("paper", {"CARN": ("CARN", {})})["CARN x3"].width == 427
    with pytest.raises(ValueError, match="unknown profile"):
        forward_cases("cpuu", {})


@pytest.mark.parametrize("scale", benchmark.SCALES)
def test_the_small_row_is_of_the_packages_network(scale):
    """What is counted and timed has the size of what is evaluated, at every scale."""
    network, options = networks()[SMALL]
    shipped = pretrained(scale)
    assert repr(build(network, scale, **options)) == repr(shipped)
    assert {"channels": 16, "groups": 2}.items() <= options.items()
    assert parameters(shipped) < 100_000


def test_what_is_evaluated_for_the_table():
    """Without files of others: bicubic as `evaluate_bicubic` has it, and the package's networks, above it."""
    found = weights_there({}, Runs("quick", {}, set()))
    assert set(found) == set(product((BICUBIC, SMALL), benchmark.SCALES))
    wanted = {subject: weights for subject, weights in found.items() if subject[1] == 3}
    measured = ensure_evaluations(wanted, ("embedded_val",), "quick", device="cpu")
    psnr = {row: record["evaluation"]["psnr_y"] for (row, _, _), record in measured.items()}
    assert psnr[BICUBIC] == list(evaluate_bicubic("embedded_val", scale=3).psnr_y)
    assert np.mean(psnr[SMALL]) > np.mean(psnr[BICUBIC])
    assert measured[BICUBIC, 3, "embedded_val"]["weights"] == BICUBIC
    assert repr(ensure_evaluations(wanted, ("embedded_val",), "quick")).endswith("2 loaded, 0 measured")


def test_weights_are_found_by_name(tmp_path, monkeypatch):
    assert find_weights("CARN-M", 2) is None
    monkeypatch.setenv("PRFFN_WEIGHTS", str(tmp_path))
    for name in ("carn_m.pth", "carn_m_x3.safetensors", "oisr_rk2_x4.pt", "alexnet_features.pth"):
        (tmp_path / name).touch()
    assert [find_weights("CARN-M", s).name for s in (2, 3)] == ["carn_m.pth", "carn_m_x3.safetensors"]
    assert find_weights("OISR-RK2", 4).name == "oisr_rk2_x4.pt"
    assert find_weights("OISR-RK2", 2) is None
    (tmp_path / "carn_m.pt").touch()
    with pytest.raises(ValueError, match=r"carn_m.pt and carn_m.pth: which one is CARN-M\?"):
        find_weights("CARN-M", 4)


@pytest.fixture
def weights(photo_folder, tmp_path, monkeypatch) -> dict[tuple[str, int], Weights]:
    """An FSRCNN x2 in a file, found by its name."""
    folder = tmp_path / "weights"
    folder.mkdir()
    model = build("FSRCNN", 2, generator=torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), folder / "fsrcnn_x2.pth")
    monkeypatch.setenv("PRFFN_WEIGHTS", str(folder))
    found = weights_from_files(["FSRCNN", "CARN", SMALL], (2, 3))
    assert list(found) == [("FSRCNN", 2)]
    assert found["FSRCNN", 2].sha256 == weights_sha256(model)
    assert found["FSRCNN", 2].origin == "file fsrcnn_x2.pth"
    return found


def test_an_evaluation_is_measured_once_and_shown_without_its_weights(weights, photo_folder, tmp_path, monkeypatch):
    """Measured again when it is asked for; where it cannot be, the recorded one stays."""
    sets = (str(photo_folder),)
    first = ensure_evaluations(weights, sets, "quick", device="cpu")
    assert repr(first) == "1 evaluations of profile quick: 0 loaded, 1 measured"
    psnr = first["FSRCNN", 2, "photos"]["evaluation"]["psnr_y"]
    assert len(psnr) == 3
    (path,) = (tmp_path / "reports" / "quick" / "evaluations").iterdir()
    assert str(tmp_path) not in path.read_text()
    for at_hand in (weights, {}):
        again = ensure_evaluations(at_hand, sets, "quick", device="cpu")
        assert repr(again) == "1 evaluations of profile quick: 1 loaded, 0 measured"
        assert again["FSRCNN", 2, "photos"]["evaluation"]["psnr_y"] == psnr
    assert repr(ensure_evaluations(weights, sets, "quick", retrain=True)).endswith("0 loaded, 1 measured")
    monkeypatch.setattr(evaluations, "_measure", lambda *arguments: None)
    assert repr(ensure_evaluations(weights, sets, "quick", retrain=True)).endswith("1 loaded, 0 measured")


def test_other_weights_or_images_are_measured_anew(weights, photo_folder):
    sets = (str(photo_folder),)
    ensure_evaluations(weights, sets, "quick", device="cpu")
    other = build("FSRCNN", 2, generator=torch.Generator().manual_seed(1))
    theirs = {("FSRCNN", 2): Weights(weights_sha256(other), "file other.pt", lambda: other)}
    assert ensure_evaluations(theirs, sets, "quick", device="cpu").new
    (photo_folder / "2.png").unlink()
    evaluations.image_set.cache_clear()
    assert not ensure_evaluations({}, sets, "quick", device="cpu")  # the records are of three images
    assert ensure_evaluations(weights, sets, "quick", device="cpu").new


def test_what_is_not_at_hand_is_left_out(weights, photo_folder):
    """Image sets, weights, or the weights that are named: the checkpoint of a run trained again elsewhere, say."""

    def missing() -> nn.Module:
        raise FileNotFoundError

    other = build("FSRCNN", 2, generator=torch.Generator().manual_seed(1))
    here = (str(photo_folder),)
    assert not ensure_evaluations(weights, ("Urban100", "Set5"), "quick", device="cpu")
    for load in (missing, lambda: other):
        theirs = {("FSRCNN", 2): Weights(weights["FSRCNN", 2].sha256, "profile quick", load)}
        assert not ensure_evaluations(theirs, here, "quick", device="cpu")


def test_the_weights_of_runs_are_in_their_checkpoints(tiny):
    _, runs, _ = made_up("paper")
    found = weights_of_runs({"x3": [tiny]}, Runs("paper", {"x3": runs["x3"][:1]}, set()))
    assert list(found) == [("PRFFN, seed 0", 3)]
    assert found["PRFFN, seed 0", 3].sha256 == "30"
    with pytest.raises(FileNotFoundError, match="no weights of this run"):
        found["PRFFN, seed 0", 3].load()


def test_the_recorded_evaluations_are_whole_and_near_print(monkeypatch):
    """Published for CARN-M: 37.53, 33.99, 31.92 dB on Set5; printed for SMSR x2: 38.00 and 32.17."""
    monkeypatch.setenv(REPORTS_VARIABLE, str(CHECKOUT / "reports"))
    recorded = ensure_evaluations({}, ("Set5", "B100"), "cpu")
    found = {subject: np.mean(record["evaluation"]["psnr_y"]) for subject, record in recorded.items()}
    assert sum(record["origin"] == "authors'" for record in recorded.values()) == 8
    assert found["SMSR", 2, "Set5"] == pytest.approx(38.00, abs=0.01)
    assert found["SMSR", 2, "B100"] == pytest.approx(32.17, abs=0.01)
    for scale, published in {2: 37.53, 3: 33.99, 4: 31.92}.items():
        assert found["CARN-M", scale, "Set5"] == pytest.approx(published, abs=0.16)
