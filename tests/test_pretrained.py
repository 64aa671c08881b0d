"""Files of trained weights: what they say of themselves is checked, the shipped ones have records.

Damaged ones: test_faults_damaged.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHECKOUT, small_prffn

from prffn.files import weights_sha256
from prffn.models import PRFFN
from prffn.models.pretrained import (
    SCALES,
    DamagedWeights,
    load_pretrained,
    pretrained,
    pretrained_path,
    save_pretrained,
    settings_of_file,
)
from prffn.models.weights import load_network

SETTINGS = {"data.scale": 2, "model.channels": 4, "model.groups": 1, "model.blocks": 2, "model.dilation_rates": [1, 3]}


@pytest.fixture
def model() -> PRFFN:
    return small_prffn(blocks=2, dilation_rates=(1, 3))


@pytest.fixture
def weights(model, tmp_path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_pretrained(model, path, SETTINGS, "0123456789abcdef", weights_sha256(model))
    return path


def test_the_padding_comes_back_too(tmp_path):
    """It shows in no shape. A file that does not name it, of before the setting, has zeros."""
    model, lr = small_prffn(padding="replicate"), torch.rand(1, 3, 9, 8)
    path, sizes = tmp_path / "weights.safetensors", {**SETTINGS, "model.blocks": 1, "model.dilation_rates": [1, 2, 4]}
    for more, same in (({"model.padding": "replicate"}, True), ({}, False)):
        save_pretrained(model, path, {**sizes, **more}, "0123456789abcdef", weights_sha256(model))
        with torch.inference_mode():
            assert torch.equal(load_pretrained(path)(lr), model(lr)) == same


def test_a_network_comes_back_as_it_was(model, weights):
    loaded, lr = load_pretrained(weights), torch.rand(1, 3, 9, 8)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(lr), model(lr))
    assert settings_of_file(weights) == {
        "settings": SETTINGS, "record": "0123456789abcdef", "weights_sha256": weights_sha256(model)
    }  # fmt: skip


def test_settings_of_another_network_are_noticed(model, weights):
    save_pretrained(model, weights, {**SETTINGS, "model.channels": 8}, "0", weights_sha256(model))
    with pytest.raises(DamagedWeights, match="does not hold the network that its settings name"):
        load_pretrained(weights)


def test_weights_of_another_run_are_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match="of another run"):
        save_pretrained(model, tmp_path / "weights.safetensors", SETTINGS, "0", "f" * 64)
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("prffn.models.pretrained.WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"prffn_x3.safetensors; `git checkout"):
        pretrained(3)
    for scale in (5, 2.0, True, "2"):
        with pytest.raises(ValueError, match=f"scale must be 2, 3 or 4, got {scale!r}"):
            pretrained(scale)


@pytest.mark.parametrize("scale", SCALES)
def test_the_shipped_networks_are_those_of_their_records(scale):
    """Scale, settings and weights are those of a committed record."""
    said = settings_of_file(pretrained_path(scale))
    (path,) = (CHECKOUT / "reports").glob(f"*/runs/{said['record']}.json")
    record = json.loads(path.read_text())
    assert pretrained(np.int64(scale)).scale == said["settings"]["data.scale"] == scale
    assert weights_sha256(load_network(pretrained_path(scale), scale=np.int64(scale))) == record["weights_sha256"]
    assert weights_sha256(pretrained(scale)) == record["weights_sha256"]
    assert {name: record["settings"][name] for name in said["settings"]} == said["settings"]
