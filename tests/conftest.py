"""Fixtures: an isolated cache and report folder, small images, and the real benchmark files where they are at hand."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # for small networks here and in the processes that tests start: the fastest

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image
from skimage import data as skimage_data

from prffn import files
from prffn.config import Experiment, experiment
from prffn.data.degradation import ImageArray
from prffn.data.images import image_set
from prffn.models import PRFFN
from prffn.models.comparison import table8_complexity
from prffn.training.loop import train

# The same examples in every run, on machines of any pace: what fails in one place fails in all.
settings.register_profile("reproducible", deadline=None, derandomize=True, max_examples=100, print_blob=False)
settings.load_profile("reproducible")

# test_systems.py plays Windows on Linux. Windows itself has no fork, no SIGKILL, and no limit to a file's size.
collect_ignore = [] if sys.platform == "linux" else ["test_systems.py"]
if sys.platform == "win32":
    collect_ignore += ["test_cluster.py", "test_distributed.py", "test_faults_disk.py", "test_faults_killed.py"]

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PRFFN_TEST_FILES") or CHECKOUT.parent / "shared")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the user's data, cache, weights or reports."""
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(files.REPORTS_VARIABLE, str(tmp_path / "reports"))
    monkeypatch.delenv(files.DATA_VARIABLE, raising=False)
    monkeypatch.delenv(files.WEIGHTS_VARIABLE, raising=False)
    image_set.cache_clear()
    torch.set_flush_denormal(False)  # what an older PyTorch compiles turns subnormal numbers off, for all code after it
    yield
    image_set.cache_clear()


@pytest.fixture
def shared_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real benchmark images; the test is skipped where there is none."""
    folder = SHARED / "data"
    if not (folder / "Set5").is_dir():
        pytest.skip(f"the benchmark files are not at hand: no {folder / 'Set5'} (set PRFFN_TEST_FILES)")
    monkeypatch.setenv(files.DATA_VARIABLE, str(folder))
    return folder


@pytest.fixture
def shared_weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of trained backbones; the test is skipped where there is none."""
    folder = SHARED / "weights"
    if not (folder / "alexnet_features.pth").is_file():
        pytest.skip(f"the trained AlexNet is not at hand: no {folder}/alexnet_features.pth (set PRFFN_TEST_FILES)")
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def counted() -> pd.DataFrame:
    """The counts of all networks of Table 8, which take seconds."""
    return table8_complexity()


def load(path: Path) -> ImageArray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="session")
def photo() -> ImageArray:
    """A photograph inside the scikit-image wheel, (300, 451, 3)."""
    return skimage_data.chelsea()


def photos_in(folder: Path, photo: ImageArray, suffix: str = ".png") -> Path:
    """A new folder of three small images."""
    folder.mkdir()
    for n in range(3):
        Image.fromarray(photo[40 * n : 40 * n + 72, 90 * n : 90 * n + 96]).save(folder / f"{n}{suffix}")
    return folder


@pytest.fixture
def photo_folder(tmp_path: Path, photo: ImageArray) -> Path:
    return photos_in(tmp_path / "photos", photo)


MADE: dict[str, Any] = {
    "device": "cpu", "device_name": "test", "threads": 1, "platform": "test", "versions": {"torch": "0"},
    "commit": "abc",
}  # fmt: skip
"""The provenance of a made-up record."""

MADE_RUN: dict[str, Any] = {
    "settings": {"data.train": "t", "model.channels": 4, "model.groups": 1, "data.scale": 3, "training.steps": 1,
                 "data.batch_size": 1, "data.patch_size": 8, "loss.contrast_weight": 0.0},
    "provenance": MADE, "parameters": 10, "curve": [], "started": "2024-01-01", "finished": "2024-01-02",
    "train_seconds": 60.0, "peak_memory_mb": 100.0,
}  # fmt: skip
"""What is the same in the made-up records of runs."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_prffn(scale: int = 2, seed: int = 0, **options: Any) -> PRFFN:
    """A network of a single block."""
    return PRFFN(scale, **{"channels": 4, "groups": 1, "blocks": 1, **options}, generator=generator(seed)).eval()


@pytest.fixture
def tiny(photo_folder: Path) -> Experiment:
    """An experiment that trains in about a second."""
    return experiment(tiny_settings(photo_folder))


def tiny_settings(folder: Path, **more: object) -> dict[str, object]:
    return {
        "data.train": str(folder), "data.evaluation": (str(folder),), "data.lpips": False,
        "data.patch_size": 8, "data.batch_size": 2,
        "model.channels": 4, "model.groups": 1, "model.blocks": 1,
        "training.steps": 12, "training.learning_rate": 1e-3, "training.schedule": "one_cycle",
        "training.clip_quantile": 0.5, "loss.region_size": 16, **more,
    }  # fmt: skip


def stop_after(e: Experiment, steps: int, checkpoint: Path) -> None:
    """Trains until so many steps are done and in the checkpoint."""

    def stop(step: int) -> None:
        if step == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(e, checkpoint=checkpoint, checkpoint_every=0.0, on_step=stop, progress=False)
