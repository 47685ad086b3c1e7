"""Which tensors of a file are which weights of a module, by their names and shapes.

Wrappers put parts of their own into names (`module.` of DataParallel, `_orig_mod.` of
torch.compile, Lightning's `model.`), and leave or drop entries that no answer depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

Names = Mapping[str, "Tensor"]
_T = TypeVar("_T")

#: What tools leave among weights: thop's counters, and that of an average of models.
COUNTERS = frozenset({"total_ops", "total_params", "n_averaged"})

#: Parts of names that wrappers of torch's put there, at whatever depth.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

#: How many prefixes may stand before names.
_PREFIXES = 6


def under(prefix: str, weights: Names) -> dict[str, Tensor]:
    """Those whose names have a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}


def aligned(weights: Names, module: nn.Module) -> dict[str, Tensor] | None:
    """Weights under the names of a module, if they are all of its weights and nothing else.

    Parts of wrappers go. A prefix that all names of the file have goes, and one that all names of
    the module have is put before them, where that makes them fit. Counters that only training
    reads, and numbers of the module's own that standardise its inputs, may be missing.
    """
    expected = module.state_dict()
    names = {
        name: tensor
        for name, tensor in weights.items()
        if name in expected or name.rpartition(".")[2] not in COUNTERS
    }
    plain, ours = _unwrapped(names), _unwrapped(expected)
    places = dict(zip(ours, expected, strict=True))
    required = ours.keys() - {*_unwrapped(dict.fromkeys(constants(module)))}
    for gone, added in itertools.product(_prefixes(plain), _prefixes(sorted(required))):
        renamed = {added + name.removeprefix(gone): tensor for name, tensor in plain.items()}
        if renamed.keys() <= places.keys():
            together = completed({places[n]: t for n, t in renamed.items()}, module)
            if together:
                return together
    return None


def parts_that_fit(weights: Names, module: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The parts of some weights that are all of a module's, by the beginning of their names.

    One that lies in another is left out.
    """
    prefixes = {
        ".".join(parts[:count])
        for parts in (name.split(".") for name in weights)
        for count in range(1, min(len(parts), _PREFIXES))
    }
    found: dict[str, dict[str, Tensor]] = {}
    needed = len([*module.parameters()])
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.count("."), len(prefix), prefix)):
        part = under(f"{prefix}.", weights)
        fit = aligned(part, module) if len(part) >= needed else None
        if fit and not any(prefix.startswith(f"{other}.") for other in found):
            found[prefix] = fit
    return found


def completed(names: Names, module: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a module under its own names, if these are they."""
    expected, own = module.state_dict(), constants(module)
    spare = {n: t for n, t in expected.items() if n in own or _is_counter(n)}
    together = {**spare, **names}
    fits = together.keys() == expected.keys() and not misshapen(together, expected)
    return together if names and fits else None


def misshapen(weights: Names, expected: Names) -> list[str]:
    """What of some weights has another shape than is expected, and which."""
    return [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]


def constants(module: nn.Module) -> set[str]:
    """The buffers of a module that standardise its inputs: one number or one a channel."""
    return {
        name
        for name, buffer in module.named_buffers()
        if is_standardising(name) and buffer.numel() in (1, 3)
    }


def is_standardising(name: str) -> bool:
    """Whether a tensor of this name is a mean or a standard deviation of inputs."""
    last = name.rpartition(".")[2].lower()
    return last.endswith(("mean", "std", "mu", "sigma")) and not last.startswith("running_")


def _is_counter(name: str) -> bool:
    """Whether only training reads it, so that it may be missing, as for torch itself."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def _unwrapped(names: Mapping[str, _T]) -> dict[str, _T]:
    """The same in the same order, without wrappers' parts where all names stay different."""
    plain = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): tensor
        for name, tensor in names.items()
    }
    return plain if len(plain) == len(names) and "" not in plain else dict(names)


def _prefixes(names: Iterable[str]) -> list[str]:
    """What stands before all names, from nothing to all that they have in common."""
    parts = [name.split(".")[:-1] for name in names]
    found = [""]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        found.append(f"{found[-1]}{level[0]}.")
    return found


def same(one: Names, other: Names) -> bool:
    """Whether the weights of one module, twice, are equal."""
    return all(bool((one[name] == tensor).all()) for name, tensor in other.items())
