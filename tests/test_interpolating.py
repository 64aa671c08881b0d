"""Networks that start as an interpolation: the parabola by hand, and each network's first output."""

import pytest
import torch

from prffn.models import PRFFN, build, reduced
from prffn.models.complexity import parameters
from prffn.models.interpolating import parabola, start_as_interpolation


def test_the_parabola_by_hand():
    """Two places a pixel, at -1/4 and 1/4: t (t - 1) / 2 = 0.15625, 1 - t^2 = 0.9375, t (t + 1) / 2 = -0.09375."""
    assert parabola(2).tolist() == [[0.15625, 0.9375, -0.09375], [-0.09375, 0.9375, 0.15625]]
    assert parabola(3)[1].tolist() == [0, 1, 0]


def networks(scale):
    generator = torch.Generator().manual_seed(0)
    yield PRFFN(scale, channels=8, groups=1, generator=generator)
    for name in ("EDSR", "RCAN", "SwinIR-light"):
        yield reduced(name, scale, channels=8, groups=1, generator=generator)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_quadratic_image_is_interpolated_exactly(scale):
    """Inside, values x^2 + y are those of the same parabola at finer places; two steps of x2 (x4) agree but for
    1/16 of a pixel squared, since the first step's places are not the second's."""
    for model in networks(scale):
        start_as_interpolation(model)
        y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
        lr = (0.3 * (x / 16) ** 2 + 0.4 * (y / 12)).expand(1, 3, -1, -1)
        place = (torch.arange(16 * scale) + 0.5) / scale - 0.5
        down = (torch.arange(12 * scale) + 0.5) / scale - 0.5
        expected = 0.3 * (place[None] / 16) ** 2 + 0.4 * (down[:, None] / 12)
        inside = slice(4 * scale, -4 * scale)
        with torch.no_grad():
            found = model.eval()(lr)[0, :, inside, inside]
        assert (found - expected[inside, inside]).abs().max() < (1e-5 if scale != 4 else 1e-3), type(model).__name__


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_flat_image_is_interpolated_exactly_to_the_border(scale):
    """With replicated borders; with zeros the outermost pixels are wrong."""
    flat = torch.tensor([0.9, 0.1, 0.3]).view(1, 3, 1, 1)
    off = {}
    for padding in ("zeros", "replicate"):
        model = PRFFN(scale, channels=8, groups=1, padding=padding, generator=torch.Generator().manual_seed(0))
        start_as_interpolation(model)
        with torch.no_grad():
            off[padding] = (model(flat.expand(1, 3, 7, 9)) - flat).abs().max()
    assert off["replicate"] < 1e-6
    assert off["zeros"] > 0.02


def test_every_weight_is_trained():
    """After two steps a gradient reaches every layer, also those behind the convolution that starts at zero; but for
    gates of channel attention, whose one hidden unit may be off at these sizes."""
    for model in networks(2):
        start_as_interpolation(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        lr, hr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32)
        for _ in range(3):
            optimizer.zero_grad()
            (model(lr) - hr).abs().mean().backward()
            optimizer.step()
        gradients = {name: p.grad for name, p in model.named_parameters() if "attention." not in name}
        still = [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().max() > 0]
        assert not still, type(model).__name__


@pytest.mark.parametrize("name", ["EDSR", "RCAN", "SwinIR-light"])
def test_at_full_size_the_reduced_network_is_the_published_one(name):
    assert parameters(reduced(name, 3, channels=64, groups=10)) == parameters(build(name, 3))
    assert parameters(reduced(name, 3, channels=16, groups=2)) < 0.1 * parameters(build(name, 3))
