"""Trains what notebooks need, without their reports: `python -m prffn train`, with torchrun on several GPUs."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prffn.cluster import RunKillsWorkers
from prffn.config import Experiment, unknown
from prffn.joint import dismiss, follow
from prffn.losses.backbone import BackboneUnavailable
from prffn.notebook import experiments_of
from prffn.paths import TEXT_PROGRESS_VARIABLE
from prffn.processes import started
from prffn.runs import ensure, run_key
from prffn.training import NonFiniteLoss


def run(notebooks: Mapping[str, Path], options: argparse.Namespace) -> int:
    """Trains and records the missing runs of these notebooks; of several processes rank 0 does, the others take part.

    Raises ValueError or OSError, on every process, for what keeps a run from being trained.
    """
    os.environ[TEXT_PROGRESS_VARIABLE] = "1"
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
        print(runs)
        for label, reason in runs.not_measured.items():
            print(f"{label}: not measured: {reason}")
    return 0


def train_together(notebooks: Mapping[str, Path], scheduler: str, **parameters: Any) -> None:
    """Trains on a scheduler's workers what the notebooks lack, all at once: one table alone may leave workers idle.

    parameters: of the notebooks. Raises ValueError if a run stops with an error; the others are recorded.
    """
    if not (asked := labelled(notebooks, **parameters)):
        return
    try:
        print(ensure(asked, parameters["profile"], device=parameters["device"], scheduler=scheduler), flush=True)
    except (NonFiniteLoss, RunKillsWorkers) as error:
        raise ValueError("; ".join([str(error), *getattr(error, "__notes__", [])])) from error


def labelled(
    notebooks: Mapping[str, Path], labels: Sequence[str] | None = None, **parameters: Any
) -> dict[str, list[Experiment]]:
    """The experiments of the notebooks, by "<notebook>: <label>"; parameters: of the notebooks.

    labels: None for all; else those of these labels in any of the notebooks, and the runs from whose weights they
    start. Raises ValueError for a label that none has.
    """
    found = {
        f"{name}: {label}": (label, group)
        for name, path in notebooks.items()
        for label, group in experiments_of(path, **parameters).items()
    }
    for label in labels or ():
        if label not in (known := {label for label, _ in found.values()}):
            raise ValueError(unknown("label", label, known))
    chosen = {name: group for name, (label, group) in found.items() if labels is None or label in labels}
    starts = {e.training.start for group in chosen.values() for e in group} - {""}
    first = {name: [e for e in group if _is_one_of(e, starts)] for name, (_, group) in found.items()}
    return {name: group for name, group in first.items() if group and name not in chosen} | chosen


def _is_one_of(e: Experiment, keys: set[str]) -> bool:
    try:
        return bool(keys) and run_key(e) in keys
    except BackboneUnavailable:
        return False
