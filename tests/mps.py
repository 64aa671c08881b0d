"""A device "mps" for machines without one: its tensors lie on the CPU, and refuse what MPS refuses.

That is: float64, a tensor of the CPU among its own (but for single numbers), and a look by NumPy. Everything else is
granted, whether MPS can do it or not. Code sees the device by its name, as `tensor.device.type`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps")
FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros")


class OnMPS(Tensor):
    """A tensor of the device; `held` has its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnMPS":
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a MPS Tensor to {held.dtype}: the MPS framework doesn't support it")
        with torch.inference_mode(False):  # so that it can be a view of a parameter
            found: OnMPS = Tensor._make_wrapper_subclass(
                cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype
            )
        found.held = held.detach()
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "prffn":  # the kit's own: in Python, with such tensors
            return OPERATORS[function](*args, **(kwargs or {}))
        # to C++ these are the CPU's: `device`, which may come from there, says nothing. Who moves a tensor calls `to`
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "device"}
        copies = function in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and not isinstance(tensor, OnMPS) and tensor.numel() > 1 and not copies:
                raise RuntimeError(f"{function}: a tensor of the CPU among those of mps, {tuple(tensor.shape)}")
        found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not function._schema.returns:
            return None
        if function._schema.arguments and _writes(function._schema.arguments[0]):
            return args[0]
        return tree_map(_put, found)

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.held.clone()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return OnMPS(torch.tensor(data, dtype=dtype or self.dtype))

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first")


OPERATORS: dict[Any, Any] = {}
"""The kit's operators and their Python."""


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnMPS) else value


def _put(value: Any) -> Any:
    return OnMPS(value) if isinstance(value, Tensor) else value


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


@contextmanager
def mps() -> Iterator[None]:
    """While it lasts, torch makes tensors of the device, and moves tensors and networks to and from it."""
    from prffn.losses import streaming

    OPERATORS[torch.ops.prffn.stream.default] = streaming._stream._init_fn
    move, find_quantile = Tensor.to, torch.quantile

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        how = {} if memory_format is None else {"memory_format": memory_format}
        if device is not None and device.type == "mps" and not isinstance(self, OnMPS):
            return OnMPS(move(self.detach(), dtype=dtype or self.dtype, **how).clone())
        if device is None or device.type == "mps":
            return move(self, dtype=dtype or self.dtype, **how)
        return move(_held(self), device=device, dtype=dtype or self.dtype, **how)

    def type_as(self: Tensor, other: Tensor) -> Tensor:
        return to(self, other)

    def quantile(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """PyTorch's own takes float64 on the way, but for a tensor that is on MPS in C++ too."""
        found = find_quantile(_held(values), *args, **kwargs)
        return OnMPS(found) if isinstance(values, OnMPS) else found

    def making(make: Any) -> Any:
        def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if device is None or torch.device(device).type != "mps":
                return make(*args, device=device, **kwargs)
            return OnMPS(make(*args, **kwargs))

        return made

    replaces = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "to", to)
        patch.setattr(Tensor, "type_as", type_as)
        patch.setattr(torch, "quantile", quantile)
        for name in FACTORIES:
            patch.setattr(torch, name, making(getattr(torch, name)))
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(replaces)
