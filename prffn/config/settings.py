"""An experiment in plain dataclasses. The defaults are the paper's settings; a profile is a smaller budget.

Each default says where it comes from: printed in the paper, inferred from printed numbers, or our choice
(RCAN's training set-up, on which the baseline is built, where the paper's is not known).
"""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from prffn.files import unknown
from prffn.losses.contrast import Contrast
from prffn.losses.vgg import BackboneName
from prffn.models.blocks import Padding
from prffn.models.prffn import Variant

Network = Literal["PRFFN", "EDSR", "SwinIR-light", "RCAN"]  # the networks to which Table 4 adds L_contr, and PRFFN


class _Settings:
    """Numbers of NumPy become Python's: an experiment's key is made of its settings as JSON."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            plain = tuple(map(_plain, value)) if isinstance(value, tuple) else _plain(value)
            object.__setattr__(self, f.name, plain)
        if isinstance(self, Contrast):
            Contrast.__post_init__(self)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


# fmt: off
@dataclass(frozen=True, kw_only=True)
class DataConfig(_Settings):
    train: str = "DIV2K_train"                      # our choice: RCAN's; sets joined by +: "BSD200+drawn"
    evaluation: tuple[str, ...] = ("DIV2K_val5",)   # printed; the images 0801 to 0805 are our reading
    lpips: bool = True                              # printed (Table 2); measured where there is a trained AlexNet
    scale: int = 3                                  # printed (Tables 1 to 7)
    patch_size: int = 48                            # LR pixels, our choice: RCAN's
    batch_size: int = 16                            # our choice: RCAN's


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Settings):
    network: Network = "PRFFN"                      # printed (Table 4: with the others too, see models.reduced)
    variant: Variant = "PRFFN3"                     # printed (Table 1); with L_contr it is PRFFN
    channels: int = 64                              # inferred from the printed parameters
    groups: int = 10                                # N, printed
    blocks: int = 3                                 # M, printed
    reduction: int = 16                             # printed
    dilation_rates: tuple[int, ...] = (1, 2, 4)     # printed (Table 7)
    padding: Padding = "zeros"                      # of PRFFN's convolutions, our choice: RCAN's


@dataclass(frozen=True, kw_only=True)
class LossConfig(_Settings, Contrast):
    """L = 255 L_1 + lambda_c L_contr + ...; L_contr is defined by the settings of `Contrast`, such as loss.region_size.

    L_1 is in grey levels, 0 to 255 (inferred: the paper's set-up is RCAN's to the digit, and RCAN's code trains on
    images in that range), all other terms are those of images in [0, 1]. Over 64 candidates L_contr starts at
    log 64 = 4.2, beside 5 to 8 grey levels of L_1: the printed grid of lambda_c, 0.01 to 10, surrounds the weight at
    which both are of one size. With L_1 in [0, 1], 0.025, even 0.01 L_contr would outweigh it.
    """

    contrast_weight: float = 0.1                    # lambda_c, printed (Table 3); 0 is L_1 alone
    contrast_fades: bool = False                    # to 0, linearly over the training (our choice, a question of ours)
    perceptual_weight: float = 0.0                  # of L_perc (Table 2); its weight is not printed
    csd_weight: float = 0.0                         # of L_CSD (Table 2); its weight is not printed
    backbone: BackboneName = "vgg19"                # of both, our choice: that of their published definitions
    own: str = ""                                   # a loss of a reader, "file.py:function": see losses/own.py
    own_sha256: str = ""                            # of that file's source
    own_weight: float = 1.0                         # beside 255 L_1
    own_control: bool = False                       # in its place a squared error, see objective.py


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Settings):
    steps: int = 1_000_000                          # 1000 epochs (printed) of 1000 iterations (our choice: RCAN's)
    learning_rate: float = 1e-4                     # our choice: RCAN's
    schedule: Literal["halving", "one_cycle"] = "halving"  # our choice: RCAN's
    halve_every: int = 200_000                      # steps, of the halving schedule; our choice: RCAN's
    betas: tuple[float, float] = (0.9, 0.999)       # our choice: RCAN's
    clip_quantile: float = 1.0                      # of the gradient norms so far; a larger one is clipped to it
    bfloat16: bool = False                          # autocast of the network; the loss stays in float32
    channels_last: bool = False                     # memory format of the network
    compiled: bool = False                          # torch.compile of the network
    initial: Literal["drawn", "interpolating"] = "drawn"  # our choice: RCAN's; the other: models/interpolating.py


# fmt: on
@dataclass(frozen=True, kw_only=True)
class Experiment(_Settings):
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    start: "Experiment | None" = None
    """The run from whose trained weights, as far as they have the same shapes, this one starts; None: from its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self)

    def canonical(self) -> "Experiment":
        """The same experiment with settings that have no effect at their defaults: equal trainings compare equal."""
        loss, model, training = self.loss, self.model, self.training
        if not (loss.own and loss.own_weight):
            loss = dataclasses.replace(loss, own="", own_sha256="", own_weight=LossConfig.own_weight, own_control=False)
        if loss.contrast_weight == 0:
            loss = dataclasses.replace(loss, contrast_fades=False, **dataclasses.asdict(Contrast()))
        elif loss.form == "ratio":
            loss = dataclasses.replace(loss, similarity=LossConfig.similarity, temperature=LossConfig.temperature)
        else:
            size = loss.region_size if loss.negatives != "none" else LossConfig.region_size
            loss = dataclasses.replace(loss, region_size=size, epsilon=LossConfig.epsilon)
        if not (loss.perceptual_weight or loss.csd_weight):
            loss = dataclasses.replace(loss, backbone=LossConfig.backbone)
        if model.network != "PRFFN":
            model = ModelConfig(network=model.network, channels=model.channels, groups=model.groups)
        elif model.variant != "PRFFN3":
            model = dataclasses.replace(model, dilation_rates=ModelConfig.dilation_rates)
        if training.schedule != "halving":
            training = dataclasses.replace(training, halve_every=TrainingConfig.halve_every)
        start = self.start.canonical() if self.start else None
        return dataclasses.replace(self, loss=loss, model=model, training=training, start=start)


def fields_of(config: Any = Experiment) -> dict[str, type]:
    """All settings of an experiment by their dotted names, such as 'loss.region_size'; `start` is none of them."""
    names: dict[str, type] = {}
    for f in dataclasses.fields(config):
        if f.name == "start":
            continue
        if dataclasses.is_dataclass(f.type):
            names |= {f"{f.name}.{inner}": kind for inner, kind in fields_of(f.type).items()}
        else:
            names[f.name] = f.type  # type: ignore[assignment]
    return names


def setting(e: Experiment, name: str) -> Any:
    """The value of a setting by its dotted name."""
    part, _, inner = name.partition(".")
    return getattr(getattr(e, part), inner) if inner else getattr(e, part)


def experiment(settings: Mapping[str, Any]) -> Experiment:
    """The experiment with some settings changed from the paper's, by dotted name: {"loss.region_size": 16, "seed": 1}.

    Raises ValueError for a name that does not exist or a value that cannot be used.
    """
    known = fields_of()
    parts: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in known:
            raise ValueError(unknown("setting", name, known))
        value = tuple(value) if isinstance(value, list) else value
        part, _, inner = name.partition(".")
        if inner:
            nested.setdefault(part, {})[inner] = value
        else:
            parts[part] = value
    types = {f.name: f.type for f in dataclasses.fields(Experiment)}
    for part, values in nested.items():
        parts[part] = types[part](**values)  # type: ignore[operator]
    return Experiment(**parts)


POSITIVE = (
    "data.patch_size", "data.batch_size", "model.channels", "model.groups", "model.blocks", "model.reduction",
    "training.steps", "training.learning_rate", "training.halve_every",
)  # fmt: skip


def check(e: Experiment) -> None:
    """Raises TypeError or ValueError naming the first setting that cannot be used."""
    for name, kind in fields_of().items():
        _check_value(name, setting(e, name), kind)
    for name in POSITIVE:
        if not 0 < (number := setting(e, name)) <= sys.float_info.max:
            raise ValueError(f"{name} must be positive, got {number!r}")
    if e.start is not None and not isinstance(e.start, Experiment):
        raise TypeError(f"start must be the Experiment whose weights this one starts from, got {e.start!r}")
    if not 0 <= e.seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {e.seed!r}")
    if e.data.scale not in (2, 3, 4):
        raise ValueError(f"data.scale must be 2, 3 or 4, got {e.data.scale!r}")
    for name in ("contrast_weight", "perceptual_weight", "csd_weight", "own_weight"):
        if not 0 <= (weight := getattr(e.loss, name)) <= sys.float_info.max:
            raise ValueError(f"loss.{name} must be 0 or more, got {weight!r}")
    if not e.data.train:
        raise ValueError(f"data.train must name an image set, got {e.data.train!r}")
    if not e.data.evaluation or not all(e.data.evaluation) or len(set(e.data.evaluation)) < len(e.data.evaluation):
        raise ValueError(f"data.evaluation must name at least one image set, each once, got {e.data.evaluation!r}")
    if not e.model.dilation_rates or min(e.model.dilation_rates) < 1:
        raise ValueError(f"model.dilation_rates must be one or more numbers from 1 on, got {e.model.dilation_rates!r}")
    if not 0 < (quantile := e.training.clip_quantile) <= 1:
        raise ValueError(f"training.clip_quantile must be above 0 and at most 1 (clips nothing), got {quantile!r}")
    if len(e.training.betas) != 2 or not all(0 <= beta < 1 for beta in e.training.betas):
        raise ValueError(f"training.betas must be two numbers from 0 to below 1, got {e.training.betas!r}")
    if e.training.initial == "interpolating" and e.model.channels < 3:
        raise ValueError(
            f"training.initial 'interpolating' needs model.channels of 3 or more, for RGB; got {e.model.channels!r}"
        )


def _check_value(name: str, value: Any, kind: Any) -> None:
    choices = get_args(kind)
    if getattr(kind, "__origin__", None) is tuple:
        item = choices[0]
        if not isinstance(value, tuple) or not {*map(type, value)} <= {item}:
            raise TypeError(f"{name} must be a tuple of {item.__name__}, got {value!r}")
    elif choices:
        if value not in choices:
            raise ValueError(unknown(f"value of {name}:", value, choices))
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, got {value!r}")
    elif type(value) is not kind:
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
