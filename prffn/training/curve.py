"""The losses of a training as it goes on, read from the device now and then."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

READ_EVERY = 50  # steps after which a GPU's losses are read at the latest; each reading waits for it (our choice)


class NonFiniteLoss(FloatingPointError):
    """A loss term is not a finite number: training has stopped, and no checkpoint holds what came of it."""


class Losses:
    """The losses of the last steps, still on the device, and the sums of those that were read."""

    def __init__(self) -> None:
        self.unread: list[Tensor] = []
        self.sums: dict[str, float] = {}

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """values: (terms,), of one step."""
        self.names = names
        self.unread.append(values)

    def read(self, step: int) -> None:
        """Reads all up to this step's. Raises NonFiniteLoss if a term is infinite or not a number."""
        for before, values in zip(range(len(self.unread) - 1, -1, -1), torch.stack(self.unread).tolist(), strict=True):
            for name, value in zip(self.names, values, strict=True):
                if not math.isfinite(value):
                    more = "or a larger loss.temperature or loss.epsilon"
                    if name in ("own", "control"):
                        more = "or a smaller weight of your loss, or look at what it roots, divides by or exponentiates"
                    found = f"loss term {name!r} is {value} at step {step - before}"
                    raise NonFiniteLoss(f"{found}; try a smaller training.learning_rate, {more}")
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.unread = []

    def means(self, count: int) -> dict[str, float]:
        """The mean of each term over the `count` steps since the last call."""
        means = {name: total / count for name, total in self.sums.items()}
        self.sums = {}
        return means


def read_every(device: torch.device) -> int:
    """After how many steps the losses are read at the latest: on the CPU, where it costs nothing, after each."""
    return 1 if device.type == "cpu" else READ_EVERY
