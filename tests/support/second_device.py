"""A second device that holds numbers and refuses to mix with the CPU, on machines that have no GPU.

Within `second_device` tensors may be made on `DEVICE`, or moved there. Each keeps its values in a tensor of the CPU and
runs PyTorch's kernels of the CPU, so results can be compared with those of the CPU number by number. What CUDA refuses
is refused:

- an operation takes tensors of one device. A tensor of the CPU without dimensions may take part in pointwise operations
  (`x + torch.tensor(2.0)`), and indices of the CPU may read (`x[torch.tensor([0])]`);
- nothing of the device becomes an array of numpy, and no generator of the CPU draws on it.

One thing is refused that CUDA takes: writing at indices of the CPU, since each such index is a copy that waits.
`DEVICE` is PyTorch's "lazy": a build without accelerators has a place for it and gradients pass through it, but nothing
that runs there, so whatever is not caught here fails.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy")

_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default}
"""Operations whose tensors may lie on two devices."""
_TAKES_CPU_INDICES = {_aten.index.Tensor}
"""Operations whose second argument, a list, may lie on the CPU; so may it in the gradient of reading."""
_TAKES_CPU_NUMBER = {
    _aten.masked_fill.Tensor,
    _aten.masked_fill_.Tensor,
    _aten.fill.Tensor,
    _aten.fill_.Tensor,
}
"""Operations whose last argument may be a number on the CPU."""


_SIZE_DEPENDS_ON_NUMBERS = {_aten.nonzero.default, _aten.masked_select.default}
_READS = {_aten._local_scalar_dense.default, _aten.equal.default}
_counters = list[Counter[str]]()


class DeviceTensor(Tensor):
    """A tensor of `DEVICE`; ``held`` has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on {DEVICE}"

    def numpy(self, **_: Any) -> NoReturn:
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy it first."
        )

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **named: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype, **named}).to(DEVICE)

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_with_lists_moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_with_lists_moved(index), value)

    def __format__(self, spec: str) -> str:
        return format(self.cpu(), spec)


def _with_lists_moved(index: Any) -> Any:
    """Return an index with tensors of the device in place of lists and arrays, as CUDA makes them."""
    if isinstance(index, tuple):
        return tuple(map(_with_lists_moved, index))
    return (
        torch.as_tensor(index).to(DEVICE)
        if isinstance(index, list | np.ndarray)
        else index
    )


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Catches what makes tensors on the device from none of it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would wrap every operation once more

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the values of its tensors, and put on the device what belongs there."""
    met = list[Any]()
    held_args = [_held(one, met) for one in args]
    held_kwargs = {name: _held(one, met) for name, one in kwargs.items()}
    on_device = [one for one in met if isinstance(one, DeviceTensor)]
    wanted = kwargs.get("device")
    makes = wanted is not None and torch.device(wanted) == DEVICE
    if not on_device and not makes:
        return func(*args, **kwargs)
    if func not in _MOVES:
        _check(func, args, met)
    if _waits(func, met, makes, wanted):
        for counter in _counters:
            counter[str(func)] += 1
    if makes:
        held_kwargs["device"] = torch.device("cpu")
    if (
        func is _aten._efficientzerotensor.default
    ):  # has no memory, and a wrapper would not show it
        func = _aten.zeros.default
    found = func(*held_args, **held_kwargs)
    writes_away = func in _MOVES and not isinstance(args[0], DeviceTensor)
    if writes_away if wanted is None else not makes:
        return found
    before = {id(one.held): one for one in on_device}
    return _on_device(found, before)


def _waits(func: Any, met: Sequence[Any], makes: bool, wanted: Any) -> bool:
    """Return whether Python waits for a GPU until an operation is done, or copies what it takes to the GPU."""
    if func in _READS | _SIZE_DEPENDS_ON_NUMBERS:
        return True
    strangers = [
        one for one in met if isinstance(one, Tensor) and type(one) is not DeviceTensor
    ]
    if func in _MOVES:
        leaves = wanted is not None and torch.device(wanted) != DEVICE
        return bool(strangers) or leaves
    # An index on the CPU is copied; a single number is handed over with the operation.
    return any(one.dim() for one in strangers)


@contextmanager
def counted_waits() -> Iterator[Counter[str]]:
    """Count the operations within the block at which Python waits for the device, by their names."""
    counter = Counter[str]()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _held(value: Any, met: list[Any]) -> Any:
    """Return a value with the values of tensors in place of tensors; tensors and generators are ``met``."""
    if isinstance(value, list | tuple):
        return [_held(one, met) for one in value]
    if not isinstance(value, Tensor | torch.Generator):
        return value
    met.append(value)
    return value.held if isinstance(value, DeviceTensor) else value


def _on_device(found: Any, before: Mapping[int, DeviceTensor]) -> Any:
    """Return what an operation found with its tensors on the device."""
    if isinstance(found, list | tuple):
        return type(found)(_on_device(one, before) for one in found)
    return _placed(before, found) if isinstance(found, Tensor) else found


def _placed(before: Mapping[int, DeviceTensor], found: Tensor) -> DeviceTensor:
    """Return what an operation found on the device; what was written in place is the tensor that was given."""
    given = before.get(id(found))
    if given is None:
        return DeviceTensor(found)
    if given.shape != found.shape or given.stride() != found.stride():
        raise NotImplementedError(
            "An operation changed the shape of its tensor in place, which this device cannot."
        )
    return given


def _check(func: Any, args: Sequence[Any], met: Sequence[Any]) -> None:
    """Refuse tensors of two devices, where CUDA does."""
    strangers = [one for one in met if not isinstance(one, DeviceTensor)]
    if not strangers:
        return
    for one in strangers:
        if isinstance(one, torch.Generator):
            raise RuntimeError(
                f"Expected a '{DEVICE}' device type for generator but found '{one.device}'."
            )
    home = isinstance(args[0], DeviceTensor)
    numbers_alone = all(one.dim() == 0 for one in strangers)
    is_gradient_of_reading = func is _aten.index_put.default and args[3:4] == (True,)
    if func in _TAKES_CPU_INDICES or is_gradient_of_reading:
        rest = [args[0], *args[2:]]
        fits = not any(
            isinstance(one, Tensor) and not isinstance(one, DeviceTensor)
            for one in rest
        )
    elif func in _TAKES_CPU_NUMBER:
        fits = home and numbers_alone and strangers[0] is args[-1]
    else:
        writes = func._schema.is_mutable
        fits = (
            torch.Tag.pointwise in func.tags and numbers_alone and (home or not writes)
        )
    if not fits:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{DEVICE} and cpu, in {func}."
        )


def _made_there(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that makes tensors of lists on the CPU, then moves them: PyTorch does so below the mode."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device) != DEVICE:
            return make(*args, device=device, **kwargs)
        return make(*args, **kwargs).to(DEVICE)

    return made


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within the block `DEVICE` is there, and autocast, which PyTorch has for no unknown device, may be turned off."""
    autocast: Callable[..., Any] = torch.autocast

    def autocast_there(
        device_type: str, *args: Any, enabled: bool = True, **kwargs: Any
    ) -> Any:
        if device_type != DEVICE.type:
            return autocast(device_type, *args, enabled=enabled, **kwargs)
        if enabled:
            raise NotImplementedError(f"There is no autocast on {DEVICE}.")
        return nullcontext()

    submit = ThreadPoolExecutor.submit

    def submit_there(
        pool: ThreadPoolExecutor,
        function: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        def run() -> Any:
            with _Mode():  # type: ignore[no-untyped-call]  # PyTorch's modes are those of a thread
                return function(*args, **kwargs)

        return submit(pool, run)

    with (
        patch.object(torch, "autocast", autocast_there),
        patch.object(ThreadPoolExecutor, "submit", submit_there),
        patch.object(torch, "tensor", _made_there(torch.tensor)),
        patch.object(torch, "as_tensor", _made_there(torch.as_tensor)),
        _Mode(),  # type: ignore[no-untyped-call]
    ):
        yield DEVICE
