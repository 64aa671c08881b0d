"""Trains what notebooks need, without their reports: `python -m prffn train`, with torchrun on several GPUs."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from prffn.config import Experiment
from prffn.files import unknown
from prffn.study.cluster import RunKillsWorkers
from prffn.study.ensure import ensure
from prffn.study.joint import follow
from prffn.study.notebook import experiments_of
from prffn.training.curve import NonFiniteLoss
from prffn.training.parallel import started


def train(
    notebooks: Mapping[str, Path],
    *,
    profile: str,
    device: str,
    seeds: int | None = None,
    labels: Sequence[str] | None = None,
    scheduler: str | None = None,
) -> None:
    """Trains and records the missing runs of these notebooks, and prints how many there are, and why some are not.

    scheduler: its workers train, all runs at once: one table alone may leave workers idle. Without one this process
    does; of several that torchrun has started rank 0 does, and the others take part.
    labels: as in `labelled`. Raises ValueError or OSError, on every process, for what keeps a run from being trained.
    """
    with contextlib.nullcontext() if scheduler else started(device) as processes:
        if processes and processes.rank > 0:
            follow(processes)
            return
        try:
            asked = labelled(notebooks, labels, profile, seeds)
            where = str(processes.device) if processes else device
            runs = ensure(asked, profile, device=where, scheduler=scheduler, processes=processes)
        except (NonFiniteLoss, RunKillsWorkers) as error:
            raise ValueError("; ".join([str(error), *getattr(error, "__notes__", [])])) from error
        if processes:
            processes.broadcast(None)  # ends `follow` on the others
    print(runs, flush=True)
    for label, reason in runs.not_measured.items():
        print(f"{label}: not measured: {reason}", flush=True)


def labelled(
    notebooks: Mapping[str, Path], labels: Sequence[str] | None, profile: str, seeds: int | None
) -> dict[str, list[Experiment]]:
    """The experiments of the notebooks, by "<notebook>: <label>".

    labels: None for all; else those of these labels in any of the notebooks. Raises ValueError for a label that none
    has.
    """
    found = {
        (name, label): group
        for name, path in notebooks.items()
        for label, group in experiments_of(path, profile=profile, seeds=seeds).items()
    }
    known = {label for _, label in found}
    for label in labels or []:
        if label not in known:
            raise ValueError(unknown("label", label, known))
    wanted = known if labels is None else set(labels)
    return {f"{name}: {label}": group for (name, label), group in found.items() if label in wanted}
