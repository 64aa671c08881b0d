"""VGG features for L_perc and L_CSD: torchvision's layers, how an image is brought to them, and where weights are."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from prffn.files import from_extra, load_tensors, weights_root

BackboneName = Literal["vgg19", "vgg16_caffe"]


class BackboneUnavailable(RuntimeError):
    """A backbone has no trained weights on this machine; the message says why, and the way out."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The convolutions of a VGG, and the images it was trained on."""

    builder: str  # the function of torchvision.models that builds it
    convolutions: tuple[int, ...]  # in each of the five blocks; those that a network has beyond them are not used
    bgr: bool
    peak: float  # white in its input, before mean and standard deviation, which are in the order of its channels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    files: tuple[str, ...]  # names of its weights in PRFFN_WEIGHTS, in full: others are called much the same

    @property
    def layers(self) -> tuple[str, ...]:
        """conv1_1, relu1_1, ..., pool1, ..., up to the last ReLU, in the order of torchvision's `features`."""
        names: list[str] = []
        for block, count in enumerate(self.convolutions, start=1):
            for n in range(1, count + 1):
                names += (f"conv{block}_{n}", f"relu{block}_{n}")
            names.append(f"pool{block}")
        return tuple(names[:-1])

    def normalised(self, image: Tensor) -> Tensor:
        """(N, 3, H, W), RGB in [0, 1], as the network expects it."""
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return ((image.flip(1) if self.bgr else image) * self.peak - mean) / std


BACKBONES: dict[BackboneName, Backbone] = {
    "vgg19": Backbone(
        builder="vgg19",
        convolutions=(2, 2, 4, 4, 4),
        bgr=False,
        peak=1.0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        files=("vgg19-dcbb9e9d.pth", "vgg19_features.pth"),
    ),
    "vgg16_caffe": Backbone(
        builder="vgg16",
        convolutions=(2, 2, 3, 3, 1),
        bgr=True,
        peak=255.0,
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
        files=("vgg16_features_caffe_fp16.pth", "vgg16-00b39a1b.pth"),
    ),
}
"""vgg19: torchvision's, IMAGENET1K_V1. vgg16_caffe: Oxford's own VGG-16 up to conv5_1, the network that Johnson et al.
used; a state dict of `features.*`, or the conversion in jcjohnson/pytorch-vgg, vgg16-00b39a1b.pth."""


def features(image: Tensor, backbone: BackboneName, layers: Collection[str]) -> dict[str, Tensor]:
    """Outputs of `layers`, such as "relu2_2": (N, C, h, w) each, by name, in the network's order.

    image: (N, 3, H, W), RGB in [0, 1], on any device; half precisions are computed in float32. Nothing is computed
        beyond the deepest layer asked for, and the weights take no gradient.
    Raises ValueError for an unknown backbone, or an image with fewer pixels than the poolings need, and
    BackboneUnavailable where there are no weights.
    """
    network = _known(backbone)
    used = network.layers[: 1 + max(network.layers.index(layer) for layer in layers)]
    side = 2 ** sum(layer.startswith("pool") for layer in used)
    if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < side:
        shape = tuple(image.shape)
        raise ValueError(f"{used[-1]} needs RGB images (N, 3, H, W) of {side} pixels or more, got {shape}")

    dtype = torch.promote_types(image.dtype, torch.float32)
    found: dict[str, Tensor] = {}
    with torch.autocast(image.device.type, enabled=False):
        x = network.normalised(image.to(dtype)).contiguous(memory_format=torch.channels_last)
        for name, layer in zip(used, _network(backbone, _file(backbone), image.device, dtype), strict=False):
            x = layer(x)
            if name in layers:
                found[name] = x.clone() if name.startswith("conv") else x  # the ReLU after it works in place
    return found


@lru_cache(maxsize=2)
def _sha256(backbone: BackboneName, file: Path) -> str:
    digest = hashlib.sha256()
    network = _network(backbone, file, torch.device("cpu"), torch.float32)
    for name, layer in zip(BACKBONES[backbone].layers, network, strict=True):
        if isinstance(layer, nn.Conv2d):
            digest.update(name.encode())
            for tensor in layer.parameters():
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def backbone_sha256(backbone: BackboneName) -> str:
    """SHA-256 of the weights in use, as float32, layer by layer: the same network gives the same one from any file.

    Raises BackboneUnavailable where there are none, ValueError for an unknown backbone.
    """
    _known(backbone)
    return _sha256(backbone, _file(backbone))


def _known(backbone: str) -> Backbone:
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(get_args(BackboneName))}, got {backbone!r}")
    return BACKBONES[backbone]


def _file(backbone: BackboneName) -> Path:
    """The file of a backbone's weights, downloaded if need be; raises BackboneUnavailable."""
    names, folder = BACKBONES[backbone].files, weights_root()
    for name in names:
        if folder and (folder / name).is_file():
            return folder / name
    missing = f"PRFFN_WEIGHTS names no folder with {' or '.join(names)}"
    if backbone == "vgg19":
        return _download_vgg19(missing)
    raise BackboneUnavailable(f"no weights of vgg16_caffe: {missing} (github.com/jcjohnson/pytorch-vgg); or use vgg19")


def _download_vgg19(missing: str) -> Path:
    """torchvision's file in its cache; downloaded once, 548 MB, checked against the checksum in its name."""
    with from_extra("networks"):
        from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.split("-")[1], progress=False)
        except Exception as error:
            raise BackboneUnavailable(
                f"no weights of vgg19: torchvision could not download {url} ({error}), and {missing}"
            ) from error
    return path


def _compare_with_name(file: Path) -> None:
    """Raises ValueError if torchvision's file does not have the checksum whose first eight digits its name gives."""
    named = re.fullmatch(r"vgg19-([0-9a-f]{8})\.pth", file.name)
    if named and not _file_sha256(file).startswith(named[1]):
        raise ValueError("its checksum is not the one in its name: it is damaged, or another file")


def _file_sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _network(backbone: BackboneName, file: Path, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """torchvision's layers in the order of `Backbone.layers`, with the weights of `file`, which take no gradient."""
    with from_extra("networks"):
        from torchvision import models

    with torch.device("meta"):
        whole = getattr(models, BACKBONES[backbone].builder)()
    network = whole.features[: len(BACKBONES[backbone].layers)]
    try:
        _compare_with_name(file)
        state = load_tensors(file)
        network.load_state_dict({key: state[f"features.{key}"] for key in network.state_dict()}, assign=True)
    except Exception as error:
        raise BackboneUnavailable(
            f"{file} is not a state dict of {backbone}'s features ({error}); remove it, or put the right one there"
        ) from error
    return network.requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)
