"""The benchmark measures what it says: the rivals compute the same loss, and a case comes out with its figures."""

import pytest
import torch

from prffn import bench
from prffn.losses.contrast import pixel_contrast


def test_the_matrix_product_computes_the_same_loss():
    g = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(2, 3, 16, 16, generator=g, dtype=torch.float64) for _ in range(2))
    expected = pixel_contrast(sr, hr, 16, form="infonce", similarity="squared", implementation="reference")
    assert bench.matmul_infonce(sr, hr, 16).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("form", list(bench.FORMS))
def test_all_implementations_of_a_form_agree(form, monkeypatch):
    """On a small batch; the compiled one is the reference in other machine code and is left to the benchmark."""
    monkeypatch.setattr(bench, "BATCH", (1, 3, 16, 16))
    found = {}
    for implementation in ("reference", "matmul", "streaming"):
        if bench.loss_function(form, implementation, 16) is not None:
            found[implementation] = bench.measure(form, implementation, 16, torch.device("cpu"), seconds=0.01)
    assert len(found) == (3 if form == "InfoNCE, squared" else 2)
    for figures in found.values():
        assert figures["loss"] == pytest.approx(found["reference"]["loss"], rel=1e-5)
        assert figures["ms"] > 0
