"""The device that a run is trained on: picked, named, waited for; its memory and threads."""

import contextlib
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

SMALL_NETWORK = 100_000  # parameters below which a network trains with one thread


def pick_device(device: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA, else MPS, else the CPU. Raises ValueError if it cannot be used."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.zeros(1, device=picked).tolist()  # "meta" has tensors without numbers
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        reason = " ".join(str(error).strip().partition("\n")[0].split())
        raise ValueError(f"device {device!r} cannot be used here ({reason}); try auto, cpu, cuda or mps") from error
    return picked


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def wait_for(device: torch.device) -> None:
    """Returns when the device, the current one of its kind, has done all that it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new measurement for `peak_memory_mb`, where the system lets a process do so: CUDA and Linux do."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # Resets the high-water mark of resident memory. A container may forbid it: the peak is then since the start.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_bytes(b"5")


def peak_memory_mb(device: torch.device) -> float:
    """Peak since `reset_peak_memory`, in MB: of CUDA's allocator, else of the resident memory of the process.

    On macOS and Windows nothing resets the latter: there it is the peak since the process began (on Windows that of its
    working set).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if match:
            return int(match[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource  # not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@contextlib.contextmanager
def threads_for(parameters: int) -> Iterator[int]:
    """Sets PyTorch's threads for a run whose network has this many parameters, and sets them back. Yields their number.

    A small network gains nothing from a second thread (its convolutions are too short), and loses a great deal where
    another program wants the core: the threads wait for each other many times a step.
    """
    before = torch.get_num_threads()
    if parameters < SMALL_NETWORK:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
