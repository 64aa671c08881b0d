"""Costs from made-up timings, by hand."""

import json

import pytest

from prffn import paper
from prffn.evaluation.cost import Timings, step_cases
from prffn.reporting import table6 as costs
from prffn.reporting.plots import new_figure


def timings(profile: str = "cpu") -> Timings:
    """Plain: 2.0 s (turns of 1.9, 2.0, 2.2) and 1000 MB; straightforward: 3 s, 1500 MB; ours: 2.02 s, 1010 MB."""
    turns = {
        "no L_contr": [(1.9, 1000), (2.0, 1000), (2.2, 1000)],
        "S = 64, straightforward": [(3.0, 1500)],
        "S = 64, ours": [(2.02, 1010)],
    }
    made = {"device_name": "test", "device": "cpu", "threads": 1, "platform": "test", "commit": "abc"}
    return Timings(
        {
            "key": "k",
            "turns": 3,
            "cases": {label: ["StepCase", {"batch": 4}] for label in turns},
            "measured": {label: [{"seconds": s, "peak_mb": mb} for s, mb in found] for label, found in turns.items()},
            "provenance": {**made, "versions": {"torch": "0"}},
            "finished": "2024-01-01",
        },
        profile,
        loaded=True,
    )


def test_steps_beside_the_printed_ones():
    """2 s for 4 patches are 8 s for 16, 80000 s for 10000 steps. Printed: 2219 / 1962 = 1.13 and 5216 / 4126 = 1.26."""
    table = costs.compare_steps(timings(), paper.memory_and_time(), baseline="no L_contr")
    assert table.loc["no L_contr", "10 epochs (s)"] == 80000
    assert table.loc["no L_contr", "spread (%)"] == 15.0
    row = table.loc["S = 64, straightforward"]
    assert (row["printed time / plain"], row["printed memory / plain"]) == (1.13, 1.26)
    assert (row["time / plain"], row["memory / plain"]) == (1.5, 1.5)
    assert table.loc["S = 64, ours"][["time / plain", "memory / plain"]].to_list() == [1.01, 1.01]
    text = costs.steps_conclusion(timings(), table, "no L_contr")
    assert "- S = 64: printed: +13 % time, +26 % memory; straightforward: +50 % time, +50 % memory; ours: +1 %" in text
    assert "varies by up to 15 %" in text


def test_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PRFFN_REPORTS", str(tmp_path))
    table = costs.compare_steps(timings(), paper.memory_and_time(), baseline="no L_contr")
    figure, axes = new_figure(ncols=2)
    costs.plot_steps(axes, table, "no L_contr")
    assert [tuple(line.get_ydata()) for line in axes[0].get_lines()][:3] == [(1.13,), (1.5,), (1.01,)]
    costs.save_costs("table6", timings(), table, "as computed", figure, title="Table 6")
    written = json.loads((tmp_path / "cpu" / "table6.json").read_text())
    assert written["timings"] == "k"
    assert written["table"][1]["time / plain"] == 1.5
    assert "as computed" in (tmp_path / "cpu" / "table6.md").read_text()


def test_what_failed_says_so():
    record = {"measured": {"a": [{"seconds": 0.0125, "peak_mb": 30.4}], "b": [{"error": "MemoryError"}]}}
    table = costs.compare_costs(Timings(record, "quick", loaded=True))
    assert table.loc["a"].to_list() == ["12.5", "30", ""]
    assert table.loc["b", "note"] == "MemoryError"


def test_steps_at_each_profile():
    vary = {"no L_contr": {}, "S = 16": {"region_size": 16}}
    assert step_cases("paper", vary)["no L_contr"].batch == 16
    assert step_cases("quick", vary)["S = 16"].region_size == 16
    with pytest.raises(ValueError, match="unknown profile"):
        step_cases("quik", vary)
