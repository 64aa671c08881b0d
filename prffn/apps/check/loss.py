"""L_contr on a device: the value and gradient of every form, and the time and memory that it takes."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from prffn.apps.check.lines import Check, Sizes, Skipped, Wrong, ratio
from prffn.evaluation.cost import Case, LossCase, extra_memory_mb, in_rounds
from prffn.losses import Implementation, fused, implementation_for, pixel_contrast, triton_loss
from prffn.losses.contrast import CONTROLS, Contrast, Negatives, Similarity, reference

FORMS: dict[str, dict[str, Any]] = {
    **{f"InfoNCE, {s}": {"similarity": s, "temperature": 0.1} for s in get_args(Similarity)},
    "InfoNCE, squared": {},  # the default, at its small temperature
    "ratio": {"form": "ratio"},
}
MEASURED = (16, 64, 256, 1024, 4096)  # S, for time and memory
PRECISION = {"value": 1e-6, "gradient": 1e-5}  # bounds of what is off in float32, see `off`; those of the tests

REFERENCE_PRECISION = {"value": 1e-5, "gradient": 1e-5}
"""Of the definition itself in float32, whose scores of hundreds are rounded before they cancel; 1e-6 on a CPU."""

BYTES_A_PAIR = 60  # of the reference in float32, forward and backward: 52 were measured


def value_checks(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """A check for each form and implementation: against the reference in float64 on the CPU."""
    for form, how in itertools.product(FORMS, get_args(Implementation)):
        if how != "auto":
            yield Check("value and gradient", f"{form}, {how}", functools.partial(_values, form, how, device, sizes))


def _values(form: str, how: Implementation, device: torch.device, sizes: Sizes) -> str:
    """The largest errors of a form, over its negatives and region sizes. Raises Wrong naming the worst case."""
    if how == "compiled" and device.type != "cpu":
        raise Skipped("C code for the CPU")
    if how == "compiled" and not fused.works():
        raise Skipped("no C compiler works here")
    if how == "triton" and device.type != "cuda":
        raise Skipped("Triton code for GPUs")
    if how == "triton" and not triton_loss.works():
        raise Skipped("Triton is not installed")
    if how == "triton" and not triton_loss.covers(Contrast(**FORMS[form])):
        raise Skipped("not a form of the Triton code")
    negatives = [n for n in get_args(Negatives) if n not in CONTROLS or (how == "reference" and form != "ratio")]
    negatives = ["hr"] if how == "triton" else negatives
    cases = [*itertools.product(negatives, sizes.regions), *(("hr", size) for size in sizes.large)]
    bounds = REFERENCE_PRECISION if how == "reference" else PRECISION
    largest = dict.fromkeys(bounds, 0.0)
    for kind, size in cases:
        for name, error in off(Contrast(size, negatives=kind, **FORMS[form]), how, device).items():
            if not error <= bounds[name]:
                raise Wrong(f"negatives {kind}, S = {size}: {name} off by {error:.1e}, more than {bounds[name]:.0e}")
            largest[name] = max(largest[name], error)
    figures = (f"{name} off by {error:.0e} at most ({bounds[name]:.0e} allowed)" for name, error in largest.items())
    return f"{', '.join(figures)}, {len(cases)} cases"


def off(contrast: Contrast, how: Implementation, device: torch.device) -> dict[str, float]:
    """Errors in float32 beside the reference in float64: of the value, relative, and of the gradients.

    Those beside the largest entry, and a fifth of what one anchor can add: terms of that size cancel in an entry. The
    Triton code has SR's alone.
    """
    sr, hr = (image.float().to(device) for image in _images(contrast.region_size))
    wanted = [image.requires_grad_() for image in ((sr,) if how == "triton" else (sr, hr))]
    loss = pixel_contrast(sr, hr, contrast, implementation=how)
    expected, gradients = _truth(contrast)
    found = [g.cpu().double() for g in torch.autograd.grad(loss, wanted)]
    term = 1 / (contrast.epsilon if contrast.form == "ratio" else contrast.temperature) / (found[0].numel() / 3)
    errors = [
        (a - b).abs().max() / (b.abs().max() + 0.2 * term) for a, b in zip(found, gradients[: len(wanted)], strict=True)
    ]
    return {"value": abs(loss.item() / expected - 1), "gradient": float(torch.stack(errors).max())}


def _images(region_size: int) -> list[Tensor]:
    """An SR and an HR image, (N, 3, H, W) in float64 that float32 can hold: HR of 8 bits, SR near it.

    Regions of up to 1024 pixels are cut short by both borders.
    """
    shape = (2, 3, 33, 35) if region_size <= 1024 else (1, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    hr = torch.randint(256, shape, generator=generator) / 255
    return [(hr + 0.02 * torch.randn(shape, generator=generator)).double(), hr.double()]


@functools.cache
def _truth(contrast: Contrast) -> tuple[float, list[Tensor]]:
    """Value and both gradients by the definition, in float64 on the CPU."""
    sr, hr = (image.requires_grad_() for image in _images(contrast.region_size))
    loss = reference(sr, hr, contrast)
    return loss.item(), list(torch.autograd.grad(loss, (sr, hr)))


def cost_checks(device: torch.device, sizes: Sizes) -> Iterator[Check]:
    """A check for each S: what is trained with beside the reference, the default form."""
    for size in MEASURED:
        yield Check("time and memory of the loss", f"S = {size}", functools.partial(_cost, size, device, sizes))


def _cost(size: int, device: torch.device, sizes: Sizes) -> str:
    """Time and memory of loss and gradient in float32, for HR patches of 144 x 144."""
    every: tuple[Implementation, ...] = ("auto", "reference")
    missing = _reference_misses(size, device, sizes)
    cases: dict[str, Case] = {
        how: LossCase(contrast={"region_size": size}, implementation=how, batch=sizes.patches)
        for how in (every[:1] if missing else every)
    }
    seconds = in_rounds(cases, sizes.rounds, device)
    own, slow = seconds["auto"], seconds.get("reference", missing)
    if isinstance(own, str):
        raise Wrong(own)
    used = implementation_for(torch.empty(0, device=device), Contrast(size))
    found = f"{used} {_milliseconds(own)}, {extra_memory_mb(cases['auto'], device):.0f} MB; reference "
    if isinstance(slow, str):
        if not missing and "out of memory" not in slow:
            raise Wrong(slow)
        return f"{found}{slow}; patches: {sizes.patches}"
    memory = extra_memory_mb(cases["reference"], device)
    return f"{found}{_milliseconds(slow)}, {memory:.0f} MB, {ratio(slow, own)} the time; patches: {sizes.patches}"


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * np.median(seconds):.1f} ms"


def _reference_misses(size: int, device: torch.device, sizes: Sizes) -> str:
    """Why the reference is not timed; empty where it is."""
    needed = BYTES_A_PAIR * sizes.patches * 144 * 144 * size
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return f"skipped: would take {needed / 1e9:.1f} GB of {free / 1e9:.1f}" if needed > 0.9 * free else ""
    return "skipped: takes long" if size > sizes.largest_reference else ""
