"""From what a file of weights holds to the `state_dict` of a module.

Published files wrap it under a key, hold several, put a prefix before every name, or lack counters
that torch itself does without. What fits a module in one way alone is taken; the rest is refused.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError, InputNotice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    Names = Mapping[str, Tensor]

#: Where there are several that fit, the first of these keys is taken, and it is said.
_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")

#: What tools leave among weights: thop's counters, and that of an average of models.
_COUNTERS = {"total_ops", "total_params", "n_averaged"}

#: How deep in a file a `state_dict` may lie, and how many prefixes may stand before its names.
_DEPTH, _PREFIXES = 3, 6

#: How many names of one fault an error shows.
_SHOWN = 3


def part_of(path: Path, content: Any, part: str) -> Any:
    """The weights that `FILE#PART` names: by keys, or by the beginning of names; all where empty.

    Raises:
        CheckpointError: there is none.
    """
    if not part:
        return content
    found = state_dicts(content)
    if part in found:
        return found[part]
    named = [each for each in (_under(f"{part}.", whole) for whole in found.values()) if each]
    if len(named) != 1:
        raise CheckpointError(f"{path} has no weights under {part!r}; {_holds(content, found)}")
    return named[0]


def _under(prefix: str, weights: Names) -> dict[str, Tensor]:
    """Those whose names have a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}


def state_dict_for(module: nn.Module, path: Path, content: Any) -> dict[str, Tensor]:
    """The weights for a module in what a file holds, under the module's names.

    Args:
        module: that they are for.
        path: of the file, for errors.
        content: of the file.

    Raises:
        CheckpointError: there are none, none of this architecture, or several of which none is
            meant more than another; or weights are not finite.
    """
    found = state_dicts(content)
    if not found:
        raise CheckpointError(
            f"{path} is not a checkpoint: it has to hold a state_dict, names to tensors; "
            f"{_holds(content, found)}"
        )
    fitting = {key: fit for key, each in found.items() if (fit := _aligned(each, module))}
    if not fitting:
        usual = next((key for key in _USUAL if key in found), next(iter(found)))
        raise CheckpointError(
            f"{path} is of another architecture ({_faults(found[usual], module)})"
        )
    chosen = _chosen(path, [*fitting])
    weights = fitting[chosen]
    _check_finite(path, weights)
    if left := sorted(key for key in found[chosen] if key.rpartition(".")[2] in _COUNTERS):
        _say(f"{path.name}: {len(left)} counters among its weights are not read: {_some(left)}")
    return weights


def state_dicts(content: Any) -> dict[str, Names]:
    """Every mapping of names to tensors in what a file holds, by its keys joined by dots.

    One that is the whole content has the key ``""``, as has what of the content is tensors where
    there is no other.
    """
    found = dict(_within(content, "", 0))
    if not found and isinstance(content, Mapping):
        import torch

        tensors = {n: t for n, t in content.items() if isinstance(t, torch.Tensor)}
        found = {"": tensors} if tensors and all(isinstance(n, str) for n in tensors) else {}
    return found


def _within(content: Any, key: str, depth: int) -> Iterator[tuple[str, Names]]:
    import torch

    if not isinstance(content, Mapping) or not content or depth > _DEPTH:
        return
    if not all(isinstance(name, str) for name in content):
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, content
        return
    for name, value in content.items():
        yield from _within(value, f"{key}.{name}" if key else name, depth + 1)


def _chosen(path: Path, keys: list[str]) -> str:
    """The one that is taken of several that fit.

    Raises:
        CheckpointError: nothing says which is meant.
    """
    if len(keys) == 1:
        return keys[0]
    usual = next((key for key in _USUAL if key in keys), None)
    other = next(key for key in keys if key != usual)
    if usual is None:
        raise CheckpointError(
            f"{path} holds several sets of weights that fit ({', '.join(keys)}); say which is "
            f"meant: --checkpoint 'NAME={path}#{other}'"
        )
    _say(
        f"{path.name} holds several sets of weights ({', '.join(keys)}): {usual} is taken; another "
        f"one by --checkpoint 'NAME={path.name}#{other}'"
    )
    return usual


def _aligned(weights: Names, module: nn.Module) -> dict[str, Tensor] | None:
    """Weights under the names of a module, if they are all of its weights.

    A prefix that all names of the file have goes, and one that all names of the module have is put
    before them, where that makes them fit.
    """
    expected = module.state_dict()
    names = {
        name: tensor
        for name, tensor in weights.items()
        if name in expected or name.rpartition(".")[2] not in _COUNTERS
    }
    for theirs, ours in itertools.product(_prefixes(names), _prefixes(expected)):
        renamed = {ours + name.removeprefix(theirs): tensor for name, tensor in names.items()}
        if together := _completed(renamed, expected):
            return together
    return None


def _prefixes(names: Iterable[str]) -> list[str]:
    """What stands before all names, from nothing to all that they have in common."""
    parts = [name.split(".")[:-1] for name in names]
    found = [""]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        found.append(f"{found[-1]}{level[0]}.")
    return found


def _completed(names: Names, expected: Names) -> dict[str, Tensor] | None:
    """All weights of a module under its own names, if these are they.

    A counter that only training reads may be missing, as for torch itself.
    """
    spare = {n: t for n, t in expected.items() if n.rpartition(".")[2] == "num_batches_tracked"}
    together = {**spare, **names}
    fits = together.keys() == expected.keys() and not _misshapen(together, expected)
    return together if names and fits else None


def _misshapen(weights: Names, expected: Names) -> list[str]:
    return [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]


def _faults(weights: Names, module: nn.Module) -> str:
    """What keeps weights from a module, and which part of them would fit."""
    expected = module.state_dict()
    faults = [
        f"{fault}: {_some(names)}"
        for fault, names in (
            ("missing", [name for name in expected if name not in weights]),
            ("unexpected", [name for name in weights if name not in expected]),
            ("of another shape", _misshapen(weights, expected)),
        )
        if names
    ]
    pairs = {
        (weights[name].shape[0], tensor.shape[0])
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape and tensor.ndim
        if weights[name].shape[1:] == tensor.shape[1:]
    }
    if len(faults) == 1 and len(pairs) == 1:
        ((theirs, ours),) = pairs
        faults.append(
            f"where it tells {theirs} classes apart and the data have {ours} of them, name all in "
            "its order: folder:PATH[classes=FILE]"
        )
    return "; ".join([*faults, *_parts(weights, expected)])


def _parts(weights: Names, expected: Names) -> Iterator[str]:
    """Which part of the weights would fit, by the beginning of their names."""
    prefixes = {
        ".".join(parts[:count]) + "."
        for parts in (name.split(".") for name in weights)
        for count in range(1, min(len(parts), _PREFIXES))
    }
    fitting = [p for p in sorted(prefixes) if _completed(_under(p, weights), expected)]
    if fitting:
        usual = min(fitting, key=lambda prefix: (prefix.count("."), len(prefix)))
        yield (f"but those under {_some(fitting)} would fit: write PATH#{usual.removesuffix('.')}")
    if fitting and any("normalizer." in name for name in weights):
        yield (
            "as MadryLab's robustness saves an AttackerModel, whose normalizer is before them: "
            "your module has to standardise its inputs itself"
        )


def _holds(content: Any, found: Mapping[str, Names]) -> str:
    """What there is instead, for errors."""
    if found:
        return f"it has some under {', '.join(key or 'no key' for key in found)}"
    if isinstance(content, Mapping):
        return f"it has {_some([str(key) for key in content]) or 'nothing'}"
    return f"got {type(content).__name__}"


def _check_finite(path: Path, weights: Names) -> None:
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path}: the weights {name!r} contain NaN or infinity; the training that made "
                "them diverged: train again with another seed or a lower learning rate"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _say(sentence: str) -> None:
    warnings.warn(sentence, InputNotice, stacklevel=2)
