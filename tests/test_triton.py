"""L_contr's Triton code without a GPU: which images get it, what it refuses, its kernel interpreted and compiled."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import CHECKOUT
from test_streaming import images
from torch._subclasses.fake_tensor import FakeTensorMode

from prffn.losses import computed_by, implementation_for, pixel_contrast, triton_loss
from prffn.losses.contrast import Contrast


@pytest.mark.slow
def test_the_kernel_under_the_interpreter():
    pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for GPUs only")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "tests/interpreted.py"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", triton_loss.FINEST)
def test_the_kernel_compiles_for_a_gpu(form, monkeypatch, tmp_path):
    """An H100's machine code, made without one. No spilled registers were seen; what is checked is that it is made."""
    triton = pytest.importorskip("triton", "3.3", reason="Triton comes with PyTorch's builds for GPUs only")
    from triton.backends.compiler import GPUTarget

    from prffn.losses import triton_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"FORM": form, "WITH_GRADIENT": True, "ANCHORS": 64, "ROWS": 2, "COLUMNS": 8}
    pointers = {**dict.fromkeys(("sr", "hr", "grad_sr"), "*fp32"), "losses": "*fp64"}
    kinds = {**dict.fromkeys(constants, "constexpr"), **pointers, "sharpness": "fp32", "scale": "fp32"}
    signature = {name: kinds.get(name, "i32") for name in triton_kernel.contrast.arg_names}
    source = triton.compiler.ASTSource(triton_kernel.contrast, signature, constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2}).asm["cubin"]


COVERED = [{}, {"similarity": "l1", "temperature": 0.1}, {"similarity": "dot", "temperature": 0.1}]
LEFT = [
    {"form": "ratio"},
    {"similarity": "cosine"},
    {"similarity": "l1"},
    {"temperature": 0.0005},
    {"negatives": "sr"},
    {"negatives": "both"},
]
"""What the kernel does not know: other forms and negatives, and temperatures too small for float32."""


def test_auto_takes_it_for_what_it_covers(monkeypatch):
    monkeypatch.setattr(triton_loss, "works", lambda: True)
    monkeypatch.setattr(triton_loss, "build", lambda: {"triton": "3.8.0"})
    with FakeTensorMode():
        assert computed_by(Contrast(), torch.device("cuda")) == {"L_contr": "triton", "triton": "3.8.0"}
        rgb, grey, double = (
            torch.empty(1, channels, 8, 8, dtype=dtype, device="cuda")
            for channels, dtype in ((3, torch.float32), (1, torch.float32), (3, torch.float64))
        )
        assert [implementation_for(rgb, Contrast(**settings)) for settings in COVERED] == ["triton"] * len(COVERED)
        assert [implementation_for(rgb, Contrast(**settings)) for settings in LEFT] == ["streaming"] * len(LEFT)
        assert implementation_for(grey, Contrast()) == implementation_for(double, Contrast()) == "streaming"
    assert implementation_for(torch.empty(1, 3, 8, 8), Contrast()) != "triton"


def test_without_triton_gpus_get_the_stream(monkeypatch):
    monkeypatch.setattr(triton_loss, "INSTALLED", False)
    with FakeTensorMode():
        assert computed_by(Contrast(), torch.device("cuda")) == {"L_contr": "streaming"}


def test_tensors_without_values(monkeypatch):
    """Those of a compiler, and meta tensors: a scalar, and a gradient like the image."""
    monkeypatch.setattr(triton_loss, "works", lambda: True)
    sr = torch.rand(2, 3, 9, 10, device="meta").contiguous(memory_format=torch.channels_last).requires_grad_()
    pixel_contrast(sr, sr.detach(), 16, implementation="triton").backward()
    assert sr.grad.stride() == sr.stride()
    with FakeTensorMode():
        image = torch.rand(2, 3, 9, 10, device="cuda")
        assert pixel_contrast(image, image, 16).shape == ()


def test_what_it_does_not_know_is_refused(monkeypatch):
    monkeypatch.setattr(triton_loss, "works", lambda: True)
    pair = images("random", 1, 3, 8, 8)
    with pytest.raises(RuntimeError, match="code for GPUs, and got images on cpu: use 'auto' or 'streaming'"):
        pixel_contrast(*pair, implementation="triton")
    meta = [image.to("meta") for image in pair]
    for settings in LEFT:
        with pytest.raises(RuntimeError, match="negatives='hr' .*use 'auto' or 'streaming'"):
            pixel_contrast(*meta, implementation="triton", **settings)
    with pytest.raises(RuntimeError, match="float32 images of 3 channels"):
        pixel_contrast(*(image.double() for image in meta), implementation="triton")
    monkeypatch.setattr(triton_loss, "works", lambda: False)
    with pytest.raises(RuntimeError, match="Triton is not installed: use 'auto' or 'streaming'"):
        pixel_contrast(*meta, implementation="triton")
