"""Training: exact resume, exact seeds, the schedule by hand, and errors that say what went wrong.

Killed trainings, and damaged checkpoints: test_faults_killed.py, test_faults_damaged.py.
"""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import stop_after, tiny_settings
from PIL import Image
from torch._dynamo.utils import counters

from prffn.config import PROFILES, LossConfig, TrainingConfig, experiment
from prffn.data.patches import batches
from prffn.files import weights_sha256
from prffn.study.keys import PROTOCOL
from prffn.training.checkpoint import load_checkpoint
from prffn.training.curve import NonFiniteLoss
from prffn.training.loop import train
from prffn.training.objective import gradient_norms, loss_terms, weighted
from prffn.training.schedule import Clipping, learning_rate


@pytest.mark.parametrize("network", ["PRFFN", "EDSR", "RCAN", "SwinIR-light"])
def test_a_stopped_and_resumed_run_has_the_bits_of_an_unbroken_one(network, photo_folder, tmp_path, monkeypatch):
    """Stopped after step 7, in the middle of an interval of the curve. Also the networks of Table 4, reduced; all start
    as an interpolation."""
    monkeypatch.setattr("prffn.training.loop.CURVE_POINTS", 4)
    e = experiment(tiny_settings(photo_folder, **{"model.network": network, "training.initial": "interpolating"}))
    whole, checkpoint = train(e, progress=False), tmp_path / "run.ckpt"
    stop_after(e, 7, checkpoint)
    assert load_checkpoint(checkpoint)["step"] == 7
    resumed = train(e, checkpoint=checkpoint, progress=False)
    assert weights_sha256(resumed.model) == weights_sha256(whole.model)
    assert resumed.curve == whole.curve
    assert [point["step"] for point in whole.curve] == [3, 6, 9, 12]
    assert whole.curve[-1]["l1"] < 0.1


def test_a_checkpoint_of_another_experiment_is_not_used(tiny, photo_folder, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    train(tiny, checkpoint=checkpoint, progress=False)
    other = experiment(tiny_settings(photo_folder, seed=1))
    with pytest.warns(UserWarning, match="another experiment"):
        trained = train(other, checkpoint=checkpoint, progress=False)
    assert weights_sha256(trained.model) == weights_sha256(train(other, progress=False).model)


def test_the_seed_decides_everything(tiny, photo_folder):
    torch.manual_seed(1)
    first = weights_sha256(train(tiny, progress=False).model)
    torch.manual_seed(2)
    assert weights_sha256(train(tiny, progress=False).model) == first
    other = experiment(tiny_settings(photo_folder, seed=1))
    assert weights_sha256(train(other, progress=False).model) != first


def test_halving_schedule_by_hand():
    """The paper profile: 1e-4, halved every 200,000 steps: 0, 199,999 | 200,000 | 999,999 (four halvings)."""
    config = TrainingConfig()
    rates = [learning_rate(config, step) for step in (0, 199_999, 200_000, 999_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 6.25e-6], rel=1e-12)


def test_one_cycle_schedule_by_hand():
    """100 steps to 1.0: warm-up 0.1, 0.2, ... 1.0 over ten; then half a cosine, 0.5 at its middle (step 55)."""
    config = TrainingConfig(steps=100, learning_rate=1.0, schedule="one_cycle")
    rates = [learning_rate(config, step) for step in (0, 1, 9, 10, 55, 99)]
    expected = [0.1, 0.2, 1.0, 1.0, 0.5, 0.5 * (1 + math.cos(math.pi * 89 / 90))]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_the_total_loss_by_hand():
    """L = 255 L_1 + lambda_c L_contr: 255 * 0.02 + 0.1 * 2 = 5.3; where it fades, 0.05 * 2 at half of the training.
    With L_perc and L_CSD 0.01 * 3 + 0.5 * 0.4 = 0.23 more."""
    values = {"l1": 0.02, "contrast": 2.0, "perceptual": 3.0, "csd": 0.4}
    terms = {name: torch.tensor(value) for name, value in values.items()}
    two, more = {name: terms[name] for name in ("l1", "contrast")}, {"perceptual_weight": 0.01, "csd_weight": 0.5}
    assert sum(weighted(two, LossConfig()).values()).item() == pytest.approx(5.3)
    assert sum(weighted(two, LossConfig(contrast_fades=True), done=0.5).values()).item() == pytest.approx(5.2)
    assert sum(weighted(terms, LossConfig(**more)).values()).item() == pytest.approx(5.53)


def test_gradient_norms_by_hand():
    """Of 255 mean|x - y| over 4 values a gradient of 255 / 4 each: squared and summed 4 (255 / 4)^2; of 2 mean x, 1."""
    x = torch.tensor([[0.1, 0.2], [0.3, 0.4]], requires_grad=True)
    parts = {"l1": 255 * (x - 0.5).abs().mean(), "contrast": 2 * x.mean()}
    assert gradient_norms(parts, x).tolist() == pytest.approx([4 * (255 / 4) ** 2, 1.0])


def test_the_clip_by_hand():
    """Norms 3, 5, 1: of the first two the median is 4, of all three 3. 5 is clipped to 4, the others stay."""
    weight, clipping = torch.nn.Parameter(torch.zeros(1)), Clipping(TrainingConfig(steps=3, clip_quantile=0.5), "cpu")
    found = []
    for step, norm in enumerate((3.0, -5.0, 1.0)):
        weight.grad = torch.tensor([norm])
        clipping.clip([weight], step)
        found.append(weight.grad.item())
    assert found == pytest.approx([3.0, -4.0, 1.0])


@pytest.mark.parametrize("bad_step", [3, 11])
def test_a_bad_loss_of_a_gpu_is_named_later_and_saved_never(tiny, tmp_path, monkeypatch, bad_step):
    """Losses are read every 10 steps and at the end, as on a GPU every 50: those between are saved only once read."""
    monkeypatch.setattr("prffn.training.loop.CURVE_POINTS", 1)
    monkeypatch.setattr("prffn.training.loop.read_every", lambda device: 10)
    steps = iter(range(100))

    def poisoned(*arguments):
        terms = loss_terms(*arguments)
        return {**terms, "contrast": terms["contrast"] * float("nan")} if next(steps) == bad_step else terms

    monkeypatch.setattr("prffn.training.loop.loss_terms", poisoned)
    with pytest.raises(NonFiniteLoss, match=f"loss term 'contrast' is nan at step {bad_step};"):
        train(tiny, checkpoint=tmp_path / "run.ckpt", checkpoint_every=0, progress=False)
    saved = load_checkpoint(tmp_path / "run.ckpt")
    assert (saved and saved["step"]) == (None if bad_step == 3 else 10)
    assert next(steps) == (10 if bad_step == 3 else 12)


def test_a_gpus_way_gives_the_same_bits(tiny, monkeypatch):
    """Batches drawn ahead by a thread, losses read every five steps: only the waiting differs."""
    plain = train(tiny, progress=False)
    monkeypatch.setattr("prffn.training.loop.read_every", lambda device: 5)
    monkeypatch.setattr("prffn.training.loop.batches", partial(batches, ahead=3))
    monkeypatch.setattr("prffn.training.loop.CURVE_POINTS", 1)
    other = train(tiny, progress=False)
    assert weights_sha256(other.model) == weights_sha256(plain.model)
    assert other.curve[-1]["l1"] == pytest.approx(sum(point["l1"] for point in plain.curve) / 12, rel=1e-12)


@pytest.mark.parametrize(
    ("option", "tolerance"), [("bfloat16", 2e-2), ("channels_last", 1e-4), ("compiled", 1e-4)], ids=lambda value: value
)
def test_options_take_effect_and_change_the_numbers_little(tiny, photo_folder, monkeypatch, option, tolerance):
    """Same curve to bfloat16's three digits; another memory format or a compiler only change the order of sums."""
    seen = []

    def noting(sr, *others):
        seen.append(sr)
        return loss_terms(sr, *others)

    plain = train(tiny, progress=False).curve
    monkeypatch.setattr("prffn.training.loop.loss_terms", noting)
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="aot_eager"))  # without the C++ compiler
    counters.clear()
    other = train(experiment(tiny_settings(photo_folder, **{f"training.{option}": True})), progress=False).curve
    assert [p["l1"] for p in other] == pytest.approx([p["l1"] for p in plain], rel=tolerance)
    rounded = other[0]["l1"] != pytest.approx(plain[0]["l1"], rel=1e-5)
    strided = seen[0].is_contiguous(memory_format=torch.channels_last)
    compiled = bool(counters["stats"]["unique_graphs"])
    assert (rounded, strided, compiled) == tuple(option == name for name in ("bfloat16", "channels_last", "compiled"))


def test_a_run_starts_from_another_runs_weights(tiny, photo_folder):
    """x2 from x3: all but the upsampler's weights, whose shapes differ, are taken over; and never by accident."""
    x3 = train(tiny, progress=False).model.state_dict()
    settings = tiny_settings(photo_folder, **{"data.scale": 2, "training.learning_rate": 1e-30})
    e = dataclasses.replace(experiment(settings), start=tiny)
    x2 = train(e, start=x3, progress=False).model.state_dict()
    assert [name for name in x2 if not torch.equal(x2[name], x3.get(name, torch.empty(0)))] == [
        "upsampler.0.weight", "upsampler.0.bias",
    ]  # fmt: skip
    for wrong, start in ((e, None), (tiny, x3)):
        with pytest.raises(ValueError, match="`start` must hold the weights"):
            train(wrong, start=start, progress=False)
    with pytest.raises(ValueError, match="fit no layer"):
        train(e, start={"other": torch.zeros(1)}, progress=False)


GOLDEN = {
    3: {"l1": 0.2433511677, "contrast": 129.4415938},
}
"""Mean terms of the tiny run's twelve steps, by PROTOCOL."""


def test_golden_run(tmp_path):
    """Fails when the same settings give other numbers: then PROTOCOL must be raised, or old records pass as current.

    Images by formula, so that no decoder takes part; the tolerance leaves room for other processors' rounding."""
    folder = tmp_path / "golden"
    folder.mkdir()
    y, x = np.mgrid[:60, :66]
    for n in range(2):
        planes = [127 + 90 * np.sin((y * (c + 1) + x * (3 - c) + 11 * n) / 7) for c in range(3)]
        Image.fromarray(np.stack(planes, -1).round().astype(np.uint8)).save(folder / f"{n}.png")
    curve = train(experiment(tiny_settings(folder)), progress=False).curve
    means = {term: sum(point[term] for point in curve) / len(curve) for term in ("l1", "contrast")}
    assert len(curve) == 12
    assert means == pytest.approx(GOLDEN[PROTOCOL], rel=2e-5)


@pytest.mark.parametrize("option", [{}, {"training.bfloat16": True, "training.channels_last": True}])
def test_the_papers_own_settings_train(photo, tmp_path, option):
    """Two steps of the full network, patches, loss and schedule of profile `paper`; only images, batch and steps are
    less than the paper's, so that a CPU can do it."""
    folder = tmp_path / "large"
    folder.mkdir()
    Image.fromarray(photo).save(folder / "0.png")
    less = {"data.train": str(folder), "data.batch_size": 1, "training.steps": 2}
    trained = train(experiment({**PROFILES["paper"], **less, **option}), progress=False)
    assert sum(p.numel() for p in trained.model.parameters()) == 3_167_163
    assert len(trained.curve) == 2
    assert all(math.isfinite(point["l1"]) and point["contrast"] > 0 for point in trained.curve)
