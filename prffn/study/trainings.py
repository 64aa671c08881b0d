"""Trains what notebooks need, without their reports: `python -m prffn train`, with torchrun on several GPUs."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prffn.config import Experiment
from prffn.files import unknown
from prffn.study.ensure import ensure
from prffn.study.joint import dismiss, follow
from prffn.study.notebook import experiments_of
from prffn.study.runs import Runs
from prffn.training.curve import NonFiniteLoss
from prffn.training.parallel import started


def run(notebooks: Mapping[str, Path], options: argparse.Namespace) -> int:
    """Trains and records the missing runs of these notebooks; of several processes rank 0 does, the others take part.

    Raises ValueError or OSError, on every process, for what keeps a run from being trained.
    """
    with started(options.device) as processes:
        try:
            if processes.rank > 0:
                follow(processes)
                return 0
            asked = labelled(notebooks, options.label, profile=options.profile, seeds=options.seeds)
            runs = ensure(asked, options.profile, device=str(processes.device), processes=processes)
            dismiss(processes)
        except NonFiniteLoss as error:
            raise ValueError(str(error)) from error
        _tell(runs)
    return 0


def train_together(
    notebooks: Mapping[str, Path], scheduler: str, *, labels: Sequence[str] | None = None, **parameters: Any
) -> None:
    """Trains on a scheduler's workers what the notebooks lack, all at once: one table alone may leave workers idle.

    labels: as in `labelled`. parameters: of the notebooks. Raises ValueError if a run stops with an error; the others
    are recorded.
    """
    from prffn.study.cluster import RunKillsWorkers  # for those who have a scheduler

    if not (asked := labelled(notebooks, labels, **parameters)):
        return
    try:
        runs = ensure(asked, parameters["profile"], device=parameters["device"], scheduler=scheduler)
    except (NonFiniteLoss, RunKillsWorkers) as error:
        raise ValueError("; ".join([str(error), *getattr(error, "__notes__", [])])) from error
    _tell(runs)


def _tell(runs: Runs) -> None:
    """Prints how many runs there are, and why some are not measured."""
    print(runs, flush=True)
    for label, reason in runs.not_measured.items():
        print(f"{label}: not measured: {reason}", flush=True)


def labelled(
    notebooks: Mapping[str, Path], labels: Sequence[str] | None = None, **parameters: Any
) -> dict[str, list[Experiment]]:
    """The experiments of the notebooks, by "<notebook>: <label>"; parameters: of the notebooks.

    labels: None for all; else those of these labels in any of the notebooks. Raises ValueError for a label that none
    has.
    """
    found = {
        f"{name}: {label}": (label, group)
        for name, path in notebooks.items()
        for label, group in experiments_of(path, **parameters).items()
    }
    if labels is None:
        return {name: group for name, (_, group) in found.items()}
    for label in labels:
        if label not in (known := {label for label, _ in found.values()}):
            raise ValueError(unknown("label", label, known))
    return {name: group for name, (label, group) in found.items() if label in labels}
