"""The fast forward pass gives what the straightforward one gives, whatever has happened to the network before."""

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from oracles import straightforward, upscale_tensor

from prffn.data.patches import to_image, to_tensor
from prffn.evaluation.tiling import upscale
from prffn.models import PRFFN
from prffn.models.blocks import MRCAB, RCAB, SAFB, ChannelAttention, RFAFusion

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
VARIANTS = ["PRFFN0", "PRFFN1", "PRFFN2", "PRFFN3"]


def network(scale: int = 3, **options: object) -> PRFFN:
    return PRFFN(scale, **{"channels": 8, "groups": 2, **options}, generator=generator())


def image(height: int = 13, width: int = 18) -> torch.Tensor:
    return torch.rand(3, height, width, generator=generator(1))


def distance(model: PRFFN, lr: torch.Tensor) -> float:
    """The largest difference of an image's two SR images."""
    with torch.inference_mode():
        expected = straightforward(model, lr[None])[0]
    return (upscale_tensor(model, lr) - expected).abs().max().item()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fast_equals_straightforward(variant, scale, device):
    model = network(scale, variant=variant).to(device)
    assert distance(model, image().to(device)) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 3), (17, 31)])
def test_of_any_size(size):
    assert distance(network(), image(*size)) < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"dilation_rates": r} for r in ((1,), (2,), (1, 3), (4, 4), (1, 2, 4, 8))]
    + [{"channels": 64}, {"padding": "replicate"}],
    ids=str,
)
def test_of_any_dilation_rates_width_and_padding(options):
    assert distance(network(**options), image()) < 1e-5


def test_in_double_precision():
    """To 1e-12, so that nothing is computed in single precision on the way."""
    assert distance(network().double(), image().double()) < 1e-12


def test_weights_of_the_moment_count():
    """Training steps, a loaded state and a change of memory format after a fast forward are seen by the next one."""
    model, lr = network(), image()
    before = upscale_tensor(model, lr)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(lr[None]).square().mean().backward()
        optimizer.step()
        assert distance(model, lr) < 1e-5
    assert (upscale_tensor(model, lr) - before).abs().max() > 1e-3
    model.load_state_dict(network().state_dict())
    assert torch.equal(upscale_tensor(model, lr), before)
    assert distance(model.to(memory_format=torch.channels_last), lr) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_training_is_bit_identical_to_the_straightforward_one(variant, memory_format):
    """Output and all gradients: what the blocks write in place, no gradient needs."""
    model, lr = network(variant=variant), image()[None].repeat(2, 1, 1, 1)
    model, lr = model.to(memory_format=memory_format), lr.contiguous(memory_format=memory_format)
    results = []
    for forward in (model, lambda x: straightforward(model, x)):
        model.zero_grad()
        sr = forward(lr)
        F.l1_loss(sr, torch.zeros_like(sr)).backward()
        results.append([sr.detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("block", [ChannelAttention(8, 2), RCAB(8, 2), MRCAB(8, 2), SAFB(8), RFAFusion(8)])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_blocks_leave_their_input_alone(block, mode):
    inputs = torch.randn(2 if isinstance(block, SAFB | RFAFusion) else 1, 1, 8, 6, 5, generator=generator())
    before = inputs.clone()
    with mode():
        block(*inputs)
    assert torch.equal(inputs, before)


def test_upscale_rounds_the_same_image_and_leaves_the_network_as_it_was(photo):
    """As uint8 the two differ by rounding alone, by one level at a few pixels at most; modes and layout are kept."""
    model = network().train()
    lr = photo[:20, :31]
    with torch.inference_mode():
        expected = to_image(straightforward(model, to_tensor(lr[None]).contiguous())[0]).astype(int)
    difference = abs(upscale(model, lr, scale=3) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert model.training
    assert all(p.is_contiguous() for p in model.parameters())
