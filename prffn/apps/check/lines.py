"""A check and the line that tells what came of it; what the checks share: sizes, paired ratios, distances."""

import gc
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prffn.config import PROFILES

SHORT = {**PROFILES["quick"], "training.steps": 20, "training.learning_rate": 1e-3, "training.initial": "drawn"}
"""The training that is killed, and that several processes share. What rounds otherwise ends near it, see `apart`."""

LONGEST_REASON = 300


class Skipped(Exception):
    """A check that does not apply here. The message says why."""


class Wrong(Exception):
    """What was found is not what should be. The message says both."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: all of it on an accelerator, small on a CPU."""

    regions: tuple[int, ...] = (16, 64, 256, 1024)  # S, for the values of the loss
    large: tuple[int, ...] = (4096,)  # S, compared with the HR negatives alone: the reference takes gigabytes
    patches: int = 16  # for time and memory of the loss
    rounds: int = 5
    largest_reference: int = 4096  # of the S whose reference is timed, where it fits into the memory
    network: Mapping[str, Any] = field(default_factory=dict)  # what the training step changes of profile `paper`


SMALL = Sizes(
    regions=(16, 64, 256),
    large=(),
    patches=1,
    rounds=3,
    largest_reference=256,
    network={"model.channels": 4, "model.groups": 1, "model.blocks": 1, "data.patch_size": 16, "data.batch_size": 4},
)


def sizes_for(device: torch.device) -> Sizes:
    """The sizes for a kind of device."""
    return SMALL if device.type == "cpu" else Sizes()


State = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """What is to be shown: a function that returns what it found, or raises Skipped, Wrong or any other exception."""

    part: str
    name: str
    function: Callable[[], str]


@dataclass(frozen=True)
class Line:
    """What came of a check; `found` is a figure, or the reason why it failed or was skipped."""

    part: str
    name: str
    state: State
    found: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.state:7}  {self.part}: {self.name}: {self.found}  [{self.seconds:.1f} s]"


def performed(check: Check, device: torch.device) -> Line:
    """The line of a check, whatever becomes of it. The traceback of an unforeseen exception goes to stderr."""
    began = time.perf_counter()
    state: State = "passed"
    try:
        found = check.function()
    except Skipped as reason:
        state, found = "skipped", str(reason)
    except Wrong as reason:
        state, found = "failed", str(reason)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        state, found = "failed", f"{type(error).__name__}: {error}"
    if state != "passed" or device.type != "cpu":
        gc.collect()  # an exception holds what its frames held, and what is dead holds a GPU's memory
    if device.type != "cpu":
        with suppress(RuntimeError):  # of a device that an error has left unusable
            torch.get_device_module(device).empty_cache()
    in_one_line = " ".join(found.strip().partition("\n\n")[0].split())[:LONGEST_REASON]
    return Line(check.part, check.name, state, in_one_line, time.perf_counter() - began)


def ratio(seconds: Sequence[float], beside: Sequence[float]) -> str:
    """The median of the paired ratios and their spread; a difference below the spread is called none."""
    ratios = np.array(seconds) / np.array(beside)
    low, middle, high = ratios.min(), np.median(ratios), ratios.max()
    spread = f"{middle:.2f} times ({low:.2f} to {high:.2f})"
    return f"no difference, {spread}" if low <= 1 <= high else spread


def apart(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> float:
    """How far two trained networks are apart, in parts of the way that training has taken one of them.

    Weights by name; first: before the training. Of SHORT, convolutions in TF32 instead of float32 make 0.002; what
    would be a fault, 0.04 or more: other patches, an optimizer without its state, a gradient of half the batch.
    """
    off, way = (
        sum(float((a[name].cpu().double() - b[name].cpu().double()).square().sum()) for name in expected)
        for a, b in ((found, expected), (expected, first))
    )
    return (off / way) ** 0.5
