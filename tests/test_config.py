"""Settings: the paper's as defaults, profiles, variants, and errors that name the way out."""

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
from prffn.study.timings import BATCH, OUTPUT, ROUNDS


def test_the_defaults_are_the_papers():
    """Printed: 10 groups of 3 blocks, reduction 16, rates 1, 2, 4, lambda_c = 0.1, S = 64, 1000 epochs, x3."""
    e = Experiment()
    assert (e.model.groups, e.model.blocks, e.model.reduction, e.model.dilation_rates) == (10, 3, 16, (1, 2, 4))
    assert (e.loss.contrast_weight, e.loss.region_size, e.training.steps, e.data.scale) == (0.1, 64, 1_000_000, 3)
    assert PROFILES["paper"] == {}


@pytest.mark.parametrize("table", [PROFILE_SEEDS, LENGTHS, SIZES, LABELS, ROUNDS, BATCH, OUTPUT])
def test_every_profile_has_its_entry(table):
    assert set(table) == set(PROFILES)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("table5", "table5_region_size"),  # difflib alone: table2_losses
        ("Table2", "table2_losses"),
        ("region", "table5_region_size"),
        ("quickstrat", "00_quickstart"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(typed, nearest):
    """One that starts with what was typed, else contains it, else looks like it."""
    said = unknown("notebook", typed, ["00_quickstart", "fig9_crops_x3", "table2_losses", "table5_region_size"])
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


def test_settings_without_effect_do_not_make_another_run():
    """Equal experiments have equal keys: test_inputs_settings.py."""

    def made(**settings):
        return experiment({name.replace("__", "."): value for name, value in settings.items()}).canonical()

    l1, ratio, edsr = {"loss__contrast_weight": 0.0}, {"loss__form": "ratio"}, {"model__network": "EDSR"}
    csd = {"loss__csd_weight": 0.1, "loss__backbone": "vgg16_caffe"}
    assert made(**l1) == made(**l1, loss__region_size=16, loss__epsilon=1.0)
    assert made() == made(loss__epsilon=0.5) == made(loss__backbone="vgg16_caffe")
    assert made(**ratio) == made(**ratio, loss__temperature=0.5) == made(**ratio, loss__similarity="cosine")
    assert made(model__variant="PRFFN0") == made(model__variant="PRFFN0", model__dilation_rates=(1,))
    assert made(**edsr) == made(**edsr, model__dilation_rates=(1,), model__variant="PRFFN0", model__padding="replicate")
    different = [made(), made(**l1), made(**ratio), made(**edsr), made(**csd), made(loss__csd_weight=0.1),
                 made(loss__region_size=16), made(loss__temperature=0.5), made(**ratio, loss__epsilon=0.5),
                 made(seed=1), made(model__dilation_rates=(1,)), made(model__variant="PRFFN0"), made(data__scale=2),
                 made(model__variant="PRFFN0", model__padding="replicate"), made(model__padding="replicate"),
                 made(training__steps=7), made(training__bfloat16=True)]  # fmt: skip
    assert len(set(different)) == len(different)


def test_every_setting_is_checked_by_type():
    """A value of another kind is refused for each setting there is."""
    for name, kind in fields_of().items():
        with pytest.raises((TypeError, ValueError), match=name.split(".")[-1]):
            experiment({name: object()})
        if kind in (int, float):
            with pytest.raises((TypeError, ValueError)):
                experiment({name: True})


def test_an_unknown_setting_is_named_with_the_nearest():
    """Values that are nearly right: test_inputs_settings.py."""
    with pytest.raises(ValueError, match="unknown setting 'loss.region'. Did you mean 'loss.region_size'?"):
        experiment({"loss.region": 16})


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
