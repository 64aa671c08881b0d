"""The streaming L_contr, in PyTorch and in C, against the reference in float64: values, gradients, memory, and the
places it is used in."""

import contextlib
import functools
import math
import os
import shlex
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prffn import files
from prffn.losses import PixelContrastLoss, fused, pairs, streaming
from prffn.losses import pixel_contrast as public_pixel_contrast
from prffn.losses.contrast import Contrast, regions

streaming_pixel_contrast = functools.partial(public_pixel_contrast, implementation="streaming")
pixel_contrast = functools.partial(public_pixel_contrast, implementation="reference")
RATIO = {"form": "ratio", "epsilon": 0.01}
FORMS = [
    RATIO,
    *(
        {"form": "infonce", "similarity": similarity, "temperature": temperature}
        for similarity in ("l1", "squared", "cosine", "dot")
        for temperature in (1e-3, 0.1, 10.0)
    ),
]
NEGATIVES = ["hr", "sr", "both"]


@functools.cache
def needs_a_compiler() -> None:
    """Skips a test where torch.compile does not work."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}")


@functools.cache
def needs_a_c_compiler() -> None:
    """Skips a test where `cc`, or what CC names, does not work."""
    try:
        fused._compiler()
    except RuntimeError as error:
        pytest.skip(f"no C compiler works here: {str(error).splitlines()[0][-60:]}")


@pytest.fixture(params=["streaming", "compiled"])
def contrast(request):
    """The loss in PyTorch and in C."""
    if request.param == "compiled":
        needs_a_c_compiler()
    return functools.partial(public_pixel_contrast, implementation=request.param)


def named(arguments: dict) -> str:
    return "ratio" if arguments["form"] == "ratio" else f"{arguments['similarity']}-{arguments['temperature']}"


def images(content: str, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An SR and an HR image in float32."""
    g = torch.Generator().manual_seed(seed)
    sr, hr = torch.rand(*shape, generator=g), torch.rand(*shape, generator=g)
    match content:
        case "random":
            return sr, hr
        case "near":  # a good SR image
            return (hr + 0.01 * (sr - 0.5)).clamp(0, 1), hr
        case "smooth":  # pixels that differ little beside their mean
            return 0.5 + 1e-4 * sr, 0.5 + 1e-3 * hr
        case "8 bit":  # few values: ties in every region
            return 0.3 + (6 * sr).round() / 255, 0.3 + (6 * hr).round() / 255
        case "constant":
            return torch.full(shape, 0.5), torch.full(shape, 0.3)
        case "saturated":
            return (2 * sr - 0.5).clamp(0, 1), hr.round()
        case "far":  # every candidate of HR is far from every anchor
            return 0.1 * sr, 1 - 0.1 * hr
        case "same":
            return hr.clone(), hr
    raise ValueError(content)


def with_gradients(function, sr: Tensor, hr: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor, Tensor]:
    sr, hr = sr.detach().requires_grad_(), hr.detach().requires_grad_()
    loss = function(sr, hr, *args, **kwargs)
    return loss.detach(), *torch.autograd.grad(loss, (sr, hr))


def check(contrast, sr, hr, region_size, *, loss_error=1e-6, gradient_error=1e-5, rounding=2e-6, **arguments):
    """Against float64 autograd. Loss: relative error. Gradient: error beside its largest value and, for gradients whose
    terms cancel, `rounding` beside the size of one anchor's terms, 1 / tau or 1 / eps over the number of anchors."""
    loss, *gradients = with_gradients(contrast, sr, hr, region_size, **arguments)
    expected, *references = with_gradients(pixel_contrast, sr.double(), hr.double(), region_size, **arguments)
    assert loss.item() == pytest.approx(expected.item(), rel=loss_error, abs=1e-3 * loss_error)
    term = 1 / arguments.get("temperature", arguments.get("epsilon")) / (sr.numel() / sr.shape[1])
    for gradient, reference in zip(gradients, references, strict=True):
        assert gradient.dtype == sr.dtype
        allowed = gradient_error * reference.abs().max().item() + rounding * term
        assert (gradient - reference).abs().max().item() <= allowed


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", FORMS, ids=named)
@pytest.mark.parametrize("content", ["random", "near", "smooth", "8 bit", "constant", "saturated", "far", "same"])
def test_float32_is_within_the_tolerances(contrast, content, arguments, negatives):
    """Loss within 1e-6, gradients within 1e-5, for regions cut short by both borders too."""
    for region_size, shape in ((4, (2, 3, 5, 7)), (16, (1, 3, 9, 10)), (64, (1, 3, 17, 11))):
        check(contrast, *images(content, *shape, seed=region_size), region_size, negatives=negatives, **arguments)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", FORMS, ids=named)
def test_float64_is_exact(contrast, arguments, negatives):
    for content in ("random", "8 bit", "saturated"):
        sr, hr = (image.double() for image in images(content, 1, 3, 10, 13))
        exact = {"loss_error": 1e-10, "gradient_error": 1e-11, "rounding": 1e-12}
        check(contrast, sr, hr, 16, negatives=negatives, **exact, **arguments)


@pytest.mark.parametrize("seed", range(6))
def test_random_sizes_and_channels(contrast, seed):
    g = torch.Generator().manual_seed(seed)
    n, channels, height, width, side = (int(torch.randint(1, top, (), generator=g)) for top in (4, 5, 30, 30, 6))
    sr, hr = images("random", n, channels, height + 1, width + 1, seed=seed)
    for arguments in (RATIO, FORMS[2], FORMS[5]):
        check(contrast, sr, hr, (side + 1) ** 2, negatives=NEGATIVES[seed % 3], **arguments)


@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[4], FORMS[5], FORMS[8], FORMS[11]], ids=named)
@pytest.mark.parametrize(("region_size", "shape"), [(256, (1, 3, 32, 19)), (1024, (1, 3, 33, 32))])
def test_large_regions(contrast, region_size, shape, arguments):
    for content in ("random", "8 bit", "smooth"):
        check(contrast, *images(content, *shape), region_size, **arguments)


@functools.cache
def of_the_largest_region(index: int) -> tuple[Tensor, Tensor]:
    """The reference's loss in float64 and its gradient for SR alone: that for HR would not fit the minute."""
    sr, hr = images("near", 1, 3, 64, 64)
    sr = sr.double().requires_grad_()
    loss = pixel_contrast(sr, hr, 4096, **FORMS[index])
    return loss.detach(), *torch.autograd.grad(loss, sr)


@pytest.mark.parametrize("index", [0, 4, 5], ids=lambda index: named(FORMS[index]))
def test_the_largest_region(contrast, index):
    """S = 4096."""
    sr, hr = images("near", 1, 3, 64, 64)
    sr.requires_grad_()
    loss = contrast(sr, hr, 4096, **FORMS[index])
    (gradient,) = torch.autograd.grad(loss, sr)
    expected, reference = of_the_largest_region(index)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5], FORMS[8], FORMS[11]], ids=named)
def test_devices_without_float64(arguments, negatives, monkeypatch):
    """All in float32, as on MPS: the same tolerances at tau = 0.1, also for prefix sums over 1024 values."""
    monkeypatch.setattr(streaming, "_wide", lambda x: x.dtype)
    for content in ("random", "near", "8 bit"):
        check(streaming_pixel_contrast, *images(content, 1, 3, 32, 33), 1024, negatives=negatives, **arguments)


def test_no_gradient_is_exactly_none(contrast):
    """Where every candidate is above the anchor in all channels, L1 distances to all of them fall alike: slope 0,
    and no rounding beside it."""
    sr, hr = images("far", 1, 3, 16, 16)
    for temperature in (1e-3, 0.1, 10.0):
        _, gradient, _ = with_gradients(contrast, sr, hr, 16, form="infonce", similarity="l1", temperature=temperature)
        assert gradient.abs().max() == 0


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", FORMS, ids=named)
def test_regions_taken_in_pieces(arguments, negatives, monkeypatch):
    """With room for 40 scores and 30 values, every region of 16 is cut into rows of anchors and stands alone."""
    sr, hr = (image.double() for image in images("8 bit", 2, 3, 9, 10))
    whole = with_gradients(streaming_pixel_contrast, sr, hr, 16, negatives=negatives, **arguments)
    monkeypatch.setattr(pairs, "TILE", 40)
    monkeypatch.setattr(streaming, "BLOCK", 30)
    pieces = with_gradients(streaming_pixel_contrast, sr, hr, 16, negatives=negatives, **arguments)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5], FORMS[8], FORMS[11]], ids=named)
def test_gradcheck(contrast, arguments, negatives):
    sr, hr = (image.double().requires_grad_() for image in images("random", 1, 2, 4, 5, seed=3))
    assert torch.autograd.gradcheck(lambda x, y: contrast(x, y, 9, negatives=negatives, **arguments), (sr, hr))


def test_ties_by_hand(contrast):
    """One gray region: SR 0.5, 0, 0, 1; HR 0, 0, 0, 1; eps = 0.1. The first anchor is off by p = 0.5, its negatives in
    HR at a mean of m = 0.5: d(p / (m + eps)) = 1 / 0.6 - 0.5 / 0.36 * (1 + 1 - 1) / 3, a quarter of it in the mean.
    The other anchors equal their positive: sign(0) = 0."""
    sr = torch.tensor([0.5, 0, 0, 1], dtype=torch.float64).view(1, 1, 2, 2).requires_grad_()
    hr = torch.tensor([0, 0, 0, 1], dtype=torch.float64).view(1, 1, 2, 2)
    loss = contrast(sr, hr, 4, form="ratio", epsilon=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 / 0.6 / 4, abs=1e-12)
    assert sr.grad.flatten().tolist() == pytest.approx([(1 / 0.6 - 0.5 / 0.36 / 3) / 4, 0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("arguments", [RATIO, FORMS[5]], ids=named)
def test_half_precisions(contrast, dtype, arguments):
    """Computed in float32; the gradient comes back in the image's type, rounded once."""
    sr, hr = (image.to(dtype) for image in images("random", 1, 3, 9, 8))
    loss, *gradients = with_gradients(contrast, sr, hr, 16, **arguments)
    expected, *references = with_gradients(pixel_contrast, sr.double(), hr.double(), 16, **arguments)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, reference in zip(gradients, references, strict=True):
        assert gradient.dtype == dtype
        error = (gradient.double() - reference).abs().max()
        assert error <= torch.finfo(dtype).eps * reference.abs().max()


@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5]], ids=named)
def test_memory_layouts(contrast, arguments):
    """channels_last, and a crop of a larger image, give the same bits as contiguous images."""
    sr, hr = images("random", 2, 3, 9, 10)
    expected = with_gradients(contrast, sr, hr, 16, **arguments)
    last = [image.contiguous(memory_format=torch.channels_last) for image in (sr, hr)]
    crops = [nn.functional.pad(image, (1, 2, 3, 4))[:, :, 3:-4, 1:-2] for image in (sr, hr)]
    for pair in (last, crops):
        assert not pair[0].is_contiguous()
        for a, b in zip(with_gradients(contrast, *pair, 16, **arguments), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("arguments", [RATIO, FORMS[5]], ids=named)
def test_the_gradient_is_scaled_and_can_be_asked_for_again(contrast, arguments):
    sr, hr = images("random", 1, 3, 8, 8)
    _, expected, _ = with_gradients(contrast, sr, hr, 16, **arguments)
    sr.requires_grad_()
    loss = -3 * contrast(sr, hr, 16, **arguments)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, sr, retain_graph=True)
        torch.testing.assert_close(gradient, -3 * expected)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5]], ids=named)
def test_only_the_gradients_that_are_needed(contrast, arguments, negatives):
    """Gradient for SR alone, for HR alone, for none: the same numbers, and no graph where none is asked for."""
    sr, hr = images("8 bit", 1, 3, 8, 9)
    loss, of_sr, of_hr = with_gradients(contrast, sr, hr, 16, negatives=negatives, **arguments)
    for first, second, expected in ((True, False, of_sr), (False, True, of_hr)):
        x, y = sr.clone().requires_grad_(first), hr.clone().requires_grad_(second)
        value = contrast(x, y, 16, negatives=negatives, **arguments)
        value.backward()
        torch.testing.assert_close((x if first else y).grad, expected)
        assert (y if first else x).grad is None
        assert torch.equal(value.detach(), loss)
    with torch.no_grad(), Operations() as operations:
        value = contrast(sr.clone().requires_grad_(), hr, 16, negatives=negatives, **arguments)
    assert {args[-2:] for args in operations.of_prffn} == {(False, False)}
    assert not value.requires_grad
    assert torch.equal(value, loss)


@pytest.mark.parametrize("compile", [lambda f: f, functools.partial(torch.compile, backend="aot_eager")])
def test_transforms_of_torch_func(contrast, compile):
    """First derivatives and batches, alone and together, are those of plain autograd; what the closed form has not,
    derivatives in forward mode and second ones, by either route, is refused, never 0."""
    sr, hr = images("random", 2, 3, 9, 10)
    pairs = [(x[None], y[None]) for x, y in zip(sr, hr, strict=True)]
    sr, hr = sr[:, None], hr[:, None]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return contrast(x, y, 16)

    def penalty(x: Tensor) -> Tensor:
        return torch.func.grad(loss)(x, hr[0]).square().sum()

    losses, *gradients = (torch.stack(found) for found in zip(*(with_gradients(loss, *p) for p in pairs), strict=True))
    torch.testing.assert_close(compile(torch.func.vmap(loss))(sr, hr), losses)
    found = compile(torch.func.vmap(torch.func.grad(loss, argnums=(0, 1))))(sr, hr)
    torch.testing.assert_close(found, tuple(gradients))
    batch = sr.clone().requires_grad_()
    (of_sr,) = torch.autograd.grad(compile(torch.func.vmap(loss))(batch, hr).sum(), batch)
    torch.testing.assert_close(of_sr, gradients[0])

    refused = functools.partial(pytest.raises, RuntimeError)
    with refused(match="in forward mode: use implementation='reference'"):
        compile(lambda x, y: torch.func.jvp(loss, (x, y), (x, y)))(sr[0], hr[0])
    with refused(match="twice: use implementation='reference'"):
        torch.func.grad(penalty)(sr[0])
    x = sr[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(contrast(x, hr[0], 16), x, create_graph=True)
    with refused(match="twice: use implementation='reference'"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("implementation", ["streaming", "compiled", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_tensors_without_values(implementation, dtype, device):
    """Meta tensors, and the fake ones of torch.compile and export: the loss is a scalar, the gradients have the images'
    shape and type. They have no memory, which C code would read."""
    make = functools.partial(torch.rand, 1, 3, 9, 10, dtype=dtype, device=device)
    for arguments in (RATIO, FORMS[2], FORMS[4], FORMS[8], {**FORMS[5], "negatives": "both"}):
        with FakeTensorMode() if device == "cpu" else contextlib.nullcontext():
            sr, hr = (make().requires_grad_() for _ in range(2))
            loss = public_pixel_contrast(sr, hr, 16, implementation=implementation, **arguments)
            loss.backward()
        assert (loss.shape, loss.dtype) == ((), torch.promote_types(dtype, torch.float32))
        assert all(type(found) is type(sr.detach()) and found.device == sr.device for found in (loss.detach(), sr.grad))
        assert all((x.grad.shape, x.grad.dtype) == (x.shape, dtype) for x in (sr, hr))


def test_c_code_gets_no_tensor_of_another_device(contrast):
    """The device of new tensors may be set to any: what C writes to is in memory all the same."""
    pair = images("random", 1, 3, 9, 10)
    expected = with_gradients(contrast, *pair, 16)
    with torch.device("meta"):
        found = with_gradients(contrast, *pair, 16)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(RuntimeError, match="values in memory, got .*meta"):
        fused._address(pair[0].to("meta"))


@pytest.mark.parametrize("strict", [False, True])
def test_exported(contrast, strict):
    class Loss(nn.Module):
        def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
            return contrast(sr, hr, 16)

    pair = images("random", 1, 3, 9, 10)
    program = torch.export.export(Loss(), pair, strict=strict)
    other = images("near", 1, 3, 9, 10)
    assert torch.equal(program.module()(*other), contrast(*other, 16))


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    """The arguments of the kit's own operators; the most bytes that tensors made inside it, and inside those, held at
    one time, as seen at each operation's return."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0
        self.of_prffn: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "prffn":
            self.of_prffn.append(args)
            operator = {"contrast": fused._contrast, "stream": streaming._stream}[func._opname]
            with self:
                return operator._init_fn(*args)
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.live:
                    self.live[key] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[4], FORMS[5]], ids=named)
def test_memory(contrast, arguments):
    """144 x 144 pixels in float32 are 0.25 MB. The reference holds (S, S) matrices of each of 81 regions of 256 pixels,
    at least 81 * 256 * 256 * 4 bytes = 21 MB each. Here only the gradient is kept, and all that is alive at a time,
    copies and a block's scores together, is below 16 MB, also for regions 9 times as large."""
    sr, hr = images("random", 1, 3, 144, 144)
    sr.requires_grad_()
    for region_size in (256, 2304):
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Operations() as memory:
            contrast(sr, hr, region_size, **arguments)
        assert sum(kept) <= 2 * sr.nbytes
        assert memory.peak < 16 * 2**20


@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5], FORMS[8]], ids=named)
def test_autocast(contrast, arguments):
    """A bfloat16 model under autocast: the loss of its output is computed as outside, with no operation in bfloat16."""
    _, hr = images("random", 2, 3, 8, 8)
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = model(hr)
        loss = contrast(sr, hr, 16, **arguments)
    assert sr.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(pixel_contrast(sr.double(), hr.double(), 16, **arguments).item(), rel=1e-6)
    loss.backward()
    assert model.weight.grad.abs().max() > 0


def test_inside_a_compiled_step(contrast):
    """Model and loss in one graph: the same loss and gradients."""
    _, hr = images("random", 1, 3, 8, 8)
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)

    def step(image: Tensor) -> Tensor:
        return contrast(model(image), image, 16, **RATIO) + contrast(model(image), image, 16, **FORMS[5])

    expected = step(hr)
    (reference,) = torch.autograd.grad(expected, model.weight)
    torch._dynamo.reset()
    loss = torch.compile(step, fullgraph=True, backend="aot_eager")(hr)
    (gradient,) = torch.autograd.grad(loss, model.weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, reference)


def test_around_a_compiled_model(contrast):
    needs_a_compiler()
    _, hr = images("random", 1, 3, 8, 8)
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    (reference,) = torch.autograd.grad(contrast(model(hr), hr, 16), model.weight)
    (gradient,) = torch.autograd.grad(contrast(torch.compile(model)(hr), hr, 16), model.weight)
    torch.testing.assert_close(gradient, reference)


def by_fused_distances(sr: Tensor, hr: Tensor, region_size: int, *, temperature: float, negatives: str = "hr", **_):
    """The loss as "compiled" computes it on a GPU for L1 distances."""
    totals, count = [], 0
    for x, y in zip(regions(sr, region_size), regions(hr, region_size), strict=True):
        totals.append(fused.closed_form("stream", x, y, "fused l1", temperature, negatives))
        count += x.shape[0] * x.shape[1]
    return torch.stack(totals).sum() / count


COMPILED = functools.partial(public_pixel_contrast, contrast=16, implementation="compiled")


@pytest.fixture
def compiles_afresh(monkeypatch, tmp_path):
    """An empty cache, and no library in memory. Gives the folder of compiled code."""
    needs_a_c_compiler()
    monkeypatch.setenv("PRFFN_CACHE", str(tmp_path))
    monkeypatch.setattr(fused, "_library", functools.cache(fused._library.__wrapped__))
    return tmp_path / "compiled"


def test_without_a_c_compiler_the_error_says_what_to_do(compiles_afresh, monkeypatch, tmp_path):
    pair = images("random", 1, 1, 8, 8)
    for command in ("no-such-compiler -x", "false"):
        monkeypatch.setenv("CC", command)
        with pytest.raises(
            RuntimeError, match=f"(?s)needs a C compiler.*use implementation='streaming'.*{command.split()[0]}"
        ):
            COMPILED(*pair)
    monkeypatch.delenv("CC")
    monkeypatch.setattr(fused, "SOURCE", tmp_path / "broken.c")
    fused.SOURCE.write_text("#error this cannot be compiled\n")
    with pytest.raises(RuntimeError, match="(?s)use implementation='streaming'.*this cannot be compiled"):
        COMPILED(*pair)
    assert not list(compiles_afresh.glob("*"))
    blocked = tmp_path / "a file"
    blocked.touch()
    monkeypatch.setenv("PRFFN_CACHE", str(blocked))
    with pytest.raises(RuntimeError, match="PRFFN_CACHE names the folder"):
        COMPILED(*pair)


def test_a_compiler_that_does_not_know_this_processor(compiles_afresh, monkeypatch, tmp_path):
    """It compiles for any processor, to other code in the cache. CC may hold arguments."""
    pair = images("random", 1, 1, 8, 8)
    expected = COMPILED(*pair)
    picky = tmp_path / "picky"
    picky.write_text(f'case "$*" in *-march=native*) exit 1;; esac; exec {os.environ.get("CC") or "cc"} "$@"\n')
    monkeypatch.setenv("CC", f"sh {shlex.quote(str(picky))}")
    fused._library.cache_clear()
    torch.testing.assert_close(COMPILED(*pair), expected)
    assert len(list(compiles_afresh.glob("*.so"))) == 2


def test_processes_that_compile_at_once(compiles_afresh):
    """Both find the loss, and leave one library and nothing half made. The next one compiles nothing."""
    program = (
        "import torch; from prffn import pixel_contrast; image = torch.arange(16.0).view(1, 1, 4, 4) / 16; "
        "print(pixel_contrast(image.flip(3), image, 16, implementation='compiled').item())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    image = torch.arange(16.0).view(1, 1, 4, 4) / 16
    expected = pixel_contrast(image.flip(3), image, 16).item()
    for process in processes:
        assert float(process.communicate()[0]) == pytest.approx(expected, rel=1e-6)
    library, checksum = sorted(compiles_afresh.iterdir(), reverse=True)
    assert (library.suffix, checksum.suffix) == (".so", ".sha256")
    made = library.stat().st_mtime_ns
    COMPILED(image.flip(3), image)
    assert [path.stat().st_mtime_ns for path in compiles_afresh.glob("*.so")] == [made]


def test_where_compiled_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("PRFFN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_root() == Path(files.__file__).parent.parent / ".cache"
    monkeypatch.setattr(files, "checkout", lambda: tmp_path / "site-packages")
    assert files.cache_root() == tmp_path / ".cache" / "prffn"


def test_threads_change_nothing():
    needs_a_c_compiler()
    pair = images("8 bit", 3, 3, 24, 22)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append([with_gradients(COMPILED, *pair, **arguments, negatives="both") for arguments in FORMS])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_the_c_code_is_what_is_called():
    """For all forms, but for the ratio in regions that are better sorted."""
    needs_a_c_compiler()
    pair = images("random", 1, 3, 64, 64)
    with Operations() as operations:
        for size in (16, 4096):
            for arguments in (FORMS[0], FORMS[1], FORMS[4], FORMS[7], FORMS[10]):
                public_pixel_contrast(*pair, size, **arguments)
    forms = ["l1", "squared", "cosine", "dot"]
    expected = [(4, "ratio"), *((4, form) for form in forms), *((64, form) for form in forms)]
    assert [args[2:4] for args in operations.of_prffn if len(args) == 8] == expected


@pytest.mark.parametrize("arguments", [RATIO, FORMS[2], FORMS[5], FORMS[8], FORMS[11]], ids=named)
def test_what_is_no_number_is_told(contrast, arguments):
    """The loss is not finite if a pixel of either image is not: a training stops there."""
    for value in (math.nan, math.inf):
        for broken in (0, 1):
            pair = images("random", 1, 3, 8, 8)
            pair[broken][0, 1, 2, 3] = value
            for negatives in NEGATIVES:
                assert not contrast(*pair, 16, negatives=negatives, **arguments).isfinite()


@pytest.mark.parametrize("arguments", [RATIO, FORMS[5]], ids=named)
def test_images_of_other_types(contrast, arguments):
    """HR takes SR's type; whole numbers are refused, not read as if they were floating."""
    sr, hr = images("random", 1, 3, 8, 8)
    assert contrast(sr, hr.double(), 16, **arguments) == contrast(sr, hr, 16, **arguments)
    with pytest.raises(TypeError):
        contrast((255 * sr).to(torch.uint8), (255 * hr).to(torch.uint8), 16, **arguments)


def test_black_pixels_have_no_direction(contrast):
    """Below a length of 1e-6 the cosine divides by that; the slope of the length is left out."""
    sr, hr = images("random", 1, 3, 8, 8)
    sr[:, :, 0, 0] = 0
    sr[:, :, 0, 1] = 4e-7
    hr[:, :, 0, 2] = 0
    sr[:, :, 0, 3] = 2e-6
    for negatives in NEGATIVES:
        check(contrast, sr, hr, 16, form="infonce", similarity="cosine", temperature=0.1, negatives=negatives)


def _half_of_the_batch(rank: int, file: str, arguments: dict) -> None:
    """One of two processes under DistributedDataParallel; the first leaves the gradient that all of them got."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Conv2d(3, 3, 3, padding=1))
    _, hr = images("random", 2, 3, 9, 10)
    mine = hr[rank : rank + 1]
    PixelContrastLoss(16, **arguments)(model(mine), mine).backward()
    if rank == 0:
        torch.save(model.module.weight.grad, file + ".grad")
    # Together and in this order: a process that ends while the other or its own network holds the group may be aborted.
    torch.distributed.barrier()
    del model
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("arguments", [RATIO, FORMS[5]], ids=named)
def test_distributed_data_parallel(arguments, tmp_path):
    """Two processes with an image each end up with the gradient of one with both."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    _, hr = images("random", 2, 3, 9, 10)
    (expected,) = torch.autograd.grad(PixelContrastLoss(16, **arguments)(model(hr), hr), model.weight)
    file = tmp_path / "rendezvous"
    torch.multiprocessing.spawn(_half_of_the_batch, (str(file), arguments), nprocs=2)
    torch.testing.assert_close(torch.load(f"{file}.grad", weights_only=True), expected)


def test_deterministic(contrast):
    sr, hr = images("8 bit", 4, 3, 24, 24)
    for arguments in FORMS:
        first = with_gradients(contrast, sr, hr, 64, negatives="both", **arguments)
        again = with_gradients(contrast, sr, hr, 64, negatives="both", **arguments)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_pixel_alone_in_its_region_is_left_out(contrast):
    """5 x 5 pixels in regions of 4 x 4: the corner has no negatives, so no say and no gradient."""
    sr, hr = images("random", 1, 3, 5, 5)
    for arguments in (RATIO, FORMS[5]):
        loss, gradient, _ = with_gradients(contrast, sr, hr, 16, **arguments)
        changed = sr.clone()
        changed[:, :, 4, 4] = math.pi
        assert torch.equal(loss, contrast(changed, hr, 16, **arguments))
        assert gradient[:, :, 4, 4].abs().max() == 0
    with pytest.raises(ValueError, match="no pixel"):
        contrast(sr[:, :, :1, :1], hr[:, :, :1, :1], 16)


def test_the_fastest_is_picked_and_named(monkeypatch):
    """With a C compiler the C code; without one, the stream; and the module says which."""
    needs_a_c_compiler()
    sr, hr = images("random", 1, 3, 8, 8)
    settings = {"temperature": 0.1, "negatives": "both"}
    values = {
        how: public_pixel_contrast(sr, hr, 16, implementation=how, **settings) for how in ("compiled", "streaming")
    }
    assert values["compiled"] != values["streaming"]  # in the last bits: else this test could not tell them apart
    torch.testing.assert_close(values["compiled"], values["streaming"], rtol=1e-6, atol=0)
    module = PixelContrastLoss(16, **settings)
    assert (module(sr, hr), module.used) == (values["compiled"], "compiled")
    assert "auto (compiled)" in repr(module)
    monkeypatch.setattr(fused, "works", lambda: False)
    assert (module(sr, hr), module.used) == (values["streaming"], "streaming")
    with pytest.raises(ValueError, match="implementation must be one of auto"):
        PixelContrastLoss(implementation="fast")


@pytest.mark.parametrize("implementation", ["auto", "streaming", "reference"])
@pytest.mark.parametrize("arguments", FORMS, ids=named)
def test_grey_levels(implementation, arguments):
    """Images in 0 to 255 with rgb_range=255 have the loss of the same images in [0, 1], and 1/255 of its gradient."""
    sr, hr = (image.double() for image in images("8 bit", 1, 3, 9, 10))
    for wanted, x, y, rgb_range in ((None, sr, hr, 1), ("same", 255 * sr, 255 * hr, 255)):
        x = x.requires_grad_()
        loss = public_pixel_contrast(x, y, 16, implementation=implementation, rgb_range=rgb_range, **arguments)
        (gradient,) = torch.autograd.grad(loss, x)
        if wanted is None:
            expected = loss.item(), gradient
    assert loss.item() == pytest.approx(expected[0], rel=1e-9)
    torch.testing.assert_close(255 * gradient, expected[1], rtol=1e-6, atol=1e-9)


def test_a_range_that_is_wrong_by_a_factor_is_told():
    sr, hr = images("random", 1, 3, 8, 8)
    for factor in (255, -255):
        with pytest.raises(ValueError, match="far outside .*rgb_range=255"):
            public_pixel_contrast(factor * sr, factor * hr)
    with pytest.warns(UserWarning, match="no value above 1"):
        public_pixel_contrast(sr, hr, rgb_range=255)
    with pytest.raises(ValueError, match="rgb_range must be"):
        public_pixel_contrast(sr, hr, rgb_range=0)
    public_pixel_contrast(3 * sr - 1, hr)  # a network that overshoots is no wrong range
    assert not public_pixel_contrast(sr, hr * float("inf")).isfinite()  # nor are values that are no numbers


def test_whole_numbers_of_numpy():
    sr, hr = images("random", 1, 3, 8, 8)
    assert public_pixel_contrast(sr, hr, np.int64(16)) == public_pixel_contrast(sr, hr, 16)
    assert PixelContrastLoss(region_size=np.int32(16)).contrast == Contrast(16)
