"""L_perc and L_CSD: written out on torchvision's networks, in float32 and half precisions; the backbones' weights."""

import shutil
from pathlib import Path
from unittest.mock import ANY, Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from prffn import files
from prffn.data.images import image_set, lr_images
from prffn.data.patches import to_tensor
from prffn.losses import vgg as backbone_module
from prffn.losses.perceptual import CSD_WEIGHTS, csd_loss, perceptual_loss
from prffn.losses.vgg import BACKBONES, BackboneUnavailable, backbone_sha256, features
from prffn.study.keys import RECORDED_BACKBONES

NAMES = ["vgg19", "vgg16_caffe"]
WITHOUT_SUM = {"vgg19": "vgg19_features.pth", "vgg16_caffe": "vgg16_features_caffe_fp16.pth"}
"""Names of files that do not say which checksum these have."""


def modules(name: str) -> torch.nn.Sequential:
    """torchvision's own layers up to the last one used, without memory."""
    with torch.device("meta"):
        return getattr(torchvision.models, BACKBONES[name].builder)().features[: len(BACKBONES[name].layers)]


def random_weight(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """After He et al. (2015), so that features keep their size from layer to layer; biases are smaller."""
    scale = (2 / (9 * shape[1])) ** 0.5 if len(shape) == 4 else 0.1
    return scale * torch.randn(shape, generator=generator)


def save_vgg(name: str, folder: Path) -> Path:
    """Puts a VGG with random weights into a folder, in the file's own precision. Returns the folder."""
    g = torch.Generator().manual_seed(0)
    state = {f"features.{key}": random_weight(value.shape, g) for key, value in modules(name).state_dict().items()}
    if name == "vgg16_caffe":
        state = {key: value.half() for key, value in state.items()}
    torch.save(state, folder / WITHOUT_SUM[name])
    return folder


def save_random_vgg16(folder: Path) -> Path:
    return save_vgg("vgg16_caffe", folder)


@pytest.fixture(scope="session")
def weight_files(tmp_path_factory) -> Path:
    """A folder with both backbones' weights, random ones, in the files' own formats."""
    folder = tmp_path_factory.mktemp("weights")
    for name in NAMES:
        save_vgg(name, folder)
    return folder


@pytest.fixture
def random_weights(weight_files, monkeypatch) -> Path:
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(weight_files))
    return weight_files


def images(n: int, side: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def written_out(name: str, image: Tensor, folder: Path) -> dict[str, Tensor]:
    """All features by torchvision's network, with the normalisation as the weights' authors give it."""
    network = modules(name)
    state = torch.load(folder / WITHOUT_SUM[name], weights_only=True)
    state = {key.removeprefix("features."): value.to(image.dtype) for key, value in state.items()}
    network.load_state_dict(state, assign=True)
    if name == "vgg19":
        x = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(image)
    else:
        x = 255 * image[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68], dtype=image.dtype).view(3, 1, 1)
    found = {}
    for layer, module in zip(BACKBONES[name].layers, network.requires_grad_(False), strict=True):
        x = module(x.clone())  # its ReLUs work in place
        found[layer] = x
    return found


@pytest.mark.parametrize("name", NAMES)
def test_features_are_torchvisions(name, random_weights):
    """In float64 to rounding, in float32 to its accuracy; asked for together or one by one, also before a ReLU."""
    kinds = {"Conv2d": "conv", "ReLU": "relu", "MaxPool2d": "pool"}
    assert [layer[:4] for layer in BACKBONES[name].layers] == [kinds[type(m).__name__] for m in modules(name)]
    image = images(2, 20, dtype=torch.float64)
    expected, state = written_out(name, image, random_weights), torch.get_rng_state()
    backbone_module._network.cache_clear()
    layers = ["conv1_2", "relu1_2", "relu2_2", "pool3", "relu5_1", "conv5_1"]
    together = features(image, name, layers)
    assert list(together) == ["conv1_2", "relu1_2", "relu2_2", "pool3", "conv5_1", "relu5_1"]
    assert torch.equal(torch.get_rng_state(), state)  # building the network draws nothing
    for layer in layers:
        assert torch.allclose(together[layer], expected[layer], rtol=1e-9, atol=1e-9)
        assert torch.equal(features(image, name, [layer])[layer], together[layer])
        single = features(image.float(), name, [layer])[layer]
        assert single.dtype == torch.float32
        assert (single - expected[layer]).abs().max() < 1e-4 * expected[layer].abs().max()


def test_the_losses_written_out(random_weights, monkeypatch):
    """Values and gradients by the published formulas on torchvision's network; of L_CSD the negatives are enlarged by
    torch's bicubic, and all patches of the batch are negatives where it has fewer than K."""
    x, hr, lr = (images(3, side, seed, torch.float64).requires_grad_() for seed, side in enumerate((16, 16, 8)))
    large = F.interpolate(lr, scale_factor=2, mode="bicubic").detach()
    sr, positive, *negatives = (written_out("vgg16_caffe", y, random_weights) for y in (x, hr, large[:1], large[1:2]))

    def distance(layer: str, other: dict[str, Tensor]) -> Tensor:
        return (sr[layer] - other[layer]).abs().mean()

    published = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1}
    csd = sum(
        weight * distance(layer, positive) / (sum(distance(layer, n) for n in negatives) + 1e-7)
        for layer, weight in published.items()
    )
    of_few = csd_loss(x, hr, lr, "vgg16_caffe")
    monkeypatch.setattr("prffn.losses.perceptual.CSD_NEGATIVES", 2)
    for loss, expected in (
        (perceptual_loss(x, hr, "vgg16_caffe"), (sr["relu2_2"] - positive["relu2_2"]).square().mean()),
        (csd_loss(x, hr, lr, "vgg16_caffe"), csd),
    ):
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        of_loss, of_expected = (torch.autograd.grad(value, x, retain_graph=True)[0] for value in (loss, expected))
        assert torch.allclose(of_loss, of_expected, rtol=1e-7, atol=1e-12)
    monkeypatch.setattr("prffn.losses.perceptual.CSD_NEGATIVES", 3)
    assert of_few == csd_loss(x, hr, lr, "vgg16_caffe")


def losses(name: str, hr: Tensor, lr: Tensor):
    yield lambda x: perceptual_loss(x, hr, name)
    yield lambda x: csd_loss(x, hr, lr, name)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_accurate(name, random_weights):
    """Loss and gradient in float32, in both memory formats, against float64; 0 for HR, which gets no gradient.

    Half-precision images are computed in float32, and autocast rounds nothing."""
    sr, hr, lr = (images(2, side, seed) for seed, side in enumerate((24, 24, 8)))
    hr, lr = hr.requires_grad_(), lr.requires_grad_()
    for single, exact in zip(losses(name, hr, lr), losses(name, hr.double(), lr.double()), strict=True):
        x = sr.double().requires_grad_()
        exact(x).backward()
        assert single(hr.clone()).item() == 0
        for memory_format in (torch.channels_last, torch.contiguous_format):
            y = sr.clone(memory_format=memory_format).requires_grad_()
            loss = single(y)
            loss.backward()
            assert loss.item() == pytest.approx(exact(x).item(), rel=1e-5)
            assert (y.grad - x.grad).norm() < 1e-3 * x.grad.norm()
    assert hr.grad is None
    assert lr.grad is None
    sr, hr, lr = (image.bfloat16() for image in (sr, hr, lr))
    for half, single in zip(losses(name, hr, lr), losses(name, hr.float(), lr.float()), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            in_autocast = single(sr.float())
        assert half(sr).dtype == torch.float32
        assert half(sr) == single(sr.float()) == in_autocast


def test_no_second_derivatives(random_weights):
    """create_graph=True would take the gradient for a constant: that is an error, not a wrong number."""
    x = images(1, 16).requires_grad_()
    loss = csd_loss(x, images(1, 16, seed=1), images(1, 8), "vgg16_caffe")
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("name", NAMES)
def test_sha256_is_of_the_weights(name, random_weights, tmp_path, monkeypatch):
    """The same ones in another file, as float32 and with a classifier, have the same checksum; a changed one not."""
    expected = backbone_sha256(name)
    assert len(expected) == 64
    state = torch.load(random_weights / WITHOUT_SUM[name], weights_only=True)
    whole = {key: value.float() for key, value in state.items()} | {"classifier.0.weight": torch.zeros(2, 2)}
    changed = {key: value.clone() for key, value in whole.items()}
    changed["features.0.bias"][0] += 1
    for folder, content in (("whole", whole), ("changed", changed)):
        (tmp_path / folder).mkdir()
        torch.save(content, tmp_path / folder / BACKBONES[name].files[1])
        monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(tmp_path / folder))
        assert (backbone_sha256(name) == expected) == (folder == "whole")


def test_unavailable(tmp_path, monkeypatch):
    """Without a file or a download: the reason, and the way out."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=URLError("no route to host")))
    with pytest.raises(BackboneUnavailable, match=r"PRFFN_WEIGHTS .* vgg16_features_caffe_fp16.pth or .*use vgg19"):
        backbone_sha256("vgg16_caffe")
    with pytest.raises(BackboneUnavailable, match=r"no route to host.*PRFFN_WEIGHTS .* vgg19-dcbb9e9d.pth"):
        perceptual_loss(images(1, 16), images(1, 16), "vgg19")


def test_vgg19_is_downloaded_once(random_weights, tmp_path, monkeypatch):
    """From torchvision's address, under the checksum in its name, into torch's cache."""
    download = Mock(side_effect=lambda url, path, **_: shutil.copy(random_weights / "vgg19_features.pth", path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(backbone_module, "_file_sha256", lambda file: "dcbb9e9d")
    expected = backbone_sha256("vgg19")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(files.WEIGHTS_VARIABLE)
    assert backbone_sha256("vgg19") == backbone_sha256("vgg19") == expected
    download.assert_called_once_with(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", ANY, hash_prefix="dcbb9e9d", progress=False
    )


def test_a_file_of_another_network(random_weights, tmp_path, monkeypatch):
    """What is a convolution in VGG-19 is a pooling in VGG-16. Damaged files: test_faults_damaged.py."""
    shutil.copy(random_weights / "vgg16_features_caffe_fp16.pth", tmp_path / "vgg19_features.pth")
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(tmp_path))
    with pytest.raises(BackboneUnavailable, match=r"vgg19_features.pth is not a state dict .*features\.16\.weight"):
        backbone_sha256("vgg19")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda sr, lr: perceptual_loss(sr, sr, "vgg11"), "vgg19, vgg16_caffe.*'vgg11'"),
        (lambda sr, lr: backbone_sha256("vgg11"), "'vgg11'"),
        (lambda sr, lr: perceptual_loss(sr, lr, "vgg19"), r"\(2, 3, 16, 16\) and \(2, 3, 8, 8\)"),
        (lambda sr, lr: csd_loss(sr, sr, lr[:1], "vgg19"), r"\(1, 3, 8, 8\)"),
    ],
)
def test_bad_arguments(use, message, random_weights):
    with pytest.raises(ValueError, match=message):
        use(images(2, 16), images(2, 8))


@pytest.fixture
def oxford(shared_weights) -> Path:
    if not (shared_weights / "vgg16_features_caffe_fp16.pth").is_file():
        pytest.skip(f"no vgg16_features_caffe_fp16.pth in {shared_weights}")
    return shared_weights


def test_oxford_features_of_a_photo(oxford, photo):
    """The recorded and published weights; all are used, as in torchvision's VGG-16."""
    image = to_tensor(photo[None, 60:108, 180:228])
    expected = written_out("vgg16_caffe", image.double(), oxford)
    for layer, x in features(image, "vgg16_caffe", CSD_WEIGHTS).items():
        assert (x - expected[layer]).abs().max() < 1e-4 * expected[layer].abs().max()
        assert 0.02 < (x > 0).float().mean() < 0.98  # neither dead nor linear
    assert backbone_sha256("vgg16_caffe") == RECORDED_BACKBONES["vgg16_caffe"]
    state = torch.load(oxford / "vgg16_features_caffe_fp16.pth", weights_only=True)
    assert len(state) == 2 * 11
    # as printed in other people's checks of theirs, for the first channel of the input: blue in the Keras network
    published = [0.42947057, 0.373467, -0.061360113, 0.27476987, 0.038680777, -0.36722335, -0.05746817, -0.26224968]
    assert state["features.0.weight"].flatten()[:8].tolist() == pytest.approx(published, rel=1e-3)


def test_oxford_losses_fall_towards_hr(oxford, shared_data):
    """From bicubic patches of Set5 to HR in thirds, both losses fall to 0, and their gradient points there."""
    set5 = image_set("Set5")
    hr = to_tensor(np.stack([image[60:132, 60:132] for image in set5.images[:3]]))
    lr = to_tensor(np.stack([image[20:44, 20:44] for image in lr_images(set5, 3)[:3]]))
    bicubic = F.interpolate(lr, scale_factor=3, mode="bicubic")
    for loss in losses("vgg16_caffe", hr, lr):
        values = [loss(bicubic.lerp(hr, t)).item() for t in (0, 1 / 3, 2 / 3, 1)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == 0
        x = bicubic.clone().requires_grad_()
        loss(x).backward()
        assert (x.grad * (hr - bicubic)).sum() < 0
