"""Trained networks from files: the authors' checkpoints under their own names, ours, and what spandrel recognises.

Only tensors are read: torch.load with weights_only, or safetensors. A checkpoint must fit to the last key and shape.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.files import DamagedTensors, from_extra, load_tensors, unknown, whole_number
from prffn.models import NETWORKS, build
from prffn.models.authors import EDSR_RES_SCALE, FORMATS, Format, Shifted, State, told_range
from prffn.models.blocks import div2k_mean
from prffn.models.luma import bicubic
from prffn.models.pretrained import is_ours, load_pretrained

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which training programs put the state dict; the first that is there is taken."""

FAR = 0.01
"""Mean distance from bicubic upscaling on a smooth image, in [0, 1], from which a network is taken to be read wrongly.

Published CARN-M and SMSR are within 0.001, and 0.013 to 0.032 away when read with the wrong value range. An EDSR after
minutes of training is within 0.0099; with the wrong value range or residual scale 7 of 8 were from 0.0102 on away, one
0.0052 (measured).
"""

CHECKPOINT_MAGIC = b"PRFFN-CHECKPOINT-1\n"
"""The first bytes of a training's checkpoint, which holds more than weights: see training/loop.py."""


class UnusableCheckpoint(ValueError):
    """A file holds no weights of a network that can be built here; the message says why, and the way out."""


def load_network(
    path: Path | str,
    name: str | None = None,
    scale: int | None = None,
    *,
    rgb_range: float | None = None,
    res_scale: float | None = None,
) -> nn.Module:
    """A trained network, in evaluation mode: (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].

    path: a state dict in PyTorch's format or in safetensors, bare or within {"params": ...}, {"state_dict": ...} and
        the like, with or without "module." before each key. Under the names of the authors of CARN, CARN-M, SMSR,
        MSRN, AWSRN, OISR, SeaNet, EDSR, RCAN or SwinIR-light; of any network of NETWORKS under ours; or any RGB
        network for super-resolution that spandrel knows. What `save_pretrained` wrote is checked against its sums.
    name, scale: what it should be; needed only where the file does not tell (a CARN for all scales, for instance).
    rgb_range, res_scale: settings of the authors' training programs, the brightest value of the input and EDSR's factor
        on the residuals. The file's shift of the mean RGB tells the first, the two published sizes of EDSR imply the
        second; where the file does not tell, the error asks for the argument.
    Warns where a smooth image comes out far from its bicubic upscaling: the network is untrained, or not read rightly.
    Raises FileNotFoundError, UnusableCheckpoint or DamagedWeights if the file holds no such network, is damaged, or
    holds anything else than tensors, ValueError for an unknown name, or another argument of no possible value.
    """
    path = Path(path)
    if name is not None and name not in NETWORKS:
        raise ValueError(unknown("network", name, NETWORKS))
    scale = None if scale is None else whole_number("scale", scale)
    for setting, value in {"rgb_range": rgb_range, "res_scale": res_scale}.items():
        if value is not None and (isinstance(value, bool | str) or not 0 < value < math.inf):
            raise ValueError(f"{setting} must be a number above 0, such as 1, got {value!r}")
    model, found = _recognise(path, name, scale, rgb_range, res_scale)
    if name is not None and found != name:
        raise UnusableCheckpoint(f"{path} holds {found}, not {name}")
    if scale is not None and model.scale != scale:
        raise UnusableCheckpoint(f"{path} holds {found} for x{model.scale}, not x{scale}")
    model.eval()
    if not is_ours(path) and not (distance := _distance_from_bicubic(model)) <= FAR:
        far = f"{path}, read as {found} x{model.scale}, makes a smooth image that is {distance:.3f} off the bicubic one"
        warnings.warn(f"{far}: it is not trained, or its rgb_range or res_scale is another", stacklevel=2)
    return model


def _distance_from_bicubic(model: nn.Module) -> float:
    """The mean absolute one in [0, 1], away from the border, of a smooth image of 16 x 16 pixels."""
    ramp = torch.linspace(0.2, 0.8, 16)
    lr = torch.stack((ramp.expand(16, 16), ramp[:, None].expand(16, 16), ramp.flip(0).expand(16, 16)))[None]
    scale = int(model.scale)  # type: ignore[arg-type]
    with torch.no_grad():
        difference = model(lr) - bicubic(lr, scale)
    border = 4 * scale
    return float(difference[..., border:-border, border:-border].abs().mean())


def _recognise(
    path: Path, name: str | None, scale: int | None, rgb_range: float | None, res_scale: float | None
) -> tuple[nn.Module, str]:
    """The network of a file and what it is called; of several that fit, the one that is asked for."""
    state = {} if is_ours(path) else read_state(path)
    for form in FORMATS:
        if form.matches(state):
            try:
                model = _from_authors(path, state, form, scale, rgb_range, res_scale)
            except UnusableCheckpoint as misfit:
                try:
                    return _by_spandrel(path, state)  # an RCAN without a shift of the mean, for instance
                except UnusableCheckpoint:
                    raise misfit from None
            return _with_shift(path, model, state, form, rgb_range), form.name
    if rgb_range is not None or res_scale is not None:
        raise UnusableCheckpoint(f"{path} is not under its authors' names: leave out rgb_range and res_scale")
    if is_ours(path):
        return load_pretrained(path), "PRFFN"
    fitting = list(_ours(state))
    asked = [(n, s) for n, s in fitting if name in (None, n) and scale in (None, s)]
    if len(asked) > 1:
        names = " or ".join(f"{n} x{s}" for n, s in asked)
        raise UnusableCheckpoint(f"{path} fits {names}: say which by name= and scale=")
    if fitting:
        ours, size = (asked or fitting)[0]
        model = build(ours, size)
        model.load_state_dict(state)
        return model, ours
    return _by_spandrel(path, state)


def read_state(path: Path) -> State:
    """The tensors of a file by name, in float32 on the CPU, without wrappers; nothing else in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    with path.open("rb") as file:
        if file.read(len(CHECKPOINT_MAGIC)) == CHECKPOINT_MAGIC:
            raise UnusableCheckpoint(f"{path} is of a training run of this kit: trained_model(experiment) loads it")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = load_tensors(path)
    except DamagedTensors as error:
        raise UnusableCheckpoint(str(error)) from error
    except Exception as error:
        raise UnusableCheckpoint(f"{path} is damaged, or no safetensors file ({error}); get it again") from error
    for _ in WRAPPERS:
        inner = next((content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content), None)
        content = inner if isinstance(inner, Mapping) else content
    pairs = content.items() if isinstance(content, Mapping) else ()
    if not pairs or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise UnusableCheckpoint(f"{path} holds no state dict: save the network's state_dict()")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    state = {key: value.float() if value.is_floating_point() else value for key, value in content.items()}
    for key, value in state.items():
        if not bool(value.isfinite().all()):
            raise UnusableCheckpoint(f"{path} has values that are not finite in {key}")
    return state


def _from_authors(
    path: Path, state: State, form: Format, scale: int | None, rgb_range: float | None, res_scale: float | None
) -> nn.Module:
    what = f"{path} looks like {form.name} by its authors"
    if res_scale is not None and form.name != "EDSR":
        raise UnusableCheckpoint(f"{what}, which has no res_scale: leave it out")
    try:
        found, sizes = form.scale(state), form.sizes(state)
        if form.name == "EDSR":
            sizes["residual_scale"] = res_scale or EDSR_RES_SCALE.get((sizes["channels"], sizes["blocks"]))
            if sizes["residual_scale"] is None:
                size = f"{sizes['blocks']} blocks of {sizes['channels']} channels"
                raise ValueError(f"{size} are no published size: say res_scale=, the factor on the residuals")
        if found is None and scale is None:
            raise ValueError("it serves x2, x3 and x4, say which by scale=")
        model = NETWORKS[form.name](found or scale, **sizes)
    except KeyError as error:
        raise UnusableCheckpoint(f"{what}, but has no {error}") from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise UnusableCheckpoint(f"{what}: {error}") from error
    names, wrong = form.names(model.state_dict(), {"scale": found, **sizes}), []
    expected = {names[key]: value.shape for key, value in model.state_dict().items()}
    if shift := _shift_shapes(form, state):
        expected |= shift
    elif form.shift and rgb_range is None:
        wrong.append("no sub_mean and add_mean, which tell the value range (say it by rgb_range=255 or rgb_range=1)")
    wrong += [f"no {key}" for key in expected if key not in state]
    wrong += [f"unexpected {key}" for key in state if key not in expected]
    wrong += [
        f"{key} of {tuple(state[key].shape)} instead of {tuple(shape)}"
        for key, shape in expected.items()
        if key in state and state[key].shape != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UnusableCheckpoint(f"{what}, but does not fit a published size: {', '.join(wrong[:3])}{more}")
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return model


def _shift_shapes(form: Format, state: State) -> dict[str, torch.Size]:
    shapes = {"weight": torch.Size((3, 3, 1, 1)), "bias": torch.Size((3,))}
    keys = {f"{part}{form.shift}{k}": shapes[k] for part in ("sub_mean", "add_mean") for k in shapes if form.shift}
    return keys if keys.keys() & state.keys() else {}


def _with_shift(path: Path, model: nn.Module, state: State, form: Format, rgb_range: float | None) -> nn.Module:
    """The network itself where the file's value range and shift of the mean are its own; else with the file's."""
    mean, keys = div2k_mean().flatten(), list(_shift_shapes(form, state))
    value_range = rgb_range or form.value_range
    maps = [(torch.eye(3), sign * value_range * mean) for sign in (-1, 1)]
    if keys:
        maps = [(state[weight].view(3, 3), state[bias]) for weight, bias in (keys[:2], keys[2:])]
        told = told_range(maps)
        if told is None and rgb_range is None:
            raise UnusableCheckpoint(f"{path} does not tell its value range: say rgb_range=255 or rgb_range=1")
        if told and rgb_range and abs(rgb_range / told - 1) > 0.01:
            raise UnusableCheckpoint(f"{path} has a shift of the mean for rgb_range={told:.4g}, not {rgb_range:.4g}")
        value_range = told or value_range
    plain = abs(value_range / form.value_range - 1) < 1e-3
    for sign, (weight, bias) in zip((-1, 1), maps, strict=True):
        plain &= bool((weight - torch.eye(3)).abs().max() <= 1e-5)
        plain &= bool((bias - sign * form.value_range * mean).abs().max() <= 1e-4 * form.value_range)
    return model if plain else Shifted(model, maps, value_range, form.value_range / value_range)


def _ours(state: State) -> Iterator[tuple[str, int]]:
    """The networks and scales whose weights have these names and shapes."""
    shapes = {key: value.shape for key, value in state.items()}
    for name in NETWORKS:
        if name == "SwinIR-light" and not any(key.startswith("network.layers.") for key in state):
            continue  # spandrel's class cannot be built without memory: only where it may be the one
        for scale in (2, 3, 4):
            if _shapes(name, scale) == shapes:
                yield name, scale


@lru_cache
def _shapes(name: str, scale: int) -> dict[str, torch.Size]:
    with torch.device("cpu" if name == "SwinIR-light" else "meta"):
        return {key: value.shape for key, value in build(name, scale).state_dict().items()}


class Recognised(nn.Module):
    """A network of spandrel's, padded to the sizes that it takes. (N, 3, h, w) -> (N, 3, h * scale, w * scale)."""

    def __init__(self, network: nn.Module, scale: int, padding: Callable[[int, int], tuple[int, int]]) -> None:
        super().__init__()
        self.network, self.scale, self.padding = network, scale, padding

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        right, bottom = self.padding(width, height)
        sr = self.network(F.pad(lr, (0, right, 0, bottom), mode="replicate"))
        return sr[..., : height * self.scale, : width * self.scale]


def _by_spandrel(path: Path, state: State) -> tuple[nn.Module, str]:
    with from_extra("networks"):
        from spandrel import ImageModelDescriptor, ModelLoader  # takes a second: only where needed

    try:
        found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # its look at the keys and shapes of unknown files can fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        keys = ", ".join(list(state)[:3])
        raise UnusableCheckpoint(f"{path} is of no network that is known here: {keys}, ... ({reason})") from error
    if not isinstance(found, ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise UnusableCheckpoint(f"{path} is {found.architecture.name}, which does not make one RGB image of another")
    if found.scale == 1:
        raise UnusableCheckpoint(f"{path} is {found.architecture.name} at scale 1, not for super-resolution")
    model = Recognised(found.model, found.scale, found.size_requirements.get_padding)
    return model, f"a network of the kind {found.architecture.name}"
