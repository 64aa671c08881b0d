"""What a record was made with: versions, device, commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from prffn.files import checkout
from prffn.training.device import device_name


def commit() -> str | None:
    """The checkout's commit, with '+' for uncommitted changes to the package; None outside a git checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "prffn") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(checkout()), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def provenance(device: torch.device, threads: int, processes: int = 1) -> dict[str, Any]:
    """Versions, device, PyTorch's threads, commit, and how many processes if several, as they go into a record."""
    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow", "lpips")
    return {
        "device": device.type,
        "device_name": device_name(device),
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": commit(),
    }


def measured(started: datetime, device: torch.device) -> dict[str, Any]:
    """What a record of a measurement that ends now says of when and where it was made."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": provenance(device, torch.get_num_threads()),
    }
