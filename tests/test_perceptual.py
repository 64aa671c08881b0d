"""L_perc and L_CSD: values worked by hand on networks that pass pixels through, gradients, the backbones' weights."""

import itertools
import math
from pathlib import Path
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
from prffn.losses.vgg import BACKBONES, WIDTHS, BackboneUnavailable, backbone_sha256, features

NAMES = ["vgg19", "vgg16_caffe"]
WITHOUT_SUM = {"vgg19": "vgg19_features.pth", "vgg16_caffe": "vgg16_features_caffe_fp16.pth"}
"""Names of files that do not say which checksum these have."""
BUILDERS = {"vgg19": torchvision.models.vgg19, "vgg16_caffe": torchvision.models.vgg16}


def convolutions(name: str):
    """(index in torchvision's `features`, input channels, output channels) of each convolution."""
    channels = 3
    for index, layer in enumerate(BACKBONES[name].layers):
        if layer.startswith("conv"):
            width = WIDTHS[int(layer[4]) - 1]
            yield index, channels, width
            channels = width


def random_state(name: str) -> dict[str, Tensor]:
    """Weights after He et al. (2015), so that features keep their size from layer to layer."""
    g, state = torch.Generator().manual_seed(0), {}
    for index, channels, width in convolutions(name):
        scale = (2 / (9 * channels)) ** 0.5
        state[f"features.{index}.weight"] = scale * torch.randn(width, channels, 3, 3, generator=g)
        state[f"features.{index}.bias"] = 0.1 * torch.randn(width, generator=g)
    return state


def save_random_vgg16(folder: Path) -> Path:
    """Puts VGG-16 of random weights into a folder, as Oxford's in half precision. Returns the folder."""
    state = {name: value.half() for name, value in random_state("vgg16_caffe").items()}
    torch.save(state, folder / BACKBONES["vgg16_caffe"].files[0])
    return folder


def passing_state(name: str) -> dict[str, Tensor]:
    """The first convolution copies the input to channels 0 to 2 and its negative to 3 to 5, later ones copy those."""
    state = {}
    for index, channels, width in convolutions(name):
        weight = torch.zeros(width, channels, 3, 3)
        for n in range(6):
            weight[n, n % channels if channels == 3 else n, 1, 1] = -1 if channels == 3 and n >= 3 else 1
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = weight, torch.zeros(width)
    return state


@pytest.fixture(scope="session")
def weight_files(tmp_path_factory) -> Path:
    """A folder for each kind of weights, "random" and "passing", in the files' own formats."""
    root = tmp_path_factory.mktemp("weights")
    for name, (kind, made) in itertools.product(NAMES, (("random", random_state), ("passing", passing_state))):
        (root / kind).mkdir(exist_ok=True)
        state = made(name)
        if name == "vgg16_caffe":
            state = {key: value.half() for key, value in state.items()}
        torch.save(state, root / kind / WITHOUT_SUM[name])
    return root


@pytest.fixture
def random_weights(weight_files, monkeypatch) -> Path:
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(weight_files / "random"))
    return weight_files / "random"


@pytest.fixture
def passing_weights(weight_files, monkeypatch) -> Path:
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(weight_files / "passing"))
    return weight_files / "passing"


def images(n: int, side: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(*colours: tuple[float, float, float], side: int = 16) -> Tensor:
    """Images of one colour each: (N, 3, side, side)."""
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, side, side)


def torchvision_features(name: str, folder: Path, dtype=torch.float64) -> torch.nn.Sequential:
    """torchvision's own network with the weights of the file."""
    with torch.device("meta"):
        network = BUILDERS[name](weights=None).features[: len(BACKBONES[name].layers)]
    state = torch.load(folder / WITHOUT_SUM[name], weights_only=True)
    state = {key.removeprefix("features."): value.to(dtype) for key, value in state.items()}
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def written_out(name: str, image: Tensor, folder: Path) -> dict[str, Tensor]:
    """All features by torchvision's network, with the normalisation as the weights' authors give it."""
    if name == "vgg19":
        x = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(image)
    else:
        x = 255 * image[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68], dtype=image.dtype).view(3, 1, 1)
    found = {}
    for layer, module in zip(BACKBONES[name].layers, torchvision_features(name, folder, image.dtype), strict=True):
        x = module(x.clone())  # its ReLUs work in place
        found[layer] = x
    return found


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_torchvisions(name):
    """The same kind of layer at each index, with the same channels."""
    with torch.device("meta"):
        modules = list(BUILDERS[name](weights=None).features)
    kinds = {"Conv2d": "conv", "ReLU": "relu", "MaxPool2d": "pool"}
    layers = BACKBONES[name].layers
    assert [layer[:4] for layer in layers] == [kinds[type(module).__name__] for module in modules[: len(layers)]]
    for index, channels, width in convolutions(name):
        assert (modules[index].in_channels, modules[index].out_channels) == (channels, width)
    for layer, index in {"relu1_1": 1, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11}.items():
        assert layers.index(layer) == index
    assert layers.index("relu5_1") == {"vgg19": 29, "vgg16_caffe": 25}[name]
    assert layers[-1] == {"vgg19": "relu5_4", "vgg16_caffe": "relu5_1"}[name]


@pytest.mark.parametrize("name", NAMES)
def test_features_are_torchvisions(name, random_weights):
    """In float64 to rounding, in float32 to its accuracy; asked for together or one by one."""
    image = images(2, 20, dtype=torch.float64)
    expected = written_out(name, image, random_weights)
    layers = ["conv1_2", "relu1_2", "relu2_2", "pool3", "relu5_1", "conv5_1"]
    together = features(image, name, layers)
    assert list(together) == ["conv1_2", "relu1_2", "relu2_2", "pool3", "conv5_1", "relu5_1"]
    for layer in layers:
        assert torch.allclose(together[layer], expected[layer], rtol=1e-9, atol=1e-9)
        assert torch.equal(features(image, name, [layer])[layer], together[layer])
        single = features(image.float(), name, [layer])[layer]
        assert single.dtype == torch.float32
        assert (single - expected[layer]).abs().max() < 1e-4 * expected[layer].abs().max()


def test_caffe_normalisation_by_hand(passing_weights):
    """RGB (1.0, 0.5, 0.2) is BGR 51, 127.5, 255 of 255; less (103.939, 116.779, 123.68): -52.939, 10.721, 131.32. The
    ReLU splits that into positive (channels 0 to 2) and negative parts (3 to 5)."""
    x = features(plain((1.0, 0.5, 0.2)), "vgg16_caffe", ["relu1_1"])["relu1_1"]
    expected = torch.tensor([0, 10.721, 131.32, 52.939, 0, 0])
    assert torch.allclose(x[0, :6], expected.view(6, 1, 1).expand(6, 16, 16), atol=1e-4)
    assert (x[0, 6:] == 0).all()


def test_torchvision_normalisation_by_hand(passing_weights):
    """RGB (1.0, 0.5, 0.2): 0.515 / 0.229 = 2.24891, 0.044 / 0.224 = 0.19643, -0.206 / 0.225 = -0.91556."""
    x = features(plain((1.0, 0.5, 0.2)), "vgg19", ["relu1_1"])["relu1_1"]
    expected = torch.tensor([2.24891, 0.19643, 0, 0, 0, 0.91556])
    assert torch.allclose(x[0, :6], expected.view(6, 1, 1).expand(6, 16, 16), atol=1e-5)


def test_perceptual_loss_by_hand(passing_weights):
    """vgg16_caffe: only blue differs, 0.6 against 0.4 is 49.061 against -1.939: 49.061 in one channel of relu2_2 and
    1.939 in another, out of 128: (49.061^2 + 1.939^2) / 128 = 18.8338. In half of the batch, so half of that."""
    sr, hr = plain((1, 0.5, 0.6), (1, 1, 1)), plain((1, 0.5, 0.4), (1, 1, 1))
    expected = (49.061**2 + 1.939**2) / 128 / 2
    assert perceptual_loss(sr, hr, "vgg16_caffe").item() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(18.8338 / 2, abs=1e-4)


def test_esrgan_convention_by_hand(passing_weights):
    """vgg19, conv5_4: red 0.714 against 0.485 is 1 against 0 standard deviations, in one channel out of 512; the
    positive parts are copied on, so before the last ReLU: 1 / 512."""
    loss = perceptual_loss(plain((0.714, 0.5, 0.5)), plain((0.485, 0.5, 0.5)), "vgg19", convention="esrgan")
    assert loss.item() == pytest.approx(1 / 512, rel=1e-5)


def test_csd_loss_by_hand(passing_weights):
    """Grays above the mean, so all distances are 3 * 255 / C times those of the grays, C channels in each layer, and
    a ratio is free of C. SR 0.6, 0.6; HR 0.7, 0.6; LR 0.8, 0.9. To the positive: (0.1 + 0) / 2 = 0.05; to the first
    negative 0.2 from both, to the second 0.3: 0.05 / 0.5 = 0.1, times 1/32 + 1/16 + 1/8 + 1/4 + 1 = 1.46875.
    With the first negative alone: 0.05 / 0.2 = 0.25."""
    sr, hr = plain((0.6,) * 3, (0.6,) * 3), plain((0.7,) * 3, (0.6,) * 3)
    lr = plain((0.8,) * 3, (0.9,) * 3, side=8)
    assert csd_loss(sr, hr, lr, "vgg16_caffe").item() == pytest.approx(0.1 * 1.46875, rel=1e-5)
    assert csd_loss(sr, hr, lr, "vgg19", negatives=2).item() == pytest.approx(0.1 * 1.46875, rel=1e-5)
    assert csd_loss(sr, hr, lr, "vgg16_caffe", negatives=1).item() == pytest.approx(0.25 * 1.46875, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_csd_loss_written_out(name, random_weights):
    """By the published formula on torchvision's network, the negatives enlarged by torch's bicubic."""
    sr, hr, lr = (images(3, side, seed, torch.float64) for seed, side in enumerate((16, 16, 8)))
    results = []
    for written in (False, True):
        x = sr.clone().requires_grad_()
        if written:
            phi = [written_out(name, image, random_weights) for image in (x, hr)]
            large = F.interpolate(lr, scale_factor=2, mode="bicubic")
            negative = [written_out(name, n[None], random_weights) for n in large[:2]]
            loss = sum(
                weight
                * (phi[0][layer] - phi[1][layer]).abs().mean()
                / (sum((phi[0][layer] - n[layer]).abs().mean() for n in negative) + 1e-7)
                for layer, weight in CSD_WEIGHTS.items()
            )
        else:
            loss = csd_loss(x, hr, lr, name, negatives=2)
        loss.backward()
        results.append((loss.item(), x.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-10)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-7, atol=1e-12)


def losses(name: str, hr: Tensor, lr: Tensor):
    yield lambda x: perceptual_loss(x, hr, name)
    yield lambda x: csd_loss(x, hr, lr, name)
    if name == "vgg19":
        yield lambda x: perceptual_loss(x, hr, name, convention="esrgan")


@pytest.mark.parametrize("name", NAMES)
def test_gradient_against_differences(name, random_weights):
    """In float64, along a random direction, by central differences over a step too small to cross many kinks."""
    sr, hr, lr = (images(2, side, seed, torch.float64).requires_grad_() for seed, side in enumerate((16, 16, 8)))
    direction = images(2, 16, 5, torch.float64) - 0.5
    for loss in losses(name, hr, lr):
        x = sr.detach().clone().requires_grad_()
        loss(x).backward()
        step = 1e-7 * direction
        difference = (loss(sr + step) - loss(sr - step)).item() / 2e-7
        assert (x.grad * direction).sum().item() == pytest.approx(difference, rel=1e-4)
        assert hr.grad is None  # none flows there
        assert lr.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_accurate(name, random_weights):
    """Loss and gradient in float32, in channels_last and in the other format, against float64."""
    sr, hr, lr = (images(2, side, seed) for seed, side in enumerate((24, 24, 8)))
    for single, exact in zip(losses(name, hr, lr), losses(name, hr.double(), lr.double()), strict=True):
        x = sr.double().requires_grad_()
        exact(x).backward()
        for memory_format in (torch.channels_last, torch.contiguous_format):
            y = sr.clone(memory_format=memory_format).requires_grad_()
            loss = single(y)
            loss.backward()
            assert loss.item() == pytest.approx(exact(x).item(), rel=1e-5)
            assert (y.grad - x.grad).norm() < 1e-3 * x.grad.norm()


@pytest.mark.parametrize("name", NAMES)
def test_zero_for_the_perfect_image(name, random_weights):
    hr, lr = images(2, 16), images(2, 8, seed=1)
    for loss in losses(name, hr, lr):
        assert loss(hr.clone()).item() == 0
        assert loss(hr + 0.01).item() > 0


def test_flat_patches_are_finite(random_weights):
    """SR, HR and enlarged LR the same, but for rounding: 0 / (0 + eps), and no gradient is NaN."""
    flat = plain((0.5, 0.5, 0.5)).double()
    x = flat.clone().requires_grad_()
    loss = csd_loss(x, flat, flat[..., :8, :8], "vgg16_caffe")
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert torch.isfinite(x.grad).all()


def test_the_first_patches_are_the_negatives(random_weights):
    sr, hr, lr = images(3, 16), images(3, 16, seed=1), images(3, 8, seed=2)
    expected = csd_loss(sr, hr, lr, "vgg16_caffe", negatives=2)
    third, second = lr.clone(), lr.clone()
    third[2], second[1] = 0, 0
    assert csd_loss(sr, hr, third, "vgg16_caffe", negatives=2) == expected
    assert csd_loss(sr, hr, second, "vgg16_caffe", negatives=2) != expected
    assert csd_loss(sr, hr, lr, "vgg16_caffe", negatives=10) == csd_loss(sr, hr, lr, "vgg16_caffe", negatives=3)


def test_half_precisions_and_autocast(random_weights):
    """Half-precision images are computed in float32, and autocast rounds nothing."""
    sr, hr, lr = (images(2, side, seed).bfloat16() for seed, side in enumerate((16, 16, 8)))
    for half, single in zip(losses("vgg16_caffe", hr, lr), losses("vgg16_caffe", hr.float(), lr.float()), strict=True):
        assert half(sr).dtype == torch.float32
        assert half(sr) == single(sr.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert single(sr.float()) == half(sr)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near(name, random_weights):
    """Its first convolution is exact, the others to bfloat16's 8 bits; features are float32 all the same."""
    image = images(2, 24)
    exact, rounded = (features(image, name, CSD_WEIGHTS, bfloat16=b) for b in (False, True))
    assert torch.equal(exact.pop("relu1_1"), rounded.pop("relu1_1"))
    for layer, x in exact.items():
        assert rounded[layer].dtype == torch.float32
        assert 1e-4 < (rounded[layer] - x).norm() / x.norm() < 0.02


def test_no_second_derivatives(random_weights):
    """create_graph=True would take the gradient for a constant: that is an error, not a wrong number."""
    x = images(1, 16).requires_grad_()
    loss = csd_loss(x, images(1, 16, seed=1), images(1, 8), "vgg16_caffe")
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_no_global_randomness(random_weights):
    backbone_module._weights.cache_clear()
    before = torch.get_rng_state()
    csd_loss(images(2, 16), images(2, 16, seed=1), images(2, 8), "vgg16_caffe").item()
    assert torch.equal(torch.get_rng_state(), before)


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


def no_network(url: str, *args, **kwargs) -> None:
    raise URLError("no route to host")


@pytest.mark.parametrize("use", [backbone_sha256, lambda name: perceptual_loss(images(1, 16), images(1, 16), name)])
def test_unavailable(use, tmp_path, monkeypatch):
    """Without a file or a download: the reason, and the way out."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(BackboneUnavailable, match=r"PRFFN_WEIGHTS .* vgg16_features_caffe_fp16.pth or .*use the"):
        use("vgg16_caffe")
    with pytest.raises(BackboneUnavailable, match=r"no route to host.*PRFFN_WEIGHTS .* vgg19-dcbb9e9d.pth"):
        use("vgg19")


def test_vgg19_is_downloaded_once(random_weights, tmp_path, monkeypatch):
    """From torchvision's address, under the checksum in its name, into torch's cache."""
    asked = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        Path(path).write_bytes((random_weights / "vgg19_features.pth").read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(backbone_module, "_file_sha256", lambda file: "dcbb9e9d")
    expected = backbone_sha256("vgg19")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(files.WEIGHTS_VARIABLE)
    assert backbone_sha256("vgg19") == backbone_sha256("vgg19") == expected
    assert asked == [("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d")]


def test_a_file_of_something_else(random_weights, tmp_path, monkeypatch):
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(tmp_path))
    path = tmp_path / "vgg19_features.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BackboneUnavailable, match="not a state dict of vgg19's features"):
        backbone_sha256("vgg19")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv(files.WEIGHTS_VARIABLE, str(other))
    (other / path.name).write_bytes((random_weights / "vgg16_features_caffe_fp16.pth").read_bytes())
    with pytest.raises(BackboneUnavailable, match=r"features\.16\.weight"):  # a pooling in VGG-16
        backbone_sha256("vgg19")


def test_bad_arguments(random_weights):
    sr, lr = images(2, 16), images(2, 8)
    with pytest.raises(ValueError, match="backbone must be one of vgg19, vgg16_caffe, got 'vgg11'"):
        perceptual_loss(sr, sr, "vgg11")
    with pytest.raises(ValueError, match="got 'vgg11'"):
        backbone_sha256("vgg11")
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 16\) and \(2, 3, 8, 8\)"):
        perceptual_loss(sr, lr, "vgg19")
    with pytest.raises(ValueError, match="convention must be one of johnson, esrgan, got 'gan'"):
        perceptual_loss(sr, sr, "vgg19", convention="gan")
    with pytest.raises(ValueError, match="vgg16_caffe has no layer 'conv5_4'"):
        perceptual_loss(sr, sr, "vgg16_caffe", convention="esrgan")
    with pytest.raises(ValueError, match="relu5_1 needs RGB images .* of 16 pixels or more"):
        csd_loss(lr, lr, lr, "vgg19")
    with pytest.raises(ValueError, match=r"2 patches .* got \(1, 3, 8, 8\)"):
        csd_loss(sr, sr, lr[:1], "vgg19")
    for negatives in (0, 1.0, True):
        with pytest.raises(ValueError, match=f"negatives must be a whole number from 1 on, got {negatives}"):
            csd_loss(sr, sr, lr, "vgg19", negatives=negatives)


@pytest.fixture
def oxford(shared_weights) -> Path:
    if not (shared_weights / "vgg16_features_caffe_fp16.pth").is_file():
        pytest.skip(f"Oxford's VGG-16 is not at hand: no vgg16_features_caffe_fp16.pth in {shared_weights}")
    return shared_weights


def test_oxford_weights_are_the_published_ones(oxford):
    """Weights of Oxford's VGG-16 as printed in other people's checks of theirs, to half precision. The first nine are
    of the first channel of the input, blue in the Keras network that they are taken from."""
    state = torch.load(oxford / "vgg16_features_caffe_fp16.pth", weights_only=True)
    weights = {key.removeprefix("features."): value.float() for key, value in state.items()}
    kernel = [0.42947057, 0.373467, -0.061360113, 0.27476987, 0.038680777, -0.36722335, -0.05746817, -0.26224968,
              -0.35009676, 0.55037946]  # fmt: skip
    bias = [0.73429835, 0.093403675, 0.06775674, 0.8862966, 0.25994542, 0.66426694, -0.015828926, 0.3249065]
    assert torch.allclose(weights["0.weight"].flatten()[:10], torch.tensor(kernel), rtol=1e-3)
    assert torch.allclose(weights["0.bias"][:8], torch.tensor(bias), rtol=1e-3)
    assert weights["0.bias"][25].item() == pytest.approx(0.7446502, rel=1e-3)
    assert weights["2.weight"][63, 63, 2, 2].item() == pytest.approx(0.016082443, rel=1e-3)
    assert weights["5.bias"][1].item() == pytest.approx(0.06440781, rel=1e-3)


def test_oxford_features_of_a_photo(oxford, photo):
    """Every weight of the file is used, and the features are those of torchvision's VGG-16 with these weights."""
    image = to_tensor(photo[None, 60:108, 180:228])
    expected = written_out("vgg16_caffe", image.double(), oxford)
    for layer, x in features(image, "vgg16_caffe", CSD_WEIGHTS).items():
        assert (x - expected[layer]).abs().max() < 1e-4 * expected[layer].abs().max()
        assert 0.02 < (x > 0).float().mean() < 0.98  # neither dead nor linear
    state = torch.load(oxford / "vgg16_features_caffe_fp16.pth", weights_only=True)
    assert len(state) == 2 * len(list(convolutions("vgg16_caffe")))
    assert len(backbone_sha256("vgg16_caffe")) == 64


@pytest.fixture
def patches(shared_data) -> tuple[Tensor, Tensor, Tensor]:
    """HR, LR and bicubic patches of Set5, 72 x 72 and 24 x 24."""
    set5 = image_set("Set5")
    hr = to_tensor(np.stack([image[60:132, 60:132] for image in set5.images[:3]]))
    lr = to_tensor(np.stack([image[20:44, 20:44] for image in lr_images(set5, 3)[:3]]))
    return hr, lr, F.interpolate(lr, scale_factor=3, mode="bicubic")


def test_oxford_losses_fall_towards_hr(oxford, patches):
    """From the bicubic image to HR in thirds, both losses fall all the way to 0, and their gradient points there."""
    hr, lr, bicubic = patches
    for loss in losses("vgg16_caffe", hr, lr):
        values = [loss(bicubic.lerp(hr, t)).item() for t in (0, 1 / 3, 2 / 3, 1)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == 0
        x = bicubic.clone().requires_grad_()
        loss(x).backward()
        assert (x.grad * (hr - bicubic)).sum() < 0


def test_oxford_gradients_in_bfloat16(oxford, patches):
    """As the docstrings say: within 3 degrees for L_perc, 10 for L_CSD, half-way from the bicubic image to HR."""
    hr, lr, bicubic = patches
    functions = {3: lambda x, b: perceptual_loss(x, hr, "vgg16_caffe", bfloat16=b),
                 10: lambda x, b: csd_loss(x, hr, lr, "vgg16_caffe", bfloat16=b)}  # fmt: skip
    for degrees, loss in functions.items():
        gradients = []
        for bfloat16 in (False, True):
            x = bicubic.lerp(hr, 0.5).requires_grad_()
            loss(x, bfloat16).backward()
            gradients.append(x.grad.flatten())
        assert F.cosine_similarity(*gradients, dim=0) > math.cos(math.radians(degrees))
        assert gradients[1].norm().item() == pytest.approx(gradients[0].norm().item(), rel=0.02)
