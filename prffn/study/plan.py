"""What a profile takes, before it is trained: `python -m prffn plan`, results in reports/<profile>/plan.*.

A dry run: it lists each distinct run of the notebooks and whether it is recorded, measures a few training steps of each
distinct cost on the device at hand, and multiplies. Nothing is trained for a record, nothing is recorded.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from prffn.config import Experiment, check_profile, experiment, fields_of, setting
from prffn.evaluation.cost import measure_in_turns, wait_for
from prffn.files import DamagedRecord, cache_root, digest, read_record, reports_root, save_record
from prffn.models.complexity import parameters
from prffn.study.notebook import experiments_of
from prffn.study.runs import checkpoint_path, load_record, run_key, settings_of
from prffn.training.device import device_name, pick_device, threads_for
from prffn.training.loop import Trained, build_model, load_checkpoint, train

FREE = {
    "seed", "training.steps", "training.learning_rate", "training.schedule", "training.halve_every", "training.betas",
    "training.initial", "training.start",
}  # fmt: skip
"""Settings that change nothing of what a step takes."""

PHOTOGRAPHS = {"data.train": "embedded_train", "data.evaluation": ("embedded_val",), "data.lpips": False}
"""The images of every measurement: inside the scikit-image wheel."""

SECONDS = 3.0
"""How long the steps of a cost are measured, about."""

BUSY = 0.7
"""Share of its cores' time below which a measurement on a CPU is said to have been disturbed by other programs."""


@dataclass(frozen=True, kw_only=True)
class TrainingCase:
    """A few steps of `train` itself, on photographs from the scikit-image wheel, with these settings by dotted name.

    On a CPU, where a batch takes long, with as many of its patches as let three steps fit into `seconds`, two at least;
    elsewhere with the whole batch, as a GPU does not take half the time for half of it. Gives "seconds" of a step with
    "batch" patches, the mean of "steps" of them after a call that does not count, "peak_mb" as a record has it,
    "one_mb", the peak with one patch, and "share", how much of the time of its cores the process got (1 for a GPU).
    """

    settings: Mapping[str, Any]
    seconds: float = SECONDS

    def measure(self, device: torch.device) -> dict[str, float]:
        e = experiment(self.settings)
        whole = e.data.batch_size

        def steps(count: int, batch: int) -> Trained:
            data = dataclasses.replace(e.data, batch_size=batch)
            short = dataclasses.replace(e, data=data, training=dataclasses.replace(e.training, steps=count))
            return train(short, device=device, validate=lambda _: _finished(device), progress=False)

        with threads_for(parameters(build_model(e))) as threads:
            steps(1, 1)  # compiles, and touches memory for the first time
            one = steps(1, 1)
            fitting = max(2, int(self.seconds / 3 / one.seconds))
            batch = whole if device.type != "cpu" else min(whole, fitting)
            first = steps(1, batch)
            count = min(200, max(3, int(self.seconds / first.seconds)))
            began, worked = time.perf_counter(), time.process_time()
            found = steps(count, batch)
            share = (time.process_time() - worked) / (time.perf_counter() - began) / threads
        return {
            "seconds": found.seconds / count,
            "batch": batch,
            "steps": count,
            "peak_mb": found.peak_memory_mb,
            "one_mb": one.peak_memory_mb,
            "share": share if device.type == "cpu" else 1.0,
        }


def _finished(device: torch.device) -> float:
    """Called by `train` after the last step, within its time: waits until the GPU has done it. No PSNR is measured."""
    wait_for(device)
    return math.nan


def cost(e: Experiment) -> Experiment:
    """The experiment with all that changes nothing of a step's time and memory at one value: equal ones cost the same.

    That is: the settings in FREE, the images, and the weights of loss terms, but for whether they are 0. A setting that
    this function does not know is taken to matter.
    """
    e, paper = e.canonical(), Experiment()
    settings = {name: setting(paper if name in FREE else e, name) for name in fields_of()}
    used = {name: 1.0 for name, value in settings.items() if name.endswith("_weight") and value}
    return experiment(settings | used | PHOTOGRAPHS)


def start_of(e: Experiment) -> str:
    """Key of the run from whose weights a run starts; empty if it starts from random ones."""
    return e.training.start


@dataclass(frozen=True)
class Estimate:
    """What a training step takes with the whole batch; NaN, and the `error`, where it could not be measured.

    busy: other programs took the cores while it was measured, so that it is less certain.
    """

    seconds: float
    memory_mb: float
    measured_with: str
    busy: bool = False
    error: str = ""


def estimate(found: Mapping[str, Any], whole: int) -> Estimate:
    """What a step with `whole` patches takes, from what `TrainingCase` found.

    Time in proportion to the patches; memory in a straight line through the peaks with one patch and with the batch
    that was measured. Where other programs took the cores meanwhile, the time that the process had of them: the clock
    on the wall says nothing then.
    """
    if "error" in found:
        return Estimate(math.nan, math.nan, "", error=found["error"])
    batch, seconds, memory = found["batch"], found["seconds"], found["peak_mb"]
    text = f"{found['steps']} steps of {batch}"
    if batch < whole:
        memory += max(0.0, memory - found["one_mb"]) / (batch - 1) * (whole - batch)
        text += f" of {whole} patches, scaled up"
    else:
        text += " patches"
    if busy := found["share"] < BUSY:
        seconds *= found["share"]
        text += f"; had {found['share']:.0%} of its cores, counted without the rest"
    return Estimate(seconds * whole / batch, memory, text, busy)


@dataclass(frozen=True)
class PlannedRun:
    """A distinct run: who asks for it, what there is of it, what it takes.

    askers: notebook and label of each. key: None where it was not needed or the images are not at hand. done: steps in
    its checkpoint.
    """

    experiment: Experiment
    askers: tuple[tuple[str, str], ...]
    key: str | None
    record: Mapping[str, Any] | None
    done: int
    estimate: Estimate

    @property
    def name(self) -> str:
        notebook, label = self.askers[0]
        return f"{notebook}: {label}, seed {self.experiment.seed}"

    @property
    def seconds(self) -> float:
        """All of its steps."""
        return self.experiment.training.steps * self.estimate.seconds

    @property
    def left(self) -> float:
        """Seconds of the steps that are still to be made: none for a recorded run."""
        todo = 0 if self.record else self.experiment.training.steps - self.done
        return todo * self.estimate.seconds if todo else 0.0

    @property
    def state(self) -> str:
        if self.record:
            return "recorded"
        steps = self.experiment.training.steps
        return f"at step {self.done} of {steps}" if self.done else "to train"


@dataclass(frozen=True)
class Plan:
    """The runs of some notebooks at a profile, each once, and what they take on a device.

    asked: how many runs the notebooks ask for, shared ones counted for each. idle: notebooks that train nothing.
    """

    profile: str
    device: torch.device
    runs: tuple[PlannedRun, ...]
    asked: int
    idle: tuple[str, ...]

    def left(self) -> dict[str, float]:
        """Seconds still to be trained, by the run's name: of runs that are not recorded and have an estimate."""
        return {run.name: run.left for run in self.runs if run.left > 0}

    def after(self) -> dict[str, str]:
        """The runs in `left` that wait for another one's weights, and for which."""
        names, left = {run.key: run.name for run in self.runs if run.key}, self.left()
        waits = {run.name: names[first] for run in self.runs if (first := start_of(run.experiment)) in names}
        return {run: first for run, first in waits.items() if run in left and first in left}


def asked_runs(
    notebooks: Mapping[str, Path], profile: str, seeds: int | None
) -> dict[Experiment, list[tuple[str, str]]]:
    """Each distinct experiment that the notebooks ask for, and notebook and label of each that does."""
    given = {"profile": check_profile(profile), "seeds": seeds}
    askers: dict[Experiment, list[tuple[str, str]]] = {}
    for name, path in notebooks.items():
        for label, group in experiments_of(path, **given).items():
            for e in group:
                askers.setdefault(e.canonical(), []).append((name, label))
    return askers


def measured_costs(
    costs: Mapping[Experiment, str], device: torch.device, *, fresh: bool = False, seconds: float = SECONDS
) -> dict[Experiment, dict[str, Any]]:
    """What `TrainingCase` finds for each cost, given with its name.

    From the cache, if it was measured before on a device of this model, with this version of PyTorch and as many
    threads. fresh: measured again. A failure is not kept.
    """
    store, found = cache_root() / "plan", dict[Experiment, dict[str, Any]]()
    missing: dict[Experiment, tuple[str, dict[str, Any]]] = {}
    for e in costs:
        identity: dict[str, Any] = {
            "settings": settings_of(e),
            "seconds": seconds,
            "device": device.type,
            "device_name": device_name(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        key = digest(identity)[:16]
        kept = None if fresh else _kept(store / f"{key}.json")
        if kept is None:
            missing[e] = key, identity
        else:
            found[e] = kept
    for number, (e, (key, identity)) in enumerate(missing.items(), start=1):
        label = f"{number} of {len(missing)}: {costs[e]}"
        case = TrainingCase(settings=identity["settings"], seconds=seconds)
        (found[e],) = measure_in_turns({label: case}, device, turns=1)[label]
        if "error" not in found[e]:  # kept at once: a plan that is stopped goes on from here
            found[e]["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
            save_record(store, key, {"key": key, **identity, "found": found[e]})
    return found


def _kept(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return read_record(path)["found"]
    except DamagedRecord as error:
        warnings.warn(f"{error}; it is measured again", stacklevel=3)
        return None


def make_plan(
    notebooks: Mapping[str, Path],
    profile: str,
    *,
    device: str = "auto",
    seeds: int | None = None,
    fresh: bool = False,
    seconds: float = SECONDS,
) -> Plan:
    """The plan of these notebooks, by name, at a profile.

    device: "auto", "cpu", "cuda" or "mps". seeds: None for the notebooks' own number. fresh, seconds: see
    `measured_costs`. Raises ValueError as `experiments_of` does, or if the device is not at hand.
    """
    picked = pick_device(device)
    askers = asked_runs(notebooks, profile, seeds)
    store = reports_root() / profile / "runs"
    # A key takes the checksums of all images, which for DIV2K take minutes: only where there is something to find.
    kept = any(store.glob("*.json")) or any(checkpoint_path("*").parent.glob("*.ckpt"))
    names: dict[Experiment, str] = {}
    for e, who in askers.items():
        names.setdefault(cost(e), ": ".join(who[0]))
    found = measured_costs(names, picked, fresh=fresh, seconds=seconds)
    runs = []
    for e, who in askers.items():
        key = _key(e) if kept or start_of(e) else None
        record = load_record(store, key, e) if key else None
        done = 0 if record or not key else _steps_done(e, key)
        took = estimate(found[cost(e)], e.data.batch_size)
        runs.append(PlannedRun(e, tuple(dict.fromkeys(who)), key, record, done, took))
    asking = {name for who in askers.values() for name, _ in who}
    idle = tuple(name for name in notebooks if name not in asking)
    return Plan(profile, picked, tuple(runs), sum(map(len, askers.values())), idle)


def _key(e: Experiment) -> str | None:
    """The run's key; None where its images are not at hand, and so no record can be told to be of it."""
    try:
        return run_key(e)
    except FileNotFoundError:
        return None


def _steps_done(e: Experiment, key: str) -> int:
    path = checkpoint_path(key)
    state = load_checkpoint(path, repr(e.canonical())) if path.is_file() else None
    return int(state["step"]) if state else 0
