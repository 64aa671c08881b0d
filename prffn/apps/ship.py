"""The small networks of the package, trained: `python -m prffn ship`, for hours on a CPU.

First a body at x2, from which all three scales start (RCAN's habit of x3 and x4). Records: reports/shipped/runs/.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prffn.config import BRIEF, SHIPPED, Experiment, experiment
from prffn.models import PRFFN
from prffn.models.pretrained import SCALES, pretrained_path, save_pretrained
from prffn.study.ensure import ensure
from prffn.study.runs import trained_model

SETTINGS: dict[str, Any] = {
    **BRIEF,
    "data.train": "BSD200+drawn",
    "model.padding": "replicate",
    "loss.contrast_weight": 0.1,
    "training.learning_rate": 2e-3,
    "training.schedule": "one_cycle",
    "training.clip_quantile": 0.5,
    "training.channels_last": True,
    "training.initial": "interpolating",
}
"""What differs from the paper's settings, and the weight of L_contr: network and training are for a CPU (our choice).

The drawn images are to keep hard edges of saturated colours, as of lettering, from overshooting; the padding keeps
flat colours flat at the border.
"""

BODY_STEPS = 40_000
"""Of the training at x2 from which all scales start."""

STEPS = {2: 30_000, 3: 70_000, 4: 60_000}
"""Of the training at each scale. All together they take about three hours on one core (estimated from single steps)."""


def body() -> Experiment:
    """The training at x2 that gives the body."""
    return experiment({**SETTINGS, "data.scale": 2, "training.steps": BODY_STEPS})


def shipped_experiments() -> dict[int, Experiment]:
    """The training at each scale, from that body."""
    return {
        scale: dataclasses.replace(
            experiment({**SETTINGS, "data.scale": scale, "training.steps": STEPS[scale]}), start=body()
        )
        for scale in SCALES
    }


def ship(
    scales: Sequence[int] = SCALES, *, device: str = "auto", retrain: bool = False, progress: bool = True
) -> Iterator[tuple[int, dict[str, Any], Path]]:
    """Trains what is not recorded, and writes each network into the package. Yields scale, record and file of each.

    A killed training resumes from its checkpoint. Raises ValueError for a scale that is not 2, 3 or 4, and
    FileNotFoundError without the images, or where a run is recorded and its weights are on another machine: train it
    again with `retrain`.
    """
    experiments = shipped_experiments()
    if wrong := [scale for scale in scales if scale not in experiments]:
        raise ValueError(f"scale must be 2, 3 or 4, got {wrong[0]!r}")

    for scale in sorted(scales):
        e = experiments[scale]
        asked = {"body": [body()], f"x{scale}": [e]} if retrain and scale == min(scales) else {f"x{scale}": [e]}
        runs = ensure(asked, SHIPPED, device=device, retrain=retrain, progress=progress)
        run = runs[f"x{scale}"][0]
        model = trained_model(e)
        assert isinstance(model, PRFFN)
        save_pretrained(model, pretrained_path(scale), run.record["settings"], run.key, run.record["weights_sha256"])
        yield scale, run.record, pretrained_path(scale)
