"""Losses: L_contr, the pixel-wise contrastive loss, here; L_perc and L_CSD in perceptual.py.

`contrast.py` holds L_contr's definition; `streaming.py`, `fused.py` (C, on the CPU) and `triton_loss.py` (on GPUs)
compute it faster, with equal values.
"""

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from prffn.losses import fused, triton_loss
from prffn.losses.contrast import CONTROLS, Contrast, reference
from prffn.losses.streaming import streaming_loss

Implementation = Literal["auto", "compiled", "triton", "streaming", "reference"]
IMPLEMENTATIONS = get_args(Implementation)


def pixel_contrast(
    sr: Tensor,
    hr: Tensor,
    contrast: Contrast | int | None = None,
    *,
    rgb_range: float = 1.0,
    implementation: Implementation = "auto",
    **settings: Any,
) -> Tensor:
    """L_contr between SR and HR images (Sec. 3). Returns a scalar.

    sr, hr: (N, 3, H, W), RGB in [0, rgb_range]; any number of channels from 1 on. Half precisions are computed in
        float32. Regions start at the top left. Where H or W is not a multiple of a region's side, the last regions hold
        the pixels that are left (our choice); a pixel alone in its region is left out of the mean.
    contrast: the definition, or its `region_size`; settings: of `Contrast`, by name.
    rgb_range: 1, or 255 for images in grey levels: the value is that of the images in [0, 1].
    implementation: "compiled", one pass without (S, S) matrices, in C on the CPU, where there is a C compiler;
        "triton", that pass in one launch on a GPU, for float32 RGB images and what `triton_loss.covers` (where HR wants
        a gradient, "streaming" takes over); "streaming", that pass in PyTorch; "reference", the definition written out,
        with its (S, S) matrices and derivatives of any order; "auto", the fastest that works for these tensors. All
        give the same loss and gradient to 1e-6.
    Raises ValueError for shapes that differ, images far outside the range, and what `Contrast` refuses; TypeError for
    images of whole numbers; RuntimeError where the compiler, Triton or a second derivative does not work.
    """
    definition = _definition(contrast, settings)
    _check_implementation(implementation)
    for name, image in (("sr", sr), ("hr", hr)):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"{name} must be a tensor of floating-point numbers, RGB in [0, {rgb_range:g}], got {kind}")
    if sr.shape != hr.shape or sr.ndim != 4 or not sr.numel():
        shapes = f"{tuple(sr.shape)} and {tuple(hr.shape)}"
        raise ValueError(f"sr and hr must both be (N, C, H, W), not empty, got {shapes}")
    if max(sr.shape[2:]) == 1:
        raise ValueError(f"no pixel of images of shape {tuple(sr.shape)} has another pixel in its region")
    _check_range(hr, rgb_range)
    if sr.dtype in (torch.float16, torch.bfloat16):
        sr = sr.float()
    hr = hr.to(sr.dtype)
    if rgb_range != 1:
        sr, hr = sr / rgb_range, hr / rgb_range
    if definition.negatives in CONTROLS and implementation not in ("auto", "reference"):
        raise ValueError(f"implementation {implementation!r} does not know negatives={definition.negatives!r}")
    chosen = implementation_for(sr, definition) if implementation == "auto" else implementation
    if chosen == "reference":
        return reference(sr, hr, definition)
    if not torch.is_grad_enabled():
        sr, hr = sr.detach(), hr.detach()  # no gradient to work out
    if chosen == "compiled":
        if sr.device.type not in ("cpu", "meta"):
            raise RuntimeError(f"implementation='compiled' is C code for the CPU; on {sr.device} use 'auto'")
        return fused.compiled_loss(sr, hr, definition)
    if chosen == "triton":
        return triton_loss.triton_loss(sr, hr, definition)
    return streaming_loss(sr, hr, definition)


def implementation_for(sr: Tensor, contrast: Contrast) -> Implementation:
    """The fastest implementation that works for such images: what "auto" takes, and all trainings of the kit."""
    if contrast.negatives in CONTROLS:
        return "reference"  # controls, which nobody trains with for their own sake
    if triton_loss.is_for(sr, contrast) and triton_loss.works():
        return "triton"
    return "compiled" if fused.is_for(sr, contrast) and fused.works() else "streaming"


def computed_by(contrast: Contrast, device: torch.device) -> dict[str, str]:
    """What "auto" is on a device, for records: {"L_contr": "streaming"}, or another with what it was built with.

    Of "compiled" that is the compiler, its options and a checksum of what it knows of the processor; of "triton", the
    version of Triton.
    """
    how = implementation_for(torch.empty(0, device=device), contrast)
    builds = {"compiled": fused.build, "triton": triton_loss.build}
    return {"L_contr": how, **(builds[how]() if how in builds else {})}


class PixelContrastLoss(nn.Module):
    """L_contr as a module: `PixelContrastLoss(region_size=64)(sr, hr)`. Arguments as in `pixel_contrast`.

    used: the implementation that the last images got; None before any.
    """

    def __init__(
        self,
        contrast: Contrast | int | None = None,
        *,
        rgb_range: float = 1.0,
        implementation: Implementation = "auto",
        **settings: Any,
    ) -> None:
        super().__init__()
        self.contrast = _definition(contrast, settings)
        self.rgb_range = rgb_range
        self.implementation: Implementation = implementation
        self.used: Implementation | None = None
        _check_implementation(implementation)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        how = self.implementation
        self.used = implementation_for(sr, self.contrast) if how == "auto" and isinstance(sr, Tensor) else how
        return pixel_contrast(sr, hr, self.contrast, rgb_range=self.rgb_range, implementation=how)

    def extra_repr(self) -> str:
        c = self.contrast
        detail = f"epsilon={c.epsilon}" if c.form == "ratio" else f"{c.similarity}, tau={c.temperature}"
        used = f" ({self.used})" if self.used and self.implementation == "auto" else ""
        return f"region_size={c.region_size}, {c.form}, {detail}, negatives={c.negatives}, {self.implementation}{used}"


def _definition(contrast: Contrast | int | None, settings: dict[str, Any]) -> Contrast:
    if isinstance(contrast, Contrast):
        if settings:
            raise TypeError(f"give a Contrast or its settings, not both: got {', '.join(settings)} too")
        return contrast
    return Contrast(**settings) if contrast is None else Contrast(contrast, **settings)


def _check_implementation(name: str) -> None:
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {name!r}")


_ranges_checked: set[tuple[str, float]] = set()


def _check_range(hr: Tensor, rgb_range: float) -> None:
    """Raises ValueError for HR values half a range outside [0, rgb_range]; warns of images that hardly leave 0.

    On an accelerator only the first images of a range are looked at: each look would wait for the device.
    """
    if not rgb_range > 0:
        raise ValueError(f"rgb_range must be 1 or 255, the largest value of the images, got {rgb_range!r}")
    if torch.compiler.is_compiling() or hr.is_meta or isinstance(hr, FakeTensor):
        return  # no values to look at
    seen = hr.device.type != "cpu" and (hr.device.type, rgb_range) in _ranges_checked
    if seen or torch._C._functorch.is_functorch_wrapped_tensor(hr):
        return
    _ranges_checked.add((hr.device.type, rgb_range))
    low, high = (value.item() / rgb_range for value in hr.detach().aminmax())
    if -float("inf") < low and high < float("inf") and (low < -0.5 or high > 1.5):
        raise ValueError(
            f"hr holds values from {low * rgb_range:.4g} to {high * rgb_range:.4g}, far outside [0, {rgb_range:g}]: "
            "give rgb_range=255 for images in grey levels, (x + 1) / 2 of images in [-1, 1]"
        )
    if rgb_range > 1 and 0 < high <= 1 / rgb_range:
        warnings.warn(f"hr holds no value above 1: are these images in [0, 1], not [0, {rgb_range:g}]?", stacklevel=3)
