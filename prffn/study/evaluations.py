"""PSNR and SSIM of networks from files, of runs on further image sets, and of bicubic: measured once, and recorded.

A record is reports/<profile>/evaluations/<key>.json. Its key is a hash of the weights, the images' checksum, the scale
and PROTOCOL. Where the weights are missing, the record of what was measured with them stands.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import nn

from prffn.config import Experiment, check_profile
from prffn.data.degradation import ImageArray, upscale_bicubic
from prffn.data.images import image_set, set_checksum, set_label
from prffn.evaluation.metrics import evaluate
from prffn.files import WEIGHTS_VARIABLE, weights_root, weights_sha256
from prffn.models import NETWORKS
from prffn.models.pretrained import pretrained, pretrained_path, settings_of_file
from prffn.models.weights import load_network
from prffn.study.provenance import measured
from prffn.study.runs import Run, Runs, trained_model
from prffn.study.store import Found, Record, Store
from prffn.training.device import pick_device
from prffn.training.loop import progress_bar

PROTOCOL = 1  # raised by hand whenever the same weights and images would give other figures

IDENTITY = {"protocol": "protocol", "weights": "weights", "images": "checksum", "scale": "scale"}
"""What the key of a record is a hash of, and the fields that hold it."""

SUFFIXES = (".pt", ".pth", ".safetensors")

AUTHORS = {
    "7aebe72cec718269a5a4df177a2509a6b7aa334849a44e55386d669e0d859284": "SMSR x2",
    "6bc710eae111b8ba9ae308a5ddd90df73bcb09e7fddc9345667564a458310201": "CARN-M",
}
"""Weights that are known to be the authors', by `weights_sha256`. Others go by the name of their file."""

SMALL = "small PRFFN"  # the row of the network that comes with the package
BICUBIC = "bicubic"  # the baseline's row, and what stands for its weights: it has none
Upscaler = nn.Module | Callable[[ImageArray], ImageArray]
Subject = tuple[str, int, str]  # row of the table, scale, image set
Evaluations = Found[Subject]


@dataclass(frozen=True)
class Weights:
    """What a row upscales with at one scale: trained weights, where they come from, and how to get the network."""

    sha256: str
    origin: str
    load: Callable[[], Upscaler]

    def network(self) -> Upscaler:
        """Raises FileNotFoundError if there is none, or another one: a run that was trained again elsewhere, say."""
        network = self.load()
        if isinstance(network, nn.Module) and weights_sha256(network) != self.sha256:
            raise FileNotFoundError(f"the weights found are not those of {self.origin}, {self.sha256}")
        return network


def bicubic(scale: int) -> Weights:
    """Bicubic upscaling, evaluated and recorded as the networks are."""
    return Weights(BICUBIC, "", lambda: partial(upscale_bicubic, scale=scale))


def shipped_weights(scales: Sequence[int]) -> dict[tuple[str, int], Weights]:
    """The weights of the package's networks, by row and scale; none of a file that is missing.

    Raises DamagedWeights for a file that does not say what it holds.
    """
    found = {}
    for scale in scales:
        if (path := pretrained_path(scale)).is_file():
            said = settings_of_file(path)
            origin = f"shipped, trained on {said['settings']['data.train']}"
            found[SMALL, scale] = Weights(said["weights_sha256"], origin, partial(pretrained, scale))
    return found


def weights_of_run(e: Experiment, run: Run, origin: str) -> Weights:
    """The weights of a run, from its checkpoint in the cache."""
    return Weights(run.record["weights_sha256"], origin, partial(trained_model, e))


def find_weights(network: str, scale: int) -> Path | None:
    """The file of a network's weights in the folder PRFFN_WEIGHTS: <network>_x<scale>, or <network> for all scales.

    In small letters, all else than letters and digits as "_": smsr_x2.pt, oisr_rk2_x3.pth, carn_m.safetensors.
    Raises ValueError for two files of the same name.
    """
    folder = weights_root()
    if folder is None:
        return None
    stem = re.sub(r"[^a-z0-9]+", "_", network.lower())
    for name in (f"{stem}_x{scale}", stem):
        files = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
        if len(files) > 1:
            raise ValueError(f"{WEIGHTS_VARIABLE} has {files[0].name} and {files[1].name}: which one is {network}?")
        if files:
            return files[0]
    return None


def weights_from_files(networks: Iterable[str], scales: Sequence[int]) -> dict[tuple[str, int], Weights]:
    """The weights found in the folder PRFFN_WEIGHTS, by network and scale; names that are not in NETWORKS have none.

    Raises UnusableCheckpoint for a file that bears a network's name and does not hold it.
    """
    found = {}
    for network in networks:
        for scale in scales:
            if network in NETWORKS and (path := find_weights(network, scale)):
                sha256 = weights_sha256(load_network(path, network, scale))
                origin = "authors'" if sha256 in AUTHORS else f"file {path.name}"
                found[network, scale] = Weights(sha256, origin, partial(load_network, path, network, scale))
    return found


def weights_of_runs(experiments: Mapping[str, Sequence[Experiment]], runs: Runs) -> dict[tuple[str, int], Weights]:
    """The weights of the trained runs, from their checkpoints in the cache, by "PRFFN, seed 0" and scale."""
    return {
        (f"PRFFN, seed {e.seed}", e.data.scale): weights_of_run(e, run, f"trained here, profile {runs.profile}")
        for label, group in experiments.items()
        for e, run in zip(group, runs[label], strict=True)
    }


def ensure_evaluations(
    weights: Mapping[tuple[str, int], Weights],
    image_sets: Sequence[str],
    profile: str,
    *,
    device: str = "auto",
    retrain: bool = False,
) -> Evaluations:
    """The evaluations on these sets: recorded ones are loaded, the others measured where weights and images are there.

    Recorded ones of weights that are missing are there too. What is neither recorded nor there is left out.
    retrain: measure again what is there. A damaged record is reported and never used.
    """
    store, picked = Store(check_profile(profile), "evaluations", IDENTITY, PROTOCOL), pick_device(device)
    checksums = {name: _checksum(name) for name in image_sets}
    labels = {set_label(name): name for name in image_sets}
    records = {}
    for record in store.all():  # of several networks under one name the last one counts
        known = checksums.get(labels.get(record["image_set"], ""))
        if record["image_set"] in labels and known in (None, record["checksum"]):
            records[record["row"], record["scale"], record["image_set"]] = record
    made: set[str] = set()
    for (row, scale), w in weights.items():
        for name in image_sets:
            subject = (row, scale, set_label(name))
            found = records.pop(subject, None)
            if found is not None and found["weights"] != w.sha256 and found["origin"] == "authors'":
                other = f"{row} x{scale} from {w.origin} is not the authors' that was evaluated before"
                warnings.warn(f"{other}. If you did not choose it, it is damaged: get it again", stacklevel=2)
            if found is None or found["weights"] != w.sha256:  # the last one of this name, perhaps not the only one
                found = store.load(store.key({"weights": w.sha256, "checksum": checksums[name], "scale": scale}))
            if (retrain or found is None) and (new := _measure(subject, name, w, picked)):
                found = store.save(new)
                made.add(found["key"])
            if found is not None:
                records[subject] = found
    return Found("evaluations", profile, dict(sorted(records.items())), made)


def _checksum(name: str) -> str | None:
    """Of the set's images; None where they are missing and were never recorded."""
    try:
        return set_checksum(name)
    except FileNotFoundError:
        return None


def _measure(subject: Subject, name: str, weights: Weights, device: torch.device) -> Record | None:
    """A new record; None where the images or the weights are missing."""
    try:
        images, model = image_set(name), weights.network()
    except FileNotFoundError:
        return None
    row, scale, label = subject
    started = datetime.now(UTC)
    with progress_bar(total=1, desc=f"{row} x{scale} on {label}", unit="set", leave=False):
        found = evaluate(model, images, scale=scale, device=device).to_json()
    return {
        "row": row,
        "scale": scale,
        "image_set": label,
        "checksum": images.checksum,
        "weights": weights.sha256,
        "origin": weights.origin,
        "evaluation": {metric: found[metric] for metric in ("image_names", "psnr_y", "ssim_y")},
        **measured(started, device),
    }
