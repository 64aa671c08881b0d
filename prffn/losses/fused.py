"""L_contr on the CPU in C: compiles fused.c for the images' channels and type when first wanted, and calls it.

It does in two passes over an anchor's candidates, in cache, what PyTorch does in a dozen over a tile of scores. No
OpenMP: a second runtime beside PyTorch's would wait for cores that PyTorch's threads still hold. PyTorch calls it as an
operator of its own, so that C never gets a tensor without numbers, as torch.compile, export and meta tensors have them.
"""

import ctypes
import functools
import hashlib
import math
import os
import re
import shlex
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from prffn.files import CACHE_VARIABLE, atomic_write, cache_root
from prffn.losses.contrast import Contrast

FORMS = ("l1", "squared", "cosine", "dot", "ratio")  # in the order of fused.c
NEGATIVES = {"hr": 1, "sr": 2, "both": 3}
SOURCE = Path(__file__).with_suffix(".c")
OPTIONS = (
    *("-O3", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only"),  # see fused.c
)
LIBRARY = ("-shared", "-fPIC", "-pthread")

SORTED = 2048
"""Above this many pixels per region, sorting (streaming.py, for the ratio) beats the all-pairs C code (measured)."""


def is_for(sr: Tensor, contrast: Contrast) -> bool:
    """Whether the C code takes such images, on the CPU in float32 or float64, and is the fastest for them."""
    large_ratio = contrast.form == "ratio" and contrast.region_size > SORTED
    return sr.device.type == "cpu" and sr.dtype in (torch.float32, torch.float64) and not large_ratio


def kind_of(contrast: Contrast) -> tuple[str, float]:
    """Which of FORMS, and its temperature or epsilon."""
    if contrast.form == "ratio":
        return "ratio", contrast.epsilon
    return contrast.similarity, contrast.temperature


def compiled_loss(sr: Tensor, hr: Tensor, contrast: Contrast) -> Tensor:
    """L_contr of images that `pixel_contrast` has checked and `is_for` takes. Returns a scalar.

    Raises RuntimeError where no C compiler works, or if asked for second or forward-mode derivatives.
    """
    return closed_form("contrast", sr, hr, side_of(sr, contrast), *kind_of(contrast), contrast.negatives).to(sr.dtype)


@functools.cache
def works() -> bool:
    """Whether the code compiles here; if not, only the streaming implementation is to be had on the CPU."""
    try:
        _library(3, double=False)
    except RuntimeError:
        return False
    return True


def side_of(image: Tensor, contrast: Contrast) -> int:
    """The side of a region. One larger than the image, which C may not hold, cuts no otherwise than this."""
    return min(math.isqrt(contrast.region_size), max(2, *image.shape[2:]))


def anchors_of(image: Tensor, side: int) -> int:
    """How many pixels are anchors: all but one that is alone in its region, in a corner cut off by both borders."""
    n, _, height, width = image.shape
    return n * height * width - (n if height % side == width % side == 1 else 0)


def closed_form(operator: str, x: Tensor, y: Tensor, *settings: Any) -> Tensor:
    """Return the loss of x and y, a scalar, from an operator of torch.ops.prffn that also returns its two gradients."""
    return _call(x, y, *settings, x.requires_grad, y.requires_grad, operator)[0]


def _call(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    if not torch.compiler.is_compiling():
        return ClosedForm.apply(*arguments)
    if forward_ad._current_level >= 0:  # torch.compile takes no Function's `jvp`; the operator's own would be 0
        raise _needs_reference("in forward mode")
    return getattr(torch.ops.prffn, arguments[-1])(*arguments[:-1])


class ClosedForm(torch.autograd.Function):
    """Calls the operator; backward scales the gradients that it returned."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return getattr(torch.ops.prffn, arguments[-1])(*arguments[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, scale: Tensor | None, *of_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if any(gradient is not None for gradient in of_gradients):
            raise _needs_reference("twice")
        wanted = ctx.needs_input_grad
        saved = zip(ctx.saved_tensors, wanted, strict=False)
        found = (grad * scale if needed and scale is not None else None for grad, needed in saved)
        return *found, *[None] * len(wanted[2:])

    @staticmethod
    @torch._disable_dynamo  # by itself it would be compiled with gradients of the gradients
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, y: Tensor, *rest: Any) -> Any:
        *settings, with_x, with_y, operator = rest
        results = []
        for n in range(info.batch_size):
            a, b = (t if dim is None else t.select(dim, n) for t, dim in zip((x, y), in_dims, strict=False))
            wanted = with_x or a.requires_grad, with_y or b.requires_grad
            results.append(_call(a, b, *settings, *wanted, operator))
        return tuple(torch.stack(found) for found in zip(*results, strict=True)), (0, 0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        raise _needs_reference("in forward mode")


def _needs_reference(how: str) -> RuntimeError:
    return RuntimeError(f"the fast L_contr cannot be differentiated {how}: use implementation='reference'")


@torch.library.custom_op("prffn::contrast", mutates_args=())
def _contrast(
    sr: Tensor, hr: Tensor, side: int, kind: str, parameter: float, negatives: str, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, in float64, and its gradients for sr and hr, empty where not wanted."""
    sr, hr = sr.contiguous(), hr.contiguous()
    loss, grad_sr, grad_hr = _outputs(sr, hr, side, kind, parameter, negatives, with_sr, with_hr)
    n, channels, height, width = sr.shape
    losses = sr.new_zeros(n * math.ceil(height / side) * math.ceil(width / side), dtype=torch.float64)
    anchors = anchors_of(sr, side)
    failed = _library(channels, sr.dtype == torch.float64).contrast(
        *(_address(tensor) for tensor in (sr, hr, grad_sr, grad_hr, losses)),
        *(n, height, width, side),
        *(FORMS.index(kind), NEGATIVES[negatives], parameter, 1 / anchors),
        min(torch.get_num_threads(), len(losses)),
    )
    if failed:
        raise MemoryError(f"no memory for regions of {side} x {side} pixels")
    return loss.copy_(losses.sum() / anchors), grad_sr, grad_hr


@_contrast.register_fake
def _outputs(
    sr: Tensor, hr: Tensor, side: int, kind: str, parameter: float, negatives: str, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors that `_contrast` returns, not yet filled."""
    grad_sr, grad_hr = (sr.new_empty(sr.shape if wanted else (0,)) for wanted in (with_sr, with_hr))
    return sr.new_empty((), dtype=torch.float64), grad_sr, grad_hr


_contrast.register_autograd(ClosedForm.backward, setup_context=ClosedForm.setup_context)


def _address(tensor: Tensor) -> int | None:
    """Where the CPU finds the values of a tensor; None for an empty one, which C takes as not wanted."""
    if not tensor.numel():
        return None
    address = tensor.data_ptr() if tensor.device.type == "cpu" else 0
    if not address:
        raise RuntimeError(f"the compiled L_contr needs values in memory, got {type(tensor)}, {tensor.device}")
    return address


@functools.cache
def _library(channels: int, double: bool) -> ctypes.CDLL:
    """The compiled code for images of this many channels, from the cache if it is there."""
    compiler, target = _compiler()
    command = [*compiler, *LIBRARY, f"-DCHANNELS={channels}", *(["-DDOUBLE"] if double else [])]
    source = SOURCE.read_text(encoding="utf-8")
    key = hashlib.sha256("\n".join((source, shlex.join(command), target)).encode()).hexdigest()[:16]
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
        warnings.warn(f"compiled code {path} is damaged and is not used: it is compiled again", stacklevel=2)
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


def build() -> dict[str, str]:
    """What the compiled code's bits depend on beside its source, for records.

    The compiler's version, its options for the numbers, and a checksum of all that it predefines for this processor.
    Raises RuntimeError where no C compiler works.
    """
    command, target = _compiler()
    found = re.search(r'^#define __VERSION__ "(.*)"', target, re.MULTILINE)
    return {
        "compiler": found[1] if found else "unknown",
        "options": shlex.join(command[command.index(OPTIONS[0]) :]),
        "target": hashlib.sha256(target.encode()).hexdigest()[:16],
    }


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout
    except OSError as error:
        raise _does_not_work(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise _does_not_work(f"{shlex.join(command)}\n{error.stderr}") from error


def _does_not_work(why: str) -> RuntimeError:
    needs = "implementation='compiled' needs a C compiler, `cc` or that of the environment variable CC"
    return RuntimeError(f"{needs}; use implementation='streaming'. It said: {why}")
