"""Gains against the length of training: what they are worth in steps, their figure, the best of a group, each seed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MADE

from prffn.reporting.lengths import (
    draw_printed,
    legend_above,
    lowest_seeds,
    mark_printed,
    plot_along,
    seed_by_seed,
    steps_to_reach,
    worth_in_steps,
)
from prffn.reporting.plots import new_figure
from prffn.reporting.tables import compare
from prffn.study import Study, claims_of_gain, said_by_length
from prffn.study.gains import best_of, claims_of_best
from prffn.study.runs import Run, Runs

Values = list[list[float]]


def made_up(rows: dict[str, dict[str, Values]], metrics: tuple[str, ...] = ("psnr_y",)) -> Runs:
    """Runs with these figures, the same in each metric: label -> set -> one list of images for each seed."""

    def record(figures: dict[str, Values], seed: int) -> dict[str, Any]:
        every = ("psnr_y", "ssim_y", "lpips")
        evaluation = {
            name: {metric: values[seed] if metric in metrics else None for metric in every}
            for name, values in figures.items()
        }
        return {"evaluation": evaluation, "settings": {}, "provenance": MADE}

    by_label = {
        label: [Run(f"{label}{seed}", record(figures, seed)) for seed in range(len(next(iter(figures.values()))))]
        for label, figures in rows.items()
    }
    return Runs("quick", by_label, set())


def test_steps_to_a_psnr_by_hand():
    """28 dB after 100 steps, 29 after 400, 31 after 1600: half way to 29 is the geometric mean, 200; a quarter of the
    way to 31, 400 x 4^(1/4) = 566. Nothing beyond either end."""
    found = steps_to_reach([28, 28.5, 29, 29.5, 31, 27.9, 31.1, np.nan], [100, 400, 1600], [28, 29, 31])
    assert found[:5] == pytest.approx([100, 200, 400, 400 * 4**0.25, 1600])
    assert (found[5], found[6]) == (0, np.inf)
    assert np.isnan(found[7])
    assert np.isnan(steps_to_reach([28, 28.5], [100, 400, 1600], [28, 29, 29])).all()


LENGTHS = {100: "L_1 after 100", 400: "L_1 after 400"}
GRID = {"a": {100: "a after 100", 400: "a after 400"}, "b": {400: "b"}}
OVER = {label: LENGTHS[n] for columns in GRID.values() for n, label in columns.items()}


def two_lengths() -> Runs:
    """L_1 at 28 and 30 dB over two seeds, a third of which one length alone has; a gains 1.0 and 0.0, b loses 0.5."""
    psnr = {
        "L_1 after 100": [[27.9], [28.1]], "L_1 after 400": [[29.9], [30.1], [20.0]],
        "a after 100": [[28.9], [29.1]], "a after 400": [[29.9], [30.1]], "b": [[29.4], [29.6]],
    }  # fmt: skip
    return made_up({label: {"set": values} for label, values in psnr.items()})


def test_what_a_gain_is_worth_by_hand():
    """28 + 1 dB is half way from 100 to 400 steps in the logarithm: 200. 30 - 0.5 is three quarters: 100 x 4^0.75 =
    283. Both seeds gain alike: the intervals have no width."""
    table = compare(two_lengths(), {}, baseline=OVER)
    worth = worth_in_steps(table, GRID, LENGTHS)
    assert worth.loc[("set", "a")].to_list() == ["200 [200 to 200]", "400 [400 to 400]"]
    assert worth.loc[("set", "b"), 400] == "283 [283 to 283]"
    assert worth.isna().to_numpy().tolist() == [[False, False], [True, False]]


def test_a_gain_that_no_length_reaches_and_one_seed():
    """0.1 dB above the longest, 0.1 below the shortest; one seed has no interval."""
    rows = {"L_1 after 100": 28.0, "L_1 after 400": 30.0, "a after 100": 27.9, "a after 400": 30.1}
    runs = made_up({label: {"set": [[psnr]]} for label, psnr in rows.items()})
    worth = worth_in_steps(compare(runs, {}, baseline=OVER), {"a": GRID["a"]}, LENGTHS)
    assert worth.loc[("set", "a")].to_list() == ["< 100", "> 400"]


def test_the_lines_stand_beside_each_other_with_their_intervals():
    table = compare(two_lengths(), {}, baseline=OVER)
    figure, ax = new_figure()
    assert plot_along(ax, table, GRID, "set") is ax
    a, b = ax.containers
    assert a.lines[0].get_ydata().tolist() == [1.0, 0.0]
    assert b.lines[0].get_ydata().tolist() == [-0.5]
    places = [*a.lines[0].get_xdata(), *b.lines[0].get_xdata()]
    assert places[1] < 400 < places[2]
    assert places[1] / places[0] == pytest.approx(4)
    assert a.lines[2][0].get_segments()[0][:, 1].tolist() == [1.0, 1.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["100", "400"]
    assert ax.get_title().startswith("set: 2 seeds, ")
    mark_printed(ax, 0.087, "1 M")
    (printed,) = [line for line in ax.lines if line.get_label().startswith("printed")]
    assert printed.get_ydata() == [0.087]
    assert 400 < printed.get_xdata()[0] < ax.get_xlim()[1]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["100", "400", "1 M"]
    legend_above(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "printed, on DIV2K"]


def test_printed_gains_stand_at_their_places():
    ax = plot_along(new_figure()[1], compare(two_lengths(), {}, baseline=OVER), GRID, "set")
    draw_printed(ax, pd.Series({100: 0.02, 400: -0.3}))
    (printed,) = [line for line in ax.lines if line.get_label().startswith("printed")]
    assert printed.get_xydata().tolist() == [[100, 0.02], [400, -0.3]]
    assert ax.get_yscale() == "symlog"
    assert "0.05" in [text.get_text() for text in ax.get_yticklabels()]


def test_a_row_has_one_colour_in_axes_of_different_rows():
    table = compare(two_lengths(), {}, baseline=OVER)
    colours = [
        {
            line.get_label(): line.lines[0].get_color()
            for line in plot_along(new_figure()[1], table, grid, "set").containers
        }
        for grid in (GRID, {**GRID, "a": {}})
    ]
    assert colours[1] == {"b": colours[0]["b"]}
    assert colours[0]["a"] != colours[0]["b"]


def test_a_metric_that_was_not_measured_is_said_in_the_figure():
    table = compare(two_lengths(), {}, baseline=OVER, metric="lpips")
    ax = plot_along(new_figure()[1], table, GRID, "set", "lpips")
    assert [text.get_text() for text in ax.texts] == ["LPIPS was not measured"]


def test_a_seed_that_fell_is_named():
    """Medians 28.00 on the last set, which alone counts: 0.06 below is fallen; 0.04 is not, and above never is."""
    psnr = {"fell": [28.0, 27.94, 28.3], "did not": [28.0, 27.96, 28.3]}
    runs = made_up({label: {"x": [[10.0], [20.0], [30.0]], "y": [[v] for v in row]} for label, row in psnr.items()})
    lowest = lowest_seeds(runs)
    assert lowest["fallen"].to_dict() == {"fell": "seed 1", "did not": "none"}
    assert lowest["lowest below median"].to_dict() == {"fell": 0.06, "did not": 0.04}
    assert lowest["seeds"].to_list() == ["3", "3"]
    table = seed_by_seed(runs, "fell")
    assert table["x"].to_list() == [10.0, 20.0, 30.0]
    assert table["y - median"].to_list() == [0.0, -0.06, 0.3]


def of_two_sets(**means: tuple[float, float]) -> dict[str, dict[str, Values]]:
    """Rows of two seeds that differ by 2 in all, with these means on a first and on a last set."""
    return {
        label: {name: [[mean - 1], [mean + 1]] for name, mean in zip(("first", "last"), pair, strict=True)}
        for label, pair in means.items()
    }


CHOSEN = of_two_sets(a1=(30, 20), a2=(29, 28), b1=(25, 22), b2=(26, 21))
"""By the first set a1 and b2 are the best, by the last a2 and b1; of LPIPS, lower is better, a2 and b1 by the first."""


def test_one_set_chooses_the_best_and_another_judges():
    """a1 over b2, 20 - 21 = -1 on the last set, though 28 - 22 = 6 of the best there would have been a gain."""
    runs = made_up(CHOSEN)
    assert (best_of(runs, ["a1", "a2"], "first"), best_of(runs, ["a1", "a2"], "last")) == ("a1", "a2")
    verdicts = claims_of_best(runs, [(["a1", "a2"], ["b1", "b2"])], "The best a beats the best b")
    assert verdicts.index.to_list() == [("The best a beats the best b in PSNR: a1, over b2", "last")]
    assert verdicts["difference"].item() == -1
    assert verdicts["verdict"].item() == "does not hold"


def test_the_best_lpips_is_the_lowest():
    """a2 over b1 by the first set, 29 and 25; on the last 28 and 22: the difference that counts as better is -6."""
    runs = made_up(CHOSEN, metrics=("psnr_y", "lpips"))
    assert best_of(runs, ["a1", "a2"], "first", "lpips") == "a2"
    verdicts = claims_of_best(runs, [(["a1", "a2"], ["b1", "b2"])], "A")
    text = "A in LPIPS: a2, over b1"
    assert verdicts.index.to_list() == [("A in PSNR: a1, over b2", "last"), (text, "last")]
    assert verdicts.loc[(text, "last"), "difference"] == -6
    assert verdicts.loc[(text, "last"), "unit"] == "LPIPS"


def test_claims_of_rows_over_their_baselines():
    runs = made_up(of_two_sets(a=(3, 5), b=(2, 6)), metrics=("psnr_y", "ssim_y"))
    verdicts = claims_of_gain(runs, {"a": "b"}, {"psnr_y": ["a"], "ssim_y": ["a"]}, printed=0.1)
    assert verdicts["printed"].dropna().to_list() == [0.1, 0.1]
    assert verdicts["difference"].to_dict() == {
        ("L_contr with a raises PSNR", "first"): 1, ("L_contr with a raises PSNR", "last"): -1,
        ("L_contr with a raises SSIM", "first"): 1, ("L_contr with a raises SSIM", "last"): -1,
    }  # fmt: skip


def test_the_answer_over_lengths_by_hand():
    """A gain of 1 dB in both seeds after 10 steps, of +1 and -1 after 20: it only speeds up."""
    rows = {"L_1, 10": [[0.0], [0.0]], "x, 10": [[1.0], [1.0]], "L_1, 20": [[0.0], [0.0]], "x, 20": [[1.0], [-1.0]]}
    runs = made_up({label: {"set": values} for label, values in rows.items()})
    said = said_by_length(runs, "x", {10: "x, 10", 20: "x, 20"}, {10: "L_1, 10", 20: "L_1, 20"})
    assert said == (
        "**x only speeds up on set** (PSNR over L_1 alone: +1.000 dB [+1.000, +1.000] after 10 steps, "
        "+0.000 dB [-12.706, +12.706] after 20 steps); 2 seeds, profile quick."
    )


@pytest.mark.parametrize(
    ("profile", "parameter", "given", "count"),
    [("cpu", None, {"at_most": 3}, 3), ("cpu", None, {"recorded": 10}, 10), ("cpu", 2, {"at_most": 1}, 2),
     ("quick", None, {"at_most": 3, "recorded": 10}, 1)],
)  # fmt: skip
def test_how_many_seeds_a_row_gets(profile, parameter, given, count):
    """The parameter's number, else the row's own at `cpu`, else the profile's or less: 5 at `cpu`, 1 at `quick`."""
    study = Study(profile=profile, seeds=parameter)
    assert [e.seed for e in study.variants({"a": {}}, **given)["a"]] == list(range(count))
