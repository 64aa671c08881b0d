"""Intervals and verdicts by hand, tables and files from made-up records."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import MADE_RUN
from scipy import stats

from prffn import paper
from prffn.reporting import tables as report
from prffn.reporting.lengths import plot_along
from prffn.reporting.overview import verdict_cell
from prffn.reporting.plots import new_figure, plot_gains
from prffn.reporting.report import rows_of, save
from prffn.reporting.tables import compare, distance_from_print, gain_grid, gradient_shares, markdown
from prffn.study.claims import answer, claims_greater, conclusion
from prffn.study.intervals import holm, paired_interval, seeds_to_decide, verdict
from prffn.study.runs import Run, Runs


def test_paired_interval_by_hand():
    """Differences 1, 2, 3: mean 2, standard deviation 1, error 1 / sqrt 3; Student's t for 2 degrees of freedom at
    95 % is 4.3027: 2 +- 2.4841."""
    interval = paired_interval([2, 4, 6], [1, 2, 3])
    assert interval.mean == 2
    assert interval.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert (interval.low, interval.high) == pytest.approx((-0.48414, 4.48414), abs=1e-4)


def test_interval_over_seeds_and_images_by_hand():
    """Two seeds, three images, differences ((1, 2, 6), (2, 3, 7)): mean 3.5; rows 3 and 4, columns 1.5, 2.5, 6.5.

    Mean squares: seeds 3 * 0.5 = 1.5, images 2 * 7 = 14, residual 0. The mean's variance is (1.5 + 14) / 6 = 2.5833,
    its degrees of freedom 15.5^2 / (1.5^2 / 1 + 14^2 / 2) = 2.3964, where Student's t at 95 % is 3.6856.
    """
    interval = paired_interval([[1, 2, 6], [2, 3, 7]], np.zeros((2, 3)))
    assert interval.mean == 3.5
    freedom = 15.5**2 / (1.5**2 + 14**2 / 2)
    assert interval.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(15.5 / 6), rel=1e-12)


def test_the_interval_covers_what_it_says():
    """Of 400 made-up studies, 3 seeds and 12 images with effects of both, the 95 % interval holds the truth in nearly
    95 %; that over seeds alone, which knows nothing of the images, in far fewer."""
    random = np.random.default_rng(0)
    truth, both, seeds_alone = 0.3, 0, 0
    for _ in range(400):
        d = truth + random.normal(0, 0.05, (3, 1)) + random.normal(0, 0.5, (1, 12)) + random.normal(0, 0.1, (3, 12))
        interval = paired_interval(d, np.zeros_like(d))
        both += interval.low <= truth <= interval.high
        interval = paired_interval(d.mean(axis=1), np.zeros(3))
        seeds_alone += interval.low <= truth <= interval.high
    assert 0.92 <= both / 400 <= 0.99
    assert seeds_alone / 400 < 0.85


def test_what_would_decide_an_open_claim_by_hand():
    """One value a seed, 0 and 2: mean 1, variance 2, error 1. With n seeds the error is sqrt(2 / n): 1.96 times
    that is below 1 from n = 7.68 on. Of images: a mean of 0.1 with values -0.9 and 1.1 in each seed alike."""
    interval = paired_interval([0.0, 2.0], [0.0, 0.0])
    assert seeds_to_decide(interval) == 8
    assert interval.p() == pytest.approx(2 * stats.t.sf(1, 1))
    assert math.isinf(seeds_to_decide(paired_interval([[-0.9, 1.1], [-0.9, 1.1]], np.zeros((2, 2)))))
    assert math.isnan(seeds_to_decide(paired_interval([1.0], [0.0])))
    runs = made_up({"a": [[0.0], [2.0]], "b": [[0.0], [0.0]]})
    assert claims_greater(runs, {"c": ("a", "b")})["would decide"].item() == "about 8 seeds"


def test_the_p_value_agrees_with_the_interval():
    """At the interval's end the p value is 5 %: a claim holds where it is below."""
    interval = paired_interval([[1, 2, 6], [2, 3, 7]], np.zeros((2, 3)))
    assert interval.p(margin=-interval.low) == pytest.approx(0.05)
    assert interval.p(margin=-interval.high) == pytest.approx(0.05)


def test_holm_by_hand():
    """Of four: the smallest times 4, the next times 3, 2 and 1, none below the one before it."""
    assert holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_gradient_shares_by_hand():
    """3 beside 1, then 1 beside 1; of two seeds the mean."""
    runs = made_up(RUNS)
    for run in runs["with"]:
        run.record["curve"] = [{"step": 1}, *({"gradient_l1": l1, "gradient_contrast": 1.0} for l1 in (3.0, 1.0))]
    table = gradient_shares(runs)
    assert table.index.to_list() == ["with"]
    assert dict(table.loc["with"]) == {"L_1": "75 to 50 %", "L_contr": "25 to 50 %"}


@pytest.mark.parametrize(
    ("a", "b", "greater", "not_smaller"),
    [
        ([2, 2.1, 1.9], [1, 1, 1], "holds", "holds"),
        ([1, 1, 1], [2, 2.1, 1.9], "does not hold", "does not hold"),
        ([1, 2, 3], [2, 2, 2], "not decided", "not decided"),
        ([1.00, 1.01, 0.99], [1, 1, 1], "not decided", "holds"),
    ],
)
def test_verdicts(a, b, greater, not_smaller):
    interval = paired_interval(a, b)
    assert verdict(interval) == greater
    assert verdict(interval, margin=0.1) == not_smaller


def made_up(psnr: dict[str, list[list[float]]], lpips: list[float] | None = None) -> Runs:
    """Runs whose records hold these PSNR values: label -> one list of images for each seed."""

    def record(values: list[float]) -> dict:
        evaluation = {"set": {"psnr_y": values, "ssim_y": [0.9] * len(values), "lpips": lpips}}
        return {**MADE_RUN, "evaluation": evaluation, "bicubic": {"set": {"psnr_y": [20.0, 22.0]}}}

    by_label = {
        label: [Run(f"{label}{n}", record(values)) for n, values in enumerate(seeds)] for label, seeds in psnr.items()
    }
    return Runs("quick", by_label, set())


RUNS = {"none": [[30.0, 32.0], [31.0, 33.0]], "with": [[30.1, 32.3], [31.1, 33.1]]}


def test_compare_by_hand():
    """Seed means 31, 32 and 31.2, 32.1: gains 0.2 and 0.1, mean 0.15. Of each image: 0.1, 0.3 and 0.1, 0.1; mean
    squares 0.01 of seeds, images, and the rest: t(1) = 12.7062, error sqrt(0.01 / 4) = 0.05: +- 0.6353."""
    table = compare(made_up(RUNS), {"none": 32.364, "with": 32.451}, baseline="none")
    row = table.loc[("set", "with")]
    assert row["mean"] == 31.65
    assert (row["seeds"], row["images"]) == (2, 2)
    assert row["printed gain"] == 0.087
    assert row["gain"] == 0.15
    assert (row["low"], row["high"]) == (-0.485, 0.785)
    assert (row["seed 0"], row["seed 1"]) == (31.2, 32.1)
    assert pd.isna(table.loc[("set", "none")]["gain"])
    verdicts = claims_greater(made_up(RUNS), {"c": ("with", "none")}, printed={"with": 32.451, "none": 32.364})
    assert verdicts["printed"].item() == 0.087
    row = report.compare_with_bicubic(made_up(RUNS)).loc["set"]
    assert (row["bicubic"], row["worst run"], row["best run"]) == (21, 31, 32.1)


def test_each_with_its_own_baseline():
    """Gains 1.0 and 0.5 over two different rows, printed 0.1 and none."""
    runs = made_up({"a": [[20.0], [20.0]], "a+": [[21.0], [21.0]], "b": [[30.0], [30.0]], "b+": [[30.5], [30.5]]})
    table = compare(runs, {"a": 1.0, "a+": 1.1}, baseline={"a+": "a", "b+": "b"})
    rows = table.loc["set"]
    assert rows["gain"].dropna().to_dict() == {"a+": 1.0, "b+": 0.5}
    assert rows["over"].dropna().to_dict() == {"a+": "a", "b+": "b"}
    assert rows["printed gain"].dropna().to_dict() == {"a+": 0.1}
    _, ax = new_figure()
    plot_gains(ax, table)
    assert ax.get_ylabel() == "gain (dB)"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a+", "b+"]
    dots = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "."]
    assert dots == [[1.0, 0.5], [1.0, 0.5]]
    (printed,) = [line for line in ax.lines if line.get_label() == "printed"]
    assert printed.get_ydata() == pytest.approx([0.1, math.nan], nan_ok=True)


def test_rows_of_fewer_seeds_are_paired_by_those_they_have():
    """Seed 0 alone: 20.5 over 20, without an interval, though the baseline's second seed is 30."""
    runs = made_up({"none": [[20.0], [30.0]], "one": [[20.5]], "two": [[21.0], [31.0]]})
    rows = compare(runs, {}, baseline="none").loc["set"]
    assert rows.loc["one", "gain"] == 0.5
    assert pd.isna(rows.loc["one", "low"])
    assert (rows.loc["two", "low"], rows.loc["two", "high"]) == (1.0, 1.0)
    _, ax = new_figure()
    (bars,) = plot_gains(ax, compare(runs, {}, baseline="none")).containers
    one, two = bars.lines[2][0].get_segments()
    assert (len(one), two[:, 1].tolist()) == (0, [1.0, 1.0])
    alone = compare(made_up({"none": [[20.0]], "a": [[20.5]]}), {}, baseline="none")
    assert gain_grid(alone, {"a": {"w": "a"}}).iloc[0, 0] == "+0.500"
    assert claims_greater(runs, {"c": ("one", "none")})["verdict"].item() == "not decided"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [((0, 5), "5 seeds"), ((5, 1), "1 to 5 seeds"), ((1, 5, 0), "1 to 5 seeds"), ((0, 1), "1 seed"), ((), "no seeds")],
)
def test_the_seeds_of_all_measured_rows_are_counted(seeds, text):
    """Whichever row is the first, and whether or not it was measured."""
    runs = made_up({f"row {n}": [[30.0]] * count for n, count in enumerate(seeds)})
    nothing = pd.DataFrame({"claim": [], "verdict": []}).set_index("claim")
    assert conclusion(runs, nothing).startswith(f"Profile quick, {text}: ")
    if seeds:
        row = report.provenance_table(runs).loc["runs", "value"]
        assert row == f"{sum(seeds)}, seeds: {text.removesuffix(' seeds').removesuffix(' seed')}"


def test_nothing_measured_is_said_in_tables_figures_and_sentences(tmp_path):
    """Of one row of two; then of both, on the profile's image set."""
    runs = made_up({"none": RUNS["none"], "with": []})
    assert compare(runs, {"with": 32.0}, baseline="none").loc[("set", "with"), "mean"] == "not measured"
    assert report.summary(runs).loc[("set", "with"), "PSNR-Y"] == "not measured"
    assert claims_greater(runs, {"c": ("with", "none")})["verdict"].item() == "not measured"
    runs = made_up({"none": [], "with": []})
    runs.not_measured |= {"none": "no backbone", "with": "no backbone"}
    table = compare(runs, {"with": 32.0}, baseline="none")
    assert table["mean"].to_dict() == {("embedded_val", label): "not measured" for label in ("none", "with")}
    verdicts = claims_greater(runs, {"it helps": ("with", "none")})
    grid = {"a": {1.0: "with"}}
    assert gain_grid(table, grid).iloc[0, 0] == "not measured"
    figure, (ax, other) = new_figure(ncols=2)
    plot_gains(ax, table)
    plot_along(other, table, grid, "embedded_val")
    texts = [text.get_text() for axis in (ax, other) for text in axis.texts]
    assert texts == ["no gain was measured", "PSNR was not measured"]
    save("t", runs, table, verdicts, figure, title="T")
    lines = (tmp_path / "reports" / "quick" / "t.md").read_text().splitlines()
    for line in ("Profile quick, no seeds: nothing was measured.", "- it helps: not measured on embedded_val.",
                 "- with: not measured: no backbone.", "| runs | not measured |",
                 "| embedded_val | not measured | not measured | not measured |"):  # fmt: skip
        assert line in lines


def test_summary_of_all_metrics():
    row = report.summary(made_up(RUNS)).loc[("set", "with")]
    assert dict(row) == {"PSNR-Y": "31.650", "SSIM-Y": "0.9000", "LPIPS": "not measured"}
    assert set(compare(made_up(RUNS), {}, baseline="none", metric="lpips")["mean"]) == {"not measured"}
    verdicts = claims_greater(made_up(RUNS), {"c": ("with", "none")}, metric="lpips")
    assert "- c: not measured on set." in conclusion(made_up(RUNS), verdicts)
    measured = report.summary(made_up(RUNS, lpips=[0.1, 0.3])).loc[("set", "none")]
    assert measured["LPIPS"] == "0.2000"


def test_conclusion_and_files(tmp_path):
    runs = made_up({"none": RUNS["none"], "with": [[30.1, 32.1], [31.1, 33.1]]})
    table = compare(runs, {"none": 32.0, "with": 32.1}, baseline="none")
    verdicts = claims_greater(runs, {"it helps": ("with", "none"), "it harms": ("none", "with")})
    text = conclusion(runs, verdicts)
    assert "- it helps: holds on set." in text
    assert "- it harms: does not hold on set." in text
    assert "not a reproduction" in text
    figure, ax = new_figure()
    plot_gains(ax, table)
    assert save("t", runs, table, verdicts, figure, title="T") == "reports/quick/t.md"
    folder = tmp_path / "reports" / "quick"
    assert sorted(p.name for p in folder.iterdir()) == ["t.csv", "t.json", "t.md", "t.png"]
    content = json.loads((folder / "t.json").read_text())
    assert content["runs"]["with"] == ["with0", "with1"]
    assert content["verdicts"][0]["verdict"] == "holds"
    assert pd.read_csv(folder / "t.csv")["printed gain"].dropna().tolist() == [0.1]
    first = (folder / "t.md").read_text()
    save("t", runs, table, verdicts, figure, title="T")
    assert (folder / "t.md").read_text() == first


def test_markdown_leaves_empty_what_is_missing():
    table = pd.DataFrame({"a": [1.5, None], "b": ["x|y", "z"]}, index=pd.Index(["p", "q"], name="n"))
    assert markdown(table).splitlines() == [
        "| n | a | b |", "| --- | --- | --- |", "| p | 1.500 | x\\|y |", "| q |  | z |",
    ]  # fmt: skip


def test_printed_figures_that_stand_in_two_tables_agree():
    """PRFFN with L_contr is 32.451 dB in Tables 1, 2, 3, 5 and 7; without it 32.364 in Tables 1 and 2. The text gives
    the gain as 0.087 dB."""
    assert paper.region_size_psnr() == {"no L_contr": 32.364, "S = 16": 32.425, "S = 64": 32.451, "S = 256": 32.458}
    assert paper.table(1).set_index("model").psnr_db["PRFFN"] == 32.451
    assert paper.table(3).set_index("lambda_c").psnr_db[0.1] == 32.451
    assert paper.table(7).set_index("dilation_rates").psnr_db["1,2,4"] == 32.451
    assert paper.table(1).set_index("model").psnr_db["PRFFN3"] == 32.364
    assert [len(paper.table(number)) for number in range(1, 9)] == [5, 6, 4, 6, 3, 4, 5, 36]
    with pytest.raises(ValueError, match="tables 1 to 8"):
        paper.table(9)


def test_transcription_equals_the_shared_one(shared_data):
    """Where the transcribed tables are at hand, the package's copies are the same."""
    for path in Path(paper.__file__).parent.glob("table*.csv"):
        assert path.read_bytes() == (shared_data.parent / "paper" / path.name).read_bytes()


def test_what_is_doubtful_in_print_is_listed_by_table():
    assert len(paper.doubts(6)) == 1
    assert paper.doubts(8).loc["CARN, parameters"].to_list() == [
        "1592 K", "counts the upsamplers of all three scales",
    ]  # fmt: skip


def test_a_claim_of_no_harm():
    """Differences -0.02, -0.03, -0.01 dB: mean -0.02, half-width 4.303 * 0.01 / sqrt 3 = 0.0248; so within -0.05."""
    runs = made_up({"none": [[20.0], [20.0], [20.0]], "with": [[19.98], [19.97], [19.99]]})
    claim = {"no harm": ("with", "none")}
    row = claims_greater(runs, claim, margin=0.05).loc[("no harm", "set")]
    assert row["verdict"] == "holds"
    assert row["margin"] == 0.05
    assert (row["low"], row["high"]) == pytest.approx((-0.045, 0.005), abs=5e-4)
    assert verdict_cell(row) == "**holds** -0.020 [-0.045, +0.005], margin 0.05"
    assert claims_greater(runs, claim, margin=0.03)["verdict"].item() == "not decided"
    assert claims_greater(runs, claim)["verdict"].item() == "not decided"


@pytest.mark.parametrize(
    ("printed", "found"),
    [(0.2, "less than printed"), (0.02, "not decided"), (-0.2, "not decided"), (None, "not decided")],
)
def test_a_gain_less_than_printed(printed, found):
    """Of 0.01, 0, -0.01 over three seeds the interval is 0 +- 0.0248: zero lies in it, and 0.2 above it."""
    runs = made_up({"a": [[20.01], [20.0], [19.99]], "b": [[20.0]] * 3})
    values = {} if printed is None else {"a": printed, "b": 0.0}
    (row,) = claims_greater(runs, {"c": ("a", "b")}, printed=values).to_dict("records")
    assert row["high"] == 0.025
    assert row["verdict"] == found


def test_gains_as_a_grid():
    runs = made_up({"none": [[20.0], [20.0]], "a, 1": [[21.0], [21.0]], "a, 2": [[19.0], [19.0]]})
    table = compare(runs, {}, baseline="none")
    grid, printed = {"a": {1.0: "a, 1", 2.0: "a, 2"}}, pd.Series({1.0: 0.0, 2.0: 0.0})
    shown = gain_grid(table, grid)
    assert shown.loc[("set", "a")].to_list() == ["+1.000 [+1.000, +1.000]", "-1.000 [-1.000, -1.000]"]
    part = gain_grid(table, {**grid, "b": {2.0: "a, 1"}}, digits=1)
    assert report.shown(part).loc[("set", "b")].to_list() == ["", "+1.0 [+1.0, +1.0]"]
    assert distance_from_print(table, grid, printed).loc["a", "set"] == 1.0


def test_rows_keep_the_side_of_zero_and_say_where_there_is_no_value():
    table = pd.DataFrame({"claim": ["a", "b"], "high": [-0.0, np.nan], "unit": ["SSIM", None]}).set_index("claim")
    text = json.dumps(rows_of(table))
    assert text == '[{"claim": "a", "high": -0.0, "unit": "SSIM"}, {"claim": "b", "high": null, "unit": null}]'


def test_the_answer_by_hand():
    """One seed of 31 and 31.2 dB: no interval; 1 seed, not 1 seeds."""
    runs = made_up({"none": [[31.0]], "with": [[31.2]]})
    verdicts = claims_greater(runs, {"it helps": ("with", "none"), "it harms": ("none", "with")})
    assert answer(runs, verdicts) == (
        "**it helps: not decided on set (+0.200 dB)**, 1 seed, profile quick. "
        "The other claim, a verdict for each set: not decided 1."
    )
