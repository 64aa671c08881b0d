"""The small trained networks that come with the package, one for each scale: files that say what they hold.

A file is safetensors with four texts beside the tensors: `settings`, the run's settings in JSON by dotted name;
`record`, the key of the run's record in reports/; `weights_sha256`, as in that record; `sha256`, of the three others:
settings such as the dilation rates show in no shape.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch

from prffn.files import atomic_write, digest, weights_sha256
from prffn.models import PRFFN
from prffn.models.blocks import check_scale

WEIGHTS = Path(__file__).parent / "shipped"
SCALES = (2, 3, 4)
SIZES = ("variant", "channels", "groups", "blocks", "reduction", "dilation_rates", "padding")
"""Settings of the network, `model.<name>`; one that a file does not name has the paper's value."""

TEXTS = {"settings", "record", "weights_sha256"}  # what a file says of itself


class DamagedWeights(ValueError):
    """A file of weights is not whole, or not what it says it is; the message says why, and the way out."""


def pretrained(scale: int = 3) -> PRFFN:
    """The trained PRFFN of that scale, in evaluation mode: (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].

    Far smaller than the paper's, for a CPU: its settings and figures are in the record that `settings_of_file` names.
    Raises ValueError for a scale other than 2, 3, 4, FileNotFoundError or DamagedWeights if the file cannot be used.
    """
    check_scale(scale)
    return load_pretrained(pretrained_path(scale))


def pretrained_path(scale: int) -> Path:
    """Where the weights of a scale lie inside the package."""
    return WEIGHTS / f"prffn_x{scale}.safetensors"


def load_pretrained(path: Path) -> PRFFN:
    """The network of a file that `save_pretrained` wrote, in evaluation mode, its weights checked against their sum."""
    texts = settings_of_file(path)
    settings = texts["settings"]
    try:
        sizes = {name: settings[f"model.{name}"] for name in SIZES if f"model.{name}" in settings}
        model = PRFFN(settings["data.scale"], **sizes)
        model.load_state_dict(safetensors_torch.load_file(path))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DamagedWeights(
            f"{path} does not hold the network that its settings name ({error}); {_WAY_OUT}"
        ) from error
    if weights_sha256(model) != texts["weights_sha256"]:
        raise DamagedWeights(f"{path} is damaged: its weights do not have their checksum; {_WAY_OUT}")
    return model.eval()


def settings_of_file(path: Path) -> dict[str, Any]:
    """What a file says of itself: {"settings": dict, "record": str, "weights_sha256": str}, without its tensors.

    Raises FileNotFoundError, or DamagedWeights for a file that is not safetensors or does not say it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no trained weights {path}; {_WAY_OUT}")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
        said = {name: texts[name] for name in TEXTS}
        if digest(said) != texts["sha256"]:
            raise DamagedWeights(f"{path} is damaged: what it says of itself is not what was written; {_WAY_OUT}")
        return {**said, "settings": json.loads(said["settings"])}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DamagedWeights(f"{path} is damaged, or no safetensors file ({error}); {_WAY_OUT}") from error
    except KeyError as error:
        raise DamagedWeights(f"{path} does not say of which run it is: no {error}") from error


def is_ours(path: Path) -> bool:
    """Whether a file says of itself what `save_pretrained` writes, or some of it, where it is damaged."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return not TEXTS.isdisjoint(file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def save_pretrained(model: PRFFN, path: Path, settings: dict[str, Any], record_key: str, sha: str) -> None:
    """Writes the weights of a run, atomically. Settings, key and `sha`, the weights' sum, are those of its record.

    Raises ValueError if the model's weights are not those of the record.
    """
    if (found := weights_sha256(model)) != sha:
        raise ValueError(f"the network's weights sum to {found}, the record's to {sha}: it is of another run")
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    texts = {"settings": json.dumps(settings, sort_keys=True), "record": record_key, "weights_sha256": sha}
    with atomic_write(path) as file:
        file.write(safetensors_torch.save(tensors, metadata={**texts, "sha256": digest(texts)}))


_WAY_OUT = "`git checkout prffn/models/shipped`, or installing the package again, brings the shipped ones back"
