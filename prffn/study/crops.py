"""A region of an image by several methods beside each other (Figs. 7 to 10): measured once, and recorded.

A record is reports/<profile>/crops/<key>.json. Its key is a hash of the image's checksum, the region, the scale, the
weights and PROTOCOL; it holds the SR crop itself. Where the weights are missing, the record of what was made with
them stands.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from PIL import Image
from torch import nn

from prffn.config import Experiment, check_profile, variants
from prffn.data.degradation import ImageArray, downscale
from prffn.data.images import open_image
from prffn.data.pictures import Picture
from prffn.evaluation.metrics import psnr_y, ssim_y
from prffn.evaluation.tiling import upscale
from prffn.models.complexity import parameters
from prffn.study.benchmark import trained_scales
from prffn.study.ensure import recorded_runs
from prffn.study.evaluations import (
    BICUBIC,
    SMALL,
    Weights,
    bicubic,
    shipped_weights,
    weights_from_files,
    weights_of_run,
)
from prffn.study.provenance import measured
from prffn.study.runs import Runs
from prffn.study.store import Found, Record, Store
from prffn.training.device import pick_device
from prffn.training.loop import progress_bar

PROTOCOL = 1  # raised by hand whenever the same weights, image and region would give another crop or other figures

IDENTITY = {"protocol": "protocol", "image": "checksum", "region": "region", "scale": "scale", "weights": "weights"}
"""What the key of a record is a hash of, and the fields that hold it."""

METHODS = ("FSRCNN", "CARN", "CARN-M", "MSRN", "SMSR", "SeaNet", "TSAN", "SwinIR-light", "OISR-RK2", SMALL, "PRFFN")
"""Of Figs. 8 to 10 in the paper's order, and CARN-M, SMSR and a small PRFFN, which those do not show."""


class Crops(Found[str]):
    """The records of one picture by method, which of them were made now, and which methods there are none of."""

    def __init__(
        self, shown: Picture, profile: str, records: Mapping[str, Record], new: set[str], missing: list[str]
    ) -> None:
        note = f"; missing: {', '.join(missing)}" if missing else ""
        super().__init__(f"crops of {shown.name} x{shown.scale}", profile, records, new, note)
        self.picture, self.missing = shown, missing

    def figures(self, part: str, metric: str = "psnr_y") -> dict[str, float]:
        """A metric of the "crop" or of the whole "image", by method."""
        return {method: record["figures"][part][metric] for method, record in self.items()}


def weights_there(profile: str, scale: int) -> dict[str, Weights]:
    """Of METHODS, those whose weights are in the folder PRFFN_WEIGHTS, see `find_weights`; the small network of the
    package; PRFFN as Table 8 has trained it, where the profile does. What is nowhere is left out.

    Raises UnusableCheckpoint or DamagedWeights for a file that is not whole.
    """
    trained = _trained(profile, scale) if scale in trained_scales(profile) else {}
    files = shipped_weights([scale]) | weights_from_files(METHODS, [scale])
    return trained | {name: weights for (name, _), weights in files.items()}


def _trained(profile: str, scale: int) -> dict[str, Weights]:
    """From the record of the run: nothing is trained for a figure."""
    experiments = variants(profile, {"PRFFN": {"data.scale": scale}}, seeds=1)
    try:
        runs = recorded_runs(experiments, profile)
    except FileNotFoundError:  # neither run nor images
        return {}
    origin = f"trained here, profile {profile}"
    return {"PRFFN": weights_of_run(experiments["PRFFN"][0], runs["PRFFN"][0], origin)} if runs else {}


def weights_of_losses(experiments: Mapping[str, Sequence[Experiment]], runs: Runs) -> dict[str, Weights]:
    """The weights of each run, as "L_1, seed 0", from the checkpoints in the cache; none of a loss not measured."""
    return {
        of_seed(label, e.seed): weights_of_run(e, run, f"trained here, profile {runs.profile}")
        for label, group in experiments.items()
        if label not in runs.not_measured
        for e, run in zip(group, runs[label], strict=True)
    }


def of_seed(label: str, seed: int) -> str:
    """What the crop of one of several trainings is called."""
    return f"{label}, seed {seed}"


def ensure_crops(
    shown: Picture,
    methods: Sequence[str],
    weights: Mapping[str, Weights],
    profile: str,
    *,
    device: str = "auto",
    retrain: bool = False,
) -> Crops:
    """The region by bicubic upscaling and by each method, in this order: recorded crops are loaded, the others made.

    weights: those found, by method. A recorded crop of weights that are not among them is there too; a method that
    is neither recorded nor there is left out, and named. retrain: make again what is there. A damaged record is
    reported and never used.
    """
    store, picked = Store(check_profile(profile), "crops", IDENTITY, PROTOCOL), pick_device(device)
    asked = {"checksum": shown.checksum, "region": list(shown.region), "scale": shown.scale}
    recorded = {  # of several under one name the last one counts
        record["method"]: record for record in store.all() if {**record, **asked} == record
    }
    weights = {**weights, BICUBIC: bicubic(shown.scale)}
    records, made, missing = {}, set(), []
    for method in (BICUBIC, *methods):
        if (at_hand := weights.get(method)) is None:
            record = recorded.get(method)
        else:
            identity = {**asked, "weights": at_hand.sha256}
            record = store.load(store.key(identity))
            if (retrain or record is None) and (new := _make(shown, method, at_hand, picked)):
                record = store.save({**identity, **new})
                made.add(record["key"])
        if record is None:
            missing.append(method)
        else:
            records[method] = record
    return Crops(shown, profile, records, made, missing)


def _make(shown: Picture, method: str, weights: Weights, device: torch.device) -> Record | None:
    """A new record; None where the weights are missing after all, as those of a run that was trained elsewhere.

    The whole image is upscaled, as channel attention looks at all of it, and then cropped.
    """
    started, lr = datetime.now(UTC), downscale(shown.hr, shown.scale)
    try:
        model = weights.network()
    except FileNotFoundError:
        return None
    with progress_bar(total=1, desc=f"{method} x{shown.scale} on {shown.name}", unit="image", leave=False):
        sr = upscale(model, lr, scale=shown.scale, device=device) if isinstance(model, nn.Module) else model(lr)
    return {
        "image": shown.name,
        "method": method,
        "origin": weights.origin,
        "parameters": parameters(model) if isinstance(model, nn.Module) else 0,
        "figures": figures(shown, sr),
        "png": to_png(shown.crop(sr)),
        **measured(started, device),
    }


def figures(shown: Picture, sr: ImageArray) -> dict[str, dict[str, float]]:
    """PSNR-Y (dB) and SSIM-Y of an SR image: of the crop, and of the whole image by the kit's protocol.

    Nothing is shaved off the crop (our choice; the paper does not say whether its figures have any, or of what): it
    lies inside the shaved image, so that its pixels are all among those that count there.
    """
    pairs = {"crop": (shown.crop(sr), shown.crop(shown.hr), 0), "image": (sr, shown.hr, shown.scale)}
    return {name: {"psnr_y": psnr_y(*pair), "ssim_y": ssim_y(*pair)} for name, pair in pairs.items()}


def to_png(image: ImageArray) -> str:
    """(H, W, 3) uint8 as a PNG in base64, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def from_png(text: str) -> ImageArray:
    """The image of `to_png`, (H, W, 3) uint8."""
    with open_image(io.BytesIO(base64.b64decode(text))) as file:
        return np.asarray(file.convert("RGB"))
