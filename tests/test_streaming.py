"""The fast implementations of L_contr, in PyTorch and in C, equal the reference in float64, and do what losses do in
PyTorch."""

import contextlib
import functools
import itertools
import math
import os
import shlex
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prffn import files
from prffn.losses import PixelContrastLoss, fused, pairs, pixel_contrast, streaming, triton_loss
from prffn.losses.contrast import Contrast

FORMS = {"ratio": {"form": "ratio", "epsilon": 0.01}} | {
    f"{similarity}-{temperature}": {"form": "infonce", "similarity": similarity, "temperature": temperature}
    for similarity in ("l1", "squared", "cosine", "dot")
    for temperature in (0.001, 0.1, 10.0)
}
ONE_OF_EACH = ("ratio", "l1-0.1", "squared-0.1", "cosine-0.1", "dot-0.1")
NEGATIVES = ["hr", "sr", "both"]

CONTENTS = {
    "random": lambda a, b: (a, b),
    "near": lambda a, b: (b + 0.01 * (a - 0.5), b),  # a good SR image, which may leave [0, 1] slightly
    "smooth": lambda a, b: (0.5 + 1e-4 * a, 0.5 + 1e-3 * b),  # pixels that differ little beside their mean
    "8 bit": lambda a, b: (0.3 + (6 * a).round() / 255, 0.3 + (6 * b).round() / 255),  # ties in every region
    "constant": lambda a, b: (0 * a + 0.5, 0 * b + 0.3),
    "saturated": lambda a, b: ((2 * a - 0.5).clamp(0, 1), b.round()),
    "far": lambda a, b: (0.1 * a, 1 - 0.1 * b),  # every candidate of HR is far from every anchor
    "same": lambda a, b: (b.clone(), b),
}
"""From random numbers in [0, 1]: an SR and an HR image."""


def images(content: str, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """An SR and an HR image."""
    g = torch.Generator().manual_seed(seed)
    sr, hr = CONTENTS[content](*(torch.rand(*shape, generator=g, dtype=torch.float64) for _ in range(2)))
    return sr.to(dtype), hr.to(dtype)


def each(*names: str) -> pytest.MarkDecorator:
    """A test of each of these definitions."""
    return pytest.mark.parametrize("definition", [FORMS[name] for name in names], ids=names)


@functools.cache
def needs_a_c_compiler() -> None:
    """Skips a test where `cc`, or what CC names, does not work."""
    try:
        fused._compiler()
    except RuntimeError as error:
        pytest.skip(f"no C compiler works here: {str(error).splitlines()[0][-60:]}")


def using(implementation: str) -> functools.partial:
    """The loss by that implementation."""
    if implementation == "compiled":
        needs_a_c_compiler()
    return functools.partial(pixel_contrast, implementation=implementation)


@pytest.fixture(params=["streaming", "compiled"])
def contrast(request):
    return using(request.param)


reference = using("reference")


def with_gradients(function, sr: Tensor, hr: Tensor, *args, of_hr: bool = True, **kwargs) -> tuple[Tensor, ...]:
    sr, hr = sr.detach().requires_grad_(), hr.detach().requires_grad_(of_hr)
    loss = function(sr, hr, *args, **kwargs)
    return loss.detach(), *torch.autograd.grad(loss, (sr, hr) if of_hr else (sr,))


def check(contrast, sr, hr, region_size, *, slack=0.0, of_hr=True, **definition):
    """Against float64 autograd. Loss: relative error. Gradient: error beside its largest value and, for gradients whose
    terms cancel, beside the size of one anchor's terms, 1 / tau or 1 / eps over the number of anchors. Half precisions
    are computed in float32; their gradients are rounded once, and may be too large for float16."""
    wide = torch.promote_types(sr.dtype, torch.float32)
    loss_error, gradient_error, rounding = (1e-10, 1e-11, 1e-12) if wide == torch.float64 else (1e-6, 1e-5, 2e-6)
    loss, *gradients = with_gradients(contrast, sr, hr, region_size, of_hr=of_hr, **definition)
    expected, *references = with_gradients(reference, sr.double(), hr.to(wide).double(), region_size, **definition)
    assert loss.dtype == wide
    assert loss.item() == pytest.approx(expected.item(), rel=loss_error, abs=1e-3 * loss_error)
    term = 1 / definition.get("temperature", definition.get("epsilon")) / (sr.numel() / sr.shape[1])
    for image, gradient, found in zip((sr, hr), gradients, references, strict=of_hr):
        assert gradient.dtype == image.dtype
        limits = torch.finfo(image.dtype)
        gradient, found = (g.double()[found.abs() < limits.max] for g in (gradient, found))
        largest = found.abs().max().item() if found.numel() else 0.0
        allowed = gradient_error * largest + (rounding + slack) * term
        if image.dtype != wide:
            allowed += limits.eps * largest + limits.smallest_normal
        assert ((gradient - found).abs() <= allowed).all()


@pytest.mark.parametrize("negatives", NEGATIVES)
@each(*FORMS)
def test_equals_the_reference(contrast, definition, negatives):
    """Regions are cut short by both borders too."""
    sizes = itertools.cycle(((4, (2, 3, 5, 7)), (16, (1, 3, 9, 10)), (64, (1, 3, 17, 11))))
    for content, (region_size, shape) in zip(CONTENTS, sizes, strict=False):
        check(contrast, *images(content, *shape), region_size, negatives=negatives, **definition)
    for content in ("random", "8 bit", "saturated"):
        pair = images(content, 1, 3, 10, 13, dtype=torch.float64)
        check(contrast, *pair, 16, negatives=negatives, **definition)


@pytest.mark.parametrize("negatives", ["hr", "both"])
@each(*ONE_OF_EACH)
def test_devices_without_float64(definition, negatives, monkeypatch):
    """All in float32, as on MPS: the same tolerances at tau = 0.1, also for prefix sums over 1024 values."""
    monkeypatch.setattr(streaming, "_wide", lambda x: x.dtype)
    for content in ("near", "8 bit"):
        check(using("streaming"), *images(content, 1, 3, 32, 33), 1024, negatives=negatives, **definition)


@each("l1-0.001", "l1-0.1", "l1-10.0")
def test_no_gradient_is_exactly_none(contrast, definition):
    """Where every candidate is above the anchor in all channels, L1 distances to all of them fall alike: slope 0,
    and no rounding beside it."""
    _, gradient, _ = with_gradients(contrast, *images("far", 1, 3, 16, 16), 16, **definition)
    assert gradient.abs().max() == 0


@each(*FORMS)
def test_regions_taken_in_pieces(definition, monkeypatch):
    """With room for 40 scores and 30 values, every region of 16 is cut into rows of anchors and stands alone."""
    pair = images("8 bit", 2, 3, 9, 10, dtype=torch.float64)
    whole = with_gradients(using("streaming"), *pair, 16, negatives="both", **definition)
    monkeypatch.setattr(pairs, "TILE", 40)
    monkeypatch.setattr(streaming, "BLOCK", 30)
    pieces = with_gradients(using("streaming"), *pair, 16, negatives="both", **definition)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_black_pixels_have_no_direction(contrast):
    """Below a length of 1e-6 the cosine divides by that; the slope of the length is left out."""
    sr, hr = images("random", 1, 3, 8, 8)
    sr[:, :, 0, 0] = 0
    sr[:, :, 0, 1] = 4e-7
    hr[:, :, 0, 2] = 0
    sr[:, :, 0, 3] = 2e-6
    for negatives in NEGATIVES:
        check(contrast, sr, hr, 16, negatives=negatives, **FORMS["cosine-0.1"])


@each(*ONE_OF_EACH)
def test_what_is_no_number_is_told(contrast, definition):
    """The loss is not finite if a pixel of either image is not: a training stops there."""
    for value, broken, negatives in itertools.product((math.nan, math.inf), (0, 1), NEGATIVES):
        pair = images("random", 1, 3, 8, 8)
        pair[broken][0, 1, 2, 3] = value
        assert not contrast(*pair, 16, negatives=negatives, **definition).isfinite()


@pytest.mark.parametrize("implementation", ["streaming", "compiled", "reference"])
@each("ratio", "squared-0.1", "cosine-0.1")
def test_autocast(implementation, definition):
    """A bfloat16 model under autocast: the loss of its output is computed as outside, with no operation in bfloat16."""
    contrast = using(implementation)
    _, hr = images("random", 2, 3, 8, 8)
    model = convolution()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = model(hr)
        loss = contrast(sr, hr, 16, **definition)
    assert sr.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(reference(sr.double(), hr.double(), 16, **definition).item(), rel=1e-6)
    loss.backward()
    assert model.weight.grad.abs().max() > 0


def convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


@each("ratio", "l1-0.1", "squared-0.1")
def test_memory_layouts(contrast, definition):
    """channels_last, and a crop of a larger image, give the same bits as contiguous images."""
    sr, hr = images("random", 2, 3, 9, 10)
    expected = with_gradients(contrast, sr, hr, 16, **definition)
    last = [image.contiguous(memory_format=torch.channels_last) for image in (sr, hr)]
    crops = [nn.functional.pad(image, (1, 2, 3, 4))[:, :, 3:-4, 1:-2] for image in (sr, hr)]
    for pair in (last, crops):
        assert not pair[0].is_contiguous()
        assert all(map(torch.equal, with_gradients(contrast, *pair, 16, **definition), expected))


@pytest.mark.parametrize("negatives", NEGATIVES)
@each("ratio", "squared-0.1")
def test_only_the_gradients_that_are_needed(contrast, definition, negatives):
    """Gradient for SR alone, for HR alone, for none: the same numbers, scaled and asked for again, and no graph where
    none is asked for."""
    sr, hr = images("8 bit", 1, 3, 8, 9)
    loss, of_sr, of_hr = with_gradients(contrast, sr, hr, 16, negatives=negatives, **definition)
    for alone, expected in enumerate((of_sr, of_hr)):
        pair = [sr.clone(), hr.clone()]
        pair[alone].requires_grad_()
        value = contrast(*pair, 16, negatives=negatives, **definition)
        for _ in range(2):
            (found,) = torch.autograd.grad(-3 * value, pair[alone], retain_graph=True)
            torch.testing.assert_close(found, -3 * expected)
        assert torch.equal(value.detach(), loss)
    with torch.no_grad(), Operations() as operations:
        value = contrast(sr.clone().requires_grad_(), hr, 16, negatives=negatives, **definition)
    assert {args[-2:] for _, args in operations.of_prffn} == {(False, False)}
    assert not value.requires_grad
    assert torch.equal(value, loss)


COMPILED_TRANSFORMS = pytest.param(
    functools.partial(torch.compile, backend="aot_eager"),
    marks=pytest.mark.skipif(
        Version(torch.__version__) < Version("2.9"),
        reason="before 2.9, PyTorch does not compile torch.func's transforms of an operator",
    ),
)


@pytest.mark.parametrize("compile", [lambda f: f, COMPILED_TRANSFORMS])
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
@pytest.mark.parametrize("device", ["meta", "cpu"])
@each("ratio", "l1-0.1", "squared-0.001", "cosine-0.1")
def test_tensors_without_values(implementation, device, definition):
    """Meta tensors, and the fake ones of torch.compile and export: the loss is a scalar, the gradients have the images'
    shape and type. They have no memory, which C code would read."""
    for dtype in (torch.bfloat16, torch.float64):
        with FakeTensorMode() if device == "cpu" else contextlib.nullcontext():
            sr, hr = (torch.rand(1, 3, 9, 10, dtype=dtype, device=device).requires_grad_() for _ in range(2))
            loss = pixel_contrast(sr, hr, 16, implementation=implementation, negatives="both", **definition)
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
    assert all(map(torch.equal, found, expected))
    with pytest.raises(RuntimeError, match="values in memory, got .*meta"):
        fused._address(pair[0].to("meta"))


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the names and arguments of the kit's own operators, and the most bytes that tensors made inside it and
    inside those held at one time, as seen at each operation's return."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0
        self.of_prffn: list[tuple[str, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "prffn":
            self.of_prffn.append((func._opname, args))
            of_name = {
                "contrast": fused._contrast,
                "stream": streaming._stream,
                "contrast_gpu": triton_loss._contrast_gpu,
            }
            operator = of_name[func._opname]
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


@each("ratio", "l1-0.1", "squared-0.1")
def test_memory(contrast, definition):
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
            contrast(sr, hr, region_size, **definition)
        assert sum(kept) <= 2 * sr.nbytes
        assert memory.peak < 16 * 2**20


def test_inside_a_compiled_step(contrast):
    """Model and loss in one graph: the same loss and gradients."""
    _, hr = images("random", 1, 3, 8, 8)
    model = convolution()

    def step(image: Tensor) -> Tensor:
        ratio = contrast(model(image), image, 16, form="ratio")
        return ratio + contrast(model(image), image, 16, form="infonce")

    expected = step(hr)
    (reference,) = torch.autograd.grad(expected, model.weight)
    torch._dynamo.reset()
    loss = torch.compile(step, fullgraph=True, backend="aot_eager")(hr)
    (gradient,) = torch.autograd.grad(loss, model.weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, reference)


@pytest.fixture
def compiled_code(monkeypatch, tmp_path):
    """The folder of compiled code: empty, with no library in memory."""
    needs_a_c_compiler()
    monkeypatch.setenv("PRFFN_CACHE", str(tmp_path))
    monkeypatch.setattr(fused, "_library", functools.cache(fused._library.__wrapped__))
    return tmp_path / "compiled"


@pytest.mark.parametrize("broken", ["no-such-compiler -x", "false", "source", "cache"])
def test_without_a_c_compiler_the_error_says_what_to_do(compiled_code, broken, monkeypatch, tmp_path):
    message = f"needs a C compiler.*use implementation='streaming'.*{broken.split()[0]}"
    (tmp_path / "broken.c").write_text("#error this cannot be compiled\n")
    if broken == "source":
        monkeypatch.setattr(fused, "SOURCE", tmp_path / "broken.c")
        message = "use implementation='streaming'.*this cannot be compiled"
    elif broken == "cache":
        monkeypatch.setenv("PRFFN_CACHE", str(tmp_path / "broken.c"))
        message = "PRFFN_CACHE names the folder"
    else:
        monkeypatch.setenv("CC", broken)
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        using("compiled")(*images("random", 1, 1, 8, 8), 16)
    assert not list(compiled_code.glob("*"))


def test_a_compiler_that_does_not_know_this_processor(compiled_code, monkeypatch, tmp_path):
    """It compiles for any processor, to other code in the cache. CC may hold arguments."""
    pair = images("random", 1, 1, 8, 8)
    expected = using("compiled")(*pair, 16)
    picky = tmp_path / "picky"
    picky.write_text(f'case "$*" in *-march=native*) exit 1;; esac; exec {os.environ.get("CC") or "cc"} "$@"\n')
    monkeypatch.setenv("CC", f"sh {shlex.quote(str(picky))}")
    fused._library.cache_clear()
    torch.testing.assert_close(using("compiled")(*pair, 16), expected)
    assert len(list(compiled_code.glob("*.so"))) == 2


def test_compiled_once(compiled_code):
    """By whoever comes first; by two processes at once: test_side_by_side.py."""
    pair, made = images("random", 1, 1, 8, 8), []
    for _ in range(2):
        fused._library.cache_clear()
        using("compiled")(*pair, 16)
        made.append({path.name: path.stat().st_mtime_ns for path in compiled_code.iterdir()})
    assert made[0] == made[1]
    assert sorted(Path(name).suffix for name in made[0]) == [".sha256", ".so"]


def test_where_compiled_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("PRFFN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_root() == Path(files.__file__).parent.parent / ".cache"
    monkeypatch.setattr(files, "checkout", lambda: tmp_path / "site-packages")
    assert files.cache_root() == tmp_path / ".cache" / "prffn"


def test_deterministic(contrast):
    """Repeated, and in C with other numbers of threads too: the same bits."""
    pair = images("8 bit", 3, 3, 24, 22)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 1, 3) if contrast.keywords["implementation"] == "compiled" else (threads, threads):
            torch.set_num_threads(count)
            found.append([with_gradients(contrast, *pair, 64, negatives="both", **form) for form in FORMS.values()])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(all(map(torch.equal, *both)) for both in zip(found[0], other, strict=True))


def test_auto_takes_the_fastest_and_names_it(monkeypatch):
    """The C code for all forms, but for the ratio in regions that are better sorted; the stream without a compiler."""
    needs_a_c_compiler()
    pair = images("random", 1, 3, 64, 64)

    def operators(size: int, **settings: object) -> set[str]:
        module = PixelContrastLoss(size, **settings)
        with Operations() as operations:
            module(*pair)
        assert f"auto ({module.used})" in repr(module)
        return {module.used, *(name for name, _ in operations.of_prffn)}

    for name in ONE_OF_EACH:
        assert operators(16, **FORMS[name]) == {"compiled", "contrast"}
    assert operators(4096, **FORMS["squared-0.1"]) == {"compiled", "contrast"}
    assert operators(4096, **FORMS["ratio"]) == {"streaming", "stream"}
    monkeypatch.setattr(fused, "works", lambda: False)
    assert operators(16) == {"streaming", "stream"}
    with pytest.raises(ValueError, match="implementation must be one of auto"):
        PixelContrastLoss(implementation="fast")


@pytest.mark.parametrize("implementation", ["auto", "streaming", "reference"])
@each(*ONE_OF_EACH)
def test_grey_levels(implementation, definition):
    """Images in 0 to 255 with rgb_range=255 have the loss of the same images in [0, 1], and 1/255 of its gradient."""
    contrast, pair = using(implementation), images("8 bit", 1, 3, 9, 10, dtype=torch.float64)
    expected, of_sr, of_hr = with_gradients(contrast, *pair, 16, **definition)
    grey = [255 * image for image in pair]
    loss, *gradients = with_gradients(contrast, *grey, 16, rgb_range=255, **definition)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for gradient, wanted in zip(gradients, (of_sr, of_hr), strict=True):
        torch.testing.assert_close(255 * gradient, wanted, rtol=1e-6, atol=1e-9)


def test_a_range_that_is_wrong_by_a_factor_is_told():
    sr, hr = images("random", 1, 3, 8, 8)
    for other in (255 * hr, -255 * hr, 2 * hr - 1):
        with pytest.raises(ValueError, match=r"far outside .*rgb_range=255 .*, \(x \+ 1\) / 2"):
            pixel_contrast(sr, other)
    with pytest.warns(UserWarning, match="no value above 1"):
        pixel_contrast(sr, hr, rgb_range=255)
    with pytest.raises(ValueError, match="rgb_range must be"):
        pixel_contrast(sr, hr, rgb_range=0)
    pixel_contrast(3 * sr - 1, hr)  # a network that overshoots is no wrong range
    assert not pixel_contrast(sr, hr * float("inf")).isfinite()  # nor are values that are no numbers


def test_other_kinds_of_numbers(contrast):
    """HR takes SR's type; region_size may be any whole number."""
    sr, hr = images("random", 1, 3, 8, 8)
    expected = contrast(sr, hr, 16)
    assert contrast(sr, hr.double(), 16) == contrast(sr, hr, np.int64(16)) == expected
    assert PixelContrastLoss(region_size=np.int32(16)).contrast == Contrast(16)
