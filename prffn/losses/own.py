"""A loss of your own: a function of (sr, hr) in a Python file that you name, such as "my_file.py:my_loss".

The file is executed because you have named it, here and in the processes that train; the kit executes no file that it
comes upon. What it executes is the source whose checksum the settings hold: a changed file is another loss, with runs
of its own. Files that yours imports have no part in the checksum.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from prffn.files import checkout, in_one_line, unknown, user_path

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of sr and hr, (N, 3, H, W), RGB in [0, 1]: a scalar, the mean over the N images."""

FORM = 'a file and a function in it, such as "my_file.py:my_loss"'


def locate(name: str) -> str:
    """The same loss with its file's absolute path, looked for in the current folder, then in the checkout.

    Raises ValueError for a name of another form, FileNotFoundError if there is no such file.
    """
    file, _, function = name.rpartition(":")
    if not file or not function.isidentifier():
        raise ValueError(f"loss must name {FORM}, got {name!r}")
    for path in (user_path(file), checkout() / file):
        if os.path.isfile(path):
            return f"{path.resolve()}:{function}"
    raise FileNotFoundError(f"loss {name!r}: no such file in {Path.cwd()}: give its path from there, or the whole path")


def short_name(name: str) -> str:
    """A loss by its file's own name, as it stands in records, which name no folder of the machine they were made on."""
    file, _, function = name.rpartition(":")
    return f"{Path(file).name}:{function}" if file else name


def source_sha256(name: str) -> str:
    """SHA-256 of the source of a loss's file, whatever ends its lines. Raises ValueError if it is not UTF-8 text."""
    return hashlib.sha256(_source(name).encode()).hexdigest()


def _source(name: str) -> str:
    try:
        return Path(name.rpartition(":")[0]).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"loss {name!r}: its file is not Python source in UTF-8 ({error})") from error


@lru_cache(maxsize=32)
def own_loss(name: str, sha256: str) -> Loss:
    """The function, from its file, which is executed once a process.

    name: see `locate`. sha256: of the source, see `source_sha256`.
    Raises FileNotFoundError if the file is not there; ValueError if its source is another one by now, or stops with an
    error, or defines no such function.
    """
    file, _, function = name.rpartition(":")
    source = _source(name)
    if hashlib.sha256(source.encode()).hexdigest() != sha256:
        raise ValueError(f"{file} has changed since its loss was named: name it again (a notebook: run all its cells)")
    module = ModuleType(f"own_loss_{sha256[:8]}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # where dataclasses look for their module
    try:
        exec(compile(source, file, "exec"), vars(module))
    except Exception as error:
        raise ValueError(f"loss {name!r}: its file stops with {in_one_line(error)}") from error
    functions = {name: value for name, value in vars(module).items() if callable(value)}
    if function not in functions:
        raise ValueError(f"loss {name!r}: {unknown('function', function, functions)}")
    return functions[function]


def check_loss(
    loss: Loss, size: tuple[int, int] = (48, 48), *, name: str = "the loss", device: torch.device | str = "cpu"
) -> None:
    """Tries a loss on small made-up batches of what a training meets. Raises ValueError: what it gave, and the way out.

    size: height and width of the HR patches. name: what messages call the loss. The batches are in the memory format
    channels_last, as those of the short profiles.
    """
    for case, x, hr in _batches(size, torch.device(device)):
        x.requires_grad_()
        sr = x.clone(memory_format=torch.preserve_format)  # in trainings the output of a network
        before = sr.detach().clone(), hr.clone()
        value = _value(loss, sr, hr, f"{name} of {case}")
        if not (torch.equal(sr, before[0]) and torch.equal(hr, before[1])):
            raise ValueError(f"{name} changes sr or hr, which others use too: write x = x - y in the place of x -= y")
        gradient = _gradient(value, sr, name)
        if not gradient.isfinite().all():
            found = f"the gradient of {name} of {case} is not finite, though its value is {value.item():.4g}"
            raise ValueError(f"{found}: add a small number, as in (x.square() + 1e-6).sqrt()")
        if case == DIFFERENT:
            if not gradient.any():
                raise ValueError(f"the gradient of {name} of {case} is zero everywhere: it teaches a network nothing")
            again = _value(loss, before[0], hr, name)
            if not torch.allclose(value, again, rtol=1e-5):
                found = f"{name} gives {value.item():.4g} and then {again.item():.4g} for the same images"
                raise ValueError(f"{found}, so no run could be repeated: seed a torch.Generator at each call")


DIFFERENT = "images that differ"


def _batches(size: tuple[int, int], device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is tried, sr and hr, (3, 3, H, W) each."""
    generator = torch.Generator().manual_seed(0)
    hr, noise = (torch.rand(3, 3, *size, generator=generator) for _ in range(2))
    hr, noise = (image.to(device, memory_format=torch.channels_last) for image in (hr, noise))
    sr = (hr + 0.2 * (noise - 0.5)).clamp(0, 1)
    yield DIFFERENT, sr, hr
    yield "an sr that leaves [0, 1] a little, as a network's does", hr + 0.2 * (noise - 0.5), hr
    same, dark = sr.clone(), hr.clone()
    dark[0] = same[0] = 0
    same[1, :, :, : size[1] // 2] = dark[1, :, :, : size[1] // 2]
    yield "an sr that equals hr in places, some of them black", same, dark


def _value(loss: Loss, sr: Tensor, hr: Tensor, what: str) -> Tensor:
    """What the loss gives. Raises ValueError if that is not a finite scalar."""
    try:
        value = loss(sr, hr)
    except Exception as error:
        raise ValueError(f"{what}, each of shape {tuple(sr.shape)}, stops with {in_one_line(error)}") from error
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is {value!r}, not a tensor: compute it by torch alone, without .item() or NumPy")
    if value.ndim or not value.is_floating_point():
        raise ValueError(f"{what} is {value.dtype} of shape {tuple(value.shape)}: return a scalar, such as its .mean()")
    if not value.isfinite():
        raise ValueError(f"{what} is {value.item()}: keep roots, logarithms and divisions away from 0")
    return value


def _gradient(value: Tensor, sr: Tensor, name: str) -> Tensor:
    """The gradient in sr. Raises ValueError if there is none."""
    gradient = torch.autograd.grad(value, sr, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise ValueError(f"{name} has no gradient in sr: nothing between them may .detach(), round, or leave torch")
    return gradient
