"""Modules as people bring them: copied where they can be, frozen without asking what they are."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from bench.errors import PluginWarning
from bench.models.hidden import hidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn


def frozen(module: nn.Module) -> nn.Module:
    """The module itself, in eval mode where it has modes, its parameters without gradients.

    One by one, because TorchScript refuses to do it for all, and exported modules to do it at all;
    and with what it calls and did not register.
    """
    evaluating(_parts(module))
    for parameter in _parameters(module):
        if parameter.requires_grad and not isinstance(parameter, UninitializedTensorMixin):
            parameter.requires_grad_(False)
    return module


def evaluating(parts: Iterable[nn.Module]) -> None:
    """Put modules in eval mode, each for itself, where they have modes."""
    for part in parts:
        if getattr(part, "training", False):
            with contextlib.suppress(NotImplementedError, AttributeError, RuntimeError):
                part.eval()
                continue
            with contextlib.suppress(AttributeError, RuntimeError):
                part.training = False


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module, all below it, and all that it calls besides."""
    return [*module.modules(), *hidden(module)]


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    found = [parameter for part in (module, *hidden(module)) for parameter in part.parameters()]
    return [*{id(parameter): parameter for parameter in found}.values()]


def own_copy(module: nn.Module) -> nn.Module:
    """A copy that shares no weights with the module.

    What the module keeps and cannot be copied (a lock, a writer, an open file) is shared; what
    autograd made (an activation that was kept) is copied as plain numbers. A module that refuses
    to be copied at all is returned itself.
    """
    with torch.no_grad():  # else TorchScript's weights would be results of the copying
        with contextlib.suppress(Exception):
            return copy.deepcopy(module)
        memo = {id(part): _replacement(part) for part in _not_copied(module, set())}
        with contextlib.suppress(Exception):
            return copy.deepcopy(module, memo)
    return module


def shared_parts(module: nn.Module) -> list[str]:
    """The classes of what a copy shares with the module; that of the module where it is lent."""
    with contextlib.suppress(Exception):
        theirs = {id(part) for part in _parts(module)}
        both = [part for part in hidden(copy.deepcopy(module)) if id(part) in theirs]
        below = {id(each) for part in both for each in part.modules() if each is not part}
        return sorted({type(part).__name__ for part in both if id(part) not in below})
    parts = _not_copied(module, set())
    kept = [part for part in parts if _replacement(part) is part]
    return sorted({type(part).__name__ for part in kept})


def _replacement(part: Any) -> Any:
    if isinstance(part, torch.Tensor):
        return part.detach().clone()
    if isinstance(part, torch.Generator):
        return part.clone_state()
    return part


def _not_copied(value: Any, seen: set[int]) -> list[Any]:
    """The smallest parts of something that cannot be copied."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    with contextlib.suppress(Exception):
        copy.deepcopy(value)
        return []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set)):
        parts = list(value)
    elif isinstance(value, torch.Tensor):
        parts = []
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    found = [each for part in parts for each in _not_copied(part, seen)]
    return found or [value]


@contextlib.contextmanager
def lent(module: nn.Module) -> Iterator[nn.Module]:
    """A module of one's own for as long as it is needed; what was passed is left as it was.

    It is a copy, or the module itself where that cannot be copied: then its modes, gradients and
    device are put back. What is shared is said by a warning.
    """
    own = own_copy(module)
    if shared := shared_parts(module):
        what = "itself is" if own is module else f"cannot be copied whole: {', '.join(shared)} is"
        warnings.warn(
            f"the model {what} shared between what is evaluated and what was passed (a network "
            "that is registered in the model, self.net = net, is copied with it)",
            PluginWarning,
            stacklevel=3,
        )
    modes = [(part, getattr(part, "training", False)) for part in _parts(module)]
    gradients = [(tensor, tensor.requires_grad) for tensor in _parameters(module)]
    place = next((tensor.device for _, tensor in module.state_dict().items()
                  if isinstance(tensor, torch.Tensor)), None)  # fmt: skip
    try:
        yield frozen(own)
    finally:
        if own is module and place is not None:
            module.to(place)
        for part, mode in modes:
            if getattr(part, "training", mode) is not mode:
                with contextlib.suppress(AttributeError, RuntimeError):
                    part.training = mode
        for tensor, needs in gradients:
            if tensor.requires_grad is not needs:
                tensor.requires_grad_(needs)
