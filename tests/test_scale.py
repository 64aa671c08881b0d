"""Gains against the size of the network: their difference by hand, what the answer calls it, where each was trained."""

import pytest
from conftest import MADE
from test_lengths import Values, made_up

from prffn.reporting import made_by_group
from prffn.study import claims_of_growth, said_by_size
from prffn.study.runs import Run, Runs

GRID = {10: {1: "small", 8: "large"}}
OVER = {"small": "L_1 small", "large": "L_1 large"}


def of_gains(small: list[float], large: list[float]) -> dict[str, Values]:
    """PSNR of one image for each seed: L_1 alone at 30 and 32 dB, the loss above or below by these."""
    return {
        "L_1 small": [[30.0]] * 3, "small": [[30 + gain] for gain in small],
        "L_1 large": [[32.0]] * 3, "large": [[32 + gain] for gain in large],
    }  # fmt: skip


def runs_of(**sets: dict[str, Values]) -> Runs:
    return made_up({label: {name: rows[label] for name, rows in sets.items()} for label in (*OVER, *OVER.values())})


def test_the_difference_of_two_gains_by_hand():
    """Gains 0.1 and 0.3, and 0.5 and 0.5: differences of 0.4 and 0.2, mean 0.3, standard error 0.1, times 12.706 at one
    degree of freedom. The seed that one row alone has does not count."""
    runs = runs_of(set=of_gains([0.1, 0.3], [0.5, 0.5, 9.0]))
    row = claims_of_growth(runs, OVER, {"grows": ("large", "small")}).loc[("grows", "set")]
    assert row["difference"] == 0.3
    assert (row["low"], row["high"]) == (-0.971, 1.571)
    assert (row["seeds"], row["verdict"]) == (2, "not decided")


@pytest.mark.parametrize(
    ("small", "large", "said"),
    [
        ([0.1, 0.1, 0.1], [0.3, 0.3, 0.3], "grows"),
        ([0.3, 0.3, 0.3], [0.1, 0.1, 0.1], "shrinks"),
        ([0.1, 0.1, 0.1], [0.0, 0.0, 0.0], "vanishes"),
        ([0.0, 0.0, 0.0], [-0.1, -0.1, -0.1], "shrinks"),  # no gain that could vanish
        ([0.3, 0.3, 0.3], [0.29, 0.3, 0.31], "stays"),  # 0 +- 4.303 x 0.0058 = 0.025, less than half of 0.3
        ([0.3, 0.3, 0.3], [0.2, 0.3, 0.4], "cannot be said to grow, stay or vanish"),  # 0 +- 0.248, a gain in both
        ([0.1, 0.1, 0.1], [-0.1, 0.1, 0.3], "cannot be said to grow, stay or vanish"),
        ([0.1], [0.3], "cannot be said to grow, stay or vanish"),  # one seed
    ],
)
def test_what_becomes_of_a_gain(small, large, said):
    answer = said_by_size(runs_of(set=of_gains(small, large)), "x", GRID, OVER)
    assert answer.startswith(
        f"**From 1 K to 8 K parameters the gain of x over L_1 alone {said} after 10 steps on set** ("
    )


def test_the_answer_by_hand():
    """The last set comes first, and the longest training. At both lengths it grows there; on the other set it vanishes
    after the longer one."""
    names = ("short small", "short large", "long small", "long large")
    first, last = (
        dict(zip(names, (0.1, 0.2, 0.1, 0.0), strict=True)),
        dict(zip(names, (0.1, 0.3, 0.0, 0.1), strict=True)),
    )
    rows = {f"L_1 {name}": {"a": [[0.0], [0.0]], "b": [[0.0], [0.0]]} for name in names}
    rows |= {name: {"a": [[first[name]]] * 2, "b": [[last[name]]] * 2} for name in names}
    grid = {10: {1: names[0], 8: names[1]}, 40: {1: names[2], 8: names[3]}}
    assert said_by_size(made_up(rows), "x", grid, {name: f"L_1 {name}" for name in names}) == (
        "**From 1 K to 8 K parameters the gain of x over L_1 alone grows after 10 and 40 steps on b** (its change, in "
        "PSNR: +0.200 dB [+0.200, +0.200] after 10 steps, +0.100 dB [+0.100, +0.100] after 40 steps); on a it vanishes "
        "after 40 steps and grows after 10 steps; 2 seeds, profile quick."
    )


def test_devices_are_named_for_each_size():
    def run(key: str, **made: str) -> Run:
        return Run(key, {"finished": "2026-01-02T03:04", "provenance": {**MADE, **made}})

    by_label = {"a": [run("1")], "b": [run("2", device="cuda", device_name="GPU")], "c": []}
    made = made_by_group(Runs("quick", by_label, set()), {"1 K": ["a"], "8 K": ["a", "b"], "none": ["c"]})
    assert made.loc["device"].to_dict() == {"1 K": "test (cpu)", "8 K": "GPU (cuda), test (cpu)"}
