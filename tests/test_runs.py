"""The run store: nothing trained twice, nothing damaged used, nothing half written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CHECKOUT, stop_after, tiny_settings

from prffn import files
from prffn.config import Experiment, experiment
from prffn.evaluation.metrics import evaluate
from prffn.files import read_record, save_record
from prffn.losses import fused
from prffn.models.pretrained import SCALES, pretrained_path, settings_of_file
from prffn.study import runs
from prffn.study.ensure import ensure
from prffn.study.keys import checkpoint_path, run_key
from prffn.study.notebook import experiments_of
from prffn.study.runs import load_record
from prffn.training.checkpoint import load_checkpoint, save_checkpoint
from prffn.training.loop import train


def record_file(tmp_path: Path, e: Experiment) -> Path:
    return tmp_path / "reports" / "quick" / "runs" / f"{run_key(e)}.json"


def test_a_run_is_trained_once(tiny):
    first = ensure({"a": [tiny]}, "quick", progress=False)
    again = ensure({"a": [tiny]}, "quick", progress=False)
    assert repr(first) == "1 runs of profile quick: 0 loaded, 1 trained"
    assert repr(again) == "1 runs of profile quick: 1 loaded, 0 trained"
    assert again["a"][0].record == first["a"][0].record


def test_two_labels_with_the_same_experiment_share_a_run(tiny, photo_folder):
    same = experiment(tiny_settings(photo_folder, **{"loss.epsilon": 0.7}))
    found = ensure({"a": [tiny], "b": [same]}, "quick", progress=False)
    assert found["a"] == found["b"]
    assert len(found.all()) == 1


def test_the_record_says_what_was_measured_where_and_how(tiny, tmp_path):
    record = ensure({"a": [tiny]}, "quick", progress=False)["a"][0].record
    assert record["settings"]["model.channels"] == 4
    assert record["settings"]["seed"] == 0
    assert record["evaluation"]["photos"]["image_names"] == ["0", "1", "2"]
    assert len(record["evaluation"]["photos"]["psnr_y"]) == len(record["bicubic"]["photos"]["psnr_y"]) == 3
    assert record["evaluation"]["photos"]["not_measured"] == {"lpips": "not asked for"}
    assert record["curve"][-1]["step"] == 12
    assert record["curve"][-1]["psnr_y"] == pytest.approx(sum(record["evaluation"]["photos"]["psnr_y"]) / 3)
    assert record["train_seconds"] > 0
    assert record["peak_memory_mb"] > 50
    made = record["provenance"]
    assert made["device"] == "cpu"
    assert made["threads"] == 1  # a small network; see machine.threads_for
    assert {"torch", "numpy", "python"} <= set(made["versions"])
    assert "commit" in made
    assert str(tmp_path) not in json.dumps(record)


def test_training_and_evaluation_have_the_threads_of_the_record(tiny, monkeypatch):
    """A convolution's last bit depends on them, and with it a pixel on the edge of rounding to uint8."""
    seen = set()

    def watched(*arguments, **more):
        seen.add(torch.get_num_threads())
        return evaluate(*arguments, **more)

    monkeypatch.setattr(runs, "evaluate", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        record = ensure({"a": [tiny]}, "quick", progress=False)["a"][0].record
    finally:
        torch.set_num_threads(before)
    assert seen == {record["provenance"]["threads"]} == {1}


def test_retrain_trains_afresh_and_gives_the_same(tiny):
    first = ensure({"a": [tiny]}, "quick", progress=False)["a"][0].record
    again = ensure({"a": [tiny]}, "quick", retrain=True, progress=False)
    assert again.trained
    assert again["a"][0].record["weights_sha256"] == first["weights_sha256"]
    assert again["a"][0].record["evaluation"] == first["evaluation"]


def test_a_record_that_is_not_the_runs_is_never_used(tiny, tmp_path):
    """Each is told, and trained again to the same. More damage: test_faults_damaged.py."""
    good = ensure({"a": [tiny]}, "quick", progress=False)["a"][0].record
    file, key = record_file(tmp_path, tiny), run_key(tiny)
    text, psnr = file.read_text(), str(good["evaluation"]["photos"]["psnr_y"][0])
    assert psnr in text
    whole, settings = json.loads(text), good["settings"]

    def refused(why: str) -> None:
        with pytest.warns(UserWarning, match=f"{file.name}.*{why}.*trained again"):
            assert load_record(file.parent, key, tiny) is None

    for changed, why in (
        (text.replace(psnr, psnr[:-3] + "999", 1), "its checksum does not match"),
        (json.dumps({name: value for name, value in whole.items() if name != "sha256"}), "is not a run record"),
        (json.dumps({**whole, "key": "0" * 16}), "its checksum does not match"),
    ):
        file.write_text(changed)
        refused(why)
    save_record(file.parent, key, {"key": key, "cases": {}})  # of another kind: a timing, copied among the runs
    refused("is no record of a run")
    save_record(file.parent, key, {**good, "settings": {**settings, "loss.negatives": "sr"}})  # a changed default
    refused(r"another loss\.negatives")
    with pytest.warns(UserWarning, match="trained again"):
        again = ensure({"a": [tiny]}, "quick", progress=False)
    assert again.trained == {key}
    assert again["a"][0].record["evaluation"] == good["evaluation"]
    assert read_record(file) == again["a"][0].record
    older = {name: value for name, value in settings.items() if name != "training.bfloat16"}  # which was added later
    save_record(file.parent, key, {**good, "settings": older})
    assert load_record(file.parent, key, tiny) is not None


ASK = """
import json, sys
from prffn.config import experiment
from prffn.study.ensure import ensure
print(len(ensure({"a": [experiment(json.loads(sys.argv[1]))]}, "quick", progress=False).trained))
"""


@pytest.mark.slow
def test_two_processes_that_need_a_run_train_it_once(photo_folder):
    settings = json.dumps(tiny_settings(photo_folder, **{"training.steps": 60}))
    command = [sys.executable, "-c", ASK, settings]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(int(p.communicate()[0]) for p in processes) == [0, 0, 1]


def test_the_trained_network_can_be_had(tiny):
    run = ensure({"a": [tiny]}, "quick", progress=False)["a"][0]
    model = runs.trained_model(tiny)
    assert evaluate(model, tiny.data.evaluation[0], scale=3).mean_psnr() == pytest.approx(run.mean("photos"), abs=1e-9)
    runs.checkpoint_path(run.key).unlink()
    with pytest.raises(FileNotFoundError, match="retrain"):
        runs.trained_model(tiny)


def test_what_computed_the_loss_is_said(photo_folder, tmp_path, monkeypatch):
    """With a compiler, without one, and resumed without one: each with other last bits, and each record says which."""
    if not fused.works():
        pytest.skip("no C compiler: what it computes cannot be told from what PyTorch does")
    e, made, weights = experiment(tiny_settings(photo_folder, **{"loss.temperature": 0.1})), {}, {}
    for how in ("compiled", "streaming", "both"):
        monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / how / "cache"))
        monkeypatch.setenv(files.REPORTS_VARIABLE, str(tmp_path / how))
        if how == "both":
            stop_after(e, 5, checkpoint_path(run_key(e)))
        with monkeypatch.context() as here:
            if how != "compiled":
                here.setattr(fused, "works", lambda: False)
            ensure({"a": [e]}, "quick", device="cpu", progress=False)
        record = read_record(tmp_path / how / "quick" / "runs" / f"{run_key(e)}.json")
        made[how], weights[how] = record["provenance"]["training"], record["weights_sha256"]
    assert [(part["step"], part["L_contr"]) for part in made["compiled"]] == [(0, "compiled")]
    assert [(part["step"], part["L_contr"]) for part in made["streaming"]] == [(0, "streaming")]
    assert [(part["step"], part["L_contr"]) for part in made["both"]] == [(0, "compiled"), (5, "streaming")]
    assert {"compiler", "options", "target"} <= made["compiled"][0].keys()
    assert "-march=native" in made["compiled"][0]["options"]
    assert "compiler" not in made["streaming"][0]
    assert len(set(weights.values())) > 1  # the bits do differ, else nothing would have to be said


def test_the_study_says_of_older_records_that_they_do_not_say(tiny):
    """A checkpoint from before resumes, and its first part is called what it is: not recorded."""
    run = ensure({"a": [tiny]}, "quick", progress=False)["a"][0]
    path = checkpoint_path(run.key)
    state = load_checkpoint(path)
    del state["made"]
    save_checkpoint(path, {**state, "step": 5})
    made = train(tiny, checkpoint=path, progress=False).made
    assert [(part["step"], part["device"]) for part in made] == [(0, "not recorded"), (5, "cpu")]


def test_all_recorded_runs_load(monkeypatch):
    """The committed study: every record has the key and settings of an experiment of a notebook; those of the package's
    networks are the ones that their files name, and what these start from."""
    monkeypatch.setenv(files.REPORTS_VARIABLE, str(CHECKOUT / "reports"))
    notebooks = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    asked = {
        run_key(e): e
        for path in notebooks
        for group in experiments_of(path, profile="cpu", seeds=None).values()
        for e in group
    }
    example = {"loss": "notebooks/losses_to_try.py:absolute_error"}  # the other one is asked for by default
    own = experiments_of(CHECKOUT / "notebooks" / "your_loss.ipynb", profile="cpu", **example)
    asked |= {run_key(e): e for group in own.values() for e in group}
    study, shipped = (CHECKOUT / "reports" / name / "runs" for name in ("cpu", "shipped"))
    for key, e in asked.items():
        assert load_record(study, key, e) is not None
    assert sorted(path.stem for path in study.iterdir()) == sorted(asked)
    named = {settings_of_file(pretrained_path(scale))["record"] for scale in SCALES}
    starts = {read_record(shipped / f"{key}.json")["settings"]["training.start"] for key in named}
    assert {path.stem for path in shipped.iterdir()} == named | starts - {""}
