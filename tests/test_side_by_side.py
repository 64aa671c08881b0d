"""Runs trained side by side: the records of a serial training, bit for bit, and what happens when one fails."""

import dataclasses
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_settings

from prffn import files
from prffn.config import experiment
from prffn.study import side_by_side
from prffn.study.ensure import ensure
from prffn.study.side_by_side import room_for
from prffn.training.curve import NonFiniteLoss

pytestmark = pytest.mark.slow


def lasting(record):
    """What a record says of the run, not of the process that made it."""
    made = {"train_seconds", "peak_memory_mb", "started", "finished", "sha256"}
    return {name: value for name, value in record.items() if name not in made}


@pytest.fixture
def asked(photo_folder):
    """Two seeds with L_1 alone, and two runs that start from them."""
    alone = [experiment(tiny_settings(photo_folder, seed=s, **{"loss.contrast_weight": 0.0})) for s in range(2)]
    return {
        "with L_contr": [
            dataclasses.replace(experiment(tiny_settings(photo_folder, seed=s)), start=alone[s]) for s in range(2)
        ],
        "alone": alone,
    }


def test_two_at_a_time_give_the_serial_records(asked, tmp_path, monkeypatch):
    """Also the order of the runs, and that a run waits for the one from whose weights it starts."""
    found = {}
    for workers in (1, 2):
        monkeypatch.setenv(files.REPORTS_VARIABLE, str(tmp_path / f"reports {workers}"))
        monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / f"cache {workers}"))
        runs = ensure(asked, "quick", device="cpu", progress=False, workers=workers)
        assert repr(runs) == "4 runs of profile quick: 0 loaded, 4 trained"
        found[workers] = {label: [lasting(run.record) for run in group] for label, group in runs.items()}
    assert found[1] == found[2]
    again = ensure(asked, "quick", device="cpu", workers=2)
    assert repr(again) == "4 runs of profile quick: 4 loaded, 0 trained"


def test_what_fails_is_raised_and_the_others_are_recorded(asked, photo_folder):
    diverging = experiment(tiny_settings(photo_folder, **{"training.learning_rate": 1e30}))
    with pytest.raises(NonFiniteLoss, match="is (nan|inf) at step"):
        ensure({"bad": [diverging], "alone": asked["alone"][:1]}, "quick", device="cpu", progress=False, workers=2)
    runs = ensure({"alone": asked["alone"][:1]}, "quick", device="cpu", progress=False)
    assert repr(runs) == "1 runs of profile quick: 1 loaded, 0 trained"


def _die(*_):
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_killed_process_is_told(asked, monkeypatch):
    monkeypatch.setattr(side_by_side, "record_run", _die)
    with pytest.raises(RuntimeError, match=r"was killed.*--workers 1"):
        ensure(asked, "quick", device="cpu", progress=False, workers=2)


def test_as_many_as_have_cores(asked, photo_folder, monkeypatch):
    """Four small networks of a thread each on three cores: three; with one that takes two threads: one at a time."""
    monkeypatch.setattr(side_by_side, "cores", lambda: 3)
    wanted = {str(n): SimpleNamespace(experiment=e) for n, e in enumerate(e for group in asked.values() for e in group)}
    assert room_for(wanted, torch.device("cpu")) == 3
    assert room_for(wanted, torch.device("cuda")) == 1
    large = experiment(tiny_settings(photo_folder, **{"model.channels": 32, "model.groups": 4}))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert room_for({**wanted, "large": SimpleNamespace(experiment=large)}, torch.device("cpu")) == 1
    torch.set_num_threads(before)
