"""Losses of any images: all implementations agree, what is finite stays finite, what cannot be used is named.
Properties, over examples that hypothesis draws."""

from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_inputs_settings import JUNK
from test_perceptual import save_random_vgg16
from test_streaming import CONTENTS, FORMS, NEGATIVES, check, images, using

from prffn import files
from prffn.losses import PixelContrastLoss, pixel_contrast
from prffn.losses.perceptual import csd_loss, perceptual_loss

SIDES = st.one_of(st.integers(1, 3), st.integers(1, 23))
DTYPES = st.sampled_from((torch.float16, torch.bfloat16, torch.float32, torch.float64))
DARK = {
    "black": lambda a, b: (0 * a, 0 * b),
    "black and white": lambda a, b: (a.round(), b.round()),
    "dark": lambda a, b: ((6 * a).round() / 255, (6 * b).round() / 255),
}
"""Contents with pixels of length 0, which have no direction."""


@pytest.fixture(autouse=True, scope="module")
def _dark_images():
    with pytest.MonkeyPatch.context() as patch:
        for name, make in DARK.items():
            patch.setitem(CONTENTS, name, make)
        yield


@pytest.mark.parametrize("implementation", ["streaming", "compiled"])
@settings(max_examples=100)
@given(
    st.sampled_from((*CONTENTS, *DARK)), st.tuples(st.integers(1, 2), st.integers(1, 5), SIDES, SIDES),
    st.one_of(st.integers(2, 9), st.sampled_from((10**6, 2**64))), st.sampled_from(list(FORMS)),
    st.sampled_from(NEGATIVES), DTYPES, DTYPES, st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_implementations_agree(implementation, content, shape, side, form, negatives, sr_dtype, hr_dtype, seed):
    """With the reference in float64, for regions of up to more than the image, and images of two types."""
    n, channels, height, width = shape
    if implementation == "compiled":  # each number of channels takes a second to compile
        channels = 3 if torch.float64 in (sr_dtype, hr_dtype) else {2: 1, 4: 5}.get(channels, channels)
    sr, hr = images(content, n, channels, height, width, seed=seed, dtype=torch.float64)
    sr, hr, contrast = sr.to(sr_dtype), hr.to(hr_dtype), using(implementation)
    if min(side, height) * min(side, width) == 1:
        with pytest.raises(ValueError, match="no pixel of images of shape"):
            contrast(sr, hr, side**2)
        return
    slack = 0.0
    if "cosine" in form:  # slopes in units of a pixel's length, of the reference's rounding
        slack = 1e-15 / max(1e-6, min(image.double().norm(dim=1).min().item() for image in (sr, hr)))
    check(contrast, sr, hr, side**2, slack=slack, negatives=negatives, **FORMS[form])


@pytest.mark.parametrize("implementation", ["streaming", "compiled", "reference"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_images_of_other_numbers_are_refused(dtype, implementation):
    """Bytes would wrap around, unseen."""
    for position, name in enumerate(("sr", "hr")):
        pair = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)]
        for wrong, kind in ((pair[0].to(dtype), dtype), (pair[0].numpy(), "ndarray")):
            pair[position] = wrong
            with pytest.raises(TypeError, match=f"{name} must be a tensor of floating.*got {kind}"):
                pixel_contrast(*pair, implementation=implementation)


@pytest.mark.parametrize(
    "shape", [(0, 3, 8, 8), (1, 0, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0), (3, 8, 8), (8, 8), (), (1, 3, 8, 7)]
)
def test_shapes_that_hold_no_pair_of_images_are_refused(shape):
    other = (1, 3, 8, 8) if shape == (1, 3, 8, 7) else shape
    with pytest.raises(ValueError, match=r"must both be \(N, C, H, W\), not empty") as error:
        pixel_contrast(torch.zeros(shape), torch.zeros(other))
    assert str(shape) in str(error.value)


ARGUMENTS = ("region_size", "temperature", "epsilon", "form", "similarity", "negatives", "implementation")


@settings(max_examples=200)
@example("region_size", 60)
@example("region_size", 64.0)
@given(st.sampled_from(ARGUMENTS), JUNK)
def test_wrong_arguments_are_named_with_their_value(name, value):
    if name in ("temperature", "epsilon"):
        assume(not (isinstance(value, float) and 0 < value < float("inf")))
    if name == "region_size":
        assume(value != 10**400)  # a square
    for use in (lambda **wrong: pixel_contrast(*images("random", 1, 3, 8, 8), **wrong), PixelContrastLoss):
        with pytest.raises(ValueError, match=f"{name} must be") as error:
            use(**{name: value})
        assert repr(value) in str(error.value)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random ones: what is asked here holds for any."""
    return save_random_vgg16(tmp_path_factory.mktemp("weights"))


@settings(max_examples=25)
@given(
    st.sampled_from((*CONTENTS, *DARK)), st.integers(1, 2), st.integers(1, 19), st.integers(1, 19),
    st.tuples(st.integers(1, 9), st.integers(1, 9)), DTYPES, st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_losses_of_features(weights, content, count, height, width, lr_size, dtype, seed):
    """Finite with finite gradients from the size on that the poolings need, 2 and 16 pixels; below, that is named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(files.WEIGHTS_VARIABLE, str(weights))
        sr, hr = images(content, count, 3, height, width, seed=seed, dtype=dtype)
        lr = images(content, count, 3, *lr_size, seed=seed, dtype=dtype)[0]
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
