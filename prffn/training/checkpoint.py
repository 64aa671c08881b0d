"""Checkpoints of trainings: the whole state with its checksum, written atomically, never used when damaged."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from prffn.files import atomic_write, in_one_line
from prffn.models.weights import CHECKPOINT_MAGIC


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes the state with its SHA-256 in front, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    with atomic_write(path) as file:
        file.write(CHECKPOINT_MAGIC + hashlib.sha256(payload).digest())
        file.write(payload)


def load_checkpoint(path: Path, identity: str | None = None) -> dict[str, Any] | None:
    """The state in a checkpoint; None, with a warning if it is damaged or of another experiment, if it has no use."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    head = len(CHECKPOINT_MAGIC)
    digest, payload = content[head : head + 32], content[head + 32 :]
    if content[:head] != CHECKPOINT_MAGIC or hashlib.sha256(payload).digest() != digest:
        warnings.warn(f"checkpoint {path} is damaged and is not used: training starts from scratch", stacklevel=2)
        return None
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        state["identity"], state["step"], state["model"]
    except Exception as error:  # its checksum is right: another program wrote it, or another version
        reason = in_one_line(error)
        warnings.warn(f"checkpoint {path} is not of this kit and is not used ({reason})", stacklevel=2)
        return None
    if identity is not None and state["identity"] != identity:
        warnings.warn(f"checkpoint {path} is of another experiment and is not used", stacklevel=2)
        return None
    return state
