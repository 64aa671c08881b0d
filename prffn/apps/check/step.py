"""The training step of a network in each precision, memory format and compiled; the training loop beside it."""

import functools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prffn.apps.check.lines import Check, Sizes, Skipped, Wrong, ratio
from prffn.config import PHOTOGRAPHS, Experiment, experiment
from prffn.data.patches import AHEAD
from prffn.evaluation.cost import begin_memory
from prffn.models.complexity import parameters
from prffn.training.device import peak_memory_mb, threads_for, wait_for
from prffn.training.graphs import with_cuda_graphs
from prffn.training.loop import build_model, patches_of, train
from prffn.training.objective import loss_terms, weighted
from prffn.training.schedule import adam

KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"training.bfloat16": True},
    "channels_last": {"training.channels_last": True},
    "bfloat16, channels_last": {"training.bfloat16": True, "training.channels_last": True},
    "compiled": {"training.compiled": True},  # last: it takes the longest to start
}

PRECISION = 0.003
"""Bound of what is off in float32, see `_off`: four times as much as with inputs of convolutions rounded to TF32, which
a GPU may do."""

BFLOAT16_PRECISION = 0.04  # in bfloat16: four times what it is off on a CPU
BLOCK = 8  # steps that are timed together
BLOCKS = (2, 5)  # how many blocks of steps are timed, at least and at most
ENOUGH = 12.0  # seconds after which no more blocks are wanted


def step_checks(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """A check for each kind of step, at profile `paper`'s network, patches and batch where they are not small."""
    for kind, settings in KINDS.items():
        yield Check("training step", kind, functools.partial(_step, settings, device, sizes))


def _step(kind: dict[str, Any], device: torch.device, sizes: Sizes) -> str:
    """Time and memory of a step, and of the loop beside it. Raises Wrong if output or gradient are not float32's."""
    network = {**PHOTOGRAPHS, **sizes.network}
    e, plain = experiment({**network, **kind}), experiment(network)
    if e.training.compiled and not _can_compile(device):
        raise Skipped("no C++ compiler here, which torch.compile needs for the CPU")
    bound = BFLOAT16_PRECISION if e.training.bfloat16 else PRECISION
    with threads_for(parameters(build_model(e))):
        before = begin_memory(device)
        bare = BareStep(e, device)
        errors = _off(bare, plain)
        for name, error in errors.items():
            if not error <= bound:
                raise Wrong(f"{name} off by {error:.2g} from float32 on the CPU, more than {bound:g}")
        bare.step()
        wait_for(device)
        memory = peak_memory_mb(device) - before
        loop, alone = beside_loop(bare)
    off = ", ".join(f"{name} off by {error:.1g}" for name, error in errors.items())
    return (
        f"{np.median(alone):.3g} s, {memory:.0f} MB; {1 / np.median(loop):.3g} steps a second in the loop, "
        f"{1 / np.median(alone):.3g} alone: {ratio(loop, alone)} the time; {off} ({bound:g} allowed)"
    )


def _can_compile(device: torch.device) -> bool:
    return device.type != "cpu" or any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++")))


class BareStep:
    """Forward, loss, backward and optimizer, as in training, on one batch that stays on the device."""

    def __init__(self, e: Experiment, device: torch.device) -> None:
        self.e, self.device = e, device
        layout = torch.channels_last if e.training.channels_last else torch.contiguous_format
        model = build_model(e).to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
        self.lr, self.hr = (image.to(device, memory_format=layout) for image in patches_of(e).batch())
        self.model: nn.Module = model
        self.network = torch.compile(model) if e.training.compiled else with_cuda_graphs(model, self.lr, e.training)
        self.optimizer = adam(model, e.training)

    def gradients(self) -> Tensor:
        """Makes the gradients of the weights. Returns the SR images."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.e.training.bfloat16):
            sr = self.network(self.lr)
        sr = sr.float()
        total = sum(weighted(loss_terms(sr, self.hr, self.lr, self.e.loss), self.e.loss).values())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[union-attr]
        return sr.detach()

    def step(self) -> None:
        """A training step."""
        self.gradients()
        self.optimizer.step()


def _off(bare: BareStep, plain: Experiment) -> dict[str, float]:
    """How far a step is off from float32 on the CPU, as root mean squares.

    The output is that of the first patch, beside its own spread over the pixels; the gradient is that of all weights.
    """
    images = bare.gradients()[:1].cpu()
    expected_images, expected = _truth(plain)
    return {
        "output": float((images - expected_images).square().mean().sqrt() / expected_images.std()),
        "gradient": float((_gradient(bare.model) - expected).norm() / expected.norm()),
    }


@functools.cache
def _truth(e: Experiment) -> tuple[Tensor, Tensor]:
    """The first patch's SR image and the gradient of all weights, on the CPU: one patch after the other, whose mean the
    batch's loss is, for a laptop's memory."""
    lr, hr = patches_of(e).batch()
    model, images = build_model(e), []
    for n in range(len(lr)):
        patch = slice(n, n + 1)
        images.append(model(lr[patch]))
        terms = weighted(loss_terms(images[-1], hr[patch], lr[patch], e.loss), e.loss)
        (sum(terms.values()) / len(lr)).backward()  # type: ignore[union-attr]
    return images[0].detach(), _gradient(model)


def _gradient(model: nn.Module) -> Tensor:
    """The gradient of all weights in a row."""
    return torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])


class _Enough(Exception):
    """Ends a training that has been timed."""


def beside_loop(bare: BareStep) -> tuple[list[float], list[float]]:
    """Seconds of a step in the training loop and of the bare step, in blocks of steps that alternate.

    The loop is that of a long training, which then is left. Its first block does not count, nor, of each, the steps
    whose batches were drawn ahead while the bare steps were made.
    """
    loop: list[float] = []
    alone: list[float] = []
    began = first = 0.0

    def on_step(step: int) -> None:
        nonlocal began, first
        block_number, place = divmod(step, AHEAD + BLOCK)
        if place not in (0, AHEAD):
            return
        wait_for(bare.device)
        if place == AHEAD:
            began = time.perf_counter()
        elif block_number == 1:
            first = time.perf_counter()
        else:
            loop.append((time.perf_counter() - began) / BLOCK)
            began = time.perf_counter()
            for _ in range(BLOCK):
                bare.step()
            wait_for(bare.device)
            alone.append((time.perf_counter() - began) / BLOCK)
            late = time.perf_counter() - first > ENOUGH
            if len(loop) >= BLOCKS[1] or (late and len(loop) >= BLOCKS[0]):
                raise _Enough

    with suppress(_Enough):
        train(bare.e, device=bare.device, progress=False, on_step=on_step)
    return loop, alone
