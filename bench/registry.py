"""Names to plugins: the grammar of names, registration, discovery.

One name serves the command line, files and tables: `scheme:argument[key=value,…]`. The canonical
name has its keys sorted and its defaults left out, so that one thing has one name.

Built-in plugins are the modules that lie directly in `defenses/` and `attacks/` (their building
blocks are packages inside); others arrive by the decorators below or by the entry-point groups
`winnow.defenses` and `winnow.attacks`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import types
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from bench.api import Attack, Defense, Plugin
from bench.errors import PluginError, UnknownNameError, UsageError, WinnowError
from bench.threat import Norm

P = TypeVar("P", bound=Plugin)
C = TypeVar("C", bound=type[Plugin])
Value = bool | int | float | str

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
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
        if match is None:
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
    kind: type[bool] | type[int] | type[float] | type[str]
    choices: tuple[str, ...]
    default: Value

    def read(self, text: str, owner: str) -> Value:
        """The value that a text stands for.

        Raises:
            UsageError: not of this parameter's type.
        """
        allowed = f"one of {', '.join(self.choices)}" if self.choices else self.kind.__name__
        try:
            if self.kind is bool:
                return {"true": True, "false": False}[text.lower()]
            if self.choices and text not in self.choices:
                raise ValueError
            value = self.kind(text)
        except (KeyError, ValueError):
            allowed = "true or false" if self.kind is bool else allowed
            raise UsageError(f"{owner}: {self.key} has to be {allowed} (got {text!r})") from None
        if isinstance(value, float) and value not in (float("inf"),) and not abs(value) < 1e300:
            raise UsageError(f"{owner}: {self.key} has to be a finite number (got {text!r})")
        return value

    def write(self, value: Value) -> str:
        """The one way to write a value."""
        return str(value).lower() if isinstance(value, bool) else str(value)


class Registry(Generic[P]):
    """Names to plugin classes of one kind, found when they are first asked for."""

    def __init__(self, kind: str, base: Any, package: str) -> None:
        self.kind = kind
        self.base: type[P] = base
        self.package = package
        self.group = f"winnow.{package}"
        self._classes: dict[str, type[P]] = {}
        self._origins: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that registers a plugin.

        Raises:
            PluginError: the name is malformed or taken, or the class breaks the interface.
        """

        def decorate(cls: C) -> C:
            self._check(name, cls)
            self._classes[name] = typing.cast("type[P]", cls)
            self._origins[name] = f"{cls.__module__}.{cls.__qualname__}"
            return cls

        return decorate

    def _check(self, name: str, cls: type) -> None:
        def refuse(fault: str) -> typing.NoReturn:
            raise PluginError(
                f"{self.kind} {name!r} ({cls.__module__}.{cls.__qualname__}): {fault}"
            )

        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            refuse(f"has to be a subclass of bench.api.{self.base.__name__}")
        if not _NAME.fullmatch(name):
            refuse("a name is lower-case words of letters and digits joined by hyphens")
        origin = f"{cls.__module__}.{cls.__qualname__}"
        if name in self._classes and self._origins[name] != origin:
            refuse(f"the name is taken by {self._origins[name]}")
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            refuse(f"lacks {', '.join(f'{method}()' for method in missing)}")
        if not isinstance(getattr(cls, "summary", None), str) or not cls.summary.strip():
            refuse("needs a one-line `summary`")
        fault = self._signature_fault(cls)
        if fault:
            refuse(fault)
        parameters_of(cls)

    def _signature_fault(self, cls: type[Plugin]) -> str | None:
        """Where an overridden method cannot be called as the base class declares it."""
        for method, declared in inspect.getmembers(self.base, inspect.isfunction):
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

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str) -> type[P]:
        """The class registered under a bare name.

        Raises:
            UnknownNameError: with the closest names.
        """
        self._discover()
        if name not in self._classes:
            raise UnknownNameError(self.kind, name, self._classes)
        return self._classes[name]

    def create(self, text: str) -> P:
        """A plugin from its name as written, `name` and `parameters` filled in.

        Raises:
            UnknownNameError: no such plugin.
            UsageError: an option that it does not have, or a value it does not take.
        """
        written = Written.parse(text)
        cls = self.get(written.name)
        known = parameters_of(cls)
        values: dict[str, Value] = {}
        for key, value in written.options.items():
            if key not in known:
                raise UnknownNameError(f"option of {self.kind} {written.name!r}", key, known)
            values[key] = known[key].read(value, written.name)
        try:
            plugin = cls(**values)
        except WinnowError as error:
            raise UsageError(f"{text}: {error}") from error
        full = {key: values.get(key, parameter.default) for key, parameter in known.items()}
        plugin.parameters = full
        options = [
            f"{key}={parameter.write(full[key])}"
            for key, parameter in sorted(known.items())
            if full[key] != parameter.default
        ]
        plugin.name = f"{written.name}[{','.join(options)}]" if options else written.name
        return plugin

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # before importing: a plugin's module may ask for names itself
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.ispkg and not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._discovered = False
            raise
        for point in importlib.metadata.entry_points(group=self.group):
            self._load(point)

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        """Load one third-party plugin; whatever goes wrong in it stays with it."""
        try:
            loaded = point.load()
            if isinstance(loaded, types.ModuleType):
                return  # a module registers what it holds by the decorators
            if loaded not in self._classes.values():
                self.register(point.name)(loaded)
        except Exception as error:  # noqa: BLE001 - somebody else's code may raise anything
            warnings.warn(
                f"the plugin {point.name!r} of {point.group} ({point.value}) cannot be loaded and "
                f"is left out: {type(error).__name__}: {error}",
                stacklevel=2,
            )


def parameters_of(cls: type[Plugin]) -> dict[str, Parameter]:
    """The parameters of a plugin, from the signature of its `__init__`.

    Raises:
        PluginError: one is not keyword-only, has no default, or has an unwritable type.
    """
    if cls.__init__ is object.__init__:
        return {}
    hints = typing.get_type_hints(cls.__init__)
    found: dict[str, Parameter] = {}
    for key, argument in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        where = f"{cls.__module__}.{cls.__qualname__}: parameter {key!r}"
        if argument.kind is not argument.KEYWORD_ONLY or argument.default is argument.empty:
            raise PluginError(f"{where} has to be keyword-only and to have a default")
        hint: Any = hints.get(key)
        choices = tuple(get_args(hint)) if get_origin(hint) is Literal else ()
        kind = str if choices else hint
        if kind not in (bool, int, float, str) or not all(isinstance(c, str) for c in choices):
            raise PluginError(f"{where} has to be annotated bool, int, float, str or Literal[str]")
        default = float(argument.default) if kind is float else argument.default
        found[key] = Parameter(key, kind, choices, default)
    return found


defenses: Registry[Defense] = Registry("defense", Defense, "defenses")
attacks: Registry[Attack] = Registry("attack", Attack, "attacks")

register_defense = defenses.register
register_attack = attacks.register

SuiteFunction = Callable[[Norm], list[str]]


@dataclass(frozen=True)
class Suite:
    """A named list of attacks that depends on the norm."""

    name: str
    summary: str
    members: SuiteFunction


suites: dict[str, Suite] = {}


def register_suite(name: str, summary: str) -> Callable[[SuiteFunction], SuiteFunction]:
    """Function decorator that registers a suite: from a norm to attack names.

    Raises:
        PluginError: the name is taken.
    """

    def decorate(function: SuiteFunction) -> SuiteFunction:
        if name in suites:
            raise PluginError(f"suite {name!r}: the name is taken")
        suites[name] = Suite(name, summary, function)
        return function

    return decorate


def create_attacks(text: str, norm: Norm) -> list[Attack]:
    """The attacks that a comma-separated list of attack and suite names stands for, each once.

    Raises:
        UnknownNameError: a name is neither an attack nor a suite.
        UsageError: the list is empty.
    """
    known = attacks.names()
    chosen: dict[str, Attack] = {}
    for written in split_names(text):
        bare = Written.parse(written)
        if bare.name in suites and not bare.options:
            members = suites[bare.name].members(norm)
        elif bare.name in known:
            members = [written]
        else:
            raise UnknownNameError("attack or suite", bare.name, [*known, *suites])
        for member in members:
            attack = attacks.create(member)
            chosen.setdefault(attack.name, attack)
    if not chosen:
        raise UsageError("no attack given; name attacks or a suite, such as --attacks standard")
    return list(chosen.values())
