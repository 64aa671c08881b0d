"""Training the missing runs of `runs.ensure` on the workers of a dask scheduler, one task for each run.

All machines share the folders of the records and the cache, under the same paths. A worker calls what a process without
a scheduler calls, with the same lock, record and checkpoint of each run. What dask adds is where and when.
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

from prffn.data.images import EMBEDDED_SETS, KNOWN_SETS
from prffn.files import cache_root, digest, user_path
from prffn.losses.vgg import BackboneUnavailable
from prffn.study.runs import Outcome, Wanted, checkpoint_path
from prffn.study.worker import GPU, Asked, Fitness, Place, fitness, train_run
from prffn.training.device import pick_device
from prffn.training.loop import load_checkpoint, progress_bar

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 10.0
"""Seconds without any message after which a client looks whether there is a worker at all."""

ADDRESS = re.compile(r"((tcp|tls|ucx|ucxx|ws|wss)://)?(\[[\w.:%]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)


class RunKillsWorkers(RuntimeError):
    """A run has ended one worker after another and got no further; the message says how often, and the way out."""


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
    try:
        import distributed
    except ImportError as error:
        message = f'training on dask workers needs the package distributed: pip install "prffn[cluster]" ({error})'
        raise ImportError(message) from error
    return distributed


@contextlib.contextmanager
def local_workers(count: int, device: str = "auto") -> Iterator[str]:
    """A scheduler and so many workers on this machine while the context lasts; gives its address.

    On CUDA each worker has a GPU of its own, on the CPU its share of the threads that one training would have here.
    Raises ValueError if there are not so many GPUs.
    """
    if count < 1:
        raise ValueError(f"the number of workers must be a whole number from 1 on, got {count}")
    distributed = _distributed()
    import dask

    kind = pick_device(device).type
    environments = _environments(count, kind)
    resources = {} if kind == "cpu" else {GPU: 1}
    common = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    quiet = logging.WARNING
    options = {**common, "nthreads": 1, "memory_limit": 0, "resources": resources, "silence_logs": quiet}
    with (
        # else a nanny sets OMP_NUM_THREADS and others in this process too, and the kernels of notebooks inherit them
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        distributed.SpecCluster(
            scheduler={"cls": distributed.Scheduler, "options": {**common, "port": 0}},
            workers={
                number: {"cls": distributed.Nanny, "options": {**options, "env": environment}}
                for number, environment in enumerate(environments)
            },
            silence_logs=quiet,
        ) as cluster,
    ):
        yield cluster.scheduler_address


def _environments(count: int, kind: str) -> list[dict[str, str]]:
    """The environment variables of each worker of this machine. Raises ValueError if there are not so many GPUs."""
    environments = [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))} for _ in range(count)]
    if kind == "cpu":
        return environments
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = visible.split(",") if kind == "cuda" else ["0"]
    if count > len(gpus):
        raise ValueError(f"{count} workers need as many GPUs, and there are {len(gpus)} here; or use device cpu")
    return [{**each, "CUDA_VISIBLE_DEVICES": gpu} for each, gpu in zip(environments, gpus, strict=False)]


def train_on(
    scheduler: "str | Client", wanted: Mapping[str, Wanted], store: Path, *, device: str, progress: bool
) -> Iterator[tuple[str, Outcome | BackboneUnavailable]]:
    """Yields the key of each run with what has become of it, as the workers finish them; see `runs.ensure`.

    A run that starts from the weights of another one of them waits for it. A run that stops with an error lets the
    others finish; then the first error is raised. Raises ImportError without distributed, ConnectionError if the
    scheduler does not answer or is lost, ValueError if a worker does not see the same folders or runs other code,
    RunKillsWorkers.
    """
    for run in wanted.values():
        _check_image_sets(run)
    errors: dict[str, Exception] = {}
    with _connected(scheduler) as client, _shared(store, cache_root()) as marks:
        assert client.scheduler is not None
        address = str(client.scheduler.address)
        asked = Asked.here(marks)
        try:
            on_gpu, known = _check_workers(client, address, asked, device)
            place = Place.here(store, device, on_gpu)
            campaign = _Campaign(client, address, wanted, place, asked, known, progress)
            with contextlib.closing(campaign):
                yield from campaign.outcomes(errors)
        except (CancelledError, _distributed().comm.CommClosedError, TimeoutError) as error:
            raise ConnectionError(
                f"the scheduler at {address} is lost, or it has dropped the runs. What was recorded, and the last "
                f"checkpoint of each run, are kept in {store} and {cache_root()}: run this again"
            ) from error
    if errors:
        (key, first), *others = errors.items()
        first.add_note(f"in {wanted[key].name} ({key})")
        for key, failure in others:
            first.add_note(f"also in {wanted[key].name} ({key}): {type(failure).__name__}: {failure}")
        raise first


def _check_image_sets(run: Wanted) -> None:
    """Raises ValueError for a folder of images by a relative path: a worker would look for it in its own folder."""
    for name in (run.experiment.data.train, *run.experiment.data.evaluation):
        if name not in KNOWN_SETS and name not in EMBEDDED_SETS and not user_path(name).is_absolute():
            raise ValueError(f"the folder of images {name!r} must be an absolute path where dask workers train")


@contextlib.contextmanager
def _connected(scheduler: "str | Client") -> Iterator["Client"]:
    """A client of the scheduler; one that was given stays open."""
    distributed = _distributed()
    if isinstance(scheduler, distributed.Client):
        if scheduler.asynchronous:
            raise TypeError("scheduler must be a synchronous client: Client(address), without asynchronous=True")
        yield scheduler
        return
    check_address(scheduler)
    try:
        client = distributed.Client(scheduler, set_as_default=False)
    except OSError as error:
        raise ConnectionError(
            f"no dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler`, and workers with "
            f"`dask worker {scheduler} --nthreads 1`, or train without a scheduler"
        ) from error
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


def _check_workers(client: "Client", address: str, asked: Asked, device: str) -> tuple[bool, set[str]]:
    """Asks all workers whether they can train for this process; gives whether on GPUs, and their addresses.

    Waits for a first worker where there is none. Raises ValueError naming a worker that cannot.
    """
    if not client.nthreads():
        warnings.warn(f"the scheduler at {address} has no workers yet: waiting for the first", stacklevel=2)
        client.submit(int, pure=False).result()  # some clusters start workers only for tasks
    found = _ask(client, asked)
    on_gpu = device not in ("auto", "cpu")
    if device == "auto":
        on_gpu = any(worker.gpus or worker.device != "cpu" for worker in found.values())
    _refuse(found, on_gpu)
    if on_gpu and not any(worker.gpus for worker in found.values()):
        raise ValueError(
            f"no worker of {address} has the resource {GPU}: start one for each GPU, with `dask worker {address} "
            f'--resources "{GPU}=1" --nthreads 1`, or train on device cpu'
        )
    return on_gpu, set(found)


def _ask(client: "Client", asked: Asked, workers: list[str] | None = None) -> dict[str, Fitness]:
    """What workers say of themselves, by address; those that are dying are left out."""
    found = {}
    for address, answer in client.run(fitness, asked, workers=workers, on_error="return").items():
        if isinstance(answer, Fitness):
            found[address] = answer
        elif not isinstance(answer, OSError):
            found[address] = Fitness(f"cannot run prffn ({type(answer).__name__}: {answer})")
    return found


def _refuse(found: Mapping[str, Fitness], on_gpu: bool) -> None:
    """Raises ValueError naming the first worker that would get runs and cannot train them."""
    for address, worker in found.items():
        refusal = worker.refusal
        if not refusal and on_gpu and worker.gpus not in (0, 1):
            refusal = f'has the resource "{GPU}={worker.gpus:g}": start one worker for each GPU, with "{GPU}=1"'
        if not refusal and on_gpu and worker.gpus and worker.device == "cpu":
            refusal = f"has the resource {GPU}, and PyTorch finds no GPU there"
        if not refusal and not on_gpu and worker.threads != 1:
            refusal = f"runs {worker.threads} tasks at once: start one worker for each training, with --nthreads 1"
        if refusal and (worker.gpus or not on_gpu):
            raise ValueError(f"the worker at {address} {refusal}")


class _Campaign:
    """The runs of one call: submitted, watched, and submitted again where their workers died."""

    def __init__(
        self,
        client: "Client",
        address: str,
        wanted: Mapping[str, Wanted],
        place: Place,
        asked: Asked,
        known: set[str],
        progress: bool,
    ) -> None:
        self.client, self.address, self.wanted = client, address, wanted
        self.place, self.asked, self.known, self.progress = place, asked, known, progress
        self.news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        """Key and message of a running training, or key and future of a task that has ended."""
        self.waiting = dict(wanted)
        self.tasks: dict[str, Future] = {}
        self.saved: dict[str, int] = {}
        """The step in the checkpoint of each run when it was submitted."""
        self.attempt = dict.fromkeys(wanted, 1)
        self.bars: dict[str, Any] = {}

    def outcomes(self, errors: dict[str, Exception]) -> Iterator[tuple[str, Outcome | BackboneUnavailable]]:
        """Yields what has become of the runs; the errors of those that fail go into `errors`."""
        for key, run in self.wanted.items():
            if run.retrain:  # once, and not by the task: it goes on from the checkpoint of a worker that died
                checkpoint_path(key).unlink(missing_ok=True)
        self._submit(errors)
        while self.tasks:
            try:
                key, item = self.news.get(timeout=PATIENCE)
            except queue.Empty:
                if not self.client.nthreads():
                    warnings.warn(
                        f"the scheduler at {self.address} has no workers: the runs wait for one", stacklevel=2
                    )
                continue
            if isinstance(item, dict):
                self._show(key, item)
            elif key in self.tasks and item is self.tasks[key]:
                outcome = self._settle(key, item, errors)
                self._forget(key)
                if outcome is not None:
                    yield key, outcome
                self.attempt[key] += 1
                self._submit(errors)

    def _submit(self, errors: dict[str, Exception]) -> None:
        """Hands over the runs that wait for no other one; those whose start was not trained fail."""
        for key, run in list(self.waiting.items()):
            start = run.experiment.training.start
            if start in self.waiting or start in self.tasks:
                continue
            del self.waiting[key]
            if start in errors:
                errors[key] = RuntimeError(f"run {start}, from whose weights it starts, was not trained")
                continue
            self.saved[key] = _saved_step(key)
            topic = self._topic(key)
            task = dataclasses.replace(run, name=key)  # the same for all clients: they share it
            self.client.subscribe_topic(topic, lambda event, key=key: self.news.put((key, event[1])))
            future = self.client.submit(
                train_run, key, task, self.place, topic, key=topic, resources={GPU: 1} if self.place.on_gpu else None
            )
            self.tasks[key] = future
            future.add_done_callback(lambda future, key=key: self.news.put((key, future)))

    def _topic(self, key: str) -> str:
        """Name of a run's task and of its messages: the same for all clients that want the same.

        Another one for each attempt: dask gives the failure of one that it has given up to all who ask for it again.
        """
        run = self.wanted[key]
        what = digest([repr(self.place), run.retrain, run.need_weights, self.attempt[key]])
        return f"prffn-{key}-{what[:8]}"

    def _settle(self, key: str, future: "Future", errors: dict[str, Exception]) -> Outcome | BackboneUnavailable | None:
        """What has become of a run whose task has ended; None if it has failed, or goes on elsewhere."""
        name = self.wanted[key].name
        try:
            outcome, said = future.result()
            for message in said:
                warnings.warn(f"{name}: {message}", stacklevel=2)
            return outcome
        except BackboneUnavailable as reason:
            return reason
        except _distributed().KilledWorker as killed:
            step, lost = _saved_step(key), f"{killed.allowed_failures + 1} workers"
            if step > self.saved[key]:  # it gets on: perhaps they did not die of it
                self.waiting[key] = self.wanted[key]
                warnings.warn(f"{name}: {lost} were lost; it goes on from step {step}", stacklevel=2)
                return None
            errors[key] = RunKillsWorkers(
                f"{name} ({key}): {lost} ended while they trained it, and its checkpoint stays at step {step}; the "
                f"last was {killed.last_worker.address}, see its log. If memory is short, take larger ones, or start "
                "workers with --memory-limit 0 if it was dask's own limit; then run this again"
            )
        except CancelledError:  # of the client, not of the run
            raise
        except Exception as error:
            errors[key] = error
        if self.waiting or len(self.tasks) > 1:
            failure = errors[key]
            warnings.warn(f"{name} failed, others go on: {type(failure).__name__}: {failure}", stacklevel=2)
        return None

    def _forget(self, key: str) -> None:
        """Lets go of a task, so that dask does too: a failed one would be what the next who asks for it gets."""
        with contextlib.suppress(ValueError):  # another call has used the same client for the same run
            self.client.unsubscribe_topic(self._topic(key))
        self.tasks.pop(key).release()
        if key in self.bars:
            self.bars.pop(key).close()

    def _show(self, key: str, message: Mapping[str, Any]) -> None:
        """Moves the bar of a run; asks a worker that is heard of for the first time whether it can train."""
        if key not in self.tasks:
            return
        step, worker = message["step"], message["worker"]
        if worker not in self.known:
            self.known.add(worker)
            _refuse(_ask(self.client, self.asked, [worker]), self.place.on_gpu)
        if key not in self.bars:
            total, name = self.wanted[key].experiment.training.steps, self.wanted[key].name
            self.bars[key] = progress_bar(
                total=total, initial=step, desc=name, unit="step", disable=not self.progress, leave=False
            )
        self.bars[key].update(step - self.bars[key].n)

    def close(self) -> None:
        """Gives up what still runs: it stops, its checkpoint stays."""
        for key in list(self.tasks):
            with contextlib.suppress(Exception):  # the scheduler may be lost
                self._forget(key)


def _saved_step(key: str) -> int:
    """How far the checkpoint of a run is; 0 if there is none that can be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = load_checkpoint(checkpoint_path(key))
    return 0 if state is None else state["step"]
