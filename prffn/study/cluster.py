"""Missing runs trained on the workers of a dask scheduler: one task for each run.

All machines share the folders of the records and the cache, under the same paths, and run the same prffn and torch. A
worker calls what a process without a scheduler calls, with the same lock, record and checkpoint of each run. dask says
where and when: a run waits for the one from whose weights it starts, and when its worker dies it moves to another one,
where it resumes from its checkpoint.
"""

import contextlib
import dataclasses
import logging
import os
import queue
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prffn.data.images import is_named, sets_in
from prffn.files import cache_root, digest, from_extra, user_path, whole_number
from prffn.losses.vgg import BackboneUnavailable
from prffn.study.keys import checkpoint_path, run_key
from prffn.study.runs import Outcome, Wanted
from prffn.study.worker import GPU, Place, fitness, train_run
from prffn.training.device import pick_device
from prffn.training.loop import progress_bar

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 10.0  # seconds without a finished run after which a client looks whether there is a worker at all
ADDRESS = re.compile(r"((tcp|tls|ucx|ucxx|ws|wss)://)?(\[[\w.:%]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)


class RunKillsWorkers(RuntimeError):
    """A run has ended one worker after another; the message says how often, and the way out."""


def check_address(address: object) -> None:
    """Raises TypeError or ValueError if this is not the address of a scheduler, such as "tcp://host:8786"."""
    form = 'the address of a dask scheduler, such as "tcp://host:8786", which it prints when it starts'
    if not isinstance(address, str):
        raise TypeError(f"scheduler must be None or {form}; got {address!r}")
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"scheduler must be {form}; got {address!r}")


def _distributed() -> Any:
    """The package. Raises ImportError with the way to install it."""
    with from_extra("cluster"):
        import distributed
    return distributed


@contextlib.contextmanager
def local_workers(count: int, device: str = "auto") -> Iterator[str]:
    """A scheduler and `count` workers on this machine while the context lasts; gives its address.

    On CUDA each worker has a GPU of its own, on the CPU its share of the threads that one training would have here.
    Raises ValueError if there are fewer GPUs.
    """
    whole_number("the number of workers", count, 1)
    distributed = _distributed()
    import dask

    kind = pick_device(device).type
    common = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = {
        **common, "nthreads": 1, "memory_limit": 0, "resources": {} if kind == "cpu" else {GPU: 1},
        "silence_logs": logging.WARNING,
    }  # fmt: skip
    workers = {
        number: {"cls": distributed.Nanny, "options": {**options, "env": environment}}
        for number, environment in enumerate(_environments(count, kind))
    }
    scheduler = {"cls": distributed.Scheduler, "options": {**common, "port": 0}}
    # a nanny would set OMP_NUM_THREADS and others in this process too, and the kernels of notebooks inherit them
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        distributed.SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.WARNING) as cluster,
    ):
        yield cluster.scheduler_address


def _environments(count: int, kind: str) -> list[dict[str, str]]:
    """The environment variables of each worker of this machine. Raises ValueError if there are fewer GPUs."""
    environments = [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))} for _ in range(count)]
    if kind == "cpu":
        return environments
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = visible.split(",") if kind == "cuda" else ["0"]
    if count > len(gpus):
        raise ValueError(f"{count} workers need as many GPUs, and there are {len(gpus)} here; or use device cpu")
    return [{**each, "CUDA_VISIBLE_DEVICES": gpu} for each, gpu in zip(environments, gpus, strict=False)]


def train_on(
    scheduler: str, wanted: Mapping[str, Wanted], store: Path, *, device: str, progress: bool
) -> Iterator[tuple[str, Outcome | BackboneUnavailable]]:
    """Yields the key of each run with what has become of it, as the workers finish them; see `ensure`.

    wanted: by key, a run after the one that it starts from. A run that stops with an error lets the others finish; then
    the first error is raised. Raises ImportError without distributed, ConnectionError if the scheduler does not answer
    or is lost, ValueError if a worker does not see the same folders or runs other code, RunKillsWorkers.
    """
    for run in wanted.values():
        _check_image_sets(run)
    errors: dict[str, Exception] = {}
    with _connected(scheduler) as client, _shared(store, cache_root()) as marks:
        assert client.scheduler is not None
        address = str(client.scheduler.address)
        try:
            place = _checked(client, address, Place.here(store, device), marks)
            yield from _outcomes(client, wanted, place, errors, progress)
        except (CancelledError, _distributed().comm.CommClosedError, TimeoutError) as error:
            lost = f"the scheduler at {address} is lost, or it has dropped the runs"
            raise ConnectionError(f"{lost}; work is kept in {store} and {cache_root()}: run the same again") from error
    if errors:
        (key, first), *others = errors.items()
        first.add_note(f"in {wanted[key].name} ({key})")
        for key, failure in others:
            first.add_note(f"also in {wanted[key].name} ({key}): {type(failure).__name__}: {failure}")
        raise first


def _outcomes(
    client: "Client", wanted: Mapping[str, Wanted], place: Place, errors: dict[str, Exception], progress: bool
) -> Iterator[tuple[str, Outcome | BackboneUnavailable]]:
    """Submits the runs and yields what has become of them; the errors of those that fail go into `errors`."""
    tasks: dict[str, Any] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    bar = progress_bar(total=len(wanted), desc="trainings", unit="run", disable=not progress, leave=False)
    try:
        for key, run in wanted.items():
            if run.retrain:  # here, not by the task: that resumes from the checkpoint of a worker that died
                checkpoint_path(key).unlink(missing_ok=True)
            start = run_key(run.experiment.start) if run.experiment.start else ""
            shared = digest([repr(place), run.retrain, run.need_weights])[:8]  # one task for all clients that want it
            tasks[key] = client.submit(
                train_run, key, dataclasses.replace(run, name=key), place, tasks.get(start),
                key=f"prffn-{key}-{shared}", resources={GPU: 1} if place.on_gpu else None,
            )  # fmt: skip
            tasks[key].add_done_callback(lambda _, key=key: ended.put(key))
        while tasks:
            try:
                key = ended.get(timeout=PATIENCE)
            except queue.Empty:
                if not client.nthreads():
                    warnings.warn("the scheduler has no workers: the runs wait for one", stacklevel=2)
                continue
            outcome = _settled(key, wanted[key].name, tasks.pop(key), errors, others=bool(tasks))
            bar.update()
            if outcome is not None:
                yield key, outcome
    finally:
        bar.close()
        for task in tasks.values():  # what still runs stops, its checkpoint stays
            with contextlib.suppress(Exception):  # the scheduler may be lost
                task.release()


def _settled(
    key: str, name: str, task: Any, errors: dict[str, Exception], others: bool
) -> Outcome | BackboneUnavailable | None:
    """What has become of a run whose task has ended; None if it has failed."""
    try:
        outcome, said = task.result()
        for message in said:
            warnings.warn(f"{name}: {message}", stacklevel=2)
        return outcome
    except BackboneUnavailable as reason:
        return reason
    except _distributed().KilledWorker as killed:
        ended = f"{killed.allowed_failures + 1} workers ended as they trained it, the last {killed.last_worker.address}"
        way_out = "see its log, give workers more memory or --memory-limit 0, and run this again, which resumes"
        errors[key] = RunKillsWorkers(f"{name} ({key}): {ended}: {way_out}")
    except CancelledError:  # of the client, not of the run
        raise
    except Exception as error:
        errors[key] = error
    if others:
        warnings.warn(f"{name} failed, others go on: {type(errors[key]).__name__}: {errors[key]}", stacklevel=2)
    return None


def _check_image_sets(run: Wanted) -> None:
    """Raises ValueError for a folder of images by a relative path: a worker would look for it in its own folder."""
    data = run.experiment.data
    for name in (part for joined in (data.train, *data.evaluation) for part in sets_in(joined)):
        if not is_named(name) and not user_path(name).is_absolute():
            raise ValueError(f"the folder of images {name!r} must be an absolute path where dask workers train")


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator["Client"]:
    """A client of the scheduler."""
    distributed = _distributed()
    check_address(scheduler)
    try:
        client = distributed.Client(scheduler, set_as_default=False)
    except OSError as error:
        start = f"start `dask scheduler`, and workers with `dask worker {scheduler} --nthreads 1`"
        raise ConnectionError(f"no dask scheduler answers at {scheduler} ({error}): {start}") from error
    try:
        yield client
    finally:
        with distributed.utils.silence_logging_cmgr(logging.CRITICAL, root="distributed.client"):
            client.close()  # would log that the scheduler is lost, which an error says already


@contextlib.contextmanager
def _shared(*folders: Path) -> Iterator[tuple[str, ...]]:
    """An empty file in each folder while the context lasts: a worker that sees them sees these very folders."""
    name = f".shared-{uuid.uuid4().hex}"
    marks = [folder.absolute() / name for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield tuple(map(str, marks))
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _checked(client: "Client", address: str, place: Place, marks: tuple[str, ...]) -> Place:
    """The place, on GPUs or not, when all workers that would get runs have said that they can train there.

    Waits for a first worker where there is none. Raises ValueError naming a worker that cannot.
    """
    if not client.nthreads():
        warnings.warn(f"the scheduler at {address} has no workers yet: waiting for the first", stacklevel=2)
        client.submit(int, pure=False).result()  # some clusters start workers only for tasks
    found: dict[str, tuple[str, float, int]] = {}
    for worker, answer in client.run(fitness, place, marks, on_error="return").items():
        if isinstance(answer, tuple):
            found[worker] = answer
        elif not isinstance(answer, OSError):  # else it is dying
            found[worker] = (f"cannot run prffn ({type(answer).__name__}: {answer})", 0, 1)
    any_gpu = any(gpus for _, gpus, _ in found.values())
    on_gpu = any_gpu if place.device == "auto" else place.device != "cpu"
    if on_gpu and not any_gpu:
        start = f'start one for each GPU, with `dask worker {address} --resources "{GPU}=1" --nthreads 1`'
        raise ValueError(f"no worker of {address} has the resource {GPU}: {start}, or train on device cpu")
    for worker, (refusal, gpus, threads) in found.items():
        if on_gpu and gpus > 1:
            refusal = refusal or f'has the resource "{GPU}={gpus:g}": start one worker for each GPU, with "{GPU}=1"'
        if not on_gpu and threads != 1:
            refusal = refusal or f"runs {threads} tasks at once: start one worker for each training, with --nthreads 1"
        if refusal and (gpus or not on_gpu):  # else it gets no runs
            raise ValueError(f"the worker at {worker} {refusal}")
    return dataclasses.replace(place, on_gpu=on_gpu)
