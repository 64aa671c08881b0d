"""Trains one experiment, given as JSON, in a process of its own, and prints the hash of the weights and the curve.

With a moment, such as "step 7" or "save 3", the process kills itself by SIGKILL in its seventh step from here, after
the gradients and before the weights change, or in its third save, when the file is written and not yet in place.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prffn.config import experiment
from prffn.training import train, weights_sha256

settings, checkpoint, moment = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
kind, _, number = moment.partition(" ")
left = int(number or -1)


def killing(function: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
    """The function, but for the call, of those that count, at which the process dies instead."""

    def wrapped(*arguments: Any, **more: Any) -> Any:
        global left
        left -= counts(*arguments)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)

    return wrapped


if kind == "step":
    torch.optim.Adam.step = killing(torch.optim.Adam.step, lambda *_: True)
elif kind == "save":
    os.replace = killing(os.replace, lambda _, target: Path(target) == checkpoint)

trained = train(experiment(settings), checkpoint=checkpoint, checkpoint_every=0, progress=False)
print(json.dumps({"weights": weights_sha256(trained.model), "curve": trained.curve}))
