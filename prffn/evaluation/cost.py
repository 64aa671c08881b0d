"""What losses, training steps and networks cost: seconds in rounds side by side, memory in a process for each case.

In a round each case is called once, one after the other, so that a machine that slows down slows all alike: read the
paired ratios, and their spread. A process has its own peak of memory.
"""

import ctypes
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from prffn.files import in_one_line
from prffn.losses import Implementation, pixel_contrast
from prffn.losses.contrast import Contrast
from prffn.models import PRFFN, build
from prffn.training.device import peak_memory_mb, reset_peak_memory, wait_for
from prffn.training.loop import progress_bar

Call = Callable[[], Any]


class Case(Protocol):
    """What can be timed: a frozen dataclass with fields that JSON can hold."""

    def call(self, device: torch.device) -> Call:
        """What is timed, with its data and network on the device."""
        ...


def _patches(batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """HR patches of 144 x 144 in [0, 1], and SR ones near them, (batch, 3, 144, 144)."""
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(batch, 3, 144, 144, generator=generator)
    return (hr + 0.1 * torch.randn(hr.shape, generator=generator)).to(device), hr.to(device)


@dataclass(frozen=True, kw_only=True)
class LossCase:
    """L_contr and its gradient for `batch` HR patches of 144 x 144."""

    contrast: Mapping[str, Any]  # settings of `Contrast`
    implementation: Implementation
    batch: int = 16

    def call(self, device: torch.device) -> Call:
        sr, hr = _patches(self.batch, device)
        sr.requires_grad_()
        contrast = Contrast(**self.contrast)

        def once() -> None:
            sr.grad = None
            pixel_contrast(sr, hr, contrast, implementation=self.implementation).backward()

        return once


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """A training step of full-size PRFFN at x3 with `batch` LR patches of 48 x 48: L_1, and L_contr if it is given."""

    contrast: Mapping[str, Any] | None = None  # settings of `Contrast`; None for L_1 alone
    implementation: Implementation = "auto"
    batch: int = 16

    def call(self, device: torch.device) -> Call:
        lr = torch.rand(self.batch, 3, 48, 48, generator=torch.Generator().manual_seed(1)).to(device)
        _, hr = _patches(self.batch, device)
        model = PRFFN(3, generator=torch.Generator().manual_seed(0)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        contrast = None if self.contrast is None else Contrast(**self.contrast)

        def once() -> None:
            sr = model(lr)
            loss = F.l1_loss(sr, hr)
            if contrast is not None:
                loss = loss + 0.1 * pixel_contrast(sr, hr, contrast, implementation=self.implementation)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return once


@dataclass(frozen=True, kw_only=True)
class ForwardCase:
    """One LR image of height x width through a network of NETWORKS, without gradients, its weights drawn at random.

    The values of the weights do not matter: no network here skips work where they are zero (SMSR's authors' code does).
    options: what differs from the published size, such as {"channels": 16}.
    """

    network: str
    scale: int
    height: int
    width: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def call(self, device: torch.device) -> Call:
        generator = torch.Generator().manual_seed(0)
        model = build(self.network, self.scale, generator=generator, **self.options).to(device).eval()
        lr = torch.rand(1, 3, self.height, self.width, generator=generator).to(device)
        return torch.inference_mode()(lambda: model(lr))


def in_rounds(cases: Mapping[str, Case], rounds: int, device: torch.device) -> dict[str, list[float] | str]:
    """Seconds of each case in each round, by label, after a call that does not count; the error of one that fails."""
    found: dict[str, list[float] | str] = {}
    calls: dict[str, Call] = {}
    bar = progress_bar(total=(1 + rounds) * len(cases), desc="timing", unit="call", leave=False)
    for label, case in cases.items():
        bar.set_postfix_str(label)
        try:
            call = case.call(device)
            call()  # compiles, and touches memory for the first time
            calls[label], found[label] = call, []
        except Exception as error:
            found[label] = in_one_line(error)
        bar.update()
    for _ in range(rounds):
        for label, call in calls.items():
            bar.set_postfix_str(label)
            found[label].append(_seconds(call, device))  # type: ignore[union-attr]
            bar.update()
    bar.close()
    return found


def _seconds(call: Call, device: torch.device) -> float:
    """Of one call. (PyTorch's Timer makes two more before it, each time.)"""
    wait_for(device)
    began = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - began


def peak_memory(cases: Mapping[str, Case], device: torch.device, at_once: int = 1) -> dict[str, float | str]:
    """Peak memory of two calls of each case, in MB above what its process had; the error of one that fails.

    at_once: how many are measured at a time, each in a process of its own: the machine needs the memory of all.
    """

    def measure(case: Case) -> float | str:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                return process.submit(extra_memory_mb, case, device).result()
            except Exception as error:
                return in_one_line(error)

    bar = progress_bar(total=len(cases), desc="memory", unit="case", leave=False)
    with ThreadPoolExecutor(at_once) as threads, bar:
        found = {}
        for label, peak in zip(cases, threads.map(measure, cases.values()), strict=True):
            found[label] = peak
            bar.update()
    return found


def begin_memory(device: torch.device) -> float:
    """Begins a measurement for `peak_memory_mb`. Returns the MB in use now, without what the process has freed."""
    with suppress(OSError, AttributeError):  # the C library of Linux keeps freed memory for later
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory(device)
    return peak_memory_mb(device)


def extra_memory_mb(case: Case, device: torch.device) -> float:
    """Peak memory of two calls of a case, in MB above what this process has."""
    call = case.call(device)
    before = begin_memory(device)
    for _ in range(2):
        call()
    return max(0.0, peak_memory_mb(device) - before)
