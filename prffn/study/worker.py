"""What a dask worker does for prffn/study/cluster.py: it says whether it can train for a client, and trains."""

import contextlib
import functools
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prffn import files
from prffn.data.images import image_set
from prffn.study.runs import Outcome, Wanted, record_run, run_key
from prffn.training.device import commit, pick_device

if TYPE_CHECKING:
    from distributed import Worker

GPU = "GPU"
"""The resource of which a worker with a GPU has one: `dask worker ADDRESS --resources "GPU=1" --nthreads 1`."""

MESSAGE_EVERY = 1.0
"""Seconds between two messages of a running training."""


@functools.cache
def code() -> str:
    """SHA-256 of the package's source files when this process first asked."""
    content = hashlib.sha256()
    package = Path(__file__).parent.parent
    for file in sorted(f for f in package.rglob("*") if f.suffix in (".py", ".c")):
        content.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return content.hexdigest()


code()  # what is on the disk now is what this process runs, whatever is there when it is asked


@dataclass(frozen=True)
class Place:
    """Where and with what a client wants its runs trained: a part of each task, equal for clients that may share it."""

    store: str
    folders: tuple[tuple[str, str], ...]
    """The folders of prffn.files by environment variable."""
    device: str
    on_gpu: bool
    code: str

    @classmethod
    def here(cls, store: Path, device: str, on_gpu: bool) -> "Place":
        """With the folders and the code of this process."""
        folders = {files.CACHE_VARIABLE: files.cache_root(), files.DATA_VARIABLE: files.data_root()}
        if weights := files.weights_root():
            folders[files.WEIGHTS_VARIABLE] = weights
        absolute = tuple((name, str(folder.absolute())) for name, folder in folders.items())
        return cls(str(store.absolute()), absolute, device, on_gpu, code())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sets the folders in this process, a worker's, and sets them back."""
        before = {name: os.environ.get(name) for name, _ in self.folders}
        if before != dict(self.folders):
            image_set.cache_clear()  # sets go by name: they may lie elsewhere now
        os.environ.update(self.folders)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@dataclass(frozen=True)
class Fitness:
    """What a worker says of itself: whether it can train for a client, and on what."""

    refusal: str
    """Why it cannot; empty if it can."""
    gpus: float = 0
    """How many of the resource GPU it has."""
    device: str = "cpu"
    """The kind of device that it would pick."""
    threads: int = 1
    """How many tasks it runs at once."""


@dataclass(frozen=True)
class Asked:
    """What a client asks of its workers: to see these files, and to run the code that it runs."""

    marks: tuple[str, ...]
    """Files in the folders that must be shared."""
    code: str
    commit: str | None
    torch: str

    @classmethod
    def here(cls, marks: tuple[str, ...]) -> "Asked":
        """The code of this process."""
        return cls(marks, code(), commit(), torch.__version__)


def fitness(asked: Asked, dask_worker: "Worker") -> Fitness:
    """Of a worker, beside its tasks: whether it sees the client's folders and runs the same code."""
    unseen = [Path(mark).parent for mark in asked.marks if not Path(mark).is_file()]
    unwritable = [Path(mark).parent for mark in asked.marks if not os.access(Path(mark).parent, os.W_OK)]
    refusal = ""
    if code() != asked.code:
        refusal = (
            f"runs other code: prffn at {commit()}, this process at {asked.commit}; install the same, and restart it"
        )
    elif torch.__version__.partition("+")[0] != asked.torch.partition("+")[0]:  # without "+cpu" and the like
        refusal = f"runs torch {torch.__version__}, this process {asked.torch}; install the same, and restart it"
    elif unseen:
        refusal = f"does not see the folder {unseen[0]} of this machine: all must share it, under the same path"
    elif unwritable:
        refusal = f"may not write into {unwritable[0]}"
    state = dask_worker.state
    return Fitness(refusal, state.total_resources.get(GPU, 0), pick_device("auto").type, state.nthreads)


def train_run(key: str, wanted: Wanted, place: Place, topic: str) -> tuple[Outcome, list[str]]:
    """A task: trains and records a run as any process would. Gives what has become of it, and warnings meanwhile."""
    from distributed import get_worker

    worker = get_worker()
    with place.entered(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        device = pick_device(place.device)
        if place.on_gpu and device.type == "cpu":
            raise ValueError(f"worker {worker.address} has the resource {GPU}, and PyTorch finds no GPU there")
        if run_key(wanted.experiment) != key:
            raise ValueError(
                f"worker {worker.address} has other images or another backbone for this run than the client: compare "
                f"{', '.join(folder for _, folder in place.folders)} on both"
            )
        outcome = record_run(key, wanted, Path(place.store), device, on_step=_messenger(worker, topic))
    return outcome, list(dict.fromkeys(str(warning.message) for warning in caught))


def _messenger(worker: "Worker", topic: str) -> Callable[[int], None]:
    """Tells the clients now and then how far a training is, and stops it if nobody wants it any more.

    That is so when its clients have gone or the worker is about to close: the GPU is free again at once, and the
    checkpoint is there for the next who asks.
    """
    last = -MESSAGE_EVERY

    def on_step(step: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last < MESSAGE_EVERY:
            return
        last = now
        task = worker.state.tasks.get(topic)
        if task is None or task.state != "executing" or worker.status.name not in ("running", "paused"):
            from distributed import Reschedule

            raise Reschedule  # heeded only where a client does want it: elsewhere, then
        worker.log_event(topic, {"step": step, "worker": worker.address})

    return on_step
