"""What a class has to be like to be a plugin: whether it keeps to the interface of its base."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, ClassVar, Literal, get_args, get_origin

from bench.threat import Norm

if TYPE_CHECKING:
    from bench.api import Plugin


def fault_of(cls: type[Plugin], base: type[Plugin]) -> str | None:
    """The first thing about a class that its users could not live with, or None.

    Args:
        cls: a subclass of the base.
        base: `bench.api.Defense` or `bench.api.Attack`.
    """
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        return f"lacks {', '.join(f'{method}()' for method in missing)}"
    if not isinstance(getattr(cls, "summary", None), str) or not cls.summary.strip():
        return "needs a one-line `summary`"
    if type(cls.version) is not int or cls.version < 0:
        return f"`version` has to be a whole number from 0 up (got {cls.version!r})"
    if fault := _signature_fault(cls, base):
        return fault
    if cls.argument and not _takes_argument(cls):
        return "a scheme's `__init__` has to take what stands behind the colon by position"
    return _attribute_fault(cls, base)


def _signature_fault(cls: type, base: type) -> str | None:
    """Where an overridden method cannot be called as the base class declares it."""
    for method, declared in inspect.getmembers(base, inspect.isfunction):
        actual = getattr(cls, method, None)
        if method.startswith("_") or actual is declared:
            continue
        if not callable(actual):
            return f"{method} has to be a method"
        wanted = list(inspect.signature(declared).parameters)
        taken = inspect.signature(actual).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            for name in wanted[1:]:
                if name not in taken:
                    return f"{method}() does not take the argument {name!r}"
        for name, p in taken.items():
            given = name in wanted or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            if not given and p.default is p.empty:
                return f"{method}() needs the argument {name!r}, which it is never given"
    return None


def _attribute_fault(cls: type, base: type) -> str | None:
    """Where a class attribute is not one of the values that the base class declares."""
    for attribute, hint in typing.get_type_hints(base).items():
        allowed = get_args(get_args(hint)[0]) if get_origin(hint) is ClassVar else ()
        is_choice = get_origin(get_args(hint)[0]) is Literal if allowed else False
        if is_choice and getattr(cls, attribute) not in allowed:
            return f"`{attribute}` has to be one of {allowed} (got {getattr(cls, attribute)!r})"
    norms: object = getattr(cls, "norms", frozenset())
    if not isinstance(norms, frozenset) or not all(isinstance(norm, Norm) for norm in norms):
        return f"`norms` has to be a frozenset of bench.threat.Norm (got {norms!r})"
    return None


def _takes_argument(cls: type) -> bool:
    """Whether `__init__` has a first parameter that can be given by position."""
    first = list(inspect.signature(inspect.getattr_static(cls, "__init__")).parameters.values())[
        1:2
    ]
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in first)
