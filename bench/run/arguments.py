"""What callers of `bench.evaluate` write, as other tools take it, made into what a run takes.

Everything but the model and the examples (`bench.run.brought`) is converted here, in one place:
what comes out is a plain Python value, and whatever cannot be is a `UsageError` that says what can.
"""

from __future__ import annotations

import itertools
import math
import numbers
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import UsageError
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Epsilons of one call, at most: an endless generator ends here.
MOST = 1000


def epsilons(given: Any) -> list[Epsilon]:
    """Ascending, from a number, a text such as `8/255` or `0.1, 0.2`, or any iterable of those.

    Raises:
        UsageError: none, too many, or one that is no positive number.
    """
    if isinstance(given, str):
        items: list[Any] = [part for part in given.split(",") if part.strip()]
    elif _is_number(given):
        items = [given]
    elif isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)):
        items = list(itertools.islice(given, MOST + 1))
    else:
        raise UsageError(
            "epsilons have to be numbers or text, one or a list, such as 0.03 or ['4/255', "
            f"'8/255'] (got {_shown(given)})"
        )
    if len(items) > MOST:
        raise UsageError(f"epsilons are more than {MOST:,}; give those that the table should have")
    if isinstance(given, (set, frozenset)):  # the order of a set is not that of its writer
        items.sort(key=str)
    return Epsilon.parse_many([_number(item) for item in items])


def headline(given: Any, radii: Sequence[Epsilon]) -> str:
    """As the epsilons write it, where one of them is this float; empty for None.

    Raises:
        UsageError: no positive number.
    """
    if given is None:
        return ""
    wanted = Epsilon.parse(_number(given))
    same = [radius for radius in radii if radius == wanted or float(radius) == float(wanted)]
    return (same or [wanted])[0].text


def _is_number(value: Any) -> bool:
    """Whether it is one number, in whatever library's clothes."""
    return isinstance(value, (numbers.Number, Epsilon)) or getattr(value, "ndim", None) == 0


def _number(value: Any) -> str | Fraction | Epsilon:
    """One epsilon as `Epsilon.parse` reads it, with the digits of its own precision."""
    if isinstance(value, (str, Fraction, Epsilon)):
        return value
    found = _plain(value)
    if not _is_number(found) or isinstance(found, (bool, complex)):
        raise UsageError(
            f"an epsilon has to be a number or text such as 8/255 (got {_shown(value)})"
        )
    return str(found)


def _plain(value: Any) -> Any:
    """A scalar of torch or numpy as Python's or numpy's own; anything else as it is."""
    import numpy as np

    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    try:
        found = value.item()
    except (RuntimeError, ValueError):  # a tensor without values, of the meta device
        return None
    narrow = isinstance(found, float) and "float32" in str(getattr(value, "dtype", ""))
    return np.float32(found) if narrow else found  # 8/255, not its digits in float64


def attack_names(given: Any) -> str:
    """Separated by commas, from such a text or from names in any iterable; a set's are sorted.

    Raises:
        UsageError: neither text nor an iterable of texts.
    """
    if isinstance(given, str):
        return given
    names = None
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        names = list(itertools.islice(given, MOST))
    if names is None or not all(isinstance(name, str) for name in names):
        other = given if names is None else next(n for n in names if not isinstance(n, str))
        raise UsageError(
            "attacks have to be names, 'fgsm,pgd' or ['fgsm', 'pgd'], as `python -m bench list` "
            f"shows them (got {_shown(other)})"
        )
    return ",".join(sorted(names) if isinstance(given, (set, frozenset)) else names)


def device(given: Any) -> str:
    """As `resolve_device` reads it, from text, a `torch.device`, the number of a GPU, or None."""
    if given is None:
        return "auto"
    index = None if isinstance(given, str) else _index(given)
    return str(given) if index is None else f"cuda:{index}"


def whole(name: str, given: Any, *, least: int) -> int:
    """A whole number, from Python's, numpy's or torch's, or from a float that is one.

    Raises:
        UsageError: none, or less than `least`.
    """
    found = _index(given)
    if found is None or found < least:
        raise UsageError(f"{name} has to be a whole number from {least} up (got {_shown(given)})")
    return found


def _index(given: Any) -> int | None:
    if isinstance(given, bool) or "bool" in str(getattr(given, "dtype", "")):
        return None
    try:
        return operator.index(given)
    except (TypeError, ValueError, RuntimeError):
        pass
    plain = _plain(given)
    if not isinstance(plain, numbers.Real) or not math.isfinite(plain):
        return None
    return int(float(plain)) if float(plain).is_integer() else None


def optional(name: str, given: Any, *, least: int) -> int | None:
    """The same, or None."""
    return None if given is None else whole(name, given, least=least)


def seconds(name: str, given: Any) -> float | None:
    """A number from 0 up, of whatever library, or None.

    Raises:
        UsageError: anything else, text too.
    """
    if given is None:
        return None
    found = _plain(given)
    real = isinstance(found, numbers.Real) and not isinstance(found, bool)
    if not (real and 0 <= found < math.inf):
        raise UsageError(
            f"{name} has to be seconds from 0 up, a number; 0 for no end (got {_shown(given)})"
        )
    return float(min(found, sys.float_info.max))


def flag(name: str, given: Any) -> bool:
    """Python's or numpy's true or false.

    Raises:
        UsageError: anything else, which Python would take for true or false as well.
    """
    found = _plain(given)
    if not isinstance(found, bool):
        raise UsageError(f"{name} has to be True or False (got {_shown(given)})")
    return found


def examine(given: Any) -> bool | Literal["each"]:
    """True, False or `each`; `headline` and `none`, as the command line has it, are the first two.

    Raises:
        UsageError: anything else.
    """
    words: dict[str, bool | Literal["each"]] = {"each": "each", "headline": True, "none": False}
    if isinstance(given, str) and given in words:
        return words[given]
    if not isinstance(_plain(given), bool):
        raise UsageError(f"examine has to be True, False or 'each' (got {_shown(given)})")
    return flag("examine", given)


def model_name(given: Any) -> str:
    """A name for tables.

    Raises:
        UsageError: no text, nothing in it, or what cannot be printed on a line.
    """
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise UsageError(f"name has to be a line of text, such as 'model' (got {_shown(given)})")
    return given.strip()


def class_names(given: Any) -> list[str] | None:
    """One a class in order, from any iterable or from a mapping of numbers (`id2label`).

    Raises:
        UsageError: a single text, fewer than two, a set, or a mapping that is not of 0, 1, …
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        by_number = {str(key): name for key, name in given.items()}
        if by_number.keys() != {str(i) for i in range(len(by_number))}:
            raise UsageError(
                "class_names, where it is a mapping, has to be of the numbers 0, 1, … to names "
                f"(got keys {_shown(list(given))})"
            )
        names = [by_number[str(i)] for i in range(len(by_number))]
    elif isinstance(given, (set, frozenset)):  # another order in every process
        raise UsageError(
            "class_names has to be a list, in the order of the model's outputs; a set has no order "
            f"(got {_shown(given)})"
        )
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        names = list(itertools.islice(given, 10**6))
    else:
        raise UsageError(f"class_names has to be a list, one a class (got {_shown(given)})")
    if len(names) < 2:
        raise UsageError(f"class_names has to name at least 2 classes (got {_shown(names)})")
    return [str(name) for name in names]


def folder(name: str, given: Any) -> Path:
    """A path.

    Raises:
        UsageError: empty, with a character that no path has, or no path.
    """
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise UsageError(f"{name} has to be the path of a folder (got {_shown(given)})")
    text = os.fspath(given)
    if not text.strip() or "\0" in text or not _is_storable(Path(text)):
        raise UsageError(f"{name} has to be the path of a folder (got {_shown(text)})")
    return Path(text)


def _is_storable(path: Path) -> bool:
    """Whether every part of a path can be the name of a file."""
    try:
        return all(len(os.fsencode(part)) <= 255 for part in path.parts)
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    """A value in a message: short, and on one line."""
    text = " ".join(repr(value).split())
    kind = type(value).__name__
    return f"{text}, {kind}" if len(text) <= 60 else f"{text[:57]}…, {kind}"
