"""An experiment in plain dataclasses, and the profiles: what a table varies, and at which budget."""

from prffn.config.profiles import (
    BRIEF,
    MOST_SEEDS,
    PHOTOGRAPHS,
    PROFILE_SEEDS,
    PROFILES,
    SHIPPED,
    check_profile,
    check_seeds,
    variants,
)
from prffn.config.settings import (
    DataConfig,
    Experiment,
    LossConfig,
    ModelConfig,
    Network,
    TrainingConfig,
    experiment,
    fields_of,
    setting,
)

__all__ = [
    "BRIEF",
    "MOST_SEEDS",
    "PHOTOGRAPHS",
    "PROFILES",
    "PROFILE_SEEDS",
    "SHIPPED",
    "DataConfig",
    "Experiment",
    "LossConfig",
    "ModelConfig",
    "Network",
    "TrainingConfig",
    "check_profile",
    "check_seeds",
    "experiment",
    "fields_of",
    "setting",
    "variants",
]
