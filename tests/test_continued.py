"""Trainings that go on from one with L_1 alone: which they are, and in which order they are trained."""

import dataclasses

import pytest

from prffn.config import CONTINUED, Experiment, variants
from prffn.study.continued import continued
from prffn.study.runs import checkpoint_path, ensure, run_key
from prffn.training.loop import train

VARY = {
    "L_1": {"loss.contrast_weight": 0.0},
    "L_1 + L_contr": {},
    "RCAN": {"model.network": "RCAN", "loss.contrast_weight": 0.0},
    "RCAN + L_contr": {"model.network": "RCAN"},
}


def test_every_run_goes_on_from_the_l1_training_of_its_network_and_seed():
    before = variants("quick", VARY, seeds=2)
    table = continued(before, "quick")
    assert list(table) == [*VARY, "L_1, start", "RCAN, start"]
    assert [e.canonical() for e in table["L_1, start"]] == [e.canonical() for e in before["L_1"]]
    for label in VARY:
        starts = table["RCAN, start" if "RCAN" in label else "L_1, start"]
        for e, old, start in zip(table[label], before[label], starts, strict=True):
            assert e.training.start == run_key(start)
            assert (e.loss, e.model, e.data, e.seed) == (old.loss, old.model, old.data, old.seed)
            assert e.training.steps == CONTINUED["quick"]["training.steps"] < old.training.steps
            assert e.training.learning_rate == CONTINUED["quick"]["training.learning_rate"] < old.training.learning_rate


def test_labels_with_more_seeds_get_as_many_starts():
    table = continued(variants("quick", {"L_1 + L_contr": {}}, seeds=1) | variants("quick", {"L_1": {
        "loss.contrast_weight": 0.0}}, seeds=3), "quick")  # fmt: skip
    assert [e.seed for e in table["L_1 + L_contr, start"]] == [0, 1, 2]
    assert "L_1, start" not in table


def test_the_papers_protocol_trains_from_the_first_step():
    experiments = variants("paper", VARY)
    assert continued(experiments, "paper") == experiments
    with pytest.raises(ValueError, match="unknown profile 'papr'"):
        continued(experiments, "papr")


def started(tiny: Experiment) -> dict[str, list[Experiment]]:
    """A run, and before it, in the wrong order, one that starts from its weights."""
    short = dataclasses.replace(tiny.training, steps=4, start=run_key(tiny))
    return {"after": [dataclasses.replace(tiny, training=short)], "start": [tiny]}


def test_what_others_start_from_is_trained_first(tiny):
    runs = ensure(started(tiny), "quick", progress=False)
    first, second = runs["start"][0].record, runs["after"][0].record
    assert first["finished"] <= second["started"]
    assert second["start_sha256"] == first["weights_sha256"]
    assert second["settings"]["training.start"] == first["key"]
    assert "start_sha256" not in first
    assert runs.is_start("start")
    assert not runs.is_start("after")


def test_weights_on_another_machine_are_trained_again(tiny):
    """A record alone cannot be started from: its run is made again, and only then."""
    asked = started(tiny)
    start = run_key(tiny)
    ensure({"start": asked["start"]}, "quick", progress=False)
    checkpoint_path(start).unlink()
    assert ensure(asked, "quick", progress=False).trained == {start, run_key(asked["after"][0])}
    checkpoint_path(start).unlink()
    assert not ensure(asked, "quick", progress=False).trained


def test_a_start_that_is_not_asked_for_must_be_at_hand(tiny):
    with pytest.raises(FileNotFoundError, match=f"run {run_key(tiny)}, from whose weights this one starts"):
        ensure({"after": started(tiny)["after"]}, "quick", progress=False)


def test_a_start_must_be_trained_to_its_end(tiny):
    """A training that was killed has left its checkpoint."""

    def killed(step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, checkpoint=checkpoint_path(run_key(tiny)), checkpoint_every=0.0, on_step=killed)
    with pytest.raises(FileNotFoundError, match="has been trained for 5 of its 12 steps only"):
        ensure({"after": started(tiny)["after"]}, "quick", progress=False)


def test_tables_compare_what_was_trained_alike(tiny):
    """The runs that others start from have had less training: no gain is computed of them."""
    from prffn.reporting.tables import compare, provenance_table

    short = dataclasses.replace(tiny.training, steps=4, start=run_key(tiny))
    l1 = dataclasses.replace(tiny, training=short, loss=dataclasses.replace(tiny.loss, contrast_weight=0.0))
    runs = ensure({"L_1": [l1], **started(tiny)}, "quick", progress=False)
    table = compare(runs, {}, baseline="L_1")
    assert abs(table.loc[("photos", "after"), "gain"]) < 5
    assert table["gain"].isna().to_dict()[("photos", "start")]
    assert provenance_table(runs).loc["steps", "value"] == (
        "4 of 2 LR patches of 8 x 8, after 12 with L_1 alone; 12 of 2 LR patches of 8 x 8"
    )
