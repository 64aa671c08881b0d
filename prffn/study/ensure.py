"""The runs of a table: recorded ones are loaded, the others trained, here or on the workers of a scheduler."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prffn.config import SHIPPED, Experiment, check_profile
from prffn.files import reports_root
from prffn.losses.vgg import BackboneUnavailable
from prffn.study.keys import run_key
from prffn.study.runs import Outcome, Run, Runs, Wanted, has_weights, load_record, record_run
from prffn.study.side_by_side import room_for, train_side_by_side
from prffn.study.store import Record
from prffn.training.device import pick_device
from prffn.training.parallel import Processes


def ensure(
    experiments: Mapping[str, Sequence[Experiment]],
    profile: str,
    *,
    device: str = "auto",
    retrain: bool = False,
    progress: bool = True,
    processes: Processes | None = None,
    scheduler: str | None = None,
    workers: int | None = 1,
) -> Runs:
    """The runs of all experiments: recorded ones are loaded, the others trained, measured and recorded.

    A run from whose weights others start is trained before them. An experiment whose loss needs a backbone that is
    missing has no runs, and is said to be not measured. A damaged record is never used: it is reported and the run
    trained again. Two processes that need the same run train it once; a killed run resumes from its checkpoint.
    retrain: train all of them again. processes: those that train each run together, of which this one is rank 0 and the
    others `follow`, see joint.py. scheduler: the address of dask's: its workers train the runs, side by side, on
    their own `device` (cluster.py). workers: without a scheduler, how many runs are trained side by side,
    in processes of their own (side_by_side.py); 1: in this one, in turn; None: as many as have cores.
    A script that asks for several begins with `if __name__ == "__main__":`, since each process imports it.
    """
    if scheduler is not None and processes is not None:
        raise ValueError("a run is trained by the workers of a scheduler or by several processes: give one of the two")
    if profile != SHIPPED:
        check_profile(profile)
    if scheduler is None:
        pick_device(device)  # one that cannot be used is told, even where all is recorded
    store = reports_root() / profile / "runs"
    not_measured: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for label, group in experiments.items():
        try:
            keys[label] = [run_key(e) for e in group]
        except BackboneUnavailable as reason:
            not_measured[label], keys[label] = str(reason), []
    asked = {
        key: (label, e)
        for label, group in experiments.items()
        for key, e in zip(keys[label], group, strict=label not in not_measured)
    }
    records = {key: None if retrain else load_record(store, key, e) for key, (_, e) in asked.items()}
    trained: set[str] = set()
    while missing := [key for key in asked if _is_missing(key, asked[key], records, not_measured)]:
        wanted = _in_order(asked, missing, records, store, retrain and not trained)
        for key, outcome in _train(wanted, store, device, progress, scheduler, processes, workers):
            if isinstance(outcome, BackboneUnavailable):
                not_measured |= {label: str(outcome) for label, group in keys.items() if key in group}
            elif key in asked:
                records[key] = outcome.record
                trained |= {key} if outcome.made_now else set()
    runs = {key: Run(key, record) for key, record in records.items() if record is not None}
    by_label = {label: [] if label in not_measured else [runs[key] for key in group] for label, group in keys.items()}
    in_order = {label: not_measured[label] for label in by_label if label in not_measured}  # not as workers say it
    return Runs(profile, by_label, trained, in_order)


def _is_missing(
    key: str, asked: tuple[str, Experiment], records: Mapping[str, Record | None], not_measured: Mapping[str, str]
) -> bool:
    """Whether a run is to be trained: it has no record, or started from other weights than its start has meanwhile."""
    label, e = asked
    if label in not_measured:
        return False
    record = records[key]
    start = records.get(run_key(e.start)) if record and e.start else None
    return record is None or (start is not None and record.get("start_sha256") != start["weights_sha256"])


def _in_order(
    asked: Mapping[str, tuple[str, Experiment]],
    missing: Sequence[str],
    records: Mapping[str, Record | None],
    store: Path,
    retrain: bool,
) -> dict[str, Wanted]:
    """The runs to train: what others start from first, even if it was not asked for or only its weights are missing."""
    wanted: dict[str, tuple[str, Experiment, bool]] = {}

    def put(key: str, label: str, e: Experiment, need_weights: bool) -> None:
        if e.start is not None and (start := run_key(e.start)) not in wanted:
            record = records[start] if start in records else load_record(store, start, e.start)
            if start in missing or not has_weights(start, e.start, record):
                put(start, asked[start][0] if start in asked else f"start of {label}", e.start, True)
        before = wanted.pop(key, None)
        wanted[key] = (label, e, need_weights or bool(before and before[2]))

    for key in missing:
        if key not in wanted:
            put(key, *asked[key], need_weights=False)
    starts = {run_key(e.start) for _, e, _ in wanted.values() if e.start}
    return {
        key: Wanted(
            experiment=e,
            name=f"run {number} of {len(wanted)}: {label}, seed {e.seed}",
            retrain=retrain and key in asked,
            need_weights=needed or key in starts,
        )
        for number, (key, (label, e, needed)) in enumerate(wanted.items(), start=1)
    }


def _train(
    wanted: Mapping[str, Wanted],
    store: Path,
    device: str,
    progress: bool,
    scheduler: str | None,
    processes: Processes | None,
    workers: int | None,
) -> Iterable[tuple[str, Outcome | BackboneUnavailable]]:
    """Yields the key of each run with what has become of it, once that is known."""
    if scheduler is not None:
        from prffn.study.cluster import train_on  # distributed is an extra

        yield from train_on(scheduler, wanted, store, device=device, progress=progress)
        return
    picked = pick_device(device)
    if workers != 1 and (processes is None or processes.world_size == 1):
        count = room_for(wanted, picked) if workers is None else min(workers, len(wanted))
        if count > 1:
            yield from train_side_by_side(wanted, store, picked, count, progress)
            return
    for key, run in wanted.items():
        yield key, record_run(key, run, store, picked, run.retrain, progress=progress, processes=processes)


def recorded_runs(experiments: Mapping[str, Sequence[Experiment]], profile: str) -> Runs | None:
    """The runs of all experiments from their records; None if any is missing. Nothing is trained."""
    store = reports_root() / profile / "runs"
    found: dict[str, list[Run]] = {label: [] for label in experiments}
    for label, group in experiments.items():
        for e in group:
            if (record := load_record(store, key := run_key(e), e)) is None:
                return None
            found[label].append(Run(key, record))
    return Runs(profile, found, set())
