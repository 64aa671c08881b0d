"""A reader's own loss: its file found and executed once, what cannot be used told before any training, its control of
equal strength, and the answer from made-up figures."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CHECKOUT, generator, tiny_settings

from prffn import files
from prffn.config import PROFILES, LossConfig, experiment
from prffn.files import weights_sha256
from prffn.losses.own import check_loss, locate, own_loss, short_name, source_sha256
from prffn.study import own_loss as question
from prffn.study.claims import claims_greater
from prffn.study.ensure import ensure
from prffn.study.keys import run_key
from prffn.study.runs import Run, Runs
from prffn.training.curve import NonFiniteLoss
from prffn.training.loop import train
from prffn.training.objective import control, gradient_norms, loss_terms, weighted

TO_TRY = "notebooks/losses_to_try.py"

SOURCE = """
import torch.nn.functional as F

FACTOR = 2.0

def my_loss(sr, hr):
    return FACTOR * F.mse_loss(sr, hr)

def of_each_image(sr, hr):
    return (sr - hr).abs().mean((1, 2, 3))

def strong(sr, hr):
    return 1000 * F.l1_loss(sr, hr)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_file.py"
    path.write_text(SOURCE)
    return path


def own(file: Path, function: str = "my_loss", **more: object) -> dict[str, object]:
    name = locate(f"{file}:{function}")
    settings = {"loss.contrast_weight": 0.0, "loss.own": name, "loss.own_sha256": source_sha256(name)}
    return settings | {f"loss.own_{field}": value for field, value in more.items()}


def test_a_file_is_found_from_the_current_folder_then_from_the_checkout(file, monkeypatch):
    """As notebooks are run: by papermill in the caller's folder, by nbval in their own."""
    in_checkout = f"{CHECKOUT / TO_TRY}:squared_error"
    monkeypatch.chdir(file.parent)
    assert locate("my_file.py:my_loss") == locate(f"{file}:my_loss") == f"{file}:my_loss"
    assert locate(f"{TO_TRY}:squared_error") == in_checkout
    (file.parent / "notebooks").mkdir()
    shutil.copy(CHECKOUT / TO_TRY, file.parent / TO_TRY)
    assert locate(f"{TO_TRY}:squared_error") == f"{file.parent / TO_TRY}:squared_error"
    assert short_name(in_checkout) == "losses_to_try.py:squared_error"
    assert short_name("") == ""


def test_a_name_that_leads_nowhere(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    for name in ("my_file.py", ":my_loss", "my_file.py:my loss"):
        with pytest.raises(ValueError, match=f"loss must name a file and a function in it, such as .*, got '{name}'"):
            locate(name)
    with pytest.raises(FileNotFoundError, match="loss 'none.py:my_loss': no such file in"):
        locate("none.py:my_loss")


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        (SOURCE, "my_los", "unknown function 'my_los'. Did you mean 'my_loss'?"),
        (SOURCE, "FACTOR", "unknown function 'FACTOR'"),
        ("def f(:", "f", r"its file stops with SyntaxError: .*my_file.py, line 1"),
        ("import no_such_package", "f", "its file stops with ModuleNotFoundError: No module named 'no_such_package'"),
        (b"\xff\xfe", "f", "not Python source in UTF-8"),
    ],
)
def test_a_file_that_defines_no_such_function(file, source, function, message):
    file.write_bytes(source if isinstance(source, bytes) else source.encode())
    name = f"{file}:{function}"
    with pytest.raises(ValueError, match=message):
        own_loss(name, source_sha256(name))


def test_a_changed_file_is_another_run_and_is_never_taken_for_the_old_one(file, photo_folder, tmp_path):
    """Equal source gives the key, wherever the file lies and however its lines end; the process that has executed the
    old one goes on with it, one that has not says that the file has changed."""
    tiny, settings = tiny_settings(photo_folder), own(file)
    old = run_key(experiment(tiny | settings))
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / file.name
    copy.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert run_key(experiment(tiny | own(copy))) == old
    loss = own_loss(settings["loss.own"], settings["loss.own_sha256"])
    file.write_text(SOURCE.replace("FACTOR = 2.0", "FACTOR = 3.0"))
    changed = own(file)
    assert run_key(experiment(tiny | changed)) != old == run_key(experiment(tiny | settings))
    sr, hr = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    assert own_loss(settings["loss.own"], settings["loss.own_sha256"]) is loss
    assert (loss(sr, hr), own_loss(changed["loss.own"], changed["loss.own_sha256"])(sr, hr)) == (2, 3)
    own_loss.cache_clear()
    with pytest.raises(ValueError, match="my_file.py has changed since its loss was named"):
        own_loss(settings["loss.own"], settings["loss.own_sha256"])


def test_without_effect_it_is_no_setting(file, photo_folder):
    """No loss, or one of weight 0: the key of a run from before there were such settings."""
    alone = tiny_settings(photo_folder) | {"loss.contrast_weight": 0.0}
    key = run_key(experiment(alone))
    assert run_key(experiment(alone | own(file, weight=0.0, control=True))) == key
    assert run_key(experiment(alone | {"loss.own_control": True})) == key
    others = [run_key(experiment(alone | own(file, **more))) for more in ({}, {"weight": 2.0}, {"control": True})]
    assert len({key, *others}) == 4


def in_place(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    sr -= hr
    return sr.abs().mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda sr: sr.mean(), "stops with TypeError: .* takes 1 positional argument but 2 were given"),
        (lambda x, y: F.l1_loss(x, y[..., ::2]), r"each of shape \(3, 3, 8, 12\), stops with RuntimeError"),
        (lambda x, y: (x - y).abs().mean().item(), r"of images that differ is 0\.0\d+, not a tensor"),
        (lambda x, y: torch.tensor(np.abs(x.detach().numpy() - y.numpy()).mean()), "no gradient in sr"),
        (lambda x, y: (x.detach() - y).abs().mean(), "has no gradient in sr"),
        (lambda x, y: torch.ones(3, requires_grad=True).mean(), "has no gradient in sr"),
        (lambda x, y: (x - y).abs().mean((1, 2, 3)), r"is torch.float32 of shape \(3,\): return a scalar, such as its"),
        (lambda x, y: (x > y).sum(), r"is torch.int64 of shape \(\): return a scalar"),
        (lambda x, y: (x - y).square().sum(1).sqrt().mean(), "the gradient .* equals hr in places.* is not finite"),
        (lambda x, y: (x - y).sqrt().mean(), "of images that differ is nan: keep roots"),
        (lambda x, y: (x - y).square().mean((1, 2, 3)).log10().mean(), "equals hr in places, some of them black is"),
        (lambda x, y: ((x + 0.01).log() - (y + 0.01).log()).abs().mean(), r"leaves \[0, 1\] a little, as .* is nan"),
        (lambda x, y: (x.round() - y).abs().mean(), "is zero everywhere"),
        (in_place, "changes sr or hr, which others use too"),
        (lambda x, y: (torch.rand_like(x) * (x - y)).abs().mean(), "for the same images, so no run could be repeated"),
    ],
)
def test_a_loss_that_cannot_be_used_is_told_at_once(loss, message):
    with pytest.raises(ValueError, match=message) as error:
        check_loss(loss, (8, 12))
    assert len(str(error.value).splitlines()) == 1


def images(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    hr = torch.rand(n, 3, 6, 6, generator=generator())
    return (hr + 0.1 * torch.randn(n, 3, 6, 6, generator=generator(1))).requires_grad_(), hr


def test_the_total_by_hand(file):
    """255 L_1 + w 2 mean d^2 with d = 0.5 everywhere and w = 10: 127.5 + 10 * 0.5 = 132.5."""
    sr, hr = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4)
    config = experiment(own(file, weight=10.0)).loss
    terms = loss_terms(sr, hr, sr, config)
    assert set(terms) == {"l1", "own"}
    assert sum(weighted(terms, config).values()).item() == pytest.approx(132.5)
    assert set(loss_terms(sr, hr, sr, dataclasses.replace(config, own_weight=0.0))) == {"l1"}


@pytest.mark.parametrize(
    "loss", [F.l1_loss, F.mse_loss, lambda x, y: 3 * (x - y).pow(4).mean()], ids=["l1", "squared", "fourth"]
)
def test_the_control_is_a_squared_error_as_strong_as_the_loss(loss):
    """Its gradient points along sr - hr, and has the norm of the loss's: of L_1 over n values 1 / sqrt(n)."""
    sr, hr = images()
    terms = {"own": loss(sr, hr), "control": control(loss, sr, hr)}
    of_loss, of_control = gradient_norms(terms, sr).sqrt().tolist()
    assert of_control == pytest.approx(of_loss, rel=1e-5)
    gradient = torch.autograd.grad(terms["control"], sr)[0].flatten()
    assert F.cosine_similarity(gradient, (sr - hr).flatten(), dim=0).item() == pytest.approx(1, abs=1e-6)
    if loss is F.l1_loss:
        assert of_control == pytest.approx(1 / math.sqrt(sr.numel()), rel=1e-5)


def test_the_control_of_two_processes_is_that_of_one():
    """Parts of one and of two images: the weighted mean of their gradients is the gradient of the batch."""
    sr, hr = images()
    parts, shares = (slice(0, 1), slice(1, 3)), (1 / 3, 2 / 3)
    asked: list[torch.Tensor] = []
    for part in parts:
        control(F.l1_loss, sr[part], hr[part], lambda squares: asked.append(squares) or squares)
    mean = sum(share * squares for share, squares in zip(shares, asked, strict=True))
    total = sum(
        share * control(F.l1_loss, sr[part], hr[part], lambda _: mean)
        for part, share in zip(parts, shares, strict=True)
    )
    found, expected = (torch.autograd.grad(loss, sr)[0] for loss in (total, control(F.l1_loss, sr, hr)))
    assert torch.allclose(found, expected, rtol=1e-5)


def test_what_the_losses_to_try_are_known_for(photo_folder):
    """A squared error and its control are one loss, but for rounding; so are L_1 and twice L_1, as Adam and the clip
    see them. L_1 alone is another one than the first two."""
    error, absolute = (CHECKOUT / TO_TRY, "squared_error"), (CHECKOUT / TO_TRY, "absolute_error")
    curves = {
        name: train(experiment(tiny_settings(photo_folder) | changes), progress=False).curve
        for name, changes in {
            "squared": own(*error, weight=255.0),
            "control": own(*error, weight=255.0, control=True),
            "twice": own(*absolute, weight=255.0),
            "alone": {"loss.contrast_weight": 0.0},
        }.items()
    }
    last = {name: curve[-1]["l1"] for name, curve in curves.items()}
    assert last["control"] == pytest.approx(last["squared"], rel=1e-5)
    assert last["twice"] == pytest.approx(last["alone"], rel=1e-5)
    assert last["alone"] != pytest.approx(last["squared"], rel=1e-4)
    of_squared, of_control = curves["squared"][-1]["gradient_own"], curves["control"][-1]["gradient_control"]
    assert of_control == pytest.approx(of_squared, rel=1e-3)


@pytest.mark.slow
def test_it_is_trained_in_other_processes_too_and_no_record_names_a_folder(file, photo_folder, tmp_path):
    """Side by side as alone; a record holds the file's own name, function, checksum and weight."""
    alone = experiment(tiny_settings(photo_folder) | own(file, weight=30.0))
    control = experiment(tiny_settings(photo_folder) | own(file, weight=30.0, control=True))
    asked = {"own": [alone], "control": [control]}
    runs = ensure(asked, "quick", device="cpu", progress=False, workers=2)
    for e, run in zip((alone, control), (runs["own"][0], runs["control"][0]), strict=True):
        assert run.record["weights_sha256"] == weights_sha256(train(e, progress=False).model)
    record = runs["own"][0].record
    assert record["settings"]["loss.own"] == "my_file.py:my_loss"
    assert record["settings"]["loss.own_sha256"] == source_sha256(f"{file}:my_loss")
    assert str(tmp_path) not in str(record)
    assert repr(ensure(asked, "quick", progress=False)) == "2 runs of profile quick: 2 loaded, 0 trained"


def test_one_that_fails_in_training_is_named(file, photo_folder):
    """Finite on all that is tried, but not on what a network makes of these images."""
    file.write_text("def f(sr, hr):\n    return sr.mean() * (0.0 if len(sr) == 3 else float('nan')) + sr.mean()")
    check_loss(own_loss(f"{file}:f", source_sha256(f"{file}:f")))
    with pytest.raises(NonFiniteLoss, match="loss term 'own' is nan at step 0; .* or a smaller weight of your loss"):
        train(experiment(tiny_settings(photo_folder) | own(file, "f")), progress=False)


# The question of the notebook


def test_three_losses_at_three_lengths():
    """A quarter of the profile's steps, all and twice as many: of 1500 at `cpu`; L_1 + w L is 255 L_1 + 255 w L."""
    steps = PROFILES["cpu"]["training.steps"]
    assert question.lengths("cpu") == (steps // 4, steps // 2, steps)
    losses = question.beside_l1(f"{TO_TRY}:squared_error", 0.5, "quick")
    assert list(losses) == ["L_1", "your loss", "control"]
    loss = {name: experiment(changes).canonical().loss for name, changes in losses.items()}
    assert loss["L_1"] == LossConfig(contrast_weight=0.0)
    assert loss["your loss"].own_weight == 127.5
    assert loss["control"] == dataclasses.replace(loss["your loss"], own_control=True)


def test_what_cannot_be_used_is_told_before_any_training(file):
    with pytest.raises(
        ValueError, match=rf"loss '{file}:of_each_image' of images that differ is torch.float32 of shape"
    ):
        question.beside_l1(f"{file}:of_each_image", 1.0, "quick")


def test_a_weight_that_is_hardly_felt_or_drowns_l1_is_warned_of(file):
    """1000 L_1 at weight 1 is a thousand times L_1: 0.001 would be as large."""
    with pytest.warns(UserWarning, match=r"is 1e\+03 times as large as L_1's: at weight 0.001 it would be as large"):
        question.beside_l1(f"{file}:strong", 1.0, "quick")
    assert question.first_share(own(file, "strong", weight=0.255), "quick") == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        (("holds", "holds", "holds"), "helps"),
        (("does not hold", "not decided", "holds"), "helps"),
        (("holds", "holds", "does not hold"), "hurts"),
        (("holds", "not decided", "not decided"), "only speeds up"),
        (("does not hold", "holds", "not decided"), "only speeds up"),
        (("does not hold", "not decided", "not decided"), "cannot be told from L_1 alone"),
        (("not decided", "not decided", "not decided"), "cannot be told from L_1 alone"),
    ],
)
def test_the_outcome_by_hand(verdicts, found):
    assert question.outcome(verdicts) == found


STEPS = (10, 20, 40)


def made_up(gains: dict[str, tuple[float, float, float]]) -> Runs:
    """Three seeds on a set of one image and one of two, whose gains over L_1 alone at the three lengths are these on
    the larger, and none on the smaller; from one seed to the next they differ by 0.01."""
    by_label = {}
    for name in ("L_1", "your loss", "control"):
        for n, steps in enumerate(STEPS):
            gain = gains.get(name, (0.0, 0.0, 0.0))[n]
            label = question.label(name, steps)
            apart = [0.0, 0.0, 0.0] if name == "L_1" else [-0.01, 0.0, 0.01]
            figures = [{"small": [30.0 + d], "large": [28.0 + gain + d, 29.0 + gain + d]} for d in apart]
            records = [{"evaluation": {key: {"psnr_y": v} for key, v in of_seed.items()}} for of_seed in figures]
            by_label[label] = [Run(f"{label}, seed {seed}", record) for seed, record in enumerate(records)]
    return Runs("quick", by_label, set())


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {"your loss": (0.1, 0.1, 0.1), "control": (0.1, 0.1, 0.1)},
            "**`f` helps on large** (over L_1 alone: +0.100 dB [+0.075, +0.125] after 10 steps, +0.100 dB [+0.075, "
            "+0.125] after 20 steps, +0.100 dB [+0.075, +0.125] after 40 steps); it cannot be told from a squared "
            "error of the same share of the gradient (+0.000 dB [+0.000, +0.000] after 40 steps); on small it cannot "
            "be told from L_1 alone; 3 seeds, profile quick.",
        ),
        (
            {"your loss": (0.1, 0.1, 0.0), "control": (0.05, 0.1, 0.0)},
            "**`f` only speeds up on large** (over L_1 alone: +0.100 dB [+0.075, +0.125] after 10 steps, +0.100 dB "
            "[+0.075, +0.125] after 20 steps, +0.000 dB [-0.025, +0.025] after 40 steps); it beats a squared error of "
            "the same share of the gradient (+0.050 dB [+0.050, +0.050] after 10 steps); on small it cannot be told "
            "from L_1 alone; 3 seeds, profile quick.",
        ),
    ],
)  # fmt: skip
def test_the_answer_by_hand(gains, said):
    """Three seeds 0.01 apart: t(2) = 4.3027, 0.01 / sqrt 3 * 4.3027 = 0.0248. The set with more images is judged; the
    control differs from the loss alike in all seeds. A loss that only speeds up is compared where it gains first."""
    runs = made_up(gains)
    verdicts = claims_greater(runs, question.claims(STEPS))
    assert question.sentence(runs, verdicts, STEPS, "a/my_file.py:f") == said
    assert verdicts.index[0] == ("your loss gains over L_1 alone after 40 steps", "small")
    assert len(verdicts) == 18


def test_of_nothing_nothing_is_said():
    runs = Runs(
        "quick", {question.label(name, n): [] for name in ("L_1", "your loss", "control") for n in STEPS}, set()
    )
    verdicts = claims_greater(runs, question.claims(STEPS))
    assert question.sentence(runs, verdicts, STEPS, "f.py:f") == "Nothing was measured."


def test_the_recorded_answers_are_the_known_ones(monkeypatch):
    monkeypatch.setenv(files.REPORTS_VARIABLE, str(CHECKOUT / "reports"))
    found = question.known_answers("cpu").found
    assert "`absolute_error` cannot be told from L_1 alone on B100" in found["absolute_error"]
    assert "it cannot be told from a squared error of the same share of the gradient" in found["squared_error"]
