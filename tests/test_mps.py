"""What MPS refuses is not asked of it: training, loss, evaluation and upscaling on the device that mps.py plays."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import tiny_settings
from mps import MPS, OnMPS, mps
from packaging.version import Version
from test_perceptual import save_random_vgg16

from prffn.apps.upscale import upscale_file
from prffn.config import experiment
from prffn.evaluation.cost import ForwardCase, LossCase
from prffn.evaluation.metrics import evaluate
from prffn.evaluation.tiling import upscale
from prffn.losses import Implementation, pixel_contrast
from prffn.losses.contrast import Contrast, Negatives, Similarity
from prffn.losses.perceptual import csd_loss, perceptual_loss
from prffn.models import NETWORKS, build
from prffn.models.pretrained import pretrained
from prffn.study.ensure import ensure

pytestmark = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.9"), reason="the device that is played needs PyTorch 2.9 or newer"
)

DEFINITIONS = [
    *(Contrast(16, "infonce", kind, tau, negatives=which)
      for kind in get_args(Similarity) for tau in (0.001, 0.2) for which in get_args(Negatives)),
    *(Contrast(16, "ratio", negatives=which) for which in ("hr", "sr", "both")),
]  # fmt: skip
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "streaming", "reference")


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    with mps():
        yield MPS


def test_it_refuses_what_mps_refuses(device):
    x = torch.rand(3, 4).to(device)
    wide = torch.ones(2, dtype=torch.float64)
    for attempt in (
        lambda: x.double(), lambda: x.to(torch.float64), lambda: x.sum(dtype=torch.float64),
        lambda: wide.to(device), lambda: torch.zeros(2, dtype=torch.float64, device=device),
        lambda: x.new_empty(2, dtype=torch.float64), lambda: torch.zeros_like(x, dtype=torch.float64),
        lambda: torch.nn.Linear(2, 2).double().to(device),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="the MPS framework doesn't support it"):
            attempt()
    with pytest.raises(TypeError, match="to numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="a tensor of the CPU among those of mps"):
        x + torch.rand(3, 4)
    assert isinstance(wide.to(device, torch.float32), OnMPS)
    assert (x @ x.T).device == device
    assert x.cpu().device == torch.device("cpu")


@pytest.mark.parametrize("contrast", DEFINITIONS, ids=str)
def test_the_loss(contrast, device):
    """Every form in every implementation, with both gradients: that of float64 on the CPU, as near as float32 comes."""
    sr, hr = torch.rand(2, 2, 3, 10, 9, generator=torch.Generator().manual_seed(0))
    hr = sr + 0.05 * hr
    x, y = sr.double().requires_grad_(), hr.double().requires_grad_()
    expected = pixel_contrast(x, y, contrast, implementation="reference")
    expected.backward()
    for implementation in IMPLEMENTATIONS:
        if implementation == "streaming" and contrast.negatives in ("none", "elsewhere"):
            continue
        a, b = sr.to(device).requires_grad_(), hr.to(device).requires_grad_()
        loss = pixel_contrast(a, b, contrast, implementation=implementation)
        loss.backward()
        assert loss.device == a.grad.device == device
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        for found, wanted in ((a.grad, x.grad), (b.grad, y.grad)):
            assert (found.cpu() - wanted).norm() < 1e-3 * wanted.norm() + 1e-9


def test_the_losses_of_table_2(tmp_path, monkeypatch, device):
    save_random_vgg16(tmp_path)
    monkeypatch.setenv("PRFFN_WEIGHTS", str(tmp_path))
    sr, hr = torch.rand(2, 2, 3, 32, 32).to(device)
    lr = torch.rand(2, 3, 16, 16).to(device)
    sr.requires_grad_()
    (perceptual_loss(sr, hr, "vgg16_caffe") + csd_loss(sr, hr, lr, "vgg16_caffe")).backward()
    assert sr.grad.device == device
    assert sr.grad.cpu().isfinite().all()


def test_a_run_is_trained_measured_and_recorded(photo_folder, device):
    """With all that a training can have: clipping, a curve, validation, a checkpoint, evaluation."""
    settings = tiny_settings(
        photo_folder,
        **{"training.clip_quantile": 0.5, "training.initial": "interpolating", "loss.contrast_weight": 0.1},
    )
    (run,) = ensure({"a": [experiment(settings)]}, "quick", device="mps", progress=False)["a"]
    assert run.record["provenance"]["device"] == "mps"
    assert run.record["provenance"]["training"][0]["L_contr"] == "streaming"
    assert all(np.isfinite(value) for point in run.record["curve"] for value in point.values())


def test_evaluation_and_upscaling(photo_folder, tmp_path, device):
    model = pretrained(2)
    on_cpu = evaluate(model, str(photo_folder), device="cpu")
    assert evaluate(model, str(photo_folder), device=device) == on_cpu
    upscale_file(photo_folder / "0.png", tmp_path / "out.png", model, device=device, tile=32, progress=False)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_upscales(network, photo, device):
    model = build(network, 2, generator=torch.Generator().manual_seed(0))
    assert upscale(model, photo[:16, :16], scale=2, device=device).shape == (32, 32, 3)


def test_costs_are_measured(device):
    LossCase(contrast={"region_size": 16}, implementation="auto", batch=1).call(device)()
    small = {"channels": 4, "groups": 1}
    ForwardCase(network="PRFFN", scale=2, height=8, width=8, options=small).call(device)()
