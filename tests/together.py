"""Starts processes that train together, as torchrun does, and gives what each of them returned.

They are forked from a server that has imported the kit once: the imports of two take longer than their tests.
"""

import dataclasses
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from prffn import files
from prffn.config import Experiment, experiment
from prffn.data.images import image_set
from prffn.study import joint
from prffn.training import loop as training
from prffn.training.loop import train
from prffn.training.parallel import Processes, started

VARIABLES = (files.CACHE_VARIABLE, files.REPORTS_VARIABLE, files.WEIGHTS_VARIABLE)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["prffn.study.trainings", "torch._dynamo"])  # the latter is what DDP imports


def together(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What `function(processes, *arguments)` returned in each process, or the exception that ended it; of a process
    that was killed the exit code, as a negative number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    environment |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started_ones = []
    for rank in range(count):
        ours, theirs = _context.Pipe(duplex=False)
        own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = _context.Process(target=_work, args=(own, theirs, function, arguments), daemon=True)
        process.start()
        theirs.close()  # the child's end is the only one: where it dies, reading ends
        started_ones.append((process, ours))
    found = []
    for process, ours in started_ones:
        try:
            found.append(ours.recv())
        except EOFError:
            found.append(None)
        process.join()
        found[-1] = process.exitcode if process.exitcode else found[-1]
    return found


def _work(environment: dict[str, str], out: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        with started("cpu") as processes:
            found = function(processes, *arguments)
    except Exception as error:
        found = error
    out.send(found)


def trained(processes: Processes, e: Experiment, **options: Any) -> dict[str, Any]:
    """The curve, the weights as NumPy arrays, and the number of saves, of a training together."""
    saves = []
    with patched(training, "save_checkpoint", lambda save: lambda *given: (saves.append(given), save(*given))):
        done = train(e, processes=processes, progress=False, **options)
    weights = {name: value.numpy() for name, value in done.model.state_dict().items()}
    return {"curve": done.curve, "weights": weights, "saves": len(saves)}


def patched(where: Any, name: str, change: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """For a time, another function in the place of one: what `change` makes of it."""
    return mock.patch.object(where, name, change(getattr(where, name)))


def stopping(after: int) -> Callable[[Any], Any]:
    """For `patched`: loss_terms that stop the run in the step after so many."""
    steps = iter(range(after + 1))

    def change(loss_terms: Any) -> Any:
        def terms(*arguments: Any) -> Any:
            if next(steps) == after:
                raise InterruptedError("stopped by the test")
            return loss_terms(*arguments)

        return terms

    return change


def experiment_of(job: dict[str, Any]) -> Experiment:
    """Of a job with weights to start from, an experiment that starts from another."""
    e = experiment(job["settings"])
    return dataclasses.replace(e, start=dataclasses.replace(e, seed=5)) if "start" in job else e


def all_jobs(processes: Processes, jobs: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """All that one start of two processes can show: the trainings of `jobs`, by name, and what is said below."""
    found: dict[str, Any] = {}
    for name, job in jobs.items():
        os.environ.update(job.get("environment", {}))
        first_only = {"start": job.get("start")} if processes.rank == 0 else {}
        found[name] = trained(processes, experiment_of(job), checkpoint=job.get("checkpoint"), **first_only)
    e = experiment(next(iter(jobs.values()))["settings"])

    with patched(training, "loss_terms", stopping(after=7)):  # leaves folder / "two.ckpt" with seven steps
        try:
            trained(processes, e, checkpoint=folder / "two.ckpt", checkpoint_every=0)
        except InterruptedError as error:
            found["stopped"] = str(error)

    validated: list[Any] = []
    curve = trained(processes, e, validate=lambda _: validated.append(1) or 30.0)["curve"]
    found["validated"] = len(validated), curve

    def poisoned(loss_terms: Any) -> Any:
        def terms(*arguments: Any) -> Any:
            values = loss_terms(*arguments)
            return {**values, "l1": values["l1"] * float("nan")} if processes.rank == 1 else values

        return terms

    with patched(training, "loss_terms", poisoned):
        found["poisoned"] = error_of(lambda: trained(processes, e))

    def other(inputs: Any) -> Any:
        return lambda e: {what: "other" if processes.rank == 1 else sum for what, sum in inputs(e).items()}

    def announced() -> None:
        if processes.rank == 0:
            joint.announce(processes, e)
        joint.follow(processes)

    image_set.cache_clear()
    with patched(joint, "_inputs", other):
        found["other images"] = error_of(announced)
    return found


def error_of(function: Callable[[], Any]) -> tuple[str, str]:
    """Kind and text of the exception with which a call ends."""
    try:
        function()
    except Exception as error:
        return type(error).__name__, str(error)
    return "none", ""


def killed(processes: Processes, e: Experiment, checkpoint: Path) -> dict[str, Any]:
    """Rank 1 dies in its seventh step, between the gradients and the weights."""
    steps = iter(range(100))

    def dying(step: Any) -> Any:
        return lambda *given: os.kill(os.getpid(), signal.SIGKILL) if next(steps) == 6 else step(*given)

    with patched(torch.optim.Adam, "step", dying if processes.rank == 1 else lambda step: step):
        return trained(processes, e, checkpoint=checkpoint, checkpoint_every=0)
