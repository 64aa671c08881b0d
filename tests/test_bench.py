"""The benchmarks measure what they say: rivals compute the same loss, and figures come from recorded measurements."""

import json

import pytest
import torch

from prffn.evaluation import cost as timing
from prffn.evaluation.cost import InferenceCase, LossCase, StepCase, ensure_timings, measure_in_turns
from prffn.losses import pixel_contrast
from prffn.reporting import bench, bench_inference


@pytest.mark.parametrize("form", list(bench.FORMS))
def test_library_calls_compute_the_same_loss(form):
    g = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(2, 3, 16, 16, generator=g, dtype=torch.float64) for _ in range(2))
    options = {"similarity": "l1", "temperature": 0.1, **bench.FORMS[form]}
    expected = pixel_contrast(sr, hr, 16, implementation="reference", **options)
    assert timing.by_library(sr, hr, 16, **options).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("form", list(bench.FORMS))
def test_all_implementations_of_a_form_agree(form):
    """On a small batch; the compiled ones are left to the benchmark."""
    found = {}
    for name in ("reference", "matmul or cdist", "streaming"):
        case = LossCase(region_size=16, implementation=name, batch=1, seconds=0.01, **bench.FORMS[form])
        found[name] = case.measure(torch.device("cpu"))
    for figures in found.values():
        assert figures["loss"] == pytest.approx(found["reference"]["loss"], rel=1e-5)
        assert figures["seconds"] > 0


def test_memory_is_that_of_the_case():
    """S = 256, one patch: the reference keeps at least one difference for each of 20736 anchors, 256 candidates and 3
    channels, 64 MB; the streaming loss stays below half of that."""
    cases = {
        name: LossCase(region_size=256, form="ratio", implementation=name, batch=1, seconds=0.01)
        for name in ("reference", "streaming")
    }
    found = measure_in_turns(cases, torch.device("cpu"), turns=1)
    assert found["reference"][0]["peak_mb"] > 64
    assert found["streaming"][0]["peak_mb"] < 32


def test_slow_cases_take_one_turn_and_failures_are_told(monkeypatch):
    calls = []

    def measured(case, device):
        calls.append(case.region_size)
        return {16: {"seconds": 1.0}, 64: {"seconds": 5.0}, 256: {"error": "MemoryError"}}[case.region_size]

    monkeypatch.setattr(timing, "_in_its_own_process", measured)
    cases = {str(size): LossCase(region_size=size, form="ratio") for size in (16, 64, 256)}
    found = measure_in_turns(cases, torch.device("cpu"), turns=3)
    assert {label: len(turns) for label, turns in found.items()} == {"16": 3, "64": 1, "256": 1}
    assert calls == [16, 64, 256, 16, 16]


def test_a_failing_process_is_reported():
    found = measure_in_turns({"bad": LossCase(region_size=15, form="ratio")}, torch.device("cpu"), turns=2)
    assert found["bad"] == [{"error": "ValueError: region_size must be a square number such as 16, 64 or 256, got 15"}]


def test_timings_are_recorded_and_a_damaged_record_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("PRFFN_REPORTS", str(tmp_path))
    seconds = iter([3.0, 1.0, 2.0, 7.0, 7.0, 7.0, 8.0, 8.0, 8.0])  # three turns, three times
    monkeypatch.setattr(timing, "_in_its_own_process", lambda case, device: {"seconds": next(seconds) / 10})
    cases = {"plain": StepCase(batch=1)}
    first = ensure_timings(cases, "cpu", device="cpu")
    assert first["plain"] == {"seconds": 0.2}
    assert repr(first) == "1 timings of profile cpu: 0 loaded, 1 measured"
    again = ensure_timings(cases, "cpu", device="cpu")
    assert again["plain"] == {"seconds": 0.2}
    assert repr(again) == "1 timings of profile cpu: 1 loaded, 0 measured"
    (path,) = (tmp_path / "cpu" / "timings").glob("*.json")
    path.write_text(path.read_text().replace("0.3", "0.1"))
    with pytest.warns(UserWarning, match="measured again"):
        assert ensure_timings(cases, "cpu", device="cpu")["plain"] == {"seconds": 0.7}
    assert ensure_timings(cases, "cpu", device="cpu", retrain=True)["plain"] == {"seconds": 0.8}


def test_the_report_comes_from_the_record(monkeypatch, tmp_path):
    """A step takes 10 s and 1000 MB; every loss 0.1 s, 1 % of a step, and 20 MB, the reference 5 s and 600 MB: 50 and
    30 times as much. With the loss the step's peak is 1010 MB, 1 % more."""

    def measured(case, device):
        if isinstance(case, StepCase):
            return {"seconds": 10.0, "peak_mb": 1000.0 if case.region_size is None else 1010.0}
        reference = case.implementation == "reference"
        return {"seconds": 5.0 if reference else 0.1, "peak_mb": 600.0 if reference else 20.0, "loss": 1.0}

    monkeypatch.setenv("PRFFN_REPORTS", str(tmp_path))
    monkeypatch.setattr(timing, "_in_its_own_process", measured)
    tables = bench.run("cpu", turns=1)
    row = tables["costs"].loc[("ratio", 256, "reference")]
    assert (row["ms"], row["times our time"], row["times our MB"]) == ("5000", "50.0", "30.0")
    assert tables["costs"].loc[("ratio", 4096, "reference"), "note"] == "not run: keeps 33 GB"
    step = tables["steps"].loc[("InfoNCE, L1", 256)]
    assert (step["implementation"], step["adds to time (%)"], step["adds to peak memory (%)"]) == (
        "compiled",
        "1.00",
        "1.00",
    )
    record = json.loads((tmp_path / "bench" / "contrast.json").read_text())
    assert record["measured"]["step"] == [{"seconds": 10.0, "peak_mb": 1000.0}]
    assert {p.name for p in (tmp_path / "bench").iterdir()} == {f"contrast.{s}" for s in ("md", "csv", "json", "png")}


def test_an_inference_case_times_all_its_convolutions():
    """The steps' times make up that of all convolutions: each is a median, so nearly."""
    found = InferenceCase(channels=8, groups=1, height=9, width=12, rounds=1).measure(torch.device("cpu"))
    steps = [found[name] for name in found if name.startswith("convs, ")]
    assert sum(steps) == pytest.approx(found["convs"])  # of one round
    assert min(*steps, found["seconds"], found["straightforward"]) > 0
    assert found["count, branch of rate 4"] == 3
    assert found["multi-adds, branch of rate 4"] == 3 * 8 * 8 * 9 * 9 * 12


def test_the_inference_report_comes_from_the_record(monkeypatch, tmp_path):
    """Forward 1.1 s, its convs 1.0 s: 1.10 times; straightforward 2.2 s: 0.50. One step of 50 G multiply-adds, 100
    GFLOP, in 1 s; the other 0.1 s is 9.1 % of the forward."""
    figures = {"seconds": 1.1, "straightforward": 2.2, "convs": 1.0, "convs, tail": 1.0, "count, tail": 1,
               "multi-adds, tail": 50e9}  # fmt: skip
    monkeypatch.setenv("PRFFN_REPORTS", str(tmp_path))
    monkeypatch.setattr(timing, "_in_its_own_process", lambda case, device: figures)
    tables = bench_inference.run("cpu", turns=1)
    row = tables["ratios"].loc["x3"]
    assert (row["forward (ms)"], row["forward / convs"], row["forward / straightforward"]) == ("1100", "1.10", "0.50")
    steps = tables["steps"].loc["x3"]
    assert (steps.loc["tail", "convs"], steps.loc["tail", "GFLOP/s"]) == ("1", "100")
    assert steps.loc["everything else", "% of the forward"] == "9.1"
    record = json.loads((tmp_path / "bench" / "inference.json").read_text())
    assert record["measured"]["x4"] == [figures]
    assert {p.name for p in (tmp_path / "bench").iterdir()} == {f"inference.{s}" for s in ("md", "csv", "json", "png")}
