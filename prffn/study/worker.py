"""What a dask worker does for cluster.py: it says whether it can train for a client, and trains."""

import functools
import hashlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prffn import files
from prffn.data.images import image_set
from prffn.losses.vgg import BackboneUnavailable
from prffn.study.keys import run_key
from prffn.study.runs import Outcome, Wanted, record_run
from prffn.training.device import pick_device

if TYPE_CHECKING:
    from distributed import Worker

GPU = "GPU"  # the resource of which a worker with a GPU has one: `dask worker ADDRESS --resources "GPU=1" --nthreads 1`


@functools.cache
def code() -> str:
    """SHA-256 of the package's source files when this process first asked."""
    content = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(f for f in package.rglob("*") if f.suffix in (".py", ".c")):
        content.update(f"{file.relative_to(package).as_posix()}\n".encode() + file.read_bytes())
    return content.hexdigest()


code()  # what is on the disk now is what this process runs, whatever is there when it is asked


@dataclass(frozen=True)
class Place:
    """Where and with what a client wants its runs trained: a part of each task, equal for clients that may share it."""

    store: str
    folders: tuple[tuple[str, str], ...]  # environment variable and folder
    device: str
    on_gpu: bool
    code: str
    torch: str

    @classmethod
    def here(cls, store: Path, device: str) -> "Place":
        """With the folders and the code of this process."""
        folders = {files.CACHE_VARIABLE: files.cache_root(), files.DATA_VARIABLE: files.data_root()}
        absolute = tuple((name, str(folder.absolute())) for name, folder in folders.items())
        weights = files.weights_root()
        absolute += ((files.WEIGHTS_VARIABLE, str(weights.absolute()) if weights else ""),)
        return cls(str(store.absolute()), absolute, device, False, code(), torch.__version__.partition("+")[0])

    def enter(self) -> None:
        """Sets the folders in this process, a worker's; each task does."""
        if any(os.environ.get(name, "") != folder for name, folder in self.folders):
            image_set.cache_clear()  # sets go by name: they may lie elsewhere now
        os.environ.update(self.folders)

    def refusal(self, marks: tuple[str, ...] = ()) -> str:
        """Why this process, a worker's, cannot train for the client; empty if it can.

        It runs other code, or does not see the client's folders, in which `marks` lie.
        """
        if code() != self.code:
            return "runs other code of prffn than this process: install the same, and restart it"
        if torch.__version__.partition("+")[0] != self.torch:  # without "+cpu" and the like
            return f"runs torch {torch.__version__}, this process {self.torch}: install the same, and restart it"
        for mark in map(Path, marks):
            if not mark.is_file():
                return f"does not see the folder {mark.parent} of this machine: all must share it, under the same path"
            if not os.access(mark.parent, os.W_OK):
                return f"may not write into {mark.parent}"
        return ""


def fitness(place: Place, marks: tuple[str, ...], dask_worker: "Worker") -> tuple[str, float, int]:
    """Of a worker, beside its tasks: why it cannot train for a client or "", its GPUs, and how many tasks it runs."""
    state = dask_worker.state
    return place.refusal(marks), state.total_resources.get(GPU, 0), state.nthreads


def train_run(
    key: str, wanted: Wanted, place: Place, start: object = None
) -> tuple[Outcome | BackboneUnavailable, list[str]]:
    """A task: trains and records a run as any process would. Gives what has become of it, and warnings meanwhile.

    start: the outcome of the run from whose weights it starts; dask waits for it.
    """
    from distributed import get_worker

    worker = get_worker()
    if refusal := place.refusal():
        raise ValueError(f"the worker at {worker.address} {refusal}")
    place.enter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        device = pick_device(place.device)
        if place.on_gpu and device.type == "cpu":
            raise ValueError(f"the worker at {worker.address} has the resource {GPU}, and PyTorch finds no GPU there")
        if run_key(wanted.experiment) != key:
            folders = ", ".join(folder for _, folder in place.folders)
            raise ValueError(f"the worker at {worker.address} has other images or another backbone: compare {folders}")
        on_step = _stop_when_unwanted(worker, str(worker.get_current_task()))
        outcome = record_run(key, wanted, Path(place.store), device, on_step=on_step)
    return outcome, list(dict.fromkeys(str(warning.message) for warning in caught))


def _stop_when_unwanted(worker: "Worker", task_key: str) -> Callable[[int], None]:
    """Stops a training within a second when its clients have gone or its worker is about to close: the device is free
    again, and the checkpoint is there for the next who asks."""
    last = 0.0

    def on_step(_: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last < 1:
            return
        last = now
        task = worker.state.tasks.get(task_key)
        if task is None or task.state != "executing" or worker.status.name not in ("running", "paused"):
            from distributed import Reschedule

            raise Reschedule  # heeded only where a client does want it: elsewhere, then

    return on_step
