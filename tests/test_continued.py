"""Trainings that go on from one with L_1 alone: which they are, and in which order they are trained."""

import dataclasses
from unittest.mock import Mock

import pytest

from prffn.config import Experiment, variants
from prffn.files import save_record
from prffn.study.continued import CONTINUED, continued
from prffn.study.ensure import ensure
from prffn.study.keys import checkpoint_path, run_key
from prffn.study.runs import OtherWeights, start_weights
from prffn.training import loop
from prffn.training.checkpoint import load_checkpoint, save_checkpoint
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
            assert e.start == start
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


def after(start: Experiment, **more: object) -> Experiment:
    """A short run from the weights of another."""
    return dataclasses.replace(start, training=dataclasses.replace(start.training, steps=4), start=start, **more)


def started(tiny: Experiment) -> dict[str, list[Experiment]]:
    """A run, and before it, in the wrong order, one that starts from its weights."""
    return {"after": [after(tiny)], "start": [tiny]}


def test_what_others_start_from_is_trained_first(tiny):
    runs = ensure(started(tiny), "quick", progress=False)
    first, second = runs["start"][0].record, runs["after"][0].record
    assert first["finished"] <= second["started"]
    assert second["start_sha256"] == first["weights_sha256"]
    assert second["settings"]["training.start"] == first["key"]
    assert "start_sha256" not in first
    assert runs.is_start("start")
    assert not runs.is_start("after")


def test_weights_on_another_machine_are_trained_again(tiny, tmp_path):
    """A record alone cannot be started from: its run is trained again for its weights, and its record stays."""
    asked = started(tiny)
    start = run_key(tiny)
    ensure({"start": asked["start"]}, "quick", progress=False)
    path = tmp_path / "reports" / "quick" / "runs" / f"{start}.json"
    before = path.read_bytes()
    checkpoint_path(start).unlink()
    assert ensure(asked, "quick", progress=False).trained == {start, run_key(asked["after"][0])}
    assert path.read_bytes() == before
    checkpoint_path(start).unlink()
    assert not ensure(asked, "quick", progress=False).trained


@pytest.mark.parametrize("how", ["retrained", "another's checkpoint"])
def test_a_recorded_start_that_gets_other_weights_is_an_error(tiny, how, monkeypatch):
    """As on another machine: new rows would pair with another start than the recorded ones."""
    start = run_key(tiny)
    ensure({"start": [tiny]}, "quick", progress=False)
    checkpoint_path(start).unlink()
    if how == "another's checkpoint":
        train(tiny, checkpoint=checkpoint_path(start), progress=False, label=how)
        state = load_checkpoint(checkpoint_path(start))
        state["model"]["tail.bias"] += 1
        save_checkpoint(checkpoint_path(start), state)
        assert ensure(started(tiny), "quick", progress=False).trained  # that checkpoint is not used
        return
    build = loop.build_model
    monkeypatch.setattr(loop, "build_model", lambda e: build(dataclasses.replace(e, seed=e.seed + 1)))
    with pytest.raises(OtherWeights, match=f"run {start} .*recorded with other weights.*retrain"):
        ensure(started(tiny), "quick", progress=False)


def test_a_record_that_started_from_other_weights_is_not_used(tiny, tmp_path):
    asked = started(tiny)
    runs = ensure(asked, "quick", progress=False)
    record = {**runs["after"][0].record, "start_sha256": "0" * 64}
    save_record(tmp_path / "reports" / "quick" / "runs", record["key"], record)
    with pytest.warns(UserWarning, match=f"{record['key']}.json started from other weights"):
        again = ensure(asked, "quick", progress=False)
    assert again.trained == {record["key"]}
    assert again["after"][0].record["weights_sha256"] == record["weights_sha256"]


def test_a_start_is_trained_to_its_end(tiny, tmp_path):
    """A training that was killed has left its checkpoint: it is resumed first."""

    with pytest.raises(KeyboardInterrupt):
        killed = Mock(side_effect=[None, None, KeyboardInterrupt])
        train(tiny, checkpoint=checkpoint_path(run_key(tiny)), checkpoint_every=0.0, on_step=killed)
    with pytest.raises(FileNotFoundError, match="train it first"):
        start_weights(after(tiny), tmp_path)
    assert ensure({"after": [after(tiny)]}, "quick", progress=False).trained


def test_tables_compare_what_was_trained_alike(tiny):
    """The runs that others start from have had less training: no gain is computed of them."""
    from prffn.reporting.tables import compare, provenance_table

    l1 = after(tiny, loss=dataclasses.replace(tiny.loss, contrast_weight=0.0))
    runs = ensure({"L_1": [l1], **started(tiny)}, "quick", progress=False)
    table = compare(runs, {}, baseline="L_1")
    assert abs(table.loc[("photos", "after"), "gain"]) < 5
    assert table["gain"].isna().to_dict()[("photos", "start")]
    assert provenance_table(runs).loc["steps", "value"] == (
        "4 of 2 LR patches of 8 x 8, after 12 with L_1 alone; 12 of 2 LR patches of 8 x 8"
    )
