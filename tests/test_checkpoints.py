"""Checkpoints: the authors' own files if PRFFN_TEST_FILES has them, else their names and shapes; and every bad file."""

import itertools
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, generator
from oracles import share_computed
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from prffn.__main__ import main
from prffn.data.images import image_set, lr_images
from prffn.data.patches import to_tensor
from prffn.evaluation.metrics import evaluate
from prffn.evaluation.tiling import upscale
from prffn.files import load_tensors
from prffn.models import build
from prffn.models.authors import Shifted
from prffn.models.blocks import DIV2K_MEAN
from prffn.models.comparison import REMARKS
from prffn.models.complexity import multi_adds
from prffn.models.edsr import EDSR
from prffn.models.table8.smsr import SMSR
from prffn.models.weights import CHECKPOINT_MAGIC, Recognised, UnusableCheckpoint, load_network

pytestmark = pytest.mark.filterwarnings("ignore:.*makes a smooth image")  # most networks here are not trained


def checkpoint(name: str) -> Path:
    path = SHARED / "weights" / name
    if not path.is_file():
        pytest.skip(f"no authors' checkpoint {path} (set PRFFN_TEST_FILES)")
    return path


@pytest.mark.parametrize(("scale", "psnr"), [(2, 37.68), (3, 34.06), (4, 31.89)])
def test_carn_m_on_set5(shared_data, scale, psnr):
    """Measured of the authors' file by the same protocol with their own code (they publish 37.53 / 33.99 / 31.92)."""
    found = evaluate(checkpoint("carn_m.pth"), "Set5", scale=scale)
    assert len(found.psnr_y) == len(found.ssim_y) == 5
    assert found.mean_psnr() == pytest.approx(psnr, abs=0.01)


def test_smsr_on_set5(shared_data):
    """Published: 38.00 dB, and 41 % of the multi-adds saved on average over larger images; here the five of Set5."""
    model = load_network(checkpoint("smsr_x2.pt"))
    assert isinstance(model, SMSR)
    assert evaluate(model, "Set5").mean_psnr() == pytest.approx(37.995, abs=0.01)
    shares = [share_computed(model, to_tensor(lr[None])) for lr in lr_images(image_set("Set5"), 2)]
    masked = 230_400 * 5 * (4 * 9 * 64 * 64 + 4 * 64 * 64)  # multi-adds of the convs that are masked
    saved = masked / multi_adds(model, 2) * (1 - np.mean(shares))
    assert f"{saved:.0%}".replace("%", " %") in REMARKS["SMSR"]


# The authors' names and shapes, written down from their published code, apart from the tables of the kit.

Shapes = dict[str, tuple[int, ...]]


def conv(key: str, out: int, into: int, kernel: int = 3, bias: bool = True) -> Shapes:
    return {f"{key}.weight": (out, into, kernel, kernel)} | ({f"{key}.bias": (out,)} if bias else {})


SHIFT = conv("sub_mean", 3, 3, 1) | conv("add_mean", 3, 3, 1)


def normed(key: str, out: int, into: int, kernel: int = 3) -> Shapes:
    return {f"{key}.bias": (out,), f"{key}.weight_g": (out, 1, 1, 1), f"{key}.weight_v": (out, into, kernel, kernel)}


def joined(*parts: Shapes) -> Shapes:
    return {key: shape for part in parts for key, shape in part.items()}


def upsampler(key: str, scale: int, channels: int = 64, step: int = 2, groups: int = 1) -> Shapes:
    into = channels // groups
    if scale == 3:
        return conv(f"{key}.0", 9 * channels, into)
    return joined(*[conv(f"{key}.{step * n}", 4 * channels, into) for n in range(scale // 2)])


def frame(scale: int, channels: int, blocks: int) -> Shapes:
    """What EDSR, OISR and RCAN share."""
    return joined(
        SHIFT, conv("head.0", channels, 3), conv(f"body.{blocks}", channels, channels),
        upsampler("tail.0", scale, channels), conv("tail.1", 3, channels),
    )  # fmt: skip


def edsr(scale: int, channels: int = 64, blocks: int = 16) -> Shapes:
    body = [conv(f"body.{n}.body.{k}", channels, channels) for n in range(blocks) for k in (0, 2)]
    return frame(scale, channels, blocks) | joined(*body)


def rcan(scale: int, channels: int = 64, groups: int = 10, blocks: int = 20, hidden: int = 4) -> Shapes:
    shapes = frame(scale, channels, groups)
    for g in range(groups):
        for b in range(blocks):
            key = f"body.{g}.body.{b}.body"
            shapes |= joined(conv(f"{key}.0", channels, channels), conv(f"{key}.2", channels, channels))
            shapes |= conv(f"{key}.3.conv_du.0", hidden, channels, 1) | conv(f"{key}.3.conv_du.2", channels, hidden, 1)
        shapes |= conv(f"body.{g}.body.{blocks}", channels, channels)
    return shapes


def oisr(scale: int, scales: int) -> Shapes:
    shapes = frame(scale, 122, 8)
    for n, k in itertools.product(range(8), (1, 2, 3, 4)):
        shapes |= conv(f"body.{n}.conv{k}", 122, 122) | {f"body.{n}.relu{k}.weight": (122,)}
        shapes |= {f"body.{n}.scale{k}": (1,)} if k <= scales else {}
    return shapes


def msrb(key: str) -> Shapes:
    return joined(
        conv(f"{key}.conv_3_1", 64, 64), conv(f"{key}.conv_3_2", 128, 128), conv(f"{key}.conv_5_1", 64, 64, 5),
        conv(f"{key}.conv_5_2", 128, 128, 5), conv(f"{key}.confusion", 64, 256, 1),
    )  # fmt: skip


def multi_scale(scale: int, blocks: int, prefix: str = "") -> Shapes:
    return joined(
        conv(f"{prefix}head.0", 64, 3), *[msrb(f"{prefix}body.{n}") for n in range(blocks)],
        conv(f"{prefix}tail.0", 64, 64 * (blocks + 1), 1), conv(f"{prefix}tail.1", 64, 64),
        upsampler(f"{prefix}tail.2", scale), conv(f"{prefix}tail.3", 3, 64),
    )  # fmt: skip


def msrn(scale: int) -> Shapes:
    return SHIFT | multi_scale(scale, 8)


def seanet(scale: int) -> Shapes:
    return joined(
        SHIFT, multi_scale(scale, 5, "edge.0.Edge_Net_"),
        conv("lff.0.LLF_head.0", 64, 3), *[conv(f"lff.0.LLF_body.{n}", 64, 64) for n in range(5)],
        upsampler("lff.0.LLF_tail.0", scale), conv("lff.0.LLF_tail.1", 3, 64), conv("fushion.0", 64, 6, 1),
        conv("net.0.Net_head.0", 64, 64), conv("net.0.Net_tail.0", 3, 64),
        *[conv(f"net.0.Net_body.{n}.body.{k}", 64, 64) for n in range(40) for k in (0, 2)],
    )  # fmt: skip


def awsrn(scale: int) -> Shapes:
    shapes = joined(normed("head.0", 32, 3), normed("skip.0", 3 * scale**2, 3))
    for kernel in (3, 5, 7, 9):
        shapes |= normed(f"tail.tail_k{kernel}", 3 * scale**2, 32, kernel) | {f"tail.scale_k{kernel}.scale": (1,)}
    for n in range(4):
        shapes |= normed(f"body.{n}.reduction", 32, 128)
        for key in (f"body.{n}", *[f"body.{n}.b{k}" for k in range(4)]):
            shapes |= {f"{key}.res_scale.scale": (1,), f"{key}.x_scale.scale": (1,)}
            if ".b" in key:
                shapes |= joined(normed(f"{key}.body.0", 128, 32), normed(f"{key}.body.2", 32, 128))
    return shapes


def smsr(scale: int) -> Shapes:
    shapes = joined(
        SHIFT, conv("head.0", 64, 3), conv("head.2", 64, 64), conv("collect.0", 64, 320, 1),
        conv("collect.2", 64, 64), conv("tail.0", 3 * scale**2, 64),
    )  # fmt: skip
    for n in range(5):
        shapes |= joined(conv(f"body.{n}.spa_mask.0", 16, 64), conv(f"body.{n}.spa_mask.3", 16, 16))
        shapes |= {f"body.{n}.spa_mask.5.weight": (16, 2, 3, 3), f"body.{n}.spa_mask.5.bias": (2,)}
        shapes |= {f"body.{n}.body.ch_mask": (1, 64, 4, 2)} | conv(f"body.{n}.body.collect", 64, 256, 1)
        shapes |= joined(*[conv(f"body.{n}.body.body.{k}", 64, 64, bias=False) for k in range(4)])
        shapes |= joined(conv(f"body.{n}.ca.conv_du.0", 4, 64, 1), conv(f"body.{n}.ca.conv_du.2", 64, 4, 1))
    return shapes


def carn(groups: int, scales: tuple[int, ...] = (2, 3, 4), single: bool = False) -> Shapes:
    """groups: 1 for CARN; CARN-M has 4, a single block in each cascade, and a 1x1 conv in it."""
    shapes = joined(conv("sub_mean.shifter", 3, 3, 1), conv("add_mean.shifter", 3, 3, 1))
    shapes |= joined(conv("entry", 64, 3), conv("exit", 3, 64))
    for i in (1, 2, 3):
        shapes |= joined(*[conv(f"{key}c{j}.body.0", 64, 64 * (j + 1), 1) for key in ("", f"b{i}.") for j in (1, 2, 3)])
        for j in (1, 2, 3) if groups == 1 else (1,):
            shapes |= joined(*[conv(f"b{i}.b{j}.body.{k}", 64, 64 // groups) for k in (0, 2)])
            shapes |= conv(f"b{i}.b{j}.body.4", 64, 64, 1) if groups > 1 else {}
    for scale in scales:
        key = "upsample.up" if single else f"upsample.up{scale}"
        shapes |= upsampler(f"{key}.body", scale, step=3, groups=groups)
    return shapes


def drawn(shapes: Shapes, value_range: float = 255.0) -> dict[str, Tensor]:
    """A state dict of these names with random weights, and the fixed shift of the mean RGB."""
    noise = generator()
    state = {}
    for key, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 9 * 64
        state[key] = (torch.rand(shape, generator=noise) * 2 - 1) * fan_in**-0.5
        if key.endswith("weight_g"):
            state[key] = state[key].abs()
    for sign, part in ((-1, "sub_mean"), (1, "add_mean")):
        weight = next((key for key in state if re.fullmatch(rf"{part}(\.shifter)?\.weight", key)), None)
        if weight:
            state[weight] = torch.eye(3).view(3, 3, 1, 1)
            state[weight.replace("weight", "bias")] = sign * value_range * torch.tensor(DIV2K_MEAN)
    return state


AUTHORS = {
    "EDSR": edsr, "RCAN": rcan, "MSRN": msrn, "SeaNet": seanet, "AWSRN": awsrn, "SMSR": smsr,
    "OISR-RK2": lambda scale: oisr(scale, 1), "OISR-LF": lambda scale: oisr(scale, 4),
    "CARN": lambda _: carn(1), "CARN-M": lambda _: carn(4), "CARN x1": lambda scale: carn(1, (scale,), single=True),
}  # fmt: skip


@pytest.mark.parametrize("name", list(AUTHORS))
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_state_dict_of_the_authors_names_fits_to_the_last_key(tmp_path, name, scale):
    """Every weight of theirs is found in the network, each once, and the network has no other."""
    state = drawn(AUTHORS[name](scale), 1.0 if "CARN" in name else 255.0)
    torch.save(state, tmp_path / "model.pt")
    model = load_network(tmp_path / "model.pt", scale=scale if name in ("CARN", "CARN-M") else None)
    assert model.scale == scale
    assert not model.training
    loaded = sorted(float(value.double().sum()) for value in model.state_dict().values())
    theirs = sorted(float(value.double().sum()) for key, value in state.items() if "_mean" not in key)
    assert loaded == pytest.approx(theirs)


def residual(x: Tensor, state: dict[str, Tensor], key: str, res_scale: float) -> Tensor:
    y = nn.functional.conv2d(x, state[f"{key}.0.weight"], state[f"{key}.0.bias"], padding=1).relu()
    return x + res_scale * nn.functional.conv2d(y, state[f"{key}.2.weight"], state[f"{key}.2.bias"], padding=1)


@pytest.mark.parametrize(
    ("size", "rgb_range", "res_scale", "said"),
    [
        ((64, 16), 255.0, 1.0, {}), ((64, 16), 1.0, 1.0, {}), ((64, 16), 20.0, 1.0, {"rgb_range": 20}),
        ((64, 16), 255.0, 0.1, {"res_scale": 0.1}), ((8, 3), 1.0, 0.1, {"res_scale": 0.1, "rgb_range": 1}),
    ],
)  # fmt: skip
def test_edsr_by_its_authors_names_computes_what_they_do(tmp_path, size, rgb_range, res_scale, said):
    """Their forward pass written out on their names: RGB up to rgb_range, the shifts as convolutions."""
    state = drawn(edsr(2, *size), rgb_range)
    torch.save(state, tmp_path / "edsr.pt")
    lr = torch.rand(1, 3, 9, 8, generator=generator(1))

    def layer(x: Tensor, key: str) -> Tensor:
        weight = state[f"{key}.weight"]
        return nn.functional.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    head = layer(layer(rgb_range * lr, "sub_mean"), "head.0")
    x = head
    for n in range(size[1]):
        x = residual(x, state, f"body.{n}.body", res_scale)
    x = nn.functional.pixel_shuffle(layer(layer(x, f"body.{size[1]}") + head, "tail.0.0"), 2)
    expected = layer(layer(x, "tail.1"), "add_mean") / rgb_range
    with torch.no_grad():
        assert torch.allclose(load_network(tmp_path / "edsr.pt", **said)(lr), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in AUTHORS if name not in ("AWSRN", "CARN x1")])
@pytest.mark.parametrize("rgb_range", [1.0, 255.0])
@pytest.mark.parametrize("how", ["told by the shift", "said"])
def test_the_value_range_of_every_format(tmp_path, name, rgb_range, how):
    """f = own * (network - mean) is what lies between the shifts: the file's network is f(v (x - mean)) / v + mean."""
    shapes = rcan(2, channels=16, groups=2, blocks=3) if name == "RCAN" else AUTHORS[name](2)  # its own size is slow
    own, scale = 1.0 if "CARN" in name else 255.0, 2
    lr, mean = torch.rand(1, 3, 8, 8, generator=generator(1)), torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
    state, path = drawn(shapes, own), tmp_path / "model.pt"
    torch.save(state, path)
    network = load_network(path, scale=scale)
    assert not isinstance(network, Shifted)
    said = {} if how == "told by the shift" else {"rgb_range": rgb_range}
    state = drawn(shapes, rgb_range)
    torch.save({k: v for k, v in state.items() if not said or "_mean" not in k}, path)
    with torch.no_grad():
        expected = own * (network(rgb_range * (lr - mean) / own + mean) - mean) / rgb_range + mean
        assert torch.allclose(load_network(path, scale=scale, **said)(lr), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0, math.nan, True, "255"])
@pytest.mark.parametrize("setting", ["rgb_range", "res_scale"])
def test_settings_are_numbers(tmp_path, setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be a number above 0, such as 1, got {value!r}"):
        load_network(tmp_path / "model.pt", **{setting: value})


def test_a_network_that_is_read_wrongly_is_warned_of(tmp_path):
    """An SMSR whose last conv is zero gives the bicubic image; CARN-M's weights do at their own value range only."""
    state, path = drawn(smsr(2)), tmp_path / "model.pt"
    torch.save(state | {key: 0 * state[key] for key in ("tail.0.weight", "tail.0.bias")}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(path)
    torch.save(state, path)
    with pytest.warns(UserWarning, match=r"model.pt, read as SMSR x2, makes a smooth image that is .* its rgb_range"):
        load_network(path)
    torch.save(without(torch.load(checkpoint("carn_m.pth"), map_location="cpu", weights_only=True), "_mean"), path)
    with pytest.warns(UserWarning, match=r"model.pt, read as CARN-M x3, makes a smooth image that is 0\.0"):
        load_network(path, scale=3, rgb_range=255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(path, scale=3, rgb_range=1)


def test_upscale_takes_the_settings(tmp_path, photo):
    torch.save(drawn(edsr(2, 8, 3)), tmp_path / "edsr.pt")
    Image.fromarray(photo[:20, :24]).save(tmp_path / "photo.png")
    command = ["upscale", str(tmp_path / "photo.png"), "--device", "cpu", "--res-scale", "0.5", "--rgb-range", "255"]
    assert main(command) == 1  # they are settings of --weights
    assert main([*command, "--weights", str(tmp_path / "edsr.pt")]) == 0
    expected = upscale(load_network(tmp_path / "edsr.pt", res_scale=0.5), photo[:20, :24], scale=2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "photo_x2.png")), expected)


def test_rcan_computes_what_spandrels_does(tmp_path):
    """The same file by another implementation, which takes the value range to be 255 for all files."""
    from spandrel import ModelLoader

    torch.save(drawn(rcan(2, channels=16, groups=2, blocks=3)), tmp_path / "rcan.pth")
    lr = torch.rand(1, 3, 9, 8, generator=generator(1))
    theirs = ModelLoader().load_from_file(tmp_path / "rcan.pth").model.eval()
    with torch.no_grad():
        assert torch.allclose(load_network(tmp_path / "rcan.pth")(lr), theirs(lr), atol=1e-5)


def test_the_large_edsr_has_its_residual_scale(tmp_path):
    """Its size is in the shapes; the residual scale of 0.1 goes with 32 blocks of 256 channels."""
    zeros = {key: torch.zeros(1).expand(shape) for key, shape in edsr(2, 256, 32).items()}
    torch.save(zeros | drawn(SHIFT), tmp_path / "e.pt")
    model = load_network(tmp_path / "e.pt")
    assert isinstance(model, EDSR)
    assert [block.residual_scale for block in model.blocks] == 32 * [0.1]


def test_a_trained_shift_of_the_mean_is_kept(tmp_path):
    """Some authors' fixed layers were trained along: the file's affine maps then stand around the network."""
    state = drawn(edsr(2))
    torch.save(state, tmp_path / "fixed.pt")
    state["sub_mean.weight"] = state["sub_mean.weight"] + 0.1 * torch.rand(3, 3, 1, 1, generator=generator(2))
    state["sub_mean.bias"] = state["sub_mean.bias"] + 3
    state["add_mean.bias"] = state["add_mean.bias"] - 5
    torch.save(state, tmp_path / "trained.pt")
    fixed, trained = load_network(tmp_path / "fixed.pt"), load_network(tmp_path / "trained.pt")
    assert isinstance(fixed, EDSR)
    assert isinstance(trained, Shifted)
    assert trained.scale == 2
    lr = torch.rand(1, 3, 6, 7, generator=generator(1))
    x = nn.functional.conv2d(255 * lr, state["sub_mean.weight"], state["sub_mean.bias"])
    with torch.no_grad():
        expected = fixed(x / 255 + fixed.mean) - fixed.mean + state["add_mean.bias"].view(1, 3, 1, 1) / 255
        assert torch.allclose(trained(lr), expected, atol=1e-4)


def test_swinir_light_under_its_authors_names(tmp_path):
    """spandrel's layers have the authors' names; their files wrap them in {"params": ...}."""
    model = build("SwinIR-light", 2, generator=generator()).eval()
    theirs = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    assert "layers.0.residual_group.blocks.1.attn_mask" in theirs
    torch.save({"params": theirs}, tmp_path / "swinir.pth")
    loaded = load_network(tmp_path / "swinir.pth", "SwinIR-light")
    lr = torch.rand(1, 3, 9, 8, generator=generator(1))
    with torch.no_grad():
        assert torch.equal(loaded(lr), model(lr))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrap", ["bare", "params", "state_dict", "module", "half"])
def test_wrappers(tmp_path, wrap, suffix):
    model = build("SMSR", 3, generator=generator()).eval()
    state = {f"module.{key}" if wrap == "module" else key: value for key, value in model.state_dict().items()}
    if wrap == "half":
        state = {key: value.half() for key, value in state.items()}
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":  # holds tensors only
        save_file(state, path)
    else:
        torch.save({wrap: state, "epoch": 3} if wrap in ("params", "state_dict") else state, path)
    loaded = load_network(path)
    assert loaded.scale == 3
    for key, value in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key], value, atol=1e-3 if wrap == "half" else 0)


@pytest.mark.parametrize("name", ["FSRCNN", "TSAN", "PRFFN", "SwinIR-light"])
def test_our_own_state_dicts(tmp_path, name):
    model = build(name, 4, generator=generator()).eval()
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    lr = torch.rand(1, 3, 8, 8, generator=generator(1))
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "ours.pt", scale=4)(lr), model(lr))


def test_what_spandrel_recognises(tmp_path):
    """An RCAN of another size than the published, under the authors' names, and a SwinIR that is not the light one."""
    from spandrel.architectures.SwinIR import SwinIR

    model = SwinIR(upscale=2, window_size=8, depths=[2], num_heads=[2], embed_dim=12, upsampler="pixelshuffle").eval()
    torch.save({"params_ema": model.state_dict()}, tmp_path / "classical.pth")
    loaded = load_network(tmp_path / "classical.pth")
    assert isinstance(loaded, Recognised)
    assert loaded.scale == 2
    lr = torch.rand(1, 3, 17, 19, generator=generator(1))
    with torch.no_grad():
        assert loaded(lr).shape == (1, 3, 34, 38)
        whole = torch.rand(1, 3, 16, 24, generator=generator(2))
        assert torch.allclose(loaded(whole), model(whole))
    with pytest.raises(UnusableCheckpoint, match="holds a network of the kind SwinIR, not EDSR"):
        load_network(tmp_path / "classical.pth", "EDSR")


def without(state: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    """The state without the keys that contain one of these."""
    return {key: value for key, value in state.items() if not any(part in key for part in keys)}


def edsr_like(**changed: Tensor) -> dict[str, Tensor]:
    return drawn(edsr(2)) | {key.replace("__", "."): value for key, value in changed.items()}


ZERO = torch.zeros(3)
ASK_RANGE = r"no sub_mean and add_mean.* rgb_range=255 or rgb_range=1"
REFUSED = {  # what is in the file, the arguments, the error
    "blocks": (lambda: drawn(edsr(2, 64, 15)), {}, "15 blocks of 64 channels are no published size.* say res_scale="),
    "EDSR without shift": (lambda: without(drawn(edsr(2)), "_mean"), {}, ASK_RANGE),
    "CARN without shift": (lambda: without(drawn(carn(1)), "_mean"), {"scale": 2}, ASK_RANGE),
    "no shift": (lambda: edsr_like(sub_mean__bias=ZERO, add_mean__bias=ZERO), {}, "say rgb_range=255"),
    "half a shift": (lambda: without(drawn(edsr(2)), "add_mean.bias"), {}, r"no add_mean\.bias"),
    "another shift": (lambda: drawn(edsr(2), 1.0), {"rgb_range": 255}, "a shift of the mean for rgb_range=1, not 255"),
    "no residuals": (lambda: drawn(msrn(2)), {"res_scale": 0.1}, "MSRN by its authors, which has no res_scale"),
    "ours": (lambda: build("EDSR", 2).state_dict(), {"rgb_range": 1}, "authors' names: leave out rgb_range"),
    "all scales": (lambda: drawn(carn(1), 1.0), {}, "serves x2, x3 and x4, say which by scale="),
    "missing": (lambda: without(drawn(edsr(2)), "y.3.body.2.bias"), {}, r"like EDSR .* no body\.3\.body\.2\.bias"),
    "unexpected": (lambda: edsr_like(extra__weight=torch.zeros(1)), {}, r"unexpected extra\.weight"),
    "shape": (lambda: edsr_like(tail__1__bias=torch.zeros(4)), {}, r"tail\.1\.bias of \(4,\) instead of \(3,\)"),
    "no scale": (lambda: without(drawn(edsr(2)), "tail.0.0.weight"), {}, r"has no 'tail\.0\.0\.weight'"),
    "name": (lambda: drawn(edsr(2)), {"name": "RCAN"}, "holds EDSR, not RCAN"),
    "scale": (lambda: drawn(edsr(2)), {"scale": 3}, "holds EDSR for x2, not x3"),
    "our name": (lambda: build("CARN-M", 2).state_dict(), {"name": "EDSR"}, "holds CARN-M, not EDSR"),
    "which scale": (lambda: build("FSRCNN", 4).state_dict(), {}, "fits FSRCNN x2 or FSRCNN x3 or FSRCNN x4: say which"),
    "pickled": (lambda: nn.Conv2d(3, 3, 1), {}, "whole pickled network, or is damaged.*save its state_dict"),
    "unknown": (lambda: {"layer.weight": torch.zeros(3)}, {}, "of no network that is known here.* layer.weight"),
    "a number": (lambda: {"epoch": 3}, {}, "holds no state dict"),
    "a list": (lambda: [torch.zeros(3)], {}, "holds no state dict"),
    "not finite": (lambda: {"layer.weight": torch.tensor([1.0, math.nan])}, {}, r"not finite in layer\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_refused(tmp_path, case):
    content, settings, message = REFUSED[case]
    torch.save(content(), tmp_path / "model.pt")
    with pytest.raises(UnusableCheckpoint, match=rf"model\.pt .*{message}"):
        load_network(tmp_path / "model.pt", **settings)


def test_other_files_are_refused(tmp_path):
    """Damaged ones: test_faults_damaged.py."""
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_network(tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(CHECKPOINT_MAGIC + bytes(40))
    with pytest.raises(UnusableCheckpoint, match="a training run of this kit.*trained_model"):
        load_network(tmp_path / "model.pth")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        load_tensors(tmp_path)
    with pytest.raises(ValueError, match="unknown network 'ESDR'"):
        load_network(tmp_path / "model.pth", "ESDR")


@pytest.mark.parametrize("odd", [torch.zeros(()), torch.zeros(3), torch.zeros(0, 0, 0, 0)], ids=str)
def test_odd_tensors_under_known_names_are_refused(tmp_path, odd):
    for keys in (edsr(2), rcan(2), carn(1), awsrn(2), {"conv_first.weight": (), "layers.0.x": ()}):
        torch.save(dict.fromkeys(keys, odd), tmp_path / "model.pth")
        with pytest.raises(UnusableCheckpoint, match="model.pth"):
            load_network(tmp_path / "model.pth")


def test_evaluate_takes_a_checkpoint_and_the_networks_own_scale(tmp_path, photo_folder):
    model = build("CARN-M", 3, generator=generator())
    torch.save(model.state_dict(), tmp_path / "carn_m.pt")
    by_path = evaluate(tmp_path / "carn_m.pt", str(photo_folder), scale=3)
    assert by_path == evaluate(str(tmp_path / "carn_m.pt"), str(photo_folder), scale=3)
    assert by_path == evaluate(model, str(photo_folder))
    with pytest.raises(ValueError, match="evaluate needs scale="):
        evaluate(lambda lr: lr, str(photo_folder))
