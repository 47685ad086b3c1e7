"""The grammar of names, and the parameters of plugins that it writes.

One name serves the command line, files and tables: `scheme:argument[key=value,…]`. The canonical
name has its keys sorted and its defaults left out, so that one thing has one name.
"""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from bench.errors import PluginError, UsageError, printable

Value = bool | int | float | str


#: Numbers are smaller: JSON has no infinity, and what is close to it overflows.
LARGEST = 1e300
#: What a bare name looks like.
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_WRITTEN = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<options>[^\[\]]*)\])?")


@dataclass(frozen=True)
class Written:
    """A name as written: what it calls, and its options as text."""

    name: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Written:
        """Read `name` or `name[key=value,…]`.

        Raises:
            UsageError: brackets or options that cannot be read, or a key given twice.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None or printable(text) != text:
            raise UsageError(f"cannot read the name {text!r}; write name or name[key=value,…]")
        options: dict[str, str] = {}
        for item in (match["options"] or "").split(","):
            if not item.strip():
                continue
            key, equals, value = (part.strip() for part in item.partition("="))
            if not (key and equals and value):
                raise UsageError(f"cannot read {item.strip()!r} in {text!r}; write key=value")
            if key in options:
                raise UsageError(f"{key!r} is given twice in {text!r}")
            options[key] = value
        return cls(match["name"].strip(), options)

    @property
    def scheme(self) -> str:
        """What stands before the first colon: the name that a plugin is registered under."""
        return self.name.partition(":")[0].strip()

    @property
    def argument(self) -> str:
        """What stands behind it; empty without a colon."""
        return self.name.partition(":")[2].strip()


def squeezed(name: str) -> str:
    """A name without case, hyphens and spaces: `HopSkipJump` and `hop-skip-jump` are one."""
    return "".join(character for character in name.lower() if character.isalnum())


def split_names(text: str) -> list[str]:
    """Split a list at the commas outside brackets: `a,b[x=1,y=2]` is two names.

    Raises:
        UsageError: brackets that do not match.
    """
    names, depth, current = [], 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth not in (0, 1):
            raise UsageError(f"brackets do not match in {text!r}")
        if character == "," and depth == 0:
            names.append(current)
            current = ""
        else:
            current += character
    if depth:
        raise UsageError(f"brackets do not match in {text!r}")
    return [name.strip() for name in [*names, current] if name.strip()]


@dataclass(frozen=True)
class Parameter:
    """One keyword of a plugin: its type, and its default."""

    key: str
    value_type: type[bool] | type[int] | type[float] | type[str]
    choices: tuple[str, ...]
    default: Value

    def read(self, text: str, owner: str) -> Value:
        """The value that a text stands for.

        Raises:
            UsageError: not of this parameter's type.
        """
        allowed = f"one of {', '.join(self.choices)}" if self.choices else self.value_type.__name__
        try:
            if self.value_type is bool:
                return {"true": True, "false": False}[text.lower()]
            if self.choices and text not in self.choices:
                raise ValueError
            value = self.value_type(text)
        except (KeyError, ValueError):
            allowed = "true or false" if self.value_type is bool else allowed
            raise UsageError(f"{owner}: {self.key} has to be {allowed} (got {text!r})") from None
        if isinstance(value, float) and not abs(value) < LARGEST:
            raise UsageError(f"{owner}: {self.key} has to be a finite number (got {text!r})")
        return value

    def write(self, value: Value) -> str:
        """The one way to write a value."""
        return str(value).lower() if isinstance(value, bool) else str(value)


def parameters_of(cls: type) -> dict[str, Parameter]:
    """The parameters of a plugin, from the signature of its `__init__`.

    A scheme's first one, which takes what stands behind the colon, is none of them.

    Raises:
        PluginError: one is not keyword-only, has no default, a default that is not finite, or an
            unwritable type.
    """
    initialiser = inspect.getattr_static(cls, "__init__")
    if initialiser is object.__init__:
        return {}
    hints = typing.get_type_hints(initialiser)
    found: dict[str, Parameter] = {}
    positional = 2 if getattr(cls, "argument", "") else 1
    for key, argument in list(inspect.signature(initialiser).parameters.items())[positional:]:
        where = f"{cls.__module__}.{cls.__qualname__}: parameter {key!r}"
        if argument.kind is not argument.KEYWORD_ONLY or argument.default is argument.empty:
            raise PluginError(f"{where} has to be keyword-only and to have a default")
        hint: Any = hints.get(key)
        choices = tuple(get_args(hint)) if get_origin(hint) is Literal else ()
        value_type = str if choices else hint
        if value_type not in (bool, int, float, str) or not all(
            isinstance(c, str) for c in choices
        ):
            raise PluginError(f"{where} has to be annotated bool, int, float, str or Literal[str]")
        default = float(argument.default) if value_type is float else argument.default
        if value_type is float and not abs(default) < LARGEST:
            raise PluginError(f"{where} has to have a finite default (got {default})")
        found[key] = Parameter(key, value_type, choices, default)
    return found
