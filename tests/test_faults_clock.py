"""A clock that is set back, or stands still, while a run is trained: nothing differs but what is said of time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import torch
from conftest import tiny_settings

from prffn.config import experiment
from prffn.study.ensure import ensure
from prffn.training import loop as training

DAY = 86_400.0

CLOCKS: dict[str, Callable[[int, float], float]] = {
    "back by a day": lambda step, now: now - DAY * (step > 5),
    "back by an hour in each step": lambda step, now: now - 3600 * step,
    "a day ahead, and back": lambda step, now: now + DAY * (4 < step < 8),
    "standing still": lambda step, now: 1000.0,
}
"""What a clock shows after so many steps, and when it is right."""


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_run_with_a_clock_that_is(clock, photo_folder, tmp_path, monkeypatch):
    e = experiment(tiny_settings(photo_folder))
    shown, right = CLOCKS[clock], time.perf_counter
    undisturbed = ensure({"a": [e]}, "quick", progress=False)["a"][0].record
    steps, saved = count(), []
    now = [0]
    adam, save = torch.optim.Adam.step, training.save_checkpoint

    def stepping(*arguments, **more):
        now[0] = next(steps)
        return adam(*arguments, **more)

    def saving(path, state):
        saved.append(state["step"])
        save(path, state)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(shown(now[0], 1_700_000_000.0), UTC) + timedelta(seconds=1)

    monkeypatch.setattr("torch.optim.Adam.step", stepping)
    monkeypatch.setattr("prffn.training.loop.save_checkpoint", saving)
    monkeypatch.setattr("prffn.study.runs.datetime", Clock)
    real_train = training.train
    monkeypatch.setattr("prffn.study.runs.train", lambda *a, **k: real_train(*a, **k, checkpoint_every=1e-9))
    for name in ("time", "perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: shown(now[0], right()))
    first = ensure({"a": [e]}, "quick", retrain=True)
    assert first.trained
    record = first["a"][0].record
    of_time = {"train_seconds", "started", "finished", "peak_memory_mb"}
    assert {k: v for k, v in record.items() if k not in of_time} == {
        k: v for k, v in undisturbed.items() if k not in of_time
    }
    assert record["train_seconds"] >= 0
    assert record["started"] <= record["finished"]
    steps_while_the_clock_runs = {"back by a day": 11, "back by an hour in each step": 0, "standing still": 0}
    assert len(saved) > steps_while_the_clock_runs.get(clock, 10)  # it does not wait for a day to come again
    assert not ensure({"a": [e]}, "quick").trained
