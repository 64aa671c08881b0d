"""Losses compared at the end of a training: each run resumes from the network that L_1 alone has trained.

Our choice, for the short profiles. Two short trainings that differ in nothing but their loss drift apart: at profile
`cpu` their PSNR scatters by tenths of a decibel from seed to seed, far more than the paper's gains. Where they share
their first 1500 steps and only the last 400 differ, the difference between two losses scatters by about a hundredth.
What is asked is then narrower, what the loss does to a trained network; notebooks/beyond_first_weights.ipynb sets
both answers side by side. Profile `paper` trains every run from its first step, as the paper does.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prffn.config import Experiment, LossConfig, check_profile

CONTINUED: dict[str, dict[str, Any]] = {
    "cpu": {"training.steps": 400, "training.learning_rate": 5e-4},
    "quick": {"training.steps": 60, "training.learning_rate": 1e-3},
}
"""What the trainings that go on change of their profile; `paper` has none."""


def continued(experiments: Mapping[str, Sequence[Experiment]], profile: str) -> dict[str, list[Experiment]]:
    """These experiments, as trainings that go on from one with L_1 alone of the same network, images and seed.

    experiments: from `variants`. Steps and learning rate of what is added: CONTINUED; a profile that is not in
    it gets its experiments back. The trainings that they start from come last, as "<label>, start", with the label of
    the first that starts there.
    """
    if check_profile(profile) not in CONTINUED:
        return {label: list(group) for label, group in experiments.items()}
    table: dict[str, list[Experiment]] = {}
    starts: dict[str, list[Experiment]] = {}
    for label, group in experiments.items():
        first = [dataclasses.replace(e, loss=LossConfig(contrast_weight=0.0)) for e in group]
        table[label] = [_going_on(e, start, profile) for e, start in zip(group, first, strict=True)]
        known = next((name for name, others in starts.items() if others[0] == first[0]), f"{label}, start")
        if len(first) > len(starts.get(known, [])):
            starts[known] = first
    return table | starts


def _going_on(e: Experiment, start: Experiment, profile: str) -> Experiment:
    training = {name.removeprefix("training."): value for name, value in CONTINUED[profile].items()}
    return dataclasses.replace(e, training=dataclasses.replace(e.training, **training), start=start)
