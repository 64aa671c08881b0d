"""L_contr on the CPU in C: compiles fused.c for the images' channels and type when first wanted, and calls it.

It does in two passes over an anchor's candidates, in cache, what PyTorch does in a dozen over a tile of scores. No
OpenMP: a second runtime beside PyTorch's would wait for cores that PyTorch's threads still hold.
"""

import ctypes
import functools
import hashlib
import math
import os
import shlex
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prffn.paths import CACHE_VARIABLE, atomic_write, cache_root

FORMS = ("l1", "squared", "cosine", "dot", "ratio")  # in the order of fused.c
NEGATIVES = {"hr": 1, "sr": 2, "both": 3}
SOURCE = Path(__file__).with_suffix(".c")
OPTIONS = (
    *("-O3", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only"),  # see fused.c
)
LIBRARY = ("-shared", "-fPIC", "-pthread")


def is_for(sr: Tensor, hr: Tensor) -> bool:
    """Whether the C code takes such images: on the CPU, both in float32 or both in float64."""
    return sr.device.type == hr.device.type == "cpu" and sr.dtype == hr.dtype in (torch.float32, torch.float64)


def fused_pixel_contrast(
    sr: Tensor, hr: Tensor, region_size: int, kind: str, parameter: float, negatives: str
) -> Tensor:
    """`pixel_contrast` for images that `is_for` takes, and arguments already checked. Returns a scalar.

    kind: one of FORMS. parameter: tau, or epsilon of the ratio.
    Raises RuntimeError where no C compiler works, or if asked for second derivatives.
    """
    if sr.shape[0] * sr.shape[2] * sr.shape[3] == _alone(sr, region_size):
        raise ValueError(f"no pixel of images of shape {tuple(sr.shape)} has another pixel in its region")
    return _Fused.apply(sr, hr, region_size, kind, parameter, negatives).to(sr.dtype)


@functools.cache
def works() -> bool:
    """Whether the code compiles here; if not, only the streaming implementation is to be had on the CPU."""
    try:
        _library(3, double=False)
    except RuntimeError:
        return False
    return True


def _alone(image: Tensor, region_size: int) -> int:
    """How many pixels are alone in their region: those in a corner cut off by both borders."""
    side = math.isqrt(region_size)
    return image.shape[0] if image.shape[2] % side == image.shape[3] % side == 1 else 0


class _Fused(torch.autograd.Function):
    """Mean loss of two batches of images, (N, C, H, W). Backward scales the gradients that forward found."""

    @staticmethod
    def forward(ctx: Any, sr: Tensor, hr: Tensor, *settings: Any) -> Tensor:
        contrast = _contrast_as_operator if torch.compiler.is_compiling() else _contrast
        loss, grad_sr, grad_hr = contrast(sr, hr, *settings, *ctx.needs_input_grad[:2])
        ctx.save_for_backward(grad_sr, grad_hr)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *scaled_gradients(ctx, scale), None, None, None, None


def scaled_gradients(ctx: Any, scale: Tensor) -> list[Tensor | None]:
    """The two gradients that forward saved, times that of the loss; None where not wanted."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
        raise RuntimeError(
            "the streaming L_contr cannot be differentiated twice: for create_graph=True use implementation='reference'"
        )
    wanted = zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
    return [grad * scale if needed else None for grad, needed in wanted]


def _contrast(
    sr: Tensor, hr: Tensor, region_size: int, kind: str, parameter: float, negatives: str, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, in float64, and its gradients for sr and hr, empty where not wanted."""
    sr, hr = sr.contiguous(), hr.contiguous()
    loss, grad_sr, grad_hr = _outputs(sr, hr, region_size, kind, parameter, negatives, with_sr, with_hr)
    n, channels, height, width = sr.shape
    side = min(math.isqrt(region_size), max(2, height, width))  # a larger one, which C may not hold, cuts no otherwise
    losses = torch.zeros(n * math.ceil(height / side) * math.ceil(width / side), dtype=torch.float64)
    anchors = n * height * width - _alone(sr, region_size)
    failed = _library(channels, sr.dtype == torch.float64).contrast(
        *(tensor.data_ptr() for tensor in (sr, hr)),
        *(grad.data_ptr() if grad.numel() else None for grad in (grad_sr, grad_hr)),
        losses.data_ptr(),
        *(n, height, width, side),
        *(FORMS.index(kind), NEGATIVES[negatives], parameter, 1 / anchors),
        min(torch.get_num_threads(), len(losses)),
    )
    if failed:
        raise MemoryError(f"no memory for a region of {region_size} pixels")
    return loss.copy_(losses.sum() / anchors), grad_sr, grad_hr


def _outputs(
    sr: Tensor, hr: Tensor, region_size: int, kind: str, parameter: float, negatives: str, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors that `_contrast` returns, not yet filled."""
    grad_sr, grad_hr = (sr.new_empty(sr.shape if wanted else (0,)) for wanted in (with_sr, with_hr))
    return sr.new_empty((), dtype=torch.float64), grad_sr, grad_hr


# To torch.compile it is one step.
_contrast_as_operator = torch.library.custom_op("prffn::contrast", _contrast, mutates_args=())
_contrast_as_operator.register_fake(_outputs)


@functools.cache
def _library(channels: int, double: bool) -> ctypes.CDLL:
    """The compiled code for images of so many channels, from the cache if it is there."""
    compiler, target = _compiler()
    command = [*compiler, *LIBRARY, f"-DCHANNELS={channels}", *(["-DDOUBLE"] if double else [])]
    key = hashlib.sha256("\n".join((SOURCE.read_text(), shlex.join(command), target)).encode()).hexdigest()[:16]
    path = cache_root() / "compiled" / f"contrast-{key}.so"
    try:
        if not _is_whole(path):
            with tempfile.TemporaryDirectory() as folder:  # others may be at it too: the last one stays
                made = Path(folder) / path.name
                _run([*command, str(SOURCE), "-o", str(made), "-lm"])
                _keep(made.read_bytes(), path)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _does_not_work(f"{error} ({CACHE_VARIABLE} names the folder for compiled code)") from error
    settings: list[Any] = [ctypes.c_int, ctypes.c_int, ctypes.c_double, ctypes.c_double, ctypes.c_int]
    library.contrast.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 4 + settings
    return library


def _keep(code: bytes, path: Path) -> None:
    """Writes compiled code, and its checksum beside it: what is damaged must never run."""
    with atomic_write(path.with_suffix(".sha256"), "w") as file:
        file.write(hashlib.sha256(code).hexdigest())
    with atomic_write(path) as file:
        file.write(code)


def _is_whole(path: Path) -> bool:
    """Whether compiled code is there as it was written; warns if it is damaged."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        whole = path.with_suffix(".sha256").read_bytes() == found.encode()
    except FileNotFoundError:
        return False
    if not whole:
        warnings.warn(f"compiled code {path} is damaged and is not used: it is compiled anew", stacklevel=2)
    return whole


def _compiler() -> tuple[list[str], str]:
    """The command that compiles for this processor, and all that it knows of itself and of the processor."""
    command = [*shlex.split(os.environ.get("CC") or "cc"), *OPTIONS]
    describe = ["-dM", "-E", "-x", "c", os.devnull]  # all predefined macros
    try:
        native = [*command, "-march=native"]
        return native, _run([*native, *describe])
    except RuntimeError:  # some compilers do not know it
        return command, _run([*command, *describe])


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except OSError as error:
        raise _does_not_work(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise _does_not_work(f"{shlex.join(command)}\n{error.stderr}") from error


def _does_not_work(why: str) -> RuntimeError:
    return RuntimeError(
        "implementation='compiled' needs a C compiler on the CPU, `cc` or the one that the environment variable CC "
        f"names; use implementation='streaming'. It said: {why}"
    )
