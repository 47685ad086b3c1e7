"""How a module likes to be asked, where it does not take float32 batches of any size.

Modules in half or double precision get their own dtype, and exported ones their own batch size.
Convolutions on a CPU get images in channels_last, for which its kernels are faster, where the
module takes them. Whatever else a module refuses becomes one line that says what it was given.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from bench.errors import ModelError, is_out_of_memory
from bench.models.outputs import joined, kept
from bench.record.provenance import layout_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

#: By the name that runs note.
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
#: Batch sizes that a module may have been exported for; all of those that a first question has.
SIZES = (*range(1, 65), 96, 100, 128, 200, 256, 512)


@dataclass(frozen=True)
class Manner:
    """How a module is asked; what it is given is always a copy."""

    dtype: torch.dtype = torch.float32
    """What the inputs are cast to."""
    size: int | None = None
    """The one batch size that it takes; None for any."""
    layout: torch.memory_format = torch.contiguous_format
    """How what it gets lies in memory: the shape is (N, C, H, W) in any case."""

    @classmethod
    def at_first(cls, module: nn.Module, device: torch.device) -> Self:
        """How a module is asked before anything is known of it."""
        if any(isinstance(each, torch.nn.Conv2d) for each in module.modules()):
            return cls(layout=LAYOUTS[layout_on(device.type)])
        return cls()

    def ask(self, module: nn.Module, x: Tensor) -> Any:
        """What a module returns for a copy of x, float32 (N, C, H, W).

        Where it takes one batch size, x is cut into such parts and the last one filled up with
        repetitions of its last row, whose answers are left out.
        """
        if self.size is None:
            if x.dtype is self.dtype:  # half the time of `to`, which a small network notices
                return module(x.clone(memory_format=self.layout))
            return module(x.to(self.dtype, copy=True, memory_format=self.layout))
        answers = []
        for part in torch.split(x, self.size):
            filled = torch.cat([part, part[-1:].expand(self.size - len(part), *part.shape[1:])])
            answers.append(kept(module(filled.to(self.dtype, copy=True))))
        return joined(answers, self.size, len(x))


def first_answer(module: nn.Module, x: Tensor, batch_size: int | None = None) -> Any:
    """What a module returns for a batch, asked for the first time.

    Args:
        module: on the device of x.
        x: float32, (N, C, H, W).
        batch_size: see `manner_of`.

    Raises:
        ModelError: there is no way to ask it.
    """
    with torch.no_grad():
        try:
            return Manner().ask(module, x)
        except Exception as error:  # noqa: BLE001 - anybody's module may raise anything
            return manner_of(module, x, error, batch_size).ask(module, x)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of a module's first floating weights; float32 where there are none."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def manner_of(
    module: nn.Module, x: Tensor, error: Exception, batch_size: int | None = None
) -> Manner:
    """Find out how a module can be asked that raised an error for x.

    Args:
        module: that was asked.
        x: float32, (N, C, H, W).
        error: what it raised.
        batch_size: one that is tried as well where it takes one size alone.

    Raises:
        ModelError: no way was found; it says what the module was given, and what it would take.
    """
    x = x.detach()
    dtypes = dict.fromkeys((torch.float32, dtype_of(module)))
    for dtype in dtypes:
        if _answers(lambda dtype=dtype: module(x.to(dtype, copy=True))):  # type: ignore[misc]
            return Manner(dtype)
    given = (
        f"the model cannot be asked: given {x.dtype} of shape {tuple(x.shape)} it raised "
        f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    )
    for dtype in dtypes:
        for what, how, other in _layouts(x.to(dtype)):
            if _answers(lambda other=other: module(other.clone())):  # type: ignore[misc]
                raise ModelError(f"{given}; it takes {what}: {how}") from error
    for dtype in dtypes:
        sizes = _sizes(module, x, dtype, (*((batch_size,) if batch_size else ()), *SIZES))
        if len(sizes) == 1:
            return Manner(dtype, sizes[0])
        if sizes:
            raise ModelError(
                f"the model cannot answer {_images(len(x))}, and answers batches of "
                f"{sizes[0]} or {sizes[1]} ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); {_about_sizes(module, x, dtype, sizes)}"
            ) from error
    if elsewhere := _elsewhere(module, x):
        raise ModelError(
            f"{given}; it keeps {elsewhere}, and is asked on {x.device}, where its parameters and "
            "buffers are: call self.register_buffer(name, tensor) for what is to go with them"
        ) from error
    if batch_size is None:
        given += "; where it takes batches of one size alone, give that as batch_size=…"
    if dtype_of(module) in (torch.float16, torch.bfloat16):
        given += f"; its weights are {dtype_of(module)}: call .float() on it"
    raise ModelError(f"{given}{_about_double(module, x)}") from error


def _elsewhere(module: nn.Module, x: Tensor) -> str:
    """Tensors that a module keeps by itself on another device than x; empty where there are none.

    `nn.Module.to` takes along what is registered, and no other attribute.
    """
    places = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            values = value if isinstance(value, (list, tuple)) else [value]
            for tensor in values:
                if isinstance(tensor, torch.Tensor) and tensor.device != x.device:
                    places[f"{prefix}.{name}".lstrip(".")] = str(tensor.device)
    named = [f"{name} on {place}" for name, place in places.items()]
    return ", ".join(named[:3]) + (", …" if len(named) > 3 else "")


def _about_double(module: nn.Module, x: Tensor) -> str:
    """What to do about float64 weights beside tensors of the default dtype; empty elsewhere."""
    if dtype_of(module) is not torch.float64:
        return ""
    try:
        with torch.no_grad():
            module(x.double())
    except Exception as error:  # noqa: BLE001 - anybody's module may raise anything
        said = " ".join(str(error).split())[:200]
        if {"double", "float"} <= set(re.findall(r"\w+", said.lower())):
            return (
                f"; given torch.float64, as its weights are, it raised {said!r}: the default dtype "
                "is float32 here: call .float() on it, or give dtype=x.dtype to what it makes"
            )
    return ""


def _images(rows: int) -> str:
    return "a single image" if rows == 1 else f"a batch of {rows} images"


def _answers(ask: Callable[[], Any]) -> bool:
    """Whether something answers at all."""
    with torch.no_grad(), contextlib.suppress(Exception):
        ask()
        return True
    return False


def _about_sizes(module: nn.Module, x: Tensor, dtype: torch.dtype, answered: list[int]) -> str:
    """What to do about a module that answers batches of several sizes, and not that of x."""
    if 1 in answered and len(x) > 1:
        smaller = (size for size in reversed(SIZES) if size < len(x))
        largest = (*_sizes(module, x, dtype, smaller), 1)[0]
        return f"give batch_size={largest} (on the command line --batch-size {largest})"
    own = "every image has to have an answer of its own"
    if len(x) == 1 and _sizes(module, x, dtype, (2, 3)) == [2, 3]:
        return f"{own}: batch normalisation has to use its running statistics"
    return f"{own}, alone and in a batch of any size"


def _sizes(module: nn.Module, x: Tensor, dtype: torch.dtype, tried: Iterable[int]) -> list[int]:
    """The first batch sizes of some that a module answers, two at most."""
    found: list[int] = []
    for size in dict.fromkeys(tried):
        batch = x[:1].expand(size, *x.shape[1:]).to(dtype, copy=True).contiguous()
        try:
            with torch.no_grad():
                output = module(batch)
        except Exception as error:  # noqa: BLE001 - anybody's module may raise anything
            if is_out_of_memory(error):
                break
            continue
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else (size,)
        if shape[:1] == (size,) or (size == 1 and len(shape) < 2):  # or squeezed
            found.append(size)
        if len(found) == 2:
            break
    return found


def _layouts(x: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Other forms in which images are given: what it is, what to do about it, and x so."""
    yield (
        "(N, H, W, C)",
        "put `x = x.permute(0, 2, 3, 1)` first in its forward",
        x.permute(0, 2, 3, 1).contiguous(),
    )
    if x.shape[1] == 1:
        yield (
            "three channels",
            "put `x = x.expand(-1, 3, -1, -1)` first in its forward",
            x.expand(-1, 3, -1, -1).contiguous(),
        )
        yield "(N, H, W)", "put `x = x.squeeze(1)` first in its forward", x[:, 0].clone()
    if x.shape[1] == 3:
        yield (
            "one channel",
            "put `x = x.mean(dim=1, keepdim=True)` first in its forward",
            x.mean(dim=1, keepdim=True),
        )
    yield "flat rows", "put `x = x.flatten(1)` first in its forward", x.flatten(1)
    for side in (28, 32, 64, 96, 224, 227, 299):
        if x.shape[2:] != (side, side):
            yield (
                f"images of {side} × {side}",
                "resize first in its forward (`torch.nn.functional.interpolate`)",
                torch.nn.functional.interpolate(x, size=(side, side)),
            )
