"""An experiment in plain dataclasses, and the profiles: what a table varies, and at which budget."""

from prffn.config.profiles import (
    BRIEF,
    LENGTHS,
    MOST_SEEDS,
    PHOTOGRAPHS,
    PROFILE_SEEDS,
    PROFILES,
    SHIPPED,
    SIZES,
    check_profile,
    check_seeds,
    lengths,
    sizes,
    variants,
)
from prffn.config.settings import Experiment, LossConfig, TrainingConfig, experiment, fields_of, setting

__all__ = [
    "BRIEF", "LENGTHS", "MOST_SEEDS", "PHOTOGRAPHS", "PROFILES", "PROFILE_SEEDS", "SHIPPED", "SIZES", "Experiment",
    "LossConfig", "TrainingConfig", "check_profile", "check_seeds", "experiment", "fields_of", "lengths", "setting",
    "sizes", "variants",
]  # fmt: skip
