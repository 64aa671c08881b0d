"""Settings: the paper's as defaults, profiles, variants, and errors that name the way out."""

import dataclasses

import pytest

from prffn.config import (
    LENGTHS,
    PROFILE_SEEDS,
    PROFILES,
    SIZES,
    Experiment,
    experiment,
    fields_of,
    lengths,
    sizes,
    variants,
)
from prffn.files import unknown
from prffn.study.claims import LABELS
from prffn.study.keys import run_key
from prffn.study.timings import BATCH, OUTPUT, ROUNDS


def test_the_defaults_are_the_papers():
    """Printed: 10 groups of 3 blocks, reduction 16, rates 1, 2, 4, lambda_c = 0.1, S = 64, 1000 epochs, x3."""
    e = Experiment()
    assert (e.model.groups, e.model.blocks, e.model.reduction, e.model.dilation_rates) == (10, 3, 16, (1, 2, 4))
    assert (e.loss.contrast_weight, e.loss.region_size, e.training.steps, e.data.scale) == (0.1, 64, 1_000_000, 3)
    assert PROFILES["paper"] == {}


def test_profiles_name_settings_that_exist():
    for budget in PROFILES.values():
        assert set(budget) <= set(fields_of())
        experiment(budget)


@pytest.mark.parametrize("table", [PROFILE_SEEDS, LENGTHS, SIZES, LABELS, ROUNDS, BATCH, OUTPUT])
def test_every_profile_has_its_entry(table):
    assert set(table) == set(PROFILES)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("table5", "table5_region_size"),  # difflib alone: table2_losses
        ("Table1", "table1_ablation"),
        ("beyond_loss", "beyond_loss_definition"),
        ("region", "table5_region_size"),
        ("crops_x3", "fig9_crops_x3"),
        ("table2_loses", "table2_losses"),
        ("quickstrat", "00_quickstart"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(typed, nearest):
    """One that starts with what was typed, else contains it, else looks like it."""
    names = [
        "00_quickstart", "beyond_loss_definition", "fig10_crops_x4", "fig9_crops_x3", "table1_ablation",
        "table2_losses", "table5_region_size",
    ]  # fmt: skip
    said = unknown("notebook", typed, names)
    assert f"unknown notebook {typed!r}.{f' Did you mean {nearest!r}?' if nearest else ''} Choose one of: " in said


def test_variants_by_label_and_seed():
    table = variants("quick", {"a": {}, "b": {"loss.region_size": 16}}, seeds=2)
    assert [e.seed for e in table["a"]] == [0, 1]
    assert table["b"][1].loss.region_size == 16
    assert table["b"][1].data.train == "embedded_train"
    assert len(variants("cpu", {"a": {}})["a"]) >= 3


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_own_network_is_among_its_sizes(profile):
    model = experiment(PROFILES[profile]).model
    found = sizes(profile)
    assert {"model.channels": model.channels, "model.groups": model.groups} in found.values()
    assert [*found] == sorted(found)


def test_sizes_by_their_parameters():
    """Printed at x3: 3167 K."""
    assert list(sizes("cpu")) == [15, 59, 234]
    assert max(sizes("paper")) == 3167
    with pytest.raises(ValueError, match="unknown profile 'cpuu'"):
        sizes("cpuu")


def test_settings_without_effect_do_not_make_another_run():
    def key(**settings):
        return run_key(experiment({**PROFILES["quick"], **{k.replace("__", "."): v for k, v in settings.items()}}))

    assert key(loss__contrast_weight=0.0) == key(loss__contrast_weight=0.0, loss__region_size=16, loss__epsilon=1.0)
    assert key() == key(loss__epsilon=0.5)
    ratio = key(loss__form="ratio")
    assert ratio == key(loss__form="ratio", loss__temperature=0.5) == key(loss__form="ratio", loss__similarity="cosine")
    assert key(model__variant="PRFFN0") == key(model__variant="PRFFN0", model__dilation_rates=(1,))
    different = [key(), key(loss__contrast_weight=0.0), key(loss__region_size=16), key(loss__temperature=0.5),
                 key(loss__form="ratio"), key(loss__form="ratio", loss__epsilon=0.5), key(seed=1),
                 key(model__dilation_rates=(1,)), key(model__variant="PRFFN0"), key(data__scale=2),
                 key(training__steps=7), key(training__bfloat16=True), key(model__padding="replicate")]  # fmt: skip
    assert len(set(different)) == len(different)


def test_every_setting_is_checked_by_type():
    """A value of another kind is refused for each setting there is."""
    for name, kind in fields_of().items():
        with pytest.raises((TypeError, ValueError), match=name.split(".")[-1]):
            experiment({name: object()})
        if kind in (int, float):
            with pytest.raises((TypeError, ValueError)):
                experiment({name: True})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.region": 16}, "unknown setting 'loss.region'. Did you mean 'loss.region_size'?"),
        ({"loss.region_size": 60}, "region_size must be a square number"),
        ({"data.scale": 5}, "data.scale must be 2, 3 or 4, got 5"),
        ({"training.steps": 0}, "training.steps must be positive, got 0"),
        ({"training.schedule": "cosine"}, "'cosine'.*halving, one_cycle"),
        ({"loss.contrast_weight": -1.0}, "contrast_weight must be 0 or more"),
        ({"loss.contrast_weight": float("nan")}, "contrast_weight"),
        ({"data.evaluation": ()}, "at least one image set"),
        ({"data.evaluation": "Set5"}, "data.evaluation must be a tuple of str, got 'Set5'"),
        ({"model.dilation_rates": (1, 2.5)}, "tuple of int"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        experiment(settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quik", {"a": {}}), "unknown profile 'quik'. Did you mean 'quick'?"),
        (("quick", {"a": {"training.steps": 5}}), "training.steps of 'a' is set by profile 'quick'"),
        (("quick", {"a": {"seed": 5}}), "set by the number of seeds"),
        (("quick", {"a": {"loss.tau": 5}}), "unknown setting 'loss.tau'"),
    ],
)
def test_bad_variants(arguments, message):
    with pytest.raises(ValueError, match=message):
        variants(*arguments)
    with pytest.raises(ValueError, match="seeds must be a whole number"):
        variants("quick", {"a": {}}, seeds=0)


def test_experiments_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().seed = 3


def test_a_table_about_a_setting_of_the_profile():
    vary = {"a": {"training.initial": "drawn"}, "b": {"training.initial": "interpolating"}}
    with pytest.raises(ValueError, match="training.initial of 'a' is set by profile 'cpu'"):
        variants("cpu", vary)
    table = variants("cpu", vary, seeds=1, instead=("training.initial",))
    assert [table[label][0].training.initial for label in table] == ["drawn", "interpolating"]
    with pytest.raises(ValueError, match="'c' gives no value of training.initial"):
        variants("cpu", {**vary, "c": {}}, instead=("training.initial",))


def test_lengths_of_training_by_hand():
    """A quarter of 1500, all, four and sixteen times as many. The paper's rate is halved every 200,000 of a million
    steps: in a quarter of them every 50,000. The profile's own length is the run of any other table."""
    assert list(lengths("cpu")) == [375, 1500, 6000, 24_000]
    paper = variants("paper", {str(n): at for n, at in lengths("paper").items()}, instead=("training.steps",))
    halved = {n: (e.training.steps, e.training.halve_every) for n, (e,) in paper.items()}
    assert halved == {"250000": (250_000, 50_000), "1000000": (1_000_000, 200_000)}
    cpu = variants("cpu", {"own": lengths("cpu")[1500]}, instead=("training.steps",))["own"]
    assert [e.canonical() for e in cpu] == [e.canonical() for e in variants("cpu", {"own": {}})["own"]]
    with pytest.raises(ValueError, match="unknown profile 'cpuu'"):
        lengths("cpuu")


def test_settings_without_effect_are_at_their_defaults():
    """A backbone that no loss uses, the branches of a network that is not PRFFN: equal trainings compare equal."""
    plain = experiment({}).canonical()
    assert experiment({"loss.backbone": "vgg16_caffe"}).canonical() == plain
    edsr = experiment({"model.network": "EDSR"}).canonical()
    assert (
        experiment({"model.network": "EDSR", "model.dilation_rates": (1,), "model.variant": "PRFFN0"}).canonical()
        == edsr
    )
    assert experiment({"model.network": "EDSR", "model.padding": "replicate"}).canonical() == edsr
    replicated = experiment({"model.variant": "PRFFN0", "model.padding": "replicate"}).canonical()
    assert replicated.model.padding == "replicate"
    used = experiment({"loss.backbone": "vgg16_caffe", "loss.csd_weight": 0.1, "loss.contrast_weight": 0.0}).canonical()
    assert (used.loss.backbone, used.loss.csd_weight) == ("vgg16_caffe", 0.1)
