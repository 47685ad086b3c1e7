"""What a class has to be like to be a plugin: whether it keeps to the interface of its base."""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin

from bench.errors import UsageError
from bench.registry.grammar import NAME, Written, parameters_of

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
        if get_origin(hint) is not ClassVar or not hasattr(cls, attribute):
            continue
        (wanted,), value = get_args(hint), getattr(cls, attribute)
        if not _fits(value, wanted):
            if get_origin(wanted) is Literal:
                return f"`{attribute}` has to be one of {get_args(wanted)} (got {value!r})"
            return f"`{attribute}` has to be {_written(wanted)} (got {value!r})"
    return _options_fault(cls)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type as class attributes are annotated."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in parts
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (tuple, frozenset):
        return isinstance(value, origin) and all(_fits(item, parts[0]) for item in value)
    return isinstance(value, origin or hint)


def _written(hint: Any) -> str:
    """A type as an error message calls it."""
    if get_origin(hint) is frozenset:
        (part,) = get_args(hint)
        return f"a frozenset of {part.__module__}.{part.__name__}"
    return f"a {hint.__name__}" if isinstance(hint, type) else str(hint)


def _options_fault(cls: type) -> str | None:
    """Where it names options of itself, for an examination, that it does not take."""
    rounds = getattr(cls, "escalation", ())
    named = [*getattr(cls, "examination", ()), *(name for names in rounds for name in names)]
    named += [*getattr(cls, "planted", ()), getattr(cls, "stand_in", "")]
    for options in named:
        try:
            asked = Written.parse(f"{cls.__name__}[{options}]").options
        except UsageError as error:
            return str(error)
        known = parameters_of(cls)
        for key, value in asked.items():
            if key not in known:
                return f"an examination of it names {options!r}, and it takes no {key!r}"
            try:
                known[key].read(value, cls.__name__)
            except UsageError as error:
                return f"an examination of it names {options!r}: {error}"
    challenge = getattr(cls, "challenge", "")
    if challenge and not NAME.fullmatch(challenge):
        return f"`challenge` has to be lower-case words joined by hyphens (got {challenge!r})"
    return None


def _takes_argument(cls: type) -> bool:
    """Whether `__init__` has a first parameter that can be given by position."""
    first = list(inspect.signature(inspect.getattr_static(cls, "__init__")).parameters.values())[
        1:2
    ]
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in first)
