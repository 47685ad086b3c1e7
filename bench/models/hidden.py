"""Networks that a module calls without having registered them.

One in a list, in a closure, behind a bound method, or a global variable of a notebook: torch puts
none of these in eval mode, moves or freezes them.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many things are looked at, and how far from the module.
MOST, DEEPEST = 20_000, 12
#: Whose functions are not looked into, by the first part of their modules' names.
_LIBRARIES = frozenset({"bench", "numpy", "timm", "torch", "torchvision", "transformers"})
_PLAIN = (str, bytes, int, float, complex, type(None), torch.Tensor, type, types.ModuleType)


def hidden(module: nn.Module) -> list[nn.Module]:
    """The modules that a module may call and `modules()` does not list, in the order found."""
    seen: dict[int, Any] = {}  # what is kept cannot give its id to another
    registered = {id(part) for part in module.modules()}
    found: list[nn.Module] = []
    waiting: list[tuple[Any, int]] = [(part, 0) for part in module.modules()]
    while waiting and len(seen) < MOST:
        value, depth = waiting.pop()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module) and id(value) not in registered:
            found.append(value)
        if depth < DEEPEST:
            with contextlib.suppress(Exception):  # anybody's object may refuse to be looked at
                waiting += [(each, depth + 1) for each in itertools.islice(_within(value), MOST)]
    return found


def _within(value: Any) -> Iterator[Any]:
    """What something leads to."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif isinstance(value, types.FunctionType):
        yield from _called(value)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    else:
        yield from getattr(value, "__dict__", {}).values()
        for each in type(value).__mro__:
            yield from (f for f in vars(each).values() if isinstance(f, types.FunctionType))


def _called(function: types.FunctionType) -> Iterator[Any]:
    """What a function refers to: by its closure, its defaults, and the global names it loads."""
    if (function.__module__ or "").partition(".")[0] in _LIBRARIES:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from (function.__defaults__, function.__kwdefaults__)
    for name in _global_names(function.__code__):
        yield function.__globals__.get(name)


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The names that some code, and what is defined in it, loads as globals."""
    inside = (_global_names(each) for each in code.co_consts if isinstance(each, types.CodeType))
    own = (each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL")
    return tuple(dict.fromkeys(itertools.chain(own, *inside)))
