"""What a profile takes before it is trained: `python -m prffn plan`.

Each distinct run of the notebooks, whether it is recorded, what one of its steps takes on this device (a few steps of
the training loop itself for each distinct cost), and how long all of them take on several devices.
Nothing is recorded.
"""

import dataclasses
import heapq
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prffn.config import PHOTOGRAPHS, Experiment, check_profile, experiment, fields_of, setting
from prffn.data.images import KNOWN_SETS, sets_in
from prffn.files import atomic_write, data_root, in_one_line, reports_root
from prffn.models.complexity import parameters
from prffn.study.keys import checkpoint_path, run_key
from prffn.study.notebook import experiments_of
from prffn.study.runs import load_record
from prffn.training.checkpoint import load_checkpoint
from prffn.training.device import device_name, pick_device, threads_for
from prffn.training.loop import build_model, progress_bar, train

FREE = {
    "seed", "training.steps", "training.learning_rate", "training.schedule", "training.halve_every", "training.betas",
    "training.initial", "loss.contrast_fades",
}  # fmt: skip
"""Settings that change nothing of what a step takes."""

STEPS = 3  # how many are measured, after one that does not count
MEASURED = "measured here over a few steps; on a CPU with 2 patches, scaled up to the batch"

ASSUMED = (
    "Estimates: steps times the time of one, {how}. Evaluations, checkpoints and downloads are not counted, nor what "
    "Tables 6 and 8 measure. Several devices: all alike, one run on each, the longest chain of waiting runs first."
)


def measured_step(e: Experiment, device: torch.device) -> dict[str, Any]:
    """The "seconds" of a training step and the run's "peak_mb", or the "error", from a few steps on photographs.

    On a CPU from the time with 2 patches, in proportion, and from the memory with 1 and with 2, in a straight line.
    """
    whole = e.data.batch_size
    batch = min(2, whole) if device.type == "cpu" else whole

    def steps(count: int, patches: int) -> tuple[list[float], float]:
        """When each step was done, and the peak of memory."""
        data = dataclasses.replace(e.data, batch_size=patches)
        short = dataclasses.replace(e, data=data, training=dataclasses.replace(e.training, steps=count))
        ends: list[float] = []  # so few steps that after each its losses are read, for which a GPU is waited for
        trained = train(short, device=device, progress=False, on_step=lambda _: ends.append(time.perf_counter()))
        return ends, trained.peak_memory_mb

    try:
        with threads_for(parameters(build_model(e))):
            _, one = steps(1, 1 if device.type == "cpu" else batch)  # compiles, and touches memory for the first time
            ends, peak = steps(1 + STEPS, batch)  # the first one prepares the others
    except (RuntimeError, MemoryError) as error:
        return {"error": in_one_line(error)}
    return {
        "seconds": (ends[-1] - ends[0]) / STEPS * whole / batch,
        "peak_mb": peak + max(0.0, peak - one) * (whole - batch),
    }


def cost(e: Experiment) -> Experiment:
    """The experiment with all that changes nothing of a step's time and memory at one value: equal ones cost the same.

    That is: the settings in FREE, the images, and the weights of loss terms, but for whether they are 0.
    """
    e, paper = e.canonical(), Experiment()
    settings = {name: setting(paper if name in FREE else e, name) for name in fields_of()}
    used = {name: 1.0 for name, value in settings.items() if name.endswith("_weight") and value}
    return experiment(settings | used | PHOTOGRAPHS)


Asked = dict[Experiment, list[tuple[str, str]]]
"""Each distinct experiment, with notebook and label of each that asks for it."""


def asked_runs(notebooks: Mapping[str, Path], profile: str, seeds: int | None) -> Asked:
    """What the notebooks ask for. Raises ValueError as `experiments_of` does."""
    asked: Asked = {}
    for name, path in notebooks.items():
        for label, group in experiments_of(path, profile=check_profile(profile), seeds=seeds).items():
            for e in group:
                asked.setdefault(e.canonical(), []).append((name, label))
    return asked


def make_plan(asked: Asked, profile: str, device: torch.device, step_seconds: float | None = None) -> pd.DataFrame:
    """One row for each run, by "<label>, seed <n>, <notebooks>".

    Columns: state ("recorded", "at step 40 of 150", "to train"), key, "starts from" (a key), steps, "s/step", seconds
    (of all steps), left (seconds of the steps to be made), memory (MB), error (of the measurement, times are then NaN).
    step_seconds: what a step takes, whatever the run; None: measured here.
    """
    costs = list(dict.fromkeys(cost(e) for e in asked))
    bar = progress_bar(iterable=costs, desc="measuring", unit="cost", leave=False, disable=step_seconds is not None)
    measured = {e: {"seconds": step_seconds} if step_seconds else measured_step(e, device) for e in bar}
    rows = {}
    for e, who in asked.items():
        found = measured[cost(e)]
        key, record, done = _state(profile, e)
        steps, seconds = e.training.steps, found.get("seconds", math.nan)
        rows[f"{who[0][1]}, seed {e.seed}, {', '.join(dict.fromkeys(name for name, _ in who))}"] = {
            "state": "recorded" if record else f"at step {done} of {steps}" if done else "to train",
            "key": key, "starts from": run_key(e.start) if key and e.start else "", "steps": steps, "s/step": seconds,
            "seconds": steps * seconds, "left": 0.0 if record else (steps - done) * seconds,
            "memory": found.get("peak_mb", math.nan), "error": found.get("error", ""),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _state(profile: str, e: Experiment) -> tuple[str, bool, int]:
    """A run's key, whether it is recorded, and the step in its checkpoint; no key where its images are missing."""
    try:
        key = run_key(e)
    except FileNotFoundError:
        return "", False, 0
    if load_record(reports_root() / profile / "runs", key, e):
        return key, True, 0
    state = load_checkpoint(checkpoint_path(key))
    return key, False, state["step"] if state else 0


def makespan(seconds: Mapping[str, float], gpus: int, after: Mapping[str, str] | None = None) -> float:
    """Seconds until all runs are trained on `gpus` equal devices, one at a time on each.

    seconds: of each run. after: the run for whose weights a run waits. The runs with the longest chain behind them go
    first, each to the device that is free first (list scheduling, Graham 1969: at most 4/3 of the shortest possible
    without `after`).
    """
    after = {run: first for run, first in (after or {}).items() if run in seconds and first in seconds}

    def chain(run: str) -> float:
        return seconds[run] + max((chain(later) for later, first in after.items() if first == run), default=0.0)

    free, finished = [0.0] * gpus, dict[str, float]()
    for run in sorted(seconds, key=chain, reverse=True):  # so what a run waits for comes before it
        begins = max(heapq.heappop(free), finished[after[run]] if run in after else 0.0)
        finished[run] = begins + seconds[run]
        heapq.heappush(free, finished[run])
    return max(finished.values(), default=0.0)


def duration(seconds: float) -> str:
    """A time in the unit that people would use: "8.0 s", "13.5 min", "55.6 h", "12.3 days"; "unknown" for NaN."""
    if math.isnan(seconds):
        return "unknown"
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds / length < 100:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def summary(plan: pd.DataFrame, profile: str, where: str, gpus: int) -> str:
    """The plan as text: each run, then the total and the makespan on one and on `gpus` devices. where: the device."""
    shown = plan[["state", "steps", "s/step"]].copy()
    shown["takes"], shown["left"] = plan["seconds"].map(duration), plan["left"].map(duration)
    shown["memory (MB)"] = plan["memory"].map("{:.0f}".format)
    left = plan["left"][plan["left"] > 0].to_dict()
    names = {key: name for name, key in plan["key"].items() if key}
    after = {name: names[first] for name, first in plan["starts from"].items() if first in names}
    lines = [
        f"{len(plan)} distinct runs of profile {profile}: {(plan['state'] == 'recorded').sum()} recorded; "
        f"{duration(plan['seconds'].sum())} on one {where}, {duration(sum(left.values()))} of it still "
        "to be trained",
        *(f"{n} of them: {duration(makespan(left, n, after))}" for n in sorted({1, gpus})),
        *([f"most memory of a run: {plan['memory'].max():.0f} MB"] if plan["memory"].notna().any() else []),
        *(f"no estimate for {name}: {error}" for name, error in plan["error"].items() if error),
    ]
    return "\n\n".join([shown.to_string(float_format="{:.3g}".format), "\n".join(lines)])


def missing_sets(experiments: Iterable[Experiment]) -> list[str]:
    """Image sets that these experiments need and whose folder is not there."""
    joined = (name for e in experiments for name in (e.data.train, *e.data.evaluation))
    names = dict.fromkeys(part for name in joined for part in sets_in(name))
    return [name for name in names if name in KNOWN_SETS and not (data_root() / KNOWN_SETS[name].folder).is_dir()]


def run(
    notebooks: Mapping[str, Path],
    profile: str,
    *,
    device: str,
    seeds: int | None,
    gpus: int,
    step_seconds: float | None = None,
) -> str:
    """Makes the plan, writes it to reports/<profile>/plan.csv, times in seconds, and returns it as text.

    Raises ValueError as `experiments_of` does, or for a device that cannot be used.
    """
    picked = pick_device(device)
    if not (asked := asked_runs(notebooks, profile, seeds)):
        return f"{', '.join(notebooks)}: trains nothing"
    plan = make_plan(asked, profile, picked, step_seconds)
    path = reports_root() / profile / "plan.csv"
    with atomic_write(path, "w") as file:
        plan.to_csv(file, index_label="run", lineterminator="\n")
    where = f"device at {step_seconds:g} s a step" if step_seconds else device_name(picked)
    missing = missing_sets(asked)
    get = f"\nmissing image sets: python -m prffn data get {' '.join(missing)}" if missing else ""
    how = ASSUMED.format(how="as given" if step_seconds else MEASURED)
    return f"{summary(plan, profile, where, gpus)}\n\n{how}{get}\nsee {path}"
