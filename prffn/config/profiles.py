"""Profiles, each a budget, and the experiments of a table at one of them."""

from collections.abc import Mapping
from typing import Any

import torch

from prffn.config.settings import Experiment, experiment
from prffn.files import unknown, whole_number
from prffn.models.complexity import parameters
from prffn.models.prffn import PRFFN

PHOTOGRAPHS: dict[str, Any] = {
    "data.train": "embedded_train",
    "data.evaluation": ("embedded_val",),
    "data.lpips": False,
}
"""The images inside the scikit-image wheel, which are on every machine."""

BRIEF: dict[str, Any] = {
    "data.train": "BSD200",
    "data.evaluation": ("Set5", "B100"),
    "data.patch_size": 24,
    "data.batch_size": 8,
    "model.channels": 16,
    "model.groups": 2,
}
"""Images and network of trainings for two cores: the recorded study, and the networks of the package."""

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "gpu": {
        "training.steps": 18_500,
        "training.learning_rate": 4e-4,
        "training.schedule": "one_cycle",
        "training.clip_quantile": 0.5,
        "training.bfloat16": True,
        "training.channels_last": True,
    },
    "cpu": {
        **BRIEF,
        "training.steps": 1500,
        "training.learning_rate": 2e-3,
        "training.schedule": "one_cycle",
        "training.channels_last": True,
        "training.initial": "interpolating",
        "training.clip_quantile": 0.5,
        "loss.backbone": "vgg16_caffe",
    },
    "quick": {
        **PHOTOGRAPHS,
        "data.patch_size": 16,
        "data.batch_size": 4,
        "model.channels": 12,
        "model.groups": 1,
        "training.steps": 150,
        "training.learning_rate": 4e-3,
        "training.schedule": "one_cycle",
        "training.channels_last": True,
        "training.initial": "interpolating",
        "training.clip_quantile": 0.5,
        "loss.backbone": "vgg16_caffe",
    },
}
"""A budget each: what it changes of the paper's settings. `quick` needs no download and trains in minutes; `cpu` is
the recorded study on real benchmark images; `paper` is the paper's own protocol, for a GPU; `gpu` is as much of that
as one GPU does in a day at 0.06 s a step, half as fast as an H200 (our choice)."""

SHIPPED = "shipped"
"""The folder of reports/ with the records of the networks that come with the package; no profile, see apps/ship.py."""

PROFILE_SEEDS = {"paper": 1, "gpu": 1, "cpu": 5, "quick": 1}
"""Number of seeds of each setting. The paper prints one figure each and no seeds: one is our reading."""

LENGTHS: dict[str, tuple[float, ...]] = {
    "paper": (0.25, 1),
    "gpu": (0.25, 1),
    "cpu": (0.25, 1, 4, 16),
    "quick": (0.25, 1),
}
"""How long is trained where the length of training is the question, over the profile's own steps (our choice).

All but `cpu` end at their own: more would be weeks, more than the day of `gpu`, more than minutes."""

SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "paper": ((24, 10), (64, 10)),
    "gpu": ((24, 10), (64, 10)),
    "cpu": ((8, 2), (16, 2), (32, 2)),
    "quick": ((8, 1), (12, 1)),
}
"""Channels and groups of PRFFN where its size is the question, ascending, the profile's own among them (our choice)."""

MOST_SEEDS = 1000  # more is a slip of the keyboard, which would fill the memory with experiments (our choice)


def check_profile(profile: object) -> str:
    """Returns the profile's name. Raises ValueError if there is none of that name."""
    if not isinstance(profile, str) or profile not in PROFILES:
        raise ValueError(unknown("profile", profile, PROFILES))
    return profile


def lengths(profile: str) -> dict[int, dict[str, Any]]:
    """Trainings of each of LENGTHS: by their number of steps, ascending, what they change of the profile's settings.

    For `variants` with instead=("training.steps",). The learning rate follows its whole schedule in each: that of
    profile `paper` is halved as often in a quarter of its steps. Raises ValueError for an unknown profile.
    """
    own = experiment(PROFILES[check_profile(profile)]).training
    return {
        int(own.steps * part): {
            "training.steps": int(own.steps * part),
            "training.halve_every": int(own.halve_every * part),
        }
        for part in LENGTHS[profile]
    }


def sizes(profile: str) -> dict[int, dict[str, Any]]:
    """The networks of SIZES: by their parameters in thousands, counted, what they change of the profile's settings.

    For `variants` with instead=("model.channels", "model.groups"). Raises ValueError for an unknown profile.
    """
    scale, found = experiment(PROFILES[check_profile(profile)]).data.scale, {}
    for channels, groups in SIZES[profile]:
        with torch.device("meta"):  # counted without memory
            count = parameters(PRFFN(scale, channels=channels, groups=groups))
        found[round(count / 1000)] = {"model.channels": channels, "model.groups": groups}
    return found


def check_seeds(seeds: object) -> None:
    """Raises ValueError unless it is a number of seeds, or None for the profile's own."""
    if seeds is not None and whole_number("seeds", seeds, 1) > MOST_SEEDS:
        raise ValueError(f"seeds must be {MOST_SEEDS} at most, or None for the profile's own number, got {seeds!r}")


def variants(
    profile: str, vary: Mapping[str, Mapping[str, Any]], *, seeds: int | None = None, instead: tuple[str, ...] = ()
) -> dict[str, list[Experiment]]:
    """The experiments of a table: one list for each label of `vary`, with one experiment for each seed.

    seeds: how many, 0 to seeds - 1; None for the profile's own number. instead: settings of the profile that this
    table is about, and gives a value in every row. Raises ValueError for an unknown profile or setting, and for a
    setting that the profile sets and the table varies: they would contradict each other.
    """
    budget = {name: value for name, value in PROFILES[check_profile(profile)].items() if name not in instead}
    check_seeds(seeds)
    count = PROFILE_SEEDS[profile] if seeds is None else seeds
    table: dict[str, list[Experiment]] = {}
    for label, changes in vary.items():
        if missing := [name for name in instead if name not in changes]:
            raise ValueError(f"{label!r} gives no value of {missing[0]}, which this table sets instead of the profile")
        for name in changes:
            if name in budget or name == "seed":
                owner = "the number of seeds" if name == "seed" else f"profile {profile!r}"
                raise ValueError(f"{name} of {label!r} is set by {owner}: a table cannot vary it as well")
        table[label] = [experiment({**budget, **changes, "seed": seed}) for seed in range(count)]
    return table
