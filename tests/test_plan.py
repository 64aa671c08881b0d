"""A plan: each run once, what it takes, and how long all take on several devices; nothing trained, nothing recorded."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from conftest import CHECKOUT
from hypothesis import given
from hypothesis import strategies as st

from prffn.__main__ import main
from prffn.config import PROFILES, Experiment, experiment, lengths
from prffn.files import cache_root, reports_root, save_record
from prffn.study import plan
from prffn.study.continued import CONTINUED
from prffn.study.keys import checkpoint_path, run_key, settings_of
from prffn.study.notebook import experiments_of
from prffn.study.plan import asked_runs, cost, duration, make_plan, makespan, measured_step, missing_sets
from prffn.training.checkpoint import save_checkpoint
from prffn.training.device import device_name

NOTEBOOKS = {path.stem: path for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))}

CPU = torch.device("cpu")

STEPS = PROFILES["quick"]["training.steps"]

PARAMETERS = 'profile = "cpu"\nseeds = None\ndevice = "auto"\nretrain = False'
IMPORTS = "from prffn.config import variants\nfrom prffn.study.ensure import ensure"
VARY = (
    'experiments = variants(profile, {"L1": {"loss.contrast_weight": 0.0}, "S": {"loss.region_size": 16}}, seeds=seeds)'
)
ENSURE = "runs = ensure(experiments, profile)"


def notebook(path: Path, *cells: str) -> Path:
    """A notebook of these code cells; the first holds its parameters."""
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    made[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Text"), *made]), path)
    return path


@pytest.fixture
def measured(monkeypatch) -> list[Experiment]:
    """A run at profile quick takes 1200 s with L_contr and 600 s without, and 500 MB. Gives what was measured."""
    asked: list[Experiment] = []

    def found(e, device):
        asked.append(e)
        return {"seconds": (1200 if e.loss.contrast_weight else 600) / STEPS, "peak_mb": 500.0}

    monkeypatch.setattr(plan, "measured_step", found)
    return asked


@pytest.mark.parametrize(
    ("seconds", "gpus", "after", "expected"),
    [
        ({"a": 5.0, "b": 4.0, "c": 3.0, "d": 3.0}, 2, {}, 8.0),  # 5 + 3 beside 4 + 3
        ({"a": 5.0, "b": 4.0}, 1, {}, 9.0),
        ({"a": 5.0, "b": 4.0}, 9, {}, 5.0),
        ({"b": 4.0, "c": 3.0, "a": 2.0}, 2, {"b": "a"}, 6.0),  # a and c begin, as a has 2 + 4 before it; b follows at 2
        ({"a": 2.0, "b": 3.0, "c": 3.0}, 2, {"b": "a", "c": "a"}, 5.0),  # the second is idle until a has ended
        ({"b": 4.0}, 2, {"b": "recorded"}, 4.0),
        ({}, 3, {}, 0.0),
    ],
)
def test_makespan_by_hand(seconds, gpus, after, expected):
    assert makespan(seconds, gpus, after) == expected


@given(st.lists(st.floats(0, 9), min_size=1, max_size=25), st.integers(1, 9))
def test_any_makespan_is_within_grahams_bounds(seconds, gpus):
    """Neither below an equal share or the longest run, nor above all / N + (1 - 1 / N) of the longest."""
    longest, share = max(seconds), sum(seconds) / gpus
    found = makespan({str(n): value for n, value in enumerate(seconds)}, gpus)
    assert max(longest, share) - 1e-9 <= found <= share + (1 - 1 / gpus) * longest + 1e-9


class TestExperimentsOfANotebook:
    @pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
    def test_are_those_of_its_report(self, path):
        """What is listed without training has the labels and keys of what the notebook has recorded, to the digit."""
        file = CHECKOUT / "reports" / "cpu" / f"{path.stem}.json"
        report = json.loads(file.read_text()) if file.is_file() else {}
        found = experiments_of(path, profile="cpu", seeds=None)
        assert {label: [run_key(e) for e in group] for label, group in found.items()} == report.get("runs", {})
        assert not reports_root().exists()

    @pytest.mark.parametrize("profile", ["paper", "gpu", "cpu", "quick"])
    def test_are_listed_at_every_profile_without_images(self, profile):
        found = {name: experiments_of(path, profile=profile, seeds=1) for name, path in NOTEBOOKS.items()}
        assert list(found["table5_region_size"]) == ["no L_contr", "S = 16", "S = 64", "S = 256"]
        starts = [label for labels in found.values() for label in labels if label.endswith(", start")]
        assert starts == (["L_1 from trained weights, start"] if profile in CONTINUED else [])
        for group in (group for labels in found.values() for group in labels.values()):
            assert [e.seed for e in group] == [0]
        steps = PROFILES[profile].get("training.steps", 1_000_000)
        assert {e.training.steps for (e,) in found["table5_region_size"].values()} == {steps}
        asked = {e.training.steps for (e,) in found["beyond_when"].values()}
        assert asked == {*lengths(profile), *([CONTINUED[profile]["training.steps"]] if starts else [])}

    def test_cells_after_them_are_not_executed(self, tmp_path):
        more = ("more = {}", "experiments |= more")
        path = notebook(tmp_path / "n.ipynb", PARAMETERS, IMPORTS, VARY, *more, "1 / 0", ENSURE)
        assert list(experiments_of(path)) == ["L1", "S"]
        assert experiments_of(notebook(tmp_path / "n.ipynb", PARAMETERS, "1 / 0")) == {}

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            ((IMPORTS, ENSURE), "n, code cell 3: name what is trained `experiments`"),
            ((IMPORTS, VARY, "runs = ensure(others, profile)"), "n, code cell 4: name what is trained `experiments`"),
            ((IMPORTS, VARY, ENSURE, "experiments = {}"), "n, code cell 4: trains or measures before its"),
            ((IMPORTS, "t.ensure_timings({})", VARY, ENSURE), "n, code cell 3: trains"),
            ((IMPORTS, VARY + "; 1 / 0"), "n, code cell 3: ZeroDivisionError: division by zero"),
            ((IMPORTS, "%matplotlib inline", VARY), "n, code cell 3 is not plain Python"),
            (("experiments = 7",), "`experiments` must be what variants\\(\\) gives, got int"),
        ],
    )  # fmt: skip
    def test_a_broken_convention_is_named(self, tmp_path, cells, message):
        with pytest.raises(ValueError, match=message):
            experiments_of(notebook(tmp_path / "n.ipynb", PARAMETERS, *cells))


def test_what_a_step_costs():
    """Whatever its images, seed, schedule and weight of the loss; but for the network, the loss and the patches."""
    for name, value in {
        "seed": 3, "data.train": "BSD200", "data.evaluation": ("Set5",), "data.lpips": False,
        "loss.contrast_weight": 10.0, "training.steps": 5, "training.learning_rate": 1e-3,
        "training.schedule": "one_cycle", "training.halve_every": 7, "training.betas": (0.5, 0.9),
        "loss.contrast_fades": True,
    }.items():  # fmt: skip
        assert cost(experiment({name: value})) == cost(experiment({})), name
    for name, value in {
        "loss.contrast_weight": 0.0, "loss.region_size": 16, "loss.form": "ratio", "loss.temperature": 0.1,
        "model.variant": "PRFFN0", "model.channels": 16, "data.scale": 2, "data.batch_size": 8,
        "data.patch_size": 24, "training.bfloat16": True, "training.channels_last": True,
    }.items():  # fmt: skip
        assert cost(experiment({name: value})) != cost(experiment({})), name


def test_a_step_is_measured_with_the_loop_itself():
    e = cost(experiment({**PROFILES["quick"], "loss.contrast_weight": 0.0}))
    found = measured_step(e, CPU)
    assert 0 < found["seconds"] < 10
    assert found["peak_mb"] > 10


def test_shared_and_recorded_runs_and_checkpoints(tmp_path, measured):
    """Two tables that share a row: 3 runs. One is recorded and takes no more time, one is at a third of its steps."""
    one = notebook(tmp_path / "one.ipynb", PARAMETERS, IMPORTS, VARY, ENSURE)
    other = notebook(tmp_path / "other.ipynb", PARAMETERS, IMPORTS, VARY.replace("16", "64"), ENSURE)
    notebooks = {"one": one, "other": other}
    l1, s16, _ = asked = asked_runs(notebooks, "quick", 1)
    record = {"key": run_key(l1), "settings": settings_of(l1)}
    save_record(reports_root() / "quick" / "runs", run_key(l1), record)
    state = {"identity": repr(s16.canonical()), "step": STEPS // 3, "model": {}}
    save_checkpoint(checkpoint_path(run_key(s16)), state)
    found = make_plan(asked, "quick", CPU)
    assert list(found.index) == ["L1, seed 0, one, other", "S, seed 0, one", "S, seed 0, other"]
    assert list(found["state"]) == ["recorded", f"at step {STEPS // 3} of {STEPS}", "to train"]
    assert list(found["seconds"]) == pytest.approx([600, 1200, 1200])
    assert list(found["left"]) == pytest.approx([0, 800, 1200])
    assert len(measured) == 3


def test_missing_images_are_named(measured):
    e = experiment({"data.train": "BSD200+drawn", "data.evaluation": ("embedded_val", "Set5")})
    assert missing_sets([e]) == ["BSD200", "Set5"]


def test_the_command_plans_every_notebook_and_records_nothing(measured, capsys):
    profile = "paper"
    assert main(["plan", "--profile", profile, "--device", "cpu", "--gpus", "4"]) == 0
    printed = capsys.readouterr().out
    assert [path.name for path in (reports_root() / profile).iterdir()] == ["plan.csv"]
    assert not (cache_root() / "checkpoints").exists()
    table = pd.read_csv(reports_root() / profile / "plan.csv")
    assert len(table) == len(asked_runs(NOTEBOOKS, profile, None))
    assert f"{len(table)} distinct runs of profile {profile}: 0 recorded" in printed
    assert f"1 of them: {duration(table['left'].sum())}" in printed
    times = {8: "8.0 s", 810: "13.5 min", 200_000: "55.6 h", 1_062_720: "12.3 days"}
    assert {seconds: duration(seconds) for seconds in times} == times
    assert "4 of them: " in printed
    assert device_name(CPU) in printed


def test_a_step_that_fails_is_named_and_is_in_no_sum(monkeypatch, capsys):
    monkeypatch.setattr(plan, "measured_step", lambda e, device: {"error": "out of memory"})
    assert main(["plan", "table5_region_size", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "no estimate for no L_contr, seed 0, table5_region_size: out of memory" in printed
    assert "unknown" in printed


def test_a_notebook_that_trains_nothing(capsys):
    assert main(["plan", "architecture"]) == 0
    assert capsys.readouterr().out == "architecture: trains nothing\n"


def test_profile_gpu_is_a_day_on_one_device_and_an_afternoon_on_eight(capsys):
    """At 0.06 s a step, as the README says: half an hour for a run of 30,000 steps."""
    assert main(["plan", "--profile", "gpu", "--step-seconds", "0.06", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    hours = float(re.search(r" (\d+\.\d) h on one device at 0.06 s a step", said)[1])
    steps = pd.read_csv(reports_root() / "gpu" / "plan.csv")["steps"]
    assert hours == pytest.approx(steps.sum() / 30_000 / 2, abs=0.1)
    assert hours <= 24
    assert float(re.search(r"8 of them: (\d\.\d) h", said)[1]) <= 4
