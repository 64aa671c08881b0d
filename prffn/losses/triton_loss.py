"""L_contr on GPUs, by the Triton kernel in triton_kernel.py: one launch for a whole batch, straight from the images.

It covers what trainings use: InfoNCE of float32 RGB images with the region's other HR pixels as negatives, and the
gradient for SR. streaming.py does all else, and the cosine, whose directions are too coarse in float32. Triton comes
with PyTorch's builds for GPUs only, and takes a while to import: so it is imported with the first images.
"""

import importlib.util
import math
import os

import torch
from torch import Tensor

from prffn.losses.contrast import Contrast
from prffn.losses.fused import ClosedForm, anchors_of, closed_form, side_of
from prffn.losses.streaming import streaming_loss

FINEST = {"l1": 0.01, "squared": 0.001, "dot": 0.001}
"""The forms, and the smallest temperature of each at which float32 holds the bounds for any images (measured)."""

ANCHORS, CANDIDATES = 128, 16
"""Of a block of pairs, powers of 2 (our choice): a thread for each anchor, so that sums over candidates stay inside a
thread, and as many candidates as 128 registers hold."""


def covers(contrast: Contrast) -> bool:
    """Whether the kernel knows this definition."""
    known = contrast.form == "infonce" and contrast.negatives == "hr"
    return known and contrast.temperature >= FINEST.get(contrast.similarity, math.inf)


def is_for(sr: Tensor, contrast: Contrast) -> bool:
    """Whether the kernel takes such images on a GPU. An empty tensor, (0,), stands for RGB images."""
    rgb = sr.ndim != 4 or sr.shape[1] == 3
    return sr.device.type == "cuda" and sr.dtype == torch.float32 and rgb and covers(contrast)


INSTALLED = importlib.util.find_spec("triton") is not None


def works() -> bool:
    """Whether Triton is installed."""
    return INSTALLED


def build() -> dict[str, str]:
    """What the kernel's bits depend on beside its source and the GPU, for records: Triton's version."""
    return {"triton": importlib.import_module("triton").__version__}


def triton_loss(sr: Tensor, hr: Tensor, contrast: Contrast) -> Tensor:
    """L_contr of images that `pixel_contrast` has checked: the same value and gradient. Returns a scalar.

    Images whose HR wants a gradient too are left to `streaming_loss`.
    Raises RuntimeError for what the kernel does not cover, or if asked for second or forward-mode derivatives.
    """
    # Triton's own switch, which runs kernels on the CPU, slowly, for tests; meta tensors have no values to work on
    interpreted = sr.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    on_gpu = sr.device.type in ("cuda", "meta") or interpreted
    if not (on_gpu and works()):
        why = f"got images on {sr.device}" if not on_gpu else "Triton is not installed"
        raise RuntimeError(f"implementation='triton' is code for GPUs, and {why}: use 'auto' or 'streaming'")
    if not covers(contrast) or sr.dtype != torch.float32 or sr.shape[1] != 3:
        forms = ", ".join(f"{similarity} from temperature {least} on" for similarity, least in FINEST.items())
        known = f"float32 images of 3 channels, form='infonce' with negatives='hr' and a similarity of {forms}"
        raise RuntimeError(f"implementation='triton' knows {known}: use 'auto' or 'streaming'")
    if hr.requires_grad:
        return streaming_loss(sr, hr, contrast)
    settings = side_of(sr, contrast), contrast.similarity, contrast.temperature
    return closed_form("contrast_gpu", sr, hr, *settings).to(sr.dtype)


@torch.library.custom_op("prffn::contrast_gpu", mutates_args=())
def _contrast_gpu(
    sr: Tensor, hr: Tensor, side: int, kind: str, temperature: float, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, in float64, its gradient for sr, empty where not wanted, and an empty one for hr."""
    from prffn.losses import triton_kernel

    if with_hr:  # found out too late to turn to streaming.py: inside vmap
        raise RuntimeError("implementation='triton' gives no gradient for hr here: use implementation='streaming'")
    loss, grad_sr, grad_hr = _outputs(sr, hr, side, kind, temperature, with_sr, with_hr)
    n, _, height, width = sr.shape
    anchors, columns = min(ANCHORS, _power_of_two(side * side)), min(CANDIDATES, _power_of_two(side))
    programs = n * math.ceil(height / side) * math.ceil(width / side) * math.ceil(side * side / anchors)
    losses = torch.zeros(programs, dtype=torch.float64, device=sr.device)
    count = anchors_of(sr, side)
    with torch.cuda.device_of(sr):  # Triton launches on the current GPU
        triton_kernel.contrast[(programs,)](
            *(sr, hr, grad_sr, losses, height, width, side),
            *(*sr.stride(), *hr.stride(), *(grad_sr.stride() if with_sr else (0, 0, 0, 0))),
            *(1 / temperature, (2 if kind == "squared" else 1) / temperature / count),
            *(kind, with_sr, anchors, min(columns, CANDIDATES // columns), columns),
            num_warps=max(1, anchors // 32),
        )
    return loss.copy_(losses.sum() / count), grad_sr, grad_hr


@_contrast_gpu.register_fake
def _outputs(
    sr: Tensor, hr: Tensor, side: int, kind: str, temperature: float, with_sr: bool, with_hr: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors that `_contrast_gpu` returns: the gradient laid out like sr, and 0 so far."""
    grad_sr = torch.zeros_like(sr) if with_sr else sr.new_empty(0)
    return sr.new_empty((), dtype=torch.float64), grad_sr, sr.new_empty(0)


_contrast_gpu.register_autograd(ClosedForm.backward, setup_context=ClosedForm.setup_context)


def _power_of_two(least: int) -> int:
    """The smallest power of 2 that is not less."""
    return 1 << (least - 1).bit_length()
