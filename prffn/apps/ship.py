"""The small networks of the package, trained: `python -m prffn ship`.

First x3, on large batches for a GPU, on which it takes three minutes (an H200, measured); then x2 and x4 from its
weights, and last each on more drawings of saturated colours, ten minutes each on a CPU's core. Records:
reports/shipped/runs/.
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
    "training.schedule": "one_cycle",
    "training.clip_quantile": 0.5,
    "training.channels_last": True,
    "training.initial": "interpolating",
}
"""What differs from the paper's settings, and the weight of L_contr (our choice): the network of the recorded study,
for a CPU, trained longer.

The drawn images are to keep hard edges of saturated colours, as of lettering, from overshooting; the padding keeps
flat colours flat at the border.
"""

FIRST: dict[str, Any] = {
    "data.patch_size": 32,
    "data.batch_size": 16,
    "training.steps": 30_000,
    "training.learning_rate": 2e-3,
}
"""Of the training at x3, from which the others start: RCAN's habit, which starts at x2."""

OTHERS: dict[str, Any] = {"training.steps": 12_000, "training.learning_rate": 1e-3}
"""Of the trainings at x2 and x4, which start from x3."""

LAST: dict[str, Any] = {"data.train": "BSD200+lettering", "training.steps": 8_000, "training.learning_rate": 1e-3}
"""Of the last training at each scale. At x3 it took the overshoot of lettering from 55 levels to 40, as far as bicubic
interpolation goes, and that of a rectangle from 55 to 23; a network trained on these images from its first step was
0.1 dB behind (measured)."""


def shipped_experiment(scale: int) -> Experiment:
    """The last training at a scale. Raises ValueError for one that is not 2, 3 or 4."""
    if scale not in SCALES:
        raise ValueError(f"scale must be 2, 3 or 4, got {scale!r}")
    first = start = experiment({**SETTINGS, **FIRST, "data.scale": 3})
    if scale != 3:
        start = dataclasses.replace(experiment({**SETTINGS, **OTHERS, "data.scale": scale}), start=first)
    return dataclasses.replace(experiment({**SETTINGS, **LAST, "data.scale": scale}), start=start)


def ship(
    scales: Sequence[int] = SCALES, *, device: str = "auto", retrain: bool = False, progress: bool = True
) -> Iterator[tuple[int, dict[str, Any], Path]]:
    """Trains what is not recorded, and writes each network into the package. Yields scale, record and file of each.

    A killed training resumes from its checkpoint. Raises ValueError for a scale that is not 2, 3 or 4, and
    FileNotFoundError without the images, or where a run is recorded and its weights are on another machine: train it
    again with `retrain`.
    """
    for scale, e in {scale: shipped_experiment(scale) for scale in scales}.items():
        (run,) = ensure({f"x{scale}": [e]}, SHIPPED, device=device, retrain=retrain, progress=progress)[f"x{scale}"]
        model = trained_model(e)
        assert isinstance(model, PRFFN)
        save_pretrained(model, pretrained_path(scale), run.record["settings"], run.key, run.record["weights_sha256"])
        yield scale, run.record, pretrained_path(scale)
