"""The networks of the package: trained by the kit's own command, x2 and x4 from x3, each with its record."""

import pytest
import torch
from conftest import tiny_settings

from prffn.apps import ship as shipping
from prffn.models import pretrained
from prffn.models.pretrained import load_pretrained
from prffn.study.keys import checkpoint_path, run_key


@pytest.fixture
def small(photo_folder, tmp_path, monkeypatch):
    """Trainings of a second, and a folder of weights that is not the package's."""
    monkeypatch.setattr(shipping, "SETTINGS", tiny_settings(photo_folder))
    for name, steps in (("FIRST", 6), ("OTHERS", 4), ("LAST", 2)):
        monkeypatch.setattr(shipping, name, {"training.steps": steps})
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    return tmp_path


def test_each_scale_is_written_with_its_record_and_all_start_from_x3(small):
    found = list(shipping.ship(progress=False))
    assert [scale for scale, _, _ in found] == [2, 3, 4]
    assert len(list((small / "reports" / "shipped" / "runs").iterdir())) == 6
    first = run_key(shipping.shipped_experiment(3).start)
    for scale, record, path in found:
        start = shipping.shipped_experiment(scale).start
        assert record["settings"]["training.start"] == run_key(start)
        assert scale == 3 or run_key(start.start) == first
        assert record["settings"]["data.scale"] == scale
        model = load_pretrained(path)
        assert model(torch.rand(1, 3, 9, 10)).shape == (1, 3, 9 * scale, 10 * scale)


def test_what_is_recorded_is_not_trained_again(small):
    (first,) = shipping.ship([4], progress=False)
    checkpoint_path(run_key(shipping.shipped_experiment(3).start)).unlink()
    (again,) = shipping.ship([4], progress=False)
    assert again == first
    checkpoint_path(first[1]["key"]).unlink()
    with pytest.raises(FileNotFoundError, match="retrain"):
        list(shipping.ship([4], progress=False))
    (afresh,) = shipping.ship([4], retrain=True, progress=False)
    assert afresh[1]["weights_sha256"] == first[1]["weights_sha256"]


def test_an_unknown_scale(small):
    with pytest.raises(ValueError, match="scale must be 2, 3 or 4, got 5"):
        list(shipping.ship([5]))
