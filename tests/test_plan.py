"""A plan: each run once, what it takes, and how long all take on several devices; nothing trained, nothing recorded."""

import json
import random
import time
from itertools import pairwise
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from conftest import CHECKOUT, tiny_settings

from prffn.__main__ import main, write_pages
from prffn.config import CONTINUED, PROFILES, experiment, variants
from prffn.evaluation import cost as timing
from prffn.files import cache_root, reports_root, save_record
from prffn.reporting.plan import costs_table, duration, makespan_table, missing_sets, runs_table, save_plan, totals
from prffn.reporting.tables import write_report
from prffn.study import plan as planning
from prffn.study.notebook import experiments_of
from prffn.study.plan import Estimate, Plan, PlannedRun, TrainingCase, asked_runs, cost, estimate, make_plan
from prffn.study.runs import checkpoint_path, run_key, settings_of
from prffn.study.schedule import chains, lower_bound, makespan, schedule
from prffn.training.device import device_name
from prffn.training.loop import save_checkpoint, train

NOTEBOOKS = {path.stem: path for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))}

CPU = torch.device("cpu")

STEPS = PROFILES["quick"]["training.steps"]

PARAMETERS = 'profile = "cpu"\nseeds = None\ndevice = "auto"\nretrain = False'
IMPORTS = "from prffn.config import variants\nfrom prffn.study.runs import ensure"
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
def measured(monkeypatch) -> list[dict]:
    """A run at profile quick takes 1200 s with L_contr and 600 s without, and 500 MB. Gives what was measured."""
    asked: list[dict] = []

    def found(case, device):
        asked.append(dict(case.settings))
        seconds = (1200 if case.settings["loss.contrast_weight"] else 600) / STEPS
        batch = case.settings["data.batch_size"]
        return {"seconds": seconds, "batch": batch, "steps": 3, "peak_mb": 500.0, "one_mb": 400.0, "share": 1.0}

    monkeypatch.setattr(timing, "_in_its_own_process", found)
    return asked


class TestSchedule:
    def test_longest_first_by_hand(self):
        """5 and 4 begin; 3 from 4 to 7 behind the 4, 3 from 5 to 8 behind the 5, the last from 7 to 10. 9 is possible
        (5 + 4 beside 3 + 3 + 3): the bound, half of 18, and the classic case in which the longest first is not best."""
        seconds = {"a": 3.0, "b": 5.0, "c": 3.0, "d": 4.0, "e": 3.0}
        slots = schedule(seconds, 2)
        assert [(run, slot.gpu, slot.start, slot.finish) for run, slot in slots.items()] == [
            ("b", 0, 0, 5), ("d", 1, 0, 4), ("a", 1, 4, 7), ("c", 0, 5, 8), ("e", 1, 7, 10),
        ]  # fmt: skip
        assert makespan(seconds, 2) == 10
        assert lower_bound(seconds, 2) == 9

    def test_one_and_many_gpus(self):
        seconds = {"a": 3.0, "b": 5.0, "c": 4.0}
        assert makespan(seconds, 1) == lower_bound(seconds, 1) == 12
        assert makespan(seconds, 3) == makespan(seconds, 64) == lower_bound(seconds, 3) == 5
        assert makespan({}, 3) == lower_bound({}, 3) == 0

    def test_a_run_waits_for_the_weights_it_starts_from(self):
        """a and c begin, as a has 2 + 4 before it; b follows at 2 on the GPU of a; a third GPU is of no use."""
        seconds, after = {"b": 4.0, "c": 3.0, "a": 2.0}, {"b": "a"}
        slots = schedule(seconds, 2, after)
        assert (slots["a"].start, slots["c"].start, slots["b"].start) == (0, 0, 2)
        assert chains(seconds, after) == {"b": 4, "c": 3, "a": 6}
        assert makespan(seconds, 2, after) == makespan(seconds, 3, after) == lower_bound(seconds, 2, after) == 6

    def test_an_idle_gpu_waits(self):
        """Two GPUs and a chain: the second has nothing to do until a has ended, then takes one of the two."""
        slots = schedule({"a": 2.0, "b": 3.0, "c": 3.0}, 2, {"b": "a", "c": "a"})
        assert (slots["b"].start, slots["c"].start) == (2, 2)
        assert slots["b"].gpu != slots["c"].gpu

    @pytest.mark.parametrize("seed", range(40))
    def test_any_schedule_is_sound_and_within_its_bounds(self, seed):
        """No two runs on a GPU at a time, none before the one it waits for; not below the lower bound, and not above
        Graham's: all / N + (1 - 1 / N) of the longest chain."""
        draw = random.Random(seed)
        gpus = draw.randint(1, 9)
        seconds = {f"run {n}": draw.choice([0.0, 1.0, draw.uniform(0.1, 9)]) for n in range(draw.randint(1, 25))}
        names = list(seconds)
        after = {name: draw.choice(names[:n]) for n, name in enumerate(names) if n and draw.random() < 0.3 * (seed % 2)}
        slots = schedule(seconds, gpus, after)
        assert slots.keys() == seconds.keys()
        for run, slot in slots.items():
            assert slot.finish - slot.start == pytest.approx(seconds[run])
            assert 0 <= slot.gpu < gpus
            assert run not in after or slot.start >= slots[after[run]].finish
        for gpu in range(gpus):
            mine = sorted((slot.start, slot.finish) for slot in slots.values() if slot.gpu == gpu)
            assert all(early[1] <= late[0] for early, late in pairwise(mine))
        longest, total = max(chains(seconds, after).values()), sum(seconds.values())
        bound = lower_bound(seconds, gpus, after)
        assert bound >= max(*seconds.values(), total / gpus)
        assert bound - 1e-9 <= makespan(seconds, gpus, after) <= total / gpus + (1 - 1 / gpus) * longest + 1e-9

    @pytest.mark.parametrize(
        ("seconds", "gpus", "after", "message"),
        [
            ({"a": 1.0}, 0, {}, "gpus must be a whole number from 1 on, got 0"),
            ({"a": 1.0}, 1.5, {}, "gpus must be a whole number from 1 on, got 1.5"),
            ({"a": -1.0}, 1, {}, "run 'a' must take 0 seconds or more, got -1.0"),
            ({"a": float("nan")}, 1, {}, "run 'a' must take 0 seconds or more, got nan"),
            ({"a": 1.0}, 1, {"a": "b"}, "run 'a' waits for 'b'"),
            ({"a": 1.0, "b": 1.0, "c": 1.0}, 1, {"a": "b", "b": "a"}, "runs wait for each other: a, b"),
        ],
    )
    def test_what_cannot_be_scheduled(self, seconds, gpus, after, message):
        with pytest.raises(ValueError, match=message):
            schedule(seconds, gpus, after)


class TestExperimentsOfANotebook:
    @pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
    def test_are_those_of_its_report(self, path):
        """What is listed without training has the labels and keys of what the notebook has recorded, to the digit."""
        file = CHECKOUT / "reports" / "cpu" / f"{path.stem}.json"
        report = json.loads(file.read_text()) if file.is_file() else {}
        found = experiments_of(path, profile="cpu", seeds=None)
        assert {label: [run_key(e) for e in group] for label, group in found.items()} == report.get("runs", {})
        assert not reports_root().exists()

    @pytest.mark.parametrize("profile", ["paper", "cpu", "quick"])
    def test_are_listed_at_every_profile_without_images(self, profile):
        found = {name: experiments_of(path, profile=profile, seeds=1) for name, path in NOTEBOOKS.items()}
        starts = [] if profile == "paper" else ["no L_contr, start"]
        assert list(found["table5_region_size"]) == ["no L_contr", "S = 16", "S = 64", "S = 256", *starts]
        for group in (group for labels in found.values() for group in labels.values()):
            assert [e.seed for e in group] == [0]
        steps = {PROFILES[profile].get("training.steps", 1_000_000)}
        steps |= {CONTINUED[profile]["training.steps"]} if starts else set()
        assert {e.training.steps for (e,) in found["table5_region_size"].values()} == steps

    def test_parameters_take_the_place_of_the_notebooks_own(self, tmp_path):
        path = notebook(tmp_path / "n.ipynb", PARAMETERS, IMPORTS, "twice = seeds * 2", VARY, ENSURE)
        assert experiments_of(path, profile="quick", seeds=2) == variants(
            "quick", {"L1": {"loss.contrast_weight": 0.0}, "S": {"loss.region_size": 16}}, seeds=2
        )

    def test_cells_after_them_are_not_executed(self, tmp_path):
        path = notebook(
            tmp_path / "n.ipynb", PARAMETERS, IMPORTS, VARY, "more = {}", "experiments |= more", "1 / 0", ENSURE
        )
        assert list(experiments_of(path)) == ["L1", "S"]

    def test_a_notebook_without_them_has_no_runs(self, tmp_path):
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

    def test_an_unknown_parameter_is_named(self, tmp_path):
        path = notebook(tmp_path / "n.ipynb", PARAMETERS, IMPORTS, VARY)
        with pytest.raises(ValueError, match="unknown notebook parameter 'seed'. Did you mean 'seeds'"):
            experiments_of(path, seed=1)


class TestCost:
    @pytest.mark.parametrize(
        "changes",
        [
            {"seed": 3}, {"data.train": "BSD200"}, {"data.evaluation": ("Set5",)}, {"data.lpips": False},
            {"loss.contrast_weight": 10.0}, {"training.steps": 5}, {"training.learning_rate": 1e-3},
            {"training.schedule": "one_cycle"}, {"training.halve_every": 7}, {"training.betas": (0.5, 0.9)},
        ],
        ids=str,
    )  # fmt: skip
    def test_is_the_same(self, changes):
        assert cost(experiment(changes)) == cost(experiment({}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"loss.contrast_weight": 0.0}, {"loss.region_size": 16}, {"loss.form": "ratio"}, {"loss.temperature": 0.1},
            {"model.variant": "PRFFN0"}, {"model.channels": 16}, {"data.scale": 2}, {"data.batch_size": 8},
            {"data.patch_size": 24}, {"training.bfloat16": True}, {"training.channels_last": True},
        ],
        ids=str,
    )  # fmt: skip
    def test_is_another(self, changes):
        assert cost(experiment(changes)) != cost(experiment({}))

    def test_is_an_experiment_on_images_that_are_always_there(self):
        assert cost(experiment({})).data.train == "embedded_train"


class TestMeasurement:
    def test_scaled_up_by_hand(self):
        """A step with 2 patches takes 3 s, so with 16 it takes 24 s; the second patch adds 200 MB to 500, so 15 more
        than one add 3000."""
        found = {"seconds": 3.0, "batch": 2, "steps": 5, "peak_mb": 700.0, "one_mb": 500.0, "share": 0.9}
        assert estimate(found, 16) == Estimate(24.0, 3500.0, "5 steps of 2 of 16 patches, scaled up")
        assert estimate(found, 2) == Estimate(3.0, 700.0, "5 steps of 2 patches")
        text = "5 steps of 2 patches; had 25% of its cores, counted without the rest"
        assert estimate({**found, "share": 0.25}, 2) == Estimate(0.75, 700.0, text, busy=True)

    def test_of_a_real_training(self, photo_folder):
        """A training of 60 steps takes what its estimate says, within a factor of two: compared in time of the core,
        as what else runs changes from one to the other."""
        settings = tiny_settings(photo_folder, **{"model.channels": 16, "training.steps": 60})
        found = TrainingCase(settings=settings, seconds=0.3).measure(CPU)
        took = estimate(found, 2)
        began = time.process_time()
        train(experiment(settings), progress=False)
        core = took.seconds if took.busy else took.seconds * found["share"]
        assert 1 / 2 < 60 * core / (time.process_time() - began) < 2
        assert found["batch"] == 2
        assert 100 < took.memory_mb < 20_000

    def test_takes_fewer_patches_where_a_batch_is_slow(self, photo_folder):
        settings = tiny_settings(photo_folder, **{"data.batch_size": 40})
        found = TrainingCase(settings=settings, seconds=1e-6).measure(CPU)
        assert (found["batch"], found["steps"]) == (2, 3)
        assert estimate(found, 40).measured_with.startswith("3 steps of 2 of 40 patches, scaled up")
        assert 0 < found["share"] < 1.2
        assert estimate({**found, "share": 1.0}, 40).seconds == pytest.approx(20 * found["seconds"])

    def test_in_a_process_of_its_own_and_kept(self, tmp_path, monkeypatch):
        """For real: one cost at profile quick; a second plan takes it from the cache."""
        vary = 'experiments = variants(profile, {"S": {"loss.region_size": 16}}, seeds=seeds)'
        notebooks = {"n": notebook(tmp_path / "n.ipynb", PARAMETERS, IMPORTS, vary, ENSURE)}
        first = make_plan(notebooks, "quick", device="cpu", seeds=1, seconds=0.1)
        (run,) = first.runs
        assert run.estimate.error == ""
        assert 1e-4 < run.estimate.seconds < 5
        monkeypatch.setattr(timing, "_in_its_own_process", lambda case, device: pytest.fail("measured again"))
        assert make_plan(notebooks, "quick", device="cpu", seeds=1, seconds=0.1) == first
        assert not reports_root().exists()


@pytest.fixture
def two_tables(tmp_path) -> dict[str, Path]:
    """Two notebooks that share L_1 alone, and one that trains nothing."""
    other = VARY.replace('"S": {"loss.region_size": 16}', '"S": {"loss.region_size": 64}')
    return {
        "first": notebook(tmp_path / "first.ipynb", PARAMETERS, IMPORTS, VARY, ENSURE),
        "second": notebook(tmp_path / "second.ipynb", PARAMETERS, IMPORTS, other, ENSURE),
        "idle": notebook(tmp_path / "idle.ipynb", PARAMETERS, "1 / 0"),
    }


class TestPlan:
    def test_shared_runs_count_once(self, two_tables, measured):
        """Two seeds of L_1 alone (600 s), S = 16 and S = 64 (1200 s): 8 are asked for, 6 are distinct, and take
        2 x 600 + 4 x 1200 = 6000 s; on two devices 2 x 1200 + 600 each."""
        plan = make_plan(two_tables, "quick", device="cpu", seeds=2)
        assert (plan.asked, len(plan.runs), plan.idle) == (8, 6, ("idle",))
        assert plan.runs[0].askers == (("first", "L1"), ("second", "L1"))
        assert [run.left for run in plan.runs] == pytest.approx([600, 600, 1200, 1200, 1200, 1200])
        assert len(measured) == 3
        summary = totals(plan, 2)
        assert summary["distinct runs"] == "6: 0 recorded, 6 to train"
        assert sum(plan.left().values()) == pytest.approx(6000)
        assert summary["estimated, still to be trained"].endswith(f" on one {device_name(CPU)} (cpu)")
        assert summary["all done on 2 of them"].startswith("50.0 min; no schedule can be below 50.0 min")
        assert list(costs_table(plan)["runs"]) == [2, 2, 2]
        assert len(asked_runs(two_tables, "quick", 2)) == 6

    def test_recorded_runs_take_no_time_and_checkpoints_less(self, two_tables, measured):
        """S = 16 recorded: 0 s. S = 64 two thirds done: 400 s. L_1 alone: 600 s, the longest."""
        found = experiments_of(two_tables["first"], profile="quick", seeds=1)
        (recorded,), (half,) = found["S"], experiments_of(two_tables["second"], profile="quick", seeds=1)["S"]
        key = run_key(recorded)
        made = {"device": "cpu", "device_name": device_name(CPU)}
        record = {"key": key, "settings": settings_of(recorded), "train_seconds": 1000.0, "provenance": made}
        save_record(reports_root() / "quick" / "runs", key, record)
        state = {"identity": repr(half.canonical()), "step": STEPS * 2 // 3, "model": {}}
        save_checkpoint(checkpoint_path(run_key(half)), state)
        plan = make_plan(two_tables, "quick", device="cpu", seeds=1)
        assert {run.name: run.left for run in plan.runs} == pytest.approx(
            {"first: L1, seed 0": 600, "first: S, seed 0": 0, "second: S, seed 0": 400}, rel=0.01
        )
        assert [run.state for run in plan.runs] == ["to train", "recorded", f"at step {STEPS * 2 // 3} of {STEPS}"]
        assert plan.left().keys() == {"first: L1, seed 0", "second: S, seed 0"}
        spans = makespan_table(plan)
        assert list(spans.index) == list(range(1, 65))
        assert spans.loc[1, "makespan (s)"] == pytest.approx(1000, rel=0.01)
        assert spans.loc[2:, "makespan (s)"].tolist() == pytest.approx([600] * 63)
        summary = totals(plan, 1)
        assert summary["distinct runs"] == "3: 1 recorded, 2 to train"
        assert summary["estimated / taken, of recorded runs made on such a device"].startswith("1.20, median of 1 ")

    def test_a_run_waits_for_the_run_it_starts_from(self, monkeypatch):
        """600 steps of 1 s, then 600 more from its weights; one that starts from a run of no table waits for none."""
        first, second, third = (experiment({"seed": n, "training.steps": 600}) for n in range(3))
        took = Estimate(1.0, 500.0, "3 steps of 16 patches")
        runs = tuple(
            PlannedRun(e, (("n", k),), k, None, 0, took) for e, k in zip((first, second, third), "abc", strict=True)
        )
        monkeypatch.setattr(planning, "start_of", lambda e: {1: "a", 2: "elsewhere"}.get(e.seed, ""))
        plan = Plan("paper", CPU, runs, 3, ())
        assert plan.after() == {"n: b, seed 1": "n: a, seed 0"}
        assert makespan_table(plan, [1, 3])["makespan (s)"].tolist() == [1800, 1200]

    def test_measurements_are_kept_until_fresh_ones_are_asked_for(self, two_tables, measured):
        make_plan(two_tables, "quick", device="cpu", seeds=1)
        assert len(measured) == 3
        make_plan(two_tables, "quick", device="cpu", seeds=3)
        assert len(measured) == 3
        make_plan(two_tables, "quick", device="cpu", seeds=1, fresh=True)
        assert len(measured) == 6
        for path in (cache_root() / "plan").glob("*.json"):
            path.write_text(path.read_text().replace("500.0", "50.0"))
        with pytest.warns(UserWarning, match="it is measured again"):
            make_plan(two_tables, "quick", device="cpu", seeds=1)
        assert len(measured) == 9

    def test_a_step_that_fails_is_told_and_is_in_no_sum(self, two_tables, monkeypatch):
        def found(case, device):
            if case.settings["loss.contrast_weight"]:
                return {"error": "OutOfMemoryError: 80 GB"}
            return {"seconds": 1.0, "batch": 4, "steps": 3, "peak_mb": 500.0, "one_mb": 400.0, "share": 1.0}

        monkeypatch.setattr(timing, "_in_its_own_process", found)
        plan = make_plan(two_tables, "quick", device="cpu", seeds=1)
        assert "failed: OutOfMemoryError: 80 GB" in set(costs_table(plan)["measured with"])
        assert totals(plan, 1)["without an estimate, in no sum"].startswith("2 runs")
        assert plan.left() == {"first: L1, seed 0": STEPS}
        assert "unknown" in save_plan(plan, 1)
        assert len(list((cache_root() / "plan").glob("*.json"))) == 1

    def test_missing_images_are_named(self, two_tables, measured):
        assert missing_sets(make_plan(two_tables, "paper", device="cpu", seeds=1)) == ["DIV2K_train", "DIV2K_val5"]


class TestCommandLine:
    @pytest.mark.parametrize("profile", ["paper", "cpu", "quick"])
    def test_plans_every_notebook_and_records_nothing(self, profile, measured, capsys):
        assert main(["plan", "--profile", profile, "--device", "cpu", "--gpus", "4"]) == 0
        printed = capsys.readouterr().out
        folder = reports_root() / profile
        assert {path.name for path in folder.iterdir()} == {"plan.md", "plan.csv", "plan.png", "plan.json"}
        assert not (cache_root() / "checkpoints").exists()
        content, text = json.loads((folder / "plan.json").read_text()), (folder / "plan.md").read_text()
        listed = asked_runs(NOTEBOOKS, profile, None)
        assert len(content["runs"]) == len(listed) == len(pd.read_csv(folder / "plan.csv"))
        for name, path in NOTEBOOKS.items():
            for label in experiments_of(path, profile=profile):
                assert f"{name}: {label}" in "; ".join(row["asked for by"] for row in content["runs"])
        for shown in (printed, text):
            assert device_name(CPU) in shown
            assert "some ten times during a run" in shown
            assert "all done on 4 of them" in shown
        seconds = sum(row["left (s)"] for row in content["runs"])
        assert content["makespan"][0]["makespan (s)"] == pytest.approx(seconds)
        assert 4 * content["makespan"][3]["makespan (s)"] >= seconds
        assert "architecture" in content["totals"]["notebooks that train nothing"]

    @pytest.mark.filterwarnings("error")
    def test_the_pages_that_come_after_a_plan_do_not_take_it_for_a_report(self, measured, capsys):
        """The end of `reports`, which comes after all training."""
        assert main(["plan", "table5_region_size", "--profile", "paper", "--device", "cpu"]) == 0
        write_report(reports_root() / "paper" / "table5_region_size.json", {
            "title": "Table 5", "profile": "paper", "label": "measured", "runs": {"S = 16": ["k"]},
        })  # fmt: skip
        capsys.readouterr()
        assert write_pages("paper") == 0
        assert "Plan of profile" not in (reports_root() / "paper" / "README.md").read_text()

    def test_plans_the_notebooks_that_are_named(self, measured, capsys):
        assert main(["plan", "table5_region_size", "--seeds", "1", "--device", "cpu"]) == 0
        assert "distinct runs: 5: 0 recorded, 5 to train" in capsys.readouterr().out
        assert len(measured) == 4

    def test_a_notebook_that_trains_nothing(self, capsys):
        assert main(["plan", "architecture"]) == 0
        assert capsys.readouterr().out == "architecture: trains nothing\n"
        assert not reports_root().exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["table55"], "unknown notebook 'table55'."),
            (["--gpus", "0"], "--gpus must be a whole number from 1 on, got 0"),
            (["--seeds", "0"], "seeds must be a whole number from 1 on"),
            (["--device", "gpu"], "device 'gpu' cannot be used here"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, message, capsys, measured):
        assert main(["plan", *arguments]) == 1
        assert message in capsys.readouterr().err
        assert not measured
        assert not reports_root().exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (99, "99.0 s"), (600, "10.0 min"), (7200, "2.0 h"), (1e6, "11.6 days"), (float("nan"), "unknown")],
)
def test_times_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_the_table_of_runs_has_seconds_that_add_up(two_tables, measured):
    table = runs_table(make_plan(two_tables, "quick", device="cpu", seeds=1))
    assert table["estimated (s)"].tolist() == (table["steps"] * table["s/step"]).tolist()
    assert table["estimated (s)"].tolist() == pytest.approx([600, 1200, 1200])
