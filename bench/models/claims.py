"""What a file of weights says of its classes and inputs, held against the data and the module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.data.classes import folded, shown
from bench.errors import CheckpointError, InputNotice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

#: Keys under which files keep the names of their classes.
_CLASSES = (
    *("class_names", "classes", "class_to_idx", "idx_to_class", "id2label", "label2id"),
    *("categories", "label_names", "labels"),
)


def recorded_classes(content: Any) -> tuple[str, ...] | None:
    """The class names in what a file holds, in the order of the logits; None where there are none.

    A list of names, indices by name, or names by index, at the top or one key below.
    """
    for place in _places(content):
        for key in _CLASSES:
            if (names := _names(place.get(key))) is not None:
                return names
    return None


def _places(content: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(content, Mapping):
        yield content
        yield from (value for value in content.values() if isinstance(value, Mapping))


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        try:
            if value and all(isinstance(index, int) for index in value.values()):
                value = {index: name for name, index in value.items()}
            by_index = {int(index): name for index, name in value.items()}
        except (TypeError, ValueError):
            return None
        value = [by_index.get(index) for index in range(len(by_index))]
    if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    return None


def check_classes(where: str, recorded: Sequence[str] | None, classes: Sequence[str]) -> None:
    """Refuse weights whose classes are those of the data in another order; say other differences.

    Args:
        where: the weights are from.
        recorded: their classes, if they are known.
        classes: of the data.

    Raises:
        CheckpointError: a class has another place among them than among those of the data.
    """
    theirs, ours = ([*map(folded, names or ())] for names in (recorded, classes))
    if not recorded or theirs == ours:
        return
    places = {name: place for place, name in enumerate(theirs)}
    moved = [n for place, n in enumerate(ours) if places.get(n, place) != place]
    if moved:
        raise CheckpointError(
            f"{where} has its classes in the order {shown(recorded)}, the data in the order "
            f"{shown(classes)}, so that {moved[0]!r} is another logit than its label; give the "
            "data the order of the weights: folder:PATH[classes=FILE] or parquet:PATH[classes="
            "FILE], a class a line"
        )
    warnings.warn(
        f"{where} calls its {len(recorded)} classes {shown(recorded)}, and the data call their "
        f"{len(classes)} {shown(classes)}: whether they are the same cannot be told",
        InputNotice,
        stacklevel=2,
    )


def check_normalisation(path: Path, content: Any, module: nn.Module) -> None:
    """Say that inputs were standardised for these weights, where the module does not do it."""
    for place in _places(content):
        mean, std = (_numbers(place.get(key)) for key in ("mean", "std"))
        if mean is None or std is None:
            continue
        if lacks(module, mean) or lacks(module, std):
            warnings.warn(
                f"{path.name} says that its inputs were standardised with mean {mean} and std "
                f"{std}, and no such numbers are in the module: it has to do this itself, for the "
                "data stay in [0, 1]",
                InputNotice,
                stacklevel=2,
            )
        return


def lacks(module: nn.Module, value: Any) -> bool:
    """Whether a value is one number or three, and no such are in a module."""
    numbers = _numbers(value)
    return numbers is not None and not any(_close(numbers, has) for has in _constants(module))


def _numbers(value: Any) -> list[float] | None:
    """One number or three, from a number, a list or a tensor."""
    import numpy as np

    try:
        flat = np.asarray(value, dtype=float).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        return None
    return flat.tolist() if flat.size in (1, 3) and np.isfinite(flat).all() else None


def _constants(module: nn.Module) -> Iterator[list[float]]:
    """Whatever in a module is one number or three."""
    for part in module.modules():
        for value in (*part.buffers(recurse=False), *vars(part).values()):
            if (numbers := _numbers(value)) is not None:
                yield numbers


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True)
    )
