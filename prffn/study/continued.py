"""Trainings that resume from the network that L_1 alone has trained: what does a loss do to a trained network?

One question of notebooks/beyond_when.ipynb, and our own: everywhere else each network is trained with its loss from its
first step, as the paper does. Two runs of a seed then share all steps but the last ones, and differ by what the loss
does in those.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prffn.config import Experiment, LossConfig, check_profile

CONTINUED: dict[str, dict[str, Any]] = {
    "cpu": {"training.steps": 400, "training.learning_rate": 5e-4},
    "quick": {"training.steps": 60, "training.learning_rate": 1e-3},
}
"""What the trainings that go on change of their profile; the others have none."""


def continued(experiments: Mapping[str, Sequence[Experiment]], profile: str) -> dict[str, list[Experiment]]:
    """These experiments, as trainings that go on from one with L_1 alone of the same network, images and seed.

    experiments: from `variants`. Steps and learning rate of what is added: CONTINUED; a profile that is not in
    it gets its experiments back. The trainings that they start from come last, as "<label>, start", with the label of
    the first that starts there.
    """
    if check_profile(profile) not in CONTINUED:
        return {label: list(group) for label, group in experiments.items()}
    changes = {name.removeprefix("training."): value for name, value in CONTINUED[profile].items()}
    table: dict[str, list[Experiment]] = {}
    starts: dict[str, list[Experiment]] = {}
    for label, group in experiments.items():
        first = [dataclasses.replace(e, loss=LossConfig(contrast_weight=0.0)) for e in group]
        table[label] = [
            dataclasses.replace(e, training=dataclasses.replace(e.training, **changes), start=start)
            for e, start in zip(group, first, strict=True)
        ]
        known = next((name for name, others in starts.items() if others[0] == first[0]), f"{label}, start")
        if len(first) > len(starts.get(known, [])):
            starts[known] = first
    return table | starts
