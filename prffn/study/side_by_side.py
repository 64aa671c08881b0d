"""Runs trained side by side, on the cores of this machine: their records are those of one after the other."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from prffn.losses.vgg import BackboneUnavailable
from prffn.models.complexity import parameters
from prffn.study.keys import run_key
from prffn.study.runs import Outcome, Wanted, record_run
from prffn.training.device import threads_for
from prffn.training.loop import build_model, progress_bar


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def room_for(wanted: Mapping[str, Wanted], device: torch.device) -> int:
    """How many of these runs to train at a time: on the CPU as many as have cores for the threads that each takes."""
    if device.type != "cpu" or not wanted:
        return 1
    threads = 1
    for model in {
        (run.experiment.model, run.experiment.data.scale): run.experiment for run in wanted.values()
    }.values():
        with threads_for(parameters(build_model(model))) as taken:
            threads = max(threads, taken)
    return max(1, min(len(wanted), cores() // threads))


def train_side_by_side(
    wanted: Mapping[str, Wanted], store: Path, device: torch.device, count: int, progress: bool
) -> Iterator[tuple[str, Outcome | BackboneUnavailable]]:
    """Trains `count` runs at a time, each in a process of its own. Yields the key of each with what has become of it.

    wanted: a run from whose weights others start stands before them; they wait for it. An error of a run is raised
    when those that are being trained beside it are recorded. Raises RuntimeError if a process was killed.
    """
    waiting, running = dict(wanted), dict[Future[Outcome | BackboneUnavailable], str]()
    bar = progress_bar(
        total=len(wanted), desc="training", leave=False, disable=not progress,
        bar_format="{desc}: run {n_fmt} of {total_fmt} done, {remaining} left",
    )  # fmt: skip
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool, bar:
        try:
            while waiting or running:
                for key, run in list(waiting.items()):
                    start = run_key(run.experiment.start) if run.experiment.start else None
                    if start not in waiting and start not in running.values():
                        running[pool.submit(record_run, key, waiting.pop(key), store, device, run.retrain)] = key
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    bar.update()
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            killed = f"a process that trained one of {', '.join(running.values())} was killed, perhaps for memory"
            raise RuntimeError(f"{killed}: run the same again, which resumes, with --workers 1") from error
        finally:
            pool.shutdown(cancel_futures=True)
