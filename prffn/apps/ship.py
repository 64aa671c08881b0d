"""The small networks of the package, trained: `python -m prffn ship`, for hours on a CPU.

First a body at x2, from which all three scales start (RCAN's habit of x3 and x4). Records: reports/shipped/runs/.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prffn.config import SHIPPED, Experiment, experiment
from prffn.files import reports_root
from prffn.models import PRFFN
from prffn.models.pretrained import SCALES, pretrained_path, save_pretrained
from prffn.study.runs import Run, checkpoint_path, ensure, load_record, run_key, trained_model

SETTINGS: dict[str, Any] = {
    "data.train": "BSD200",
    "data.evaluation": ("Set5", "B100"),
    "data.patch_size": 24,
    "data.batch_size": 8,
    "model.channels": 16,
    "model.groups": 2,
    "loss.contrast_weight": 0.001,
    "training.learning_rate": 2e-3,
    "training.schedule": "one_cycle",
    "training.channels_last": True,
    "training.initial": "interpolating",
}
"""What differs from the paper's settings: network and training are for two cores (our choice).

L_contr weighs less than the printed 0.1, with which its gradient is some thirty times that of L_1 (measured on bicubic
images): 0.001 is the weight at which small networks gain from it (notebooks/table3_lambda_c.ipynb).
"""

BODY_STEPS = 6000
"""Of the training at x2 from which all scales start."""

STEPS = {2: 6000, 3: 20000, 4: 24000}
"""Of the training at each scale."""


def body() -> Experiment:
    """The training at x2 that gives the body."""
    return experiment({**SETTINGS, "data.scale": 2, "training.steps": BODY_STEPS})


def shipped_experiments() -> dict[int, Experiment]:
    """The training at each scale, from that body."""
    start = {**SETTINGS, "training.start": run_key(body())}
    return {s: experiment({**start, "data.scale": s, "training.steps": STEPS[s]}) for s in SCALES}


def ship(
    scales: Sequence[int] = SCALES, *, device: str = "auto", retrain: bool = False, progress: bool = True
) -> Iterator[tuple[int, dict[str, Any], Path]]:
    """Trains what is not recorded, and writes each network into the package. Yields scale, record and file of each.

    A killed training goes on from its checkpoint. Raises ValueError for a scale that is not 2, 3 or 4, and
    FileNotFoundError without the images, or where a run is recorded and its weights are on another machine: train it
    afresh with `retrain`.
    """
    experiments = shipped_experiments()
    if wrong := [scale for scale in scales if scale not in experiments]:
        raise ValueError(f"scale must be 2, 3 or 4, got {wrong[0]!r}")

    def trained(label: str, e: Experiment, afresh: bool) -> Run:
        return ensure({label: [e]}, SHIPPED, device=device, retrain=afresh, progress=progress)[label][0]

    if retrain or not all(is_recorded(experiments[scale]) for scale in scales):
        trained("body", body(), afresh=retrain or not checkpoint_path(run_key(body())).is_file())
    for scale in sorted(scales):
        e = experiments[scale]
        run = trained(f"x{scale}", e, retrain)
        model = trained_model(e)
        assert isinstance(model, PRFFN)
        save_pretrained(model, pretrained_path(scale), run.record["settings"], run.key, run.record["weights_sha256"])
        yield scale, run.record, pretrained_path(scale)


def is_recorded(e: Experiment) -> bool:
    """Whether there is a valid record of a shipped run."""
    return load_record(reports_root() / SHIPPED / "runs", run_key(e), e) is not None
