"""Trained networks from files: the authors' checkpoints under their own names, ours, and what spandrel recognises.

Only tensors are read: torch.load with weights_only, or safetensors. A checkpoint must fit to the last key and shape.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prffn.models import NETWORKS, build
from prffn.models.authors import FORMATS, Format, State
from prffn.models.blocks import DIV2K_MEAN
from prffn.pretrained import is_ours, load_pretrained
from prffn.tensors import DamagedTensors, load_tensors
from prffn.training import CHECKPOINT_MAGIC

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which training programs put the state dict; the first that is there is taken."""


class UnusableCheckpoint(ValueError):
    """A file holds no weights of a network that can be built here; the message says why, and the way out."""


def load_network(path: Path | str, name: str | None = None, scale: int | None = None) -> nn.Module:
    """A trained network, in evaluation mode: (N, 3, h, w) -> (N, 3, h * scale, w * scale), RGB in [0, 1].

    path: a state dict in PyTorch's format or in safetensors, bare or within {"params": ...}, {"state_dict": ...} and
        the like, with or without "module." before each key. Under the names of the authors of CARN, CARN-M, SMSR,
        MSRN, AWSRN, OISR, SeaNet, EDSR, RCAN or SwinIR-light; of any network of NETWORKS under ours; or any RGB
        network for super-resolution that spandrel knows. What `save_pretrained` wrote is checked against its sums.
    name, scale: what it should be; needed only where the file does not tell (a CARN for all scales, for instance).
    Value range and mean RGB are the file's; `scale` of the network is set. Raises FileNotFoundError, UnusableCheckpoint
    or DamagedWeights if the file holds no such network, is damaged, or holds anything else than tensors, ValueError
    for an unknown name.
    """
    path = Path(path)
    model: nn.Module
    if name is not None and name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; the networks are {', '.join(NETWORKS)}")
    if is_ours(path):
        model, found = load_pretrained(path), "PRFFN"
    else:
        model, found = _recognise(path, read_state(path), name, scale)
    if name is not None and found != name:
        raise UnusableCheckpoint(f"{path} holds {found}, not {name}")
    if scale is not None and model.scale != scale:
        raise UnusableCheckpoint(f"{path} holds {found} for x{model.scale}, not x{scale}")
    return model.eval()


def _recognise(path: Path, state: State, name: str | None, scale: int | None) -> tuple[nn.Module, str]:
    """The network of a state dict and what it is called; of several that fit, the one that is asked for."""
    for theirs in FORMATS:
        if FORMATS[theirs].matches(state):
            try:
                return _from_authors(path, state, theirs, scale), theirs
            except UnusableCheckpoint as misfit:
                try:
                    return _by_spandrel(path, state)  # an RCAN of another size, for instance
                except UnusableCheckpoint:
                    raise misfit from None
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
            raise UnusableCheckpoint(
                f"{path} is of a training run of this kit: runs.trained_model(experiment) loads it"
            )
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
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UnusableCheckpoint(f"{path} holds no state dict: save the network's state_dict()")
    if all(str(key).startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    for key, value in content.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UnusableCheckpoint(f"{path} has values that are not finite in {key}")
    return {key: value.float() if value.is_floating_point() else value for key, value in content.items()}


def _from_authors(path: Path, state: State, name: str, scale: int | None) -> nn.Module:
    form = FORMATS[name]
    try:
        model = form.build(state, scale)
    except KeyError as error:
        raise UnusableCheckpoint(f"{path} looks like {name} by its authors, but has no {error}") from error
    except ValueError as error:
        raise UnusableCheckpoint(f"{path} looks like {name} by its authors: {error}") from error
    names = dict(form.names(state))
    expected = model.state_dict()
    shifts = {key for key in state if form.shift and key.startswith((f"sub_mean{form.shift}", f"add_mean{form.shift}"))}
    wrong = [f"no {names.get(key, key)}" for key in expected if names.get(key, key) not in state]
    wrong += [f"unexpected {key}" for key in state if key not in {*names.values(), *shifts}]
    wrong += [
        f"{theirs} of {tuple(state[theirs].shape)} instead of {tuple(expected[ours].shape)}"
        for ours, theirs in names.items()
        if theirs in state and ours in expected and state[theirs].shape != expected[ours].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UnusableCheckpoint(
            f"{path} looks like {name} by its authors, but does not fit: {', '.join(wrong[:3])}{more}. Only the "
            "published sizes are known; for another network build it yourself and call its load_state_dict()"
        )
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return _with_shift(model, state, form) if shifts else model


class Shifted(nn.Module):
    """A network whose subtraction and addition of the mean RGB were trained along with it, as affine maps of RGB.

    Some authors' code meant to keep these layers fixed, and did not. (N, 3, h, w) -> (N, 3, h * scale, w * scale).
    """

    mean: Tensor
    sub_weight: Tensor
    sub_bias: Tensor
    add_weight: Tensor
    add_bias: Tensor

    def __init__(self, network: nn.Module, maps: list[tuple[Tensor, Tensor]], value_range: float) -> None:
        super().__init__()
        self.network, self.scale, self.value_range = network, network.scale, value_range
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1))
        for part, (weight, bias) in zip(("sub", "add"), maps, strict=True):
            self.register_buffer(f"{part}_weight", weight.view(3, 3))
            self.register_buffer(f"{part}_bias", bias.view(1, 3, 1, 1))

    def forward(self, lr: Tensor) -> Tensor:
        shifted = torch.einsum("ij,njhw->nihw", self.sub_weight, lr) + self.sub_bias / self.value_range
        sr = self.network(shifted + self.mean) - self.mean  # the network subtracts the mean and adds it again
        return torch.einsum("ij,njhw->nihw", self.add_weight, sr) + self.add_bias / self.value_range


def _with_shift(model: nn.Module, state: State, form: Format) -> nn.Module:
    """The network itself where the file's shift is the mean of DIV2K, which it has already; else with the file's."""
    maps = [(state[f"{part}{form.shift}weight"], state[f"{part}{form.shift}bias"]) for part in ("sub_mean", "add_mean")]
    for sign, (weight, bias) in zip((-1, 1), maps, strict=True):
        fixed = sign * form.value_range * torch.tensor(DIV2K_MEAN)
        if (weight.view(3, 3) - torch.eye(3)).abs().max() > 1e-5 or (
            bias - fixed
        ).abs().max() > 1e-4 * form.value_range:
            return Shifted(model, maps, form.value_range)
    return model


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
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError  # takes a second: only where needed

    try:
        found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except (UnsupportedModelError, RuntimeError, KeyError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnusableCheckpoint(
            f"{path} is of no network that is known here, its first keys are {', '.join(list(state)[:3])} ({reason}). "
            f"Known are the authors' files of {', '.join(FORMATS)}, ours of {', '.join(NETWORKS)}, and spandrel's"
        ) from error
    if not isinstance(found, ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise UnusableCheckpoint(f"{path} is {found.architecture.name}, which does not make one RGB image of another")
    if found.scale == 1:
        raise UnusableCheckpoint(f"{path} is {found.architecture.name} at scale 1, not for super-resolution")
    model = Recognised(found.model, found.scale, found.size_requirements.get_padding)
    return model, f"a network of the kind {found.architecture.name}"
