"""What an attack could leave changed of a model: its weights, its buffers, and what it is made of.

Writing past autograd (`.data`) raises no version of a tensor, and a hook that is forgotten changes
every answer and no weight. So values are summed, and modules and their hooks looked at.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

#: Where modules of torch keep what is called around them.
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_load_state_dict_pre_hooks"),
)


@dataclass(frozen=True)
class Condition:
    """What a module was at a time."""

    weights: tuple[Any, ...]
    """Of each parameter: which tensor it is, how often it was written, and its sum."""
    buffers: tuple[Any, ...]
    """The same of each buffer."""
    modules: tuple[Any, ...]
    """Of each module: which it is, its mode, its hooks, and a `forward` of its own."""

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """As it is now."""
        return cls(
            _told(module.parameters()), _told(module.buffers()), (*map(_part, module.modules()),)
        )

    def changed(self, before: Self) -> set[str]:
        """The fields that differ."""
        names = ("weights", "buffers", "modules")
        return {name for name in names if getattr(self, name) != getattr(before, name)}


def _told(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    given = list(tensors)
    versions = [0 if tensor.is_inference() else tensor._version for tensor in given]
    sums = [total for tensor in given if (total := _sum(tensor)) is not None]
    together = torch.stack(sums).view(torch.int64).tolist() if sums else []  # NaN equals itself
    return ([*map(id, given)], versions, together)


@torch.no_grad()
def _sum(tensor: Tensor) -> Tensor | None:
    """In float64 on the tensor's device; None of what has no values to add."""
    with contextlib.suppress(RuntimeError, NotImplementedError):
        values = torch.view_as_real(tensor) if tensor.is_complex() else tensor.detach()
        total = values.sum(dtype=torch.float64)
        return None if total.is_meta else total
    return None


def _part(module: nn.Module) -> tuple[Any, ...]:
    # TorchScript makes another object of a part each time it is asked.
    which = type(module) if isinstance(module, torch.jit.ScriptModule) else id(module)
    own = vars(module)
    hooks = tuple(tuple(own.get(name) or ()) for name in _HOOKS)
    return which, bool(own.get("training")), hooks, id(own.get("forward"))
