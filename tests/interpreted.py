"""The Triton kernel of L_contr on the CPU, in Triton's interpreter, beside the reference in float64.

test_triton.py runs these tests in a process of their own, with TRITON_INTERPRET=1 set before Triton is imported.
"""

import functools
import itertools
import math

import torch
from test_streaming import Operations, check, each, images, using, with_gradients
from torch import nn

contrast = using("triton")
with_gradient = functools.partial(with_gradients, contrast, of_hr=False)


@each("l1-0.1", "squared-0.001", "dot-0.001")
def test_equals_the_reference(definition):
    """Regions are cut short by both borders; of 5 x 5 pixels one is alone in its corner."""
    for content, region_size, shape in (
        ("random", 16, (2, 3, 5, 5)),
        ("near", 64, (1, 3, 8, 11)),
        ("8 bit", 16, (1, 3, 4, 6)),
        ("saturated", 4, (1, 3, 3, 2)),
        ("far", 16, (1, 3, 4, 4)),
    ):
        check(contrast, *images(content, *shape), region_size, of_hr=False, **definition)


def test_regions_larger_than_a_block():
    """Regions of 18 x 18 pixels: three blocks of anchors, of candidates two in each row; the image cuts one short."""
    check(contrast, *images("near", 1, 3, 9, 19), 18 * 18, of_hr=False, temperature=0.001)


@each("squared-0.001")
def test_memory_layouts(definition):
    """channels_last, and a crop of a larger image, give the same bits; the gradient is laid out like the image."""
    sr, hr = images("random", 2, 3, 4, 5)
    expected = with_gradient(sr, hr, 16, **definition)
    last = [image.contiguous(memory_format=torch.channels_last) for image in (sr, hr)]
    crops = [nn.functional.pad(image, (1, 2, 3, 4))[:, :, 3:-4, 1:-2] for image in (sr, hr)]
    for pair in (last, crops, (last[0], hr)):
        assert all(map(torch.equal, with_gradient(*pair, 16, **definition), expected))
    assert with_gradient(*last, 16, **definition)[1].is_contiguous(memory_format=torch.channels_last)


@each("l1-0.1", "squared-0.001", "dot-0.1")
def test_what_is_no_number_is_told(definition):
    for value, broken in itertools.product((math.nan, math.inf, -math.inf), (0, 1)):
        pair = images("random", 1, 3, 4, 4)
        pair[broken][0, 1, 2, 3] = value
        assert not contrast(*pair, 16, **definition).isfinite()


def test_only_the_gradients_that_are_needed():
    """No gradient is worked out where none is asked for; one for HR is left to the streaming implementation."""
    sr, hr = images("8 bit", 1, 3, 4, 5)
    loss, _ = with_gradient(sr, hr, 16)
    with torch.no_grad(), Operations() as operations:
        assert torch.equal(contrast(sr.clone().requires_grad_(), hr, 16), loss)
    assert [(name, args[-2:]) for name, args in operations.of_prffn] == [("contrast_gpu", (False, False))]
    with Operations() as operations:
        check(contrast, sr, hr, 16, temperature=0.001)
    assert {name for name, _ in operations.of_prffn} == {"stream"}
