"""Costs: what is timed is what it says, and the tables from made-up timings, by hand."""

import json
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import MADE

from prffn import paper
from prffn.__main__ import main
from prffn.evaluation import cost
from prffn.evaluation.cost import ForwardCase, LossCase, StepCase, in_rounds, peak_memory
from prffn.losses import pixel_contrast
from prffn.reporting import bench, table6
from prffn.study import timings as study
from prffn.study.timings import Timings, ensure_timings, step_cases

CPU = torch.device("cpu")


def made_up() -> Timings:
    """Plain: 2 s and 1000 MB; written out 3 s and 1500 MB; as trained 2.02 s, 1.01 times in the median."""

    def case(implementation: str, **contrast: int) -> list[Any]:
        return ["StepCase", {"contrast": contrast or None, "implementation": implementation, "batch": 4}]

    plain, written_out, ours = "no L_contr", "S = 256, straightforward", "S = 256, as trained"
    cases = {plain: case("auto"), written_out: case("reference", region_size=256), ours: case("auto", region_size=256)}
    seconds = {plain: [1.9, 2.0, 2.2], written_out: [2.85, 3.0, 3.3], ours: [1.919, 2.02, 2.222]}
    peak_mb = {plain: 1000.0, written_out: 1500.0, ours: 1005.0}
    record = {"rounds": 3, "cases": cases, "seconds": seconds, "peak_mb": peak_mb, "provenance": MADE}
    return Timings(record, "cpu", loaded=True)


def test_steps_beside_the_printed_ones():
    """2 s for 4 patches are 8 s for 16, 80000 s for 10000 steps. Printed: 2893 / 1962 = 1.47 and 7541 / 4126 = 1.83."""
    table = table6.compare_steps(made_up(), paper.memory_and_time())
    assert table.loc["no L_contr", "time of 10 epochs (s)"] == 80000
    row = table.loc["S = 256, straightforward"]
    printed = row["printed time / plain"], row["printed memory / plain"]
    assert printed == (pytest.approx(1.4745, abs=1e-4), pytest.approx(1.8277, abs=1e-4))
    assert (row["time / plain"], row["memory / plain"]) == (pytest.approx(1.5), pytest.approx(1.5))
    ours = table.loc["S = 256, as trained"]
    assert (ours["time / plain"], ours["memory / plain"]) == (pytest.approx(1.01), pytest.approx(1.005))
    text = table6.answer_costs(table)
    assert "adds +1.0 % to the time of a full-size training step and +0.5 % to its memory" in text
    assert "it adds +50 % and +50 % (the paper prints +47 %, +83 %)" in text
    assert "- S = 256: printed: +47 % time" in table6.steps_conclusion(made_up(), table)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "text"),
    [(1.5, 1.4, 1.6, "+50 %"), (1.012, 1.01, 1.02, "+1.2 %"), (1.01, 0.98, 1.04, "none that shows (-2.0 to +4.0 %)")],
)
def test_a_difference_within_the_spread_is_called_none(ratio, low, high, text):
    assert table6.added(ratio, low, high) == text


def test_ratios_are_paired_round_by_round():
    """A machine that slows down threefold in the last round slows both: the ratio stays 1.5 in each."""
    record = {"seconds": {"a": [1.0, 1.0, 3.0], "b": [1.5, 1.5, 4.5], "c": "MemoryError"}, "peak_mb": {}}
    timings = Timings(record, "cpu", loaded=True)
    assert timings.ratio("b", "a") == (1.5, 1.5, 1.5)
    assert np.isnan(timings.ratio("c", "a")).all()
    assert timings["c"] == {"error": "MemoryError"}


def test_the_loss_is_timed_as_trained():
    """The case's call is the loss and its gradient by the implementation that it names; "auto" is the trainings'."""
    case = LossCase(contrast={"region_size": 16}, implementation="auto", batch=1)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "pixel_contrast", lambda *a, **k: calls.append(k) or pixel_contrast(*a, **k))
        case.call(CPU)()
    assert calls == [{"implementation": "auto"}]
    assert StepCase().implementation == "auto"


def test_rounds_and_memory_and_what_fails():
    """Three calls each, of which the first does not count; a case that fails says why, and stops no other."""
    small = ForwardCase(network="FSRCNN", scale=2, height=8, width=8)
    seconds = in_rounds({"small": small, "bad": Mock(call=Mock(side_effect=MemoryError("too little")))}, 2, CPU)
    assert len(seconds["small"]) == 2
    assert seconds["bad"] == "MemoryError: too little"
    memory = peak_memory({"loss": LossCase(contrast={"region_size": 64}, implementation="reference", batch=1)}, CPU)
    assert memory["loss"] > 144 * 144 * 64 * 4 / 1e6  # of one S x S matrix for each region, in float32


def test_timings_are_recorded_and_belong_to_the_device_that_is_asked_for(monkeypatch):
    measured = []
    monkeypatch.setattr(study, "in_rounds", lambda cases, *_: measured.append(1) or {label: [0.5] for label in cases})
    cases = {"small": ForwardCase(network="FSRCNN", scale=2, height=8, width=8)}
    made = ensure_timings(cases, "quick", device="cpu")
    assert repr(made) == "1 timings of profile quick: 0 loaded, 1 measured"
    for device in ("cpu", "auto"):
        assert repr(ensure_timings(cases, "quick", device=device)) == "1 timings of profile quick: 1 loaded, 0 measured"
    with pytest.raises(ValueError, match="device 'cuda' cannot be used here"):
        ensure_timings(cases, "quick", device="cuda")
    monkeypatch.setattr(study, "pick_device", torch.device)  # as on a machine with a GPU
    monkeypatch.setattr(study, "measured", lambda *_: {"provenance": {}, "finished": "now"})
    assert ensure_timings(cases, "quick", device="cuda").new
    assert len(measured) == 2


def test_steps_at_each_profile():
    vary = {"no L_contr": {}, "S = 16": {"contrast": {"region_size": 16}}}
    assert step_cases("paper", vary)["no L_contr"].batch == 16
    assert step_cases("quick", vary)["S = 16"].contrast == {"region_size": 16}


def test_bench(tmp_path, monkeypatch, capsys):
    """Reference 0.2 s, streaming 0.04 s, what is picked 0.02 s, beside a step of 2 s: 10, 2 and 1 % of it."""
    seconds = {"reference": 0.2, "streaming": 0.04, "auto": 0.02}
    monkeypatch.setattr(
        bench, "in_rounds", lambda cases, *_: {name: [seconds.get(name.rpartition(", ")[2], 2.0)] * 3 for name in cases}
    )
    monkeypatch.setattr(bench, "peak_memory", lambda cases, _: dict.fromkeys(cases, 10.0))
    assert main(["bench", "--rounds", "3", "--device", "cpu"]) == 0
    assert "L1" in capsys.readouterr().out
    table = json.loads((tmp_path / "reports" / "bench" / "contrast.json").read_text())["table"]
    (row,) = [r for r in table if (r["form"], r["S"], r["implementation"]) == ("ratio", 16, "reference")]
    found = row["ms"], row["% of a step"], row["times auto"], row["extra MB"]
    assert found == (200.0, "10.0 (10.0 to 10.0)", "10.0", 10)
