"""Runs: an experiment in, its record out.

A record is one JSON file, reports/<profile>/runs/<key>.json, that carries a checksum of its own content.
"""

import warnings
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from prffn.config import PROFILES, Experiment, experiment
from prffn.data.images import set_checksum, set_label
from prffn.evaluation.metrics import Evaluation, evaluate, evaluate_bicubic
from prffn.files import cache_root, read_record, save_record, weights_sha256
from prffn.losses.vgg import BackboneUnavailable
from prffn.models.complexity import multi_adds, parameters
from prffn.study.joint import announce
from prffn.study.keys import PROTOCOL, backbone_checksum, checkpoint_path, run_key, settings_of
from prffn.study.provenance import provenance
from prffn.training.checkpoint import load_checkpoint
from prffn.training.device import threads_for
from prffn.training.loop import build_model, train
from prffn.training.parallel import Processes


@dataclass(frozen=True)
class Run:
    """One trained experiment: its record."""

    key: str
    record: dict[str, Any]

    def values(self, image_set: str, metric: str = "psnr_y") -> list[float] | None:
        """The metric of each image of a set; None where it was not measured."""
        return self.record["evaluation"][image_set][metric]

    def mean(self, image_set: str, metric: str = "psnr_y") -> float | None:
        """The metric's mean over a set's images; None where it was not measured."""
        values = self.values(image_set, metric)
        return None if values is None else float(np.mean(values))


class Runs(UserDict[str, list[Run]]):
    """The runs of a table by label, one for each seed, and how they came about. Prints as one line.

    trained: keys of those trained now. not_measured: labels that have no runs, and why.
    """

    def __init__(
        self,
        profile: str,
        by_label: Mapping[str, list[Run]],
        trained: set[str],
        not_measured: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(by_label)
        self.profile, self.trained, self.not_measured = profile, trained, not_measured or {}

    def values_of(self, label: str, image_set: str, metric: str = "psnr_y") -> list[list[float]] | None:
        """The metric of each image, for each seed: (seeds, images). None where it was not measured."""
        values = [run.values(image_set, metric) for run in self[label]]
        return None if not values or None in values else values  # type: ignore[return-value]

    def is_start(self, label: str) -> bool:
        """Whether other runs of the table start from the weights of these."""
        started_from = {run.record["settings"].get("training.start") for run in self.all().values()}
        return any(run.key in started_from for run in self[label])

    def all(self) -> dict[str, Run]:
        """Each distinct run once, by key."""
        return {run.key: run for runs in self.values() for run in runs}

    def __repr__(self) -> str:
        total, trained = len(self.all()), len(self.trained)
        return f"{total} runs of profile {self.profile}: {total - trained} loaded, {trained} trained"


def image_sets(runs: Runs) -> list[str]:
    """The sets on which the runs were evaluated, in their order; where no run was measured, those of the profile."""
    for run in runs.all().values():
        return list(run.record["evaluation"])
    return [set_label(name) for name in experiment(PROFILES[runs.profile]).data.evaluation]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run to train, if nobody has meanwhile."""

    experiment: Experiment
    name: str  # what its bar says
    retrain: bool  # even where there is a record
    need_weights: bool  # other runs start from its weights: a record without them is not enough


@dataclass(frozen=True)
class Outcome:
    """The record of a run that was wanted, and whether it was made for this call, or had been made meanwhile."""

    record: dict[str, Any]
    made_now: bool


class OtherWeights(ValueError):
    """A recorded run that others start from was trained again, and has other weights; the message says the way out."""


def record_run(
    key: str,
    wanted: Wanted,
    store: Path,
    device: torch.device,
    from_scratch: bool = False,
    *,
    progress: bool = False,
    on_step: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> Outcome | BackboneUnavailable:
    """Trains, measures and records a run under its lock, unless another process has done so meanwhile.

    A recorded run whose weights others start from, and which are not in the cache, is trained again for its weights
    alone: its record stays. from_scratch: not from its checkpoint. on_step, processes: see `train`.
    Returns the reason where the backbone of its loss is missing. Raises OtherWeights if that gives other weights than
    the recorded ones, and what `train` does.
    """
    e = wanted.experiment
    lock = cache_root() / "locks" / f"{key}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        # another process may have made the record, or the weights that others start from, while this one waited
        recorded = None if wanted.retrain else load_record(store, key, e)
        if recorded is not None and not (wanted.need_weights and not has_weights(key, e, recorded)):
            return Outcome(recorded, made_now=False)
        if recorded is not None and _trained_state(key, e) is not None:
            from_scratch = True  # a checkpoint at its end has other weights than the recorded ones
        together = processes or Processes(device=device)
        try:
            record = _make_record(key, wanted, store, together, from_scratch, progress=progress, on_step=on_step)
        except BackboneUnavailable as reason:
            return reason
        if recorded is None:
            save_record(store, key, record)
            return Outcome(record, made_now=True)
        if record["weights_sha256"] != recorded["weights_sha256"]:
            start = f"run {key} ({wanted.name}), from which others start, was recorded with other weights than it gets"
            where = f"here ({_made(recorded)}; here {_made(record)})"
            raise OtherWeights(f"{start} {where}: retrain all (--retrain), or train where it was recorded")
        return Outcome(recorded, made_now=True)


def _made(record: dict[str, Any]) -> str:
    made = record["provenance"]
    return f"{made['device_name']}, threads: {made['threads']}, torch {made['versions']['torch']}"


def has_weights(key: str, e: Experiment, record: Mapping[str, Any] | None) -> bool:
    """Whether the trained weights of a run are in the cache: those of its record, if it has one."""
    return _trained_state(key, e, record) is not None


def _trained_state(key: str, e: Experiment, record: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The checkpoint of a run that has been trained to its end, with the weights of its record, if one is given.

    None if there is none in the cache.
    """
    state = load_checkpoint(checkpoint_path(key))
    if state is None or state["step"] < e.training.steps:
        return None
    return state if record is None or weights_sha256(state["model"]) == record["weights_sha256"] else None


def _make_record(
    key: str, wanted: Wanted, store: Path, processes: Processes, from_scratch: bool, **options: Any
) -> dict[str, Any]:
    """Trains and measures. options: of `train`."""
    e, checkpoint, device = wanted.experiment, checkpoint_path(key), processes.device
    if from_scratch:
        checkpoint.unlink(missing_ok=True)
    started, scale, validation = datetime.now(UTC), e.data.scale, e.data.evaluation[0]
    # before the training: an image or a file of weights that cannot be used is told at once, not after days
    bicubic = {set_label(name): bicubic_baseline(name, scale, e.data.lpips).to_json() for name in e.data.evaluation}
    start = start_weights(e, store)
    with threads_for(parameters(build_model(e))) as threads:
        announce(processes, e)
        trained = train(
            e,
            device=device,
            checkpoint=checkpoint,
            start=start,
            validate=lambda model: evaluate(model, validation, scale=scale, ssim=False, device=device).mean_psnr(),
            label=wanted.name,
            processes=processes,
            **options,
        )
        evaluation = {  # with the same threads: of another number convolutions differ in the last bit
            set_label(name): evaluate(trained.model, name, scale=scale, lpips=e.data.lpips, device=device).to_json()
            for name in e.data.evaluation
        }
    return {
        "key": key,
        "protocol": PROTOCOL,
        "settings": settings_of(e),
        "checksums": {set_label(name): set_checksum(name) for name in (e.data.train, *e.data.evaluation)},
        **({"backbone_sha256": backbone} if (backbone := backbone_checksum(e)) else {}),
        "parameters": parameters(trained.model),
        "multi_adds": multi_adds(trained.model, scale),
        "evaluation": evaluation,
        "bicubic": bicubic,
        "curve": trained.curve,
        "weights_sha256": weights_sha256(trained.model),
        **({"start_sha256": weights_sha256(start)} if start else {}),
        "train_seconds": round(trained.seconds, 2),
        "peak_memory_mb": round(trained.peak_memory_mb, 1),
        "started": started.isoformat(timespec="seconds"),
        "finished": max(started, datetime.now(UTC)).isoformat(timespec="seconds"),  # the clock may be set back
        "provenance": {**provenance(device, threads, processes.world_size), "training": trained.made},
    }


@lru_cache(maxsize=32)
def bicubic_baseline(image_set: str, scale: int, lpips: bool) -> Evaluation:
    """Figures of bicubic upscaling, measured once a process."""
    return evaluate_bicubic(image_set, scale=scale, lpips=lpips)


def start_weights(e: Experiment, store: Path) -> dict[str, torch.Tensor] | None:
    """The trained weights of the run that e starts from, from its checkpoint; None where it starts from its own.

    Raises FileNotFoundError where they are not in the cache, or are not those of its record in the store.
    """
    if e.start is None:
        return None
    key = run_key(e.start)
    state = _trained_state(key, e.start, load_record(store, key, e.start))
    if state is None:
        start = f"run {key}, from which this one starts"
        raise FileNotFoundError(f"{start}, lacks its recorded weights in {checkpoint_path(key)}: train it first")
    return state["model"]


def trained_model(experiment: Experiment) -> torch.nn.Module:
    """The network of a run, in evaluation mode, from its checkpoint in the cache.

    Raises FileNotFoundError if it was trained elsewhere.
    """
    key = run_key(experiment)
    state = _trained_state(key, experiment)
    if state is None:
        raise FileNotFoundError(f"no weights of this run in {checkpoint_path(key)}; train it here with retrain=True")
    model = build_model(experiment)
    model.load_state_dict(state["model"])
    return model.eval()


def load_record(store: Path, key: str, experiment: Experiment) -> dict[str, Any] | None:
    """The valid record of a run; None if there is none, with a warning that says why one that is there is not used."""
    path = store / f"{key}.json"
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        _check_record(record, path, store, experiment)
    except ValueError as error:
        warnings.warn(f"{error}; the run is trained again", stacklevel=2)
        return None
    return record


def _check_record(record: dict[str, Any], path: Path, store: Path, experiment: Experiment) -> None:
    """Raises ValueError, saying why, if a record that is whole is of another run or of another start."""
    if not isinstance(record.get("settings"), dict):
        raise ValueError(f"{path} is no record of a run")
    settings, paper = settings_of(experiment), settings_of(Experiment())
    recorded = {name: record["settings"].get(name, paper[name]) for name in settings}
    if differing := [name for name in settings if recorded[name] != settings[name]]:
        raise ValueError(f"{path} was made with another {', '.join(differing)}")
    if experiment.start is not None:
        start = load_record(store, run_key(experiment.start), experiment.start)
        if start is not None and record.get("start_sha256") != start["weights_sha256"]:
            raise ValueError(f"{path} started from other weights than those of its start")
