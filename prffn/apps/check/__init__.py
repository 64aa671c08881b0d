"""Every path that a device takes, proved on it in minutes: `python -m prffn check`.

A line for each check, passed, failed or skipped with the reason: printed as it comes, and in the end on one page,
reports/check/<device>.md. A check that fails stops no other one.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from prffn.apps.check.lines import Check, Line, Sizes, performed, sizes_for
from prffn.apps.check.loss import cost_checks, value_checks
from prffn.apps.check.programs import program_checks
from prffn.apps.check.step import step_checks
from prffn.files import atomic_write, reports_root
from prffn.losses import implementation_for
from prffn.losses.contrast import Contrast
from prffn.training.device import device_name, pick_device

SECONDS = 420  # after these no check is started: all of them take 8 minutes at most


def run(asked: str) -> int:
    """Makes all checks on a device and writes the page. Returns the exit status: 1 if one has failed.

    Raises ValueError for a device that cannot be used.
    """
    device, began = pick_device(asked), time.perf_counter()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what waits, waits for the current one
    lines = []
    for line in _lines(device, began):
        print(line, flush=True)
        lines.append(line)
    path = reports_root() / "check" / f"{device.type}.md"
    with atomic_write(path, "w") as file:
        file.write(page(lines, device, time.perf_counter() - began))
    print(f"{summary(lines)}: {path}")
    return int(any(line.state == "failed" for line in lines))


def _lines(device: torch.device, began: float) -> Iterator[Line]:
    """The line of each check, as soon as it is made."""
    sizes = sizes_for(device)
    for part in PARTS:
        for check in part(device, sizes):
            if time.perf_counter() - began > SECONDS:
                yield Line(check.part, check.name, "skipped", f"the {SECONDS} s for all checks are over")
            else:
                yield performed(check, device)


def machine_checks(device: torch.device, _: Sizes) -> Iterator[Check]:
    """What everything is run by: nothing that could fail once the device has been used."""
    yield Check("machine", "versions", _versions)
    yield Check("machine", "device", lambda: _device(device))


PARTS: tuple[Callable[[torch.device, Sizes], Iterator[Check]], ...] = (
    machine_checks, value_checks, cost_checks, program_checks, step_checks,
)  # fmt: skip
"""In the order in which they are made: what takes longest comes last."""


def _versions() -> str:
    found = {"Python": platform.python_version(), "commit": _commit()}
    for name in ("prffn", "torch", "torchvision", "numpy"):
        with suppress(PackageNotFoundError):  # torchvision is not needed for all, a checkout not installed
            found[name] = version(name)
    if torch.version.cuda and torch.cuda.is_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none"
        found |= {"CUDA": torch.version.cuda, "cuDNN": str(torch.backends.cudnn.version()), "nccl": nccl}
    return ", ".join(f"{name} {value}" for name, value in found.items() if value)


def _commit() -> str:
    try:
        from prffn.study.provenance import commit  # for which the kit is needed
    except ImportError:
        return ""
    found = commit() or ""
    return found[:12] + found[40:]  # with the "+" of uncommitted changes


def _device(device: torch.device) -> str:
    how = implementation_for(torch.empty(0, device=device), Contrast())
    found = f"{device_name(device)}, L_contr by {how!r}"
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        found += f", {p.total_memory / 1e9:.0f} GB, compute capability {p.major}.{p.minor}"
        found += f", GPUs: {torch.cuda.device_count()}, processor: {device_name(torch.device('cpu'))}"
    return f"{found}, {os.cpu_count()} cores, threads: {torch.get_num_threads()}, {platform.system()}"


def summary(lines: list[Line]) -> str:
    """How many lines have passed, failed, been skipped."""
    states = Counter(line.state for line in lines)
    return ", ".join(f"{states[state]} {state}" for state in ("passed", "failed", "skipped"))


def page(lines: list[Line], device: torch.device, seconds: float) -> str:
    """The page, in Markdown."""
    cells = [(line.part, line.name, line.state, line.found, f"{line.seconds:.1f}") for line in lines]
    rows = [("part", "check", "result", "found", "s"), ("---",) * 5, *cells]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    small = " On a CPU the sizes are small." if device.type == "cpu" else ""
    return f"""# Checks on {device.type}: {summary(lines)}

Made by `python -m prffn check --device {device.type}` on {datetime.now(UTC):%Y-%m-%d} in {seconds:.0f} s.{small}

- *Value and gradient* of each form of the loss: in float32, beside the reference in float64 on the CPU, over negatives
  and region sizes. The value's error is relative, the gradients' are in parts of their largest entry.
- *Time and memory of the loss*: forward and backward in float32 on HR patches of 144 x 144, medians; memory is the peak
  above what there was before. *Training step*: forward, loss, backward and optimizer on one batch; the loop is that of
  a training. Ratios are paired, measured in alternation: the median, with the smallest and the largest.
- *Off*, of a training step: root mean square of what differs from float32 on the CPU, in the output and in the gradient
  of all weights, relative. *Of the way*: the distance of two networks' weights, over the distance from the first ones.

{table}
"""
