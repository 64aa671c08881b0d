"""The key of a run: a hash of the settings that have an effect, of the images' checksums and of PROTOCOL."""

import warnings
from pathlib import Path
from typing import Any

from prffn.config import Experiment, fields_of, setting
from prffn.data.images import set_checksum, set_label
from prffn.files import cache_root, digest
from prffn.losses.own import short_name
from prffn.losses.vgg import BackboneUnavailable, backbone_sha256

PROTOCOL = 3  # raised by hand whenever the same experiment would give other numbers; a golden run in the tests notices

RECORDED_BACKBONES = {"vgg16_caffe": "89f1142ff90b2311bc6ac4c4280781b61d080356f18e5aa1c9a53829b47c4e07"}
"""Checksums of the backbones that the recorded study used, so that its records are found where their files are not."""


def run_key(experiment: Experiment) -> str:
    """16 hexadecimal digits: equal for experiments that give the same record, on any machine.

    Only settings that differ from the paper's enter it, so that a setting added later leaves the key of older runs as
    it is; `load_record` compares all settings, so that a changed default cannot pass for the old one.
    """
    settings, paper = settings_of(experiment), settings_of(Experiment())
    e = experiment.data
    identity = {
        "protocol": PROTOCOL,
        "settings": {name: value for name, value in settings.items() if value != paper[name]},
        "checksums": [set_checksum(name) for name in (e.train, *e.evaluation)],
    }
    if backbone := backbone_checksum(experiment):
        identity["backbone"] = backbone
    return digest(identity)[:16]


def backbone_checksum(experiment: Experiment) -> str | None:
    """Checksum of the backbone of L_perc and L_CSD: of the one found, else of the recorded one; None if none is used.

    Warns if the one found is not the study's: its records are then of another one, and are not found.
    """
    loss = experiment.loss
    if not (loss.perceptual_weight or loss.csd_weight):
        return None
    recorded = RECORDED_BACKBONES.get(loss.backbone)
    try:
        found = backbone_sha256(loss.backbone)
    except BackboneUnavailable:
        if recorded is None:
            raise
        return recorded
    if recorded is not None and found != recorded:
        other = f"the weights of {loss.backbone} are not those of the recorded study: runs with them are new"
        warnings.warn(f"{other}. If you did not choose them, they are damaged: get them again", stacklevel=2)
    return found


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """All settings that have an effect, by dotted name, as they stand in a record.

    Folders of images, and the file of a reader's loss, go by their own name: a record names no path of the machine it
    was made on. Raises ValueError for two folders of one name.
    """
    e = experiment.canonical()
    sets = {e.data.train, *e.data.evaluation}
    if len({set_label(name) for name in sets}) < len(sets):
        raise ValueError(f"two of the folders {', '.join(sorted(sets))} would have one name in the record; rename one")
    settings: dict[str, Any] = {}
    for name, kind in fields_of().items():
        value = setting(e, name)
        settings[name] = list(value) if isinstance(value, tuple) else float(value) if kind is float else value
    settings["data.train"] = set_label(e.data.train)
    settings["data.evaluation"] = [set_label(name) for name in e.data.evaluation]
    settings["loss.own"] = short_name(e.loss.own)
    settings["training.start"] = run_key(e.start) if e.start else ""
    return settings


def checkpoint_path(key: str) -> Path:
    """Where the checkpoint of a run lies, in the cache."""
    return cache_root() / "checkpoints" / f"{key}.ckpt"
