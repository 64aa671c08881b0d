"""The run store: an experiment in, its record out. Only what has no valid record is trained.

A record is one JSON file, reports/<profile>/runs/<key>.json. Its key is a hash of the settings that have an effect,
of the images' checksums and of PROTOCOL; it carries a checksum of its own content.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock

from prffn.config import PROFILES, SHIPPED, Experiment, check_profile, experiment, fields_of, setting
from prffn.data.images import set_checksum, set_label
from prffn.evaluation.metrics import Evaluation, evaluate, evaluate_bicubic
from prffn.files import DamagedRecord, cache_root, digest, read_record, reports_root, save_record, weights_sha256
from prffn.losses.vgg import BackboneUnavailable, backbone_sha256
from prffn.models.complexity import multi_adds, parameters
from prffn.study.joint import announce
from prffn.training.device import pick_device, provenance, threads_for
from prffn.training.loop import build_model, load_checkpoint, train
from prffn.training.parallel import Processes

if TYPE_CHECKING:
    from distributed import Client

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
    """The sets on which the runs were evaluated, in their order; where no run was measured, those of the profile."""
    for run in runs.all().values():
        return list(run.record["evaluation"])
    return [set_label(name) for name in experiment(PROFILES[runs.profile]).data.evaluation]


def ensure(
    experiments: Mapping[str, Sequence[Experiment]],
    profile: str,
    *,
    device: str = "auto",
    retrain: bool = False,
    progress: bool = True,
    processes: Processes | None = None,
    scheduler: "str | Client | None" = None,
) -> Runs:
    """The runs of all experiments: recorded ones are loaded, the others trained, measured and recorded.

    An experiment whose loss needs a backbone that is not at hand has no runs, and is said to be not measured.
    retrain: train all of them afresh. A damaged record is never used: it is reported and trained again. Two
    processes that need the same run train it once; a killed run goes on from its checkpoint. A run from whose weights
    others start is trained before them, and again if it is recorded and its weights are on another machine.
    processes: those that train each run together, of which this one is rank 0 and the others `follow`, see joint.py.
    scheduler: of dask, its address or a client of it: its workers train the runs, side by side, on their own `device`
    (prffn/study/cluster.py). None: this process does, one after the other.
    """
    if scheduler is not None and processes is not None:
        raise ValueError("a run is trained by the workers of a scheduler or by several processes: give one of the two")
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
    starts = {distinct[key][1].training.start for key in missing}
    wanted: dict[str, Wanted] = {}
    for number, key in enumerate(missing, start=1):
        label, e = distinct[key]
        name = f"run {number} of {len(missing)}: {label}, seed {e.seed}"
        wanted[key] = Wanted(experiment=e, name=name, retrain=retrain, need_weights=key in starts)
    trained: set[str] = set()
    for key, outcome in _train(wanted, store, device, progress, scheduler, processes):
        if isinstance(outcome, BackboneUnavailable):
            not_measured |= {label: str(outcome) for label, group in keys.items() if key in group}
            continue
        records[key] = outcome.record
        if outcome.made_now:
            trained.add(key)
    runs = {key: Run(key, record) for key, record in records.items() if record is not None}
    by_label = {label: [] if label in not_measured else [runs[key] for key in group] for label, group in keys.items()}
    in_order = {label: not_measured[label] for label in by_label if label in not_measured}  # not as workers say it
    return Runs(profile, by_label, trained, in_order)


def _in_order(distinct: Mapping[str, tuple[str, Experiment]], missing: Sequence[str]) -> list[str]:
    """The keys of the runs to train: what others start from first, again where its weights are on another machine."""
    ordered: list[str] = []

    def put(key: str) -> None:
        start = distinct[key][1].training.start
        new = start in distinct and start not in ordered
        if new and (start in missing or not has_weights(start, distinct[start][1])):
            put(start)
        if key not in ordered:
            ordered.append(key)

    for key in missing:
        put(key)
    return ordered


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run to train, if nobody has meanwhile."""

    experiment: Experiment
    name: str
    """What its bar says."""
    retrain: bool
    """Even where there is a record."""
    need_weights: bool
    """Other runs start from its weights: a record without them is not enough."""


@dataclass(frozen=True)
class Outcome:
    """The record of a run that was wanted, and whether it was made for this call, or had been made meanwhile."""

    record: dict[str, Any]
    made_now: bool


def _train(
    wanted: Mapping[str, Wanted],
    store: Path,
    device: str,
    progress: bool,
    scheduler: "str | Client | None",
    processes: Processes | None,
) -> Iterable[tuple[str, Outcome | BackboneUnavailable]]:
    """Yields the key of each run with what has become of it, once that is known."""
    if scheduler is not None and wanted:
        from prffn.study.cluster import train_on  # distributed is an extra

        yield from train_on(scheduler, wanted, store, device=device, progress=progress)
        return
    for key, run in wanted.items():
        try:
            picked, afresh = pick_device(device), run.retrain
            yield key, record_run(key, run, store, picked, afresh=afresh, progress=progress, processes=processes)
        except BackboneUnavailable as reason:
            yield key, reason


def record_run(
    key: str,
    wanted: Wanted,
    store: Path,
    device: torch.device,
    *,
    afresh: bool = False,
    progress: bool = False,
    on_step: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> Outcome:
    """Trains, measures and records a run under its lock, unless another process has done so meanwhile.

    afresh: not from its checkpoint. on_step, processes: see `train`. Raises BackboneUnavailable and what `train` does.
    """
    e = wanted.experiment
    lock = cache_root() / "locks" / f"{key}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        # another process may have made the record, or the weights that others start from, while this one waited
        redo = wanted.retrain or (wanted.need_weights and not has_weights(key, e))
        record = None if redo else load_record(store, key, e)
        if record is not None:
            return Outcome(record, made_now=False)
        record = _make_record(e, key, device, wanted.name, progress, afresh, processes, on_step)
        save_record(store, key, record)
    return Outcome(record, made_now=True)


def checkpoint_path(key: str) -> Path:
    """Where the checkpoint of a run lies, in the cache."""
    return cache_root() / "checkpoints" / f"{key}.ckpt"


def has_weights(key: str, e: Experiment) -> bool:
    """Whether the trained weights of a run are in the cache."""
    return _trained_state(key, e) is not None


def _trained_state(key: str, e: Experiment) -> dict[str, Any] | None:
    """The checkpoint of a run that has been trained to its end; None if there is none in the cache."""
    state = load_checkpoint(checkpoint_path(key))
    return state if state is not None and state["step"] >= e.training.steps else None


def _make_record(
    e: Experiment,
    key: str,
    device: torch.device,
    label: str,
    progress: bool,
    afresh: bool,
    processes: Processes | None = None,
    on_step: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    processes = processes or Processes(device=device)
    checkpoint = checkpoint_path(key)
    if afresh:
        checkpoint.unlink(missing_ok=True)
    started, scale = datetime.now(UTC), e.data.scale
    # before the training: an image or a file of weights that cannot be used is told at once, not after days
    bicubic = {set_label(name): bicubic_baseline(name, scale, e.data.lpips).to_json() for name in e.data.evaluation}
    start = start_weights(e)
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
            on_step=on_step,
            processes=processes,
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
        "provenance": provenance(device, threads, processes.world_size),
    }


@lru_cache(maxsize=32)
def bicubic_baseline(image_set: str, scale: int, lpips: bool) -> Evaluation:
    """Figures of bicubic upscaling, measured once a process."""
    return evaluate_bicubic(image_set, scale=scale, lpips=lpips)


def start_weights(e: Experiment) -> dict[str, torch.Tensor] | None:
    """The weights of the run that training.start names, from its checkpoint; None where it names none.

    Raises FileNotFoundError without a checkpoint, or with one of a training that has not come to its end.
    """
    if not e.training.start:
        return None
    path = checkpoint_path(e.training.start)
    if state := load_checkpoint(path):
        step = state["step"]
        if step >= (steps := state.get("steps", step)):  # older ones do not say how many there will be
            return state["model"]
        raise FileNotFoundError(
            f"run {e.training.start}, from whose weights this one starts, has been trained for {step} of its {steps} "
            "steps only: train it to its end first"
        )
    raise FileNotFoundError(
        f"run {e.training.start}, from whose weights this one starts, has no checkpoint {path} that can be used: "
        "remove that file if it is there, and train it first"
    )


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
