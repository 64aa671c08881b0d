"""One run trained by several processes is the run of one: its batches, losses, gradients, checkpoints and record."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import CHECKOUT, photos_in, tiny_settings
from test_perceptual import save_random_vgg16
from together import all_jobs, experiment_of, killed, stopping, together, trained

from prffn import files
from prffn.__main__ import main
from prffn.config import experiment
from prffn.reporting.tables import provenance_table
from prffn.study.ensure import ensure
from prffn.training import loop as training
from prffn.training import parallel as processes
from prffn.training.checkpoint import load_checkpoint
from prffn.training.loop import build_model, train
from prffn.training.objective import loss_terms
from prffn.training.parallel import VARIABLES, Processes, device_of, started

pytestmark = pytest.mark.slow

SAME_CURVE = 3e-6
"""Relative. Float32 has a rounding error of 6e-8; sums over the batch and twelve steps of Adam make at most 2.5e-7 of
it here. Ten times that, for processors that sum otherwise."""

SAME_NORM = 1e-4
"""Relative, of a term's gradient. At most 1.6e-5 here, with the ratio, where a sign that flips changes it by a step."""

SAME_WEIGHTS = 1e-5
"""Of the largest weight of a layer. At most 9e-7 here, with the ratio, whose gradient is made of signs."""


def near(curve: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float = SAME_CURVE) -> bool:
    """Whether all terms of all points agree."""
    return len(curve) == len(expected) and all(
        a.keys() == b.keys()
        and all(a[k] == pytest.approx(b[k], rel=max(tolerance, SAME_NORM if "gradient" in k else 0)) for k in a)
        for a, b in zip(curve, expected, strict=True)
    )


def off(weights: dict[str, np.ndarray], expected: dict[str, Any]) -> float:
    """The largest difference of two weights, in units of the largest weight of the layer. The same names, in order."""
    assert list(weights) == list(expected)
    pairs = [(np.asarray(value), np.asarray(expected[name])) for name, value in weights.items()]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs if b.size)


# Without starting a process


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_each_sample_is_one_processs(world_size):
    """The parts follow each other without gap or overlap, and differ by one sample at most."""
    for batch in range(world_size, 20):
        parts = [list(range(batch))[Processes(rank, world_size).part(batch)] for rank in range(world_size)]
        assert [sample for part in parts for sample in part] == list(range(batch))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match=rf"batch_size is {world_size - 1}, fewer .* the {world_size} processes"):
        Processes(0, world_size).part(world_size - 1)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """A folder with VGG-16 of random weights."""
    return save_random_vgg16(tmp_path_factory.mktemp("weights"))


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with started("cpu") as alone:
        assert alone == Processes(0, 1, torch.device("cpu"))
        assert not dist.is_initialized()
    value = torch.rand(2)
    assert alone.mean(value, 1.0) is value
    assert alone.broadcast(b"content") == b"content"


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(processes, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(1, "cuda") == torch.device("cuda", 1)
    assert device_of(3, "cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"process 2 .* no GPU of its own: start 2 at most .*--device cpu"):
        device_of(2, "cuda")
    with pytest.raises(ValueError, match="'mps' cannot be shared"):
        device_of(1, "mps")


# Two processes, started once


@pytest.fixture(scope="module")
def photos(tmp_path_factory, photo) -> Path:
    return photos_in(tmp_path_factory.mktemp("photos") / "photos", photo)


@pytest.fixture(scope="module")
def jobs(photos, backbone) -> dict[str, dict[str, Any]]:
    """What is trained by one process and by two, by name: settings, and `train`'s other arguments."""
    with_csd = {"loss.perceptual_weight": 1e-6, "loss.csd_weight": 0.1, "loss.backbone": "vgg16_caffe"}
    more = {
        "even": {"data.batch_size": 4},
        "uneven": {"data.batch_size": 3},
        "ratio": {"data.batch_size": 3, "loss.form": "ratio"},
        "all losses": {"data.batch_size": 3, "training.steps": 4, **with_csd},
        "channels_last": {"data.batch_size": 3, "training.channels_last": True},
        "bfloat16": {"data.batch_size": 3, "training.bfloat16": True, "training.channels_last": True},
        "started": {"data.batch_size": 3},
        "resumed": {"data.batch_size": 4},
    }
    made = {name: {"settings": tiny_settings(photos, **changes)} for name, changes in more.items()}
    made["all losses"]["environment"] = {files.WEIGHTS_VARIABLE: str(backbone)}
    other = experiment(tiny_settings(photos, seed=5))
    made["started"]["start"] = build_model(other).state_dict()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def serial(jobs, folder) -> dict[str, dict[str, Any]]:
    """The trainings by one process; and a checkpoint of seven steps, with which the two go on as "resumed"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(files.CACHE_VARIABLE, str(folder / "cache"))
        found = {}
        for name, job in jobs.items():
            for variable, value in job.get("environment", {}).items():
                patch.setenv(variable, value)
            found[name] = trained(Processes(), experiment_of(job), start=job.get("start"))
        jobs["resumed"]["checkpoint"] = folder / "one.ckpt"
        patch.setattr(training, "loss_terms", stopping(after=7)(loss_terms))
        with pytest.raises(InterruptedError):
            train(experiment(jobs["resumed"]["settings"]), checkpoint=folder / "one.ckpt", checkpoint_every=0,
                  progress=False)  # fmt: skip
    assert load_checkpoint(folder / "one.ckpt")["step"] == 7
    return found


@pytest.fixture(scope="module")
def two(jobs, serial, folder) -> list[dict[str, Any]]:
    """What each of two processes found, see together.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(files.CACHE_VARIABLE, str(folder / "cache"))
        found = together(all_jobs, jobs, folder)
    for of_rank in found:
        assert isinstance(of_rank, dict), of_rank
    return found


NAMES = ["even", "uneven", "ratio", "all losses", "channels_last", "started"]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_what_one_does(two, serial, name):
    """Both have the same curve and the same weights to the last bit, and they are those of one process."""
    for of_rank in two:
        assert of_rank[name]["curve"] == two[0][name]["curve"]
        assert off(of_rank[name]["weights"], two[0][name]["weights"]) == 0
    assert near(two[0][name]["curve"], serial[name]["curve"])
    assert off(two[0][name]["weights"], serial[name]["weights"]) < SAME_WEIGHTS


def test_in_bfloat16_to_its_digits(two, serial):
    """Gradients are summed over samples in bfloat16, of 8 bits: parts of a batch are rounded in other
    places. One unit in the last digit is 4e-3; the curves differ by 1e-4 here."""
    assert near(two[0]["bfloat16"]["curve"], serial["bfloat16"]["curve"], 2e-3)


def test_rank_0_alone_saves_and_validates(two, serial, folder):
    """The checkpoint has the names of the network itself, and is one process's but for rounding."""
    assert [of_rank["resumed"]["saves"] for of_rank in two] == [1, 0]
    assert [of_rank["stopped"] for of_rank in two] == ["stopped by the test"] * 2
    one, of_two = (load_checkpoint(folder / name) for name in ("one.ckpt", "two.ckpt"))
    assert one["step"] == 12  # the two processes went on with it to the end
    assert of_two["step"] == 7
    assert list(of_two["model"]) == list(serial["even"]["weights"])
    (validations, curve), (none, other) = (of_rank["validated"] for of_rank in two)
    assert (validations, none) == (3, 0)  # the fifth, the tenth and the last point
    assert [point["step"] for point in curve if "psnr_y" in point] == [5, 10, 12]
    assert near([{k: v for k, v in point.items() if k != "psnr_y"} for point in curve], other, 0)


def test_another_number_of_processes_goes_on(two, serial, jobs, folder):
    """Seven steps by one process and five by two, and the other way round: as twelve by one."""
    assert near(two[0]["resumed"]["curve"], serial["even"]["curve"])
    assert off(two[0]["resumed"]["weights"], serial["even"]["weights"]) < SAME_WEIGHTS
    alone = trained(Processes(), experiment(jobs["even"]["settings"]), checkpoint=folder / "two.ckpt")
    assert alone["saves"] == 1
    assert near(alone["curve"], serial["even"]["curve"])
    assert alone["curve"][:7] == two[0]["even"]["curve"][:7]
    assert off(alone["weights"], serial["even"]["weights"]) < SAME_WEIGHTS


def test_a_loss_that_is_not_finite_on_one_process_stops_both(two):
    for of_rank in two:
        kind, text = of_rank["poisoned"]
        assert kind == "NonFiniteLoss"
        assert "loss term 'l1' is nan at step 0" in text


def test_a_process_with_other_images_stops_all(two, photos):
    text = f"process 1 of 2 cannot take part: the images of {photos} are not those of process 0"
    assert [of_rank["other images"] for of_rank in two] == [("ValueError", text)] * 2


def test_a_killed_process_ends_the_other_and_the_run_goes_on(two, jobs, tmp_path):
    """SIGKILL of one in a step; started again, they end as if nothing had been: the same bits."""
    e, checkpoint = experiment(jobs["even"]["settings"]), tmp_path / "run.ckpt"
    error, code = together(killed, e, checkpoint)
    assert code == -9
    assert isinstance(error, ConnectionError)
    assert "process 0 of 2 has lost the others" in str(error)
    assert load_checkpoint(checkpoint)["step"] in (6, 7)  # rank 0 may have saved its own seventh
    again, _ = together(partial(trained, e=e, checkpoint=checkpoint))
    assert again["curve"] == two[0]["even"]["curve"]
    assert off(again["weights"], two[0]["even"]["weights"]) == 0


# The command


def notebook(folder: Path, experiments: dict[str, list[dict[str, Any]]]) -> Path:
    """A notebook that asks for these experiments."""
    cells = [
        ("profile = 'quick'\nseeds = None\ndevice = 'auto'", ["parameters"]),
        (f"from prffn.config import experiment\nasked = {experiments!r}", []),
        ("experiments = {label: [experiment(e) for e in group] for label, group in asked.items()}", []),
        ("from prffn.study.ensure import ensure\nruns = ensure(experiments, profile)", []),
    ]
    content = [{"cell_type": "code", "source": [text], "metadata": {"tags": tags}} for text, tags in cells]
    path = folder / "own.ipynb"
    path.write_text(json.dumps({"cells": content}))
    return path


def test_torchrun_makes_the_record(photo_folder, tmp_path):
    """The command under torchrun itself: the record is found by `ensure`."""
    settings = tiny_settings(photo_folder, **{"data.batch_size": 3})
    e, path = experiment(settings), notebook(tmp_path, {"a": [settings]})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prffn",
               "train", str(path), "--profile", "quick", "--device", "cpu"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo] ")]  # torch's own, before 2.10
    assert printed == ["1 runs of profile quick: 0 loaded, 1 trained"]
    found = ensure({"a": [e]}, "quick", progress=False)
    assert not found.trained
    assert provenance_table(found).loc["processes", "value"] == "2"
    assert len(list((tmp_path / "cache" / "checkpoints").iterdir())) == 1


def test_the_command_without_torchrun(photo_folder, tmp_path, capsys):
    settings = tiny_settings(photo_folder)
    path = str(notebook(tmp_path, {"a": [settings], "b": [{**settings, "seed": 1}]}))
    assert main(["train", path, "--label", "a", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "1 runs of profile quick: 0 loaded, 1 trained\n"
    assert main(["train", path, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "2 runs of profile quick: 1 loaded, 1 trained\n"
    assert main(["train", path, "--label", "c", "--device", "cpu"]) == 1
    assert "unknown label 'c'. Choose one of: a, b" in capsys.readouterr().err
    diverging = {**settings, "training.learning_rate": 1e30}
    assert main(["train", str(notebook(tmp_path, {"d": [diverging]})), "--device", "cpu"]) == 1
    assert re.search(r"prffn: loss term '\w+' is (nan|inf) at step \d+", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        (["reports", "table5_region_size"], "would do all of `reports` each"),
        (["upscale", "photo.png"], "run `upscale` without it"),
        (["train", "--workers", "2"], "leave out torchrun, or --scheduler and --workers"),
    ],
)
def test_under_torchrun_there_is_only_training(monkeypatch, capsys, command, way_out):
    for name, value in zip(VARIABLES, ("0", "2", "0", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    assert main(command) == 1
    assert way_out in capsys.readouterr().err
