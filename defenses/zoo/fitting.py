"""From the names in somebody's file of weights to those of a module."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

#: Keys under which a file may hold its state_dict.
_WRAPPERS = ("state_dict", "model", "net", "last")
#: Prefixes that wrappers of modules leave, in the order in which they are nested.
_PREFIXES = ("module.", "model.")
#: Buffers that an architecture sets itself: constants of the standardisation, and a counter that
#: only training reads.
_CONSTANTS = frozenset({"mu", "sigma", "mean", "std", "num_batches_tracked"})


def unwrap(content: Any) -> Any:
    """The `state_dict` in what a file holds."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return unwrap(content[key])
    return content


def fit(content: Any, module: nn.Module, *, ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A `state_dict` for a module from one whose names differ by a prefix.

    Constants that the module sets itself are taken from it where the file has none. Everything
    else has to be there.

    Args:
        content: what a file of weights holds.
        module: with the names that are wanted.
        ignored: beginnings and endings of names that the file may have beyond those of the module.

    Raises:
        CheckpointError: the file holds no `state_dict`.
    """
    state = unwrap(content)
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"a file of weights has to hold a state_dict, names to tensors; got "
            f"{type(state).__name__}"
        )
    wanted = {name for name, _ in module.named_parameters()}
    for candidate in _spellings(dict(state), module):
        if wanted <= candidate.keys():
            return _completed(candidate, module, ignored)
    return dict(state)  # loading it tells what is missing


def _spellings(state: dict[str, Tensor], module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The same tensors under the names that other wrappers would give them."""
    bare = [state]
    for prefix in _PREFIXES:
        bare.append({name.removeprefix(prefix): tensor for name, tensor in bare[-1].items()})
    for names in bare:
        yield names
        yield {f"model.{name}": tensor for name, tensor in names.items()}
    for names in bare:
        renamed = _renamed(names, module)
        yield renamed
        yield {f"model.{name}": tensor for name, tensor in renamed.items()}


def _renamed(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """By the filter that timm keeps beside an architecture, for names of its older versions."""
    import torch

    inner = getattr(module, "model", module)
    rename = getattr(sys.modules.get(type(inner).__module__), "checkpoint_filter_fn", None)
    if rename is None or not isinstance(inner, torch.nn.Module):
        return state
    try:
        return dict(rename(dict(state), inner))
    except Exception:  # noqa: BLE001 - not names that it knows
        return state


def _completed(
    state: dict[str, Tensor], module: nn.Module, ignored: tuple[str, ...]
) -> dict[str, Tensor]:
    own = module.state_dict()
    constants = {name: t for name, t in own.items() if name.rpartition(".")[2] in _CONSTANTS}
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name in own or not (name.startswith(ignored) or name.endswith(ignored))
    }
    return {**constants, **kept}
