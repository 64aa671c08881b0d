"""The run store: an experiment in, its record out. Only what has no valid record is trained.

A record is one JSON file, reports/<profile>/runs/<key>.json. Its key is a hash of the settings that have an effect,
of the images' checksums and of PROTOCOL; it carries a checksum of its own content.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from prffn.config import SHIPPED, Experiment, check_profile, fields_of, setting
from prffn.data import set_checksum, set_label
from prffn.joint import announce
from prffn.losses.backbone import BackboneUnavailable, backbone_sha256
from prffn.machine import pick_device, provenance, threads_for
from prffn.metrics import Evaluation, evaluate, evaluate_bicubic
from prffn.models.complexity import multi_adds, parameters
from prffn.paths import cache_root, reports_root
from prffn.processes import Processes
from prffn.records import DamagedRecord, digest, read_record, save_record
from prffn.training import build_model, load_checkpoint, train, weights_sha256

PROTOCOL = 2
"""Raised by hand whenever the same experiment would give other numbers; a golden run in the tests notices."""


RECORDED_BACKBONES = {"vgg16_caffe": "89f1142ff90b2311bc6ac4c4280781b61d080356f18e5aa1c9a53829b47c4e07"}
"""Checksums of the backbones that the recorded study used, so that its records are found where their files are not."""


def run_key(experiment: Experiment) -> str:
    """16 hexadecimal digits: equal for experiments that give the same record, on any machine.

    Only settings that differ from the paper's enter it, so that a setting added later leaves the key of older runs as
    it is; `load_record` compares all settings, so that a changed default cannot pass for the old one.
    """
    settings, paper = settings_of(experiment), settings_of(Experiment())
    e = experiment.data
    identity = {
        "protocol": PROTOCOL,
        "settings": {name: value for name, value in settings.items() if value != paper[name]},
        "checksums": [set_checksum(name) for name in (e.train, *e.evaluation)],
    }
    if backbone := backbone_checksum(experiment):
        identity["backbone"] = backbone
    return digest(identity)[:16]


def backbone_checksum(experiment: Experiment) -> str | None:
    """Checksum of the backbone of L_perc and L_CSD: of that at hand, else of the recorded one; None if none is used.

    Warns if the one at hand is not the study's: its records are then of another one, and are not found.
    """
    loss = experiment.loss
    if not (loss.perceptual_weight or loss.csd_weight):
        return None
    recorded = RECORDED_BACKBONES.get(loss.backbone)
    try:
        found = backbone_sha256(loss.backbone)
    except BackboneUnavailable:
        if recorded is None:
            raise
        return recorded
    if recorded is not None and found != recorded:
        warnings.warn(
            f"the weights of {loss.backbone} at hand are not those of the recorded study: runs with them are new. If "
            "you did not choose others, their file is damaged: get it again",
            stacklevel=2,
        )
    return found


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """All settings that have an effect, by dotted name, as they stand in a record.

    Folders of images go by their own name: a record names no path of the machine it was made on. Raises ValueError for
    two folders of one name.
    """
    e = experiment.canonical()
    sets = {e.data.train, *e.data.evaluation}
    if len({set_label(name) for name in sets}) < len(sets):
        raise ValueError(f"two of the folders {', '.join(sorted(sets))} would have one name in the record; rename one")
    settings: dict[str, Any] = {}
    for name, kind in fields_of().items():
        value = setting(e, name)
        settings[name] = list(value) if isinstance(value, tuple) else float(value) if kind is float else value
    settings["data.train"] = set_label(e.data.train)
    settings["data.evaluation"] = [set_label(name) for name in e.data.evaluation]
    return settings


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


class Runs(Mapping[str, list[Run]]):
    """The runs of a table by label, one for each seed, and how they came about. Prints as one line."""

    def __init__(
        self,
        profile: str,
        by_label: dict[str, list[Run]],
        trained: set[str],
        not_measured: Mapping[str, str] | None = None,
    ) -> None:
        self.profile = profile
        self.by_label = by_label
        self.trained = trained
        self.not_measured = dict(not_measured or {})
        """Labels that have no runs, and why."""

    def __getitem__(self, label: str) -> list[Run]:
        return self.by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_label)

    def __len__(self) -> int:
        return len(self.by_label)

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
        return {run.key: run for runs in self.by_label.values() for run in runs}

    def __repr__(self) -> str:
        total, trained = len(self.all()), len(self.trained)
        return f"{total} runs of profile {self.profile}: {total - trained} loaded, {trained} trained"


def image_sets(runs: Runs) -> list[str]:
    """The sets on which the runs were evaluated, in their order."""
    return list(next(iter(runs.all().values())).record["evaluation"])


def ensure(
    experiments: Mapping[str, Sequence[Experiment]],
    profile: str,
    *,
    device: str = "auto",
    retrain: bool = False,
    progress: bool = True,
    processes: Processes | None = None,
) -> Runs:
    """The runs of all experiments: recorded ones are loaded, the others trained, measured and recorded.

    An experiment whose loss needs a backbone that is not at hand has no runs, and is said to be not measured.
    retrain: train all of them afresh. A damaged record is never used: it is reported and trained again. Two
    processes that need the same run train it once; a killed run goes on from its checkpoint. A run from whose weights
    others start is trained before them, and again if it is recorded and its weights are on another machine.
    processes: those that train each run together, of which this one is rank 0 and the others `follow`, see joint.py.
    """
    if profile != SHIPPED:
        check_profile(profile)
    store = reports_root() / profile / "runs"
    not_measured: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for label, group in experiments.items():
        try:
            keys[label] = [run_key(e) for e in group]
        except BackboneUnavailable as reason:
            not_measured[label], keys[label] = str(reason), []
    distinct: dict[str, tuple[str, Experiment]] = {}
    for label, group in experiments.items():
        for key, e in zip(keys[label], group, strict=label not in not_measured):
            distinct[key] = (label, e)
    records = {key: None if retrain else load_record(store, key, e) for key, (_, e) in distinct.items()}
    missing = _in_order(distinct, [key for key, record in records.items() if record is None])
    trained: set[str] = set()
    for number, key in enumerate(missing, start=1):
        label, e = distinct[key]
        lock = cache_root() / "locks" / f"{key}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            # another process may have made the record, or the weights that others start from, while this one waited
            afresh = retrain or (records[key] is not None and not checkpoint_path(key).is_file())
            record = None if afresh else load_record(store, key, e)
            if record is None:
                name = f"run {number} of {len(missing)}: {label}, seed {e.seed}"
                try:
                    record = _make_record(e, key, pick_device(device), name, progress, retrain, processes)
                except BackboneUnavailable as reason:
                    not_measured |= {label: str(reason) for label, group in keys.items() if key in group}
                    continue
                save_record(store, key, record)
                trained.add(key)
        records[key] = record
    runs = {key: Run(key, record) for key, record in records.items() if record is not None}
    by_label = {label: [] if label in not_measured else [runs[key] for key in group] for label, group in keys.items()}
    return Runs(profile, by_label, trained, not_measured)


def _in_order(distinct: Mapping[str, tuple[str, Experiment]], missing: Sequence[str]) -> list[str]:
    """The keys of the runs to train: what others start from first, again where its weights are on another machine."""
    ordered: list[str] = []

    def put(key: str) -> None:
        start = distinct[key][1].training.start
        if start in distinct and start not in ordered and (start in missing or not checkpoint_path(start).is_file()):
            put(start)
        if key not in ordered:
            ordered.append(key)

    for key in missing:
        put(key)
    return ordered


def checkpoint_path(key: str) -> Path:
    """Where the checkpoint of a run lies, in the cache."""
    return cache_root() / "checkpoints" / f"{key}.ckpt"


def _make_record(
    e: Experiment,
    key: str,
    device: torch.device,
    label: str,
    progress: bool,
    afresh: bool,
    processes: Processes | None,
) -> dict[str, Any]:
    processes = processes or Processes(device=device)
    checkpoint = checkpoint_path(key)
    if afresh:
        checkpoint.unlink(missing_ok=True)
    started, scale = datetime.now(UTC), e.data.scale
    # before the training: an image or a file of weights that cannot be used is told at once
    bicubic = {set_label(name): bicubic_baseline(name, scale, e.data.lpips).to_json() for name in e.data.evaluation}
    start = start_weights(e)
    # First, as an image that cannot be measured must not be found out after days of training.
    bicubic = {set_label(name): bicubic_baseline(name, scale, e.data.lpips).to_json() for name in e.data.evaluation}
    with threads_for(parameters(build_model(e))) as threads:
        announce(processes, e)
        trained = train(
            e,
            device=device,
            checkpoint=checkpoint,
            start=start,
            validate=lambda model: evaluate(model, e.data.evaluation[0], scale=scale, device=device).mean_psnr(),
            label=label,
            progress=progress,
            processes=processes,
        )
    evaluation = {
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
        "provenance": provenance(device, threads, processes.world_size),
    }


@lru_cache(maxsize=32)
def bicubic_baseline(image_set: str, scale: int, lpips: bool) -> Evaluation:
    """Figures of bicubic upscaling, measured once a process."""
    return evaluate_bicubic(image_set, scale=scale, lpips=lpips)


def start_weights(e: Experiment) -> dict[str, torch.Tensor] | None:
    """The weights of the run that training.start names, from its checkpoint; None where it names none.

    Raises FileNotFoundError without a checkpoint.
    """
    if not e.training.start:
        return None
    path = checkpoint_path(e.training.start)
    if state := load_checkpoint(path):
        return state["model"]
    raise FileNotFoundError(
        f"run {e.training.start}, from whose weights this one starts, has no checkpoint {path} that can be used: "
        "remove that file if it is there, and train it first"
    )


def trained_model(experiment: Experiment) -> torch.nn.Module:
    """The network of a run, in evaluation mode, from its checkpoint in the cache.

    Raises FileNotFoundError if it was trained elsewhere.
    """
    path = checkpoint_path(run_key(experiment))
    state = load_checkpoint(path)
    if state is None or state["step"] < experiment.training.steps:
        raise FileNotFoundError(f"no weights of this run in {path}; train it here with retrain=True")
    model = build_model(experiment)
    model.load_state_dict(state["model"])
    return model.eval()


def load_record(store: Path, key: str, experiment: Experiment) -> dict[str, Any] | None:
    """The valid record of a run; None if there is none, with a warning if there is a damaged or a foreign one."""
    path = store / f"{key}.json"
    if not path.is_file():
        return None
    try:
        record = read_record(path)
    except DamagedRecord as error:
        warnings.warn(f"{error}; the run is trained again", stacklevel=2)
        return None
    settings, paper = settings_of(experiment), settings_of(Experiment())
    recorded = {name: record["settings"].get(name, paper[name]) for name in settings}
    if recorded != settings:
        differing = ", ".join(name for name in settings if recorded[name] != settings[name])
        warnings.warn(f"{path} was made with another {differing}; the run is trained again", stacklevel=2)
        return None
    return record
