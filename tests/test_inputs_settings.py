"""Settings and values of any kind: valid experiments are told apart by their keys exactly, others are refused by an
error that names setting and value; intervals behave as means do. Properties, over examples that hypothesis draws."""

import json
import math
from typing import Literal, get_origin

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prffn.config import experiment, fields_of, setting
from prffn.study import keys
from prffn.study.intervals import paired_interval, verdict
from prffn.study.keys import run_key, settings_of
from prffn.training.loop import build_model

WHOLE = st.integers(1, 10**6)
SMALL = st.integers(1, 6)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Whole ones come as int and as float: they are the same setting."""
    return st.one_of(st.floats(low, high, exclude_min=low == 0), st.integers(1, max(1, int(high))))


WEIGHTS = st.one_of(st.sampled_from((0, 0.0, -0.0, 1, 1.0)), numbers(0, 100))
RATES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
CHOICES = {n: st.from_type(kind) for n, kind in fields_of().items() if kind is bool or get_origin(kind) is Literal}
VALID = CHOICES | {
    "data.train": st.sampled_from(("DIV2K_train", "BSD200", "embedded_train", "BSD200+drawn")),
    "data.evaluation": st.lists(st.sampled_from(("Set5", "B100", "embedded_val")), min_size=1, unique=True),
    "data.scale": st.sampled_from((2, 3, 4)),
    "data.patch_size": st.integers(5, 99),
    "data.batch_size": WHOLE,
    "model.channels": st.integers(3, 12),
    "model.groups": SMALL,
    "model.blocks": SMALL,
    "model.reduction": WHOLE,
    "model.dilation_rates": st.one_of(RATES, RATES.map(tuple)),
    "loss.contrast_weight": WEIGHTS,
    "loss.region_size": st.integers(2, 99).map(lambda side: side * side),
    "loss.temperature": numbers(0, 10),
    "loss.epsilon": numbers(0, 10),
    "loss.negatives": st.sampled_from(("hr", "sr", "both")),
    "loss.perceptual_weight": WEIGHTS,
    "loss.csd_weight": WEIGHTS,
    "loss.own": st.sampled_from(("", "a.py:f", "a.py:g", "b.py:f")),
    "loss.own_sha256": st.sampled_from(("0" * 64, "1" * 64)),
    "loss.own_weight": WEIGHTS,
    "training.steps": WHOLE,
    "training.learning_rate": numbers(0, 1),
    "training.halve_every": WHOLE,
    "training.betas": st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    "training.clip_quantile": st.floats(0, 1, exclude_min=True),
    "seed": st.integers(0, 2**32 - 1),
}
"""For every setting that there is, values that can be used."""

SETTINGS = st.fixed_dictionaries({}, optional=VALID)


@pytest.fixture(scope="module", autouse=True)
def without_images():
    """Keys of image sets and backbones that are not at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "set_checksum", lambda name: f"of {name}")
        patch.setattr(keys, "backbone_sha256", lambda name: f"of {name}")
        patch.setattr(keys, "RECORDED_BACKBONES", {})
        yield


def test_there_is_no_setting_beside_these():
    assert set(VALID) == set(fields_of())


@given(SETTINGS)
def test_valid_settings_round_trip(given_settings):
    """By their dotted names, as Python and as JSON."""
    e = experiment(given_settings)
    assert experiment({name: setting(e, name) for name in fields_of()}) == e
    recorded = json.loads(json.dumps(settings_of(e)))
    assert recorded.pop("training.start") == ""  # of the run that it starts from, which is no setting
    assert experiment(recorded) == e.canonical()
    assert e.canonical().canonical() == e.canonical()
    assert run_key(e.canonical()) == run_key(e)


@settings(max_examples=300)
@given(SETTINGS, st.dictionaries(st.sampled_from(sorted(VALID)), st.none(), min_size=1, max_size=3), st.data())
def test_experiments_are_equal_exactly_if_their_keys_are(given_settings, changed, data):
    """Two that differ in up to three settings, of which some have no effect and some are the same number."""
    changes = {name: data.draw(VALID[name], name) for name in changed}
    a, b = experiment(given_settings), experiment({**given_settings, **changes})
    assert (a.canonical() == b.canonical()) == (run_key(a) == run_key(b))


@settings(max_examples=25)
@given(SETTINGS)
def test_valid_networks_make_images(given_settings):
    e = experiment({**given_settings, "model.groups": 1})
    lr = torch.zeros(1, 3, 5, 6)
    with torch.no_grad():
        assert build_model(e).eval()(lr).shape == (1, 3, 5 * e.data.scale, 6 * e.data.scale)


JUNK = st.one_of(
    st.none(), st.text(max_size=6), st.booleans(), st.integers(max_value=-1), st.floats(), st.complex_numbers(),
    st.lists(st.one_of(st.text(max_size=3), st.floats(), st.integers(max_value=0), st.booleans()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2), st.binary(max_size=3), st.just(10**400),
    st.builds(object),
)  # fmt: skip
"""Values of every kind, of which few can be used anywhere."""

ALMOST = [
    ("data.scale", 1), ("data.scale", 5), ("data.scale", 3.0), ("data.patch_size", 0), ("data.batch_size", 0),
    ("data.train", ""), ("data.evaluation", ()), ("data.evaluation", ("",)), ("data.evaluation", ("Set5", "Set5")),
    ("model.channels", 0), ("model.groups", 0), ("model.blocks", 0), ("model.reduction", 0), ("model.channels", 64.0),
    ("model.dilation_rates", ()), ("model.dilation_rates", (0,)), ("model.dilation_rates", (1, True)),
    ("loss.region_size", 1), ("loss.region_size", 60), ("loss.temperature", 0.0), ("loss.epsilon", 10**400),
    ("loss.contrast_weight", math.inf), ("loss.csd_weight", math.nan), ("loss.own_weight", -1.0),
    ("training.steps", 0), ("training.schedule", "cosine"), ("data.evaluation", "Set5"),
    ("training.learning_rate", 0.0), ("training.learning_rate", math.inf), ("training.halve_every", 0),
    ("training.betas", (0.9,)), ("training.betas", (0.9, 1.0)), ("training.betas", (0.9, math.nan)),
    ("training.betas", (0.9, 0.99, 0.999)), ("training.initial", "interpolated"), ("seed", -1), ("seed", 2**32),
    ("seed", 1.0), ("model.network", "PRFFN3"), ("model.variant", "PRFFN"), ("model.padding", "reflect"),
]  # fmt: skip
"""Values that are nearly right; of another kind altogether: test_config.py."""


@pytest.mark.parametrize(("name", "value"), ALMOST)
def test_invalid_settings_are_named_with_their_value(name, value):
    with pytest.raises((TypeError, ValueError), match=name.split(".")[-1]) as error:
        experiment({name: value})
    assert repr(value) in str(error.value)


# Intervals

VALUES = st.floats(-50, 50).map(lambda value: round(value, 3))
MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 8)).flatmap(lambda shape: arrays(float, shape, elements=VALUES))
"""(seeds, images)."""


def close(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)


@given(MATRICES, VALUES, st.data())
def test_an_interval_of_shifted_scaled_and_permuted_values(d, shift, data):
    """Adding to both changes nothing; to one, the mean alone; a factor is that of mean and width; the order of seeds
    and of images says nothing; exchanging the two turns the sign."""
    interval = paired_interval(d, np.zeros_like(d))
    both = paired_interval(d + shift, np.full_like(d, shift))
    moved = paired_interval(d + shift, np.zeros_like(d))
    scaled = paired_interval(-3 * d, np.zeros_like(d))
    seeds, images = (np.array(data.draw(st.permutations(range(n))), dtype=int) for n in d.shape)
    permuted = paired_interval(d[seeds][:, images], np.zeros_like(d))
    swapped = paired_interval(np.zeros_like(d), d)
    assert interval.low <= interval.mean <= interval.high
    for other, mean, factor in (
        (both, interval.mean, 1), (moved, interval.mean + shift, 1), (scaled, -3 * interval.mean, 3),
        (permuted, interval.mean, 1), (swapped, -interval.mean, 1),
    ):  # fmt: skip
        assert close(other.mean, mean)
        assert close(other.half_width, factor * interval.half_width)
    assert math.isinf(interval.half_width) == (len(d) == 1)


@given(MATRICES, st.sampled_from((math.nan, math.inf, -math.inf)), st.data())
def test_what_is_no_number_decides_nothing(d, value, data):
    """As the PSNR of two equal images."""
    d[data.draw(st.integers(0, d.shape[0] - 1)), data.draw(st.integers(0, d.shape[1] - 1))] = value
    with np.errstate(invalid="ignore"):
        interval = paired_interval(d, np.zeros_like(d))
    assert verdict(interval) == verdict(interval, 0.1) == "not decided"


@given(MATRICES, MATRICES)
def test_values_that_are_not_paired_are_refused(a, b):
    assume(a.shape != b.shape)
    with pytest.raises(ValueError, match="paired values") as error:
        paired_interval(a, b)
    assert str(a.shape) in str(error.value)
    assert str(b.shape) in str(error.value)
