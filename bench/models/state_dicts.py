"""From what a file of weights holds to the `state_dict` of a module.

Published files wrap it under a key, hold several, put prefixes before names, keep other things
beside it, or lack counters that torch itself does without. What fits a module in one way alone is
taken; of several, the one that is usually meant, and it is said; the rest is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError, InputNotice
from bench.models.alignment import (
    COUNTERS,
    WRAPPERS,
    aligned,
    is_standardising,
    misshapen,
    parts_that_fit,
    same,
    under,
)
from bench.models.claims import lacks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from bench.models.alignment import Names

#: Where there are several that fit, the first of these keys is taken, and it is said.
_USUAL = (
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "params"),
    "checkpoint",
)

#: Keys of what has names and shapes of weights and is none.
_OTHERS = re.compile(r".*optim.*|.*scheduler.*|exp_avg.*|grad(ient)?s?", re.IGNORECASE)

#: How deep in a file a `state_dict` may lie.
_DEPTH = 3

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
    named = [
        some
        for key, whole in found.items()
        for prefix in {part, part.removeprefix(f"{key}.")}
        if (some := under(f"{prefix}.", whole))
    ]
    if len(named) != 1:
        raise CheckpointError(f"{path} has no weights under {part!r}; {_holds(content, found)}")
    return named[0]


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
    fitting = {key: fit for key, each in found.items() if (fit := aligned(each, module))}
    parts: dict[str, tuple[str, str]] = {}
    if not fitting:
        for key, whole in found.items():
            inside = parts_that_fit(whole, module)
            besides = tuple(f"{part}." for part in inside)
            rest = {n: t for n, t in whole.items() if not n.startswith(besides)}
            if inside and (own := aligned(rest, module)):
                fitting[key] = own
            for part, fit in inside.items():
                fitting[_joined(key, part)] = fit
                parts[_joined(key, part)] = key, part
    if not fitting:
        raise CheckpointError(f"{path} is of another architecture ({_faults(found, module)})")
    chosen = _chosen(path, [*fitting])
    if chosen in parts:
        key, part = parts[chosen]
        beside = {n: t for n, t in found[key].items() if not n.startswith(f"{part}.")}
        _check_beside(path, chosen, beside, module, _faults(found, module))
    weights = fitting[chosen]
    others = [key for key in fitting if key != chosen and not same(fitting[key], weights)]
    if others:
        _say(
            f"{path.name} holds several sets of weights ({', '.join(map(_told, fitting))}): "
            f"{_told(chosen)} is taken; another one by --checkpoint 'NAME={path}#{others[0]}'"
        )
    _check_values(path, weights, module)
    counters = sorted(n for n in found.get(chosen, ()) if n.rpartition(".")[2] in COUNTERS)
    if counters:
        _say(
            f"{path.name}: {len(counters)} counters among its weights are not read: "
            f"{_some(counters)}"
        )
    return weights


def _check_beside(path: Path, chosen: str, beside: Names, module: nn.Module, faults: str) -> None:
    """Say what lies beside the weights that are taken.

    Raises:
        CheckpointError: numbers that standardise their inputs, which the module lacks.
    """
    numbers = [n for n, tensor in beside.items() if is_standardising(n) and lacks(module, tensor)]
    if numbers:
        raise CheckpointError(
            f"{path} is of another architecture ({faults}); those under {chosen} would fit: write "
            f"PATH#{chosen}; but beside them are numbers that standardise their inputs, "
            f"{_some(numbers)} (as in an AttackerModel of MadryLab's robustness), and not in your "
            "module, which has to standardise its inputs itself"
        )
    _say(
        f"{path.name}: the weights under {chosen} are taken, the other {len(beside)} are not "
        f"read: {_some(sorted(beside))}"
    )


def _told(key: str) -> str:
    return key or "the one under no key"


def _joined(key: str, part: str) -> str:
    return f"{key}.{part}" if key else part


def state_dicts(content: Any) -> dict[str, Names]:
    """Every mapping of names to tensors in what a file holds, by its keys joined by dots.

    What else such a mapping has beside its tensors counts as further ones, or is passed over. One
    that is the whole content has the key ``""``.
    """
    return dict(_within(content, "", 0))


def _within(content: Any, key: str, depth: int) -> Iterator[tuple[str, Names]]:
    import torch

    if isinstance(content, (list, tuple)):
        content = {str(place): each for place, each in enumerate(content)}
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    if depth and len(named) < len(content):
        return
    if tensors := {n: value for n, value in named.items() if isinstance(value, torch.Tensor)}:
        yield key, tensors
    for name, value in named.items():
        if not _OTHERS.fullmatch(name):
            yield from _within(value, f"{key}.{name}" if key else name, depth + 1)


def _chosen(path: Path, keys: list[str]) -> str:
    """The one that is taken of several that fit: what is usually meant, no average beside it.

    Raises:
        CheckpointError: nothing says which is meant.
    """
    if len(keys) == 1:
        return keys[0]
    ranks = {key: rank for key in keys if (rank := _rank(key)) is not None}
    usual = min(ranks, key=lambda key: ranks[key], default=None)
    if usual is None:
        raise CheckpointError(
            f"{path} holds several sets of weights that fit ({', '.join(keys)}); say which is "
            f"meant: --checkpoint 'NAME={path}#{keys[0]}'"
        )
    return usual


def _rank(key: str) -> list[int] | None:
    """The place of a key among the usual ones; None where it is none of them."""
    parts = [part for part in key.split(".") if part and part not in WRAPPERS]
    return [_USUAL.index(part) for part in parts] if {*parts} <= {*_USUAL} else None


def _faults(found: Mapping[str, Names], module: nn.Module) -> str:
    """What keeps the usual ones of some weights from a module."""
    most = max(found, key=lambda key: len(found[key]))
    weights = found[next((key for key in _USUAL if key in found), most)]
    expected = module.state_dict()
    faults = [
        f"{fault}: {_some(names)}"
        for fault, names in (
            ("missing", [name for name in expected if name not in weights]),
            ("unexpected", [name for name in weights if name not in expected]),
            ("of another shape", misshapen(weights, expected)),
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
            "its order: folder:PATH[classes=FILE], for ImageNet [classes=imagenet]"
        )
    return "; ".join(faults)


def _holds(content: Any, found: Mapping[str, Names]) -> str:
    """What there is instead, for errors."""
    if found:
        return f"it has some under {', '.join(key or 'no key' for key in found)}"
    if isinstance(content, Mapping):
        return f"it has {_some([str(key) for key in content]) or 'nothing'}"
    return f"got {type(content).__name__}"


def _check_values(path: Path, weights: Names, module: nn.Module) -> None:
    """Refuse weights that are no plain finite numbers, or whole ones where the module has others.

    Raises:
        CheckpointError: some are not.
    """
    expected = module.state_dict()
    for name, tensor in weights.items():
        if fault := _fault(tensor, expected[name]):
            raise CheckpointError(
                f"{path}: the weights {name!r} are {fault}; save those of the model as it was "
                "trained: torch.save(model.state_dict(), 'weights.pt')"
            )
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path}: the weights {name!r} contain NaN or infinity; the training that made "
                "them diverged: train again with another seed or a lower learning rate"
            )


def _fault(tensor: Tensor, expected: Tensor) -> str:
    """What keeps a tensor from being a module's weights, whatever it holds; empty for nothing."""
    import torch

    if tensor.is_meta:
        return "names and shapes without numbers (of the device meta)"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.layout is not torch.strided:
        return f"sparse ({tensor.layout})"
    if expected.is_floating_point() and not tensor.is_floating_point():
        return f"{tensor.dtype} where the model has {expected.dtype}"
    return ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _say(sentence: str) -> None:
    warnings.warn(sentence, InputNotice, stacklevel=2)
