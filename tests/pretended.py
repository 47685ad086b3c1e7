"""A pretended GPU: `cuda:0` on a machine without one, to test where tensors lie and who waits.

Inside `pretended_gpu()` torch says that it has one CUDA device. A tensor there is a `Pretended`:
Python sees `device=cuda:0`, and every operation is computed on the CPU tensor that it holds, so
that real numbers come out. What CUDA refuses is refused in its words: operands on two devices,
`numpy()`, a generator of the CPU, indices on a GPU for what is not. What would make the host wait
for a GPU is counted, by the line that asked.

It shows nothing of kernels, streams, memory and speed. To C++ these are meta tensors, because
autograd insists on a driver for CUDA ones; so what C++ asks for on the meta device belongs here.
"""

# torch's types know no tensors that are made in Python.
# mypy: disable-error-code="assignment, arg-type, override, attr-defined, no-any-return"
# mypy: disable-error-code="call-overload, no-untyped-call"

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPU = torch.device("cuda", 0)
#: Their size or value has to be known to the host.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "histc",
    "_unique", "_unique2", "unique_dim", "unique_consecutive",
}  # fmt: skip
#: Beside what torch tags as pointwise, these take a number that lies on the CPU.
SCALARS_FROM_CPU = {
    "where", "masked_fill", "masked_fill_", "fill", "fill_", "index_fill", "index_fill_",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPYING = {"copy_", "copy", "_to_copy"}
#: Lines of these are not what asked.
_BETWEEN = (str(Path(torch.__file__).parent), __file__, contextlib.__file__, mock.__file__)

_waits: Counter[str] = Counter()
_generator = torch.Generator()


class Pretended(torch.Tensor):
    """A tensor on the pretended GPU; `held` has its values."""

    held: torch.Tensor
    __module__ = "torch.pretended"  # eagerpy goes by it
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        """One that holds this."""
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device="meta",
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on what is held."""
        return _computed(func, args, kwargs or {})

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def _set_data(self, value: Pretended) -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.held = value.held

    data = property(lambda self: torch._C.TensorBase.data.__get__(self), _set_data)

    def get_device(self) -> int:
        """Its number."""
        return 0

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As a tensor on a GPU does; torch's own would find a meta device."""
        dtypes = [torch.empty((), dtype=a.dtype) if isinstance(a, Pretended) else a for a in args]
        copy = kwargs.pop("copy", False)
        with torch._C.DisableTorchFunctionSubclass():
            device, dtype, _, layout = torch._C._nn._parse_to(*dtypes, **kwargs)
        if any(isinstance(a, Pretended) for a in args):
            device = None
        here = device is None or device.type != "cpu"
        dtype = dtype or self.dtype
        ordered = layout is None or self.is_contiguous(memory_format=layout)
        if here and dtype == self.dtype and ordered and not copy:
            return self
        place = torch.device("meta") if here else device
        more = {} if layout is None else {"memory_format": layout}
        return torch._C.TensorBase.to(self, device=place, dtype=dtype, copy=True, **more)

    def cuda(self, *_: Any, **__: Any) -> Pretended:
        """It is there already."""
        return self

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        """On the GPU as well."""
        return torch.tensor(data, **{"dtype": self.dtype, "device": GPU, **kwargs})

    def __getitem__(self, key: Any) -> torch.Tensor:
        return torch._C.TensorBase.__getitem__(self, _as_tensors(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        torch._C.TensorBase.__setitem__(self, _as_tensors(key), value)

    def numpy(self, *, force: bool = False) -> Any:
        """Refused unless it is forced."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """By way of the host."""
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        """Refused."""
        raise RuntimeError("no kernel can read the memory of a pretended GPU")

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held!r})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretended:
        if id(self) not in memo:
            made = Pretended(self.held.clone()).requires_grad_(self.requires_grad)
            made._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = made
        return memo[id(self)]


def _as_tensors(key: Any) -> Any:
    """An index without lists: of one C++ would make a meta tensor, which has no values."""
    if isinstance(key, tuple):
        return tuple(map(_as_tensors, key))
    if isinstance(key, (list, range)):
        return torch.tensor(list(key), dtype=None if len(key) else torch.int64)
    return torch.as_tensor(key) if type(key).__module__ == "numpy" else key


def _wait(kind: str) -> None:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((*_BETWEEN, "<")):
        frame = frame.f_back
    place = Path(frame.f_code.co_filename)
    _waits[f"{place.parent.name}/{place.name}:{frame.f_lineno} {kind}"] += 1


def _two_devices(func: Any) -> RuntimeError:
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
        f"cpu! (in {func})"
    )


def _check_indexing(func: Any, target: Any, indices: Any, values: Any = None, *_: Any) -> None:
    """Indices may lie on the CPU, values may not."""
    given = [index for index in indices if index is not None]
    if not isinstance(target, Pretended):
        if any(isinstance(index, Pretended) for index in given):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
    else:
        single = values is not None and values.dim() == 0
        for index in given:
            if not isinstance(index, Pretended):
                _wait("indices to the GPU")
            if index.dtype is torch.bool and not single:
                _wait("boolean indices")
    one_device = values is None or isinstance(values, Pretended) == isinstance(target, Pretended)
    if not one_device and values.dim() > 0:
        raise _two_devices(func)


def _check(func: Any, name: str, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses, and count what waits."""
    if name in COPYING:
        return
    if name in INDEXING:
        _check_indexing(func, *args)
        return
    numbers = torch.Tag.pointwise in func.tags or name in SCALARS_FROM_CPU
    if any(not isinstance(t, Pretended) and not (numbers and t.dim() == 0) for t in tensors):
        raise _two_devices(func)
    repeated = name == "repeat_interleave" and func._overloadname == "Tensor"
    if name in WAITING or (repeated and not kwargs.get("output_size")):
        _wait(name)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation gives, on the device where it belongs."""
    tensors: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
    name = func._schema.name.partition("::")[2]
    asked = kwargs.get("device")
    there = any(isinstance(t, Pretended) for t in tensors)
    stays = there if asked is None else torch.device(asked).type != "cpu"
    if not there and not stays:
        return func(*args, **kwargs)
    if name in COPYING or name in INDEXING:
        source = args[1] if name in ("copy_", "copy") else args[0]
        if name not in ("_to_copy",):
            stays = isinstance(args[0], Pretended)
        if name in COPYING and isinstance(source, Pretended) != stays:
            _wait("copy to the GPU" if stays else "copy to the host")
    if there:
        _check(func, name, args, kwargs, tensors)
    generator = kwargs.get("generator")
    if generator is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    holders = {id(t.held): t for t in tensors if isinstance(t, Pretended)}
    inner, options = tree_map_only(Pretended, lambda t: t.held, (args, kwargs))
    if asked is not None:
        options["device"] = torch.device("cpu")
    options.pop("pin_memory", None)
    with _own_draws(on=torch.Tag.nondeterministic_seeded in func.tags):
        found = func(*inner, **options)

    def outside(tensor: torch.Tensor) -> torch.Tensor:
        if func._schema.is_mutable and id(tensor) in holders:
            holder = holders[id(tensor)]
            if holder.size() != tensor.size():  # the meta tensor is to be changed alike
                with torch._C._DisableTorchDispatch():
                    func(holder, *args[1:], **kwargs)
            return holder
        return Pretended(tensor) if stays else tensor

    return tree_map_only(torch.Tensor, outside, found)


@contextlib.contextmanager
def _own_draws(*, on: bool) -> Iterator[None]:
    """Draw from the generator of the GPU."""
    if not on:
        yield
        return
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(_generator.get_state())
    try:
        yield
    finally:
        _generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


class _Everywhere(TorchDispatchMode):
    """Also what makes a tensor of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Properties:
    name, major, minor, multi_processor_count = "Pretended GPU", 9, 0, 132
    total_memory = 80 << 30


def _answers() -> dict[str, Callable[..., Any]]:
    """What `torch.cuda` says."""

    def seed(value: int) -> None:
        _generator.manual_seed(value % 2**63)

    return {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: _Properties.name,
        "get_device_properties": lambda device=None: _Properties(),
        "get_device_capability": lambda device=None: (9, 0),
        "synchronize": lambda device=None: _wait("synchronize"),
        "empty_cache": lambda: None,
        "is_bf16_supported": lambda including_emulation=True: True,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda device="cuda": _generator.get_state(),
        "set_rng_state": lambda state, device="cuda": _generator.set_state(state),
        "get_rng_state_all": lambda: [_generator.get_state()],
        "set_rng_state_all": lambda states: _generator.set_state(states[0]),
        "_is_in_bad_fork": lambda: False,
        "is_current_stream_capturing": lambda: False,
        "device": lambda device: contextlib.nullcontext(),
        "device_of": lambda tensor: contextlib.nullcontext(),
    }


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Counter[str]]:
    """Have one CUDA device; yields how often the host would have waited for it, by line."""
    plain = torch.Tensor.to

    def named(value: Any) -> Any:
        """`cuda` by its number: C++ would ask a driver which one is meant."""
        return GPU if isinstance(value, (str, torch.device)) and str(value) == "cuda" else value

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return plain(self, *map(named, args), **{k: named(v) for k, v in kwargs.items()})

    def cuda(self: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return plain(self, GPU)

    lifted = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for name, answer in _answers().items():
            for owner in (torch.cuda, torch.cuda.random):
                if hasattr(owner, name):
                    stack.enter_context(mock.patch.object(owner, name, answer))
        # Optimizers ask its streams whether they are captured.
        silent = mock.patch.object(torch.accelerator, "current_accelerator", return_value=None)
        stack.enter_context(silent)
        stack.enter_context(mock.patch.object(torch.Tensor, "to", to))
        stack.enter_context(mock.patch.object(torch.Tensor, "cuda", cuda))
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        stack.enter_context(_Everywhere())
        _waits.clear()
        _generator.manual_seed(0)
        yield _waits
