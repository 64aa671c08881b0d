"""Losses of any images: all implementations agree, what is finite stays finite, what cannot be used is named.
Properties, over examples that hypothesis draws."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_perceptual import save_random_vgg16
from test_streaming import needs_a_c_compiler, with_gradients
from torch import Tensor

from prffn import files
from prffn.losses import pixel_contrast
from prffn.losses.perceptual import csd_loss, perceptual_loss

SIDES = st.one_of(st.integers(1, 3), st.integers(1, 23))
SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 5), SIDES, SIDES)
"""(N, C, H, W), from one pixel on."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CONTENTS = ("random", "near", "8 bit", "constant", "black and white", "black", "same")


def images(content: str, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """An SR and an HR image in float64."""
    g = torch.Generator().manual_seed(seed)
    sr, hr = torch.rand(*shape, generator=g, dtype=torch.float64), torch.rand(*shape, generator=g, dtype=torch.float64)
    match content:
        case "random":
            return sr, hr
        case "near":  # a good SR image, which may leave [0, 1] slightly
            return hr + 0.01 * (sr - 0.5), hr
        case "8 bit":  # few values: ties in every region
            return (6 * sr).round() / 255, (6 * hr).round() / 255
        case "constant":
            return sr[:1, :, :1, :1].expand(shape).clone(), hr[:1, :, :1, :1].expand(shape).clone()
        case "black and white":
            return sr.round(), hr.round()
        case "black":
            return torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        case "same":
            return hr.clone(), hr
    raise ValueError(content)


def compiled_for(channels: int, double: bool) -> int:
    """Of those, the numbers of channels for which C code is compiled here: each takes a second, and others are in
    test_streaming.py."""
    return 3 if double else {2: 1, 4: 5}.get(channels, channels)


def definitions(smallest: float = 1e-3) -> st.SearchStrategy[dict[str, object]]:
    """Every form, similarity and source of negatives; tau and eps of several orders of magnitude."""
    infonce = st.fixed_dictionaries(
        {
            "form": st.just("infonce"),
            "similarity": st.sampled_from(("l1", "squared", "cosine", "dot")),
            "temperature": st.floats(np.log10(smallest), 1).map(lambda exponent: 10**exponent),
        }
    )
    ratio = st.fixed_dictionaries(
        {"form": st.just("ratio"), "epsilon": st.floats(-2, 0).map(lambda exponent: 10**exponent)}
    )
    negatives = st.sampled_from(("hr", "sr", "both"))
    return st.builds(lambda form, negatives: {**form, "negatives": negatives}, st.one_of(infonce, ratio), negatives)


@pytest.mark.parametrize("implementation", ["streaming", "compiled"])
@settings(max_examples=100)
@given(
    st.sampled_from(CONTENTS), SHAPES, st.one_of(st.integers(2, 9), st.sampled_from((10**6, 2**64))), definitions(),
    st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_implementations_agree(implementation, content, shape, side, definition, sr_dtype, hr_dtype, seed):
    """With the reference in float64, within the tolerances of test_streaming.py, for regions of up to more than the
    image: loss, gradients for SR and HR, in the images' own types. All are finite, or too large for half precision."""
    if implementation == "compiled":
        needs_a_c_compiler()
        shape = (shape[0], compiled_for(shape[1], torch.float64 in (sr_dtype, hr_dtype)), *shape[2:])
    contrast = functools.partial(pixel_contrast, region_size=side**2, implementation=implementation, **definition)
    sr, hr = images(content, shape, seed)
    sr, hr = sr.to(sr_dtype), hr.to(hr_dtype)
    height, width = shape[2:]
    if min(side, height) * min(side, width) == 1:
        with pytest.raises(ValueError, match="no pixel of images of shape") as error:
            contrast(sr, hr)
        assert str(shape) in str(error.value)
        return
    wide = torch.float64 if sr_dtype == torch.float64 else torch.float32
    reference = functools.partial(pixel_contrast, region_size=side**2, implementation="reference", **definition)
    loss, *gradients = with_gradients(contrast, sr, hr)
    expected, *references = with_gradients(reference, sr.double(), hr.to(wide).double())
    exact = wide == torch.float64
    assert loss.dtype == wide
    assert loss.isfinite()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10 if exact else 1e-6, abs=1e-12 if exact else 1e-9)
    term = 1 / definition.get("temperature", definition.get("epsilon")) / (sr.numel() / shape[1])
    for image, gradient, found in zip((sr, hr), gradients, references, strict=True):
        assert gradient.dtype == image.dtype
        limits = torch.finfo(image.dtype)
        fits = found.abs() < limits.max
        assert gradient[fits].isfinite().all()
        largest = found[fits].abs().max().item() if fits.any() else 0.0
        allowed = (1e-11 if exact else 1e-5) * largest + (1e-12 if exact else 2e-6) * term
        if definition.get("similarity") == "cosine":  # slopes in units of a pixel's length, of the reference's rounding
            allowed += 1e-15 * term / max(1e-6, min(x.double().norm(dim=1).min().item() for x in (sr, hr)))
        if image.dtype != wide:
            allowed += limits.eps * largest + limits.smallest_normal
        assert (gradient.double() - found)[fits].abs().max().item() <= allowed if fits.any() else True


@given(
    st.sampled_from((torch.uint8, torch.int64, torch.bool, torch.complex64)),
    st.booleans(), st.sampled_from(("streaming", "compiled", "reference")),
)  # fmt: skip
def test_images_of_other_numbers_are_refused(dtype, of_hr, implementation):
    """Bytes would wrap around, unseen."""
    pair = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)]
    pair[of_hr] = pair[of_hr].to(dtype)
    with pytest.raises(TypeError, match=f"{'hr' if of_hr else 'sr'} must be a tensor of floating.*got {dtype}"):
        pixel_contrast(*pair, implementation=implementation)
    pair[of_hr] = pair[of_hr].numpy()
    with pytest.raises(TypeError, match="got ndarray"):
        pixel_contrast(*pair, implementation=implementation)


@given(
    st.sampled_from([(0, 3, 8, 8), (1, 0, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0), (3, 8, 8), (8, 8), ()]),
    st.sampled_from(("streaming", "compiled", "reference")),
)
def test_shapes_that_hold_no_image_are_refused(shape, implementation):
    with pytest.raises(ValueError, match=r"must both be \(N, C, H, W\), not empty") as error:
        pixel_contrast(torch.zeros(shape), torch.zeros(shape), implementation=implementation)
    assert str(shape) in str(error.value)


NOT_POSITIVE = st.one_of(
    st.floats(max_value=0), st.just(float("nan")), st.just(float("inf")), st.text(max_size=4), st.none(),
    st.booleans(), st.lists(st.floats(), max_size=2), st.just(10**400), st.complex_numbers(),
)  # fmt: skip
ANYTHING = st.one_of(st.text(max_size=8), st.none(), st.integers(), st.floats(), st.lists(st.text(), max_size=2))


@settings(max_examples=200)
@given(
    st.one_of(
        st.tuples(st.sampled_from(("temperature", "epsilon")), NOT_POSITIVE),
        st.tuples(st.sampled_from(("form", "similarity", "negatives", "implementation")), ANYTHING),
        st.tuples(st.just("region_size"), ANYTHING),
    )
)
def test_wrong_arguments_are_named_with_their_value(argument):
    name, value = argument
    if name == "region_size" and isinstance(value, int) and value > 3 and round(value**0.5) ** 2 == value:
        return
    with pytest.raises(ValueError, match=f"{name} must be") as error:
        pixel_contrast(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), **{name: value})
    assert repr(value) in str(error.value)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random ones: what is asked here holds for any."""
    return save_random_vgg16(tmp_path_factory.mktemp("weights"))


@settings(max_examples=25)
@given(
    st.sampled_from(CONTENTS), st.integers(1, 2), st.integers(1, 19), st.integers(1, 19),
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_losses_of_features(weights, content, count, height, width, lr_size, dtype, seed):
    """Finite with finite gradients from the size on that the poolings need, 2 and 16 pixels; below, that is named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(files.WEIGHTS_VARIABLE, str(weights))
        sr, hr = (image.to(dtype) for image in images(content, (count, 3, height, width), seed))
        lr = images(content, (count, 3, *lr_size), seed)[0].to(dtype)
        losses = {2: perceptual_loss, 16: lambda sr, hr, backbone: csd_loss(sr, hr, lr, backbone)}
        for needed, loss in losses.items():
            x = sr.clone().requires_grad_()
            if min(height, width) < needed:
                with pytest.raises(ValueError, match=rf"needs RGB images \(N, 3, H, W\) of {needed} pixels or more"):
                    loss(x, hr, "vgg16_caffe")
                continue
            value = loss(x, hr, "vgg16_caffe")
            value.backward()
            assert value.isfinite()
            assert x.grad.dtype == dtype
            assert x.grad.isfinite().all()
            if content in ("same", "black") and loss is perceptual_loss:
                assert value == 0
