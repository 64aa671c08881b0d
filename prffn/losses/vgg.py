"""VGG features for L_perc and L_CSD: frozen networks, how an image is brought to them, and where their weights are."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.files import load_tensors, weights_root

BackboneName = Literal["vgg19", "vgg16_caffe"]

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five blocks of any VGG (Simonyan & Zisserman, ICLR 2015)."""


class BackboneUnavailable(RuntimeError):
    """No trained weights of a backbone are at hand; the message says why, and the way out."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The convolutions of a VGG, and the images it was trained on."""

    convolutions: tuple[int, ...]
    """In each of the five blocks."""
    bgr: bool
    peak: float
    """White in its input, before mean and standard deviation, which are in the order of its channels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    files: tuple[str, ...]
    """Names of its weights in the folder PRFFN_WEIGHTS. In full: other networks' files are called much the same."""

    @property
    def layers(self) -> tuple[str, ...]:
        """conv1_1, relu1_1, ..., pool1, ..., up to the last ReLU: a layer's place is its index in torchvision's
        `features`."""
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
        convolutions=(2, 2, 4, 4, 4),
        bgr=False,
        peak=1.0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        files=("vgg19-dcbb9e9d.pth", "vgg19_features.pth"),
    ),
    "vgg16_caffe": Backbone(
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


def features(
    image: Tensor, backbone: BackboneName, layers: Collection[str], *, bfloat16: bool = False
) -> dict[str, Tensor]:
    """Outputs of `layers`, such as "relu2_2": (N, C, h, w) each, by name, in the network's order.

    image: (N, 3, H, W), RGB in [0, 1], on any device; half precisions are computed in float32. Nothing is computed
        beyond the deepest layer asked for, and the weights take no gradient.
    bfloat16: computes all convolutions but the first in bfloat16; what is returned is float32 all the same. The first
        is cheap, and rounding its input, the pixels, would cost most of the accuracy.
    Raises ValueError for an unknown backbone or layer, or an image with fewer pixels than the poolings need, and
    BackboneUnavailable where there are no weights.
    """
    network = _known(backbone)
    if missing := [layer for layer in layers if layer not in network.layers]:
        raise ValueError(f"{backbone} has no layer {missing[0]!r}; its layers are {', '.join(network.layers)}")
    last = max(network.layers.index(layer) for layer in layers)
    side = 2 ** sum(layer.startswith("pool") for layer in network.layers[: last + 1])
    if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < side:
        shape = tuple(image.shape)
        raise ValueError(f"{network.layers[last]} needs RGB images (N, 3, H, W) of {side} pixels or more, got {shape}")

    dtype = torch.promote_types(image.dtype, torch.float32)
    inner = torch.bfloat16 if bfloat16 else dtype
    weights = _weights(backbone, _file(backbone), image.device, dtype, inner)
    found: dict[str, Tensor] = {}
    with torch.autocast(image.device.type, enabled=False):
        x = network.normalised(image.to(dtype)).contiguous(memory_format=torch.channels_last)
        before = ""
        for layer in network.layers[: last + 1]:
            if layer.startswith("conv"):
                weight, bias = weights[layer]
                x = F.conv2d(x.to(weight.dtype), weight, bias, padding=1)
            elif layer.startswith("relu"):
                x = F.relu(x, inplace=before not in found)  # a pass over memory less
            else:
                x = F.max_pool2d(x, 2)
            if layer in layers:
                found[layer] = x.to(dtype)
            before = layer
    return found


@lru_cache(maxsize=2)
def _sha256(backbone: BackboneName, file: Path) -> str:
    digest = hashlib.sha256()
    for layer, tensors in _weights(backbone, file, torch.device("cpu"), torch.float32, torch.float32).items():
        digest.update(layer.encode())
        for tensor in tensors:
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
    raise BackboneUnavailable(
        f"no weights of vgg16_caffe: {missing}; the second is linked at github.com/jcjohnson/pytorch-vgg. Or use the "
        "backbone vgg19, which torchvision downloads"
    )


def _download_vgg19(missing: str) -> Path:
    """torchvision's file in its cache; downloaded once, 548 MB, checked against the checksum in its name."""
    from torchvision.models import VGG19_Weights  # here, so that L_contr alone needs no torchvision

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
    """Raises ValueError if torchvision's file has not the checksum of which eight digits stand in its name."""
    named = re.fullmatch(r"vgg19-([0-9a-f]{8})\.pth", file.name)
    if named and not _file_sha256(file).startswith(named[1]):
        raise ValueError("its checksum is not the one in its name: it is damaged, or another file")


def _file_sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _weights(
    backbone: BackboneName, file: Path, device: torch.device, first: torch.dtype, others: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution, by layer, in the network's order; the first in a type of its own."""
    weights: dict[str, tuple[Tensor, Tensor]] = {}
    try:
        _compare_with_name(file)
        state = load_tensors(file)
        channels = 3
        for index, layer in enumerate(BACKBONES[backbone].layers):
            if layer.startswith("conv"):
                weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
                width = WIDTHS[int(layer[4]) - 1]
                if weight.shape != (width, channels, 3, 3) or bias.shape != (width,):
                    raise ValueError(f"features.{index}.weight has shape {tuple(weight.shape)}")
                dtype = others if weights else first
                weight = weight.detach().to(device, dtype, memory_format=torch.channels_last)
                weights[layer] = weight, bias.detach().to(device, dtype)  # detached: frozen
                channels = width
    except Exception as error:
        raise BackboneUnavailable(
            f"{file} is not a state dict of {backbone}'s features ({error}); remove it, or put the right one there"
        ) from error
    return weights
