"""A clock that is set back, or stands still, while a run is trained: nothing differs but what is said of time."""

import time
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from prffn.files import weights_sha256
from prffn.study.ensure import ensure
from prffn.training import loop as training
from prffn.training.loop import train

DAY = 86_400.0

CLOCKS = {
    "back by a day": (lambda step, now: now - DAY * (step > 5), 12),
    "back by an hour in each step": (lambda step, now: now - 3600 * step, 1),
    "a day ahead, and back": (lambda step, now: now + DAY * (4 < step < 8), 11),
    "standing still": (lambda step, now: 1000.0, 1),
}
"""What a clock shows after so many steps, and when it is right; how often the training is saved at least: it does not
wait for a day to come again."""


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_training_with_a_clock_that_is(clock, tiny, tmp_path, monkeypatch):
    (shown, saves), right, done = CLOCKS[clock], time.perf_counter, [0]
    undisturbed = train(tiny, progress=False)
    saved = Mock(wraps=training.save_checkpoint)
    monkeypatch.setattr(training, "save_checkpoint", saved)
    for name in ("time", "perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: shown(done[-1], right()))
    found = train(tiny, checkpoint=tmp_path / "run.ckpt", checkpoint_every=1e-9, on_step=done.append)
    assert (weights_sha256(found.model), found.curve) == (weights_sha256(undisturbed.model), undisturbed.curve)
    assert found.seconds >= 0
    assert saved.call_count >= saves


def test_a_run_does_not_end_before_it_starts(tiny, monkeypatch):
    days = iter((2, 1))
    monkeypatch.setattr("prffn.study.runs.datetime", Mock(now=lambda zone: datetime(2024, 1, next(days), tzinfo=zone)))
    record = ensure({"a": [tiny]}, "quick", progress=False)["a"][0].record
    assert record["started"] == record["finished"] == datetime(2024, 1, 2, tzinfo=UTC).isoformat()
